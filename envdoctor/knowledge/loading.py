"""Reading of the tables beside this module, and the order of versions."""

from __future__ import annotations

import os
import re
from typing import TypeVar

import msgspec
from msgspec import Struct

T = TypeVar("T")


class _Table(Struct, frozen=True):
    about: str
    rows: msgspec.Raw


def load_rows(name: str, row_type: type[T]) -> tuple[T, ...]:
    """The rows of `<name>.json`. Each table has one caller, which caches it."""
    path = os.path.join(os.path.dirname(__file__), f"{name}.json")
    with open(path, "rb") as file:
        table = msgspec.json.decode(file.read(), type=_Table)
    return msgspec.json.decode(table.rows, type=tuple[row_type, ...])  # type: ignore[valid-type]


def release_key(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for ordering: "12.5.1" -> (12, 5, 1), "2.21.0rc1" -> (2, 21, 0)."""
    key: list[int] = []
    for part in version.split("."):
        digits = len(part) - len(part.lstrip("0123456789"))
        if not digits:
            break
        key.append(int(part[:digits]))
        if digits < len(part):
            break
    return tuple(key)


_SIMPLE = re.compile(r"(?P<operator>>=|<|==)(?P<release>\d+(?:\.\d+)*)(?P<any>\.\*)?")
_RELEASE = re.compile(r"\d+(?:\.\d+)*")


def matches(version: str, specifier: str) -> bool:
    """Whether a version is in a specifier (">=2.14,<2.18"); False for what is not a version."""
    parts = [_SIMPLE.fullmatch(part.strip()) for part in specifier.split(",")]
    if _RELEASE.fullmatch(version) and all(p and (p["operator"] == "==") == bool(p["any"]) for p in parts):
        return all(_holds(release_key(version), p["operator"], release_key(p["release"])) for p in parts if p)
    from packaging.specifiers import SpecifierSet  # noqa: PLC0415 - costs 10 ms, and few look-ups need it
    from packaging.version import InvalidVersion  # noqa: PLC0415

    try:
        return SpecifierSet(specifier).contains(version, prereleases=True)
    except InvalidVersion:
        return False


def _holds(release: tuple[int, ...], operator: str, bound: tuple[int, ...]) -> bool:
    """The comparisons of PEP 440 for plain releases, where trailing zeros mean nothing."""
    length = len(bound) if operator == "==" else max(len(release), len(bound))
    padded = (release + (0,) * length)[:length]
    padded_bound = (bound + (0,) * length)[:length]
    if operator == "==":
        return padded == padded_bound
    return padded >= padded_bound if operator == ">=" else padded < padded_bound
