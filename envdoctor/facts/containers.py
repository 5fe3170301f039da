"""The container engine, WSL2, shared memory and seccomp: what lets a GPU in, or keeps it out."""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

from envdoctor.facts.model_containers import Engine
from envdoctor.facts.unavailable import Unavailable

if TYPE_CHECKING:
    from envdoctor.facts.root import Root

WSL_LIBRARIES = "/usr/lib/wsl/lib"
_DAEMONS = ("/usr/bin/dockerd", "/usr/local/bin/dockerd")
_DAEMON_JSON = "/etc/docker/daemon.json"
_PROGRAMS = ("/usr/bin", "/usr/local/bin", "/usr/local/nvidia/toolkit")
# Any of them shows the toolkit. `docker run --gpus` calls the hook, which needs no daemon.json.
_TOOLKIT = (
    "nvidia-container-runtime-hook",
    "nvidia-container-runtime",
    "nvidia-container-toolkit",
    "nvidia-ctk",
)
_CDI = ("/etc/cdi", "/var/run/cdi")
_CLONE3 = 435  # its number on every architecture (Linux, include/uapi/asm-generic/unistd.h)


def read_engine(root: Root) -> Engine | None:
    """The Docker engine of this host; None where there is none."""
    daemon = next((path for path in _DAEMONS if root.is_file(path)), "")
    if not daemon:
        return None
    runtime, default, problem = _daemon_json(root)
    found = [f"{directory}/{name}" for directory in _PROGRAMS for name in _TOOLKIT]
    return Engine(
        path=daemon,
        toolkit=tuple(path for path in found if root.is_file(path)),
        cdi=tuple(path for directory in _CDI for path in _descriptions(root, directory)),
        runtime=runtime,
        runtime_exists=_starts(root, runtime),
        default=default,
        problem=problem,
    )


def _daemon_json(root: Root) -> tuple[str, bool, str]:
    """The program of the runtime "nvidia", whether it is the default one, and what is wrong with the file."""
    import json  # noqa: PLC0415  only a host with Docker has the file

    try:
        text = root.read_text(_DAEMON_JSON)
        configured = json.loads(text) if text.strip() else {}
    except OSError:
        return "", False, ""
    except ValueError as error:
        return "", False, str(error)
    if not isinstance(configured, dict):
        return "", False, "it holds no JSON object"
    runtimes = configured.get("runtimes")
    row = runtimes.get("nvidia") if isinstance(runtimes, dict) else None
    path = row.get("path", "") if isinstance(row, dict) else ""
    default = configured.get("default-runtime") == "nvidia"
    return (path if isinstance(path, str) else "") or ("nvidia" if default else ""), default, ""


def _starts(root: Root, runtime: str) -> bool:
    """Whether the program is there: an absolute path, or a name for the daemon's PATH."""
    paths = [runtime] if "/" in runtime else [f"{d}/{runtime}" for d in ("/usr/bin", "/usr/local/bin")]
    return any(root.is_file(path) for path in paths)


def _descriptions(root: Root, directory: str) -> list[str]:
    try:
        names = sorted(root.listdir(directory))
    except OSError:
        return []
    return [f"{directory}/{name}" for name in names if "nvidia" in name]


def read_wsl_libraries(root: Root) -> tuple[str, ...]:
    try:
        names = sorted(root.listdir(WSL_LIBRARIES))
    except OSError:
        return ()
    return tuple(f"{WSL_LIBRARIES}/{n}" for n in names if n.startswith(("libcuda.so", "libnvidia-ml.so")))


def read_shm(root: Root) -> int | Unavailable | None:
    """How much /dev/shm can hold, by the mount's own options (proc_pid_mountinfo(5)); the last mount counts.

    None without a `size`: then it is half of the memory (tmpfs(5)), which is no limit to speak of.
    """
    try:
        mounts = root.read_text("/proc/self/mountinfo")
    except FileNotFoundError:
        return None
    except OSError as error:
        return Unavailable(f"/proc/self/mountinfo: {error.strerror}")
    size: int | None = None
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        if not separator or before.split()[4:5] != ["/dev/shm"]:  # noqa: S108  the mount point, not a file
            continue
        found = re.search(r"(?:^|[\s,])size=(\d+)([kmg]?)(?:,|\s|$)", after)
        size = int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[found[2]] if found else None
    return size


def read_seccomp(root: Root) -> bool:
    """Whether a filter is on (proc_pid_status(5): mode 2)."""
    try:
        return root.is_live and "\nSeccomp:\t2" in root.read_text("/proc/self/status")
    except OSError:
        return False


def try_clone3() -> str | Unavailable:
    """The error that clone3 answers here with, where it is not the kernel's own; "" where clone3 works.

    Called without arguments it starts nothing: a kernel that has it says EINVAL, one that lacks it ENOSYS.
    In a child, because a filter may also kill whoever calls.
    """
    child = os.fork()
    if not child:
        _answer_clone3()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return Unavailable(f"a child that called clone3 was killed by signal {os.WTERMSIG(status)}")
    code = os.WEXITSTATUS(status)
    return "" if code in {errno.EINVAL, errno.ENOSYS} else errno.errorcode.get(code, f"error {code}")


def _answer_clone3() -> None:
    code = 255
    try:
        import ctypes  # noqa: PLC0415  only under a seccomp filter

        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall(_CLONE3, None, 0)
        code = ctypes.get_errno()
    finally:
        os._exit(code)
