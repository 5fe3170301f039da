"""GPUs that are held, faulty, slow, or set so that this process may not have them; healthy twins."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_overlay, workstation
from tests.machines.drivers import (
    EXCLUSIVE,
    GIB,
    GT_1030,
    H100,
    HW_SLOWDOWN,
    HW_THERMAL,
    IDLE,
    NONE,
    PASSTHROUGH,
    POWER_BRAKE,
    POWER_CAP,
    PROHIBITED,
    RTX_4090,
    SW_THERMAL,
    TESLA_V100,
    VGPU,
    Pcie,
    SimulatedGpu,
    SimulatedProcess,
    driver_libraries,
)
from tests.machines.machine import LIBRARIES, Checked, Machine
from tests.machines.overlay import check_inside


def checked_with(tmp_path: Path, *gpus: SimulatedGpu, **environment: str) -> Checked:
    """The workstation with these GPUs, its simulated driver asked."""
    return check_inside(workstation(tmp_path / "m", gpus=gpus).export(**environment), "--quick")


def gpu(**state: Any) -> SimulatedGpu:
    return replace(RTX_4090, **state)


def statuses(checked: Checked) -> dict[str, str]:
    return {c["code"]: c["status"] for c in checked.report["checks"]}


# --- healthy machines -------------------------------------------------------------------------------

MIG_UUID = "MIG-c7384736-a75d-5afc-978f-d2f1294409fd"
LAPTOP = gpu(name="NVIDIA GeForce RTX 4060 Laptop GPU", pcie=Pcie((8, 1), (16, 4), (8, 4)))
HEALTHY = {
    "two GPUs": (RTX_4090, RTX_4090),
    "an idle laptop, its link asleep at generation 1 in a slot of eight lanes": (LAPTOP,),
    "MIG with an instance": (replace(H100, mig=1, instances=(MIG_UUID,)),),
    "a data centre GPU with no memory error": (H100,),
    "an old data centre GPU with no page retired": (TESLA_V100,),
    "a GPU that supports no question": (replace(RTX_4090, limited=True),),
    "a desktop, its display server and browser on the GPU": (
        gpu(used=3 * GIB, processes=(SimulatedProcess(1, 300 << 20, graphics=True),)),
    ),
    "full load at the power cap": (gpu(utilization=100, slowdown=POWER_CAP, temperature=78),),
    "a small training run of one's own beside": (
        gpu(used=6 * GIB, utilization=90, slowdown=0, processes=(SimulatedProcess(1, 5 * GIB),)),
    ),
    "power brake at idle": (gpu(slowdown=IDLE | POWER_BRAKE),),
    "passed through to a virtual machine, whose port is made up": (
        gpu(virtualization=PASSTHROUGH, utilization=90, slowdown=0, pcie=Pcie((8, 3), (16, 4), (32, 5))),
    ),
    "no port to be seen above": (gpu(pcie=Pcie((4, 1), (16, 4), (0, 0))),),
    "a link that is down, as the kernel writes it": (gpu(pcie=Pcie((255, 0), (16, 4), (16, 4))),),
    "a vGPU with all features": (gpu(virtualization=VGPU, virtual_memory=True),),
    "the only GPU is small": (GT_1030,),
}


@needs_overlay
@pytest.mark.parametrize("kind", HEALTHY)
def test_healthy_machines_are_silent(tmp_path: Path, kind: str) -> None:
    checked = checked_with(tmp_path, *HEALTHY[kind])
    assert (checked.status, checked.codes) == (0, [])


@needs_overlay
def test_a_driver_that_supports_no_question_passes_no_check(tmp_path: Path) -> None:
    found = statuses(checked_with(tmp_path, replace(RTX_4090, limited=True)))
    assert {found[f"GPU{n:03}"] for n in (6, 8, 10, 11, 12, 14)} <= {"skip", "unknown"}


# --- GPU006 -----------------------------------------------------------------------------------------


@pytest.fixture
def training() -> Iterator[int]:
    """A process of this machine, under a name of its own, to be held against by its number."""
    script = "import sys, time; print(flush=True); time.sleep(60)"
    with subprocess.Popen(
        ["/usr/bin/env", "python3", "-c", script, "--password=secret"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        yield process.pid
        process.kill()


@needs_overlay
def test_memory_held_by_another_training_run_is_told_with_who_and_since_when(
    tmp_path: Path, training: int
) -> None:
    held = gpu(used=22 * GIB, processes=(SimulatedProcess(training, 21 * GIB),))
    checked = checked_with(tmp_path, held)
    assert checked.causes == ["GPU006"]
    finding = checked.finding("GPU006")
    assert str(training) in finding["message"]
    assert "22.0 GiB of 24.0 GiB" in finding["message"]
    who = next(e["value"] for e in finding["evidence"] if str(training) in e["what"])
    assert "21.0 GiB" in who
    assert "since 20" in who
    assert "python" in who
    assert "secret" not in str(checked.report)
    assert finding["remedy"].startswith(f"kill {training}")


@needs_overlay
def test_where_another_gpu_has_room_it_is_proposed(tmp_path: Path, training: int) -> None:
    held = gpu(used=22 * GIB, processes=(SimulatedProcess(training, 21 * GIB),))
    finding = checked_with(tmp_path, held, RTX_4090).finding("GPU006")
    assert finding["remedy"] == "export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=1"


@needs_overlay
def test_a_held_gpu_that_the_mask_leaves_out_is_no_finding(tmp_path: Path, training: int) -> None:
    held = gpu(used=22 * GIB, processes=(SimulatedProcess(training, 21 * GIB),))
    assert checked_with(tmp_path, held, RTX_4090, CUDA_VISIBLE_DEVICES="1").codes == []


@needs_overlay
def test_memory_held_by_who_cannot_be_seen_is_told_too(tmp_path: Path) -> None:
    checked = checked_with(tmp_path, gpu(used=23 * GIB))
    assert checked.causes == ["GPU006"]
    assert "cannot see" in checked.finding("GPU006")["message"]
    assert "fuser" in checked.finding("GPU006")["remedy"]


@needs_overlay
def test_a_process_of_another_container_has_a_number_and_no_name(tmp_path: Path) -> None:
    checked = checked_with(tmp_path, gpu(used=20 * GIB, processes=(SimulatedProcess(4194303, 20 * GIB),)))
    assert "4194303 (not visible from here)" in checked.finding("GPU006")["message"]


# --- GPU007 -----------------------------------------------------------------------------------------

XID_79 = "NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."


@needs_overlay
def test_the_only_gpu_lost_is_an_error(tmp_path: Path) -> None:
    checked = checked_with(tmp_path, RTX_4090.lost)
    assert checked.causes == ["GPU007"]
    assert "GPU is lost" in checked.finding("GPU007")["message"]


@needs_overlay
def test_a_lost_gpu_beside_a_good_one_is_a_warning(tmp_path: Path) -> None:
    checked = checked_with(tmp_path, replace(RTX_4090, error=16), H100)
    assert (checked.status, checked.finding("GPU007")["severity"]) == (0, "warning")
    assert checked.report["verdicts"][0]["gpu"] == "usable"


@needs_overlay
def test_an_nvml_that_says_lost_at_once_is_a_fault_and_the_log_is_its_evidence(machine: Machine) -> None:
    machine.kernel_log(XID_79).user_libraries("550.54.14", nvml=15, cuda=999)
    checked = check_inside(machine, "--quick")
    assert checked.causes[0] == "GPU007"
    assert XID_79 in [e["value"] for e in checked.finding("GPU007")["evidence"]]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (XID_79, "Xid 79"),
        (
            "NVRM: Xid (PCI:0000:01:00): 48, pid=1234, name=python, An uncorrectable double bit error",
            "Xid 48",
        ),
        ("NVRM: Xid (PCI:0000:01:00): 62, pid=1234, 2f94(2c78) 00000000 00000000", "Xid 62"),
        (
            "NVRM: Xid (PCI:0000:01:00): 119, pid=99, name=python, Timeout waiting for RPC from GSP!",
            "Xid 119",
        ),
        ("NVRM: GPU 0000:01:00.0: GPU has fallen off the bus.", "fallen off the bus"),
        ("NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x26:0x56:1474)", "could not start"),
        ("NVRM: RmInitAdapter failed! (0x26:0xffff:1290)", "could not start"),
    ],
)
@pytest.mark.parametrize("path", ["/var/log/kern.log", "/var/log/messages"])
def test_faults_in_the_kernel_log_are_named(machine: Machine, line: str, says: str, path: str) -> None:
    checked = machine.kernel_log("nvidia: loading", line, path=path).check()
    assert checked.causes == ["GPU007"]
    assert says in checked.finding("GPU007")["message"]
    assert checked.finding("GPU007")["evidence"][0]["source"].endswith(path)


@pytest.mark.parametrize(
    "line",
    [
        "NVRM: Xid (PCI:0000:01:00): 13, pid=1234, name=python, Graphics Exception: ESR 0x404600=0x80000002",
        "NVRM: Xid (PCI:0000:01:00): 31, pid=1234, name=python, Ch 00000008, intr 00000000. MMU Fault",
        "NVRM: Xid (PCI:0000:01:00): 43, pid=1234, name=python, Ch 00000008",
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.14",
        "usb 1-1: device fallen off the bus",
        "NVRM: Xid (PCI:",
    ],
)
def test_what_programs_did_and_other_lines_are_no_fault(machine: Machine, line: str) -> None:
    assert machine.kernel_log(line).check().codes == []


def test_a_fault_before_the_last_boot_is_over(machine: Machine) -> None:
    machine.kernel_log(XID_79)
    log = machine.path("/var/log/kern.log")
    boot = "Nov 22 09:00:00 ws-14 kernel: [    0.000000] Linux version 6.8.0-45-generic (gcc)\n"
    log.write_text(log.read_text() + boot)
    assert machine.check().codes == []


@needs_overlay
def test_a_fault_in_the_log_of_a_gpu_that_computes_again_is_a_warning(machine: Machine) -> None:
    checked = check_inside(machine.kernel_log(XID_79), "--quick")
    assert (checked.status, checked.causes) == (0, ["GPU007"])
    assert checked.finding("GPU007")["severity"] == "warning"


@needs_overlay
def test_a_containers_view_of_the_hosts_log_leaves_out_the_hosts_other_gpus(machine: Machine) -> None:
    machine.file("/.dockerenv").kernel_log(XID_79.replace("01:00", "c1:00"))
    assert "GPU007" not in check_inside(machine, "--quick").codes


@needs_overlay
def test_the_kernels_own_log_comes_before_the_files(machine: Machine) -> None:
    machine.file("/dev/kmsg", f"3,1021,98765,-;{XID_79}\n SUBSYSTEM=pci\n").kernel_log(XID_79)
    finding = check_inside(machine, "--quick").finding("GPU007")
    assert finding["evidence"][0] == {
        "what": "kernel log",
        "value": XID_79,
        "source": "sudo dmesg | grep -E 'NVRM: (Xid|.*RmInitAdapter|.*fallen off)'",
    }


def test_a_log_of_many_megabytes_is_read_at_its_end(machine: Machine) -> None:
    filler = "Nov 22 03:48:00 ws-14 kernel: [ 1.0] usb 1-1: reset high-speed USB device number 2\n" * 200_000
    machine.kernel_log(XID_79)
    log = machine.path("/var/log/kern.log")
    line = log.read_text().splitlines()[-1]
    log.write_text(filler + line + "\n\0\udcff".encode("utf-8", "replace").decode())
    assert machine.check().causes == ["GPU007"]


# --- GPU008, GPU009 ---------------------------------------------------------------------------------


@needs_overlay
@pytest.mark.parametrize(
    ("bits", "says", "remedy"),
    [
        (HW_THERMAL | HW_SLOWDOWN, "hardware thermal slowdown", "fan"),
        (SW_THERMAL, "software thermal slowdown", "fan"),
        (POWER_BRAKE | POWER_CAP, "power brake", "power plugs"),
        (HW_SLOWDOWN, "hardware slowdown", "power plugs"),
    ],
)
def test_heat_and_power_that_slow_the_gpu_down(tmp_path: Path, bits: int, says: str, remedy: str) -> None:
    checked = checked_with(tmp_path, gpu(slowdown=bits, utilization=98, temperature=93))
    assert (checked.status, checked.causes) == (0, ["GPU008"])
    assert says in checked.finding("GPU008")["message"]
    assert "93 °C" in checked.finding("GPU008")["message"]
    assert remedy in checked.finding("GPU008")["remedy"]


@pytest.mark.parametrize("lanes", [1, 4, 8])
def test_a_link_of_fewer_lanes_than_both_ends_have_is_seen_at_any_time(tmp_path: Path, lanes: int) -> None:
    checked = workstation(tmp_path / "m", gpus=(gpu(pcie=Pcie((lanes, 1))),)).check()
    assert (checked.status, checked.causes) == (0, ["GPU009"])
    assert f"x{lanes} instead of x16" in checked.finding("GPU009")["message"]
    assert "generation 1 instead" not in checked.finding("GPU009")["message"]


@needs_overlay
def test_a_link_of_a_lower_generation_is_degraded_only_under_load(tmp_path: Path) -> None:
    slow = Pcie((16, 1), (16, 4), (16, 4))
    checked = checked_with(tmp_path, gpu(utilization=95, slowdown=0, pcie=slow))
    assert checked.causes == ["GPU009"]
    assert "generation 1 instead of 4, under load" in checked.finding("GPU009")["message"]
    assert checked_with(tmp_path / "idle", gpu(pcie=slow)).codes == []


@needs_overlay
def test_a_port_that_can_no_more_is_no_degradation(tmp_path: Path) -> None:
    busy = gpu(utilization=95, slowdown=0, pcie=Pcie((8, 3), (16, 4), (8, 3)))
    assert checked_with(tmp_path, busy).codes == []


# --- GPU010 -----------------------------------------------------------------------------------------


@needs_overlay
@pytest.mark.parametrize(
    ("state", "says", "remedy"),
    [
        ({"ecc": (3, 3)}, "3 uncorrectable ECC errors since the driver was loaded", "bug-report"),
        ({"remapped": (1, 1, 0)}, "remapping is pending", "--gpu-reset"),
        ({"remapped": (8, 0, 1)}, "no spare row is left", "bug-report"),
        ({"remapped": (NONE, 0, 0), "retired": (2, 1)}, "page retirement is pending", "--gpu-reset"),
    ],
)
def test_memory_errors_of_now(tmp_path: Path, state: dict[str, Any], says: str, remedy: str) -> None:
    checked = checked_with(tmp_path, replace(H100, **state))
    assert (checked.status, checked.causes) == (0, ["GPU010"])
    assert says in checked.finding("GPU010")["message"]
    assert checked.finding("GPU010")["severity"] == "warning"
    assert remedy in checked.finding("GPU010")["remedy"]


@needs_overlay
@pytest.mark.parametrize("state", [{"ecc": (0, 5)}, {"remapped": (2, 0, 0)}, {"retired": (3, 0)}])
def test_memory_errors_that_were_repaired_are_a_note(tmp_path: Path, state: dict[str, Any]) -> None:
    checked = checked_with(tmp_path, replace(H100, **state))
    assert checked.finding("GPU010")["severity"] == "note"


# --- GPU011 to GPU016 -------------------------------------------------------------------------------


@needs_overlay
def test_mig_without_an_instance_leaves_nothing_to_compute_on(tmp_path: Path) -> None:
    checked = checked_with(tmp_path, replace(H100, mig=1))
    assert checked.causes == ["GPU011"]
    assert "-mig 0" in checked.finding("GPU011")["remedy"]


@needs_overlay
def test_mig_without_an_instance_beside_a_whole_gpu_is_a_warning(tmp_path: Path) -> None:
    checked = checked_with(tmp_path, replace(H100, mig=1), H100)
    assert (checked.status, checked.finding("GPU011")["severity"]) == (0, "warning")


@needs_overlay
@pytest.mark.parametrize(("mask", "codes"), [(MIG_UUID, []), (MIG_UUID[:8], []), ("MIG-0", ["GPU002"])])
def test_a_mask_may_name_a_mig_device(tmp_path: Path, mask: str, codes: list[str]) -> None:
    gpus = replace(H100, mig=1, instances=(MIG_UUID,))
    assert checked_with(tmp_path, gpus, CUDA_VISIBLE_DEVICES=mask).causes == codes


@needs_overlay
def test_prohibited_compute_mode_keeps_every_process_out(tmp_path: Path) -> None:
    checked = checked_with(tmp_path, gpu(compute_mode=PROHIBITED))
    assert (checked.status, checked.causes) == (1, ["GPU012"])
    assert "-c DEFAULT" in checked.finding("GPU012")["remedy"]


@needs_overlay
def test_prohibited_compute_mode_of_one_of_two_is_a_warning(tmp_path: Path) -> None:
    checked = checked_with(tmp_path, gpu(compute_mode=PROHIBITED), RTX_4090)
    assert (checked.status, checked.finding("GPU012")["severity"]) == (0, "warning")


@needs_overlay
def test_exclusive_mode_with_somebody_inside_lets_no_other_in(tmp_path: Path) -> None:
    taken = gpu(compute_mode=EXCLUSIVE, used=2 * GIB, processes=(SimulatedProcess(os.getpid(), GIB),))
    checked = checked_with(tmp_path, taken)
    assert checked.causes == ["GPU012"]
    assert checked.finding("GPU012")["severity"] == "warning"
    assert str(os.getpid()) in checked.finding("GPU012")["message"]


@needs_overlay
def test_exclusive_mode_with_nobody_inside_is_a_note(tmp_path: Path) -> None:
    checked = checked_with(tmp_path, gpu(compute_mode=EXCLUSIVE))
    assert (checked.status, checked.finding("GPU012")["severity"]) == (0, "note")


@needs_overlay
def test_a_display_card_that_tensorflow_leaves_alone_is_a_note(tmp_path: Path) -> None:
    checked = checked_with(tmp_path, RTX_4090, GT_1030)
    assert checked.finding("GPU013")["severity"] == "note"
    assert checked.finding("GPU013")["remedy"] == "export TF_MIN_GPU_MULTIPROCESSOR_COUNT=3"


@needs_overlay
@pytest.mark.parametrize(("gpus", "severity"), [((RTX_4090,), "error"), ((RTX_4090, H100), "warning")])
def test_a_minimum_of_multiprocessors_that_is_set_too_high(
    tmp_path: Path, gpus: tuple[SimulatedGpu, ...], severity: str
) -> None:
    checked = checked_with(tmp_path, *gpus, TF_MIN_GPU_MULTIPROCESSOR_COUNT="130")
    assert checked.finding("GPU013")["severity"] == severity
    assert checked.finding("GPU013")["remedy"] == "unset TF_MIN_GPU_MULTIPROCESSOR_COUNT"


@needs_overlay
@pytest.mark.parametrize("value", ["", "0", "128"])
def test_a_minimum_of_multiprocessors_that_the_gpu_reaches(tmp_path: Path, value: str) -> None:
    assert "GPU013" not in checked_with(tmp_path, RTX_4090, TF_MIN_GPU_MULTIPROCESSOR_COUNT=value).codes


@needs_overlay
def test_a_vgpu_without_virtual_memory_is_noted_for_who_may_ask_for_it(tmp_path: Path) -> None:
    checked = checked_with(tmp_path, gpu(name="NVIDIA A16-2Q", virtualization=VGPU))
    assert checked.finding("GPU014")["severity"] == "note"


COUNTERS = "ResmanDebugLevel: 4294967295\nRmProfilingAdminOnly: {value}\nEnableMSI: 1\n"


@needs_overlay
@pytest.mark.parametrize(
    ("value", "profiler", "capabilities", "codes"),
    [
        ("1", True, False, ["GPU016"]),
        ("0", True, False, []),
        ("1", False, False, []),
        ("1", True, True, []),
    ],
)
def test_counters_kept_from_a_user_with_a_profiler_are_noted(
    machine: Machine, *, value: str, profiler: bool, capabilities: bool, codes: list[str]
) -> None:
    machine.file("/proc/driver/nvidia/params", COUNTERS.format(value=value))
    if profiler:
        machine.distribution("xprof", "2.21.0")
    checked = check_inside(machine, "--quick", capabilities=capabilities)
    assert [c for c in checked.codes if c == "GPU016"] == codes


@needs_overlay
def test_a_driver_older_than_the_questions_is_silent_and_leaves_no_doubt(machine: Machine) -> None:
    newer = ("nvmlDeviceGetMigMode", "nvmlDeviceGetVirtualizationMode", "nvmlDeviceGetRemappedRows")
    driver_libraries(machine.path(LIBRARIES), lacks=newer)
    checked = check_inside(machine, "--quick")
    assert (checked.status, checked.codes) == (0, [])
