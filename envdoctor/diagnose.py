"""Run the checks, link consequences to their causes, give a verdict per framework. Pure."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable
from enum import Enum

from msgspec import Struct

from envdoctor.catalog import Condition, Severity, condition, rows
from envdoctor.facts.model import Facts, Framework, FrameworkRun, NotKnownError, Unavailable
from envdoctor.finding import Evidence, Finding, SkipError, Unknown

Check = Callable[[Facts], Iterable["Finding | Unknown"]]


class Status(Enum):
    OK = "ok"
    FAIL = "fail"
    WARN = "warn"
    SKIP = "skip"
    UNKNOWN = "unknown"


class CheckResult(Struct, frozen=True, kw_only=True):
    """How the look for one condition ended. A note leaves it `ok`."""

    code: str
    status: Status
    reason: str = ""
    ms: float = 0.0


class Gpu(Enum):
    USABLE = "usable"
    UNUSABLE = "unusable"
    UNKNOWN = "unknown"
    ABSENT = "absent"


class Verdict(Struct, frozen=True, kw_only=True):
    framework: str
    version: str
    gpu: Gpu
    cause: str | None  # the code that leads, where it is unusable
    tried: bool  # the framework itself was run; else this is what its files say
    reason: str = ""  # why it is unknown


class Linked(Struct, frozen=True, kw_only=True):
    """A finding and the indexes of the findings it follows from; none: a root cause."""

    finding: Finding
    because: tuple[int, ...]


class Diagnosis(Struct, frozen=True, kw_only=True):
    findings: tuple[Linked, ...]  # root causes first, worst first
    checks: tuple[CheckResult, ...]
    verdicts: tuple[Verdict, ...]
    defects: tuple[str, ...] = ()  # checks that raised what they should not have

    @property
    def roots(self) -> tuple[Finding, ...]:
        return tuple(linked.finding for linked in self.findings if not linked.because)

    @property
    def undecided(self) -> tuple[CheckResult, ...]:
        """What matters and could not be judged: an error that may hold, unseen."""
        return tuple(
            c
            for c in self.checks
            if c.status is Status.UNKNOWN and condition(c.code).severity is Severity.ERROR
        )

    def codes(self) -> frozenset[str]:
        return frozenset(linked.finding.code for linked in self.findings)


def diagnose(
    facts: Facts,
    select: frozenset[str] = frozenset(),
    ignore: frozenset[str] = frozenset(),
    plugin_failures: tuple[Finding, ...] = (),
) -> Diagnosis:
    """Everything that the facts show. `select` and `ignore` are codes; an empty `select` means all."""
    findings: list[Finding] = [f for f in plugin_failures if f.code not in ignore]
    results: dict[str, CheckResult] = {}
    defects: list[str] = []
    for reference, offered in checks().items():
        wanted = [r for r in offered if (not select or r.code in select) and r.code not in ignore]
        if wanted:
            said, defect = _run(reference, wanted, facts)
            findings += [f for f in said[0] if f.code in {"PLG001", *(r.code for r in wanted)}]
            results |= {r.code: r for r in said[1]}
            defects += defect
    linked = link(findings)
    return Diagnosis(
        findings=linked,
        checks=tuple(results[row.code] for row in rows() if row.code in results),
        verdicts=_verdicts(facts, linked, tuple(results.values())),
        defects=tuple(defects),
    )


def checks() -> dict[str, list[Condition]]:
    """Every check function, as "module:function", with the rows it can report."""
    found: dict[str, list[Condition]] = {}
    for row in rows():
        if row.check:
            found.setdefault(row.check, []).append(row)
    return found


def load(reference: str) -> Check:
    module, _, function = reference.partition(":")
    full = module if is_plugin(reference) else f"envdoctor.checks.{module}"
    check: Check = getattr(importlib.import_module(full), function)
    return check


def load_all() -> None:
    """Import every check, for who has to wait for something else anyway."""
    for reference in checks():
        if not is_plugin(reference):
            load(reference)


def is_plugin(reference: str) -> bool:
    """A plugin names its module in full; ours stand in envdoctor.checks."""
    return "." in reference.partition(":")[0]


def _run(
    reference: str, rows: list[Condition], facts: Facts
) -> tuple[tuple[list[Finding], list[CheckResult]], list[str]]:
    findings: list[Finding] = []
    unknown: dict[str, str] = {}
    rest, reason, defects = Status.OK, "", []
    started = time.perf_counter()
    try:
        for said in load(reference)(facts):
            if isinstance(said, Unknown):
                unknown[said.code] = said.reason
            else:
                findings.append(said)
    except SkipError as skipped:
        rest, reason = Status.SKIP, str(skipped)
    except NotKnownError as missing:
        rest, reason = Status.UNKNOWN, str(missing)
        if all(r.runs_framework for r in rows) and isinstance(facts.runs, Unavailable):
            rest = Status.SKIP
    except Exception as error:  # noqa: BLE001  one check's defect must not cost the report
        rest, reason = Status.UNKNOWN, f"the check itself failed: {type(error).__name__}: {error}"
        if is_plugin(reference):
            findings.append(plugin_failed(reference, f"{type(error).__name__}: {error}"))
        else:
            defects = [f"{reference}: {type(error).__name__}: {error}"]
    ms = (time.perf_counter() - started) * 1e3 / len(rows)
    results = []
    for row in rows:
        worst = min((f.severity for f in findings if f.code == row.code), key=_rank, default=None)
        if worst is Severity.ERROR:
            status, why = Status.FAIL, ""
        elif worst is Severity.WARNING:
            status, why = Status.WARN, ""
        elif worst is Severity.NOTE:
            status, why = Status.OK, "noted"
        elif row.code in unknown:
            status, why = Status.UNKNOWN, unknown[row.code]
        else:
            status, why = rest, reason
        results.append(CheckResult(code=row.code, status=status, reason=why, ms=round(ms, 3)))
    return (findings, results), defects


def plugin_failed(plugin: str, reason: str) -> Finding:
    return Finding(
        code="PLG001",
        subject=plugin,
        message=f"the plugin {plugin} failed, and its conditions were not looked for: {reason}",
        evidence=(Evidence("plugin", plugin), Evidence("said", reason)),
    )


def _rank(severity: Severity) -> int:
    return severity.rank


def link(findings: list[Finding]) -> tuple[Linked, ...]:
    """Which finding follows from which: by the catalogue, within one framework or from what holds for all."""
    causes = {
        i: [j for j, g in enumerate(findings) if j != i and _explains(g, f)] for i, f in enumerate(findings)
    }
    order = sorted(range(len(findings)), key=lambda i: (bool(causes[i]), findings[i].severity.rank, i))
    place = {old: new for new, old in enumerate(order)}
    return tuple(
        Linked(finding=findings[i], because=tuple(sorted(place[j] for j in causes[i]))) for i in order
    )


def _explains(cause: Finding, effect: Finding) -> bool:
    """A note explains an error only where it tells that there is nothing to use (no GPU)."""
    same = not cause.framework or not effect.framework or cause.framework == effect.framework
    return (
        same and cause.code in effect.condition.follows_from and cause.severity.rank <= effect.severity.rank
    )


def blocking_codes() -> frozenset[str]:
    """The conditions that keep a framework from registering a GPU: what PLC001 follows from, and a crash."""
    return frozenset({"PLC001", "PLC004", *condition("PLC001").follows_from})


# A GPU that was registered can still be of no use: what fails only after that.
AFTER_REGISTERING = frozenset(
    {"GPU005", "PLC002", "PLC004", "PLC005", "CDN002", "CDN003", "CDN004", "XLA004", "XLA005"}
)


def _verdicts(
    facts: Facts, linked: tuple[Linked, ...], results: tuple[CheckResult, ...]
) -> tuple[Verdict, ...]:
    if isinstance(facts.frameworks, Unavailable):
        return ()
    return tuple(_verdict(framework, facts, linked, results) for framework in facts.frameworks)


def _verdict(
    framework: Framework, facts: Facts, linked: tuple[Linked, ...], results: tuple[CheckResult, ...]
) -> Verdict:
    runs = () if isinstance(facts.runs, Unavailable) else facts.runs
    run = next((r for r in runs if r.framework == framework.name), None)
    blocking = blocking_codes()
    against = [
        entry.finding
        for entry in linked
        if entry.finding.code in blocking
        and entry.finding.severity is Severity.ERROR
        and entry.finding.framework in {"", framework.name}
    ]
    doubts = [
        r
        for r in results
        if r.status is Status.UNKNOWN and r.code in blocking and condition(r.code).severity is Severity.ERROR
    ]
    gpu, cause, reason = Gpu.USABLE, None, ""
    if isinstance(run, FrameworkRun) and run.gpus:
        # It registered one: no fact that foretold otherwise counts against that.
        later = [
            entry.finding.code
            for entry in linked
            if entry.finding.code in AFTER_REGISTERING
            and entry.finding.severity is Severity.ERROR
            and entry.finding.framework in {"", framework.name}
        ]
        if later:
            gpu, cause = Gpu.UNUSABLE, later[0]
    elif against:
        gpu, cause = Gpu.UNUSABLE, against[0].code
    elif any(entry.finding.code == "GPU001" for entry in linked):
        gpu = Gpu.ABSENT
    elif framework.cuda_build is False:  # also where that is only a note
        gpu, cause = Gpu.UNUSABLE, "PKG002"
    elif doubts:
        gpu, reason = Gpu.UNKNOWN, f"{doubts[0].code} could not be judged: {doubts[0].reason}"
    elif isinstance(framework.cuda_build, Unavailable):
        gpu, reason = Gpu.UNKNOWN, framework.cuda_build.reason
    return Verdict(
        framework=framework.name,
        version=framework.version,
        gpu=gpu,
        cause=cause,
        tried=run is not None,
        reason=reason,
    )
