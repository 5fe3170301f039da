"""What a rule concludes from sightings."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from envdoctor.catalog import Severity, condition
from envdoctor.explain.sightings import Sighting
from envdoctor.explain.signatures import Confidence


class Cause(Struct, frozen=True, kw_only=True):
    """A condition that the log shows, before causes are told from consequences."""

    code: str
    message: str
    confidence: Confidence
    sightings: tuple[Sighting, ...]
    subject: str = ""
    alternatives: tuple[str, ...] = ()  # codes that the log cannot tell from it
    severity: Severity | None = None  # where it is not the condition's own

    @property
    def weight(self) -> Severity:
        return self.severity or condition(self.code).severity


def cause(
    code: str,
    message: str,
    sightings: Iterable[Sighting],
    confidence: Confidence = Confidence.CERTAIN,
    *,
    subject: str = "",
    alternatives: Iterable[str] = (),
    severity: Severity | None = None,
) -> Cause:
    return Cause(
        code=code,
        message=message,
        confidence=confidence,
        sightings=tuple(sightings),
        subject=subject,
        alternatives=tuple(a for a in dict.fromkeys(alternatives) if a != code),
        severity=severity,
    )
