"""Thread limits that were set, against what was measured in the running framework."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from envdoctor.checks.machine import title
from envdoctor.checks.threads import READS, fitting_exports, limit_of, usable_cpus
from envdoctor.facts.model import Facts, FrameworkRun, known
from envdoctor.finding import Evidence, Finding, SkipError

POOLS = {"tensorflow": "TensorFlow", "torch": "OpenMP"}
# A loop over one thread measured 1.00 to 1.02 CPU seconds per second, over two 1.8 to 2.0 (TensorFlow 2.21,
# two cores): half a CPU more than the limit is no noise.
TOLERANCE = 0.5
LIMITS = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def check_limit_kept(facts: Facts) -> Iterator[Finding]:
    """More CPU seconds per second than the smallest limit that somebody set."""
    runs = [r for r in known(facts.runs) if isinstance(r, FrameworkRun) and r.threads is not None]
    if not runs:
        raise SkipError("no framework was measured")
    limits = {name: limit for name in LIMITS if (limit := limit_of(name, facts))}
    if not limits:
        raise SkipError("no limit of threads is set")
    for run in runs:
        assert run.threads is not None
        measured = max(run.threads.matmul.parallelism, run.threads.convolution.parallelism)
        ignored = {name: limit for name, limit in limits.items() if measured > limit + TOLERANCE}
        pool = POOLS.get(run.framework)
        own = READS[pool] if pool else ()
        if not ignored or any(limit_of(name, facts) and name not in ignored for name in own):
            continue  # its own variable holds; what others read is not for it
        exports = fitting_exports(facts, {pool: usable_cpus(facts)}) if pool else {}
        exports = dict.fromkeys(exports, str(min(ignored.values())))
        yield Finding(
            code="THR002",
            subject=", ".join(ignored),
            framework=run.framework,
            message=f"{_assignments(ignored)} does not limit {title(run.framework)}: "
            f"{measured:.1f} CPUs at work were measured",
            evidence=(
                Evidence("matmul", f"{run.threads.matmul.parallelism:.2f} CPU seconds per second"),
                Evidence("convolution", f"{run.threads.convolution.parallelism:.2f} CPU seconds per second"),
                Evidence("threads of the process", str(run.threads.threads)),
            ),
            remedy=f"export {_assignments(exports)}" if exports else "",
        )


def _assignments(values: Mapping[str, object]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())
