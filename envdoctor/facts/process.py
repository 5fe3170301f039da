"""A running process: its environment, interpreter, limits and mapped libraries, from /proc alone.

Nothing is started in it, and it is not stopped: reading needs no ptrace attachment (proc(5)).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from envdoctor.errors import UsageError
from envdoctor.facts.gpu_state import names_by_number, program_shown, start_time
from envdoctor.facts.model import Framework
from envdoctor.facts.model_process import MappedLibrary, ProcessFacts
from envdoctor.facts.root import Root
from envdoctor.facts.surroundings import main_objects

# As facts/probes/envdoctor_probe.py has them: CUDA's libraries, cuDNN's, NVIDIA's own
_CUDA_NAMES = ("libcu", "libnv", "libnccl")
_PYTHON = re.compile(r"python\d*(\.\d+)*[a-z]*")
_LIBPYTHON = re.compile(r"libpython\d[\d.]*[a-z]*\.so")
_SITE = re.compile(r"(/.*)/lib(?:64)?/python\d+\.\d+/site-packages/")
_OCTAL = re.compile(r"\\([0-3][0-7]{2})")
_GONE = " (deleted)"  # what the kernel appends to the path of a file that has no name any more
_LIMITS = ("processes", "open files", "locked memory", "address space")
_PF_KTHREAD = 0x00200000  # include/linux/sched.h


@dataclass(frozen=True)
class RunningProcess:
    """What was read of a process, and which interpreter a new process like it would start."""

    facts: ProcessFacts
    environment: Mapping[str, str]  # that it was started with; what it set itself since is not seen
    python: str
    chosen_by: str
    files: tuple[MappedLibrary, ...]  # all that it has mapped


def read_process(pid: int) -> RunningProcess:
    """Everything at once: it may end at any moment.

    Raises:
        UsageError: there is no such process, it may not be read, it is not Python, or it ends meanwhile.

    """
    try:
        before = _Stat.of(pid)
    except FileNotFoundError:
        raise UsageError(_absent(pid)) from None
    except OSError:
        raise UsageError(_ended(pid)) from None
    try:
        _refuse(pid, before)
        running = _read(pid)
        after = _Stat.of(pid)
    except PermissionError:
        raise UsageError(_denied(pid)) from None
    except (FileNotFoundError, ProcessLookupError):
        raise UsageError(_ended(pid)) from None
    if after.started != before.started or after.state in "ZX":
        raise UsageError(_ended(pid))
    return running


def loaded_frameworks(running: RunningProcess, installed: tuple[Framework, ...], root: Root) -> ProcessFacts:
    """The facts, with the frameworks whose own compiled files the process has mapped."""
    files = {file.path for file in running.files}
    names = []
    for framework in installed:
        package = root.realpath(framework.location) + "/"
        own = files & set(main_objects(framework, root))
        if own or any(path.startswith(package) for path in files):
            names.append(framework.name)
    return replace(running.facts, frameworks=tuple(names))


# --- who may be read ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stat:
    name: str
    state: str
    flags: int
    started: int  # clock ticks after boot

    @classmethod
    def of(cls, pid: int) -> _Stat:
        """Fields 2, 3, 9 and 22 of /proc/PID/stat; the name may hold blanks and parentheses."""
        text = _text(pid, "stat")
        name, _, rest = text.partition("(")[2].rpartition(")")
        fields = rest.split()
        return cls(name, fields[0], int(fields[6]), int(fields[19]))


def _refuse(pid: int, stat: _Stat) -> None:
    what = f"--pid {pid} ({stat.name})"
    if stat.state in "ZX":
        raise UsageError(f"{what} has ended and only waits for its parent to notice (a zombie)")
    if stat.flags & _PF_KTHREAD:
        raise UsageError(f"{what} is a thread of the kernel; expected a Python process")
    group = int(_field(_text(pid, "status"), "Tgid") or pid)
    if group != pid:
        raise UsageError(f"{what} is a thread of process {group}; expected that process: --pid {group}")
    if not os.path.samestat(os.stat(f"/proc/{pid}/root"), os.stat("/")):
        raise UsageError(
            f"{what} has another root directory (a container, or chroot); run envdoctor inside it, "
            f"or examine its files with --root /proc/{pid}/root"
        )


def _absent(pid: int) -> str:
    """Where /proc hides the processes of others (hidepid), a signal 0 still finds them (kill(2))."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return _denied(pid)
    except (ProcessLookupError, OverflowError):
        return f"--pid {pid}: no process has this number; expected that of a running Python process"
    return f"--pid {pid}: /proc does not show this process"


def _denied(pid: int) -> str:
    try:
        uid = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return f"--pid {pid}: permission denied: it belongs to another user"
    user = names_by_number(Root(), "/etc/passwd").get(uid, str(uid))
    if uid == os.geteuid():
        return f"--pid {pid}: permission denied: it is {user}'s and may not be read (not dumpable, a sandbox)"
    return f"--pid {pid}: permission denied: it belongs to {user}; run envdoctor as that user, or as root"


def _ended(pid: int) -> str:
    return f"--pid {pid}: the process ended while it was read"


# --- what is read -------------------------------------------------------------------------------------


def _read(pid: int) -> RunningProcess:
    link = os.readlink(f"/proc/{pid}/exe")
    executable = link.removesuffix(_GONE)
    arguments = _strings(_bytes(pid, "cmdline"))
    environment = dict(
        reversed([v.split("=", 1) for v in _strings(_bytes(pid, "environ")) if "=" in v])
    )  # getenv takes the first
    files = tuple(mapped_files(_text(pid, "maps")))
    if not files:  # its memory is gone already, and what was read before may be empty for that
        raise ProcessLookupError
    status = _text(pid, "status")
    uid = int(_field(status, "Uid").split()[1])  # real, effective, saved, file system
    python, chosen_by = _interpreter(pid, executable, arguments, environment, files)
    facts = ProcessFacts(
        pid=pid,
        program=program_shown(arguments, os.path.basename(executable)),
        executable=executable,
        replaced=link != executable,
        uid=uid,
        own=uid == os.geteuid(),
        started=start_time(pid),
        threads=int(_field(status, "Threads")),
        cpus=_field(status, "Cpus_allowed_list"),
        limits=dict(parse_limits(_text(pid, "limits"))),
        cgroup=_text(pid, "cgroup"),
        mapped=tuple(f for f in files if os.path.basename(f.path).startswith(_CUDA_NAMES)),
    )
    return RunningProcess(facts, environment, python, chosen_by, files)


def mapped_files(maps: str) -> Iterator[MappedLibrary]:
    """Each file in the text of /proc/PID/maps once: address, mode, offset, device, inode, path (proc(5))."""
    seen = set()
    for line in maps.splitlines():
        path = line.split(None, 5)[5:]
        if path and path[0].startswith("/") and path[0] not in seen:
            seen.add(path[0])
            name = _OCTAL.sub(lambda octal: chr(int(octal[1], 8)), path[0])  # a newline is \012
            yield MappedLibrary(name.removesuffix(_GONE), gone=name.endswith(_GONE))


def parse_limits(text: str) -> Iterator[tuple[str, int | None]]:
    """The soft limits in /proc/PID/limits: "Max open files            1024                 524288"."""
    for line in text.splitlines():
        found = re.match(r"Max (\S+(?: \S+)*?) {2,}(\d+|unlimited) ", line)
        if found and found[1] in _LIMITS:
            yield found[1], None if found[2] == "unlimited" else int(found[2])


def _interpreter(
    pid: int,
    executable: str,
    arguments: list[str],
    environment: Mapping[str, str],
    files: tuple[MappedLibrary, ...],
) -> tuple[str, str]:
    """The interpreter whose start would be like this process's, and how it is known.

    A venv's bin/python is a link, and the kernel only knows where it leads: which link was used stands in
    the command line (Python itself looks there for pyvenv.cfg). A process can overwrite that; then the
    site-packages of what it has mapped tell, and its variables.
    """
    plain = bool(_PYTHON.fullmatch(os.path.basename(executable)))
    if not plain and not any(_LIBPYTHON.match(os.path.basename(f.path)) for f in files):
        raise UsageError(f"--pid {pid} runs {executable!r}; expected a Python process")
    for path, how in _candidates(pid, arguments, environment, files):
        same = not plain or _is_same(path, pid, executable)
        if same and os.path.isfile(path) and os.access(path, os.X_OK):
            return path, how
    if plain and os.path.isfile(executable):
        return executable, f"/proc/{pid}/exe"
    why = "is not there any more" if plain else "is no Python interpreter, and nothing tells which it uses"
    raise UsageError(f"--pid {pid} runs {executable!r}, which {why}; expected a Python process")


def _candidates(
    pid: int, arguments: list[str], environment: Mapping[str, str], files: tuple[MappedLibrary, ...]
) -> Iterator[tuple[str, str]]:
    started = arguments[0] if arguments else ""
    if "/" in started:
        for directory in (os.readlink(f"/proc/{pid}/cwd"), environment.get("PWD", "/")):
            yield (
                os.path.normpath(f"{directory}/{started}") if started[0] != "/" else started,
                ("its command line"),
            )
    elif started:
        for directory in environment.get("PATH", "").split(":"):
            if directory.startswith("/"):
                yield f"{directory}/{started}", "its command line and $PATH"
    for file in files:
        found = _SITE.match(file.path)
        if found:
            yield f"{found[1]}/bin/python", "its mapped site-packages"
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if environment.get(variable):
            yield f"{environment[variable].rstrip('/')}/bin/python", f"its ${variable}"


def _is_same(path: str, pid: int, executable: str) -> bool:
    """Whether `path` leads to what the process runs; by name, where that was replaced since."""
    try:
        return os.path.samefile(path, f"/proc/{pid}/exe") or os.path.realpath(path) == executable
    except OSError:
        return os.path.realpath(path) == executable


def _bytes(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()


def _text(pid: int, name: str) -> str:
    return _bytes(pid, name).decode("utf-8", "surrogateescape")


def _strings(data: bytes) -> list[str]:
    return data.decode("utf-8", "surrogateescape").removesuffix("\0").split("\0") if data else []


def _field(status: str, name: str) -> str:
    found = re.search(rf"^{name}:\s*(.*)", status, re.MULTILINE)
    return found[1].strip() if found else ""
