"""What the kernel tells of a GPU beside NVML: its PCIe link, whose processes use it, who may profile."""

from __future__ import annotations

import os
import posixpath
import time
from collections.abc import Sequence

from msgspec.structs import replace

from envdoctor.facts.model_gpu import Gpu, GpuProcess, Link, PcieLink, Profiling
from envdoctor.facts.root import Root
from envdoctor.facts.unavailable import Unavailable

PARAMETERS = "/proc/driver/nvidia/params"
_GENERATIONS = {"2.5": 1, "5": 2, "5.0": 2, "8": 3, "8.0": 3, "16": 4, "16.0": 4, "32.0": 5, "64.0": 6}
_CAP_SYS_ADMIN = 21  # linux/capability.h


def read_link(root: Root, device: str) -> PcieLink | Unavailable:
    """The link of the PCI device in this directory of /sys/bus/pci/devices.

    What both ends can do is the lesser of what the GPU and the port above it can: a slot with eight lanes
    makes no sixteen. The port is the parent directory of the device's own.
    """
    try:
        place = root.realpath(device)
        return PcieLink(
            current=_link(root, place, "current"),
            gpu_maximum=_link(root, place, "max"),
            port_maximum=_port(root, posixpath.dirname(place)),
        )
    except (OSError, ValueError) as error:
        return Unavailable(f"{device}: {getattr(error, 'strerror', None) or error}")


def _port(root: Root, directory: str) -> Link | Unavailable:
    try:
        return _link(root, directory, "max")
    except (OSError, ValueError) as error:
        return Unavailable(f"{directory}: {getattr(error, 'strerror', None) or error}")


def _link(root: Root, directory: str, which: str) -> Link:
    """The kernel writes "16.0 GT/s PCIe", "Unknown" where the link is down, and 0 or 255 lanes then."""
    width = int(root.read_text(f"{directory}/{which}_link_width"))
    speed = root.read_text(f"{directory}/{which}_link_speed").split(" ", 1)[0].strip()
    return Link(width=width if 0 < width <= 32 else 0, generation=_GENERATIONS.get(speed, 0))


def with_owners(root: Root, gpu: Gpu) -> Gpu:
    """The GPU with its processes named."""
    if isinstance(gpu.processes, Unavailable) or not gpu.processes:
        return gpu
    users = names_by_number(root, "/etc/passwd")
    return replace(gpu, processes=tuple(_named(process, users) for process in gpu.processes))


def _named(process: GpuProcess, users: dict[int, str]) -> GpuProcess:
    """With what /proc tells. In a container NVML may number processes as the host does, or hide them."""
    directory = f"/proc/{process.pid}"
    try:
        owner = os.stat(directory).st_uid
        with open(f"{directory}/cmdline", "rb") as file:
            words = file.read(4096).decode("utf-8", "replace").split("\0")
        name, started = _name_of(process.pid), start_time(process.pid)
    except (OSError, ValueError, IndexError) as error:
        unseen = Unavailable(f"{directory}: {getattr(error, 'strerror', None) or error}")
        return replace(process, name=unseen, user=unseen, started=unseen)
    return replace(
        process,
        name=program_shown(words, name),
        user=users.get(owner, str(owner)),
        started=started,
    )


def program_shown(words: Sequence[str], name: str) -> str:
    """The program, and of Python its script or module. Other arguments may hold secrets."""
    program = posixpath.basename(words[0]) if words else ""
    if program.startswith("python"):
        rest = iter(words[1:])
        for word in rest:
            if word == "-m":
                return f"{program} -m {next(rest, '')}".rstrip()
            if word in {"-X", "-W"}:  # these take the word that follows
                next(rest, "")
            elif word and not word.startswith("-"):
                return f"{program} {posixpath.basename(word)}"
            elif word == "-" or ("c" in word and not word.startswith("--")):
                break  # the program is read from standard input, or follows -c
    return program or name


def _name_of(pid: int) -> str:
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().rstrip("\n")


def start_time(pid: int) -> str:
    """When a process was started, local time: "2026-11-22 03:49" (proc_pid_stat(5), field 22)."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    started = _boot_time() + ticks / os.sysconf("SC_CLK_TCK")
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(started))


def _boot_time() -> float:
    with open("/proc/stat", encoding="ascii") as file:
        return next(float(line.split()[1]) for line in file if line.startswith("btime "))


def read_profiling(root: Root) -> Profiling | Unavailable:
    """Whether the driver keeps the performance counters for administrators, and whether this is one."""
    if not root.is_live:
        return Unavailable("another root is examined, whose user is not known")
    try:
        rows = dict(line.split(":", 1) for line in root.read_text(PARAMETERS).splitlines() if ":" in line)
        with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
            effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    except OSError as error:
        return Unavailable(f"{error.filename}: {error.strerror}")
    except (StopIteration, ValueError):
        return Unavailable("/proc/self/status tells no capabilities")
    admin_only = rows.get("RmProfilingAdminOnly", "").strip()
    if admin_only not in {"0", "1"}:
        return Unavailable(f"{PARAMETERS} has no RmProfilingAdminOnly")
    return Profiling(admin_only=admin_only == "1", is_admin=bool(effective >> _CAP_SYS_ADMIN & 1))


def names_by_number(root: Root, path: str) -> dict[int, str]:
    """Names of users or groups, from the file itself: getpwuid may wait for a directory server."""
    try:
        rows = [line.split(":") for line in root.read_text(path).splitlines()]
    except OSError:
        return {}
    return {int(row[2]): row[0] for row in rows if len(row) > 2 and row[2].isdigit()}
