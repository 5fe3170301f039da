"""From findings to a proven plan: each repair is applied to the facts in memory and diagnosed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum

from msgspec import Struct

from envdoctor.catalog import Severity
from envdoctor.diagnose import Diagnosis, diagnose
from envdoctor.facts.model import Facts
from envdoctor.finding import Finding
from envdoctor.fixes import libraries
from envdoctor.fixes.plan import Action, Plan, Risk
from envdoctor.fixes.repair import Repair

Fixer = Callable[[Facts, Finding], Iterator[Repair]]


class Prefer(Enum):
    SYMLINK = "symlink"
    EXPORT = "export"


LINK_OR_EXPORT: dict[Prefer, Fixer] = {Prefer.SYMLINK: libraries.links, Prefer.EXPORT: libraries.exports}
FIXERS: dict[str, dict[Prefer, Fixer]] = {
    "LIB002": LINK_OR_EXPORT,
    "LIB003": LINK_OR_EXPORT,
    "LIB005": LINK_OR_EXPORT,
    "LIB010": {Prefer.SYMLINK: libraries.links},
}


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


def propose(
    facts: Facts,
    diagnosis: Diagnosis,
    *,
    prefer: Prefer = Prefer.SYMLINK,
    allow_risky: bool = False,
    only: frozenset[str] = frozenset(),
) -> Proposal:
    """The repairs that remove their finding and add none, in the report's order."""
    actions: list[Action] = []
    refused: list[Refused] = []
    current = diagnosis
    for finding in [linked.finding for linked in diagnosis.findings]:
        if finding.code not in FIXERS or (only and finding.code not in only):
            continue
        if _key(finding) not in _keys(current):
            continue  # an earlier repair took it along
        proven, reason = _prove(facts, current, finding, prefer, allow_risky=allow_risky)
        if proven is None and finding.severity is Severity.NOTE and not allow_risky:
            continue
        if proven is None:
            refused.append(Refused(finding.code, finding.subject, reason))
        else:
            actions += proven[0].actions
            facts, current = proven[0].after, proven[1]
    left = _keys(current)
    cured = frozenset(
        i
        for i, linked in enumerate(diagnosis.findings)
        if actions and _key(linked.finding) not in left and not linked.finding.condition.runs_framework
    )
    return Proposal(Plan(tuple(actions)), cured, tuple(refused), current)


def _prove(
    facts: Facts, before: Diagnosis, finding: Finding, prefer: Prefer, *, allow_risky: bool
) -> tuple[tuple[Repair, Diagnosis] | None, str]:
    fixers = FIXERS[finding.code]
    reason = "no directory that it searches may be written, and nothing could be exported"
    for kind in sorted(fixers, key=lambda k: k is not prefer):
        for repair in fixers[kind](facts, finding):
            if not allow_risky and any(a.risk is Risk.HIGH for a in repair.actions):
                reason = f"{repair.actions[0].reason}; only with --allow-risky"
                continue
            after = diagnose(repair.after)
            new = _keys(after) - _keys(before)
            if _key(finding) not in _keys(after) and not new and not _doubts(after) - _doubts(before):
                return (repair, after), ""
            if new:
                reason = f"tried in memory: it would bring {', '.join(sorted(code for code, *_ in new))}"
    return None, reason


def _key(finding: Finding) -> tuple[str, str, str]:
    return finding.code, finding.subject, finding.framework


def _keys(diagnosis: Diagnosis) -> frozenset[tuple[str, str, str]]:
    return frozenset(_key(linked.finding) for linked in diagnosis.findings)


def _doubts(diagnosis: Diagnosis) -> frozenset[str]:
    """A repair after which something can no longer be judged is not proven."""
    return frozenset(check.code for check in diagnosis.undecided)
