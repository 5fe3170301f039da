"""What is known of a running process that is examined (`--pid`)."""

from __future__ import annotations

from msgspec import Struct


class MappedLibrary(Struct, frozen=True):
    """A CUDA library in a process's maps."""

    path: str  # as the kernel has it now: a file that was moved is shown where it went
    gone: bool = False  # deleted, or replaced by another file of its name, since it was mapped


class ProcessFacts(Struct, frozen=True, kw_only=True):
    """A running process, as /proc shows it.

    Arguments beyond the program are left out: they may be secrets.
    """

    pid: int
    program: str  # "python train.py"
    executable: str  # the file that runs, links followed
    replaced: bool  # that file was deleted or replaced since
    uid: int
    own: bool  # of the user who runs envdoctor; of another's nothing is started, not even its interpreter
    started: str  # "2026-11-22 03:49", local time
    threads: int
    cpus: str  # of its affinity mask, as the kernel lists them: "0-3,8"
    limits: dict[str, int | None]  # soft limits: "processes", "open files" …; None: unlimited
    cgroup: str  # the text of /proc/PID/cgroup
    mapped: tuple[MappedLibrary, ...] = ()
    frameworks: tuple[str, ...] = ()  # of those installed: whose own objects it has mapped
