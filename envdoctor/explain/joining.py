"""A log and the facts of this machine together: what holds now, what is past, which alternative it is."""

from __future__ import annotations

from msgspec.structs import replace

from envdoctor.catalog import condition
from envdoctor.diagnose import Diagnosis, Status
from envdoctor.explain.explanation import Explained, Explanation
from envdoctor.explain.signatures import Confidence

CONFIRMED, PAST, NOT_JUDGED = "confirmed", "past", "not judged"


def join(explanation: Explanation, diagnosis: Diagnosis) -> Explanation:
    """Each finding of the log with its status on this machine.

    A finding that the facts show too is certain. One of whose alternatives the facts show instead becomes
    that alternative. One that was looked for and is not there is past: it does not hold on this machine now.
    """
    return replace(explanation, findings=tuple(_judged(e, diagnosis) for e in explanation.findings))


def _judged(explained: Explained, diagnosis: Diagnosis) -> Explained:
    now = {linked.finding.code: linked.finding for linked in diagnosis.findings}
    code = explained.finding.code
    if code in now:
        return replace(explained, confidence=Confidence.CERTAIN, alternatives=(), status=CONFIRMED)
    for alternative in explained.alternatives:
        if alternative in now:
            there = now[alternative]
            finding = replace(
                there, evidence=(*explained.finding.evidence, *there.evidence), severity_here=there.severity
            )
            return replace(
                explained,
                finding=finding,
                confidence=Confidence.CERTAIN,
                alternatives=(),
                status=CONFIRMED,
            )
    result = next((c for c in diagnosis.checks if c.code == code), None)
    judged = bool(condition(code).check) and result is not None and result.status is Status.OK
    return replace(explained, status=PAST if judged else NOT_JUDGED)
