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
from typing import TYPE_CHECKING

import msgspec

from envdoctor.facts.child import Child, Outcome, start
from envdoctor.facts.gpu_state import names_by_number, read_link, read_profiling, with_owners
from envdoctor.facts.kernel_log import read_kernel_log
from envdoctor.facts.model import (
    CudaDriver,
    DeviceNode,
    Driver,
    DriverLibrary,
    Nvml,
    PciGpu,
    ProbeFailure,
    ProbeFailureKind,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envdoctor.facts.root import Root
from envdoctor.target import Target

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


def ask_driver(target: Target) -> DriverProbes | Unavailable:
    """Start asking the driver as the target would.

    For another user's process with root's own environment: its LD_LIBRARY_PATH may name anything.
    """
    return start_driver_probes(target.root, os.environ if target.foreign else target.environment)


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
    loaded = bool(kernel_module) or bool(pci)
    kernel_log = read_kernel_log(root) if loaded else Unavailable("no NVIDIA driver, and no GPU, to look for")
    nvml: Nvml | ProbeFailure | Unavailable
    cuda: CudaDriver | ProbeFailure | Unavailable
    if isinstance(probes, Unavailable):
        nvml = cuda = probes
    else:
        nvml = _nvml(_finish(probes.nvml, deadline_s), root)
        cuda = _cuda(_finish(probes.cuda, deadline_s))
    return Driver(
        kernel_module=kernel_module,
        modules=modules,
        pci=pci,
        nodes=nodes,
        libraries=libraries,
        nvml=nvml,
        cuda=cuda,
        kernel_log=kernel_log,
        profiling=read_profiling(root),
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
            gpus.append(
                PciGpu(
                    address=address,
                    device_id=device,
                    kernel_driver=_bound_driver(root, address),
                    link=read_link(root, f"{_PCI}/{address}"),
                )
            )
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
    owners, groups = names_by_number(root, "/etc/passwd"), names_by_number(root, "/etc/group")
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


# --- what its libraries answer ----------------------------------------------------------------------


def _script(name: str) -> str:
    return os.path.join(os.path.dirname(__file__), "probes", name)


def _finish(child: Child, deadline_s: float) -> Outcome:
    return child.finish(child.started + deadline_s - time.monotonic())


def _nvml(outcome: Outcome, root: Root) -> Nvml | ProbeFailure | Unavailable:
    decoder: msgspec.json.Decoder[Nvml | ProbeFailure | Unavailable]
    decoder = msgspec.json.Decoder(Nvml | ProbeFailure | Unavailable)
    try:
        answer = decoder.decode(outcome.result)
    except msgspec.DecodeError:
        return _failure(outcome)
    if not isinstance(answer, Nvml):
        return answer
    gpus = tuple(gpu if isinstance(gpu, Unavailable) else with_owners(root, gpu) for gpu in answer.gpus)
    return msgspec.structs.replace(answer, gpus=gpus)


def _cuda(outcome: Outcome) -> CudaDriver | ProbeFailure:
    decoder: msgspec.json.Decoder[CudaDriver | ProbeFailure]
    decoder = msgspec.json.Decoder(CudaDriver | ProbeFailure)
    try:
        return decoder.decode(outcome.result)
    except msgspec.DecodeError:
        return _failure(outcome)


def _failure(outcome: Outcome) -> ProbeFailure:
    """A child that ended without a whole answer."""
    kind = ProbeFailureKind.ERROR
    if outcome.hung:
        kind = ProbeFailureKind.HANG
    elif outcome.signal:
        kind = ProbeFailureKind.SIGNAL
    return ProbeFailure(kind, outcome.describe())


def _unreadable(path: str, error: OSError) -> Unavailable:
    return Unavailable(f"{path}: {error.strerror}")
