"""C libraries, CPU, platform, Secure Boot, suspend: each on a machine that has it, and its healthy twin."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import needs_overlay, workstation
from tests.machines.drivers import RTX_4090
from tests.machines.machine import LIBRARIES, Machine
from tests.machines.overlay import check_inside
from tests.machines.versioned import c_library, user_library
from tests.machines.wheels import FRAMEWORK_RUNPATH

GLIBC_217 = ("GLIBC_2.2.5", "GLIBC_2.14", "GLIBC_2.17")
GLIBC_239 = (*GLIBC_217, "GLIBC_2.27", "GLIBC_2.34", "GLIBC_2.39")
CXX_4_8 = ("GLIBCXX_3.4", "GLIBCXX_3.4.19", "CXXABI_1.3", "CXXABI_1.3.7")
CXX_13 = (*CXX_4_8, "GLIBCXX_3.4.22", "GLIBCXX_3.4.32", "CXXABI_1.3.13", "CXXABI_1.3.14")
# What TensorFlow 2.21's files need (readelf -V of the wheel, manylinux_2_27)
NEEDS_221 = {
    "libc.so.6": ("GLIBC_2.2.5", "GLIBC_2.14"),
    "libm.so.6": ("GLIBC_2.2.5", "GLIBC_2.27"),
    "libstdc++.so.6": ("GLIBCXX_3.4", "GLIBCXX_3.4.22", "CXXABI_1.3"),
}
NEEDS_2014 = {"libc.so.6": GLIBC_217, "libstdc++.so.6": ("GLIBCXX_3.4.19",)}
MANYLINUX = "Wheel-Version: 1.0\nTag: cp311-cp311-manylinux_2_27_x86_64\n"


def c_libraries(
    machine: Machine, glibc: tuple[str, ...], cxx: tuple[str, ...], place: str = LIBRARIES
) -> Machine:
    for soname, versions in (("libc.so.6", glibc), ("libm.so.6", glibc), ("libstdc++.so.6", cxx)):
        c_library(machine.path(f"{place}/{soname}"), soname, versions)
    return machine


def built_with(machine: Machine, needs: dict[str, tuple[str, ...]], *, weak: bool = False) -> Machine:
    """TensorFlow's loader library, needing what a compiler of some year wrote into it."""
    framework = machine.path(f"{machine.site_packages}/tensorflow/libtensorflow_framework.so.2")
    user_library(framework, needs, runpath=FRAMEWORK_RUNPATH, weak=weak)
    return machine


def wheel(machine: Machine, text: str = MANYLINUX, name: str = "tensorflow-2.21.0") -> Machine:
    return machine.file(f"{machine.site_packages}/{name}.dist-info/WHEEL", text)


# --- C libraries ------------------------------------------------------------------------------------


def test_a_wheel_copied_to_an_old_system_needs_a_newer_glibc(machine: Machine) -> None:
    checked = built_with(c_libraries(machine, GLIBC_217, CXX_13), NEEDS_221).check()
    assert checked.causes == ["HST001"]
    message = checked.finding("HST001")["message"]
    assert "GLIBC_2.27" in message
    assert "GLIBC_2.17" in message
    assert "--only-binary" in checked.finding("HST001")["remedy"]


def test_the_same_wheel_on_a_new_system_is_no_finding(machine: Machine) -> None:
    assert built_with(c_libraries(machine, GLIBC_239, CXX_13), NEEDS_221).check().codes == []


def test_conda_on_centos_7_with_a_wheel_of_its_time_is_silent(machine: Machine) -> None:
    machine.os("centos", "7", like="rhel fedora")
    assert built_with(c_libraries(machine, GLIBC_217, CXX_4_8), NEEDS_2014).check().codes == []


def test_a_version_that_only_weak_symbols_need_may_be_missing(machine: Machine) -> None:
    assert built_with(c_libraries(machine, GLIBC_217, CXX_13), NEEDS_221, weak=True).check().codes == []


def test_a_c_library_without_symbol_versions_satisfies_every_need(machine: Machine) -> None:
    for soname in ("libc.so.6", "libm.so.6", "libstdc++.so.6"):
        machine.library(f"{LIBRARIES}/{soname}")
    assert built_with(machine, NEEDS_221).check().codes == []


def test_an_old_libstdcxx_of_the_system_is_named_with_what_it_ends_at(machine: Machine) -> None:
    checked = built_with(c_libraries(machine, GLIBC_239, CXX_4_8), NEEDS_221).check()
    assert checked.causes == ["HST002"]
    assert "GLIBCXX_3.4.22" in checked.finding("HST002")["message"]
    assert "GLIBCXX_3.4.19" in checked.finding("HST002")["message"]
    assert "libstdc++6" in checked.finding("HST002")["remedy"]


def test_an_old_libstdcxx_on_ld_library_path_hides_the_new_one(machine: Machine) -> None:
    built_with(c_libraries(machine, GLIBC_239, CXX_13), NEEDS_221)
    c_library(machine.path("/opt/gcc-4.8/lib64/libstdc++.so.6"), "libstdc++.so.6", CXX_4_8)
    checked = machine.export(LD_LIBRARY_PATH="/opt/gcc-4.8/lib64:/opt/mine").check("--ignore", "LIB012")
    assert checked.causes == ["HST002"]
    assert checked.finding("HST002")["remedy"] == "export LD_LIBRARY_PATH=/opt/mine"
    assert any(e["value"].startswith(LIBRARIES) for e in checked.finding("HST002")["evidence"])


def test_a_new_libstdcxx_on_ld_library_path_is_no_finding(machine: Machine) -> None:
    built_with(c_libraries(machine, GLIBC_239, CXX_4_8), NEEDS_221)
    c_library(machine.path("/opt/gcc-13/lib64/libstdc++.so.6"), "libstdc++.so.6", CXX_13)
    assert machine.export(LD_LIBRARY_PATH="/opt/gcc-13/lib64").check().codes == []


def test_old_glibc_and_old_libstdcxx_both_lead(machine: Machine) -> None:
    checked = built_with(c_libraries(machine, GLIBC_217, CXX_4_8), NEEDS_221).check()
    assert checked.causes == ["HST001", "HST002"]


def test_the_real_loader_refuses_what_is_called_too_old(tmp_path: Path) -> None:
    """glibc itself, on the same two files: the version that is missing is the one that we name."""
    old = c_library(tmp_path / "libstdc++.so.6", "libstdc++.so.6", CXX_4_8)
    user = user_library(tmp_path / "libuser.so", {"libstdc++.so.6": ("GLIBCXX_3.4.19", "GLIBCXX_3.4.22")})
    program = f"import ctypes; ctypes.CDLL({str(user)!r})"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"LD_LIBRARY_PATH": str(old.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "version `GLIBCXX_3.4.22' not found" in done.stderr


# --- the CPU ----------------------------------------------------------------------------------------


def test_a_cpu_without_avx_cannot_run_the_wheel(machine: Machine) -> None:
    checked = wheel(machine).cpus(2, model="Intel(R) Celeron(R) N4000", flags="fpu sse4_2").check()
    assert checked.causes == ["HST003"]
    assert "Celeron" in checked.finding("HST003")["message"]
    assert "conda-forge" in checked.finding("HST003")["remedy"]


def test_a_virtual_machine_with_a_generic_cpu_is_told_to_show_the_hosts(machine: Machine) -> None:
    checked = wheel(machine).cpus(2, model="QEMU Virtual CPU", flags="fpu sse2 hypervisor").check()
    assert checked.causes == ["HST003"]
    assert "-cpu host" in checked.finding("HST003")["remedy"]


def test_a_cpu_without_avx_without_a_gpu_is_ill_too(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("debian", "12").cpus(2, flags="fpu sse2").venv()
    assert wheel(machine.tensorflow(cuda="")).check().causes == ["HST003", "GPU001"]


@pytest.mark.parametrize("text", ["Tag: cp311-cp311-linux_x86_64\n", ""])
def test_a_build_that_did_not_come_from_pypi_may_do_without_avx(machine: Machine, text: str) -> None:
    assert wheel(machine, text).cpus(2, flags="fpu sse2").check().codes == []


def test_a_cpu_with_avx_is_no_finding(machine: Machine) -> None:
    assert wheel(machine).check().codes == []


# --- the platform -----------------------------------------------------------------------------------


def arm_server(root: Path, **build: str) -> Machine:
    machine = Machine(root).os("ubuntu", "22.04").cpus(8).file("/lib/ld-linux-aarch64.so.1")
    return machine.kernel_module("550.54.14").pci().nodes().venv().tensorflow(**build)


def test_tensorflow_on_arm_has_no_gpu_build_and_the_cpu_build_follows(tmp_path: Path) -> None:
    machine = arm_server(tmp_path / "m", cuda="")
    machine.user_libraries("550.54.14")
    checked = machine.check("--select", "HST004", "--select", "PKG002")
    assert checked.causes == ["HST004"]
    assert checked.codes == ["HST004", "PKG002"]
    assert "NGC" in checked.finding("HST004")["remedy"]


def test_a_cpu_build_on_an_arm_server_without_a_gpu_is_no_finding(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("ubuntu", "22.04").cpus(8).file("/lib/ld-linux-aarch64.so.1")
    assert machine.venv().tensorflow(cuda="").check().codes == ["GPU001"]


def test_nvidias_own_build_on_arm_is_no_finding(tmp_path: Path) -> None:
    machine = arm_server(tmp_path / "m", cuda="12.5.1")
    assert machine.check("--select", "HST004").codes == []


def test_alpine_has_no_driver_libraries_for_any_framework(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("alpine", "3.20", like="").cpus(4).file("/lib/ld-musl-x86_64.so.1")
    checked = machine.pci().nodes().venv().tensorflow().check("--select", "HST004")
    assert checked.causes == ["HST004"]
    assert "musl" in checked.finding("HST004")["message"]


# --- Secure Boot ------------------------------------------------------------------------------------

KERNEL = "6.8.0-45-generic"
SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
ENROLLED = "/sys/firmware/efi/efivars/MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23"
OWN_KEY = "/var/lib/shim-signed/mok/MOK.der"
SIGNED = b"\x7fELF...~Module signature appended~\n"


def not_loaded(
    machine: Machine,
    *,
    on: bool = True,
    module: bytes = b"\x7fELF" + bytes(64),
    lockdown: str = "none [integrity] confidentiality",
) -> Machine:
    """The driver is installed, DKMS has built its module, and the kernel has not loaded it."""
    shutil.rmtree(machine.path("/proc/driver"))
    for name in ("nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_drm"):
        shutil.rmtree(machine.path(f"/sys/module/{name}"))
    machine.pci([RTX_4090], driver="").kernel(KERNEL)
    machine.file(f"/lib/modules/{KERNEL}/modules.dep", "kernel/x.ko:\nupdates/dkms/nvidia.ko: kernel/x.ko\n")
    machine.file(f"/lib/modules/{KERNEL}/updates/dkms/nvidia.ko", module)
    machine.file("/sys/kernel/security/lockdown", lockdown + "\n")
    return machine.file(SECURE_BOOT, b"\6\0\0\0" + bytes([on]))


def test_an_unsigned_module_under_secure_boot_explains_the_unloaded_driver(machine: Machine) -> None:
    checked = not_loaded(machine).check()
    assert checked.causes == ["DRV006"]
    assert "DRV002" in checked.codes
    assert "enroll-key" in checked.finding("DRV006")["remedy"]


@pytest.mark.parametrize("enrolled", [b"another key", None])
def test_a_module_signed_with_a_key_that_was_never_enrolled_is_refused(
    machine: Machine, enrolled: bytes | None
) -> None:
    not_loaded(machine, module=SIGNED).file(OWN_KEY, b"this machine's key")
    if enrolled:
        machine.file(ENROLLED, enrolled)
    assert machine.check().causes == ["DRV006"]


def test_a_module_whose_key_is_enrolled_is_not_refused_and_the_driver_is_merely_not_loaded(
    machine: Machine,
) -> None:
    not_loaded(machine, module=SIGNED).file(OWN_KEY, b"my key").file(ENROLLED, b"....my key....")
    assert machine.check().codes == ["DRV002"]


@pytest.mark.parametrize("machine_is", ["without secure boot", "without lockdown", "without a module"])
def test_nothing_is_laid_at_secure_boots_door_where_it_has_no_say(machine: Machine, machine_is: str) -> None:
    lockdown = "[none] integrity" if machine_is == "without lockdown" else "none [integrity]"
    not_loaded(machine, on=machine_is != "without secure boot", lockdown=lockdown)
    if machine_is == "without a module":
        machine.file(f"/lib/modules/{KERNEL}/modules.dep", "kernel/x.ko:\n")
    assert machine.check().codes == ["DRV002"]


def test_secure_boot_with_a_driver_that_is_loaded_is_silent(machine: Machine) -> None:
    assert machine.file(SECURE_BOOT, b"\6\0\0\0\1").check().codes == []


# --- suspend ----------------------------------------------------------------------------------------


@needs_overlay
def test_cuinit_999_after_a_suspend_is_told_apart(machine: Machine) -> None:
    machine.file("/sys/power/suspend_stats/success", "3\n").user_libraries("550.54.14", cuda=999)
    checked = check_inside(machine, "--quick")
    assert checked.causes == ["DRV011"]
    assert "DRV010" in checked.codes
    assert "3 times" in checked.finding("DRV011")["message"]
    assert "nvidia_uvm" in checked.finding("DRV011")["remedy"]


@needs_overlay
def test_cuinit_999_without_a_suspend_is_the_plain_one(machine: Machine) -> None:
    machine.file("/sys/power/suspend_stats/success", "0\n").user_libraries("550.54.14", cuda=999)
    assert check_inside(machine, "--quick").codes == ["DRV010"]


@needs_overlay
def test_a_missing_node_explains_cuinit_999_better_than_a_suspend(machine: Machine) -> None:
    machine.file("/sys/power/suspend_stats/success", "3\n").nodes(without=["nvidia-uvm"])
    machine.user_libraries("550.54.14", cuda=999)
    checked = check_inside(machine, "--quick")
    assert checked.causes == ["DRV007"]


@needs_overlay
def test_a_laptop_that_was_suspended_and_works_is_silent(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m").file("/sys/power/suspend_stats/success", "41\n")
    assert check_inside(machine, "--quick").codes == []


# --- an old driver and a new ptxas ------------------------------------------------------------------


def with_ptxas(root: Path, tensorflow: str, version: str = "550.54.14", supports: str = "12.4") -> Machine:
    machine = workstation(root, version=version, supports=supports)
    shutil.rmtree(machine.path(machine.prefix))
    machine.venv().tensorflow(tensorflow).nvidia_wheels()
    site = machine.site_packages
    machine.link(f"{site}/nvidia/cusparse/lib/libcusolver.so.11", "../../cusolver/lib/libcusolver.so.11")
    for file in ("bin/ptxas", "nvvm/libdevice/libdevice.10.bc"):
        machine.file(f"{site}/nvidia/cuda_nvcc/{file}", "#!/bin/sh\n", mode=0o755)
    return machine.hide("/usr/local/cuda").hide("/usr/local/bin/ptxas")  # of the machine that runs the tests


@needs_overlay
def test_a_driver_older_than_the_ptxas_of_the_wheel_is_a_note(tmp_path: Path) -> None:
    checked = check_inside(with_ptxas(tmp_path / "m", "2.18.0"), "--quick")
    assert "DRV015" in checked.codes
    assert (checked.status, checked.finding("DRV015")["severity"]) == (0, "note")
    assert "12.9.86" in checked.finding("DRV015")["message"]


@needs_overlay
@pytest.mark.parametrize(
    ("tensorflow", "version", "supports"), [("2.18.0", "580.95.05", "13.0"), ("2.21.0", "550.54.14", "12.4")]
)
def test_a_driver_as_new_as_ptxas_or_an_xla_that_does_not_ask_it_is_no_note(
    tmp_path: Path, tensorflow: str, version: str, supports: str
) -> None:
    machine = with_ptxas(tmp_path / "m", tensorflow, version, supports)
    assert "DRV015" not in check_inside(machine, "--quick").codes
