"""Environment variables that decide over the GPU and over threads: who reads them, and what it takes."""

from __future__ import annotations

import re
from enum import Enum
from functools import cache

from msgspec import Struct

from envdoctor.knowledge.loading import load_rows

_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,99}\s*")  # int() refuses thousands of digits
_LEVELS = re.compile(r"[^\s=,]+=[0-9]+(?:,[^\s=,]+=[0-9]+)*")
_PAIRS = re.compile(r"\s*\w+:[^,\s]+(?:\s*,\s*\w+:[^,\s]+)*\s*")
_DEVICE = re.compile(
    r"-?[0-9]+(?::[0-9]+)?|GPU-[0-9a-f-]+|MIG-[0-9a-f-]+|MIG-GPU-[0-9a-f-]+/[0-9]+/[0-9]+", re.IGNORECASE
)


class ValueKind(Enum):
    ENUM = "enum"  # one of `values`, letter for letter
    ENUM_ANY_CASE = "enum_any_case"
    LIST = "list"  # some of `values`, separated by commas
    INT = "int"
    INT_LIST = "int_list"
    FLOAT = "float"
    DEVICES = "devices"  # indices, GPU-…, MIG-…, separated by commas, or one of `values`
    FLAGS = "flags"  # see envdoctor.knowledge.flags
    LEVELS = "levels"  # file=level,…
    PAIRS = "pairs"  # key:value,…
    PATH = "path"
    PATHS = "paths"  # separated by colons
    TEXT = "text"  # not judged


class EnvironmentVariable(Struct, frozen=True):
    name: str
    reader: str  # "TensorFlow", "CUDA", …
    kind: ValueKind
    values: tuple[str, ...]
    default: str  # "" for none, or not known
    mistakes: tuple[str, ...]
    source: str
    verified: bool
    minimum: int | None = None
    maximum: int | None = None


@cache
def environment_variables() -> dict[str, EnvironmentVariable]:
    return {row.name: row for row in load_rows("environment_variables", EnvironmentVariable)}


def environment_variable(name: str) -> EnvironmentVariable | None:
    return environment_variables().get(name)


def wrong_value(variable: EnvironmentVariable, value: str) -> str:
    """What the reader does not take in a value, in words; "" where nothing is wrong or can be told.

    An empty value counts as unset. Which GPU an entry of a device list names is not judged here, and flags
    are judged by `envdoctor.knowledge.flags`.
    """
    if not value:
        return ""
    choices = " or ".join(filter(None, (", ".join(variable.values[:-1]), *variable.values[-1:])))
    lowered = {v.lower() for v in variable.values}
    if variable.kind is ValueKind.ENUM:
        return "" if value in variable.values else f"is not {choices}"
    if variable.kind is ValueKind.ENUM_ANY_CASE:
        return "" if value.lower() in lowered else f"is not {choices}"
    if variable.kind is ValueKind.LIST:
        bad = [v for v in value.split(",") if v.strip() not in variable.values]
        return f"has {bad[0]!r}, which is none of {', '.join(variable.values)}" if bad else ""
    if variable.kind is ValueKind.DEVICES:
        bad = [v for v in value.split(",") if not _DEVICE.fullmatch(v.strip())]
        if value.strip().lower() in lowered or not bad:
            return ""
        return f"has {bad[0]!r}, which is no index, GPU-… or MIG-… identifier"
    if variable.kind in {ValueKind.INT, ValueKind.INT_LIST}:
        parts = value.split(",") if variable.kind is ValueKind.INT_LIST else [value]
        return next(filter(None, (_wrong_integer(variable, part) for part in parts)), "")
    if variable.kind is ValueKind.FLOAT:
        return _wrong_float(variable, value)
    if variable.kind is ValueKind.LEVELS:
        return "" if _LEVELS.fullmatch(value) else "is not file=level, separated by commas without spaces"
    if variable.kind is ValueKind.PAIRS:
        return "" if _PAIRS.fullmatch(value) else "is not key:value, separated by commas"
    return ""


def _wrong_integer(variable: EnvironmentVariable, value: str) -> str:
    if not _INTEGER.fullmatch(value):
        return f"has {value!r}, which is no integer" if "," in value or not value else "is not an integer"
    number = int(value)
    if variable.minimum is not None and number < variable.minimum:
        return f"is below {variable.minimum}"
    if variable.maximum is not None and number > variable.maximum:
        return f"is above {variable.maximum}"
    return ""


def _wrong_float(variable: EnvironmentVariable, value: str) -> str:
    try:
        number = float(value)
    except ValueError:
        return "is not a number"
    if number != number or (variable.minimum is not None and number < variable.minimum):  # noqa: PLR0124 - NaN
        return f"is not a number of at least {variable.minimum}"
    return ""
