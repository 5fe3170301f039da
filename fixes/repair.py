"""A repair that might be made, and the facts as they would be after it."""

from __future__ import annotations

from typing import NamedTuple

from envdoctor.facts.model import Facts
from envdoctor.fixes.plan import Action


class Repair(NamedTuple):
    actions: tuple[Action, ...]
    after: Facts
