"""How CUDA reads CUDA_VISIBLE_DEVICES. Pure, and no check of its own.

Sources: CUDA programming guide, "CUDA Environment Variables" (an entry that names no device hides itself and
all after it; beginnings of UUIDs); for what the guide leaves open, the experiments with real drivers behind
`torch.cuda._parse_visible_devices` (pytorch/pytorch#84879, #92315, test_cuda.py) and nvitop's
`parse_cuda_visible_devices`, which asks cuInit itself: numbers are read as strtol reads them ("1gpu2" is 1,
" 1" and "+1" too), the first entry decides between numbers, GPU- and MIG- names, and a device named twice
leaves none at all.
"""

from __future__ import annotations

import re

from msgspec import Struct

from envdoctor.facts.model import Facts, Gpu, Nvml, Unavailable
from envdoctor.facts.model_gpu import Mig

# strtol, base 10: what follows the number is not looked at. No machine has a GPU of more digits.
_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?0*[0-9]{1,9})(?![0-9])")
VARIABLE = "CUDA_VISIBLE_DEVICES"


class Device(Struct, frozen=True):
    """A device that CUDA could show, under the names that a mask may call it by."""

    uuid: str = ""
    instances: tuple[str, ...] = ()  # MIG devices on it


class Mask(Struct, frozen=True):
    """What a value of CUDA_VISIBLE_DEVICES leaves."""

    visible: tuple[int, ...]  # indices into the devices
    bad: str | None = None  # the entry that ended the list
    duplicate: bool = False  # it names a device for the second time, which hides all
    cut_off: tuple[str, ...] = ()  # entries after it that would have named a device


def read_mask(value: str, devices: tuple[Device, ...]) -> Mask:
    entries = value.split(",")
    kind = _kind(entries[0])
    seen: list[int] = []
    for place, entry in enumerate(entries):
        index = _find(entry, kind, devices)
        if index is not None and index in seen:
            return Mask(visible=(), bad=entry, duplicate=True)
        if index is None:
            rest = tuple(e for e in entries[place + 1 :] if _find(e, kind, devices) not in {None, *seen})
            return Mask(visible=tuple(seen), bad=entry, cut_off=rest)
        seen.append(index)
    return Mask(visible=tuple(seen))


def _kind(entry: str) -> str:
    return entry[:4] if entry[:4] in {"GPU-", "MIG-"} else ""


def _find(entry: str, kind: str, devices: tuple[Device, ...]) -> int | None:
    if _kind(entry) != kind:
        return None
    if not kind:
        number = _NUMBER.match(entry)
        index = int(number[1]) if number else -1
        return index if 0 <= index < len(devices) else None
    if entry.startswith("MIG-GPU-"):  # before R470: MIG-<GPU's UUID>/<GPU instance>/<compute instance>
        entry, kind = entry.removeprefix("MIG-").partition("/")[0], "GPU-"
    names = [
        (index, name)
        for index, device in enumerate(devices)
        for name in (device.instances if kind == "MIG-" else (device.uuid,))
    ]
    fitting = [index for index, name in names if name.startswith(entry)]
    return fitting[0] if len(fitting) == 1 else None


def maskable(facts: Facts) -> tuple[Device, ...] | None:
    """The devices that a mask chooses among: as NVML lists them, else as many as the bus has; None: unknown.

    Which of them an index means is another question (CUDA_DEVICE_ORDER); how many there are is not.
    """
    nvml = facts.driver.nvml
    if isinstance(nvml, Nvml):
        found = [g for g in nvml.gpus if isinstance(g, Gpu)]
        return tuple(Device(g.uuid, _instances(g)) for g in found if not _hollow(g))
    if isinstance(facts.driver.pci, Unavailable):
        return None
    count = sum(g.kernel_driver in {"nvidia", ""} for g in facts.driver.pci)
    return tuple(Device() for _ in range(count)) if count else None


def _instances(gpu: Gpu) -> tuple[str, ...]:
    return gpu.mig.instances if isinstance(gpu.mig, Mig) else ()


def _hollow(gpu: Gpu) -> bool:
    """In MIG mode without an instance a GPU is no CUDA device."""
    return isinstance(gpu.mig, Mig) and gpu.mig.enabled and not gpu.mig.instances


def shown(facts: Facts, here: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    """Of these GPUs the ones that the mask leaves; all, where it cannot be told which those are."""
    value = facts.environment.get(VARIABLE)
    alike = len({g.name for g in here}) <= 1  # then the fastest-first order is the bus's, too
    if value is None or (
        not _kind(value) and not alike and facts.environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID"
    ):
        return here
    mask = read_mask(value, tuple(Device(g.uuid, _instances(g)) for g in here))
    return tuple(here[i] for i in mask.visible) or here
