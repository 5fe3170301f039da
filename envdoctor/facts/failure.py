"""How a child that was asked something failed to answer."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class ProbeFailureKind(Enum):
    HANG = "hang"
    SIGNAL = "signal"
    ERROR = "error"  # it answered with an error code, or could not be loaded


class ProbeFailure(Struct, frozen=True, tag="probe-failure", tag_field="is"):
    """A child that asked the driver (or imported a framework) and did not get an answer."""

    kind: ProbeFailureKind
    detail: str  # "no answer in 5 s", "SIGSEGV", "NVML error 18: Driver/library version mismatch"
    code: int | None = None  # the library's own error number, where it gave one
