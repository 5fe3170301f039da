"""What several checks ask of the machine: is there a GPU, does the driver work?

Evidence has ranks. An NVML or cuInit that answers proves a working driver, whatever /proc, /dev or the PCI
list lack (WSL2, sandboxes, a simulated driver); their absence counts only where nothing answers.
"""

from __future__ import annotations

from envdoctor.facts.model import (
    CudaDriver,
    DriverLibrary,
    Facts,
    Framework,
    Gpu,
    NotKnownError,
    Nvml,
    ProbeFailure,
    ProbeFailureKind,
    Unavailable,
    known,
)
from envdoctor.finding import SkipError

FRAMEWORK_TITLES = {"tensorflow": "TensorFlow", "torch": "PyTorch", "jax": "JAX"}


def title(framework: Framework | str) -> str:
    """`TensorFlow 2.21.0`, or `TensorFlow` for a bare name."""
    if isinstance(framework, str):
        return FRAMEWORK_TITLES.get(framework, framework)
    return f"{FRAMEWORK_TITLES.get(framework.name, framework.name)} {framework.version}".strip()


def driver_answers(facts: Facts) -> bool:
    return isinstance(facts.driver.nvml, Nvml) or isinstance(facts.driver.cuda, CudaDriver)


def simulated(facts: Facts) -> bool:
    driver = facts.driver
    return (isinstance(driver.nvml, Nvml) and driver.nvml.simulated) or (
        isinstance(driver.cuda, CudaDriver) and driver.cuda.simulated
    )


def gpus(facts: Facts) -> tuple[Gpu, ...]:
    """The GPUs that NVML could describe."""
    nvml = facts.driver.nvml
    return tuple(g for g in nvml.gpus if isinstance(g, Gpu)) if isinstance(nvml, Nvml) else ()


def driver_libraries(facts: Facts) -> tuple[DriverLibrary, ...]:
    """The driver's user-space libraries as far as they are known; ask `known` where absence is judged."""
    libraries = facts.driver.libraries
    return () if isinstance(libraries, Unavailable) else libraries


def gpu_traces(facts: Facts) -> tuple[str, ...]:
    """Everything that shows that an NVIDIA GPU is here; empty: there is none.

    Raises:
        NotKnownError: nothing shows one, and the PCI list and /dev could not be read either.

    """
    driver = facts.driver
    traces = []
    if isinstance(driver.nvml, Nvml) and driver.nvml.gpus:
        traces.append(f"NVML lists {len(driver.nvml.gpus)}")
    if isinstance(driver.cuda, CudaDriver) and driver.cuda.devices:
        traces.append(f"libcuda lists {len(driver.cuda.devices)}")
    if not isinstance(driver.pci, Unavailable):
        traces += [f"PCI device {g.address} (NVIDIA {g.device_id})" for g in driver.pci]
    if not isinstance(driver.nodes, Unavailable):
        traces += [n.path for n in driver.nodes if n.path.removeprefix("/dev/nvidia").isdigit()]
        traces += [n.path for n in driver.nodes if n.path == "/dev/dxg" and driver_libraries(facts)]
    traces += [p for p in facts.surroundings.wsl_libraries if p.endswith("/libcuda.so.1")]
    if isinstance(driver.kernel_module, str) and driver.kernel_module:
        traces.append(f"kernel module nvidia {driver.kernel_module}")
    if not traces and isinstance(driver.pci, Unavailable) and isinstance(driver.nodes, Unavailable):
        raise NotKnownError(f"{driver.pci.reason}; {driver.nodes.reason}")
    return tuple(traces)


def gpu_wanted(facts: Facts) -> bool:
    """Whether it matters that a GPU can be used: there is one, or one is required."""
    return facts.target.gpu_required or bool(gpu_traces(facts))


def require_gpu_wanted(facts: Facts) -> None:
    if not gpu_wanted(facts):
        raise SkipError("no NVIDIA GPU here")


def cuda_frameworks(facts: Facts) -> tuple[Framework, ...]:
    """The CUDA builds among the target's frameworks; SkipError where there is none."""
    found = tuple(f for f in known(facts.frameworks) if f.cuda_build is True)
    if not found:
        raise SkipError("no CUDA build of a framework is installed")
    return found


def silent_driver(facts: Facts) -> None:
    """Go on only where a GPU matters and neither NVML nor cuInit proves that the driver works."""
    require_gpu_wanted(facts)
    if driver_answers(facts):
        raise SkipError("the driver answers")
    hung = [
        p
        for p in (facts.driver.nvml, facts.driver.cuda)
        if isinstance(p, ProbeFailure) and p.kind is not ProbeFailureKind.ERROR
    ]
    if hung:
        raise SkipError("the driver is there and does not answer (see DRV014)")


def driver_version(facts: Facts) -> str:
    """Of the running driver, from what answers; else of the kernel module; "" where there is none."""
    if isinstance(facts.driver.nvml, Nvml):
        return facts.driver.nvml.driver_version
    module = facts.driver.kernel_module
    return module if isinstance(module, str) else ""


def driver_cuda_version(facts: Facts) -> str:
    """The newest CUDA that the driver serves, "12.4"; "" where nothing answers."""
    if isinstance(facts.driver.cuda, CudaDriver):
        return facts.driver.cuda.version
    return facts.driver.nvml.cuda_version if isinstance(facts.driver.nvml, Nvml) else ""
