"""What the errors of the CUDA driver and runtime mean, by number, name or text."""

from __future__ import annotations

import os
from functools import cache

import msgspec
from msgspec import Struct


class CudaError(Struct, frozen=True):
    number: int
    names: tuple[str, ...]  # of the driver and of the runtime
    text: str  # "" where it is too common a phrase to mean CUDA by itself
    condition: str  # a code, "kernel" where the GPU's capability tells, "" where none stands for it
    alternatives: tuple[str, ...]
    meaning: str
    older: int = 0  # the number of the runtime's error up to CUDA 10.0, where it was another


class _Table(Struct, frozen=True):
    about: str
    rows: tuple[CudaError, ...]


@cache
def _rows() -> tuple[CudaError, ...]:
    with open(os.path.join(os.path.dirname(__file__), "cuda_errors.json"), "rb") as file:
        return msgspec.json.decode(file.read(), type=_Table).rows


def error_texts() -> tuple[str, ...]:
    return tuple(row.text for row in _rows() if row.text)


def cuda_error(*, number: str = "", name: str = "", text: str = "") -> CudaError | None:
    """The error that a message names in any of the three ways; None for one that is not in the table."""
    text = " ".join(text.lower().split())
    for row in _rows():
        if (
            number in {str(row.number), str(row.older or row.number)}
            or name.lower() in {n.lower() for n in row.names}
            or (text and text == row.text.lower())
        ):
            return row
    return None
