"""cuDNN: too old, for another CUDA, of several pieces; the healthy twins are in test_frameworks.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checks.test_frameworks import (
    Builder,
    complaints,
    jax_cuda_12,
    tensorflow_2_10,
    torch_cuda_12,
    with_extra,
)
from tests.machines import eras
from tests.machines.machine import LIBRARIES, Machine

# --- CDN002 ---------------------------------------------------------------------------------------------


def test_pytorch_beside_a_cudnn_that_another_framework_put_in_its_place(tmp_path: Path) -> None:
    machine = eras.torch(eras.computer(Machine(tmp_path / "m")).venv())
    eras.torch_wheels(machine, without=["cudnn"])
    eras.wheel(machine, "cudnn", "9.1.0.70")
    checked = machine.check()
    finding = checked.finding("CDN002")
    assert "cuDNN 9.1.0.70 would be loaded; PyTorch 2.10.0+cu128 was built with 9.10" in finding["message"]


def test_jax_beside_a_cudnn_below_what_its_plugin_asks_for(tmp_path: Path) -> None:
    machine = eras.jax(eras.computer(Machine(tmp_path / "m")).venv(version="3.12.4"))
    eras.wheel(eras.jax_wheels(machine, without=["cudnn"]), "cudnn", "9.1.0.70")
    assert "was built with 9.8" in machine.check().finding("CDN002")["message"]


def test_tensorflow_2_10_with_the_cudnn_of_an_older_toolkit(tmp_path: Path) -> None:
    machine = tensorflow_2_10(Machine(tmp_path / "m"))
    for file in machine.path(f"{machine.prefix}/lib").glob("libcudnn*"):
        file.unlink()
    eras.system_cudnn(machine, f"{machine.prefix}/lib", "8.0.5", "-cu11")
    assert machine.check().causes[0] == "CDN002"


# --- CDN003 ---------------------------------------------------------------------------------------------


def test_a_cudnn_wheel_for_cuda_12_beside_tensorflow_for_cuda_11(tmp_path: Path) -> None:
    machine = eras.tensorflow(eras.computer(Machine(tmp_path / "m")).venv(), "2.14.1")
    eras.wheel(eras.and_cuda(machine, "2.14.1", without=["cudnn"]), "cudnn", "8.9.7.29", "-cu12")
    finding = machine.check().finding("CDN003")
    assert "is a cuDNN for CUDA 12; TensorFlow 2.14.1 is built for CUDA 11.8" in finding["message"]
    assert "uninstall -y nvidia-cudnn-cu12" in finding["remedy"]
    assert finding["remedy"].endswith("-m pip install nvidia-cudnn-cu11==8.7.0.84")


def test_a_cudnn_wheel_for_cuda_13_beside_pytorch_for_cuda_12(tmp_path: Path) -> None:
    machine = eras.torch(eras.computer(Machine(tmp_path / "m")).venv())
    eras.torch_wheels(machine, without=["cudnn"])
    eras.wheel(machine, "cudnn", "9.20.0.48", "-cu13")
    assert "for CUDA 13" in machine.check().finding("CDN003")["message"]


def test_the_newest_libcudnn8_of_apt_is_for_cuda_12(tmp_path: Path) -> None:
    machine = eras.old_computer(Machine(tmp_path / "m"), "470.82.01", "11.4").venv(version="3.9.16")
    eras.toolkit(eras.tensorflow(machine, "2.10.1"), "11.2")
    eras.system_cudnn(machine, LIBRARIES, "8.9.7", "-cu12")
    paragraph = "Package: libcudnn8\nStatus: install ok installed\nPriority: optional\nVersion: {}\n\n"
    machine.file("/var/lib/dpkg/status", paragraph.format("8.9.7.29-1+cuda12.2"))
    machine.export(LD_LIBRARY_PATH="/usr/local/cuda-11.2/lib64")
    finding = machine.check().finding("CDN003")
    assert "8.9.7.29-1+cuda12.2" in str(finding["evidence"])
    assert "apt-mark hold libcudnn8" in finding["remedy"]
    machine.file("/var/lib/dpkg/status", paragraph.format("8.9.7.29-1+cuda11.8"))
    assert complaints(machine.check()) == []


def test_a_cudnn_whose_own_needs_name_another_cublas(tmp_path: Path) -> None:
    machine = eras.computer(Machine(tmp_path / "m")).venv()
    eras.toolkit(eras.tensorflow(machine, "2.15.1"), "12.2", with_cudnn="8.6.0", cudnn_for="-cu11")
    machine.export(LD_LIBRARY_PATH="/usr/local/cuda-12.2/lib64")
    checked = machine.check()
    assert "libcublas.so.11" in str(checked.finding("CDN003")["evidence"])
    assert checked.finding("LIB008")["because"]


# --- CDN004 ---------------------------------------------------------------------------------------------


def older_parts(machine: Machine, directory: str, version: str = "9.1.0") -> Machine:
    for part in ("graph", "ops", "cnn", "adv"):
        soname = f"libcudnn_{part}.so.9"
        machine.library(f"{directory}/{soname}.{version[2:]}", soname=soname)
        machine.link(f"{directory}/{soname}", f"{soname}.{version[2:]}")
    return machine


def test_pytorchs_cudnn_takes_parts_from_the_library_path(tmp_path: Path) -> None:
    """libcudnn.so.9 is found by DT_RPATH; what it opens itself is searched on LD_LIBRARY_PATH first."""
    machine = torch_cuda_12(Machine(tmp_path / "m"))
    library = f"{machine.site_packages}/nvidia/cudnn/lib/libcudnn.so.9"
    machine.library(library, runpath="$ORIGIN")  # as in the wheels up to 9.3 at least
    older_parts(machine, "/opt/cudnn/lib").export(LD_LIBRARY_PATH="/opt/cudnn/lib")
    checked = machine.check()
    finding = checked.finding("CDN004")
    assert finding["severity"] == "error"
    assert "libcudnn.so.9 is cuDNN 9.10.2.21, and its part libcudnn_graph.so.9 is 9.1.0" in finding["message"]
    assert "because of LD_LIBRARY_PATH=/opt/cudnn/lib" in finding["message"]
    assert finding["remedy"] == "unset LD_LIBRARY_PATH"
    del machine.environment["LD_LIBRARY_PATH"]
    assert complaints(machine.check()) == []


@pytest.mark.parametrize("build", [torch_cuda_12, jax_cuda_12])
def test_a_cudnn_with_rpath_takes_its_own_parts(tmp_path: Path, build: Builder) -> None:
    machine = build(Machine(tmp_path / "m"))
    older_parts(machine, "/opt/cudnn/lib").export(LD_LIBRARY_PATH="/opt/cudnn/lib")
    assert complaints(machine.check()) == []


def test_a_new_archive_unpacked_over_an_old_one(tmp_path: Path) -> None:
    machine = tensorflow_2_10(Machine(tmp_path / "m"))
    directory = f"{machine.prefix}/lib"
    soname = "libcudnn_cnn_infer.so.8"
    machine.library(f"{directory}/{soname}.9.7", soname=soname, needed=["libcudnn_ops_infer.so.8"])
    machine.link(f"{directory}/{soname}", f"{soname}.9.7")
    finding = machine.check().finding("CDN004")
    assert "libcudnn.so.8 is cuDNN 8.1.0, and its part libcudnn_cnn_infer.so.8 is 8.9.7" in finding["message"]
    assert ", beside it" in finding["message"]


def test_parts_from_elsewhere_whose_version_cannot_be_told_are_a_warning(tmp_path: Path) -> None:
    machine = with_extra("2.17.1")(Machine(tmp_path / "m"))
    machine.library("/opt/old/libcudnn_adv_train.so.8").export(LD_LIBRARY_PATH="/opt/old")
    finding = machine.check().finding("CDN004")
    assert finding["severity"] == "warning"
    assert "from /opt/old" in finding["message"]


# --- LIB008: a part that is not there -------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.16.2", "2.20.0"])
def test_a_part_of_cudnn_that_was_lost_is_named(tmp_path: Path, version: str) -> None:
    machine = with_extra(version)(Machine(tmp_path / "m"))
    directory = machine.path(f"{machine.site_packages}/nvidia/cudnn/lib")
    lost = min(directory.glob("libcudnn_adv*"))
    lost.unlink()
    checked = machine.check()
    assert checked.finding("LIB008")["subject"] == lost.name
    assert "--force-reinstall" in checked.finding("LIB008")["remedy"]
