"""Containers and WSL2: did the GPU come in, may it be used, and is the right driver library found?"""

from __future__ import annotations

from collections.abc import Iterator

from envdoctor.catalog import Severity
from envdoctor.checks.administration import privileged, restart_container, told
from envdoctor.checks.distributions import family
from envdoctor.checks.driver_remedies import RESTART_WSL, host_driver_loaded
from envdoctor.checks.engines import let_in, started_with, with_variable
from envdoctor.checks.machine import (
    cuda_frameworks,
    driver_answers,
    gpu_traces,
    gpus,
    require_gpu_wanted,
    title,
)
from envdoctor.facts.model import (
    CudaDriver,
    DeviceNode,
    Facts,
    Nvml,
    ProbeFailure,
    ProbeFailureKind,
    Unavailable,
    known,
)
from envdoctor.finding import Evidence, Finding, SkipError

NVML_UNKNOWN = 999  # NVML_ERROR_UNKNOWN, nvml.h
WSL_LIBRARIES = "/usr/lib/wsl/lib"
_SHM = "/dev/shm"  # noqa: S108  a mount point
LITTLE_SHM = 128 << 20  # bytes; Docker's default is 64 MiB, NVIDIA's advice 1 GiB


def check_container_without_gpu(facts: Facts) -> Iterator[Finding]:
    """The host has a GPU whose driver runs, and this container got no node of it or no library."""
    _require_container(facts)
    require_gpu_wanted(facts)
    if not gpu_traces(facts) or host_driver_loaded(facts) is False:
        raise SkipError("the host's kernel runs no NVIDIA driver that could be passed in")
    if _usable_here(facts):
        return
    nodes = {n.path: n for n in known(facts.driver.nodes)}
    numbered = [p for p in nodes if p.removeprefix("/dev/nvidia").isdigit()]
    libcuda = any(v.soname == "libcuda.so.1" for v in known(facts.driver.libraries))
    if numbered and libcuda:
        return
    monitored = isinstance(facts.driver.nvml, Nvml) and facts.driver.nvml.gpus and not libcuda
    kind = facts.host.container
    if monitored:
        lacks = "only the driver's monitoring half, and no libcuda.so.1"
    elif numbered:
        lacks = "the GPU's device nodes, but not the driver's libraries (no libcuda.so.1)"
    elif nodes or libcuda:
        lacks = "no GPU (no /dev/nvidia0)"
    else:
        lacks = "neither a GPU's device node nor libcuda.so.1"
    asked = [v for v in ("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES") if v in facts.environment]
    yield Finding(
        code="HST005",
        subject=kind,
        message=f"the host has a GPU, and this {kind} container was given {lacks}",
        evidence=(
            Evidence("container", kind, "systemd-detect-virt --container; ls -a /"),
            Evidence("GPU of the host", "; ".join(gpu_traces(facts)), "ls /proc/driver/nvidia/gpus"),
            Evidence("device nodes", ", ".join(sorted(nodes)) or "none", "ls -l /dev/nvidia*"),
            Evidence("libcuda.so.1", "found" if libcuda else "not found", "ldconfig -p | grep libcuda.so.1"),
            *(Evidence(v, repr(facts.environment[v]), f"env | grep {v}") for v in asked),
        ),
        remedy=with_variable(facts, "NVIDIA_DRIVER_CAPABILITIES", "compute,utility")
        if monitored
        else let_in(facts),
    )


def check_lost_gpu(facts: Facts) -> Iterator[Finding]:
    """The nodes are there, their mode lets this user in, and the kernel does not: the device cgroup."""
    _require_container(facts)
    if facts.host.wsl:
        raise SkipError("WSL2 has no device nodes of NVIDIA")
    if driver_answers(facts):
        raise SkipError("the driver answers")
    nodes = [n for n in known(facts.driver.nodes) if n.path.startswith("/dev/nvidia")]
    if not nodes:
        raise SkipError("no device node of NVIDIA is here")
    nvml = facts.driver.nvml
    says_so = isinstance(nvml, ProbeFailure) and nvml.code == NVML_UNKNOWN
    refused = [n for n in nodes if _open_to_all(n) and not (n.readable and n.writable)]
    if not (says_so and host_driver_loaded(facts)) and not refused:
        return
    kind = facts.host.container
    yield Finding(
        code="HST007",
        subject=kind,
        message=f"this {kind} container has lost its access to the GPU, or never had it: "
        + (
            f"{refused[0].path} is there and may not be opened"
            if refused
            else "NVML fails with Unknown Error"
        )
        + " (device cgroup)",
        evidence=(
            *((Evidence("NVML", nvml.detail, "nvidia-smi -L"),) if isinstance(nvml, ProbeFailure) else ()),
            *(
                Evidence(n.path, f"{n.mode} {n.owner}:{n.group}, refused", f"head -c 0 {n.path}")
                for n in refused
            ),
            *(() if refused else (Evidence("device nodes", ", ".join(n.path for n in nodes), "ls /dev"),)),
        ),
        remedy=_given_back(facts),
    )


def _given_back(facts: Facts) -> str:
    """For good: nodes that the engine itself knows, which a `systemctl daemon-reload` does not take away."""
    nodes = "--device=/dev/nvidiactl --device=/dev/nvidia-uvm --device=/dev/nvidia0"
    lasting = started_with(facts, nodes).partition("    # ")[0]
    outside = "outside the container: nothing inside can repair this"
    return f"{restart_container(facts)}    # {outside}" + (f"; for good: {lasting}" if lasting else "")


def _open_to_all(node: DeviceNode) -> bool:
    return node.mode[7:9] == "rw"


def check_seccomp_clone3(facts: Facts) -> Iterator[Finding]:
    """Asked of the kernel itself: EPERM is the filter's answer, and glibc falls back on ENOSYS alone."""
    if not facts.surroundings.seccomp:
        raise SkipError("no seccomp filter is known to be on")
    error = known(facts.surroundings.clone3)
    libc = known(facts.host.libc)
    if error != "EPERM" or not libc.startswith("glibc ") or _numbers(libc[6:]) < (2, 34):
        return
    kind = facts.host.container
    message = (
        f"the seccomp filter{f' of this {kind} container' if kind else ''} answers EPERM to clone3: "
        f"{libc} takes that as final, and no thread can be started"
    )
    newer = "Docker 20.10.10 or newer" if kind in {"docker", ""} else f"a newer {kind}"
    proof = started_with(facts, "--security-opt seccomp=unconfined").partition("    # ")[0]
    yield Finding(
        code="HST008",
        subject="clone3",
        message=message,
        evidence=(
            Evidence("seccomp", "filter mode (2)", "grep Seccomp: /proc/self/status"),
            Evidence(
                "clone3", "EPERM", "python3 -c 'import threading; threading.Thread(target=print).start()'"
            ),
            Evidence("C library", f"{libc}; clone3 is used from 2.34 on", "ldd --version"),
        ),
        remedy=told(facts, message, f"{newer}, and libseccomp 2.5 or newer")
        + (f"    # to prove it, and until then: {proof}" if proof else ""),
    )


def check_toolkit(facts: Facts) -> Iterator[Finding]:
    """A host with a GPU and Docker. That it has no toolkit matters only to who wants GPUs in containers."""
    engine = facts.surroundings.engine
    if engine is None:
        raise SkipError("no Docker engine is installed here")
    if not host_driver_loaded(facts):
        raise SkipError("no NVIDIA driver is loaded")
    seen = (
        Evidence("engine", engine.path, "docker version"),
        Evidence(
            "NVIDIA Container Toolkit", ", ".join(engine.toolkit) or "not found", "nvidia-ctk --version"
        ),
    )
    if engine.runtime and not engine.runtime_exists:
        lost = "every container that asks for it fails" if not engine.default else "no container starts"
        yield Finding(
            code="HST006",
            subject="docker",
            severity_here=Severity.WARNING,
            message=f"Docker's runtime nvidia is {engine.runtime}, which is not installed: {lost}",
            evidence=(*seen, Evidence("runtime nvidia", engine.runtime, "cat /etc/docker/daemon.json")),
            remedy=_install_toolkit(facts),
        )
    elif not engine.toolkit and not engine.cdi:
        yield Finding(
            code="HST006",
            subject="docker",
            severity_here=Severity.NOTE,
            message="Docker is installed without the NVIDIA Container Toolkit: `docker run --gpus` will fail "
            "(no matter to programs outside of containers)",
            evidence=seen,
            remedy=_install_toolkit(facts),
        )


def _install_toolkit(facts: Facts) -> str:
    installs = {
        "ubuntu": "sudo apt-get install -y nvidia-container-toolkit",
        "debian": "sudo apt-get install -y nvidia-container-toolkit",
        "fedora": "sudo dnf install -y nvidia-container-toolkit",
        "rhel": "sudo dnf install -y nvidia-container-toolkit",
        "suse": "sudo zypper install -y nvidia-container-toolkit",
        "arch": "sudo pacman -S nvidia-container-toolkit",
    }
    install = installs.get(family(facts), "")
    configure = "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
    if not install:
        return f"install NVIDIA's nvidia-container-toolkit, then: {configure}"
    origin = "" if family(facts) == "arch" else "from NVIDIA's repository"
    says = "Docker has no NVIDIA Container Toolkit"
    return privileged(facts, says, f"{install} && {configure}", origin)


# --- WSL2 -------------------------------------------------------------------------------------------


def check_wsl_library_path(facts: Facts) -> Iterator[Finding]:
    mounted = _wsl_libcuda(facts)
    if any(v.soname == "libcuda.so.1" for v in known(facts.driver.libraries)):
        return
    here = facts.environment.get("LD_LIBRARY_PATH", "")
    yield Finding(
        code="HST009",
        subject="libcuda.so.1",
        message=f"Windows' libcuda.so.1 is in {WSL_LIBRARIES}, and the loader does not look there",
        evidence=(
            Evidence("is at", mounted, f"ls -l {WSL_LIBRARIES}"),
            Evidence("ld.so.cache", "has no libcuda.so.1", "ldconfig -p | grep libcuda.so.1"),
            Evidence("LD_LIBRARY_PATH", here or "unset", 'echo "$LD_LIBRARY_PATH"'),
        ),
        remedy=f"echo {WSL_LIBRARIES} | sudo tee /etc/ld.so.conf.d/ld.wsl.conf && sudo ldconfig    "
        f'# this shell: export LD_LIBRARY_PATH="{WSL_LIBRARIES}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"',
    )


def check_wsl_linux_driver(facts: Facts) -> Iterator[Finding]:
    """A libcuda with a Linux driver's version in its name; Windows' is libcuda.so.1 or libcuda.so.1.1."""
    mounted = _wsl_libcuda(facts)
    if facts.host.container:
        raise SkipError("in a container of WSL2, the toolkit decides which libraries come in")
    if isinstance(facts.driver.cuda, CudaDriver):
        raise SkipError("cuInit answers")
    found = next((v for v in known(facts.driver.libraries) if v.soname == "libcuda.so.1"), None)
    if found is None or found.real.startswith("/usr/lib/wsl/") or found.version.count(".") < 1:
        return
    if _numbers(found.version)[0] < 100 or "/compat/" in found.real:  # compat libraries are DRV012's
        return
    yield Finding(
        code="HST010",
        subject=found.path,
        message=f"the Linux driver {found.version} ({found.path}) hides the one of Windows: "
        "in WSL2 it has no kernel module to talk to",
        evidence=(
            Evidence("found first", found.real, "ldconfig -p | grep libcuda.so.1"),
            Evidence("Windows' driver", mounted, f"ls -l {WSL_LIBRARIES}"),
        ),
        remedy=_remove_linux_driver(facts),
    )


def _remove_linux_driver(facts: Facts) -> str:
    apt = "'^nvidia-driver-.*' '^libnvidia-compute-.*' '^nvidia-utils-.*' '^cuda-drivers.*'"
    remove = {
        "ubuntu": f"sudo apt-get purge {apt}",
        "debian": "sudo apt-get purge nvidia-driver libcuda1",
        "fedora": "sudo dnf remove xorg-x11-drv-nvidia-cuda-libs",
        "suse": "sudo zypper remove nvidia-compute-G06",
        "arch": "sudo pacman -R nvidia-utils",
    }.get(family(facts), "")
    then = f"{RESTART_WSL}; the CUDA toolkit may stay"
    if not remove:
        return f"remove the Linux driver's packages (keep the CUDA toolkit): sudo ldconfig && {then}"
    return f"{remove} && sudo ldconfig && {then}"


def _wsl_libcuda(facts: Facts) -> str:
    if not facts.host.wsl:
        raise SkipError("this is not WSL")
    libraries = [p for p in facts.surroundings.wsl_libraries if p.rpartition("/")[2] == "libcuda.so.1"]
    if not libraries:
        raise SkipError("Windows offers no NVIDIA driver to WSL2")
    return libraries[0]


# --- shared memory ----------------------------------------------------------------------------------


def check_shared_memory(facts: Facts) -> Iterator[Finding]:
    """64 MiB are enough for one process on one GPU: a warning only where work is shared."""
    size = known(facts.surroundings.shm_bytes)
    if size is None or size > LITTLE_SHM:
        return
    require_gpu_wanted(facts)
    names = [f for f in cuda_frameworks(facts) if f.name in {"tensorflow", "torch", "jax"}]
    many = _visible_gpus(facts) > 1
    loaders = [f for f in names if f.name == "torch"]
    if not many and not loaders:
        return
    user = "NCCL between several GPUs" if many else f"{title(loaders[0])}'s data workers"
    yield Finding(
        code="HST011",
        subject=_SHM,
        severity_here=Severity.WARNING if many else Severity.NOTE,
        message=f"{_SHM} holds {size >> 20} MiB: little for {user} (Bus error, or an NCCL system error)",
        evidence=(
            Evidence(_SHM, f"size={size >> 10}k", f"grep {_SHM} /proc/self/mountinfo"),
            Evidence("GPUs visible", str(_visible_gpus(facts)), "nvidia-smi -L"),
        ),
        remedy=_more_shared_memory(facts),
    )


def _more_shared_memory(facts: Facts) -> str:
    if facts.host.container == "kubernetes":
        return (
            "put into the pod's spec: volumes: [{name: shm, emptyDir: {medium: Memory}}], and into the "
            "container's: volumeMounts: [{name: shm, mountPath: /dev/shm}]"
        )
    again = started_with(facts, "--shm-size=8g")
    return f"{again}; or --ipc=host" if again else f"sudo mount -o remount,size=50% {_SHM}"


def _visible_gpus(facts: Facts) -> int:
    if isinstance(facts.driver.cuda, CudaDriver):
        return len(facts.driver.cuda.devices)
    if gpus(facts):
        return len(gpus(facts))
    nodes = () if isinstance(facts.driver.nodes, Unavailable) else facts.driver.nodes
    return sum(n.path.removeprefix("/dev/nvidia").isdigit() for n in nodes)


def _require_container(facts: Facts) -> None:
    if not facts.host.container:
        raise SkipError("this is no container")


def _usable_here(facts: Facts) -> bool:
    """CUDA answers with devices, or the driver is there and merely does not answer (DRV014)."""
    cuda, nvml = facts.driver.cuda, facts.driver.nvml
    if isinstance(cuda, CudaDriver) and cuda.devices:
        return True
    return any(isinstance(p, ProbeFailure) and p.kind is not ProbeFailureKind.ERROR for p in (cuda, nvml))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
