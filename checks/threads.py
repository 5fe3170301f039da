"""Thread pools against what this process may use: affinity, cgroup quota, limits on threads."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from envdoctor.facts.model import Facts, Unavailable, known
from envdoctor.facts.model_threads import ThreadLimit
from envdoctor.finding import Evidence, Finding, SkipError, Unknown

OPENBLAS_MOST = 64  # NumPy's wheels build OpenBLAS for at most 64 threads (NUM_THREADS, numpy/openblas-libs)
# Which variable a pool reads, the first that is set wins. TensorFlow's wheels do not use OpenMP: measured on
# 2.21, OMP_NUM_THREADS changes nothing there, TF_NUM_INTRAOP_THREADS does (process_util.cc).
READS = {
    "OpenBLAS": ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"),
    "MKL": ("MKL_NUM_THREADS", "OMP_NUM_THREADS"),
    "OpenMP": ("OMP_NUM_THREADS",),
    "TensorFlow": ("TF_NUM_INTRAOP_THREADS",),
}
VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
_NUMBER = re.compile(r"\s*\+?(\d+)\s*")
_OMP_LIST = re.compile(r"\s*[1-9]\d*\s*(,\s*[1-9]\d*\s*)*")  # one number a nesting level


def check_oversubscription(facts: Facts) -> Iterator[Finding]:
    """A pool of at least twice the CPUs that may be used: pools respect the affinity mask, not a quota."""
    cpu = facts.host.cpu
    pools = pool_sizes(facts)
    usable = usable_cpus(facts)
    large = {name: size for name, size in pools.items() if size >= 2 * usable}
    if not large:
        return
    quota = known(cpu.quota)
    limited = quota is not None and usable < _processors(facts)
    limit = f"a quota of {quota:g} CPUs" if limited else f"{usable} CPUs"
    yield Finding(
        code="THR001",
        subject=", ".join(large),
        message=f"{' and '.join(large)} will start {max(large.values())} threads on {limit}",
        evidence=(
            Evidence("CPUs of this process", str(_processors(facts)), "nproc"),
            Evidence(
                "cgroup quota", "none" if quota is None else f"{quota:g} CPUs", "cat /sys/fs/cgroup/cpu.max"
            ),
            *(Evidence(name, f"{size} threads", _setting(name, facts)) for name, size in pools.items()),
        ),
        remedy="export "
        + " ".join(f"{name}={value}" for name, value in fitting_exports(facts, large).items()),
    )


def check_thread_limit(facts: Facts) -> Iterator[Finding | Unknown]:
    """No room for the pools: pthread_create fails with EAGAIN, and the process dies or hangs."""
    limits = [one for one in (facts.threads.user_limit, facts.threads.cgroup_limit) if one is not None]
    if not limits:
        return
    pools = pool_sizes(facts)
    wanted = sum(pools.values())
    for limit in limits:
        if isinstance(limit, Unavailable):
            yield Unknown("THR003", limit.reason)
        elif isinstance(limit.used, Unavailable):
            yield Unknown("THR003", limit.used.reason)
        elif limit.limit - limit.used < wanted:
            yield _no_room(limit, limit.used, pools)


def _no_room(limit: ThreadLimit, used: int, pools: dict[str, int]) -> Finding:
    room = max(0, limit.limit - used)
    return Finding(
        code="THR003",
        subject=limit.source,
        message=f"room for {room} more threads (limit {limit.limit}, {used} in use), and "
        f"{', '.join(f'{name} starts {size}' for name, size in pools.items())}",
        evidence=(
            Evidence("limit", str(limit.limit), limit.source),
            Evidence("in use", str(used), "ps -eLf | wc -l"),
        ),
        remedy="export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 "
        "TF_NUM_INTEROP_THREADS=1    # or raise the limit: ulimit -u, docker run --pids-limit, TasksMax",
    )


def check_variables_valid(facts: Facts) -> Iterator[Finding]:
    for name in VARIABLES:
        value = facts.environment.get(name)
        if value is None or _valid(name, value):
            continue
        yield Finding(
            code="THR004",
            subject=name,
            message=f"{name}={value!r} is no number of threads and is ignored",
            evidence=(Evidence(name, repr(value), f"env | grep {name}"),),
            remedy=f"export {name}={_fitting(facts)}",
        )


def check_variables_agree(facts: Facts) -> Iterator[Finding]:
    """OMP, OpenBLAS and MKL limit the same kind of pool: different numbers are seldom meant.

    TensorFlow's own variables limit another pool and may differ from them.
    """
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    values = {
        name: number for name in pools if (number := _number(facts.environment.get(name, ""))) is not None
    }
    if len(set(values.values())) < 2:
        return
    smallest = min(values.values())
    yield Finding(
        code="THR005",
        subject=", ".join(values),
        message=f"{', '.join(f'{name}={value}' for name, value in values.items())}: "
        "which one counts depends on the library",
        evidence=tuple(Evidence(name, str(value), f"env | grep {name}") for name, value in values.items()),
        remedy="export " + " ".join(f"{name}={smallest}" for name in values),
    )


def usable_cpus(facts: Facts) -> int:
    """CPUs that this process may keep busy: the affinity mask, and the cgroup quota rounded up."""
    processors = _processors(facts)
    quota = known(facts.host.cpu.quota)
    return processors if quota is None else max(1, min(processors, math.ceil(quota)))


def _processors(facts: Facts) -> int:
    """Of the affinity mask; below a root, where no process has one, all of the machine's."""
    cpu = facts.host.cpu
    return known(cpu.logical) if isinstance(cpu.affinity, Unavailable) else cpu.affinity


def pool_sizes(facts: Facts) -> dict[str, int]:
    """The threads that each installed library would start, from its variable or from the affinity mask.

    SkipError where nothing that starts threads is installed.
    """
    processors = _processors(facts)
    names = list(known(facts.threads.pools))
    names += ["TensorFlow"] if any(f.name == "tensorflow" for f in known(facts.frameworks)) else []
    if not names:
        raise SkipError("nothing that starts a thread pool is installed")
    return {name: _size(name, processors, facts) for name in names}


def fitting_exports(facts: Facts, pools: dict[str, int]) -> dict[str, str]:
    """The exports that fit: physical cores inside the quota for arithmetic, few threads for inter-op.

    Inter-op threads run independent operations and mostly wait: two are enough where there are two cores.
    """
    fitting = str(_fitting(facts))
    found: dict[str, str] = {}
    for name in pools:
        found[READS[name][0]] = fitting
        if name == "OpenBLAS":
            found["OMP_NUM_THREADS"] = fitting
        if name == "TensorFlow":
            found["TF_NUM_INTEROP_THREADS"] = str(min(2, int(fitting)))
    return found


def _fitting(facts: Facts) -> int:
    physical = facts.host.cpu.physical
    usable = usable_cpus(facts)
    return min(usable, physical) if isinstance(physical, int) and physical > 0 else usable


def _size(pool: str, processors: int, facts: Facts) -> int:
    most = OPENBLAS_MOST if pool == "OpenBLAS" else 1 << 16
    for variable in READS[pool]:
        number = _number(facts.environment.get(variable, ""))
        if number:
            return min(number, most)
    return min(processors, most)


def _setting(pool: str, facts: Facts) -> str:
    name = next((v for v in READS[pool] if _number(facts.environment.get(v, ""))), "")
    return f"{name}={facts.environment[name]}" if name else f"{READS[pool][0]} is not set"


def limit_of(variable: str, facts: Facts) -> int:
    """What a variable limits to; 0 where it is not set, or sets none."""
    return _number(facts.environment.get(variable, "")) or 0


def _number(value: str) -> int | None:
    """What a reader makes of it: the first of a list; None for what is no number."""
    match = _NUMBER.fullmatch(value.partition(",")[0])
    return int(match[1]) if match else None


def _valid(name: str, value: str) -> bool:
    if name == "OMP_NUM_THREADS":
        return bool(_OMP_LIST.fullmatch(value))
    if name.startswith("TF_"):  # 0 asks for the default
        return bool(re.fullmatch(r"\s*[+-]?\d+\s*", value))
    return bool(_number(value))
