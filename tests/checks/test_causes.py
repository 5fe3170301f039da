"""Combinations: independent causes each lead, consequences stand beneath the right one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import needs_overlay, workstation
from tests.machines.drivers import TESLA_K80
from tests.machines.machine import LIBRARIES, Checked, Machine
from tests.machines.overlay import check_inside

LINK = "nvidia/cusparse/lib/libcusolver.so.11"


def beneath(checked: Checked, code: str) -> list[str]:
    """The codes of the causes that a finding follows from."""
    findings: list[Any] = checked.report["findings"]
    return [findings[i]["code"] for i in checked.finding(code)["because"]]


def old_cudnn_first(machine: Machine) -> Machine:
    directory = "/usr/local/cuda/lib64"
    machine.library(f"{directory}/libcudnn.so.9.1.0", soname="libcudnn.so.9")
    return machine.link(f"{directory}/libcudnn.so.9", "libcudnn.so.9.1.0").export(LD_LIBRARY_PATH=directory)


@needs_overlay
def test_a_hidden_gpu_and_a_shadowed_cudnn_both_lead(machine: Machine) -> None:
    old_cudnn_first(machine).export(CUDA_VISIBLE_DEVICES="-1")
    checked = check_inside(machine, "--quick")
    assert {"GPU002", "LIB004"} <= set(checked.causes)
    assert "CDN002" not in checked.causes
    assert beneath(checked, "CDN002") == ["LIB004"]


@needs_overlay
def test_cuinit_100_stands_beneath_the_mask_that_explains_it(machine: Machine) -> None:
    machine.export(CUDA_VISIBLE_DEVICES="")
    checked = check_inside(machine, "--quick")
    assert checked.causes == ["GPU002"]


def test_no_driver_and_a_library_outside_the_runpath_both_lead(machine: Machine) -> None:
    machine.path(f"{machine.site_packages}/{LINK}").unlink()
    for name in ("libcuda.so.1", "libcuda.so.550.54.14", "libnvidia-ml.so.1", "libnvidia-ml.so.550.54.14"):
        machine.path(f"{LIBRARIES}/{name}").unlink()
    checked = machine.check()
    assert {"DRV001", "LIB002"} <= set(checked.causes)


@needs_overlay
def test_an_old_gpu_and_an_old_driver_both_lead(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m", version="470.256.02", supports="11.4", gpus=(TESLA_K80,))
    assert {"GPU003", "DRV004"} <= set(check_inside(machine, "--quick").causes)


@needs_overlay
def test_missing_nodes_lead_and_the_failing_cuinit_follows_while_a_missing_library_leads_too(
    machine: Machine,
) -> None:
    machine.nodes(without=["nvidia-uvm"]).user_libraries("550.54.14", cuda=999)
    machine.path(f"{machine.site_packages}/{LINK}").unlink()
    checked = check_inside(machine, "--quick")
    assert set(checked.causes) == {"DRV007", "LIB002"}
    assert beneath(checked, "DRV010") == ["DRV007"]


@needs_overlay
def test_errors_lead_before_warnings(machine: Machine) -> None:
    machine.path(f"{machine.site_packages}/{LINK}").unlink()
    machine.export(OMP_NUM_THREADS="none")
    checked = check_inside(machine, "--quick")
    assert checked.causes == ["LIB002", "THR004"]
