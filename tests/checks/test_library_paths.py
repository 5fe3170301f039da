"""Search paths: what shadows what, what is stale, mixed or missing; each with a twin where it is silent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checks.test_frameworks import (
    Builder,
    complaints,
    jax_cuda_12,
    tensorflow_2_1,
    tensorflow_2_10,
    tensorflow_2_13,
    torch_2_1,
    torch_cuda_12,
    with_extra,
)
from tests.conftest import needs_root
from tests.machines import eras
from tests.machines.machine import LIBRARIES, Machine

# --- LIB004 ---------------------------------------------------------------------------------------------


def test_a_conda_environment_with_an_old_library_path_from_bashrc(tmp_path: Path) -> None:
    """Which copy wins, by which rule, against which version TensorFlow was built for."""
    machine = tensorflow_2_10(Machine(tmp_path / "m"))
    eras.toolkit(machine, "11.0", with_cudnn="8.0.5")
    machine.export(LD_LIBRARY_PATH=f"/usr/local/cuda-11.0/lib64:{machine.prefix}/lib")
    machine.environment["PATH"] = f"{machine.prefix}/bin:/usr/bin:/bin"
    checked = machine.check()
    assert checked.finding("LIB004")["severity"] == "error"  # for cuDNN, which is too old
    finding = checked.finding("LIB004")
    assert "taken from /usr/local/cuda-11.0/lib64 of CUDA 11.0, not from conda's" in finding["message"]
    assert "LD_LIBRARY_PATH comes before the RUNPATH of libtensorflow_framework.so.2" in finding["message"]
    assert "TensorFlow 2.10.1 was built for CUDA 11.2 and cuDNN 8.1" in finding["message"]
    assert finding["remedy"] == f"export LD_LIBRARY_PATH={machine.prefix}/lib"
    assert "~/.bashrc" in str(finding["evidence"])
    assert checked.report["verdicts"][0]["cause"] in {"LIB004", "LIB005"}


def test_where_the_old_entry_was_alone_the_environments_own_directory_takes_its_place(tmp_path: Path) -> None:
    machine = tensorflow_2_10(Machine(tmp_path / "m"))
    eras.toolkit(machine, "11.8", with_cudnn="8.7.0").export(LD_LIBRARY_PATH="/usr/local/cuda-11.8/lib64")
    finding = machine.check().finding("LIB004")
    assert finding["severity"] == "warning"
    assert finding["remedy"] == f"export LD_LIBRARY_PATH={machine.prefix}/lib"


@pytest.mark.parametrize("version", ["2.15.1", "2.17.1", "2.20.0"])
def test_an_old_toolkit_shadows_the_wheels_of_tensorflow(tmp_path: Path, version: str) -> None:
    machine = with_extra(version)(Machine(tmp_path / "m"))
    eras.toolkit(machine, "12.0").export(LD_LIBRARY_PATH="/usr/local/cuda-12.0/lib64")
    checked = machine.check()
    finding = checked.finding("LIB004")
    assert "libcudart.so.12" in finding["subject"]
    assert "of CUDA 12.0" in finding["message"]
    assert f"TensorFlow {version} was built for CUDA 12." in finding["message"]
    assert finding["remedy"] == "unset LD_LIBRARY_PATH"


def test_cusparse_of_cuda_13_has_the_name_of_12_and_an_older_driver_cannot_run_it(tmp_path: Path) -> None:
    machine = with_extra("2.20.0")(Machine(tmp_path / "m"))
    eras.toolkit(machine, "13.0").export(LD_LIBRARY_PATH="/usr/local/cuda-13.0/lib64")
    checked = machine.check()
    finding = checked.finding("LIB004")
    assert finding["severity"] == "error"
    assert finding["subject"] == "libcusparse.so.12"
    assert "of CUDA 13.0" in finding["message"]


@pytest.mark.parametrize("build", [torch_cuda_12, torch_2_1, jax_cuda_12])
def test_pytorch_and_jax_carry_rpath_and_no_library_path_shadows_their_wheels(
    tmp_path: Path, build: Builder
) -> None:
    machine = build(Machine(tmp_path / "m"))
    eras.toolkit(machine, "12.0").export(LD_LIBRARY_PATH="/usr/local/cuda-12.0/lib64")
    assert "LIB004" not in machine.check().codes


# --- LIB009 ---------------------------------------------------------------------------------------------


def cached(machine: Machine, *directories: str) -> Machine:
    machine.file("/etc/ld.so.conf", "".join(f"{d}\n" for d in (*directories, LIBRARIES)))
    return machine.ldconfig()


@needs_root
def test_a_cache_that_is_up_to_date_is_silent(tmp_path: Path) -> None:
    machine = tensorflow_2_1(Machine(tmp_path / "m"))
    del machine.environment["LD_LIBRARY_PATH"]
    assert complaints(cached(machine, "/usr/local/cuda-10.1/lib64").check()) == []


@needs_root
def test_a_cache_that_lists_a_toolkit_that_was_removed_is_stale(tmp_path: Path) -> None:
    machine = with_extra("2.20.0")(Machine(tmp_path / "m"))
    cached(eras.toolkit(machine, "12.2"), "/usr/local/cuda-12.2/lib64")
    for file in machine.path("/usr/local/cuda-12.2/lib64").iterdir():
        file.unlink()
    finding = machine.check().finding("LIB009")
    assert (finding["severity"], finding["remedy"]) == ("warning", "sudo ldconfig")
    assert "/usr/local/cuda-12.2/lib64/lib" in finding["message"]


@needs_root
def test_a_cudnn_that_was_unpacked_without_ldconfig_is_why_it_is_not_found(tmp_path: Path) -> None:
    machine = tensorflow_2_1(Machine(tmp_path / "m"))
    del machine.environment["LD_LIBRARY_PATH"]
    directory = "/usr/local/cuda-10.1/lib64"
    for file in machine.path(directory).glob("libcudnn*"):
        file.unlink()
    cached(machine, directory)
    eras.system_cudnn(machine, directory, "7.6.5", "-cu10")
    checked = machine.check()
    assert checked.causes[0] == "LIB009"
    assert checked.finding("LIB009")["severity"] == "error"
    assert f"does not list {directory}/libcudnn.so.7" in checked.finding("LIB009")["message"]
    assert checked.finding("LIB003")["because"]
    assert complaints(machine.ldconfig().check()) == []


# --- LIB011 and LIB012 ----------------------------------------------------------------------------------


def test_several_toolkits_on_the_search_paths(tmp_path: Path) -> None:
    machine = tensorflow_2_13(Machine(tmp_path / "m"))
    eras.toolkit(eras.toolkit(machine, "12.5"), "11.8")
    path = machine.environment["LD_LIBRARY_PATH"]
    machine.export(LD_LIBRARY_PATH=f"{path}:/usr/local/cuda-11.8/lib64")
    finding = machine.check().finding("LIB011")
    assert "names 2" not in finding["message"]
    assert "2 CUDA versions" in finding["message"]
    assert "CUDA 12.5 (/usr/local/cuda)" in finding["message"]
    assert "export PATH=" in finding["remedy"]
    assert "/usr/local/cuda/bin" not in finding["remedy"]


def test_two_names_of_one_toolkit_are_no_mixture(tmp_path: Path) -> None:
    machine = tensorflow_2_1(Machine(tmp_path / "m"))
    machine.export(LD_LIBRARY_PATH="/usr/local/cuda/lib64:/usr/local/cuda-10.1/lib64")
    assert complaints(machine.check()) == []


def test_usr_local_cuda_that_leads_nowhere(tmp_path: Path) -> None:
    machine = torch_cuda_12(Machine(tmp_path / "m"))
    machine.link("/usr/local/cuda", "/usr/local/cuda-11.8")
    finding = machine.check().finding("LIB011")
    assert finding["message"] == "/usr/local/cuda is a link to /usr/local/cuda-11.8, which is not there"
    assert finding["remedy"] == "sudo rm /usr/local/cuda"
    machine.path("/usr/local/cuda-12.5/lib64").mkdir(parents=True)
    assert machine.check().finding("LIB011")["remedy"] == "sudo ln -sfn /usr/local/cuda-12.5 /usr/local/cuda"


@pytest.mark.parametrize(
    ("added", "said", "left"),
    [
        (
            "/usr/local/cuda-9.0/lib64:{own}",
            "names /usr/local/cuda-9.0/lib64, which is no directory",
            "{own}",
        ),
        ("{own}:", "has an empty entry, which means the current directory", "{own}"),
        ("/a:{own}:/b/", "names /a, which is no directory (and 1 more)", "{own}"),
    ],
)
def test_entries_of_the_library_path_that_lead_nowhere_are_noted(
    tmp_path: Path, added: str, said: str, left: str
) -> None:
    machine = tensorflow_2_1(Machine(tmp_path / "m"))
    own = machine.environment["LD_LIBRARY_PATH"]
    machine.export(LD_LIBRARY_PATH=added.format(own=own))
    checked = machine.check()
    finding = checked.finding("LIB012")
    assert (checked.status, finding["severity"]) == (0, "note")
    assert finding["message"] == f"LD_LIBRARY_PATH {said}"
    assert finding["remedy"] == f"export LD_LIBRARY_PATH={left.format(own=own)}"


# --- LIB013 ---------------------------------------------------------------------------------------------


def test_cudnn_8_5_opens_libnvrtc_by_a_name_that_the_wheel_does_not_have(tmp_path: Path) -> None:
    machine = eras.torch(eras.computer(Machine(tmp_path / "m")).venv(), "2.0.1", "11.7")
    eras.torch_wheels(machine, "2.0.1")
    checked = machine.check()
    finding = checked.finding("LIB013")
    assert (finding["severity"], finding["subject"]) == ("warning", "libnvrtc.so")
    assert "cuDNN 8.5.0.96 opens libnvrtc.so by that name, and only libnvrtc.so.11.2" in finding["message"]
    machine.link(f"{machine.site_packages}/nvidia/cuda_nvrtc/lib/libnvrtc.so", "libnvrtc.so.11.2")
    machine.export(LD_LIBRARY_PATH=f"{machine.site_packages}/nvidia/cuda_nvrtc/lib")
    assert "LIB013" not in machine.check().codes


def test_tensorflow_2_13_beside_pips_nvrtc_alone(tmp_path: Path) -> None:
    machine = tensorflow_2_13(Machine(tmp_path / "m"))
    machine.path(f"{machine.prefix}/lib/libnvrtc.so").unlink()
    assert machine.check().finding("LIB013")["subject"] == "libnvrtc.so"


def test_old_triton_links_with_a_libcuda_that_the_driver_package_left_out(tmp_path: Path) -> None:
    machine = torch_2_1(Machine(tmp_path / "m"))
    machine.path(f"{LIBRARIES}/libcuda.so").unlink()
    finding = machine.check().finding("LIB013")
    assert "Triton 2.1.0 links with -lcuda" in finding["message"]
    assert finding["remedy"] == f"sudo ln -s libcuda.so.1 {LIBRARIES}/libcuda.so"


def test_new_triton_opens_libcuda_by_its_soname(tmp_path: Path) -> None:
    machine = torch_cuda_12(Machine(tmp_path / "m"))
    machine.path(f"{LIBRARIES}/libcuda.so").unlink()
    assert complaints(machine.check()) == []
