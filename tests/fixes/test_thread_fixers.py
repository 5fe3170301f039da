"""Exports that are set where the user has set nothing: thread pools, and TensorFlow's small GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checks.test_threads import big
from tests.conftest import needs_overlay, workstation
from tests.fixes.test_library_fixers import applied, carried_out, entered, repairs
from tests.machines.drivers import GT_1030, RTX_4090
from tests.machines.machine import Machine


def values(machine: Machine, *options: str) -> dict[str, str]:
    found = repairs(machine, *options)
    assert {a["join"] for a in found} <= {"default"}
    return {a["variable"]: a["values"][0] for a in found}


def test_pools_get_as_many_threads_as_the_quota_lets_work(tmp_path: Path) -> None:
    machine = big(tmp_path / "m", quota=4)
    assert values(machine) == {
        "OPENBLAS_NUM_THREADS": "4",
        "OMP_NUM_THREADS": "4",
        "TF_NUM_INTRAOP_THREADS": "4",
        "TF_NUM_INTEROP_THREADS": "2",
    }
    assert carried_out(machine, repairs(machine)).check().codes == []
    assert repairs(machine) == []


def test_a_pool_that_the_user_has_limited_is_left_alone(tmp_path: Path) -> None:
    machine = big(tmp_path / "m", quota=2).export(OMP_NUM_THREADS="2")
    assert values(machine) == {"TF_NUM_INTRAOP_THREADS": "2", "TF_NUM_INTEROP_THREADS": "2"}
    assert carried_out(machine, repairs(machine)).check().codes == []


def test_a_number_that_the_user_has_set_is_not_overridden(tmp_path: Path) -> None:
    machine = big(tmp_path / "m", cores=4).export(TF_NUM_INTRAOP_THREADS="64")
    assert machine.check().causes == ["THR001"]
    assert repairs(machine) == []


def test_pools_that_fit_need_no_repair(tmp_path: Path) -> None:
    assert repairs(big(tmp_path / "m")) == []


def limited(root: Path, *, limit: int, used: int, cores: int = 64) -> Machine:
    machine = big(root, cores=cores)
    machine.file("/sys/fs/cgroup/user.slice/pids.max", f"{limit}\n")
    return machine.file("/sys/fs/cgroup/user.slice/pids.current", f"{used}\n")


def test_under_a_limit_of_threads_each_pool_gets_one(tmp_path: Path) -> None:
    machine = limited(tmp_path / "m", limit=100, used=60)
    assert set(values(machine).values()) == {"1"}
    assert carried_out(machine, repairs(machine)).check().codes == []


def test_pools_of_physical_cores_are_enough_where_there_is_room_for_them(tmp_path: Path) -> None:
    machine = big(tmp_path / "m", cores=8, threads=2)
    machine.file("/sys/fs/cgroup/user.slice/pids.max", "100\n")
    machine.file("/sys/fs/cgroup/user.slice/pids.current", "80\n")
    assert machine.check().causes == ["THR003"]
    assert values(machine)["TF_NUM_INTRAOP_THREADS"] == "8"
    assert carried_out(machine, repairs(machine)).check().codes == []


def test_no_number_is_small_enough_where_the_limit_is_reached(tmp_path: Path) -> None:
    machine = limited(tmp_path / "m", limit=60, used=60)
    assert machine.check().causes == ["THR003"]
    assert repairs(machine) == []


@pytest.fixture
def one_cpu() -> Iterator[list[str]]:
    """A command that starts another in a cgroup with a quota of one CPU."""
    for hierarchy in ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup"):
        group = Path(hierarchy, f"envdoctor-test-{os.getpid()}")
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / "cpu.cfs_quota_us").exists():
                (group / "cpu.cfs_quota_us").write_text("100000")
            elif (group / "cpu.max").exists():
                (group / "cpu.max").write_text("100000 100000")
            else:
                continue
            yield ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group)]
            return
        finally:
            group.rmdir()
    pytest.skip("no cgroup with a quota can be made here")


@needs_overlay
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU is no quota on one CPU")
def test_under_a_real_quota_the_numbers_are_written_and_reach_the_shell(
    tmp_path: Path, one_cpu: list[str]
) -> None:
    machine = workstation(tmp_path / "m").distribution("numpy", "2.1.3").export(OMP_NUM_THREADS="1")
    assert entered(machine, through=one_cpu).codes == ["THR001"]
    answer = applied(machine, through=one_cpu)
    assert (answer["changed"], answer["failed"]) == (True, False)
    after = entered(machine, through=one_cpu)
    assert after.codes == []
    assert after.report["facts"]["environment"]["TF_NUM_INTRAOP_THREADS"] == "1"
    assert entered(machine.export(TF_NUM_INTRAOP_THREADS="2"), through=one_cpu).codes == ["THR001"]


# --- GPU013 -----------------------------------------------------------------------------------------


@needs_overlay
def test_a_small_gpu_is_taken_only_when_that_is_asked_for(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m", gpus=(RTX_4090, GT_1030))
    assert applied(machine)["plan"] == []
    (export,) = applied(machine, "--only", "GPU013")["plan"]
    assert (export["variable"], export["values"]) == ("TF_MIN_GPU_MULTIPROCESSOR_COUNT", ["3"])
    assert entered(machine).codes == []
    machine.export(TF_MIN_GPU_MULTIPROCESSOR_COUNT="5")
    assert applied(machine, "--only", "GPU013")["plan"][0]["kind"] == "manual"
