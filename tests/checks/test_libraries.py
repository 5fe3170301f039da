"""Library conditions, each on a machine that has it; the healthy twin is in test_healthy.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.conftest import needs_overlay
from tests.machines.compile import stub_library
from tests.machines.machine import Machine
from tests.machines.overlay import check_inside, run_inside
from tests.machines.wheels import FRAMEWORK_RUNPATH

LINK = "nvidia/cusparse/lib/libcusolver.so.11"


def wheel(machine: Machine, path: str) -> Path:
    return machine.path(f"{machine.site_packages}/nvidia/{path}")


def test_a_library_that_is_nowhere_is_missing_and_the_extra_brings_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("ubuntu", "24.04").driver().venv().tensorflow()
    machine.nvidia_wheels(without=["cufft"])
    machine.link(f"{machine.site_packages}/{LINK}", "../../cusolver/lib/libcusolver.so.11")
    checked = machine.check()
    assert checked.causes == ["LIB001"]
    assert checked.finding("LIB001")["subject"] == "libcufft.so.11"
    assert checked.finding("LIB001")["remedy"] == (
        "/opt/venv/bin/python -m pip install 'tensorflow[and-cuda]==2.21.0'"
    )


def test_a_wheel_that_has_lost_its_library_is_installed_again(machine: Machine) -> None:
    """pip believes it is there: the extra alone would change nothing."""
    wheel(machine, "cufft/lib/libcufft.so.11").unlink()
    checked = machine.check()
    assert checked.causes == ["LIB001"]
    assert checked.finding("LIB001")["remedy"] == (
        "/opt/venv/bin/python -m pip install --force-reinstall --no-deps nvidia-cufft-cu12==11.4.1.4"
    )


def test_several_missing_libraries_are_one_finding(machine: Machine) -> None:
    for path in ("cufft/lib/libcufft.so.11", "cublas/lib/libcublas.so.12", "cublas/lib/libcublasLt.so.12"):
        wheel(machine, path).unlink()
    finding = machine.check().finding("LIB001")
    assert finding["subject"] == "libcublas.so.12, libcublasLt.so.12, libcufft.so.11"


def test_only_cudnn_missing_is_missing_cudnn(machine: Machine) -> None:
    wheel(machine, "cudnn/lib/libcudnn.so.9").unlink()
    checked = machine.check()
    assert checked.causes == ["CDN001"]


def test_a_wheels_library_outside_the_runpath_is_pip_cuda_libs_not_on_path(machine: Machine) -> None:
    machine.path(f"{machine.site_packages}/{LINK}").unlink()
    checked = machine.check()
    assert checked.causes == ["LIB002"]
    evidence = {e["what"]: e["value"] for e in checked.finding("LIB002")["evidence"]}
    assert evidence["needed by"] == "libtensorflow_framework.so.2 (dlopen)"
    assert evidence["is at"].endswith("/site-packages/nvidia/cusolver/lib/libcusolver.so.11")
    assert evidence["looked in"].startswith(
        "LD_LIBRARY_PATH (unset), its RUNPATH (18 directories), ld.so.cache"
    )


def test_the_same_library_on_ld_library_path_is_found(machine: Machine) -> None:
    machine.path(f"{machine.site_packages}/{LINK}").unlink()
    machine.export(LD_LIBRARY_PATH=f"{machine.site_packages}/nvidia/cusolver/lib")
    assert machine.check().codes == []


def test_a_toolkit_whose_directory_is_not_searched_is_ld_library_path_wrong(machine: Machine) -> None:
    wheel(machine, "cufft/lib/libcufft.so.11").unlink()
    machine.library("/usr/local/cuda-12.5/lib64/libcufft.so.11")
    checked = machine.check()
    assert checked.causes == ["LIB003"]
    assert "/usr/local/cuda-12.5/lib64/libcufft.so.11" in str(checked.finding("LIB003")["evidence"])
    machine.export(LD_LIBRARY_PATH="/usr/local/cuda-12.5/lib64")
    assert machine.check().codes == []


def test_another_version_of_the_library_is_a_version_mismatch_with_its_candidates(machine: Machine) -> None:
    wheel(machine, "cufft/lib/libcufft.so.11").unlink()
    machine.library("/usr/local/cuda-11.8/lib64/libcufft.so.10")
    checked = machine.check()
    assert checked.causes == ["LIB005"]
    assert "libcufft.so.10" in checked.finding("LIB005")["message"]


def test_a_dangling_link_in_the_search_path_is_named_with_its_target(machine: Machine) -> None:
    machine.link(f"{machine.site_packages}/nvidia/cufft/lib/libcufft.so.11", "libcufft.so.11.4.1")
    checked = machine.check()
    assert checked.causes == ["LIB006"]
    assert "libcufft.so.11.4.1" in checked.finding("LIB006")["message"]


def test_a_link_that_leads_in_a_circle_is_named(machine: Machine) -> None:
    machine.link(f"{machine.site_packages}/nvidia/cufft/lib/libcufft.so.11", "libcufft.so.11")
    assert machine.check().causes == ["LIB006"]


@pytest.mark.parametrize(
    "content", [b"", b"not a library\n", b"\x7fELF" + b"\x00" * 100, b"\x7fELF\x02\x01\x01"]
)
def test_a_file_that_is_no_library_is_unusable(machine: Machine, content: bytes) -> None:
    wheel(machine, "cufft/lib/libcufft.so.11").write_bytes(content)
    checked = machine.check()
    assert checked.causes == ["LIB007"]
    assert "libcufft.so.11" in checked.finding("LIB007")["message"]


def test_a_library_cut_short_in_the_middle_is_not_taken_for_good(machine: Machine) -> None:
    path = wheel(machine, "cufft/lib/libcufft.so.11")
    path.write_bytes(path.read_bytes()[:400])
    assert machine.check().causes == ["LIB007"]


def test_a_library_for_another_machine_is_unusable(machine: Machine) -> None:
    path = wheel(machine, "cufft/lib/libcufft.so.11")
    content = bytearray(path.read_bytes())
    content[18:20] = (183).to_bytes(2, "little")  # e_machine: EM_AARCH64
    path.write_bytes(content)
    checked = machine.check()
    assert checked.causes == ["LIB007"]
    assert "aarch64" in str(checked.finding("LIB007"))


def test_a_found_library_whose_own_need_is_missing_names_that_need(machine: Machine) -> None:
    wheel(machine, "nvjitlink/lib/libnvJitLink.so.12").unlink()
    checked = machine.check()
    assert checked.causes == ["LIB008"]
    assert checked.finding("LIB008")["subject"] == "libnvJitLink.so.12"


def test_a_newer_toolkit_on_ld_library_path_shadows_the_wheel_and_is_a_warning(machine: Machine) -> None:
    directory = "/usr/local/cuda-12.9/lib64"
    machine.library(f"{directory}/libcufft.so.11.4.9.9", soname="libcufft.so.11")
    machine.link(f"{directory}/libcufft.so.11", "libcufft.so.11.4.9.9").export(LD_LIBRARY_PATH=directory)
    checked = machine.check()
    finding = checked.finding("LIB004")
    assert (checked.status, finding["severity"], finding["because"]) == (0, "warning", [])
    assert f"LD_LIBRARY_PATH={directory}" in str(finding["evidence"])
    assert finding["remedy"] == "unset LD_LIBRARY_PATH"
    assert "11.4.9.9" in finding["message"]


def test_an_old_cudnn_that_shadows_the_wheel_leads_and_too_old_follows(machine: Machine) -> None:
    directory = "/usr/local/cuda/lib64"
    machine.library(f"{directory}/libcudnn.so.9.1.0", soname="libcudnn.so.9")
    machine.link(f"{directory}/libcudnn.so.9", "libcudnn.so.9.1.0").export(
        LD_LIBRARY_PATH=f"/opt/x:{directory}"
    )
    checked = machine.check()
    assert checked.causes[0] == "LIB004"
    assert checked.finding("LIB004")["severity"] == "error"
    assert checked.finding("LIB004")["remedy"] == "export LD_LIBRARY_PATH=/opt/x"
    assert checked.finding("CDN002")["because"]
    assert checked.report["verdicts"][0]["cause"] == "LIB004"


def test_the_wheels_own_directory_on_ld_library_path_shadows_nothing(machine: Machine) -> None:
    machine.export(LD_LIBRARY_PATH=f"{machine.site_packages}/nvidia/cudnn/lib")
    assert machine.check().codes == []


def test_an_old_cudnn_wheel_is_too_old_for_the_build(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("ubuntu", "22.04").driver().venv().tensorflow()
    machine.nvidia_wheels(without=["cudnn"]).nvidia_wheel("cudnn", "9.1.0.70")
    machine.link(f"{machine.site_packages}/{LINK}", "../../cusolver/lib/libcusolver.so.11")
    checked = machine.check()
    assert checked.causes == ["PKG009"]
    assert "9.1.0.70" in checked.finding("CDN002")["message"]


def test_a_cudnn_whose_version_cannot_be_told_is_unknown_and_no_pass(machine: Machine) -> None:
    directory = "/opt/cudnn/lib"
    machine.library(f"{directory}/libcudnn.so.9").export(LD_LIBRARY_PATH=directory)
    checked = machine.check()
    (status,) = [c for c in checked.report["checks"] if c["code"] == "CDN002"]
    assert status["status"] == "unknown"


def test_a_cpu_build_beside_a_gpu_leads_and_no_library_is_asked_for(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("ubuntu", "24.04").driver().venv()
    checked = machine.tensorflow(distribution="tensorflow-cpu", cuda="").check()
    assert checked.causes == ["PKG002"]
    assert "uninstall -y tensorflow-cpu" in checked.finding("PKG002")["remedy"]


def test_no_framework_beside_a_gpu_is_a_note_with_the_command_that_installs_one(tmp_path: Path) -> None:
    checked = Machine(tmp_path / "m").os("ubuntu", "24.04").cpus(4).driver().venv().check()
    assert (checked.status, checked.codes) == (0, ["PKG001"])
    assert (
        checked.finding("PKG001")["remedy"]
        == "/opt/venv/bin/python -m pip install 'tensorflow[and-cuda]==2.21.0'"
    )


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_a_damaged_ld_so_cache_is_said_and_the_rest_of_the_report_stands(
    machine: Machine, damage: str
) -> None:
    if os.getuid() == 0:
        machine.file("/etc/ld.so.conf", "/usr/lib/x86_64-linux-gnu\n").ldconfig()
        whole = machine.path("/etc/ld.so.cache").read_bytes()
    else:
        whole = b"glibc-ld.so.cache1.1" + bytes(200)
    content = {"cut": whole[: len(whole) // 2], "garbage": b"\xff" * 300, "empty": b""}[damage]
    machine.file("/etc/ld.so.cache", content)
    wheel(machine, "cufft/lib/libcufft.so.11").unlink()
    checked = machine.check()
    assert "Traceback" not in checked.stderr
    assert checked.status in {1, 3}
    assert checked.report["facts"]["libraries"]["cache_problem"]


@needs_overlay
def test_the_real_loader_agrees_that_the_library_is_missing_and_then_found(machine: Machine) -> None:
    """The model's answer against dlopen itself, on the machine."""
    framework = f"{machine.site_packages}/tensorflow/libtensorflow_framework.so.2"
    opener = machine.path(framework)
    source = "#include <dlfcn.h>\nint try_it(const char *name) { return dlopen(name, RTLD_LAZY) != 0; }\n"
    stub_library(opener, runpath=FRAMEWORK_RUNPATH, source=source)
    code = f"import ctypes; print(ctypes.CDLL({framework!r}).try_it(b'libcusolver.so.11'))"
    python = [sys.executable, "-c", code]
    assert run_inside(machine, python).stdout == "1\n"
    assert check_inside(machine, "--quick", "--select", "LIB002").codes == []
    machine.path(f"{machine.site_packages}/{LINK}").unlink()
    assert run_inside(machine, python).stdout == "0\n"
    assert check_inside(machine, "--quick", "--select", "LIB002").codes == ["LIB002"]
