"""The simulated driver: GPUs, and the two libraries compiled to answer for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.machines.compile import HERE, compile_library

HANG, CRASH = "HANG", "CRASH"  # for `nvml` and `cuda`: what the first call does; an error number does too
GIB = 1 << 30


NONE = -1  # "Not Supported", where a number is asked for
# nvmlClocksEventReason… of nvml.h
IDLE, POWER_CAP, HW_SLOWDOWN, SW_THERMAL, HW_THERMAL, POWER_BRAKE = 0x1, 0x4, 0x8, 0x20, 0x40, 0x80
EXCLUSIVE, PROHIBITED = 3, 2  # NVML_COMPUTEMODE_…
PASSTHROUGH, VGPU = 1, 2  # NVML_GPU_VIRTUALIZATION_MODE_…


@dataclass(frozen=True)
class SimulatedProcess:
    pid: int
    memory: int
    graphics: bool = False


@dataclass(frozen=True)
class Pcie:
    """Lanes and generation of the link now, of the GPU, and of the port above it (0, 0: none to be seen)."""

    now: tuple[int, int] = (16, 4)
    gpu: tuple[int, int] = (16, 4)
    port: tuple[int, int] = (16, 4)


@dataclass(frozen=True)
class SimulatedGpu:
    name: str
    capability: str
    memory: int
    multiprocessors: int
    device_id: str
    uuid: str = "GPU-00000000-0000-4000-8000-0000000000{index:02x}"
    pci: str = "0000:{slot:02x}:00.0"
    error: int = 0  # NVML's answer to every question about it: 15 is "GPU is lost"
    limited: bool = False  # "Not Supported" is the answer to what is optional
    used: int = 512 << 20
    utilization: int = 0
    temperature: int = 41
    slowdown: int = IDLE
    ecc: tuple[int, int] = (NONE, NONE)  # uncorrected: volatile, aggregate
    remapped: tuple[int, int, int] = (NONE, 0, 0)  # uncorrectable, pending, failed
    retired: tuple[int, int] = (NONE, 0)  # pages with double-bit errors, pending
    mig: int = NONE  # 0 off, 1 on
    instances: tuple[str, ...] = ()  # UUIDs of MIG devices
    compute_mode: int = 0
    virtualization: int = 0
    virtual_memory: bool = False
    processes: tuple[SimulatedProcess, ...] = ()
    pcie: Pcie = Pcie()

    def at(self, index: int) -> SimulatedGpu:
        """This model, as the `index`th GPU of a machine."""
        return replace(self, uuid=self.uuid.format(index=index), pci=self.pci.format(slot=index + 1))

    @property
    def lost(self) -> SimulatedGpu:
        """Fallen off the bus: NVML error 15."""
        return replace(self, error=15)


RTX_4090 = SimulatedGpu("NVIDIA GeForce RTX 4090", "8.9", 24 * GIB, 128, "0x2684")
H100 = SimulatedGpu(
    "NVIDIA H100 80GB HBM3",
    "9.0",
    80 * GIB,
    132,
    "0x2330",
    ecc=(0, 0),
    remapped=(0, 0, 0),
    mig=0,
    pcie=Pcie((16, 5), (16, 5), (16, 5)),
)
RTX_5090 = SimulatedGpu("NVIDIA GeForce RTX 5090", "12.0", 32 * GIB, 170, "0x2b85")
GTX_1080 = SimulatedGpu("NVIDIA GeForce GTX 1080", "6.1", 8 * GIB, 20, "0x1b80")
GT_1030 = SimulatedGpu("NVIDIA GeForce GT 1030", "6.1", 2 * GIB, 3, "0x1d01")
TESLA_V100 = SimulatedGpu("Tesla V100-SXM2-16GB", "7.0", 16 * GIB, 80, "0x1db1", ecc=(0, 0), retired=(0, 0))
TESLA_K80 = SimulatedGpu("Tesla K80", "3.7", 12 * GIB, 13, "0x102d")


def driver_libraries(
    directory: Path,
    version: str = "550.54.14",
    *,
    supports: str = "12.4",
    gpus: Sequence[SimulatedGpu] = (RTX_4090,),
    nvml: int | str = 0,
    cuda: int | str = 0,
    lacks: Sequence[str] = (),
) -> None:
    """Write libcuda.so.1 and libnvidia-ml.so.1 into `directory`, as links to files with the version.

    `supports` is the newest CUDA that the driver serves; `nvml` and `cuda` are what nvmlInit and cuInit
    return (18, 999 …), or HANG or CRASH. `lacks` are functions that this driver is too old for.
    """
    rows = "".join(_row(gpu.at(index)) for index, gpu in enumerate(gpus))
    major, minor = supports.split(".")
    for stem, init in (("libcuda", cuda), ("libnvidia-ml", nvml)):
        header = (
            f'#define DRIVER_VERSION "{version}"\n'
            f"#define CUDA_VERSION {int(major) * 1000 + int(minor) * 10}\n"
            f"#define INIT {init}\n"
            f"#define GPUS {rows}\n" + "".join(f"#define {name} newer_{name}\n" for name in lacks)
        )
        soname = f"{stem}.so.1"
        compile_library(directory / f"{stem}.so.{version}", [HERE / f"{stem}.c"], soname, header=header)
        link = directory / soname
        link.unlink(missing_ok=True)
        link.symlink_to(f"{stem}.so.{version}")


def _row(gpu: SimulatedGpu) -> str:
    major, minor = gpu.capability.split(".")
    processes = ", ".join(f"{{{p.pid}, {int(p.graphics)}, {p.memory}ULL}}" for p in gpu.processes)
    fields = (
        *(_text(gpu.name), _text(gpu.uuid), _text(gpu.pci), major, minor, gpu.multiprocessors),
        *(f"{gpu.memory}ULL", f"{gpu.used}ULL", gpu.error, int(gpu.limited)),
        *(gpu.utilization, gpu.temperature, gpu.slowdown),
        *(_array(gpu.ecc), _array(gpu.remapped), _array(gpu.retired)),
        *(gpu.mig, _array([*map(_text, gpu.instances), 0]), gpu.compute_mode, gpu.virtualization),
        *(int(gpu.virtual_memory), f"{{{processes or '{0}'}}}"),
    )
    return f"{_array(fields)}, "


def _text(value: str) -> str:
    return f'"{value}"'


def _array(values: Iterable[object]) -> str:
    return "{" + ", ".join(map(str, values)) + "}"
