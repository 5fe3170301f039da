"""Thread limits of the kernel, and which installed libraries start thread pools."""

from __future__ import annotations

import os
import re
import resource

from envdoctor.facts.host import cgroup_directories
from envdoctor.facts.model import Interpreter, Packages, Unavailable
from envdoctor.facts.model_process import ProcessFacts
from envdoctor.facts.model_threads import ThreadLimit, Threads
from envdoctor.facts.root import Root

_ENOUGH = 100_000  # a limit that no framework comes near: what is used of it is not counted


def read_threads(
    root: Root,
    interpreter: Interpreter | Unavailable,
    packages: Packages | Unavailable,
    process: ProcessFacts | None = None,
) -> Threads:
    """The limits of `process`, or of this one. Never raises; what cannot be read is Unavailable."""
    return Threads(
        user_limit=_user_limit(root, process),
        cgroup_limit=_cgroup_limit(root, process),
        pools=_pools(root, interpreter, packages),
    )


def _user_limit(root: Root, process: ProcessFacts | None) -> ThreadLimit | Unavailable | None:
    """RLIMIT_NPROC counts the threads of a user; root and CAP_SYS_RESOURCE are exempt (getrlimit(2))."""
    if not root.is_live:
        return None  # a tree has no processes
    soft: int | None = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    uid, source = os.getuid(), "ulimit -u"
    if process:
        soft, uid, source = process.limits.get("processes"), process.uid, f"/proc/{process.pid}/limits"
    if soft is None or soft == resource.RLIM_INFINITY or soft >= _ENOUGH or uid == 0:
        return None
    return ThreadLimit(limit=soft, used=_threads_of(uid), source=source)


def _threads_of(uid: int) -> int | Unavailable:
    total = 0
    try:
        for name in os.listdir("/proc"):
            if name.isdigit():
                total += _threads_in(name, uid)
    except OSError as error:
        return Unavailable(f"/proc: {error.strerror}")
    return total


def _threads_in(pid: str, uid: int) -> int:
    try:
        if os.stat(f"/proc/{pid}").st_uid != uid:
            return 0
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            found = re.search(r"^Threads:\s*(\d+)", file.read(), re.MULTILINE)
    except OSError:  # it ended meanwhile
        return 0
    return int(found[1]) if found else 0


def _cgroup_limit(root: Root, process: ProcessFacts | None) -> ThreadLimit | Unavailable | None:
    """The cgroup with the least room, among the process's and its ancestors (cgroup-v2, "PID")."""
    try:
        groups = process.cgroup if process else root.read_text("/proc/self/cgroup")
        directories = cgroup_directories(groups, root.read_text("/proc/self/mountinfo"), "pids")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return Unavailable(f"/proc/self/cgroup: {error}")
    limits = []
    for directory, _ in directories:
        try:
            text = root.read_text(f"{directory}/pids.max").strip()
            if not text.isdigit() or int(text) >= _ENOUGH:
                continue
            used = int(root.read_text(f"{directory}/pids.current"))
        except (OSError, ValueError):
            continue
        limits.append(ThreadLimit(limit=int(text), used=used, source=f"{directory}/pids.max"))
    return min(limits, key=_room, default=None)


def _room(limit: ThreadLimit) -> int:
    return limit.limit - (limit.used if isinstance(limit.used, int) else 0)


def _pools(
    root: Root, interpreter: Interpreter | Unavailable, packages: Packages | Unavailable
) -> tuple[str, ...] | Unavailable:
    """NumPy's wheel brings OpenBLAS, conda's may bring MKL; PyTorch starts OpenMP's threads."""
    if isinstance(packages, Unavailable):
        return packages
    if isinstance(interpreter, Unavailable):
        return interpreter
    installed = {d.name for d in packages.distributions}
    pools = []
    mkl = "mkl" in installed or root.exists(f"{interpreter.prefix}/lib/libmkl_rt.so.2")
    if mkl:
        pools.append("MKL")
    elif "numpy" in installed:
        pools.append("OpenBLAS")
    if "torch" in installed:
        pools.append("OpenMP")
    return tuple(pools)
