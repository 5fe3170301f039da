"""May this process have the GPU as it is set: MIG, compute mode, size, vGPU, profiling."""

from __future__ import annotations

import re
from collections.abc import Iterator

from envdoctor.catalog import Severity
from envdoctor.checks.administration import ask_for_gpu, privileged, told
from envdoctor.checks.distributions import then_boot
from envdoctor.checks.gpu_answers import answers, held_by, label, who
from envdoctor.checks.machine import FRAMEWORK_TITLES, gpus, require_gpu_wanted
from envdoctor.facts.model import CudaDriver, Facts, Unavailable, known
from envdoctor.facts.model_gpu import Mig
from envdoctor.finding import Evidence, Finding, SkipError
from envdoctor.knowledge.loading import release_key

PROHIBITED, EXCLUSIVE = 2, {1: "Exclusive_Thread", 3: "Exclusive_Process"}  # NVML_COMPUTEMODE_…
VGPU = 2  # NVML_GPU_VIRTUALIZATION_MODE_VGPU
SMALL = 8  # kDefaultMinGPUMultiprocessorCount, tensorflow/core/common_runtime/gpu/gpu_device.cc
# Unified memory comes with profiles of a whole GPU or MIG instance alone (NVIDIA vGPU user guide, UVM).
_WHOLE_PROFILE = (
    "a vGPU profile with the whole GPU, and unified memory: the plug-in parameter enable_uvm=1 "
    "(vSphere: pciPassthru0.cfg.enable_uvm = 1)"
)
MINIMUM = "TF_MIN_GPU_MULTIPROCESSOR_COUNT"
_COUNT = re.compile(r"[+]?[0-9]{1,9}")  # anything else TensorFlow refuses, and takes its default


def check_mig_instances(facts: Facts) -> Iterator[Finding]:
    """With MIG on only instances are CUDA devices.

    Where CUDA shows more devices than there are whole GPUs, it has instances that NVML may not show here.
    """
    modes = [(gpu, mode) for gpu, mode in answers(facts, "mig", Mig) if mode.enabled]
    cuda = facts.driver.cuda
    devices = len(cuda.devices) if isinstance(cuda, CudaDriver) else 0
    if devices > len(gpus(facts)) - len(modes):
        return
    for gpu, mode in modes:
        if mode.instances:
            continue
        message = f"{label(gpu)} is in MIG mode and has no instance to compute on"
        instance = f"sudo nvidia-smi mig -i {gpu.index} -cgi 0 -C"
        yield Finding(
            code="GPU011",
            subject=label(gpu),
            severity_here=Severity.WARNING if devices else None,
            message=message,
            evidence=(
                Evidence("MIG mode", "enabled", "nvidia-smi --query-gpu=index,mig.mode.current --format=csv"),
                Evidence("compute instances", "none", "nvidia-smi -L"),
            ),
            remedy=privileged(
                facts,
                message,
                f"sudo nvidia-smi -i {gpu.index} -mig 0",
                f"the whole GPU; or one instance that takes all of it: {instance}",
            ),
        )


def check_compute_mode(facts: Facts) -> Iterator[Finding]:
    """Exclusive mode, which clusters set, keeps nobody out as long as nobody is in."""
    modes = answers(facts, "compute_mode", int)
    shut = sum(mode == PROHIBITED for _, mode in modes)
    for gpu, mode in modes:
        inside = () if isinstance(gpu.processes, Unavailable) else gpu.processes
        inside = tuple(p for p in inside if p.kind == "compute")
        if mode == PROHIBITED:
            name, what = "Prohibited", "keeps every process out"
            severity = Severity.ERROR if shut == len(modes) else Severity.WARNING
        elif mode in EXCLUSIVE and inside:
            name, what, severity = (
                EXCLUSIVE[mode],
                f"lets no other in beside {who(inside[0])}",
                Severity.WARNING,
            )
        elif mode in EXCLUSIVE:
            name, what, severity = EXCLUSIVE[mode], "lets one process in at a time", Severity.NOTE
        else:
            continue
        message = f"compute mode {name} of {label(gpu)} {what}"
        yield Finding(
            code="GPU012",
            subject=label(gpu),
            severity_here=severity,
            message=message,
            evidence=(
                Evidence("compute mode", name, "nvidia-smi --query-gpu=index,compute_mode --format=csv"),
                *map(held_by, inside),
            ),
            remedy=_share(facts, message, gpu.index, taken=bool(inside)),
        )


def _share(facts: Facts, says: str, index: int, *, taken: bool) -> str:
    """A cluster that sets exclusive mode means it: there a job asks for a GPU of its own."""
    if taken and ask_for_gpu(facts):
        return ask_for_gpu(facts)
    return privileged(facts, says, f"sudo nvidia-smi -i {index} -c DEFAULT")


def check_multiprocessors(facts: Facts) -> Iterator[Finding]:
    """TensorFlow leaves GPUs with fewer than eight multiprocessors alone, or than the largest here has.

    That it leaves a display card beside a larger one is meant so: a note. What the variable does is not.
    """
    require_gpu_wanted(facts)
    frameworks = [f for f in known(facts.frameworks) if f.name == "tensorflow" and f.cuda_build is True]
    if not frameworks:
        raise SkipError("no CUDA build of TensorFlow is installed")
    cuda = facts.driver.cuda
    devices = [d for d in cuda.devices if d.multiprocessors] if isinstance(cuda, CudaDriver) else []
    if not devices:
        raise SkipError("libcuda tells of no multiprocessors")
    text = facts.environment.get(MINIMUM, "").strip()
    given = int(text) if _COUNT.fullmatch(text) else None
    least = min(SMALL, max(d.multiprocessors for d in devices)) if given is None else given
    ignored = [d for d in devices if d.multiprocessors < least]
    for device in ignored:
        severity = Severity.ERROR if len(ignored) == len(devices) else Severity.WARNING
        yield Finding(
            code="GPU013",
            subject=device.name,
            framework="tensorflow",
            severity_here=Severity.NOTE if given is None else severity,
            message=f"TensorFlow ignores {device.name}: it has {device.multiprocessors} multiprocessors, "
            f"and {least} are the least" + (f" ({MINIMUM}={text})" if given is not None else ""),
            evidence=(
                Evidence("multiprocessors", str(device.multiprocessors), "cuDeviceGetAttribute"),
                Evidence(MINIMUM, repr(text) if text else "unset", f"env | grep {MINIMUM}"),
            ),
            remedy=f"unset {MINIMUM}" if given is not None else f"export {MINIMUM}={device.multiprocessors}",
        )


def check_vgpu(facts: Facts) -> Iterator[Finding]:
    """XLA from jaxlib 0.10.1 on refuses a device without virtual memory management (openxla/xla#49252)."""
    if not any(mode == VGPU for _, mode in answers(facts, "virtualization", int)):
        raise SkipError("no GPU here is a vGPU")
    cuda = facts.driver.cuda
    without = [d for d in cuda.devices if not d.virtual_memory] if isinstance(cuda, CudaDriver) else []
    if not without:
        return
    for framework in known(facts.frameworks):
        refuses = framework.name == "jax" and release_key(framework.version) > (0, 10, 0)
        name = f"{FRAMEWORK_TITLES.get(framework.name, framework.name)} {framework.version}"
        message = f"the vGPU {without[0].name} has no virtual memory management, which {name} " + (
            "asks for" if refuses else "may ask for"
        )
        yield Finding(
            code="GPU014",
            subject=without[0].name,
            framework=framework.name,
            severity_here=Severity.ERROR if refuses else Severity.NOTE,
            message=message,
            evidence=(
                Evidence("virtualization", "vGPU", "nvidia-smi -q | grep -A 3 -i 'virtualization mode'"),
                Evidence("virtual memory management", "not supported", "cuDeviceGetAttribute 102"),
            ),
            remedy=told(facts, message, _WHOLE_PROFILE),
        )


PROFILERS = ("xprof", "tensorboard-plugin-profile", "tbp-nightly", "nvidia-pyindex-nsight")


def check_profiling_permitted(facts: Facts) -> Iterator[Finding]:
    """Told only where a profiler is installed: the driver's own setting is nothing to complain about."""
    require_gpu_wanted(facts)
    profilers = [d for name in PROFILERS for d in known(facts.packages).named(name)]
    if not profilers:
        raise SkipError("no profiler is installed")
    profiling = known(facts.driver.profiling)
    if not profiling.admin_only or profiling.is_admin:
        return
    message = f"this user may not read the GPU's performance counters, which {profilers[0].name} shows"
    option = (
        "echo 'options nvidia NVreg_RestrictProfilingToAdminUsers=0' | "
        "sudo tee /etc/modprobe.d/nvidia-profiling.conf"
    )
    command, _, remark = then_boot(facts, option).partition("    # ")
    yield Finding(
        code="GPU016",
        subject="performance counters",
        message=message,
        evidence=(
            Evidence("RmProfilingAdminOnly", "1", "grep RmProfilingAdminOnly /proc/driver/nvidia/params"),
            Evidence("profiler", f"{profilers[0].name} {profilers[0].version}", profilers[0].location),
        ),
        remedy=privileged(facts, message, command, remark),
    )
