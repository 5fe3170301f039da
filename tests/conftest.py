"""The healthy workstation that every check's machine is a broken copy of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.machines import overlay
from tests.machines.drivers import RTX_4090, SimulatedGpu
from tests.machines.machine import Machine


def workstation(
    root: Path,
    *,
    version: str = "550.54.14",
    supports: str = "12.4",
    gpus: tuple[SimulatedGpu, ...] = (RTX_4090,),
) -> Machine:
    """A driver, a GPU, a venv with TensorFlow 2.21 and its wheels, and the link that shows it cusolver."""
    machine = Machine(root).os("ubuntu", "24.04").kernel("6.8.0-45-generic").cpus(8)
    machine.driver(version, supports=supports, gpus=gpus)
    machine.venv().tensorflow().nvidia_wheels()
    site = machine.site_packages
    return machine.link(
        f"{site}/nvidia/cusparse/lib/libcusolver.so.11", "../../cusolver/lib/libcusolver.so.11"
    )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return workstation(tmp_path / "machine")


needs_overlay = pytest.mark.skipif(bool(overlay.why_not()), reason=overlay.why_not() or "-")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may give files to others")
