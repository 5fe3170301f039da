"""The host: operating system, container, processors and what of them this process may use.

Files are read below the root wherever they tell; the running system is asked only when it is the target.
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import TYPE_CHECKING

from envdoctor.facts.model import Cpu, Host, Unavailable

if TYPE_CHECKING:
    from envdoctor.facts.model_process import ProcessFacts
    from envdoctor.facts.root import Root

_CPUS = "/sys/devices/system/cpu"
_CPUINFO_BYTES = 8 << 10  # the first processor: the kernel samples each one, slow where there are hundreds
_LIBC_BYTES = 4 << 20
_LIBC_VERSION = re.compile(rb"GNU C Library [^\n]*release version (\d+\.\d+)")
_LIBC_DIRECTORIES = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")
# Of the loaders that are in every tree of their machine (glibc's sysdeps, musl's arch names)
_LOADER = re.compile(r"ld-(?:linux|musl)-(x86[-_]64|aarch64|armhf|i386|riscv64)\b|(ld64)\.so\.2$")
# The cgroup of a process inside; /system.slice/docker.service is outside
_CONTAINER_CGROUPS = (
    (re.compile(r"/kubepods"), "kubernetes"),
    (re.compile(r"/docker[-/][0-9a-f]{12}"), "docker"),
    (re.compile(r"/libpod-[0-9a-f]{12}"), "podman"),
    (re.compile(r"/lxc(?:\.payload)?[./]"), "lxc"),
)


def gather_host(root: Root, process: ProcessFacts | None = None) -> Host:
    """Everything about the host, and what of its processors `process` may use, or this one.

    Nothing here raises for what is missing.
    """
    release = _os_release(root)
    kernel = _text(root, "/proc/sys/kernel/osrelease").strip() or (os.uname().release if root.is_live else "")
    name = os.uname().nodename if root.is_live else _text(root, "/etc/hostname").strip()
    return Host(
        hostname=name,
        os_name=release.get("PRETTY_NAME") or release.get("NAME", ""),
        os_id=release.get("ID", ""),
        os_like=tuple(release.get("ID_LIKE", "").split()),
        os_version=release.get("VERSION_ID", ""),
        kernel=kernel,
        machine=_machine(root),
        libc=_libc(root),
        container=_container(root),
        wsl=_is_wsl(root, kernel),
        cpu=Cpu(
            model=cpu_model(_text(root, "/proc/cpuinfo", _CPUINFO_BYTES)),
            logical=_logical(root),
            physical=_physical(root),
            affinity=_affinity(root, process),
            quota=_quota(root, process.cgroup if process else None),
        ),
    )


def _text(root: Root, path: str, limit: int = 1 << 20) -> str:
    """The text of a file; "" where it cannot be read."""
    try:
        return root.read_bytes(path, limit).decode("utf-8", "replace")
    except OSError:
        return ""


def _names(root: Root, directory: str) -> list[str]:
    try:
        return sorted(root.listdir(directory))
    except OSError:
        return []


def _exists(root: Root, path: str) -> bool:
    try:
        return root.exists(path)
    except OSError:
        return False


# --- the operating system ---------------------------------------------------------------------------


def _os_release(root: Root) -> dict[str, str]:
    """os-release(5): assignments as a shell would read them."""
    text = _text(root, "/etc/os-release") or _text(root, "/usr/lib/os-release")
    values = {}
    for line in text.splitlines():
        key, assigned, value = line.strip().partition("=")
        if assigned and not key.startswith("#"):
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = re.sub(r"\\(.)", r"\1", value[1:-1])
            values[key] = value
    return values


def _machine(root: Root) -> str:
    """As uname -m. A tree tells it by its loader; one without a loader is taken for one of this machine."""
    if not root.is_live:
        for directory in ("/lib64", "/lib"):
            for name in _names(root, directory):
                if found := _LOADER.match(name):
                    return "ppc64le" if found[2] else found[1].replace("-", "_").replace("armhf", "armv7l")
    return os.uname().machine


def _libc(root: Root) -> str | Unavailable:
    if root.is_live:
        try:
            version = os.confstr("CS_GNU_LIBC_VERSION")
        except (ValueError, OSError):  # only glibc knows this name
            version = None
        if version:
            return version
    elif found := _glibc_below(root):
        return found
    if any(name.startswith("ld-musl-") for name in _names(root, "/lib")):
        return "musl"
    return Unavailable("neither a libc.so.6 that names its version nor musl's loader is in /lib or /lib64")


def _glibc_below(root: Root) -> str:
    """From the banner that libc.so.6 prints when it is run."""
    multiarch = [f"/lib/{n}" for n in _names(root, "/lib") if n.endswith("-linux-gnu")]
    for directory in (*_LIBC_DIRECTORIES, *multiarch):
        try:
            found = _LIBC_VERSION.search(root.read_bytes(f"{directory}/libc.so.6", _LIBC_BYTES))
        except OSError:
            continue
        if found:
            return f"glibc {found[1].decode()}"
    return ""


def _is_wsl(root: Root, kernel: str) -> bool:
    """WSL's kernels say "microsoft"; one that a user built need not, so the interop file counts too."""
    return (
        "microsoft" in (kernel + _text(root, "/proc/version").partition("(")[0]).lower()
        or _exists(root, "/proc/sys/fs/binfmt_misc/WSLInterop")
        or _exists(root, "/run/WSL")
    )


def _container(root: Root) -> str:
    """What the engines leave inside: marker files, $container (systemd's convention), cgroup names."""
    environment = os.environ if root.is_live else {}
    if "KUBERNETES_SERVICE_HOST" in environment or _exists(root, "/var/run/secrets/kubernetes.io"):
        return "kubernetes"
    if _exists(root, "/.singularity.d"):
        return "apptainer" if "APPTAINER_CONTAINER" in environment else "singularity"
    if _exists(root, "/run/.containerenv"):
        return "podman"
    if _exists(root, "/.dockerenv"):
        return "docker"
    first = re.search(r"(?:^|\0)container=([^\0]+)", _text(root, "/proc/1/environ"))
    named = environment.get("container") or _text(root, "/run/systemd/container").strip()
    if named or first:
        return named or (first[1] if first else "")
    groups = _text(root, "/proc/self/cgroup")
    return next((name for pattern, name in _CONTAINER_CGROUPS if pattern.search(groups)), "")


# --- processors -------------------------------------------------------------------------------------


def cpu_model(cpuinfo: str) -> str:
    """From the text of /proc/cpuinfo; "" where it names none. Only x86 has "model name" everywhere."""
    pairs = (line.partition(":") for line in cpuinfo.splitlines() if ":" in line)
    values = {key.strip(): value.strip() for key, _, value in reversed(list(pairs))}  # the first one stays
    for key in ("model name", "cpu", "Hardware", "Model"):
        if values.get(key):
            return values[key]
    if "CPU part" in values:
        return f"ARM implementer {values.get('CPU implementer', '?')} part {values['CPU part']}"
    return ""


def _logical(root: Root) -> int | Unavailable:
    path = f"{_CPUS}/online"
    text = _text(root, path).strip()
    if re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        return _count(text)
    number = os.cpu_count() if root.is_live else None
    return number or Unavailable(f"{path} cannot be read")


def _affinity(root: Root, process: ProcessFacts | None) -> int | Unavailable:
    if process:
        return _count(process.cpus)
    if root.is_live:
        return len(os.sched_getaffinity(0))
    return Unavailable("another root is examined; no process of it runs")


def _count(cpu_list: str) -> int:
    """How many a kernel CPU list names: "0-3,8" is 5."""
    ranges = (part.partition("-") for part in cpu_list.split(",") if part)
    return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)


def _physical(root: Root) -> int | Unavailable:
    """Cores: processors that are no sibling of another one."""
    names = [n for n in _names(root, _CPUS) if re.fullmatch(r"cpu\d+", n)]
    cores = {_text(root, f"{_CPUS}/{name}/topology/thread_siblings_list").strip() for name in names}
    return len(cores - {""}) or Unavailable(f"{_CPUS}/cpu*/topology cannot be read")


# --- the cgroup's CPU quota -------------------------------------------------------------------------


def _quota(root: Root, groups: str | None = None) -> float | Unavailable | None:
    """The tightest CPU limit among a process's cgroup and the ancestors that can be seen.

    `groups` is the text of its /proc/PID/cgroup; this process's own where it is None.
    """
    try:
        groups = root.read_text("/proc/self/cgroup") if groups is None else groups
        mounts = root.read_text("/proc/self/mountinfo")
    except FileNotFoundError as error:
        if root.is_live and root.exists("/proc/self"):
            return None  # a kernel without cgroups
        return Unavailable(f"{error.filename}: {error.strerror}")
    except OSError as error:
        return Unavailable(f"{error.filename}: {error.strerror}")
    limits = []
    try:
        for directory, version in cgroup_directories(groups, mounts, "cpu"):
            limit = _limit_v2(root, directory) if version == 2 else _limit_v1(root, directory)
            if limit is not None:
                limits.append(limit)
    except (OSError, ValueError, ArithmeticError) as error:
        return Unavailable(f"the cgroup's CPU limit: {error}")
    return min(limits, default=None)


def cgroup_directories(cgroup: str, mountinfo: str, controller: str) -> list[tuple[str, int]]:
    """The directories that may limit what `controller` ("cpu", "pids") limits, innermost first, each with its
    cgroup version.

    From the texts of /proc/self/cgroup and /proc/self/mountinfo (cgroups(7), proc(5)). Mounts may show
    only a part of the hierarchy (in a container, its own part at the mount point).
    """
    found = []
    for line in cgroup.splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        version = 2 if hierarchy == "0" else 1
        if version == 2 or controller in controllers.split(","):
            found += [(directory, version) for directory in _ancestry(path, version, mountinfo, controller)]
    return found


def _ancestry(path: str, version: int, mountinfo: str, controller: str) -> list[str]:
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), [*after.split(), "", "", ""][:3]
        if not separator or len(fields) < 5 or kind != ("cgroup2" if version == 2 else "cgroup"):
            continue
        if version == 1 and controller not in options.split(","):
            continue
        top, mount = fields[3], fields[4].replace("\\040", " ")
        inside = f"{path}/".startswith(f"{top.rstrip('/')}/")
        relative = posixpath.relpath(path, top) if inside else "."
        directories = [mount]
        for part in relative.split("/"):
            if part not in (".", ".."):
                directories.insert(0, f"{directories[0]}/{part}")
        return directories
    return []


def _limit_v2(root: Root, directory: str) -> float | None:
    fields = _controls(root, f"{directory}/cpu.max").split()
    return int(fields[0]) / int(fields[1]) if len(fields) == 2 and fields[0] != "max" else None


def _limit_v1(root: Root, directory: str) -> float | None:
    quota = _controls(root, f"{directory}/cpu.cfs_quota_us")
    period = _controls(root, f"{directory}/cpu.cfs_period_us")
    return int(quota) / int(period) if period and int(quota) > 0 else None


def _controls(root: Root, path: str) -> str:
    """A control file's text; "" where that group has none (the hierarchy's root, a controller not in use)."""
    try:
        return root.read_text(path).strip()
    except FileNotFoundError:
        return ""
