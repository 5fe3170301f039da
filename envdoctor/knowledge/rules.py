"""Rules in words, each with its source, for the messages and pages that quote them."""

from __future__ import annotations

from functools import cache

from msgspec import Struct

from envdoctor.knowledge.loading import load_rows


class Rule(Struct, frozen=True):
    id: str
    text: str
    source: str
    verified: bool


@cache
def rules() -> tuple[Rule, ...]:
    return load_rows("rules", Rule)


def rule(identifier: str) -> Rule:
    """The rule of this id; KeyError where there is none."""
    for row in rules():
        if row.id == identifier:
            return row
    raise KeyError(identifier)
