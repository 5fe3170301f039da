"""The simulated driver: GPUs, and the two libraries compiled to answer for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.machines.compile import HERE, compile_library

HANG, CRASH = "HANG", "CRASH"  # for `nvml` and `cuda`: what the first call does; an error number does too
GIB = 1 << 30


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

    def at(self, index: int) -> SimulatedGpu:
        """This model, as the `index`th GPU of a machine."""
        return replace(self, uuid=self.uuid.format(index=index), pci=self.pci.format(slot=index + 1))

    @property
    def lost(self) -> SimulatedGpu:
        """Fallen off the bus: NVML error 15."""
        return replace(self, error=15)


RTX_4090 = SimulatedGpu("NVIDIA GeForce RTX 4090", "8.9", 24 * GIB, 128, "0x2684")
H100 = SimulatedGpu("NVIDIA H100 80GB HBM3", "9.0", 80 * GIB, 132, "0x2330")
RTX_5090 = SimulatedGpu("NVIDIA GeForce RTX 5090", "12.0", 32 * GIB, 170, "0x2b85")
GTX_1080 = SimulatedGpu("NVIDIA GeForce GTX 1080", "6.1", 8 * GIB, 20, "0x1b80")
TESLA_K80 = SimulatedGpu("Tesla K80", "3.7", 12 * GIB, 13, "0x102d")


def driver_libraries(
    directory: Path,
    version: str = "550.54.14",
    *,
    supports: str = "12.4",
    gpus: Sequence[SimulatedGpu] = (RTX_4090,),
    nvml: int | str = 0,
    cuda: int | str = 0,
) -> None:
    """Write libcuda.so.1 and libnvidia-ml.so.1 into `directory`, as links to files with the version.

    `supports` is the newest CUDA that the driver serves; `nvml` and `cuda` are what nvmlInit and cuInit
    return (18, 999 …), or HANG or CRASH.
    """
    rows = "".join(_row(gpu.at(index)) for index, gpu in enumerate(gpus))
    major, minor = supports.split(".")
    for stem, init in (("libcuda", cuda), ("libnvidia-ml", nvml)):
        header = (
            f'#define DRIVER_VERSION "{version}"\n'
            f"#define CUDA_VERSION {int(major) * 1000 + int(minor) * 10}\n"
            f"#define INIT {init}\n"
            f"#define GPUS {rows}\n"
        )
        soname = f"{stem}.so.1"
        compile_library(directory / f"{stem}.so.{version}", [HERE / f"{stem}.c"], soname, header=header)
        link = directory / soname
        link.unlink(missing_ok=True)
        link.symlink_to(f"{stem}.so.{version}")


def _row(gpu: SimulatedGpu) -> str:
    major, minor = gpu.capability.split(".")
    return (
        f'{{"{gpu.name}", "{gpu.uuid}", "{gpu.pci}", {major}, {minor}, {gpu.multiprocessors}, '
        f"{gpu.memory}ULL, {gpu.error}, {int(gpu.limited)}}}, "
    )
