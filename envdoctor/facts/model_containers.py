"""What surrounds the target: CPU, C libraries, firmware, container engine, WSL. Plain data, nothing is read.

A default is "nothing of the kind is here"; what could not be read is Unavailable.
"""

from __future__ import annotations

from msgspec import Struct

from envdoctor.facts.elf import SymbolVersions
from envdoctor.facts.unavailable import Unavailable


class Binaries(Struct, frozen=True, kw_only=True):
    """A framework's own compiled files, as installed."""

    framework: str
    objects: tuple[str, ...]  # real paths; the first is what `import` opens, the others come with it
    tags: tuple[
        str, ...
    ]  # of its wheel: "cp311-cp311-manylinux_2_27_x86_64"; () where pip did not install it


class SecureBoot(Struct, frozen=True, kw_only=True):
    """What decides whether the kernel takes the NVIDIA module that is on the disk."""

    enabled: bool
    lockdown: str  # "none", "integrity", "confidentiality"; "" for a kernel without lockdown
    module: str  # nvidia.ko for the running kernel; "" where it has none
    signed: bool | Unavailable  # there is a signature at the module's end
    enrolled: bool | Unavailable | None  # the firmware knows this machine's own key; None: it has none


class Engine(Struct, frozen=True, kw_only=True):
    """A Docker engine on this host, and NVIDIA's toolkit for it."""

    path: str  # of the daemon
    toolkit: tuple[str, ...]  # programs of the NVIDIA Container Toolkit
    cdi: tuple[str, ...]  # device descriptions that name nvidia.com
    runtime: str  # what daemon.json starts for the runtime "nvidia"; "" where it names none
    runtime_exists: bool
    default: bool  # daemon.json makes it the default runtime
    problem: str = ""  # a daemon.json that is not JSON: the daemon does not start with it


class Surroundings(Struct, frozen=True, kw_only=True):
    cpu_flags: frozenset[str] | Unavailable | None = None  # /proc/cpuinfo; None: a tree without /proc
    binaries: tuple[Binaries, ...] = ()
    symbols: dict[str, SymbolVersions] = {}  # of those binaries and of C libraries, by real path
    secure_boot: SecureBoot | Unavailable | None = None  # None: the module is loaded, or no EFI machine
    suspends: int | Unavailable = 0  # since the kernel started
    shm_bytes: int | Unavailable | None = None  # of /dev/shm; None: no limit of its own
    seccomp: bool = False  # a filter stands between this process and the kernel
    clone3: str | Unavailable = ""  # the error that clone3 gives under that filter: "EPERM"; "" for none
    engine: Engine | None = None
    wsl_libraries: tuple[str, ...] = ()  # Windows' driver libraries that are mounted in WSL2
