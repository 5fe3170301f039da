"""XLA's tools: a flag or PATH names an installed toolkit, and what the user has set stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checks.test_xla import NVCC, old, without_compiler
from tests.conftest import needs_overlay, workstation
from tests.fixes.test_library_fixers import applied, carried_out, entered, repairs
from tests.machines.machine import Machine

TOOLKIT = "/usr/local/cuda-12.5"
NAMED = [f"--xla_gpu_cuda_data_dir={TOOLKIT}"]


def test_a_toolkit_of_the_builds_version_is_named_beside_the_users_flags(machine: Machine) -> None:
    without_compiler(machine).compiler("/usr/local/cuda-11.8", "11.8.89").compiler(TOOLKIT, "12.5.82")
    machine.export(XLA_FLAGS="--xla_dump_to=/tmp/x")
    (export,) = repairs(machine)
    assert (export["code"], export["variable"], export["join"]) == ("XLA001", "XLA_FLAGS", "words")
    assert export["values"] == NAMED
    assert carried_out(machine, [export]).check().codes == []
    assert machine.environment["XLA_FLAGS"] == f"{NAMED[0]} --xla_dump_to=/tmp/x"
    assert repairs(machine) == []


def test_where_no_toolkit_has_libdevice_nothing_is_named(machine: Machine) -> None:
    assert sorted(without_compiler(machine).check().causes) == ["XLA001", "XLA002"]
    assert repairs(machine) == []


def test_the_wheel_is_named_where_an_empty_directory_is_found_first(machine: Machine) -> None:
    machine.path("/usr/local/cuda/nvvm/libdevice").mkdir(parents=True)
    (export,) = repairs(machine)
    assert export["values"] == [f"--xla_gpu_cuda_data_dir={NVCC}"]
    assert carried_out(machine, [export]).check().codes == []


@pytest.mark.parametrize("value", ["--xla_gpu_cuda_data_dir=/nowhere", "/etc/xla.flags"])
def test_a_directory_or_a_file_of_flags_that_the_user_names_is_left_alone(
    machine: Machine, value: str
) -> None:
    """A second flag in front would not count, and a file's name behind a flag would not be read."""
    without_compiler(machine).compiler(TOOLKIT, "12.5.82").file("/etc/xla.flags", "--xla_dump_to=/tmp/x\n")
    machine.export(XLA_FLAGS=value)
    assert "XLA001" in machine.check().codes
    assert [a for a in repairs(machine) if a["variable"] == "XLA_FLAGS"] == []


def test_what_matters_only_to_who_asks_for_xla_is_repaired_only_when_named(tmp_path: Path) -> None:
    machine = old(tmp_path / "m", "2.10.1", "11.2").nvidia_wheel("cuda_nvcc")
    assert [a for a in repairs(machine) if a["code"] == "XLA001"] == []
    (export,) = repairs(machine, "--only", "XLA001")
    assert export["values"] == [f"--xla_gpu_cuda_data_dir={machine.site_packages}/nvidia/cuda_nvcc"]


def without_ptxas(machine: Machine) -> Machine:
    machine.path(f"{NVCC}/bin/ptxas").unlink()
    return machine


def test_ptxas_of_a_toolkit_is_put_on_the_path(machine: Machine) -> None:
    without_ptxas(machine).compiler(TOOLKIT, "12.5.82")
    (export,) = repairs(machine)
    assert (export["code"], export["variable"], export["values"]) == ("XLA002", "PATH", [f"{TOOLKIT}/bin"])
    assert carried_out(machine, [export]).check().codes == []


def test_a_bin_that_other_programs_share_is_not_put_on_the_path(machine: Machine) -> None:
    """A `python` in it would hide the environment's."""
    without_ptxas(machine).compiler("/opt/shared", "12.5.82").export(CUDA_HOME="/opt/shared")
    (export,) = repairs(machine)
    assert (export["variable"], export["values"]) == ("XLA_FLAGS", ["--xla_gpu_cuda_data_dir=/opt/shared"])
    assert carried_out(machine, [export]).check().codes == []


def test_the_path_of_a_service_is_not_replaced(machine: Machine) -> None:
    """A file of NAME=value lines cannot extend the PATH that its reader has."""
    without_ptxas(machine).compiler(TOOLKIT, "12.5.82")
    (export,) = repairs(machine, "--to", "/etc/app.env")
    assert (export["variable"], export["values"]) == ("XLA_FLAGS", NAMED)
    (export,) = repairs(machine, "--to", "/etc/.envrc")
    assert (export["variable"], export["values"]) == ("PATH", [f"{TOOLKIT}/bin"])


def test_tensorflow_2_1_which_does_not_search_the_path_is_told_by_the_flag(tmp_path: Path) -> None:
    machine = old(tmp_path / "m", "2.1.0", "10.1").compiler("/usr/local/cuda-10.2")
    (export,) = repairs(machine, "--only", "XLA002")
    assert export["values"] == ["--xla_gpu_cuda_data_dir=/usr/local/cuda-10.2"]
    assert "XLA002" not in carried_out(machine, [export]).check().codes


def test_a_ptxas_that_is_fit_goes_before_one_that_is_too_old(machine: Machine) -> None:
    without_compiler(machine).compiler("/usr/local/cuda", "11.2.152")
    assert machine.check().causes == ["XLA003"]
    assert repairs(machine) == []
    (export,) = repairs(machine.compiler(TOOLKIT, "12.5.82"))
    assert (export["code"], export["values"]) == ("XLA003", [f"{TOOLKIT}/bin"])
    assert carried_out(machine, [export]).check().codes == []


@needs_overlay
def test_the_flag_is_written_where_the_shell_reads_it_and_cures(tmp_path: Path) -> None:
    machine = without_compiler(workstation(tmp_path / "m")).hide("/usr/local/cuda")
    machine.compiler("/sw/toolkit", "12.5.82").export(CUDA_HOME="/sw/toolkit")
    answer = applied(machine)
    assert (answer["changed"], answer["failed"]) == (True, False)
    after = entered(machine)
    assert after.codes == []
    assert after.report["facts"]["environment"]["XLA_FLAGS"] == "--xla_gpu_cuda_data_dir=/sw/toolkit"
