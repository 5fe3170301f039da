"""A repair that might be made, the facts as they would be after it, and what a fixer has to go by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple

from msgspec import Struct

from envdoctor.facts.model import Facts
from envdoctor.finding import Finding
from envdoctor.fixes.plan import Action


class Prefer(Enum):
    SYMLINK = "symlink"
    EXPORT = "export"


class Wishes(Struct, frozen=True, kw_only=True):
    """What the user asked of the plan."""

    prefer: Prefer = Prefer.SYMLINK
    allow_risky: bool = False
    only: frozenset[str] = frozenset()  # codes; empty: all
    to: str = ""  # the file that exports go to; "" where the target's environment reads them
    exports_only: bool = False  # `envdoctor env`: nothing else is of use there


class Repair(NamedTuple):
    actions: tuple[Action, ...]
    after: Facts


Fixer = Callable[[Facts, Finding, Wishes], Iterator[Repair]]
