"""Driver conditions, each on a machine that has it; the healthy twin is in test_healthy.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import needs_overlay, workstation
from tests.machines.drivers import CRASH, HANG, RTX_4090
from tests.machines.machine import LIBRARIES, Machine
from tests.machines.overlay import check_inside


def without_driver(root: Path) -> Machine:
    machine = Machine(root).os("ubuntu", "24.04").cpus(8).venv().tensorflow().nvidia_wheels()
    site = machine.site_packages
    return machine.link(
        f"{site}/nvidia/cusparse/lib/libcusolver.so.11", "../../cusolver/lib/libcusolver.so.11"
    )


def test_a_gpu_on_the_bus_without_libcuda_is_driver_not_installed(tmp_path: Path) -> None:
    checked = without_driver(tmp_path / "m").pci(driver="").check()
    assert checked.causes == ["DRV001"]
    assert "ubuntu-drivers install" in checked.finding("DRV001")["remedy"]


def test_libraries_without_a_kernel_module_are_driver_not_loaded(tmp_path: Path) -> None:
    machine = without_driver(tmp_path / "m").user_libraries("550.54.14").pci(driver="")
    assert machine.check().causes == ["DRV002"]


def test_a_module_of_another_version_than_libcuda_is_a_mismatch_cured_by_a_reboot(machine: Machine) -> None:
    machine.kernel_module("550.54.15")
    checked = machine.check()
    assert checked.causes == ["DRV003"]
    assert checked.finding("DRV003")["remedy"] == "sudo reboot"
    message = checked.finding("DRV003")["message"]
    assert "550.54.15" in message
    assert "550.54.14" in message


@needs_overlay
def test_nvml_error_18_is_a_mismatch_and_what_follows_is_beneath_it(machine: Machine) -> None:
    machine.kernel_module("550.54.15").user_libraries("550.54.14", nvml=18, cuda=803)
    checked = check_inside(machine, "--quick")
    assert checked.causes == ["DRV003"]


@needs_overlay
@pytest.mark.parametrize(
    ("version", "supports", "ill"), [("470.256.02", "11.4", True), ("525.60.13", "12.0", False)]
)
def test_a_driver_below_the_floor_of_cuda_12_is_too_old_and_the_floor_itself_is_not(
    tmp_path: Path, version: str, supports: str, ill: bool
) -> None:
    checked = check_inside(workstation(tmp_path / "m", version=version, supports=supports), "--quick")
    assert checked.causes == (["DRV004"] if ill else [])
    if ill:
        assert "525.60.13" in checked.finding("DRV004")["message"]


def test_nouveau_on_the_gpu_leads_and_the_unloaded_driver_follows(machine: Machine) -> None:
    shutil.rmtree(machine.path("/proc/driver"))
    for module in ("nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_drm"):
        shutil.rmtree(machine.path(f"/sys/module/{module}"))
    machine.file("/sys/module/nouveau/initstate", "live\n").pci(driver="nouveau")
    checked = machine.check()
    assert checked.causes == ["DRV005"]
    assert "DRV002" in checked.codes


@pytest.mark.parametrize("name", ["nvidiactl", "nvidia0", "nvidia-uvm"])
def test_a_missing_device_node_is_named(machine: Machine, name: str) -> None:
    machine.nodes(without=[name])
    checked = machine.check()
    assert checked.causes == ["DRV007"]
    assert f"/dev/{name}" in checked.finding("DRV007")["message"]


@needs_overlay
def test_nvml_that_answers_without_nvidia_uvm_explains_cuinit_999(machine: Machine) -> None:
    machine.nodes(without=["nvidia-uvm"]).user_libraries("550.54.14", cuda=999)
    checked = check_inside(machine, "--quick")
    assert checked.causes == ["DRV007"]
    assert "DRV010" in checked.codes


@needs_overlay
def test_a_driver_that_answers_outranks_missing_nodes_and_an_empty_bus(machine: Machine) -> None:
    """A sandbox or WSL2: nothing in /dev, /proc or /sys, and the driver works."""
    for path in ("/dev", "/proc/driver", "/sys/bus/pci/devices"):
        shutil.rmtree(machine.path(path))
        machine.path(path).mkdir()
    assert check_inside(machine, "--quick").codes == []


@needs_overlay
def test_nodes_that_this_user_may_not_open_are_named_and_root_may(machine: Machine) -> None:
    machine.nodes(mode=0o060).user_libraries("550.54.14", nvml=4, cuda=100)
    checked = check_inside(machine, "--quick", capabilities=False)
    assert checked.causes == ["DRV008"]
    assert "DRV008" not in check_inside(machine, "--quick").codes


@needs_overlay
@pytest.mark.parametrize(
    ("code", "condition"),
    [(100, "DRV009"), (999, "DRV010"), (802, "DRV013"), (803, "DRV012"), (804, "DRV012")],
)
def test_cuinit_errors_with_no_better_cause_have_their_own_condition(
    machine: Machine, code: int, condition: str
) -> None:
    machine.user_libraries("550.54.14", cuda=code)
    checked = check_inside(machine, "--quick")
    assert checked.causes == [condition]
    assert str(code) in checked.finding(condition)["evidence"][0]["value"]


@needs_overlay
@pytest.mark.parametrize("library", ["nvml", "cuda"])
@pytest.mark.parametrize(("behaviour", "says"), [(HANG, "no answer"), (CRASH, "SIGSEGV")])
def test_a_driver_that_hangs_or_crashes_is_unresponsive(
    machine: Machine, library: str, behaviour: str, says: str
) -> None:
    if library == "nvml":
        machine.user_libraries("550.54.14", nvml=behaviour)
    else:
        machine.user_libraries("550.54.14", cuda=behaviour)
    checked = check_inside(machine, "--quick")
    assert checked.causes == ["DRV014"]
    assert says in checked.finding("DRV014")["message"]


@needs_overlay
def test_nvml_without_libcuda_is_half_a_driver(machine: Machine) -> None:
    for name in ("libcuda.so.1", "libcuda.so.550.54.14"):
        machine.path(f"{LIBRARIES}/{name}").unlink()
    checked = check_inside(machine, "--quick")
    assert checked.causes == ["DRV001"]
    assert "dpkg -S" in checked.finding("DRV001")["remedy"]


def test_no_driver_and_missing_libraries_both_lead(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("ubuntu", "24.04").venv().tensorflow()
    machine.nvidia_wheels(without=["cufft"]).pci([RTX_4090], driver="")
    machine.link(
        f"{machine.site_packages}/nvidia/cusparse/lib/libcusolver.so.11",
        "../../cusolver/lib/libcusolver.so.11",
    )
    assert machine.check().causes == ["DRV001", "LIB001"]
