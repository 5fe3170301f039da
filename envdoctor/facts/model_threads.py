"""What limits the threads of a new process."""

from __future__ import annotations

from msgspec import Struct

from envdoctor.facts.unavailable import Unavailable


class ThreadLimit(Struct, frozen=True, kw_only=True, tag="thread-limit", tag_field="is"):
    """A limit on threads and how much of it is used up."""

    limit: int
    used: int | Unavailable
    source: str  # where a user can look: "ulimit -u", "/sys/fs/cgroup/…/pids.max"


class Threads(Struct, frozen=True, kw_only=True):
    user_limit: ThreadLimit | Unavailable | None  # RLIMIT_NPROC; None: no limit, or not for this user
    cgroup_limit: ThreadLimit | Unavailable | None  # the tightest pids.max; None: no limit
    pools: (
        tuple[str, ...] | Unavailable
    )  # installed libraries that start threads: "OpenBLAS", "MKL", "OpenMP"
