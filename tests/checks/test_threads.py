"""Thread conditions on machines with many processors, quotas and limits, and their healthy twins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checks.test_healthy import no_alarm
from tests.conftest import workstation
from tests.machines.machine import Machine

LIMITED = {
    "OMP_NUM_THREADS": "2",
    "OPENBLAS_NUM_THREADS": "2",
    "TF_NUM_INTRAOP_THREADS": "2",
    "TF_NUM_INTEROP_THREADS": "2",
}


def big(root: Path, *, quota: float = 0, cores: int = 64, threads: int = 1) -> Machine:
    return workstation(root).cpus(cores, threads=threads, quota=quota).distribution("numpy", "2.1.3")


@pytest.mark.parametrize("quota", [2, 0.5, 8, 31.5])
def test_pools_of_64_threads_on_a_smaller_quota_are_oversubscription(tmp_path: Path, quota: float) -> None:
    checked = big(tmp_path / "m", quota=quota).check()
    finding = checked.finding("THR001")
    assert (checked.status, finding["severity"]) == (0, "warning")
    assert "OpenBLAS and TensorFlow will start 64 threads" in finding["message"]
    assert f"a quota of {quota:g} CPUs" in finding["message"]


def test_the_remedy_names_the_exports_that_fit_and_tells_intra_op_from_inter_op(tmp_path: Path) -> None:
    remedy = big(tmp_path / "m", quota=16, cores=32, threads=2).check().finding("THR001")["remedy"]
    assert remedy == (
        "export OPENBLAS_NUM_THREADS=16 OMP_NUM_THREADS=16 TF_NUM_INTRAOP_THREADS=16 TF_NUM_INTEROP_THREADS=2"
    )


def test_no_quota_lets_every_processor_work(tmp_path: Path) -> None:
    no_alarm(big(tmp_path / "m"))


def test_a_quota_of_nearly_all_processors_is_no_alarm(tmp_path: Path) -> None:
    no_alarm(big(tmp_path / "m", quota=48))


def test_limits_that_fit_the_quota_are_silent(tmp_path: Path) -> None:
    no_alarm(big(tmp_path / "m", quota=2).export(**LIMITED))


def test_a_limit_for_openmp_alone_does_not_limit_tensorflow(tmp_path: Path) -> None:
    finding = big(tmp_path / "m", quota=2).export(OMP_NUM_THREADS="2").check().finding("THR001")
    assert finding["subject"] == "TensorFlow"


def test_a_variable_that_asks_for_more_than_the_machine_has_is_oversubscription(tmp_path: Path) -> None:
    finding = big(tmp_path / "m", cores=4).export(TF_NUM_INTRAOP_THREADS="64").check().finding("THR001")
    assert finding["subject"] == "TensorFlow"
    assert "64 threads on 4 CPUs" in finding["message"]


def test_a_cgroup_without_room_for_the_pools_is_a_thread_limit(tmp_path: Path) -> None:
    machine = big(tmp_path / "m")
    machine.file("/sys/fs/cgroup/user.slice/pids.max", "100\n").file(
        "/sys/fs/cgroup/user.slice/pids.current", "60\n"
    )
    checked = machine.check()
    assert checked.causes == ["THR003"]
    assert "room for 40 more threads" in checked.finding("THR003")["message"]


@pytest.mark.parametrize("limit", ["max", "4096"])
def test_a_cgroup_with_room_is_silent(tmp_path: Path, limit: str) -> None:
    machine = big(tmp_path / "m")
    machine.file("/sys/fs/cgroup/user.slice/pids.max", f"{limit}\n")
    no_alarm(machine.file("/sys/fs/cgroup/user.slice/pids.current", "60\n"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OMP_NUM_THREADS", "auto"),
        ("OMP_NUM_THREADS", "0"),
        ("OMP_NUM_THREADS", "-2"),
        ("OMP_NUM_THREADS", ""),
        ("OPENBLAS_NUM_THREADS", "two"),
        ("MKL_NUM_THREADS", "4.5"),
        ("TF_NUM_INTRAOP_THREADS", "all"),
        ("TF_NUM_INTEROP_THREADS", "2 threads"),
    ],
)
def test_a_value_that_is_no_number_of_threads_is_invalid(tmp_path: Path, name: str, value: str) -> None:
    checked = workstation(tmp_path / "m").export(**{name: value}).check()
    assert checked.causes == ["THR004"]
    assert checked.finding("THR004")["subject"] == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OMP_NUM_THREADS", "4,2"),
        ("OMP_NUM_THREADS", " 4 "),
        ("TF_NUM_INTRAOP_THREADS", "0"),
        ("MKL_NUM_THREADS", "8"),
    ],
)
def test_values_that_their_reader_takes_are_silent(tmp_path: Path, name: str, value: str) -> None:
    no_alarm(workstation(tmp_path / "m").export(**{name: value}))


@pytest.mark.parametrize(
    "variables",
    [{"OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "8"}, {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "8"}],
)
def test_different_numbers_for_the_same_kind_of_pool_disagree(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    checked = workstation(tmp_path / "m").export(**variables).check()
    assert checked.causes == ["THR005"]


def test_tensorflow_may_have_another_number_than_openmp(tmp_path: Path) -> None:
    no_alarm(workstation(tmp_path / "m").export(OMP_NUM_THREADS="1", TF_NUM_INTRAOP_THREADS="8"))
