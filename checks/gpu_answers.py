"""What NVML told of the GPUs that this process would see, and how to name them. No check of its own."""

from __future__ import annotations

from typing import TypeVar

from envdoctor.checks.machine import gpus, require_gpu_wanted
from envdoctor.checks.visible_devices import shown
from envdoctor.facts.model import Facts, Gpu, Unavailable, known
from envdoctor.facts.model_gpu import GpuProcess
from envdoctor.finding import Evidence, SkipError

T = TypeVar("T")
# NVML_ERROR_NOT_SUPPORTED: this GPU has no such thing; NVML_ERROR_FUNCTION_NOT_FOUND: the driver is older
# than the question, and so than what it asks for.
NOT_SUPPORTED = ("NVML error 3:", "NVML error 13:")
GIB = 1 << 30


def answers(facts: Facts, field: str, kind: type[T]) -> list[tuple[Gpu, T]]:
    """The GPUs that this process would see and what NVML told of them.

    Raises:
        SkipError: there is no GPU, NVML was not asked, or they have no such thing.
        NotKnownError: NVML was asked and could not tell of any.

    """
    require_gpu_wanted(facts)
    here = gpus(facts)
    if not here:
        raise SkipError("NVML describes no GPU")
    values = [(gpu, getattr(gpu, field)) for gpu in shown(facts, here)]
    told = [(gpu, value) for gpu, value in values if isinstance(value, kind)]
    if told:
        return told
    reasons = [value.reason for _, value in values if isinstance(value, Unavailable)]
    if all(reason.startswith(NOT_SUPPORTED) for reason in reasons):
        raise SkipError("the GPU does not support the question")
    for _, value in values:
        known(value)
    return told


def label(gpu: Gpu) -> str:
    return f"GPU {gpu.index} ({gpu.name})"


def size(count: int) -> str:
    return f"{count / GIB:.1f} GiB"


def who(process: GpuProcess) -> str:
    name = process.name if isinstance(process.name, str) else "not visible from here"
    return f"process {process.pid} ({name})"


def held_by(process: GpuProcess) -> Evidence:
    """Who holds the GPU, how much of it, and since when."""
    parts = [process.name if isinstance(process.name, str) else process.name.reason]
    if process.memory_bytes is not None:
        parts.append(size(process.memory_bytes))
    parts += [f"user {process.user}"] if isinstance(process.user, str) else []
    parts += [f"since {process.started}"] if isinstance(process.started, str) else []
    look = f"ps -o pid,user,lstart,cmd -p {process.pid}"
    return Evidence(f"process {process.pid}", ", ".join(parts), look)
