"""The facts: everything that was read from a target, frozen, typed and serialisable.

A fact is a value or `Unavailable(reason)`. An empty string, tuple or None is a value ("there is none"),
never a stand-in for "could not be read". Paths are the target's own, without the root in front.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import Struct

from envdoctor.facts.failure import ProbeFailure as ProbeFailure
from envdoctor.facts.failure import ProbeFailureKind as ProbeFailureKind
from envdoctor.facts.loader_model import LibraryWorld
from envdoctor.facts.model_containers import Surroundings
from envdoctor.facts.model_gpu import NOT_ASKED, GpuFailure, KernelLog, PcieLink, Profiling
from envdoctor.facts.model_gpu import Gpu as Gpu
from envdoctor.facts.model_interfaces import Interface
from envdoctor.facts.model_jupyter import Jupyter
from envdoctor.facts.model_packages import CondaPackage
from envdoctor.facts.model_process import ProcessFacts
from envdoctor.facts.model_runs import FrameworkCrash as FrameworkCrash
from envdoctor.facts.model_runs import FrameworkRun as FrameworkRun
from envdoctor.facts.model_threads import Threads
from envdoctor.facts.model_toolkits import CudaInstallations
from envdoctor.facts.model_xla import Xla
from envdoctor.facts.unavailable import NotKnownError as NotKnownError
from envdoctor.facts.unavailable import Unavailable as Unavailable
from envdoctor.facts.unavailable import known as known

if TYPE_CHECKING:
    from envdoctor.resolution import FrameworkLibraries

# --- host -------------------------------------------------------------------------------------------


class Cpu(Struct, frozen=True, kw_only=True):
    model: str
    logical: int | Unavailable
    physical: int | Unavailable
    affinity: int | Unavailable  # processors this process may run on
    quota: float | Unavailable | None  # CPUs the cgroup grants; None: no limit


class Host(Struct, frozen=True, kw_only=True):
    hostname: str
    os_name: str  # PRETTY_NAME of os-release
    os_id: str  # "debian", "ubuntu", "opensuse-leap" …
    os_like: tuple[str, ...]  # ID_LIKE
    os_version: str  # VERSION_ID
    kernel: str  # uname -r
    machine: str  # "x86_64", "aarch64"
    libc: str | Unavailable  # "glibc 2.36", "musl"
    container: str  # "docker", "podman", "singularity", "lxc" …; "" outside
    wsl: bool
    cpu: Cpu


# --- driver -----------------------------------------------------------------------------------------


class PciGpu(Struct, frozen=True, kw_only=True):
    """An NVIDIA display controller (PCI class 0x03) on the bus."""

    address: str  # "0000:01:00.0"
    device_id: str  # "0x2684"
    kernel_driver: str  # "nvidia", "nouveau", "vfio-pci"; "" when none is bound
    link: PcieLink | Unavailable = NOT_ASKED


class DeviceNode(Struct, frozen=True, kw_only=True):
    path: str  # "/dev/nvidiactl"
    readable: bool
    writable: bool
    mode: str  # "crw-rw----"
    owner: str
    group: str


class DriverLibrary(Struct, frozen=True, kw_only=True):
    """A user-space driver library (libcuda.so.1, libnvidia-ml.so.1) that the loader would take."""

    soname: str
    path: str  # as the loader spells it
    real: str  # after links: libcuda.so.550.54.14
    version: str  # from the real name; "" where the name tells none


class Nvml(Struct, frozen=True, kw_only=True, tag="nvml", tag_field="is"):
    driver_version: str  # "550.54.14"
    cuda_version: str  # the newest CUDA that this driver serves, "12.4"
    simulated: bool
    gpus: tuple[Gpu | Unavailable, ...]  # one lost GPU does not hide the others
    failures: tuple[GpuFailure, ...] = ()  # of those that are Unavailable, the error numbers


class CudaDevice(Struct, frozen=True, kw_only=True):
    name: str
    compute_capability: str
    memory_bytes: int
    multiprocessors: int = 0  # 0: not told
    virtual_memory: bool = True  # CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED


class CudaDriver(Struct, frozen=True, kw_only=True, tag="cuda-driver", tag_field="is"):
    """What libcuda.so.1 itself answers under the target's environment (CUDA_VISIBLE_DEVICES counts)."""

    version: str  # cuDriverGetVersion, "12.4"
    simulated: bool
    devices: tuple[CudaDevice, ...]


class Driver(Struct, frozen=True, kw_only=True):
    kernel_module: str | Unavailable  # version in /proc/driver/nvidia/version; "" when not loaded
    modules: tuple[str, ...] | Unavailable  # of nvidia, nvidia_uvm, nvidia_drm, nvidia_modeset, nouveau
    pci: tuple[PciGpu, ...] | Unavailable
    nodes: tuple[DeviceNode, ...] | Unavailable
    libraries: tuple[DriverLibrary, ...] | Unavailable
    nvml: Nvml | ProbeFailure | Unavailable
    cuda: CudaDriver | ProbeFailure | Unavailable
    kernel_log: KernelLog | Unavailable = NOT_ASKED
    profiling: Profiling | Unavailable = NOT_ASKED


# --- packages and frameworks ------------------------------------------------------------------------


class Distribution(Struct, frozen=True, kw_only=True):
    name: str  # normalised, PEP 503
    version: str
    location: str  # the directory that holds its .dist-info
    requires: tuple[str, ...] = ()  # raw Requires-Dist; only kept for frameworks and nvidia-* wheels
    problem: str = ""  # METADATA that could not be read
    installer: str = ""  # who wrote it, "pip", "uv", "conda"; only kept for those whose METADATA is


class Packages(Struct, frozen=True, kw_only=True, tag="packages", tag_field="is"):
    distributions: tuple[Distribution, ...]
    conda: tuple[CondaPackage, ...] = ()
    manager: str = "pip"  # what keeps this environment: "pip", "uv", "poetry", "conda"
    externally_managed: bool = False  # pip refuses to install here (PEP 668)

    def named(self, name: str) -> tuple[Distribution, ...]:
        return tuple(d for d in self.distributions if d.name == name)


class Interpreter(Struct, frozen=True, kw_only=True, tag="interpreter", tag_field="is"):
    executable: str  # as given: a venv's bin/python is a link, and the link is what counts
    version: str  # "3.11.7"
    prefix: str
    base_prefix: str  # the installation that a venv was made from
    kind: str  # "venv", "conda", "system"
    site_packages: tuple[str, ...]  # in the order in which they are searched
    read_from: str  # "pyvenv.cfg", "conda-meta", "a child", "this process"


class Requirement(Struct, frozen=True, kw_only=True):
    """A library that a framework asks the loader for."""

    soname: str
    required: bool  # without it no GPU is registered
    linked: bool = False  # DT_NEEDED of the framework (a miss is an ImportError), not dlopen
    asker: str = ""  # the object that is linked to it, where it is another than the framework's opener
    needed_for: str = ""  # what fails without it, where that is not the GPU as a whole


class Place(Struct, frozen=True, kw_only=True):
    """A directory where CUDA libraries may be installed, whether or not the loader looks there."""

    directory: str
    kind: str  # "pip wheel", "conda", "CUDA toolkit", "system"


class Framework(Struct, frozen=True, kw_only=True):
    name: str  # "tensorflow", "torch", "jax"
    distribution: str  # "tensorflow", "tensorflow-cpu" …
    version: str
    location: str  # the package's directory
    cuda_build: bool | Unavailable
    cuda_version: str  # that it was built for, "12.5.1"; "" where not a CUDA build
    cudnn_version: str
    compute_capabilities: tuple[str, ...] | Unavailable  # "sm_80" (cubin), "compute_90" (with PTX)
    opener: str  # the object that calls dlopen (or carries DT_NEEDED)
    requirements: tuple[Requirement, ...]
    preloads: tuple[str, ...] = ()  # files that its Python opens by path before anything else
    source: str  # the file that these facts were read from


# --- the whole --------------------------------------------------------------------------------------


class TargetFacts(Struct, frozen=True, kw_only=True):
    python: str
    chosen_by: str  # "--python", "$VIRTUAL_ENV", "$CONDA_PREFIX", "the interpreter envdoctor runs in"
    root: str
    gpu_required: bool = False
    pid: int | None = None  # of the running process that is examined


class Facts(Struct, frozen=True, kw_only=True, dict=True):
    target: TargetFacts
    host: Host
    environment: dict[str, str]  # non-UTF-8 bytes as surrogates
    driver: Driver
    interpreter: Interpreter | Unavailable
    packages: Packages | Unavailable
    frameworks: tuple[Framework, ...] | Unavailable
    libraries: LibraryWorld
    program: str  # the ELF file that starts when the interpreter does; "" where none was found
    places: tuple[Place, ...]
    writable: frozenset[str]  # of the directories that are searched: those this user may write in
    editable: dict[str, bytes]  # what an export may be written into, by path: activation scripts, kernel.json
    xla: Xla
    threads: Threads
    jupyter: Jupyter | Unavailable
    runs: tuple[FrameworkRun | FrameworkCrash, ...] | Unavailable
    surroundings: Surroundings = Surroundings()
    installations: CudaInstallations = CudaInstallations()
    process: ProcessFacts | None = None  # that is examined, and whose environment this is
    interfaces: tuple[Interface, ...] = ()  # of libraries that might stand for one that is not found

    @cached_property
    def resolution(self) -> tuple[FrameworkLibraries, ...]:
        """What each framework asks the loader for and what it would get: pure, from these facts alone."""
        from envdoctor.resolution import resolve_frameworks  # noqa: PLC0415  it reads Facts

        return resolve_frameworks(self)
