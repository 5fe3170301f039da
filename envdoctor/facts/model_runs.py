"""What frameworks did when they were run in children of the target's interpreter."""

from __future__ import annotations

from msgspec import Struct

from envdoctor.facts.failure import ProbeFailure


class Placement(Struct, frozen=True, kw_only=True):
    """An operation that was asked for on a device, and the device of its result."""

    operation: str
    asked: str  # "GPU:0"
    ran: str = ""  # "" where it failed
    soft: bool = True  # soft placement: the framework may choose another device
    error: str = ""


class Compiled(Struct, frozen=True, kw_only=True):
    """A function compiled by XLA for a device, and run there."""

    device: str
    ran: str = ""
    seconds: float = 0.0  # compilation and first run
    error: str = ""


class Load(Struct, frozen=True, kw_only=True):
    """A loop on the CPU, measured for a fifth of a second."""

    parallelism: float  # CPU seconds per wall second
    calls: int
    seconds: float


class ThreadRun(Struct, frozen=True, kw_only=True):
    """How parallel the CPU really worked, under the limits in force."""

    intra_op: int  # what the framework says its pool's size is; 0: its default
    inter_op: int
    matmul: Load
    convolution: Load
    threads: int  # of the process, afterwards


class StepFailure(Struct, frozen=True, kw_only=True):
    """The step at which a probe ended before its end, or that raised."""

    step: str  # "import", "conv2d with gradient on GPU:0", "XLA on CPU:0" …
    failure: ProbeFailure


class FrameworkRun(Struct, frozen=True, kw_only=True, tag="run", tag_field="is"):
    """A framework that was imported and listed its devices; what it did after that, as far as it came."""

    framework: str
    version: str
    import_seconds: float
    peak_bytes: int  # of the process after the import
    gpus: tuple[str, ...]
    stderr: str
    simulated: bool = False  # a simulated driver computes nothing: no operation was asked of its GPUs
    mapped: tuple[str, ...] = ()  # CUDA libraries in the process's maps, as files
    memory_growth: tuple[bool, ...] = ()  # for each GPU
    placements: tuple[Placement, ...] = ()
    compiled: tuple[Compiled, ...] = ()
    threads: ThreadRun | None = None  # None: not reached
    failures: tuple[StepFailure, ...] = ()


class FrameworkCrash(Struct, frozen=True, kw_only=True, tag="crash", tag_field="is"):
    """A framework that could not be imported, or could not list its devices."""

    framework: str
    step: str
    failure: ProbeFailure
    stderr: str
