"""Which settings of the thread pools to try on the CPU, and which was best: pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from envdoctor.checks.threads import usable_cpus
from envdoctor.facts.model import Facts
from envdoctor.validate.judge import Tuning
from envdoctor.validate.measure import device_rows
from envdoctor.validate.protocol import Job
from envdoctor.validate.recording import Recording

SAMPLES = 2000  # an epoch of a trial
EPOCHS = 4  # the first compiles
CLEARLY = 1.03  # a wider setting must be so much faster to be preferred: timings scatter by a few percent
# What each framework reads (docs/threads.md). TensorFlow's wheels use no OpenMP; PyTorch's do. NPROC: the
# size of the pool of XLA's client for the CPU (xla/pjrt/utils.cc, DefaultThreadPoolSize).
_INTRA = {"tensorflow": "TF_NUM_INTRAOP_THREADS", "torch": "OMP_NUM_THREADS", "jax": "NPROC"}


def variables(backend: str, intra_op: int, inter_op: int | None) -> dict[str, str]:
    """The environment that limits the framework, and NumPy beside it, to so many threads."""
    found = {_INTRA[backend]: str(intra_op), "OMP_NUM_THREADS": str(intra_op)}
    if backend == "tensorflow":
        found["TF_NUM_INTEROP_THREADS"] = str(inter_op or min(2, intra_op))
    return {**found, "OPENBLAS_NUM_THREADS": str(intra_op)}


def settings(facts: Facts, backend: str) -> list[dict[str, str]]:
    """From one thread to the CPUs that may be used, doubling; the physical cores.

    For TensorFlow each with two widths of the pool that runs independent operations.
    """
    usable = usable_cpus(facts)
    physical = facts.host.cpu.physical
    widths = {1, usable, *(2**n for n in range(1, 8) if 2**n < usable)}
    if isinstance(physical, int) and 0 < physical < usable:
        widths.add(physical)
    inter = (1, 2) if backend == "tensorflow" else (None,)
    return [variables(backend, width, other) for width in sorted(widths) for other in inter]


def short_job(job: Job) -> Job:
    """Only what is needed to compare: no test, no numerics."""
    return replace(
        job,
        data=replace(job.data, samples=min(SAMPLES, job.data.samples or SAMPLES)),
        batch_sizes=job.batch_sizes[:1],
        epochs=EPOCHS,
        evaluate=False,
        numerics=False,
        numpy_seconds=0.0,
        activations=False,
    )


def ranked(tried: Sequence[tuple[dict[str, str], Recording]]) -> tuple[Tuning, ...]:
    """In the order tried; of those about as fast as the fastest the one with the fewest threads is best."""
    speeds = []
    for _, recording in tried:
        rows = device_rows(recording)
        speeds.append(rows[0].images_per_s_max if rows else None)
    fastest = max((s for s in speeds if s is not None), default=0.0)
    best = next((i for i, s in enumerate(speeds) if s is not None and s * CLEARLY >= fastest), None)
    return tuple(
        Tuning(variables=setting, images_per_s=speeds[i], best=i == best)
        for i, (setting, _) in enumerate(tried)
    )


def line(setting: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in setting.items())
