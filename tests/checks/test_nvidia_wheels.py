"""NVIDIA's wheels against what the frameworks ask for, and frameworks against each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import workstation
from tests.machines.machine import Machine
from tests.machines.pythons import conda, pip_tensorflow, pip_torch, wheel


@pytest.fixture
def box(tmp_path: Path) -> Machine:
    """A machine without a GPU, and an environment in it."""
    return Machine(tmp_path / "m").os("ubuntu", "24.04").kernel("6.8.0").cpus(2).venv()


def loud(machine: Machine) -> list[tuple[str, str]]:
    return [(f["code"], f["severity"]) for f in machine.check().report["findings"] if f["severity"] != "note"]


# --- PKG009 -----------------------------------------------------------------------------------------


def test_an_older_cudnn_that_the_loader_takes_is_an_error_and_the_libraries_trouble_follows(
    tmp_path: Path,
) -> None:
    machine = workstation(tmp_path / "m")
    dist = machine.path(f"{machine.site_packages}/nvidia_cudnn_cu12-9.28.0.42.dist-info/METADATA")
    dist.write_text("Name: nvidia-cudnn-cu12\nVersion: 9.1.0.70\n\n")
    checked = machine.check()
    assert checked.causes == ["PKG009"]
    assert "CDN002" in checked.codes
    found = checked.finding("PKG009")
    assert found["message"] == (
        "nvidia-cudnn-cu12 9.1.0.70 is not what TensorFlow 2.21.0 asks for (<10.0,>=9.3.0.75)"
    )
    assert found["remedy"] == "/opt/venv/bin/python -m pip install 'nvidia-cudnn-cu12<10.0,>=9.3.0.75'"
    assert checked.report["verdicts"][0]["gpu"] == "unusable"


def test_an_older_nvjitlink_than_cusparse_needs_is_an_error(box: Machine) -> None:
    """Seen as: libcusparse.so.12: undefined symbol: __nvJitLinkComplete_12_4."""
    asked = ("nvidia-cusparse-cu12==12.3.1.170", "nvidia-nvjitlink-cu12==12.4.127")
    pip_torch(box, "2.5.1", "12.4", requires=asked)
    wheel(wheel(box, "nvidia-cusparse-cu12", "12.3.1.170"), "nvidia-nvjitlink-cu12", "12.1.105")
    assert loud(box) == [("PKG009", "error")]


def test_an_older_cublas_is_a_warning_and_every_wheel_outside_is_in_the_evidence(box: Machine) -> None:
    pip_tensorflow(box)
    for name, version in (("cublas", "12.1.3.1"), ("cuda-nvcc", "12.3.107"), ("cufft", "11.4.1.4")):
        wheel(box, f"nvidia-{name}-cu12", version)
    checked = box.check()
    assert loud(box) == [("PKG009", "warning")]
    evidence = {e["what"] for e in checked.finding("PKG009")["evidence"]}
    assert evidence == {"nvidia-cublas-cu12", "nvidia-cuda-nvcc-cu12"}


def test_a_newer_wheel_than_an_exact_pin_is_only_noted(box: Machine) -> None:
    pip_torch(box, "2.5.1", "12.4", requires=("nvidia-cudnn-cu12==9.1.0.70",))
    checked = wheel(box, "nvidia-cudnn-cu12", "9.5.1.17").check()
    assert checked.finding("PKG009")["severity"] == "note"
    assert loud(box) == []


def test_an_old_wheel_that_the_loader_passes_over_is_only_noted(tmp_path: Path) -> None:
    """LD_LIBRARY_PATH brings a cuDNN of the right version: the wheel's is not used."""
    machine = workstation(tmp_path / "m")
    dist = machine.path(f"{machine.site_packages}/nvidia_cudnn_cu12-9.28.0.42.dist-info/METADATA")
    dist.write_text("Name: nvidia-cudnn-cu12\nVersion: 9.1.0.70\n\n")
    machine.library("/opt/cudnn/lib/libcudnn.so.9.30.0", "libcudnn.so.9")
    machine.link("/opt/cudnn/lib/libcudnn.so.9", "libcudnn.so.9.30.0").export(
        LD_LIBRARY_PATH="/opt/cudnn/lib"
    )
    assert machine.check().finding("PKG009")["severity"] == "note"


def test_the_pins_of_cuda_13_come_through_cuda_toolkit(box: Machine) -> None:
    pip_torch(
        box, "2.11.0", "13.0", requires=("cuda-toolkit[cublas]==13.0.2", "nvidia-cudnn-cu13==9.19.0.56")
    )
    systems = "(sys_platform == 'linux' or sys_platform == 'win32')"
    box.distribution(
        "cuda-toolkit", "13.0.2", [f"nvidia-cublas==13.1.0.3.*; {systems} and extra == 'cublas'"]
    )
    wheel(wheel(box, "nvidia-cublas", "13.1.0.3"), "nvidia-cudnn-cu13", "9.19.0.56")
    assert loud(box) == []
    wheel(box, "nvidia-cublas", "13.0.0.19")
    box.path(f"{box.site_packages}/nvidia_cublas-13.1.0.3.dist-info/METADATA").unlink()
    box.path(f"{box.site_packages}/nvidia_cublas-13.1.0.3.dist-info/INSTALLER").unlink()
    box.path(f"{box.site_packages}/nvidia_cublas-13.1.0.3.dist-info").rmdir()
    assert loud(box) == [("PKG009", "warning")]


@pytest.mark.parametrize(
    ("first", "second", "file"),
    [
        (("nvidia-cudnn-cu12", "9.10.2.21"), ("nvidia-cudnn-cu13", "9.19.0.56"), "libcudnn.so.9"),
        (("nvidia-nccl-cu11", "2.16.5"), ("nvidia-nccl-cu12", "2.27.7"), "libnccl.so.2"),
        (("nvidia-cusolver-cu11", "11.4.1.48"), ("nvidia-cusolver-cu12", "11.7.5.82"), "libcusolver.so.11"),
    ],
)
def test_wheels_of_two_cuda_majors_that_own_one_file_overwrite_each_other(
    box: Machine, first: tuple[str, str], second: tuple[str, str], file: str
) -> None:
    wheel(wheel(pip_tensorflow(box), *first), *second)
    assert loud(box) == [("PKG009", "warning")]
    assert f"own the same file {file}" in box.check().finding("PKG009")["message"]


def test_wheels_of_two_cuda_majors_with_files_of_their_own_are_silent(box: Machine) -> None:
    """libcudnn.so.8 beside .so.9, libcublas.so.11 beside .so.12: left over, and in nobody's way."""
    pip_tensorflow(box)
    for name, version in (
        ("cudnn-cu11", "8.7.0.84"),
        ("cudnn-cu12", "9.10.2.21"),
        ("cublas-cu11", "11.11.3.6"),
    ):
        wheel(box, f"nvidia-{name}", version)
    assert loud(box) == []


def test_a_jax_plugin_of_another_version_than_jax_asks_for_is_not_used_by_it(box: Machine) -> None:
    box.distribution("jax", "0.4.35", ['jax-cuda12-plugin[with-cuda]<=0.4.35,>=0.4.35; extra == "cuda12"'])
    box.distribution("jaxlib", "0.4.35").distribution("jax-cuda12-plugin", "0.4.31")
    box.file(f"{box.site_packages}/jax/__init__.py").file(
        f"{box.site_packages}/jax_cuda12_plugin/__init__.py"
    )
    box.file(f"{box.site_packages}/jax_plugins/xla_cuda12/xla_cuda_plugin.so")
    found = box.check().finding("PKG009")
    assert (found["subject"], found["severity"]) == ("jax-cuda12-plugin", "error")


# --- PKG010 -----------------------------------------------------------------------------------------


def test_an_exact_pin_outside_the_other_frameworks_range_is_a_conflict(box: Machine) -> None:
    """PyTorch 2.5 pins cuDNN 9.1.0.70, TensorFlow 2.18 asks for 9.3.0.75."""
    pip_tensorflow(box, "2.18.1")
    pip_torch(box, "2.5.1", "12.4", requires=("nvidia-cudnn-cu12==9.1.0.70",))
    assert loud(box) == [("PKG010", "warning")]
    found = box.check().finding("PKG010")
    assert "no nvidia-cudnn-cu12 suits both" in found["message"]
    assert "~/venv-torch/bin/python -m pip install torch==2.5.1" in found["remedy"]


def test_cuda_12_and_cuda_13_share_names_within_one_process(box: Machine) -> None:
    pip_tensorflow(box)
    pip_torch(box, "2.11.0", "13.0", requires=("nvidia-cudnn-cu13==9.19.0.56", "nvidia-nccl-cu13==2.28.9"))
    assert loud(box) == [("PKG010", "warning")]
    assert "libcudnn.so.9" in box.check().finding("PKG010")["message"]


def test_the_overwritten_cudnn_of_two_majors_follows_from_the_conflict(box: Machine) -> None:
    pip_tensorflow(box)
    pip_torch(box, "2.11.0", "13.0", requires=("nvidia-cudnn-cu13==9.19.0.56",))
    wheel(wheel(box, "nvidia-cudnn-cu12", "9.10.2.21"), "nvidia-cudnn-cu13", "9.19.0.56")
    checked = box.check()
    assert [c for c in checked.causes if c.startswith("PKG")] == ["PKG010"]
    assert "PKG009" in checked.codes


@pytest.mark.parametrize("cpu", ["tensorflow", "torch"])
def test_a_cpu_build_conflicts_with_nobody(box: Machine, cpu: str) -> None:
    pip_tensorflow(box, "2.18.1", gpu=cpu != "tensorflow")
    pip_torch(box, "2.5.1", "" if cpu == "torch" else "12.4", requires=("nvidia-cudnn-cu12==9.1.0.70",))
    wheel(box, "nvidia-cudnn-cu12", "9.3.0.75" if cpu == "torch" else "9.1.0.70")
    assert loud(box) == []


# --- PKG011 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packages", "name", "version", "is_ill"),
    [
        ({"cudatoolkit": "11.8.0", "cudnn": "8.9.7"}, "nvidia-cuda-runtime-cu12", "12.9.79", True),
        ({"cuda-cudart": "12.4.127"}, "nvidia-cublas-cu11", "11.11.3.6", True),
        ({"cuda-cudart": "12.4.127"}, "nvidia-cuda-runtime", "13.0.96", True),
        ({"cuda-cudart": "12.4.127"}, "nvidia-cuda-runtime-cu12", "12.9.79", False),
        ({"cuda-version": "11.8"}, "nvidia-cuda-runtime-cu12", "12.9.79", False),
        ({"cudatoolkit": "11.8.0"}, "nvidia-ml-py", "12.560.30", False),
    ],
)
def test_conda_and_pip_with_cuda_of_two_majors_are_mixed(
    tmp_path: Path, packages: dict[str, str], name: str, version: str, is_ill: bool
) -> None:
    machine = conda(Machine(tmp_path / "m").os("ubuntu", "24.04").kernel("6.8.0").cpus(2), packages)
    wheel(machine, name, version)
    assert loud(machine) == ([("PKG011", "warning")] if is_ill else [])
