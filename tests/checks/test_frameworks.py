"""Healthy machines of every era and framework: no error, no warning, and the GPU is usable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.machines import eras
from tests.machines.machine import Checked, Machine

Builder = Callable[[Machine], Machine]


def complaints(checked: Checked) -> list[str]:
    """Everything that is said to be wrong, notes left out."""
    return [f["code"] for f in checked.report["findings"] if f["severity"] != "note"]


def tensorflow_1_12(machine: Machine) -> Machine:
    eras.old_computer(machine, "390.77", "9.1").venv(version="3.6.9")
    eras.toolkit(eras.tensorflow(machine, "1.12.3"), "9.0", with_cudnn="7.4.2")
    return machine.export(LD_LIBRARY_PATH="/usr/local/cuda-9.0/lib64")


def tensorflow_1_15(machine: Machine) -> Machine:
    eras.old_computer(machine).venv(version="3.7.9")
    eras.toolkit(eras.tensorflow(machine, "1.15.5"), "10.0", with_cudnn="7.6.5")
    return machine.export(LD_LIBRARY_PATH="/usr/local/cuda-10.0/lib64")


def tensorflow_2_1(machine: Machine) -> Machine:
    eras.old_computer(machine).venv(version="3.7.9")
    eras.toolkit(eras.tensorflow(machine, "2.1.4"), "10.1", with_cudnn="7.6.5")
    return machine.export(LD_LIBRARY_PATH="/usr/local/cuda-10.1/lib64")


def tensorflow_2_4(machine: Machine) -> Machine:
    eras.old_computer(machine, "450.80.02", "11.0").venv(version="3.7.9")
    eras.toolkit(eras.tensorflow(machine, "2.4.4"), "11.0", with_cudnn="8.0.5")
    return machine.export(LD_LIBRARY_PATH="/usr/local/cuda-11.0/lib64")


def tensorflow_2_10(machine: Machine) -> Machine:
    """conda, as tensorflow.org had it: cudatoolkit=11.2 cudnn=8.1.0, and LD_LIBRARY_PATH."""
    eras.conda(eras.computer(machine, "470.82.01", "11.4"))
    eras.tensorflow(machine, "2.10.1")
    eras.toolkit(machine, "11.2", directory=f"{machine.prefix}/lib", with_cudnn="8.1.0")
    return machine.export(LD_LIBRARY_PATH=f"{machine.prefix}/lib/")


def tensorflow_2_13(machine: Machine) -> Machine:
    """conda's cudatoolkit=11.8 and pip's nvidia-cudnn-cu11, as tensorflow.org had it."""
    eras.conda(eras.computer(machine, "520.61.05", "11.8"), version="3.10.12")
    eras.wheel(eras.tensorflow(machine, "2.13.1"), "cudnn", "8.6.0.163", "-cu11")
    eras.toolkit(machine, "11.8", directory=f"{machine.prefix}/lib")
    return machine.export(
        LD_LIBRARY_PATH=f"{machine.site_packages}/nvidia/cudnn/lib:{machine.prefix}/lib/",
        XLA_FLAGS=f"--xla_gpu_cuda_data_dir={machine.prefix}",
    )


def with_extra(version: str) -> Builder:
    def build(machine: Machine) -> Machine:
        eras.computer(machine).venv()
        return eras.and_cuda(eras.tensorflow(machine, version), version)

    build.__name__ = f"tensorflow_{version.replace('.', '_')}"
    return build


def torch_cuda_12(machine: Machine) -> Machine:
    eras.computer(machine, "550.54.14", "12.4").venv()
    return eras.torch_wheels(eras.torch(machine, triton="3.6.0"))


def torch_cuda_13(machine: Machine) -> Machine:
    eras.computer(machine, "580.95.05", "13.0").venv()
    return eras.torch_wheels(eras.torch(machine, "2.12.1", "13.0", triton="3.7.1"), "2.12.1")


def torch_2_1(machine: Machine) -> Machine:
    eras.computer(machine).venv()
    return eras.torch_wheels(eras.torch(machine, "2.1.2", "12.1", triton="2.1.0"), "2.1.2")


def jax_cuda_12(machine: Machine) -> Machine:
    eras.computer(machine).venv(version="3.12.4")
    return eras.jax_wheels(eras.jax(machine))


def jax_cuda_13(machine: Machine) -> Machine:
    eras.computer(machine, "580.95.05", "13.0").venv(version="3.12.4")
    return eras.jax_wheels(eras.jax(machine, major=13), major=13)


HEALTHY: list[Builder] = [
    tensorflow_1_12,
    tensorflow_1_15,
    tensorflow_2_1,
    tensorflow_2_4,
    tensorflow_2_10,
    tensorflow_2_13,
    *(with_extra(v) for v in ("2.14.1", "2.15.1", "2.16.2", "2.17.1", "2.18.1", "2.19.1", "2.20.0")),
    torch_2_1,
    torch_cuda_12,
    torch_cuda_13,
    jax_cuda_12,
    jax_cuda_13,
]


@pytest.mark.parametrize("build", HEALTHY, ids=lambda b: b.__name__)
def test_a_healthy_machine_of_every_era_has_no_error_and_no_warning(build: Builder, tmp_path: Path) -> None:
    checked = build(Machine(tmp_path / "m")).check()
    assert complaints(checked) == [], checked.report["findings"]
    (verdict,) = checked.report["verdicts"]
    assert verdict["gpu"] == "usable", verdict
    assert checked.status == 0, [c for c in checked.report["checks"] if c["status"] == "unknown"]


# --- what goes wrong with each --------------------------------------------------------------------------


def ill(machine: Machine, *causes: str) -> Checked:
    """Checked; `causes` lead, and every verdict is that the GPU cannot be used."""
    checked = machine.check()
    roots = [f["code"] for f in checked.report["findings"] if not f["because"] and f["severity"] != "note"]
    assert sorted(roots) == sorted(causes), checked.report["findings"]
    return checked


def unusable(checked: Checked, cause: str) -> bool:
    (verdict,) = checked.report["verdicts"]
    return (verdict["gpu"], verdict["cause"]) == ("unusable", cause)


def test_tensorflow_2_1_beside_cuda_10_2_misses_cudart_10_1_alone(tmp_path: Path) -> None:
    """CUDA 10.1 and 10.2 share the names of all but cudart."""
    machine = eras.old_computer(Machine(tmp_path / "m")).venv(version="3.7.9")
    eras.toolkit(eras.tensorflow(machine, "2.1.4"), "10.2", with_cudnn="7.6.5")
    machine.export(LD_LIBRARY_PATH="/usr/local/cuda-10.2/lib64")
    checked = ill(machine, "LIB005")
    assert checked.finding("LIB005")["subject"] == "libcudart.so.10.1"
    assert "/lib64/libcudart.so.10.2" in checked.finding("LIB005")["message"]
    assert "tensorflow_core/libtensorflow_framework.so.2" in str(checked.finding("LIB005")["evidence"])
    assert unusable(checked, "LIB005")


def test_tensorflow_2_4_beside_cuda_11_2_misses_cusolver_10(tmp_path: Path) -> None:
    machine = eras.computer(Machine(tmp_path / "m"), "460.32.03", "11.2").venv(version="3.7.9")
    eras.toolkit(eras.tensorflow(machine, "2.4.4"), "11.2", with_cudnn="8.1.0")
    machine.export(LD_LIBRARY_PATH="/usr/local/cuda-11.2/lib64")
    assert ill(machine, "LIB005").finding("LIB005")["subject"] == "libcusolver.so.10"


def test_tensorflow_1_15_beside_cuda_10_1_asks_for_names_that_only_10_0_has(tmp_path: Path) -> None:
    machine = eras.old_computer(Machine(tmp_path / "m")).venv(version="3.7.9")
    eras.toolkit(eras.tensorflow(machine, "1.15.5"), "10.1", with_cudnn="7.6.5")
    machine.export(LD_LIBRARY_PATH="/usr/local/cuda-10.1/lib64")
    subject = ill(machine, "LIB005").finding("LIB005")["subject"]
    assert subject.startswith("libcudart.so.10.0, libcublas.so.10.0")
    assert "libcudnn" not in subject


def test_tensorflow_1_12_is_linked_and_its_import_fails_without_cuda_9(tmp_path: Path) -> None:
    machine = eras.old_computer(Machine(tmp_path / "m")).venv(version="3.6.9")
    eras.tensorflow(machine, "1.12.3")
    checked = ill(machine, "LIB001")
    finding = checked.finding("LIB001")
    assert finding["subject"].startswith("libcudnn.so.7, libcublas.so.9.0")
    assert "`import tensorflow` fails" in finding["message"]
    assert "(DT_NEEDED)" in str(finding["evidence"])


def test_tensorflow_1_12_beside_cuda_10_0_finds_other_versions(tmp_path: Path) -> None:
    machine = eras.old_computer(Machine(tmp_path / "m")).venv(version="3.6.9")
    eras.toolkit(eras.tensorflow(machine, "1.12.3"), "10.0", with_cudnn="7.4.2")
    machine.export(LD_LIBRARY_PATH="/usr/local/cuda-10.0/lib64")
    assert "libcusolver.so.9.0" in ill(machine, "LIB005").finding("LIB005")["subject"]


def test_a_toolkit_of_the_right_version_that_nothing_searches(tmp_path: Path) -> None:
    machine = tensorflow_2_1(Machine(tmp_path / "m"))
    del machine.environment["LD_LIBRARY_PATH"]
    checked = ill(machine, "LIB003")
    assert "libcudnn.so.7" in checked.finding("LIB003")["subject"]


def test_tensorflow_2_10_does_not_look_into_its_conda_environment_by_itself(tmp_path: Path) -> None:
    machine = tensorflow_2_10(Machine(tmp_path / "m"))
    del machine.environment["LD_LIBRARY_PATH"]
    checked = ill(machine, "LIB003")
    assert f"{machine.prefix}/lib/libcudart.so.11.0" in str(checked.finding("LIB003")["evidence"])


def test_tensorflow_2_10_in_conda_without_cudnn(tmp_path: Path) -> None:
    machine = tensorflow_2_10(Machine(tmp_path / "m"))
    for file in machine.path(f"{machine.prefix}/lib").glob("libcudnn*"):
        file.unlink()
    assert unusable(ill(machine, "CDN001"), "CDN001")


def test_tensorflow_2_13_never_looks_into_pips_wheels(tmp_path: Path) -> None:
    machine = tensorflow_2_13(Machine(tmp_path / "m"))
    machine.export(LD_LIBRARY_PATH=f"{machine.prefix}/lib")
    assert ill(machine, "LIB002").finding("LIB002")["subject"] == "libcudnn.so.8"


def test_tensorflow_2_16_1_looks_for_cudart_alone_in_the_wheels(tmp_path: Path) -> None:
    machine = eras.computer(Machine(tmp_path / "m")).venv()
    eras.wheels(eras.tensorflow(machine, "2.16.1"), eras.requirements("2.16.2"))
    subject = ill(machine, "LIB002").finding("LIB002")["subject"]
    assert "libcudart" not in subject
    assert subject.split(", ")[-1] == "libcudnn.so.8"


def test_tensorflow_2_17_whose_extra_was_not_asked_for(tmp_path: Path) -> None:
    machine = eras.tensorflow(eras.computer(Machine(tmp_path / "m")).venv(), "2.17.1")
    finding = ill(machine, "LIB001").finding("LIB001")
    assert finding["remedy"] == "/opt/venv/bin/python -m pip install 'tensorflow[and-cuda]==2.17.1'"


def test_pytorch_that_misses_a_wheel_cannot_be_imported(tmp_path: Path) -> None:
    machine = eras.torch(eras.computer(Machine(tmp_path / "m")).venv())
    eras.torch_wheels(machine, without=["cufft"])
    checked = ill(machine, "LIB001")
    finding = checked.finding("LIB001")
    assert (finding["subject"], finding["remedy"]) == (
        "libcufft.so.11",
        "/opt/venv/bin/python -m pip install torch==2.10.0",
    )
    assert "libtorch_cuda.so (DT_NEEDED)" in str(finding["evidence"])
    assert "`import torch` fails" in finding["message"]
    assert unusable(checked, "LIB001")


def test_pytorch_without_cudnn(tmp_path: Path) -> None:
    machine = eras.torch(eras.computer(Machine(tmp_path / "m")).venv())
    assert ill(eras.torch_wheels(machine, without=["cudnn"]), "CDN001").finding("CDN001")["subject"] == (
        "libcudnn.so.9"
    )


def test_pytorch_without_cusolver_uses_the_gpu_and_fails_in_linalg(tmp_path: Path) -> None:
    machine = eras.torch(eras.computer(Machine(tmp_path / "m")).venv())
    checked = ill(eras.torch_wheels(machine, without=["cusolver", "cuda-nvrtc"]), "LIB001", "LIB001")
    found = {f["subject"]: f for f in checked.report["findings"]}
    assert found["libcusolver.so.11"]["severity"] == "warning"
    assert "torch.linalg" in found["libcusolver.so.11"]["message"]
    assert "compiled at run time" in found["libnvrtc.so.12"]["message"]
    assert checked.report["verdicts"][0]["gpu"] == "usable"


def test_pytorch_for_cuda_13_beside_the_wheels_of_cuda_12(tmp_path: Path) -> None:
    machine = eras.computer(Machine(tmp_path / "m"), "580.95.05", "13.0").venv()
    eras.torch_wheels(eras.torch(machine, "2.12.1", "13.0"), "2.10.0")
    codes = machine.check().codes
    assert "LIB005" in codes or "LIB001" in codes


def test_pytorch_whose_cublas_was_cut_short(tmp_path: Path) -> None:
    machine = torch_cuda_12(Machine(tmp_path / "m"))
    file = machine.path(f"{machine.site_packages}/nvidia/cublas/lib/libcublas.so.12")
    file.write_bytes(file.read_bytes()[:40])
    checked = ill(machine, "LIB007")
    assert "--force-reinstall --no-deps nvidia-cublas-cu12==12.8.4.1" in checked.finding("LIB007")["remedy"]


def test_pytorch_2_1_whose_nvjitlink_is_missing(tmp_path: Path) -> None:
    machine = eras.torch(eras.computer(Machine(tmp_path / "m")).venv(), "2.1.2", "12.1")
    eras.torch_wheels(machine, "2.1.2", without=["nvjitlink"])
    assert "LIB008" in machine.check().codes


def test_the_cpu_build_of_pytorch_beside_a_gpu(tmp_path: Path) -> None:
    machine = eras.torch(eras.computer(Machine(tmp_path / "m")).venv(), "2.13.0", "")
    assert unusable(ill(machine, "PKG002"), "PKG002")


def test_the_cpu_build_of_pytorch_on_a_machine_without_a_gpu_is_healthy(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("debian", "12").cpus(4).venv()
    checked = eras.torch(machine, "2.13.0", "").check()
    assert (checked.status, checked.codes) == (0, ["GPU001"])
    assert checked.report["verdicts"][0]["gpu"] == "absent"


def test_jax_without_its_plugin_is_for_the_cpu_only(tmp_path: Path) -> None:
    machine = eras.jax(eras.computer(Machine(tmp_path / "m")).venv(version="3.12.4"), major=0)
    checked = ill(machine, "PKG002")
    assert "'jax[cuda12]==0.10.2'" in checked.finding("PKG002")["remedy"]


def test_jax_with_half_of_its_plugin_is_for_the_cpu_only(tmp_path: Path) -> None:
    machine = jax_cuda_12(Machine(tmp_path / "m"))
    machine.path(f"{machine.site_packages}/jax_plugins/xla_cuda12/xla_cuda_plugin.so").unlink()
    assert "PKG002" in machine.check().causes


@pytest.mark.parametrize(
    ("component", "soname", "code"),
    [
        ("cuda-cupti", "libcupti.so.12", "LIB001"),
        ("cufft", "libcufft.so.11", "LIB001"),
        ("cudnn", "libcudnn.so.9", "CDN001"),
    ],
)
def test_jax_gives_the_gpu_up_for_one_missing_library(
    tmp_path: Path, component: str, soname: str, code: str
) -> None:
    machine = eras.jax(eras.computer(Machine(tmp_path / "m")).venv(version="3.12.4"))
    checked = ill(eras.jax_wheels(machine, without=[component]), code)
    assert checked.finding(code)["subject"] == soname
    assert checked.finding(code)["remedy"] == "/opt/venv/bin/python -m pip install 'jax[cuda12]==0.10.2'"


def test_jax_for_cuda_13_without_cusparse(tmp_path: Path) -> None:
    machine = eras.computer(Machine(tmp_path / "m"), "580.95.05", "13.0").venv(version="3.12.4")
    eras.jax_wheels(eras.jax(machine, major=13), major=13, without=["cusparse"])
    assert ill(machine, "LIB001").finding("LIB001")["subject"] == "libcusparse.so.12"


def test_three_frameworks_in_one_environment_each_get_a_verdict(tmp_path: Path) -> None:
    machine = with_extra("2.20.0")(Machine(tmp_path / "m"))
    eras.torch(eras.jax(machine, major=0), "2.13.0", "")
    verdicts = {v["framework"]: (v["gpu"], v["cause"]) for v in machine.check().report["verdicts"]}
    assert verdicts == {
        "tensorflow": ("usable", None),
        "torch": ("unusable", "PKG002"),
        "jax": ("unusable", "PKG002"),
    }
