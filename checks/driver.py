"""The driver: installed, loaded, of one version, new enough, and does it answer?"""

from __future__ import annotations

from collections.abc import Iterator

from envdoctor.catalog.commands import KERNEL_LOG
from envdoctor.checks.administration import privileged
from envdoctor.checks.distributions import then_boot
from envdoctor.checks.driver_remedies import (
    RESTART_WSL,
    after_cuinit,
    install_driver,
    let_user_in,
    load_module,
    make_nodes,
    newer_driver_or_release,
    one_version,
    other_half,
)
from envdoctor.checks.machine import (
    cuda_frameworks,
    driver_answers,
    driver_cuda_version,
    driver_libraries,
    driver_version,
    gpu_traces,
    require_gpu_wanted,
    silent_driver,
    title,
)
from envdoctor.facts.model import (
    CudaDriver,
    Facts,
    ProbeFailure,
    ProbeFailureKind,
    Unavailable,
    known,
)
from envdoctor.finding import Evidence, Finding, SkipError
from envdoctor.knowledge.tables import driver_floor, release_key

NVML_MISMATCH = 18  # NVML_ERROR_LIB_RM_VERSION_MISMATCH, nvml.h
CUINIT_CODES = {  # cuda.h, CUresult
    100: ("DRV009", "cuInit finds no device (CUDA_ERROR_NO_DEVICE, 100), and nothing else tells why"),
    999: ("DRV010", "cuInit fails with CUDA_ERROR_UNKNOWN (999)"),
    802: ("DRV013", "cuInit says that the system is not ready (802): the fabric manager is not running"),
    803: ("DRV012", "a compat libcuda.so.1 does not fit the kernel driver (cuInit 803)"),
    804: ("DRV012", "a compat libcuda.so.1 is used on a GPU that takes none (cuInit 804)"),
}


def check_driver_not_installed(facts: Facts) -> Iterator[Finding]:
    require_gpu_wanted(facts)
    if isinstance(facts.driver.cuda, CudaDriver) or _library(facts, "libcuda.so.1"):
        return
    message = (
        "NVML answers, but libcuda.so.1 is not installed: only the driver's monitoring half is here"
        if driver_answers(facts)
        else "the NVIDIA driver is not installed (no libcuda.so.1)"
    )
    yield Finding(
        code="DRV001",
        subject="libcuda.so.1",
        message=message,
        evidence=(
            Evidence("GPU", "; ".join(gpu_traces(facts)) or "required", "lspci -d 10de:"),
            Evidence("libcuda.so.1", "not found", "ldconfig -p | grep libcuda.so.1"),
            Evidence("kernel module", _module(facts), "cat /proc/driver/nvidia/version"),
        ),
        remedy=other_half(facts, message) if driver_answers(facts) else install_driver(facts, message),
    )


def check_driver_not_loaded(facts: Facts) -> Iterator[Finding]:
    silent_driver(facts)
    if not _library(facts, "libcuda.so.1"):
        raise SkipError("no driver is installed")
    if facts.host.wsl:
        raise SkipError("WSL2 has no NVIDIA kernel module of its own")
    if known(facts.driver.kernel_module) or "nvidia" in _modules(facts):
        return
    message = "the driver's libraries are installed, but its kernel module is not loaded"
    yield Finding(
        code="DRV002",
        subject="nvidia.ko",
        message=message,
        evidence=(
            Evidence("libcuda.so.1", _library(facts, "libcuda.so.1"), "ldconfig -p | grep libcuda.so.1"),
            Evidence("kernel module", _module(facts), "cat /proc/driver/nvidia/version"),
            Evidence("loaded", ", ".join(_modules(facts)) or "neither nvidia nor nouveau", "lsmod"),
        ),
        remedy=load_module(facts, message),
    )


def check_driver_library_mismatch(facts: Facts) -> Iterator[Finding]:
    silent_driver(facts)
    module = facts.driver.kernel_module
    nvml = facts.driver.nvml
    says_so = isinstance(nvml, ProbeFailure) and nvml.code == NVML_MISMATCH
    # cuda-compat brings a libcuda newer than the module, on purpose
    libraries = {v.version for v in driver_libraries(facts) if v.version and "/compat/" not in v.real}
    differ = isinstance(module, str) and bool(module) and bool(libraries) and libraries != {module}
    if not says_so and not differ:
        return
    user = ", ".join(sorted(libraries)) or "of another version"
    kernel = module if isinstance(module, str) and module else "of another version"
    message = (
        f"the kernel module is {kernel}, "
        f"the libraries are {user}: the driver was upgraded and the old module still runs"
    )
    yield Finding(
        code="DRV003",
        subject="driver",
        message=message,
        evidence=(
            Evidence("kernel module", _module(facts), "cat /proc/driver/nvidia/version"),
            *(Evidence(v.soname, v.real, f"ls -l {v.path}") for v in driver_libraries(facts)),
            *((Evidence("NVML", nvml.detail, "nvidia-smi"),) if isinstance(nvml, ProbeFailure) else ()),
        ),
        remedy=one_version(facts, message),
    )


def check_nouveau_loaded(facts: Facts) -> Iterator[Finding]:
    silent_driver(facts)
    held = [g.address for g in known(facts.driver.pci) if g.kernel_driver == "nouveau"]
    if not held and ("nouveau" not in _modules(facts) or "nvidia" in _modules(facts)):
        return
    message = "nouveau holds the GPU, so that NVIDIA's driver cannot"
    blacklist = (
        "printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' | "
        "sudo tee /etc/modprobe.d/blacklist-nouveau.conf"
    )
    command, _, remark = then_boot(facts, blacklist).partition("    # ")
    yield Finding(
        code="DRV005",
        subject="nouveau",
        message=message,
        evidence=(
            Evidence("loaded", ", ".join(_modules(facts)), "lsmod | grep -E 'nouveau|nvidia'"),
            *(Evidence(f"PCI {a}", "driver in use: nouveau", f"lspci -k -s {a}") for a in held),
        ),
        remedy=privileged(facts, message, command, remark),
    )


def check_device_nodes(facts: Facts) -> Iterator[Finding]:
    """Libcuda opens nvidiactl, nvidia<N> and nvidia-uvm; NVML does without nvidia-uvm."""
    require_gpu_wanted(facts)
    if isinstance(facts.driver.cuda, CudaDriver):
        raise SkipError("cuInit answers")
    if facts.host.wsl:
        raise SkipError("WSL2 has /dev/dxg instead")
    if not (driver_answers(facts) or known(facts.driver.kernel_module)):
        raise SkipError("the kernel module is not loaded")
    nodes = {n.path: n for n in known(facts.driver.nodes)}
    numbered = [p for p in nodes if p.removeprefix("/dev/nvidia").isdigit()]
    wanted = ["/dev/nvidiactl", *(numbered or ["/dev/nvidia0"]), "/dev/nvidia-uvm"]
    if driver_answers(facts):  # NVML opened the others
        wanted = ["/dev/nvidia-uvm"]
        if not isinstance(facts.driver.cuda, ProbeFailure) or facts.driver.cuda.code is None:
            raise SkipError("NVML answers, and cuInit did not get as far as to open them")
    missing = [p for p in wanted if p not in nodes]
    if missing:
        message = f"{', '.join(missing)} missing, though the kernel module is loaded"
        yield Finding(
            code="DRV007",
            subject=missing[0],
            message=message,
            evidence=(
                Evidence("kernel module", _module(facts), "cat /proc/driver/nvidia/version"),
                Evidence("device nodes", ", ".join(sorted(nodes)) or "none", "ls -l /dev/nvidia*"),
            ),
            remedy=make_nodes(facts, message, missing),
        )
    closed = [nodes[p] for p in wanted if p in nodes and not (nodes[p].readable and nodes[p].writable)]
    if closed:
        message = f"this user may not open {', '.join(n.path for n in closed)}"
        yield Finding(
            code="DRV008",
            subject=closed[0].path,
            message=message,
            evidence=tuple(
                Evidence(n.path, f"{n.mode} {n.owner}:{n.group}", f"ls -l {n.path}") for n in closed
            ),
            remedy=let_user_in(facts, message, sorted({n.group for n in closed})),
        )


def check_driver_unresponsive(facts: Facts) -> Iterator[Finding]:
    asked = {"NVML": facts.driver.nvml, "cuInit": facts.driver.cuda}
    sick = {
        what: probe
        for what, probe in asked.items()
        if isinstance(probe, ProbeFailure) and probe.kind is not ProbeFailureKind.ERROR
    }
    if not sick:
        return
    hangs = any(probe.kind is ProbeFailureKind.HANG for probe in sick.values())
    message = f"the driver {'does not answer' if hangs else 'crashes'}: " + "; ".join(
        f"{what}, {probe.detail}" for what, probe in sick.items()
    )
    yield Finding(
        code="DRV014",
        subject=", ".join(sick),
        message=message,
        evidence=(
            *(Evidence(what, probe.detail, "timeout 10 nvidia-smi") for what, probe in sick.items()),
            Evidence("kernel module", _module(facts), "cat /proc/driver/nvidia/version"),
        ),
        remedy=RESTART_WSL
        if facts.host.wsl
        else privileged(facts, message, "sudo reboot", f"what it was: {KERNEL_LOG}"),
    )


def check_driver_too_old(facts: Facts) -> Iterator[Finding]:
    require_gpu_wanted(facts)
    version = driver_version(facts)
    if not version:
        raise SkipError("no driver is loaded")
    for framework in cuda_frameworks(facts):
        row = driver_floor(framework.cuda_version)
        if row is None:
            continue
        if release_key(version) >= release_key(row.floor):
            continue
        serves = driver_cuda_version(facts)
        message = (
            f"driver {version} is too old for {title(framework)} (CUDA {framework.cuda_version}): "
            f"it needs {row.floor} or newer"
        )
        yield Finding(
            code="DRV004",
            subject=f"driver {version}",
            framework=framework.name,
            message=message,
            evidence=(
                Evidence(
                    "driver",
                    version + (f", serves CUDA up to {serves}" if serves else ""),
                    "cat /proc/driver/nvidia/version",
                ),
                Evidence("built for", f"CUDA {framework.cuda_version}", framework.source),
                Evidence(
                    "lowest driver",
                    f"{row.floor} for any CUDA {release_key(framework.cuda_version)[0]}.x (minor-version "
                    "compatibility; kernels that exist only as PTX of a newer CUDA need a newer driver still)"
                    if release_key(framework.cuda_version)[0] >= 11
                    else f"{row.floor} for CUDA {row.cuda}",
                    row.source,
                ),
            ),
            remedy=newer_driver_or_release(facts, framework, message, row.floor),
        )


def check_cuinit(facts: Facts) -> Iterator[Finding]:
    require_gpu_wanted(facts)
    probe = facts.driver.cuda
    if not isinstance(probe, ProbeFailure) or probe.code not in CUINIT_CODES:
        return
    code, message = CUINIT_CODES[probe.code]
    yield Finding(
        code=code,
        subject="cuInit",
        message=message,
        evidence=(
            Evidence("cuInit", probe.detail, "nvidia-smi; dmesg | grep -i nvrm"),
            *(Evidence(v.soname, v.real, f"ls -l {v.path}") for v in driver_libraries(facts)),
        ),
        remedy=after_cuinit(facts, code, message),
    )


def _library(facts: Facts, soname: str) -> str:
    return next((v.real for v in known(facts.driver.libraries) if v.soname == soname), "")


def _modules(facts: Facts) -> tuple[str, ...]:
    return () if isinstance(facts.driver.modules, Unavailable) else facts.driver.modules


def _module(facts: Facts) -> str:
    module = facts.driver.kernel_module
    if isinstance(module, Unavailable):
        return f"unknown ({module.reason})"
    return f"nvidia {module}" if module else "not loaded"
