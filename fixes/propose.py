"""From findings to a proven plan: each repair is applied to the facts in memory and diagnosed again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from envdoctor.catalog import Severity
from envdoctor.diagnose import Diagnosis, diagnose
from envdoctor.facts.model import Facts
from envdoctor.finding import Finding
from envdoctor.fixes import kernels, libraries, library_paths, packages, threads, variables, xla
from envdoctor.fixes.plan import Action, Command, Manual, Plan, Risk
from envdoctor.fixes.repair import Fixer, Prefer, Wishes

# The first repair that is proven is taken.
FIXERS: Mapping[str, tuple[Fixer, ...]] = {
    "CDN002": (library_paths.another_cudnn_first,),
    "CDN003": (library_paths.another_cudnn_first,),
    "CDN004": (library_paths.another_cudnn_first,),
    "DRV001": (library_paths.driver_searched,),
    "ENV003": (kernels.repair_kernel,),
    "GPU013": (variables.small_gpu,),
    "HST002": (library_paths.newer_libstdcxx,),
    "HST005": (library_paths.driver_searched,),
    "HST009": (library_paths.driver_searched,),
    "LIB002": (libraries.links, libraries.exports),
    "LIB003": (libraries.links, libraries.exports),
    "LIB004": (library_paths.link_own_copy, library_paths.own_copy_first),
    "LIB005": (libraries.links, libraries.exports),
    "LIB006": (libraries.exports,),
    "LIB007": (libraries.exports,),
    "LIB008": (library_paths.link_what_is_needed, library_paths.what_is_needed_first),
    "LIB010": (libraries.links, libraries.exports),
    "LIB013": (library_paths.plain_name,),
    "THR001": (threads.fitting_pools,),
    "THR003": (threads.smaller_pools,),
    "XLA001": (xla.named_data_dir,),
    "XLA002": (xla.on_path, xla.named_data_dir),
    "XLA003": (xla.on_path, xla.named_data_dir),
}
_LINKING = frozenset(  # asked last where exports are preferred
    {libraries.links, library_paths.link_own_copy, library_paths.link_what_is_needed}
)


Key = tuple[str, str, str]  # code, subject, framework


class Refused(Struct, frozen=True):
    """A finding that stays, and why no repair is proposed for it."""

    code: str
    subject: str
    reason: str


class Proposal(Struct, frozen=True):
    plan: Plan
    cures: frozenset[int]  # indexes into the diagnosis' findings
    refused: tuple[Refused, ...]
    after: Diagnosis  # as it would be


def propose(facts: Facts, diagnosis: Diagnosis, wishes: Wishes | None = None) -> Proposal:
    """The repairs that remove their finding and add none, in the report's order.

    Then the commands for what these leave, which are run one by one on the user's word; then the steps that
    nobody but the user or an administrator can take.
    """
    wishes = wishes or Wishes()
    asked = [linked for linked in diagnosis.findings if not wishes.only or linked.finding.code in wishes.only]
    found = _Found(facts, diagnosis)
    for linked in asked:
        finding = linked.finding
        if finding.code not in FIXERS or key(finding) not in keys(found.diagnosis):
            continue  # the latter: an earlier repair took it along
        if not wishes.only and _stands(linked.because, diagnosis, found.diagnosis):
            continue  # while its cause is there, curing it would show nothing
        reason = _take_proven(found, finding, _in_order(finding.code, wishes), wishes)
        if reason:
            found.refused.append(Refused(finding.code, finding.subject, reason))
    after = found.diagnosis
    cured = _cured(diagnosis, after) if found.actions else frozenset()
    if not wishes.exports_only:
        for linked in asked:
            if not linked.because and key(linked.finding) in keys(found.diagnosis):
                _take_by_hand(found, linked.finding, wishes)
    return Proposal(Plan(tuple(found.actions)), cured, tuple(found.refused), after)


class _Found:
    """The plan as it grows, and the target as it would then be."""

    def __init__(self, facts: Facts, diagnosis: Diagnosis) -> None:
        self.facts = facts
        self.diagnosis = diagnosis
        self.actions: list[Action] = []
        self.refused: list[Refused] = []


def _in_order(code: str, wishes: Wishes) -> Iterable[Fixer]:
    return sorted(FIXERS[code], key=lambda fixer: wishes.prefer is Prefer.EXPORT and fixer in _LINKING)


def _stands(causes: Iterable[int], before: Diagnosis, now: Diagnosis) -> bool:
    left = keys(now)
    return any(key(before.findings[index].finding) in left for index in causes)


def _take_proven(found: _Found, finding: Finding, fixers: Iterable[Fixer], wishes: Wishes) -> str | None:
    """None where a repair that holds was added; else why the last one does not, "" where none was tried."""
    before = found.diagnosis
    ignored = {"ENV003"} if wishes.exports_only else set()  # a shell is asked about there, no notebook
    reason = ""
    try:
        for repair in (repair for fixer in fixers for repair in fixer(found.facts, finding, wishes)):
            risky = next((a for a in repair.actions if a.risk is Risk.HIGH), None)
            if risky is not None and not wishes.allow_risky:
                reason = f"{risky.reason}; only with --allow-risky"
                continue
            if any(isinstance(action, Command) and not action.proven for action in repair.actions):
                asked = [a.argv for a in found.actions if isinstance(a, Command)]
                for action in repair.actions:  # what it brings is seen only when it was run
                    if not isinstance(action, Command) or action.argv not in asked:
                        found.actions.append(action)
                return None
            after = diagnose(repair.after)
            new = {one for one in keys(after) - keys(before) if one[0] not in ignored}
            if key(finding) not in keys(after) and not new and not _doubts(after) - _doubts(before):
                found.facts, found.diagnosis = repair.after, after
                found.actions += repair.actions
                return None
            if new:
                reason = f"tried in memory: it would bring {', '.join(sorted(code for code, *_ in new))}"
    except ValueError as error:  # marks in a file that were tampered with
        reason = str(error)
    return reason


def _take_by_hand(found: _Found, finding: Finding, wishes: Wishes) -> None:
    """A command that is run where the user says so, else the step that the user takes."""
    if finding.severity is Severity.NOTE and finding.code not in wishes.only:
        return
    if finding.commands and _take_proven(found, finding, (packages.commands,), wishes) is None:
        return
    if finding.remedy:
        found.actions.append(Manual(code=finding.code, summary=finding.message, command=finding.remedy))


def _cured(before: Diagnosis, after: Diagnosis) -> frozenset[int]:
    left = keys(after)
    return frozenset(
        i
        for i, linked in enumerate(before.findings)
        if key(linked.finding) not in left and not linked.finding.condition.runs_framework
    )


def key(finding: Finding) -> Key:
    """What a finding is recognised by when the target is judged again."""
    return finding.code, finding.subject, finding.framework


def keys(diagnosis: Diagnosis) -> frozenset[Key]:
    return frozenset(key(linked.finding) for linked in diagnosis.findings)


def _doubts(diagnosis: Diagnosis) -> frozenset[str]:
    """A repair after which something can no longer be judged is not proven."""
    return frozenset(check.code for check in diagnosis.undecided)
