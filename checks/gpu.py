"""Is there a GPU, can this process see it, and was the framework built for it?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from envdoctor.catalog import Severity
from envdoctor.checks.machine import (
    cuda_frameworks,
    driver_answers,
    gpu_traces,
    gpus,
    require_gpu_wanted,
    title,
)
from envdoctor.facts.model import CudaDriver, Facts, Gpu, known
from envdoctor.finding import Evidence, Finding, SkipError
from envdoctor.knowledge.tables import release_key


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
        remedy="run on a machine (or in a container, or a queue) that has one" if required else "",
    )


def check_gpu_hidden_by_env(facts: Facts) -> Iterator[Finding]:
    require_gpu_wanted(facts)
    value = facts.environment.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return
    here = gpus(facts)
    if isinstance(facts.driver.cuda, CudaDriver) and facts.driver.cuda.devices:
        return  # a mask that leaves something is what its author wanted
    if not here:
        if value.strip() not in {"", "-1", "NoDevFiles"}:
            raise SkipError(f"CUDA_VISIBLE_DEVICES={value}: no list of GPUs to hold it against")
        visible, bad = visible_devices(value, ())
    else:
        visible, bad = visible_devices(value, here)
    if visible:
        return
    reason = (
        "it is empty" if not value.strip() else f"CUDA stops at the first entry that names no GPU, {bad!r}"
    )
    yield Finding(
        code="GPU002",
        subject="CUDA_VISIBLE_DEVICES",
        message=f"CUDA_VISIBLE_DEVICES={value!r} hides every GPU: {reason}",
        evidence=(
            Evidence("CUDA_VISIBLE_DEVICES", repr(value), "env | grep CUDA_VISIBLE_DEVICES"),
            *(Evidence(f"GPU {g.index}", f"{g.name} {g.uuid}", "nvidia-smi -L") for g in here),
        ),
        remedy="unset CUDA_VISIBLE_DEVICES",
    )


def visible_devices(value: str, here: tuple[Gpu, ...]) -> tuple[tuple[Gpu, ...], str]:
    """The GPUs that CUDA leaves visible, and the first entry that ended the list ("" for none).

    Entries are read from the left; one that names no GPU hides itself and all after it. An entry is an
    index, or "GPU-" and the beginning of a UUID that fits one GPU (CUDA programming guide,
    "CUDA Environment Variables"); a GPU named twice ends the list too.
    """
    visible: list[Gpu] = []
    for entry in value.split(","):
        text = entry.strip()
        if text.isdigit():
            found = [g for g in here if g.index == int(text)]
        else:
            found = [g for g in here if text and g.uuid.lower().startswith(text.lower())]
        if len(found) != 1 or found[0] in visible:
            return tuple(visible), text
        visible.append(found[0])
    return tuple(visible), ""


def check_gpu_too_old(facts: Facts) -> Iterator[Finding]:
    require_gpu_wanted(facts)
    here = gpus(facts)
    if not here:
        raise SkipError("no GPU could be described")
    for framework in cuda_frameworks(facts):
        lowest = lowest_capability(known(framework.compute_capabilities))
        old = [g for g in here if release_key(known(g.compute_capability)) < release_key(lowest)]
        for gpu in old:
            yield Finding(
                code="GPU003",
                subject=gpu.name,
                framework=framework.name,
                severity_here=None if len(old) == len(here) else Severity.WARNING,
                message=f"{gpu.name} has compute capability {known(gpu.compute_capability)}; "
                f"{title(framework)} was built for {lowest} and up, and ignores it",
                evidence=(
                    Evidence(
                        f"GPU {gpu.index}",
                        f"compute capability {known(gpu.compute_capability)}",
                        "nvidia-smi --query-gpu=name,compute_cap --format=csv",
                    ),
                    Evidence("built for", ", ".join(known(framework.compute_capabilities)), framework.source),
                ),
                remedy="use a release whose build still has this GPU, or build from source",
            )


def lowest_capability(capabilities: tuple[str, ...]) -> str:
    """`6.0` of ("sm_60", …, "compute_90"). The last digit is the minor version, letters after it aside."""
    numbers = [c.rpartition("_")[2].rstrip("abcdef") for c in capabilities]
    return min((f"{n[:-1]}.{n[-1]}" for n in numbers if n.isdigit()), key=release_key, default="0")
