"""Drivers: which one a CUDA version needs, which CUDA one serves, which GPUs it has dropped.

A driver has two versions that are easily taken for each other: its release ("550.54.14") and the newest
CUDA that it serves ("12.4", cuDriverGetVersion).
"""

from __future__ import annotations

from functools import cache

from msgspec import Struct

from envdoctor.knowledge.capabilities import compute_capability
from envdoctor.knowledge.loading import load_rows, release_key


class CudaDriverRow(Struct, frozen=True):
    """A toolkit release and the Linux drivers it takes."""

    cuda: str  # "12.4.1"
    driver: str  # the driver that came with it; "610" where only the branch is known
    floor: str  # the lowest that runs it
    source: str
    verified: bool


@cache
def cuda_drivers() -> tuple[CudaDriverRow, ...]:
    return load_rows("cuda_drivers", CudaDriverRow)


def driver_floor(cuda: str) -> CudaDriverRow | None:
    """The row that tells the lowest Linux driver for a CUDA version; None where the table has none.

    From CUDA 11 on the floor is that of the major version, so that a minor version newer than the table
    still gets one. Source: NVIDIA's CUDA compatibility guide, "Minor Version Compatibility".
    """
    key = release_key(cuda)[:2]
    same = [r for r in cuda_drivers() if key and release_key(r.cuda)[:2] == key]
    if not same and key and key[0] >= 11:
        same = [r for r in cuda_drivers() if release_key(r.cuda)[0] == key[0]]
    return min(same, key=lambda r: release_key(r.floor), default=None)


def driver_serving(cuda: str) -> CudaDriverRow | None:
    """The row of the first driver that serves this CUDA version itself, so that it compiles its PTX too."""
    key = release_key(cuda)[:2]
    same = [r for r in cuda_drivers() if len(key) == 2 and release_key(r.cuda)[:2] == key]
    return min(same, key=lambda r: release_key(r.driver), default=None)


def served_cuda(driver: str) -> str:
    """The newest CUDA ("12.4") that a driver release serves, as far as the table goes; "" below the table.

    The driver itself (cuDriverGetVersion) knows better: ask it where it answers. A branch that came with
    no toolkit (565) is answered with the one before it.
    """
    key = release_key(driver)
    fitting = [release_key(r.cuda) for r in cuda_drivers() if key and release_key(r.driver) <= key]
    return ".".join(map(str, max(fitting)[:2])) if fitting else ""


def runs_by_minor_compatibility(build_cuda: str, driver: str) -> bool:
    """Whether only minor-version compatibility lets this driver run that build: it is at or above the floor
    of the build's CUDA major, and older than the driver of its minor version. PTX is not covered then.
    """
    floor, serving = driver_floor(build_cuda), driver_serving(build_cuda)
    if floor is None or serving is None or release_key(build_cuda)[0] < 11:
        return False
    return release_key(floor.floor) <= release_key(driver) < release_key(serving.driver)


def ptx_too_new(build_cuda: str, driver_cuda: str) -> bool:
    """Whether a driver that serves `driver_cuda` refuses PTX made with `build_cuda` (rule `ptx-not-covered`).

    To be asked where the GPU is reached through PTX alone. False where either version is not known.
    """
    build, driver = release_key(build_cuda)[:2], release_key(driver_cuda)[:2]
    return len(build) == 2 and len(driver) == 2 and driver < build


def dropped_by_driver(capability: str, driver: str) -> bool:
    """Whether a driver no longer supports a GPU of this capability (Pascal after the branch 580)."""
    row = compute_capability(capability)
    branch = release_key(driver)[:1]
    return bool(row and row.last_driver_branch and branch and branch > (int(row.last_driver_branch),))


def takes_compat_library(gpu_name: str) -> bool | None:
    """Whether a cuda-compat libcuda may work on this GPU (rule `forward-compatibility`).

    False for GeForce and TITAN; None elsewhere, because the name alone does not tell.
    """
    words = gpu_name.upper().split()
    return False if "GEFORCE" in words or "TITAN" in words else None
