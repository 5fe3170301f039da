"""Which settings of the thread pools to try on the CPU, and which to choose: pure."""

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
CLEARLY = 1.03  # faster by less is chance, however little the few epochs scatter
# What each framework reads (docs/threads.md). TensorFlow's wheels use no OpenMP; PyTorch's do. NPROC: the
# size of the pool of XLA's client for the CPU (xla/pjrt/utils.cc, DefaultThreadPoolSize).
_INTRA = {"tensorflow": "TF_NUM_INTRAOP_THREADS", "torch": "OMP_NUM_THREADS", "jax": "NPROC"}

_Rate = tuple[float, float, float]  # images/s: slowest epoch, median, fastest


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
    """In the order tried, which is from few threads to many."""
    rows = [next(iter(device_rows(recording)), None) for _, recording in tried]
    rates: list[_Rate | None] = [
        None
        if row is None or row.images_per_s is None
        else (row.images_per_s_min or 0.0, row.images_per_s, row.images_per_s_max or 0.0)
        for row in rows
    ]
    fastest = max((rate[1] for rate in rates if rate is not None), default=0.0)
    chosen = next((i for i, rate in enumerate(rates) if rate and rate[1] * CLEARLY >= fastest), None)
    return tuple(
        Tuning(
            variables=setting,
            images_per_s=rate[1] if rate else None,
            images_per_s_min=rate[0] if rate else None,
            images_per_s_max=rate[2] if rate else None,
            best=chosen == index and all(_beats(rate, other) for other in rates if other is not rate),
            chosen=chosen == index,
        )
        for index, ((setting, _), rate) in enumerate(zip(tried, rates, strict=True))
    )


def _beats(rate: _Rate | None, other: _Rate | None) -> bool:
    """Whether the slowest epoch of one is faster than the fastest of the other."""
    return rate is not None and (other is None or rate[0] > other[2])


def line(setting: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in setting.items())
