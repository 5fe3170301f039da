"""What a condition is: one row of the catalogue."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class Severity(Enum):
    ERROR = "error"  # the GPU cannot be used, or results are wrong
    WARNING = "warning"  # slow, fragile, about to break
    NOTE = "note"

    @property
    def rank(self) -> int:
        """0 is worst."""
        return _ORDER.index(self)


_ORDER = (Severity.ERROR, Severity.WARNING, Severity.NOTE)


class Repair(Struct, frozen=True):
    """What to do in one situation: prose, then commands that can be pasted (may be none)."""

    situation: str  # "TensorFlow from pip, in a virtual environment"; "" when there is only one
    advice: str
    commands: tuple[str, ...] = ()


class Condition(Struct, frozen=True, kw_only=True):
    """A row of the catalogue: its code and its name never change meaning.

    `check` names the function that looks for it, as "module:function" below `envdoctor.checks`
    ("" while nothing looks for it yet); `follows_from` lists the codes that, when they hold for the same
    framework, explain this one.
    """

    code: str  # "LIB002"
    name: str  # "pip-cuda-libs-not-on-path"
    severity: Severity
    title: str  # one line, no specifics: "A CUDA library is installed by pip where TensorFlow does not look"
    means: str  # what holds when this is reported
    why: str  # why it happens, and why it matters
    see: tuple[str, ...] = ()  # commands with which a user can see it without envdoctor
    repairs: tuple[Repair, ...] = ()
    follows_from: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    check: str = ""
    runs_framework: bool = False  # can only be judged by running the framework: skipped by --quick

    @property
    def area(self) -> str:
        return AREAS.get(self.code[:3], "plugin")


AREAS = {
    "HST": "host",
    "DRV": "driver",
    "GPU": "gpu",
    "LIB": "libraries",
    "CDN": "libraries",
    "XLA": "xla",
    "PKG": "packages",
    "PLC": "placement",
    "THR": "threads",
    "ENV": "environment",
    "NCC": "environment",
    "VAL": "validation",
}
