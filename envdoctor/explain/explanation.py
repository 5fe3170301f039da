"""The answer to a log: causes, what follows from them, what can be ignored."""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

from envdoctor.catalog import Condition, Severity, condition
from envdoctor.checks.machine import FRAMEWORK_TITLES
from envdoctor.diagnose import Linked, link
from envdoctor.explain.cause import Cause, cause
from envdoctor.explain.driver_rules import judge_driver
from envdoctor.explain.gpu_rules import judge_gpu
from envdoctor.explain.handle_rules import judge_handles
from envdoctor.explain.library_rules import judge_cudart, judge_libraries
from envdoctor.explain.package_rules import judge_packages
from envdoctor.explain.scan import scan
from envdoctor.explain.seen import Seen
from envdoctor.explain.sightings import Sighting
from envdoctor.explain.signatures import Confidence, Signature
from envdoctor.finding import Evidence, Finding
from envdoctor.report.terminal import harmless

SHOWN = 5  # lines that are quoted for a finding
WIDTH = 240  # characters of a line that are quoted
# What a program says when it ends because of something else.
CONSEQUENCES = frozenset({"PLC001", "PLC002", "PLC004", "PLC005", "XLA002"})
# In one log the last of these to happen tells why it stopped; a driver's trouble before it was survived.
_STOPPED = frozenset({"THR003", "HST003", "HST008", "XLA004", "XLA005"})
_MARKS = {
    "tensorflow": r"tensorflow|stream_executor|dso_loader|\btf\.",
    "torch": r"\btorch\b|pytorch|processgroupnccl",
    "jax": r"\bjax|jaxlib|xla_extension",
}
_RULES = (judge_driver, judge_libraries, judge_handles, judge_gpu, judge_packages)


class Explained(Struct, frozen=True, kw_only=True):
    """A finding in a log, with the lines that show it."""

    finding: Finding
    because: tuple[int, ...]  # indexes of the findings that it follows from; none: a root cause
    confidence: Confidence
    lines: tuple[int, ...]  # numbers of the lines that show it, from 1; the first ones where there are many
    alternatives: tuple[str, ...]  # codes that the log alone cannot tell from it
    status: str = ""  # with the facts of this machine: "confirmed", "past", "not judged"


class Noise(Struct, frozen=True):
    """Lines that mean nothing, by kind."""

    kind: str
    lines: int  # how many
    first: int  # the number of the first


class Explanation(Struct, frozen=True, kw_only=True):
    findings: tuple[Explained, ...]  # root causes first, worst first
    noise: tuple[Noise, ...]
    unexplained: tuple[tuple[int, str], ...]  # number and text of lines that tell of an error not known here
    lines: int
    recognised: bool  # something in the text was known: a finding, noise, a device

    @property
    def cause(self) -> Explained | None:
        """The first root cause that is more than a note."""
        worse = (e for e in self.findings if not e.because and e.finding.severity is not Severity.NOTE)
        return next(worse, None)

    @property
    def healthy(self) -> bool:
        """It was understood, and nothing in it is wrong."""
        return self.recognised and self.cause is None and not self.unexplained


def explain(chunks: bytes | Iterable[bytes]) -> Explanation:
    """Explain a text, whole or in chunks of any size: logs, or what a probe wrote to stderr."""
    sightings, lines = scan((chunks,) if isinstance(chunks, bytes) else chunks)
    seen = Seen(sightings)
    causes = [c for rule in _RULES for c in rule(seen)]
    causes += [_direct(row, found) for row, found in seen.codes()]
    if not any(c.code.startswith(("DRV", "GPU", "LIB", "CDN", "HST")) for c in causes):
        causes += judge_cudart(seen)
    causes = _sorted(_merged(_without_contradictions(causes, seen)))
    nothing_listed = seen.facts("no-gpu-listed") or seen.facts("gpus-skipped")
    if nothing_listed and not any(c.code in {"PLC001", "GPU006", "GPU015"} for c in causes):
        causes.append(cause("PLC001", "the framework registers no GPU", nothing_listed))
    return Explanation(
        findings=_linked(causes),
        noise=_noise(seen),
        unexplained=() if causes else _unexplained(seen),
        lines=lines,
        recognised=bool(
            causes or seen.noise() or seen.has("device-created", "device-found", "library-opened")
        ),
    )


def _direct(row: Signature, found: list[Sighting]) -> Cause:
    title = condition(row.code).title
    fitting = next((s for s in found if all(v for v in s.values.values()) and s.values), found[0])
    try:
        message = row.says.format(**fitting.values) if row.says else title
    except (KeyError, IndexError):
        message = title[0].lower() + title[1:] if not title[:2].isupper() else title
    return cause(
        row.code, message, found, row.confidence, alternatives=row.alternatives, severity=row.severity
    )


def _without_contradictions(causes: list[Cause], seen: Seen) -> list[Cause]:
    """What another cause in the same log explains away."""
    codes = {c.code for c in causes}
    dropped: set[str] = set()
    if codes & {"DRV003"}:
        dropped |= {"DRV012"}  # a libcuda of another version tries forward compatibility: 803, 804
    if "DRV004" in codes and "DRV012" in codes:
        dropped |= {"DRV012"}
    if codes & {"GPU003", "GPU013"}:
        dropped |= {"LIB001"} if not seen.has("library-missing") else set()
    if codes & {"HST005", "HST006", "HST007", "HST009"}:
        dropped |= {"DRV001"}
    if codes & {"CDN004", "LIB008", "CDN003"}:
        dropped |= {"CDN001", "CDN005"}
    if codes & {"DRV006", "DRV005"}:
        dropped |= {"GPU001"}
    if "PKG003" in codes:
        dropped |= {"PKG008"}
    if codes & {"NCC002", "HST011"} and "NCC001" in codes:
        dropped |= {"NCC001"}
    if codes & {"GPU002"} and not any(c.code == "GPU002" and c.subject for c in causes) and "NCC002" in codes:
        dropped |= {"GPU002"}
    if "HST008" in codes:
        dropped |= {"THR003"}
    return [c for c in causes if c.code not in dropped]


def _merged(causes: list[Cause]) -> list[Cause]:
    """One for each code: the surest message, every line, every alternative."""
    by_code: dict[str, list[Cause]] = {}
    for each in causes:
        by_code.setdefault(each.code, []).append(each)
    merged = []
    for same in by_code.values():
        best = min(same, key=lambda c: (c.weight.rank, c.confidence.rank, not c.subject))
        sightings = {(s.line, s.text): s for c in (best, *same) for s in c.sightings}
        merged.append(
            cause(
                best.code,
                best.message,
                sorted(sightings.values(), key=lambda s: s.line),
                best.confidence,
                subject=best.subject,
                alternatives=[a for c in (best, *same) for a in c.alternatives],
                severity=best.severity,
            )
        )
    return merged


def _sorted(causes: list[Cause]) -> list[Cause]:
    def key(each: Cause) -> tuple[bool, bool, int, int]:
        line = each.sightings[0].line if each.sightings else 0
        return (each.code in CONSEQUENCES, each.code not in _STOPPED, each.confidence.rank, line)

    return sorted(causes, key=key)


def _linked(causes: list[Cause]) -> tuple[Explained, ...]:
    framework = _framework(s for each in causes for s in each.sightings)
    findings = [_finding(each, framework) for each in causes]
    by_finding = {id(f): c for f, c in zip(findings, causes, strict=True)}
    linked = list(link(findings))
    lead = next((i for i, entry in enumerate(linked) if _leads(entry)), None)
    explained = []
    for entry in linked:
        because = entry.because
        if not because and lead is not None and entry.finding.code in CONSEQUENCES:
            because = (lead,)
        each = by_finding[id(entry.finding)]
        explained.append(
            Explained(
                finding=entry.finding,
                because=because,
                confidence=each.confidence,
                lines=tuple(dict.fromkeys(s.line for s in each.sightings)),
                alternatives=tuple(a for a in each.alternatives if a not in {c.code for c in causes}),
            )
        )
    return _roots_first(explained)


def _leads(entry: Linked) -> bool:
    return (
        not entry.because
        and entry.finding.code not in CONSEQUENCES
        and entry.finding.severity is Severity.ERROR
    )


def _roots_first(explained: list[Explained]) -> tuple[Explained, ...]:
    order = sorted(range(len(explained)), key=lambda i: (bool(explained[i].because), i))
    place = {old: new for new, old in enumerate(order)}
    return tuple(
        Explained(
            finding=e.finding,
            because=tuple(sorted(place[j] for j in e.because)),
            confidence=e.confidence,
            lines=e.lines,
            alternatives=e.alternatives,
        )
        for e in (explained[i] for i in order)
    )


def _finding(each: Cause, framework: str) -> Finding:
    row = condition(each.code)
    return Finding(
        code=each.code,
        subject=each.subject or row.area,
        message=harmless(each.message),
        evidence=tuple(Evidence(f"line {s.line}", quoted(s.text)) for s in each.sightings[:SHOWN]),
        remedy=_remedy(row, framework),
        framework=framework,
        severity_here=each.severity,
    )


def _remedy(row: Condition, framework: str) -> str:
    """The first repair that is not for another framework than the log's."""
    others = [title for name, title in FRAMEWORK_TITLES.items() if name != framework]
    fitting = [r for r in row.repairs if not any(title in r.situation for title in others)] or row.repairs
    mine = [r for r in fitting if FRAMEWORK_TITLES.get(framework, "-") in r.situation]
    for repair in (*mine, *fitting):
        foreign = framework and any(
            name in c for c in repair.commands for name in _names_of_others(framework)
        )
        if not foreign and (repair.commands or repair.advice):
            first: str = repair.commands[0] if repair.commands else repair.advice
            return first
    return ""


def _names_of_others(framework: str) -> list[str]:
    return [name for name in FRAMEWORK_TITLES if name != framework]


def _framework(chosen: Iterable[Sighting]) -> str:
    """Which framework printed these lines; "" where that is not clear."""
    text = " ".join(s.text for s in chosen).lower()
    named = [name for name, word in _MARKS.items() if re.search(word, text)]
    return named[0] if len(named) == 1 else ""


def quoted(text: str) -> str:
    """A line of the log as it can be shown: no control characters, not endless."""
    text = harmless(text.strip())
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "\u2026"


def _noise(seen: Seen) -> tuple[Noise, ...]:
    kinds: dict[str, Noise] = {}
    for kind, lines, first in seen.noise():
        before = kinds.get(kind)
        kinds[kind] = Noise(
            kind, lines + (before.lines if before else 0), min(first, before.first) if before else first
        )
    if seen.has("cudart-missing"):
        found = seen.facts("cudart-missing")
        kinds["cudart-stub-ignore"] = Noise("cudart-stub-ignore", seen.lines(found[0]), found[0].line)
    return tuple(sorted(kinds.values(), key=lambda n: n.first))


def _unexplained(seen: Seen) -> tuple[tuple[int, str], ...]:
    found = [s for s in seen.facts("unexplained") if "Traceback" not in s.text] or seen.facts("unexplained")
    return tuple((s.line, quoted(s.text)) for s in found[-SHOWN:])
