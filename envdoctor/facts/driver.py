"""The NVIDIA driver: what the kernel shows in /proc, /sys and /dev, and what NVML and libcuda answer.

The two libraries are asked in children (`probes/`): on a sick driver their first call may crash, or never
return. Nothing here raises for a broken machine.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec

from envdoctor.facts.child import Child, Outcome, start
from envdoctor.facts.model import (
    CudaDevice,
    CudaDriver,
    DeviceNode,
    Driver,
    DriverLibrary,
    Gpu,
    Nvml,
    PciGpu,
    ProbeFailure,
    ProbeFailureKind,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envdoctor.facts.root import Root

T = TypeVar("T")
VERSION_FILE = "/proc/driver/nvidia/version"
MODULES = ("nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_drm", "nouveau")
NOT_EXECUTED = Unavailable("another root is examined; nothing is executed")
_PCI = "/sys/bus/pci/devices"
_VENDOR_NVIDIA = "0x10de"
_CLASS_DISPLAY = "0x03"  # VGA 0x0300, 3D controller 0x0302 (PCI code and ID assignment, class 03h)
# "NVIDIA UNIX x86_64 Kernel Module  550.54.14  …", "NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  …"
_MODULE_VERSION = re.compile(r"Kernel Module\s+(?:for \S+\s+)?(\d+(?:\.\d+)+)")
_NODE = re.compile(r"nvidiactl|nvidia-uvm|nvidia-modeset|nvidia\d+|dxg")  # dxg: WSL2's only one


@dataclass(frozen=True)
class DriverProbes:
    """The children that ask NVML and libcuda."""

    nvml: Child
    cuda: Child


def start_driver_probes(root: Root, environment: Mapping[str, str]) -> DriverProbes | Unavailable:
    """Start asking the driver under the target's environment; below another root nothing runs."""
    if not root.is_live:
        return NOT_EXECUTED
    # -I: the target's PYTHONPATH, PYTHONHOME and user site are not for this interpreter.
    # -S: libcuda needs nothing beyond the standard library, and site-packages take time to set up.
    return DriverProbes(
        nvml=start([sys.executable, "-I", _script("nvml_probe.py")], environment),
        cuda=start([sys.executable, "-I", "-S", _script("cuda_probe.py")], environment),
    )


def gather_driver(
    root: Root,
    environment: Mapping[str, str],  # noqa: ARG001  the probes were started with it
    probes: DriverProbes | Unavailable,
    deadline_s: float = 5.0,
    libraries: tuple[DriverLibrary, ...] | Unavailable = (),
) -> Driver:
    """Everything about the driver; each probe has `deadline_s` from its start."""
    kernel_module = _kernel_module(root)
    modules = _modules(root)
    pci = _pci(root)
    nodes = _nodes(root)
    nvml: Nvml | ProbeFailure | Unavailable
    cuda: CudaDriver | ProbeFailure | Unavailable
    if isinstance(probes, Unavailable):
        nvml = cuda = probes
    else:
        nvml = _nvml(_finish(probes.nvml, deadline_s))
        cuda = _cuda(_finish(probes.cuda, deadline_s))
    return Driver(
        kernel_module=kernel_module,
        modules=modules,
        pci=pci,
        nodes=nodes,
        libraries=libraries,
        nvml=nvml,
        cuda=cuda,
    )


# --- what the kernel shows --------------------------------------------------------------------------


def parse_module_version(text: str) -> str:
    """The version in the text of /proc/driver/nvidia/version; "" where there is none."""
    found = _MODULE_VERSION.search(text)
    return found[1] if found else ""


def _kernel_module(root: Root) -> str | Unavailable:
    try:
        text = root.read_text(VERSION_FILE)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return _unreadable(VERSION_FILE, error)
    return parse_module_version(text) or Unavailable(f"{VERSION_FILE} names no version: {text[:80]!r}")


def _modules(root: Root) -> tuple[str, ...] | Unavailable:
    try:
        loaded = set(root.listdir("/sys/module"))
    except OSError:
        try:
            loaded = {line.split(" ", 1)[0] for line in root.read_text("/proc/modules").splitlines()}
        except OSError as error:
            return _unreadable("/proc/modules", error)
    return tuple(name for name in MODULES if name in loaded)


def _pci(root: Root) -> tuple[PciGpu, ...] | Unavailable:
    try:
        addresses = sorted(root.listdir(_PCI))
    except OSError as error:
        no_bus = isinstance(error, FileNotFoundError) and os.path.isdir(root.directory + "/sys/bus")
        return () if no_bus else _unreadable(_PCI, error)
    gpus = []
    for address in addresses:
        try:
            vendor, kind, device = (
                root.read_text(f"{_PCI}/{address}/{name}").strip() for name in ("vendor", "class", "device")
            )
        except OSError:  # it was unplugged, or the bus lost it, since the directory was listed
            continue
        if vendor == _VENDOR_NVIDIA and kind.startswith(_CLASS_DISPLAY):
            gpus.append(PciGpu(address=address, device_id=device, kernel_driver=_bound_driver(root, address)))
    return tuple(gpus)


def _bound_driver(root: Root, address: str) -> str:
    try:
        return os.path.basename(root.readlink(f"{_PCI}/{address}/driver"))
    except OSError:
        return ""


def _nodes(root: Root) -> tuple[DeviceNode, ...] | Unavailable:
    try:
        names = sorted(name for name in root.listdir("/dev") if _NODE.fullmatch(name))
    except OSError as error:
        return _unreadable("/dev", error)
    if not names:
        return ()
    owners, groups = _names(root, "/etc/passwd"), _names(root, "/etc/group")
    nodes = []
    for name in names:
        path = f"/dev/{name}"
        try:
            status = root.stat(path)
            host = root.host(path)
        except OSError:
            continue
        nodes.append(
            DeviceNode(
                path=path,
                readable=os.access(host, os.R_OK),  # the kernel counts the device cgroup in
                writable=os.access(host, os.W_OK),
                mode=stat.filemode(status.st_mode),
                owner=owners.get(status.st_uid, str(status.st_uid)),
                group=groups.get(status.st_gid, str(status.st_gid)),
            )
        )
    return tuple(nodes)


def _names(root: Root, path: str) -> dict[int, str]:
    """Names by number, from the file itself: getpwuid may wait for a directory server."""
    try:
        rows = [line.split(":") for line in root.read_text(path).splitlines()]
    except OSError:
        return {}
    return {int(row[2]): row[0] for row in rows if len(row) > 2 and row[2].isdigit()}


# --- what its libraries answer ----------------------------------------------------------------------


class _Reason(msgspec.Struct, frozen=True):
    unavailable: str


class _Gpu(msgspec.Struct, frozen=True):
    """A GPU as nvml_probe.py writes it: all of it, or why there is none of it."""

    index: int = -1
    name: str = ""
    uuid: str = ""
    pci_address: str | _Reason = ""
    compute_capability: str | _Reason = ""
    memory_bytes: int | _Reason = 0
    memory_used_bytes: int | _Reason = 0
    unavailable: str = ""

    def fact(self) -> Gpu | Unavailable:
        if self.unavailable:
            return Unavailable(self.unavailable)
        return Gpu(
            index=self.index,
            uuid=self.uuid,
            name=self.name,
            pci_address=_fact(_sysfs_address(self.pci_address)),
            compute_capability=_fact(self.compute_capability),
            memory_bytes=_fact(self.memory_bytes),
            memory_used_bytes=_fact(self.memory_used_bytes),
        )


class _NvmlAnswer(msgspec.Struct, frozen=True):
    error: str = ""
    code: int | None = None
    unavailable: str = ""
    driver_version: str = ""
    cuda_version: str = ""
    simulated: bool = False
    gpus: tuple[_Gpu, ...] = ()


class _CudaAnswer(msgspec.Struct, frozen=True):
    error: str = ""
    code: int | None = None
    version: str = ""
    simulated: bool = False
    devices: tuple[CudaDevice, ...] = ()


def _sysfs_address(address: str | _Reason) -> str | _Reason:
    """NVML writes the PCI domain with eight digits, in capitals; the kernel "0000:01:00.0"."""
    if isinstance(address, _Reason):
        return address
    domain, _, rest = address.lower().partition(":")
    return f"{domain.lstrip('0'):0>4}:{rest}"


def _script(name: str) -> str:
    return os.path.join(os.path.dirname(__file__), "probes", name)


def _finish(child: Child, deadline_s: float) -> Outcome:
    return child.finish(child.started + deadline_s - time.monotonic())


def _nvml(outcome: Outcome) -> Nvml | ProbeFailure | Unavailable:
    try:
        answer = msgspec.json.decode(outcome.result, type=_NvmlAnswer)
    except msgspec.DecodeError:
        return _failure(outcome)
    if answer.unavailable:
        return Unavailable(answer.unavailable)
    if answer.error:
        return ProbeFailure(ProbeFailureKind.ERROR, answer.error, answer.code)
    return Nvml(
        driver_version=answer.driver_version,
        cuda_version=answer.cuda_version,
        simulated=answer.simulated,
        gpus=tuple(gpu.fact() for gpu in answer.gpus),
    )


def _cuda(outcome: Outcome) -> CudaDriver | ProbeFailure:
    try:
        answer = msgspec.json.decode(outcome.result, type=_CudaAnswer)
    except msgspec.DecodeError:
        return _failure(outcome)
    if answer.error:
        return ProbeFailure(ProbeFailureKind.ERROR, answer.error, answer.code)
    return CudaDriver(version=answer.version, simulated=answer.simulated, devices=answer.devices)


def _failure(outcome: Outcome) -> ProbeFailure:
    """A child that ended without a whole answer."""
    kind = ProbeFailureKind.ERROR
    if outcome.hung:
        kind = ProbeFailureKind.HANG
    elif outcome.signal:
        kind = ProbeFailureKind.SIGNAL
    return ProbeFailure(kind, outcome.describe())


def _fact(value: T | _Reason) -> T | Unavailable:
    return Unavailable(value.unavailable) if isinstance(value, _Reason) else value


def _unreadable(path: str, error: OSError) -> Unavailable:
    return Unavailable(f"{path}: {error.strerror}")
