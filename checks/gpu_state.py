"""The GPUs in use: who holds their memory, are they sound, do they run at full speed?"""

from __future__ import annotations

from collections.abc import Iterator

from envdoctor.catalog import Severity
from envdoctor.checks.administration import ask_for_gpu, privileged
from envdoctor.checks.gpu_answers import answers, held_by, label, size, who
from envdoctor.checks.machine import gpus, require_gpu_wanted
from envdoctor.facts.model import CudaDriver, Facts, Gpu, Nvml, PciGpu, ProbeFailure, Unavailable, known
from envdoctor.facts.model_gpu import GpuEvent, GpuProcess, KernelLog, PcieLink
from envdoctor.finding import Evidence, Finding, SkipError

# --- memory -----------------------------------------------------------------------------------------

HELD = 0.5  # of the memory, by processes that compute: what a second training run meets
FULL = 0.85  # of the memory, by whoever it is: a desktop with a browser stays far below


def check_memory_held(facts: Facts) -> Iterator[Finding]:
    """TensorFlow and JAX take nearly all memory; a display server and a browser take a few hundred MiB."""
    memory = [
        (gpu, known(gpu.memory_used_bytes), known(gpu.memory_bytes))
        for gpu, _ in answers(facts, "memory_used_bytes", int)
    ]
    roomy = [gpu for gpu, used, total in memory if used < HELD * total]
    for gpu, used, total in memory:
        processes = () if isinstance(gpu.processes, Unavailable) else gpu.processes
        computing = tuple(p for p in processes if p.kind == "compute")
        if used < (HELD if computing else FULL) * total:
            continue
        holders = computing or processes
        names = ", ".join(map(who, holders)) or "processes that this user cannot see"
        yield Finding(
            code="GPU006",
            subject=label(gpu),
            message=f"{size(used)} of {size(total)} of {label(gpu)} are taken, by {names}",
            evidence=(
                Evidence(
                    "memory", f"{size(total - used)} free", "nvidia-smi --query-gpu=memory.free --format=csv"
                ),
                *map(held_by, holders),
            ),
            remedy=_make_room(facts, roomy, holders),
        )


def _make_room(facts: Facts, roomy: list[Gpu], holders: tuple[GpuProcess, ...]) -> str:
    if not holders and ask_for_gpu(facts):
        return ask_for_gpu(facts)
    if roomy:
        return f"export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={roomy[0].index}"
    pids = " ".join(str(p.pid) for p in holders if isinstance(p.name, str))
    users = ", ".join(dict.fromkeys(p.user for p in holders if isinstance(p.user, str)))
    whose = f"if it is yours: it is {users}'s" if users else "if it is yours; else ask its user"
    return f"kill {pids}    # {whose}" if pids else "sudo fuser -v /dev/nvidia*"


# --- faults -----------------------------------------------------------------------------------------

# NVIDIA Xid catalogue: those that mean hardware, or a GPU out of service until a reset. 13, 31, 43, 45, 69
# and the like come from programs; 63 and 94 are repaired by a reset and stand under GPU010.
FAULTS = {
    48: "double-bit memory error",
    61: "internal micro-controller breakpoint",
    62: "internal micro-controller halt",
    64: "row remapping or page retirement failed",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    95: "uncontained memory error",
    110: "security fault",
    119: "the GPU's system processor does not answer",
    120: "error of the GPU's system processor",
    140: "unrecovered memory error",
    143: "the GPU could not be initialised",
}
LOST, RESET_REQUIRED = 15, 16  # NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED


def check_hardware_fault(facts: Facts) -> Iterator[Finding]:
    """An error, unless a GPU still computes; then what is lost, or was, is a warning."""
    require_gpu_wanted(facts)
    nvml, cuda, log = facts.driver.nvml, facts.driver.cuda, facts.driver.kernel_log
    works = (
        bool(cuda.devices)
        if isinstance(cuda, CudaDriver)
        else isinstance(cuda, Unavailable) and bool(gpus(facts))
    )
    if isinstance(cuda, CudaDriver):
        works = bool(cuda.devices)
    else:
        works = isinstance(cuda, Unavailable) and bool(gpus(facts))
    severity = Severity.WARNING if works else None
    events = [e for e in log.events if _is_fault(e, facts)] if isinstance(log, KernelLog) else []
    source = log.source if isinstance(log, KernelLog) else ""
    lost = (
        [(f"GPU {f.index}", f.reason) for f in nvml.failures if f.code in {LOST, RESET_REQUIRED}]
        if isinstance(nvml, Nvml)
        else []
    )
    if isinstance(nvml, ProbeFailure) and nvml.code in {LOST, RESET_REQUIRED}:
        lost.append(("the GPU", nvml.detail))
    look = _look(source)
    if lost:
        yield Finding(
            code="GPU007",
            subject=lost[0][0],
            severity_here=severity,
            message="; ".join(f"{name} does not answer: {reason}" for name, reason in lost),
            evidence=(
                *(Evidence(name, reason, "nvidia-smi -L") for name, reason in lost),
                *(Evidence("kernel log", e.text, look) for e in events),
            ),
            remedy=privileged(
                facts,
                "; ".join(f"{name} does not answer: {reason}" for name, reason in lost),
                "sudo poweroff",
                "a cold start; if it comes back, seat the card, check its power plugs",
            ),
        )
        return
    for address in dict.fromkeys(e.address for e in events):
        here = [e for e in events if e.address == address]
        name = f"GPU {address}" if address else "the GPU"
        message = f"{name}: {'; '.join(map(_meaning, here))} (kernel log of this boot)"
        yield Finding(
            code="GPU007",
            subject=name,
            severity_here=severity,
            message=message,
            evidence=tuple(Evidence("kernel log", e.text, look) for e in here),
            remedy=privileged(
                facts,
                message,
                "sudo reboot",
                "if it comes back: check seat, power and heat; sudo dcgmi diag -r 3",
            ),
        )
    if not events and isinstance(log, Unavailable):
        raise SkipError(log.reason)
    if not events and isinstance(log, KernelLog) and not log.complete:
        raise SkipError(f"{log.source} was too long to be read to its end")


def _is_fault(event: GpuEvent, facts: Facts) -> bool:
    """Of a GPU of this target: a container sees the log of the host, and not all of its GPUs."""
    if event.xid is not None and event.xid not in FAULTS:
        return False
    addresses = {g.pci_address for g in gpus(facts) if isinstance(g.pci_address, str)}
    return not (facts.host.container and addresses and event.address not in {"", *addresses})


def _meaning(event: GpuEvent) -> str:
    if event.xid is not None:
        return f"Xid {event.xid}, {FAULTS[event.xid]}"
    return "the GPU has fallen off the bus" if "fallen off" in event.text else "the driver could not start it"


def _look(source: str) -> str:
    pattern = "grep -E 'NVRM: (Xid|.*RmInitAdapter|.*fallen off)'"
    return f"{pattern} {source}" if source.startswith("/var/") else f"sudo dmesg | {pattern}"


def check_memory_errors(facts: Facts) -> Iterator[Finding]:
    """What is over and repaired (rows remapped, errors in the life of the card) is a note."""
    require_gpu_wanted(facts)
    told = False
    for gpu in gpus(facts):
        now, before, resets = [], [], False
        if not isinstance(gpu.ecc, Unavailable):
            volatile, aggregate = _count(gpu.ecc.volatile), _count(gpu.ecc.aggregate)
            told |= not isinstance(gpu.ecc.volatile, Unavailable)
            now += [f"{volatile} uncorrectable ECC errors since the driver was loaded"] if volatile else []
            before += [f"{aggregate} uncorrectable ECC errors in its life"] if aggregate else []
        if not isinstance(gpu.remapped_rows, Unavailable):
            rows, told = gpu.remapped_rows, True
            now += ["a row remapping has failed: no spare row is left"] if rows.failed else []
            now += ["a row remapping is pending"] if rows.pending else []
            before += [f"{rows.uncorrectable} rows remapped"] if rows.uncorrectable else []
            resets = rows.pending and not rows.failed
        if not isinstance(gpu.retired_pages, Unavailable):
            pages, told = gpu.retired_pages, True
            now += ["a page retirement is pending"] if pages.pending else []
            before += [f"{pages.double_bit} pages retired for double-bit errors"] if pages.double_bit else []
            resets |= pages.pending
        if now or before:
            message = f"{label(gpu)}: {'; '.join(now or before)}" + ("" if now else " (repaired)")
            yield Finding(
                code="GPU010",
                subject=label(gpu),
                severity_here=None if now else Severity.NOTE,
                message=message,
                evidence=tuple(
                    Evidence("NVML", said, "nvidia-smi -q -d ECC,ROW_REMAPPER,PAGE_RETIREMENT")
                    for said in (*now, *before)
                ),
                remedy=_after_memory_error(facts, message, gpu, resets=resets) if now else "",
            )
    if not told and gpus(facts):
        raise SkipError("no GPU here counts memory errors")


def _after_memory_error(facts: Facts, says: str, gpu: Gpu, *, resets: bool) -> str:
    if resets:
        reset = f"sudo nvidia-smi --gpu-reset -i {gpu.index}"
        return privileged(facts, says, reset, "nothing may use it then; or sudo reboot")
    report = "for the vendor, who replaces the card"
    return privileged(facts, says, "sudo nvidia-bug-report.sh", report)


def _count(value: int | Unavailable) -> int:
    return 0 if isinstance(value, Unavailable) else value


# --- speed ------------------------------------------------------------------------------------------

IDLE = 0x1  # nvmlClocksEventReasonGpuIdle
SLOWDOWNS = {  # nvml.h; 0x2 application clocks, 0x4 power cap and 0x10 sync boost are normal
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
    0x8: "hardware slowdown",
}
LOAD = 30  # percent; below it a link may sleep at generation 1


def check_throttled(facts: Facts) -> Iterator[Finding]:
    for gpu, bits in answers(facts, "slowdown", int):
        if bits & IDLE:
            continue
        reasons = [name for bit, name in SLOWDOWNS.items() if bits & bit]
        if not reasons:
            continue
        heat = f"{gpu.temperature} °C" if isinstance(gpu.temperature, int) else ""
        message = f"{label(gpu)} is slowed down now: {', '.join(reasons)}" + (f", at {heat}" if heat else "")
        yield Finding(
            code="GPU008",
            subject=label(gpu),
            message=message,
            evidence=(
                Evidence(
                    "clock event reasons", f"0x{bits:x}: {', '.join(reasons)}", "nvidia-smi -q -d PERFORMANCE"
                ),
                *((Evidence("temperature", heat, "nvidia-smi -q -d TEMPERATURE"),) if heat else ()),
            ),
            remedy=_cool(facts, message, gpu, thermal=bool(bits & 0x60)),
        )


def _cool(facts: Facts, says: str, gpu: Gpu, *, thermal: bool) -> str:
    look = f"nvidia-smi -i {gpu.index} -q -d {'TEMPERATURE' if thermal else 'PERFORMANCE'},POWER"
    what = "give the card air, clean it, check its fan" if thermal else "check its power plugs and the supply"
    return privileged(facts, says, look, what)


def check_pcie_link(facts: Facts) -> Iterator[Finding]:
    """Width at any time; generation under load, because an idle link sleeps at the lowest."""
    require_gpu_wanted(facts)
    if facts.host.wsl:
        raise SkipError("WSL2 shows no link")
    by_address = {g.pci_address: g for g in gpus(facts)}
    judged = False
    for device in known(facts.driver.pci):
        if device.kernel_driver != "nvidia" or not isinstance(device.link, PcieLink):
            continue
        link, gpu = device.link, by_address.get(device.address)
        if isinstance(link.port_maximum, Unavailable) or (gpu and gpu.virtualization not in {0, 3, 4}):
            continue  # in a virtual machine the port is not the one that the card sits in
        judged = True
        width = min(link.gpu_maximum.width, link.port_maximum.width)
        generation = min(link.gpu_maximum.generation, link.port_maximum.generation)
        loaded = gpu is not None and isinstance(gpu.utilization, int) and gpu.utilization >= LOAD
        slow = []
        if 0 < link.current.width < width:
            slow.append(f"x{link.current.width} instead of x{width}")
        if loaded and 0 < link.current.generation < generation:
            slow.append(f"generation {link.current.generation} instead of {generation}, under load")
        if slow:
            yield _degraded(facts, device, link, gpu, slow)
    if not judged:
        raise SkipError("no GPU's link can be seen from both ends")


def _degraded(facts: Facts, device: PciGpu, link: PcieLink, gpu: Gpu | None, slow: list[str]) -> Finding:
    name = label(gpu) if gpu else f"GPU {device.address}"
    directory = f"/sys/bus/pci/devices/{device.address}"
    port = known(link.port_maximum)
    ends = (
        ("link now", link.current, f"cat {directory}/current_link_width {directory}/current_link_speed"),
        ("the GPU can", link.gpu_maximum, f"cat {directory}/max_link_width {directory}/max_link_speed"),
        ("its port can", port, "sudo lspci -vv | grep -E 'PCI bridge|LnkCap:'"),
    )
    message = f"the PCIe link of {name} runs at {', '.join(slow)}"
    look = "nvidia-smi --query-gpu=index,pcie.link.gen.current,pcie.link.width.current --format=csv"
    return Finding(
        code="GPU009",
        subject=name,
        message=message,
        evidence=tuple(
            Evidence(what, f"x{e.width}, generation {e.generation}", how) for what, e, how in ends
        ),
        remedy=privileged(
            facts, message, look, "after seating the card in the x16 slot nearest the CPU, without a riser"
        ),
    )
