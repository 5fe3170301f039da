"""Machines with nothing wrong: not one finding, and no doubt."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import needs_overlay, workstation
from tests.machines.drivers import H100, RTX_4090
from tests.machines.machine import Machine
from tests.machines.overlay import check_inside


def test_a_healthy_workstation_below_a_root_is_silent(machine: Machine) -> None:
    checked = machine.check()
    assert (checked.status, checked.codes) == (0, [])
    assert checked.report["verdicts"][0]["gpu"] == "usable"
    assert not checked.report["verdicts"][0]["tried"]


@needs_overlay
def test_a_healthy_workstation_whose_driver_is_asked_is_silent(machine: Machine) -> None:
    checked = check_inside(machine, "--quick")
    assert (checked.status, checked.codes) == (0, [])
    assert checked.report["facts"]["driver"]["nvml"]["driver_version"] == "550.54.14"
    assert checked.report["facts"]["driver"]["cuda"]["simulated"] is True


@needs_overlay
def test_two_gpus_and_a_driver_newer_than_every_need_are_silent(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m", version="580.95.05", supports="13.0", gpus=(RTX_4090, H100))
    assert check_inside(machine, "--quick").codes == []


def test_a_machine_without_a_gpu_has_one_note_and_no_error(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("debian", "12").cpus(4).venv().tensorflow().nvidia_wheels()
    checked = machine.check()
    assert (checked.status, checked.codes) == (0, ["GPU001"])
    assert checked.report["verdicts"][0]["gpu"] == "absent"


def test_a_cpu_build_on_a_machine_without_a_gpu_is_no_finding(tmp_path: Path) -> None:
    machine = (
        Machine(tmp_path / "m").os("debian", "12").venv().tensorflow(distribution="tensorflow-cpu", cuda="")
    )
    assert machine.check().codes == ["GPU001"]


def no_alarm(machine: Machine) -> None:
    """No error and no warning; notes may stand."""
    checked = machine.check()
    loud = [f for f in checked.report["findings"] if f["severity"] != "note"]
    assert (checked.status, loud) == (0, [])
