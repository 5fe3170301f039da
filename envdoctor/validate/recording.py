"""What was seen of one training: the worker's events, how it ended, what NVML said meanwhile."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from envdoctor.facts.unavailable import Unavailable
from envdoctor.validate.protocol import Event, Failed, Job, only


class Ending(Enum):
    DONE = "done"
    FAILED = "failed"  # it raised, and said so
    DIED = "died"  # a signal, or an exit without a word
    HUNG = "hung"  # silent for too long, and killed
    INTERRUPTED = "interrupted"
    NOT_STARTED = "not-started"


class GpuSample(Struct, frozen=True, kw_only=True):
    """One GPU at one moment; None: NVML does not tell."""

    at: float
    index: int
    utilisation: int | None  # percent of the time in which a kernel ran
    memory_bytes: int | None
    power_w: float | None
    temperature_c: int | None


class Recording(Struct, frozen=True, kw_only=True):
    job: Job
    label: str  # "GPU", "CPU"
    started: float  # CLOCK_MONOTONIC
    seconds: float
    events: tuple[Event, ...]
    ending: Ending
    detail: str = ""  # how it ended, in a few words: "SIGKILL", "no sign of life for 300 s"
    stderr: str = ""  # its head and its tail
    telemetry: tuple[GpuSample, ...] | Unavailable = Unavailable("NVML was not asked")

    @property
    def failure(self) -> Failed | None:
        """Why the worker ended itself."""
        said = only(Failed, self.events)
        return said[-1] if said else None
