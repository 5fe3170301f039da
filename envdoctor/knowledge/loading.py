"""Reading of the tables beside this module, and the order of versions."""

from __future__ import annotations

import os
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


def matches(version: str, specifier: str) -> bool:
    """Whether a version is in a specifier (">=2.14,<2.18"); False for what is not a version."""
    from packaging.specifiers import SpecifierSet  # noqa: PLC0415 - costs 10 ms, and few look-ups need it
    from packaging.version import InvalidVersion  # noqa: PLC0415

    try:
        return SpecifierSet(specifier).contains(version, prereleases=True)
    except InvalidVersion:
        return False
