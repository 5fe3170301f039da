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
    threads,
    xla,
)
from envdoctor.catalog.condition import Condition, Repair, Severity

__all__ = ["CONDITIONS", "Condition", "Repair", "Severity", "condition", "find"]

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
)
CONDITIONS: tuple[Condition, ...] = tuple(row for area in AREAS for row in area.CONDITIONS)
_BY_CODE = {row.code: row for row in CONDITIONS}
_BY_NAME = {row.name: row for row in CONDITIONS}


def condition(code: str) -> Condition:
    """The row of a code; KeyError where there is none."""
    return _BY_CODE[code]


def find(code_or_name: str) -> Condition | None:
    """The row that a user means by a code ("lib002") or a name; None where there is none."""
    return _BY_CODE.get(code_or_name.upper()) or _BY_NAME.get(code_or_name.lower())
