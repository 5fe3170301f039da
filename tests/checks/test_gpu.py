"""GPU conditions and their healthy twins."""

from __future__ import annotations

from pathlib import Path

import pytest

from envdoctor.checks.gpu import lowest_capability, visible_devices
from envdoctor.facts.model import Gpu, Unavailable
from tests.conftest import needs_overlay, workstation
from tests.machines.drivers import GTX_1080, H100, RTX_4090, TESLA_K80
from tests.machines.machine import Machine
from tests.machines.overlay import check_inside


@needs_overlay
@pytest.mark.parametrize("value", ["", "-1", "1", "7,0", "GPU-ffff", "nonsense"])
def test_a_mask_that_names_no_gpu_hides_it(machine: Machine, value: str) -> None:
    machine.export(CUDA_VISIBLE_DEVICES=value)
    checked = check_inside(machine, "--quick")
    assert checked.causes == ["GPU002"]
    assert checked.finding("GPU002")["remedy"] == "unset CUDA_VISIBLE_DEVICES"
    assert repr(value) in checked.finding("GPU002")["message"]


@needs_overlay
@pytest.mark.parametrize("value", ["0", "0,1", "0,-1"])
def test_a_mask_that_leaves_a_gpu_is_what_its_author_wanted(machine: Machine, value: str) -> None:
    machine.export(CUDA_VISIBLE_DEVICES=value)
    assert check_inside(machine, "--quick").codes == []


def test_a_mask_where_there_is_no_gpu_is_no_finding(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("debian", "12").venv().tensorflow().export(CUDA_VISIBLE_DEVICES="-1")
    assert machine.check().codes == ["GPU001"]


@needs_overlay
def test_a_gpu_below_the_builds_lowest_capability_is_too_old(tmp_path: Path) -> None:
    checked = check_inside(workstation(tmp_path / "m", gpus=(TESLA_K80,)), "--quick")
    assert checked.causes == ["GPU003"]
    assert "3.7" in checked.finding("GPU003")["message"]
    assert "6.0" in checked.finding("GPU003")["message"]


@needs_overlay
def test_an_old_gpu_beside_a_good_one_is_a_warning(tmp_path: Path) -> None:
    checked = check_inside(workstation(tmp_path / "m", gpus=(RTX_4090, TESLA_K80)), "--quick")
    assert (checked.status, checked.finding("GPU003")["severity"]) == (0, "warning")
    assert checked.report["verdicts"][0]["gpu"] == "usable"


@needs_overlay
def test_the_lowest_capability_itself_is_new_enough(tmp_path: Path) -> None:
    assert check_inside(workstation(tmp_path / "m", gpus=(GTX_1080,)), "--quick").codes == []


@needs_overlay
def test_one_lost_gpu_does_not_hide_the_other(tmp_path: Path) -> None:
    checked = check_inside(workstation(tmp_path / "m", gpus=(RTX_4090.lost, H100)), "--quick")
    found = checked.report["facts"]["driver"]["nvml"]["gpus"]
    assert [g["is"] for g in found] == ["unavailable", "gpu"]
    assert "lost" in found[0]["reason"].lower()


def gpu(index: int, uuid: str) -> Gpu:
    missing = Unavailable("not asked")
    return Gpu(
        index=index,
        uuid=uuid,
        name="GPU",
        pci_address="",
        compute_capability=missing,
        memory_bytes=missing,
        memory_used_bytes=missing,
    )


HERE = (gpu(0, "GPU-aaaa1111"), gpu(1, "GPU-bbbb2222"))


@pytest.mark.parametrize(
    ("value", "visible", "bad"),
    [
        ("0,1", [0, 1], ""),
        ("1, 0", [1, 0], ""),
        ("0,5,1", [0], "5"),  # all after the first bad entry are hidden too
        ("GPU-bbbb", [1], ""),
        ("GPU-", [], "GPU-"),  # fits two
        ("0,0", [0], "0"),
        ("", [], ""),
    ],
)
def test_masks_are_read_from_the_left_up_to_the_first_bad_entry(
    value: str, visible: list[int], bad: str
) -> None:
    found, ended_by = visible_devices(value, HERE)
    assert ([g.index for g in found], ended_by) == (visible, bad)


@pytest.mark.parametrize(
    ("capabilities", "lowest"),
    [(("sm_60", "compute_90"), "6.0"), (("sm_100", "sm_90a"), "9.0"), (("compute_120",), "12.0"), ((), "0")],
)
def test_the_lowest_capability_of_a_build(capabilities: tuple[str, ...], lowest: str) -> None:
    assert lowest_capability(capabilities) == lowest
