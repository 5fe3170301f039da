"""The catalogue of conditions: every finding's code, name, severity, meaning and repair, as data."""

from __future__ import annotations

from envdoctor.catalog import (
    containers,
    cudnn,
    cuinit,
    driver,
    environment,
    gpu,
    gpu_state,
    host,
    libraries,
    library_files,
    packages,
    placement,
    plugins,
    threads,
    validation,
    xla,
)
from envdoctor.catalog.condition import Condition, Repair, Severity

__all__ = ["CONDITIONS", "Condition", "Repair", "Severity", "add", "condition", "find", "rows"]

AREAS = (
    host,
    containers,
    driver,
    cuinit,
    gpu,
    gpu_state,
    libraries,
    library_files,
    cudnn,
    xla,
    packages,
    placement,
    threads,
    environment,
    validation,
    plugins,
)
CONDITIONS: tuple[Condition, ...] = tuple(row for area in AREAS for row in area.CONDITIONS)
_BY_CODE = {row.code: row for row in CONDITIONS}  # plugins add theirs
_BY_NAME = {row.name: row for row in CONDITIONS}


def rows() -> tuple[Condition, ...]:
    """Every row, those of plugins last."""
    return tuple(_BY_CODE.values())


def add(offered: tuple[Condition, ...]) -> None:
    """Take in a plugin's rows; ValueError where a code or name is taken, and then none of them."""
    for row in offered:
        if row.code in _BY_CODE or row.name in _BY_NAME:
            raise ValueError(f"{row.code} ({row.name}) is taken")
    _BY_CODE.update({row.code: row for row in offered})
    _BY_NAME.update({row.name: row for row in offered})


def condition(code: str) -> Condition:
    """The row of a code; KeyError where there is none."""
    return _BY_CODE[code]


def find(code_or_name: str) -> Condition | None:
    """The row that a user means by a code ("lib002") or a name; None where there is none."""
    return _BY_CODE.get(code_or_name.upper()) or _BY_NAME.get(code_or_name.lower())
