"""What a check says: a finding with its evidence, or why it could not judge."""

from __future__ import annotations

from msgspec import Struct

from envdoctor.catalog import Condition, Severity, condition


class Evidence(Struct, frozen=True):
    """Something that was looked at, what was there, and where a user can look too."""

    what: str
    value: str
    source: str = ""


class Finding(Struct, frozen=True, kw_only=True):
    """A condition seen on this target."""

    code: str
    subject: str  # what has it: a soname, a variable, a GPU, a framework
    message: str  # one line, with specifics
    evidence: tuple[Evidence, ...] = ()
    remedy: str = ""  # one command or sentence; the plan of `fix` may offer better
    commands: tuple[tuple[str, ...], ...] = ()  # of the target's package tool, that cure it in this order
    framework: str = ""  # the framework that it holds for; "" for all
    severity_here: Severity | None = None  # where it depends on the target

    @property
    def condition(self) -> Condition:
        return condition(self.code)

    @property
    def severity(self) -> Severity:
        return self.severity_here or self.condition.severity


class SkipError(Exception):
    """Raised by a check that has nothing to judge here, with the reason: "no framework is installed"."""


class Unknown(Struct, frozen=True):
    """One code that could not be judged, where the same check could judge others."""

    code: str
    reason: str
