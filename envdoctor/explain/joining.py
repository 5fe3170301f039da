"""A log and the facts of this machine together: what holds now, what is past, which alternative it is."""

from __future__ import annotations

from msgspec.structs import replace

from envdoctor.diagnose import Diagnosis, Gpu, Status
from envdoctor.explain.explanation import Explained, Explanation
from envdoctor.explain.signatures import Confidence
from envdoctor.finding import Evidence, Finding

CONFIRMED, PAST, NOT_JUDGED = "confirmed", "past", "not judged"
_CUINIT = ("DRV009", "DRV010")  # judged by what cuInit itself answers
_OF_THE_DRIVER = ("HST", "DRV", "GPU")  # the rest is of a framework


def join(explanation: Explanation, diagnosis: Diagnosis) -> Explanation:
    """Each finding of the log with its status on this machine, what is past last among the root causes.

    A finding that the facts show too is certain. One of whose alternatives the facts show instead becomes
    that alternative. One that was looked for and is not there, nor any of its alternatives, is past: it does
    not hold on this machine now.
    """
    return replace(explanation, findings=_in_order([_judged(e, diagnosis) for e in explanation.findings]))


def _judged(explained: Explained, diagnosis: Diagnosis) -> Explained:
    finding = explained.finding
    shown = _shown(explained, diagnosis)
    if shown:
        seen = (*finding.evidence, *shown.evidence)
        return replace(
            explained,
            finding=replace(finding if shown.code == finding.code else shown, evidence=seen),
            confidence=Confidence.CERTAIN,
            alternatives=(),
            status=CONFIRMED,
        )
    doubt = _doubt(explained, diagnosis)
    if doubt is None:
        return replace(explained, status=PAST)
    if doubt:
        why = Evidence("not judged", doubt, "envdoctor check -v")
        explained = replace(explained, finding=replace(finding, evidence=(*finding.evidence, why)))
    return replace(explained, status=NOT_JUDGED)


def _shown(explained: Explained, diagnosis: Diagnosis) -> Finding | None:
    """The finding or alternative that the facts show too; of several the one that the others follow from."""
    here = {linked.finding.code: linked for linked in reversed(diagnosis.findings)}
    found = [here[c] for c in (explained.finding.code, *explained.alternatives) if c in here]
    roots = found if explained.because else [linked for linked in found if not linked.because]
    return next((linked.finding for linked in (*roots, *found)), None)


def _doubt(explained: Explained, diagnosis: Diagnosis) -> str | None:
    """Why the facts do not refute a finding, "" where nothing looks for it; None: they do."""
    results = {result.code: result for result in diagnosis.checks}
    own = results.get(explained.finding.code)
    if own is None:
        return ""
    for code in (explained.finding.code, *explained.alternatives):
        result = results.get(code)
        if result is None or result.status is Status.OK:
            continue
        # Skipped, there is nothing to judge: because all is well, or because what it is about is not here.
        if result.status is not Status.SKIP or not _works(code, diagnosis):
            return f"{code}: {result.reason}"
    return None


def _works(code: str, diagnosis: Diagnosis) -> bool:
    """What a condition is about is here: a driver that answers, or a framework that sees a GPU."""
    if code.startswith(_OF_THE_DRIVER):
        return all(result.status is Status.OK for result in diagnosis.checks if result.code in _CUINIT)
    return any(verdict.tried and verdict.gpu is Gpu.USABLE for verdict in diagnosis.verdicts)


def _in_order(findings: list[Explained]) -> tuple[Explained, ...]:
    """Each condition once; causes that hold here or may, those that are past, what follows from them."""
    order = sorted(
        range(len(findings)), key=lambda i: (bool(findings[i].because), findings[i].status == PAST, i)
    )
    place: dict[int, int] = {}
    kept: list[Explained] = []
    for index in order:
        same = [n for n, other in enumerate(kept) if other.finding.code == findings[index].finding.code]
        place[index] = same[0] if same else len(kept)
        if not same:
            kept.append(findings[index])
    return tuple(
        replace(e, because=tuple(sorted({place[i] for i in e.because if place[i] != n})))
        for n, e in enumerate(kept)
    )
