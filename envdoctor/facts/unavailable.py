"""A fact that could not be read: the alternative to every value in `model` and its parts."""

from __future__ import annotations

from typing import TypeVar

from msgspec import Struct

T = TypeVar("T")


class Unavailable(Struct, frozen=True, tag="unavailable", tag_field="is"):
    """A fact that could not be read, and why."""

    reason: str


class NotKnownError(Exception):
    """A check needs a fact that could not be read. `diagnose` turns it into the status `unknown`."""


def known(fact: T | Unavailable) -> T:
    """The value of a fact; NotKnownError with the reason where there is none."""
    if isinstance(fact, Unavailable):
        raise NotKnownError(fact.reason)
    return fact
