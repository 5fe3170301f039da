"""Is there a GPU, can this process see it, and was the framework built for it?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from envdoctor.catalog import Severity
from envdoctor.checks.administration import ask_for_gpu
from envdoctor.checks.driver_remedies import RESTART_WSL, newer_driver
from envdoctor.checks.engines import let_in
from envdoctor.checks.machine import (
    cuda_frameworks,
    driver_answers,
    driver_cuda_version,
    driver_version,
    gpu_traces,
    gpus,
    require_gpu_wanted,
    title,
)
from envdoctor.checks.other_releases import has_none, other_release_command
from envdoctor.checks.visible_devices import VARIABLE, Mask, maskable, read_mask
from envdoctor.facts.model import CudaDriver, Facts, Framework, Nvml, Unavailable, known
from envdoctor.finding import Evidence, Finding, SkipError, Unknown
from envdoctor.knowledge.capabilities import Reach, reach, toolkit_compiles_for
from envdoctor.knowledge.drivers import driver_serving, ptx_too_new
from envdoctor.knowledge.frameworks import jax_release, pytorch_built_for, tensorflow_release
from envdoctor.knowledge.loading import release_key

NO_DEVICE_FILES = "NoDevFiles"  # Slurm's value for a job without a GPU
CONTAINER_VARIABLE = "NVIDIA_VISIBLE_DEVICES"
CACHE_BYTES = 4 << 30  # the most that CUDA_CACHE_MAXSIZE takes
CAPABILITY_SOURCE = "nvidia-smi --query-gpu=name,compute_cap --format=csv"


def check_no_gpu(facts: Facts) -> Iterable[Finding]:
    if gpu_traces(facts):
        return
    required = facts.target.gpu_required
    pci = known(facts.driver.pci) if not driver_answers(facts) else ()
    yield Finding(
        code="GPU001",
        subject="GPU",
        message="no NVIDIA GPU here" + (", and one is required (--gpu)" if required else ""),
        severity_here=Severity.ERROR if required else None,
        evidence=(
            Evidence("PCI bus", f"{len(pci)} display controllers of NVIDIA", "lspci -d 10de:"),
            Evidence("device nodes", "none", "ls /dev/nvidia*"),
        ),
        remedy=_get_one(facts) if required else "",
    )


def _get_one(facts: Facts) -> str:
    if ask_for_gpu(facts):
        return ask_for_gpu(facts)
    if facts.host.wsl:
        return "install NVIDIA's driver in Windows, where the GPU is; then: " + RESTART_WSL
    if facts.host.container:
        return let_in(facts)
    flags = facts.surroundings.cpu_flags
    guest = not isinstance(flags, Unavailable) and flags is not None and "hypervisor" in flags
    name = facts.host.hostname or "this machine"
    if guest:
        return f"give the virtual machine {name} a GPU (PCI passthrough, or an instance type with one)"
    return f"run on a machine that has one: on {name} `lspci -d 10de:` lists no GPU of NVIDIA"


# --- who may see it ---------------------------------------------------------------------------------


def check_gpu_hidden_by_env(facts: Facts) -> Iterator[Finding]:
    require_gpu_wanted(facts)
    yield from _withheld_from_container(facts)
    value = facts.environment.get(VARIABLE)
    if value is None:
        return
    devices = maskable(facts)
    seen = facts.driver.cuda.devices if isinstance(facts.driver.cuda, CudaDriver) else ()
    if devices is None or (value.startswith(("GPU-", "MIG-")) and not isinstance(facts.driver.nvml, Nvml)):
        if seen:
            return
        raise SkipError(f"{VARIABLE}={value}: no list of GPUs to hold it against")
    mask = read_mask(value, devices)
    if seen and not mask.cut_off:
        return  # a mask that leaves something is what its author wanted
    if mask.visible and not mask.cut_off:
        return
    hidden = f"{len(mask.cut_off)} that {'is' if len(mask.cut_off) == 1 else 'are'} named after it"
    partly = bool(seen or mask.visible)
    yield Finding(
        code="GPU002",
        subject=VARIABLE,
        message=f"{VARIABLE}={value!r} hides {hidden if partly else 'every GPU'}: {_why_hidden(value, mask)}",
        severity_here=Severity.WARNING if partly else None,
        evidence=(
            Evidence(VARIABLE, repr(value), f"env | grep {VARIABLE}"),
            *(Evidence(f"GPU {g.index}", f"{g.name} {g.uuid}", "nvidia-smi -L") for g in gpus(facts)),
        ),
        remedy=_show_again(facts, value),
    )


def _why_hidden(value: str, mask: Mask) -> str:
    if not value.strip():
        return "it is empty"
    if value.strip() == NO_DEVICE_FILES:
        return "the job scheduler gave this job no GPU"
    if mask.duplicate:
        return f"{(mask.bad or '').strip()!r} names a GPU for the second time, and CUDA shows none then"
    return f"CUDA stops at the first entry that names no GPU, {(mask.bad or '').strip()!r}"


def _show_again(facts: Facts, value: str) -> str:
    """What a scheduler has set is its word: to unset it would take another job's GPU."""
    if value.strip() == NO_DEVICE_FILES or ask_for_gpu(facts):
        slurm = "srun --gres=gpu:1 --pty bash    # in a job's script: #SBATCH --gres=gpu:1"
        return f"{ask_for_gpu(facts) or slurm}; do not unset {VARIABLE}"
    return f"unset {VARIABLE}"


def _withheld_from_container(facts: Facts) -> Iterator[Finding]:
    """The container toolkit reads it when the container starts: "none" is the driver without a GPU."""
    value = facts.environment.get(CONTAINER_VARIABLE)
    if not facts.host.container or value is None or value.strip() not in {"", "none", "void"}:
        return
    nvml, cuda = facts.driver.nvml, facts.driver.cuda
    if (isinstance(nvml, Nvml) and nvml.gpus) or (isinstance(cuda, CudaDriver) and cuda.devices):
        return
    engine = facts.host.container
    yield Finding(
        code="GPU002",
        subject=CONTAINER_VARIABLE,
        message=f"{CONTAINER_VARIABLE}={value!r}: the {engine} container was started without a GPU",
        evidence=(
            Evidence(CONTAINER_VARIABLE, repr(value), f"env | grep {CONTAINER_VARIABLE}"),
            Evidence("container", engine, "cat /proc/1/cgroup"),
        ),
        remedy=let_in(facts),
    )


# --- what it was built for --------------------------------------------------------------------------


class _Device(Struct, frozen=True):
    """A GPU that a framework would get."""

    label: str
    name: str
    capability: str


def check_gpu_architecture(facts: Facts) -> Iterator[Finding | Unknown]:
    """Too old, or too new, for the code in the build. The driver's own list honours the mask."""
    require_gpu_wanted(facts)
    frameworks = cuda_frameworks(facts)
    devices, missing = _devices(facts)
    if missing and not devices:
        yield from (Unknown(code, missing) for code in ("GPU003", "GPU004", "GPU005"))
        return
    if not devices:
        raise SkipError("no GPU could be described")
    for framework in frameworks:
        built = built_for(framework)
        judged = [(device, _judged(framework, built, device.capability)) for device in devices]
        if any(how is None for _, how in judged):
            why = built.reason if isinstance(built, Unavailable) else "its list of architectures is none"
            why = f"{title(framework)}: {why}"
            yield from (Unknown(code, why) for code in ("GPU003", "GPU004", "GPU005"))
        useless = sum(_unusable(facts, framework, how, d.capability) for d, how in judged)
        for device, how in judged:
            finding = _finding(facts, framework, built, device, how)
            if finding and useless < len(judged) and finding.severity is Severity.ERROR:
                yield replace(finding, severity_here=Severity.WARNING)  # it goes on with the others
            elif finding:
                yield finding


def _devices(facts: Facts) -> tuple[list[_Device], str]:
    """Those that CUDA shows; where it shows none, those that NVML lists. And why one is not known."""
    cuda = facts.driver.cuda
    if isinstance(cuda, CudaDriver) and cuda.devices:
        seen = enumerate(cuda.devices)
        return [_Device(f"CUDA device {i}", d.name, d.compute_capability) for i, d in seen], ""
    devices, missing = [], ""
    for gpu in gpus(facts):
        if isinstance(gpu.compute_capability, Unavailable):
            missing = f"{gpu.name}: {gpu.compute_capability.reason}"
        else:
            devices.append(_Device(f"GPU {gpu.index}", gpu.name, gpu.compute_capability))
    return devices, missing


def built_for(framework: Framework) -> tuple[str, ...] | Unavailable:
    """The architectures in the build: its own list, else what is known of its release."""
    own = framework.compute_capabilities
    if not isinstance(own, Unavailable) and own:
        return own
    listed: tuple[str, ...] = ()
    if framework.name == "tensorflow":
        row = tensorflow_release(framework.version)
        listed = row.compute_capabilities if row else ()
    elif framework.name == "torch":
        built = pytorch_built_for(framework.version, framework.cuda_version)
        listed = built.architectures if built else ()
    elif framework.name == "jax" and release_key(framework.cuda_version):
        release = jax_release(framework.version, release_key(framework.cuda_version)[0])
        listed = release.built_for if release else ()
    return listed or (own if isinstance(own, Unavailable) else Unavailable("its architectures are not known"))


def _judged(framework: Framework, built: tuple[str, ...] | Unavailable, capability: str) -> Reach | None:
    """None: not known. Before TensorFlow 2.3 no list is known, but the oldest GPU and the toolkit are."""
    if not isinstance(built, Unavailable):
        return reach(built, capability)
    row = tensorflow_release(framework.version) if framework.name == "tensorflow" else None
    if row and row.minimum_capability and release_key(capability) < release_key(row.minimum_capability):
        return Reach.TOO_OLD
    return Reach.CUBIN if row and toolkit_compiles_for(framework.cuda_version, capability) else None


def _unusable(facts: Facts, framework: Framework, how: Reach | None, capability: str) -> bool:
    return how in {Reach.TOO_OLD, Reach.UNSUPPORTED} or (
        how is Reach.PTX_JIT and bool(_ptx_refused(facts, framework, capability))
    )


def _ptx_refused(facts: Facts, framework: Framework, capability: str) -> str:
    """Why the PTX in the build is of no use here; "" where the driver will compile it."""
    if facts.environment.get("CUDA_DISABLE_PTX_JIT", "").strip() == "1":
        return "CUDA_DISABLE_PTX_JIT=1 forbids to compile its PTX"
    serves = driver_cuda_version(facts)
    if ptx_too_new(framework.cuda_version, serves):
        return f"the driver serves CUDA {serves} and compiles no PTX of CUDA {framework.cuda_version}"
    if framework.name == "tensorflow" and (
        release_key(framework.version) < (2, 22) and release_key(capability) >= (10,)
    ):  # known issue blackwell-tf
        return "its PTX is known to fail on Blackwell (CUDA_ERROR_INVALID_PTX, CUDA_ERROR_INVALID_HANDLE)"
    return ""


def _finding(
    facts: Facts,
    framework: Framework,
    built: tuple[str, ...] | Unavailable,
    device: _Device,
    how: Reach | None,
) -> Finding | None:
    if how is None or how is Reach.CUBIN:
        return None
    name = f"{device.name} has compute capability {device.capability}"
    refused = _ptx_refused(facts, framework, device.capability) if how is Reach.PTX_JIT else ""
    evidence = (
        Evidence(device.label, f"compute capability {device.capability}", CAPABILITY_SOURCE),
        Evidence(
            "built for",
            ", ".join(built) if not isinstance(built, Unavailable) else built.reason,
            framework.source,
        ),
    )
    if how is Reach.TOO_OLD:
        lowest = lowest_capability(built) if not isinstance(built, Unavailable) else "newer ones"
        return Finding(
            code="GPU003",
            subject=device.name,
            framework=framework.name,
            message=f"{name}; {title(framework)} was built for {lowest} and up, and ignores it",
            evidence=evidence,
            remedy=_build_for(facts, framework, device.capability),
        )
    if how is Reach.UNSUPPORTED or refused:
        return Finding(
            code="GPU005",
            subject=device.name,
            framework=framework.name,
            message=f"{name}; {title(framework)} has no machine code for it, and "
            + (refused or "no PTX that the driver could compile for it"),
            evidence=evidence,
            remedy=_newer_build(facts, framework, device.capability),
        )
    return Finding(
        code="GPU004",
        subject=device.name,
        framework=framework.name,
        message=f"{name}; {title(framework)} has only PTX for it, which the driver compiles at first use "
        "(up to half an hour)",
        evidence=(*evidence, *_cache_evidence(facts)),
        remedy=_cache_remedy(facts),
    )


def _newer_build(facts: Facts, framework: Framework, capability: str) -> str:
    if facts.environment.get("CUDA_DISABLE_PTX_JIT", "").strip() == "1":
        return "unset CUDA_DISABLE_PTX_JIT"
    serves = driver_cuda_version(facts)
    row = driver_serving(framework.cuda_version)
    if row and ptx_too_new(framework.cuda_version, serves) and release_key(capability) < (10,):
        says = (
            f"the driver serves CUDA {serves}, and {title(framework)} is built for {framework.cuda_version}"
        )
        return newer_driver(facts, says, row.driver)
    return _build_for(facts, framework, capability)


def _build_for(facts: Facts, framework: Framework, capability: str) -> str:
    found = other_release_command(facts, framework, capability=capability, driver=driver_version(facts))
    return found or has_none(framework, capability)


def _cache_evidence(facts: Facts) -> Iterator[Evidence]:
    for variable in ("CUDA_CACHE_DISABLE", "CUDA_CACHE_MAXSIZE", "CUDA_CACHE_PATH"):
        if variable in facts.environment:
            yield Evidence(variable, repr(facts.environment[variable]), f"env | grep {variable}")


def _cache_remedy(facts: Facts) -> str:
    """The result is kept in a cache: it must be on, and have room."""
    steps = [f"export CUDA_CACHE_MAXSIZE={CACHE_BYTES}"]
    if facts.environment.get("CUDA_CACHE_DISABLE", "0").strip() not in {"", "0"}:
        steps.insert(0, "unset CUDA_CACHE_DISABLE")
    return "; ".join(steps) + "    # wait once; or use a build that has this architecture"


def lowest_capability(capabilities: tuple[str, ...]) -> str:
    """`6.0` of ("sm_60", …, "compute_90"). The last digit is the minor version, letters after it aside."""
    numbers = [c.rpartition("_")[2].rstrip("abcdef").replace(".", "") for c in capabilities]
    return min((f"{n[:-1]}.{n[-1]}" for n in numbers if n.isdigit()), key=release_key, default="0")
