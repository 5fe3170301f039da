"""GPU conditions and their healthy twins."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envdoctor.checks.gpu import lowest_capability
from envdoctor.checks.visible_devices import Device, read_mask
from tests.conftest import needs_overlay, workstation
from tests.machines.drivers import GTX_1080, H100, RTX_4090, RTX_5090, TESLA_K80
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


HERE = (
    Device("GPU-aaaa1111"),
    Device("GPU-bbbb2222"),
    Device("GPU-cccc3333", ("MIG-5555", "MIG-6666")),
)


@pytest.mark.parametrize(
    ("value", "visible", "bad"),
    [
        ("0,1", [0, 1], None),
        ("1, 0", [1, 0], None),
        (" 1", [1], None),
        ("0 ,1", [0, 1], None),
        ("+1,-0", [1, 0], None),
        ("1gpu2,0x", [1, 0], None),
        ("0,5,1", [0], "5"),  # all after the first bad entry are hidden too
        ("0,2,-1,1", [0, 2], "-1"),
        ("0,", [0], ""),
        (",0", [], ""),
        ("'0'", [], "'0'"),
        ("[0]", [], "[0]"),
        ("0,0", [], "0"),  # named twice: nothing at all
        ("0,1,0", [], "0"),
        ("0,GPU-bbbb", [0], "GPU-bbbb"),  # the first entry decides the kind
        ("GPU-bbbb,0", [1], "0"),
        ("GPU-bbbb", [1], None),
        ("GPU-bbbb,GPU-aaaa1111", [1, 0], None),
        ("GPU-bbbb, GPU-aaaa1111", [1], " GPU-aaaa1111"),
        ("GPU-", [], "GPU-"),  # fits three
        ("GPU-bbbb,GPU-bbbb2222", [], "GPU-bbbb2222"),
        ("gpu-bbbb", [], "gpu-bbbb"),
        ("MIG-5", [2], None),
        ("MIG-", [], "MIG-"),
        ("MIG-GPU-cccc3333/1/0", [2], None),
        ("MIG-7777", [], "MIG-7777"),
        ("", [], ""),
        ("NoDevFiles", [], "NoDevFiles"),
        pytest.param("9" * 5000, [], "9" * 5000, id="5000 digits"),
    ],
)
def test_a_mask_is_read_as_cuda_reads_it(value: str, visible: list[int], bad: str | None) -> None:
    mask = read_mask(value, HERE)
    assert (list(mask.visible), mask.bad) == (visible, bad)


@given(st.text(alphabet=st.sampled_from("0123456789,-+ GPUMI/xé\0\udcff٣")) | st.text())
def test_no_mask_is_too_odd_to_be_read(value: str) -> None:
    mask = read_mask(value, HERE)
    assert len(set(mask.visible)) == len(mask.visible)
    assert set(mask.visible) <= {0, 1, 2}


@needs_overlay
@pytest.mark.parametrize(
    "value",
    ["0,1", "1, 0", "+1,-0", "0,5,1", "0,", "0,0", "GPU-0", "GPU-00000000-0000-4000-8000-000000000001", "x"],
)
def test_the_simulated_driver_reads_masks_as_the_check_does(tmp_path: Path, value: str) -> None:
    """Both are written from the same sources; the check must at least agree with what its machines do."""
    machine = workstation(tmp_path / "m", gpus=(RTX_4090, H100)).export(CUDA_VISIBLE_DEVICES=value)
    facts = check_inside(machine, "--quick").report["facts"]["driver"]
    devices = tuple(Device(g["uuid"]) for g in facts["nvml"]["gpus"])
    names = [facts["nvml"]["gpus"][i]["name"] for i in read_mask(value, devices).visible]
    assert [d["name"] for d in facts["cuda"].get("devices", [])] == names


@needs_overlay
@pytest.mark.parametrize("value", ["0,7,1", "0,,1", "0,-1,1", "0 1"])
def test_a_bad_entry_that_cuts_off_good_ones_is_a_warning(tmp_path: Path, value: str) -> None:
    machine = workstation(tmp_path / "m", gpus=(RTX_4090, RTX_4090)).export(CUDA_VISIBLE_DEVICES=value)
    checked = check_inside(machine, "--quick")
    assert checked.status == 0
    found = [f["severity"] for f in checked.report["findings"]]
    assert found == ([] if value == "0 1" else ["warning"])  # strtol reads "0 1" as 0


@needs_overlay
def test_a_gpu_named_twice_hides_all_and_the_message_says_so(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m", gpus=(RTX_4090, RTX_4090)).export(CUDA_VISIBLE_DEVICES="0,0")
    checked = check_inside(machine, "--quick")
    assert checked.causes == ["GPU002"]
    assert "second time" in checked.finding("GPU002")["message"]


@needs_overlay
def test_the_scheduler_that_gave_no_gpu_is_asked_for_one(machine: Machine) -> None:
    machine.export(CUDA_VISIBLE_DEVICES="NoDevFiles", SLURM_JOB_ID="4711")
    assert "srun" in check_inside(machine, "--quick").finding("GPU002")["remedy"]


@pytest.mark.parametrize(("value", "codes"), [("1", ["GPU002"]), ("", ["GPU002"]), ("0", []), ("GPU-12", [])])
def test_below_a_root_the_bus_tells_how_many_gpus_a_mask_can_name(
    machine: Machine, value: str, codes: list[str]
) -> None:
    assert machine.export(CUDA_VISIBLE_DEVICES=value).check().codes == codes


@pytest.mark.parametrize("value", ["none", "void", ""])
def test_a_container_started_without_a_gpu_is_told_by_its_variable(machine: Machine, value: str) -> None:
    machine.file("/.dockerenv").export(NVIDIA_VISIBLE_DEVICES=value)
    assert "GPU002" in machine.check().codes
    assert "--gpus all" in machine.check().finding("GPU002")["remedy"]


def test_outside_a_container_its_variable_means_nothing(machine: Machine) -> None:
    assert machine.export(NVIDIA_VISIBLE_DEVICES="none").check().codes == []


# --- what the build has code for --------------------------------------------------------------------

BLACKWELL_DRIVER = {"version": "580.95.05", "supports": "13.0"}


@needs_overlay
def test_blackwell_under_the_wheels_of_tensorflow_is_too_new(tmp_path: Path) -> None:
    checked = check_inside(workstation(tmp_path / "m", gpus=(RTX_5090,), **BLACKWELL_DRIVER), "--quick")
    assert checked.causes == ["GPU005"]
    assert "12.0" in checked.finding("GPU005")["message"]


@needs_overlay
def test_blackwell_beside_an_older_gpu_is_a_warning(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m", gpus=(RTX_4090, RTX_5090), **BLACKWELL_DRIVER)
    checked = check_inside(machine, "--quick")
    assert (checked.status, checked.finding("GPU005")["severity"]) == (0, "warning")


@needs_overlay
def test_a_new_gpu_that_the_mask_leaves_out_is_no_finding(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m", gpus=(RTX_4090, RTX_5090), **BLACKWELL_DRIVER)
    assert check_inside(machine.export(CUDA_VISIBLE_DEVICES="0"), "--quick").codes == []


@needs_overlay
def test_a_build_that_has_blackwell_runs_on_it(tmp_path: Path) -> None:
    machine = rebuilt(workstation(tmp_path / "m", gpus=(RTX_5090,), **BLACKWELL_DRIVER), "sm_90", "sm_120")
    assert check_inside(machine, "--quick").codes == []


def rebuilt(machine: Machine, *capabilities: str) -> Machine:
    """The same TensorFlow, built for other architectures."""
    path = f"{machine.site_packages}/tensorflow/python/platform/build_info.py"
    values = {"is_cuda_build": True, "cuda_version": "12.5.1", "cudnn_version": "9"}
    return machine.file(
        path, f"build_info = {values | {'cuda_compute_capabilities': list(capabilities)}!r}\n"
    )


def ada_by_ptx(tmp_path: Path, supports: str = "12.6") -> Machine:
    """A GPU newer than what was built for, reached through PTX alone."""
    machine = workstation(tmp_path / "m", version="560.35.03", supports=supports, gpus=(H100,))
    return rebuilt(machine, "sm_70", "compute_80")


@needs_overlay
def test_a_gpu_reached_by_ptx_alone_is_compiled_for_at_first_use(tmp_path: Path) -> None:
    checked = check_inside(ada_by_ptx(tmp_path), "--quick")
    assert (checked.status, checked.causes) == (0, ["GPU004"])
    assert checked.finding("GPU004")["remedy"].startswith("export CUDA_CACHE_MAXSIZE=4294967296")


@needs_overlay
def test_a_disabled_cache_makes_every_start_compile_and_is_told(tmp_path: Path) -> None:
    machine = ada_by_ptx(tmp_path).export(CUDA_CACHE_DISABLE="1")
    finding = check_inside(machine, "--quick").finding("GPU004")
    assert finding["remedy"].startswith("unset CUDA_CACHE_DISABLE; ")
    assert "CUDA_CACHE_DISABLE" in [e["what"] for e in finding["evidence"]]


@needs_overlay
def test_ptx_that_may_not_be_compiled_leaves_nothing(tmp_path: Path) -> None:
    checked = check_inside(ada_by_ptx(tmp_path).export(CUDA_DISABLE_PTX_JIT="1"), "--quick")
    assert checked.causes[0] == "GPU005"
    assert checked.finding("GPU005")["remedy"] == "unset CUDA_DISABLE_PTX_JIT"


@needs_overlay
def test_ptx_newer_than_the_driver_leaves_nothing(tmp_path: Path) -> None:
    checked = check_inside(ada_by_ptx(tmp_path, supports="12.4"), "--quick")
    assert checked.causes == ["GPU005"]
    assert "12.4" in checked.finding("GPU005")["message"]
    assert "555.42.02 or newer" in checked.finding("GPU005")["remedy"]


@needs_overlay
def test_a_build_without_ptx_between_two_architectures_has_nothing_for_a_gpu(tmp_path: Path) -> None:
    machine = rebuilt(workstation(tmp_path / "m"), "sm_75", "sm_90")
    assert check_inside(machine, "--quick").causes == ["GPU005"]


@pytest.mark.parametrize(
    ("capabilities", "lowest"),
    [(("sm_60", "compute_90"), "6.0"), (("sm_100", "sm_90a"), "9.0"), (("compute_120",), "12.0"), ((), "0")],
)
def test_the_lowest_capability_of_a_build(capabilities: tuple[str, ...], lowest: str) -> None:
    assert lowest_capability(capabilities) == lowest
