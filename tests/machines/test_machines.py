"""The simulated machines convince those who will judge them: envdoctor, pynvml and TensorFlow itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.environments import installed
from tests.machines.drivers import RTX_4090, driver_libraries
from tests.machines.machine import Machine
from tests.machines.overlay import check_inside, run_inside, why_not

LIST_GPUS = "import tensorflow as tf; print([gpu.name for gpu in tf.config.list_physical_devices('GPU')])"
GPU_0 = "['/physical_device:GPU:0']\n"

needs_overlay = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine").os("simulated", "24.04")


@pytest.fixture
def real(machine: Machine) -> Machine:
    """With a real TensorFlow 2.21; in the light environment the CUDA wheels are stubs with real names."""
    environment = installed("light") or installed("full")
    if environment is None:
        pytest.skip("no TensorFlow environment is installed: python tests/environments.py light")
    return machine.driver().real_environment(environment)


def cusolver(machine: Machine) -> str:
    return f"{machine.site_packages}/nvidia/cusolver/lib"


def test_pip_installation_has_its_known_fault_and_no_other(machine: Machine) -> None:
    machine.driver().venv().tensorflow().nvidia_wheels()
    assert machine.check().causes == ["LIB002"]


def test_healthy_twin_has_no_finding(machine: Machine) -> None:
    machine.driver().venv().tensorflow().nvidia_wheels()
    checked = machine.export(LD_LIBRARY_PATH=cusolver(machine)).check()
    assert (checked.codes, checked.status) == ([], 0)


def test_building_twice_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        driver_libraries(tmp_path / name, gpus=[RTX_4090])
    library = "libcuda.so.550.54.14"
    assert (tmp_path / "a" / library).read_bytes() == (tmp_path / "b" / library).read_bytes()


@needs_overlay
def test_machine_laid_over_this_one_is_the_one_that_programs_see(machine: Machine) -> None:
    machine.driver("550.54.14").kernel("6.8.0-45-generic").hide("/etc/hostname")
    script = """
cat /proc/driver/nvidia/version /proc/sys/kernel/osrelease /etc/os-release
ls /dev /sys/bus/pci/devices /etc/hostname
/usr/sbin/ldconfig -p | grep libcuda.so.1
"""
    done = run_inside(machine, ["/bin/sh", "-c", script])
    for text in (
        "550.54.14",
        "6.8.0-45-generic",
        "Simulated 24.04",
        "nvidiactl",
        "0000:01:00.0",
        "libcuda.so.1",
    ):
        assert text in done.stdout
    assert "'/etc/hostname': No such file" in done.stderr
    assert "Simulated 24.04" not in Path("/etc/os-release").read_text()


@needs_overlay
def test_root_without_capabilities_may_not_open_what_is_anothers(machine: Machine) -> None:
    machine.driver().nodes(mode=0o660, owner=65534)
    script = "import os; print(os.access('/dev/nvidiactl', os.R_OK))"
    for capabilities in (True, False):
        done = run_inside(machine, [sys.executable, "-c", script], capabilities=capabilities)
        assert done.stdout == f"{capabilities}\n"


@needs_overlay
def test_driver_of_the_machine_is_probed_inside(machine: Machine) -> None:
    report = check_inside(machine.driver(), "--quick").report
    assert report["facts"]["driver"]["nvml"]["simulated"]
    assert report["facts"]["driver"]["cuda"]["simulated"]


@needs_overlay
def test_driver_answers_no_user_who_may_not_open_its_nodes(machine: Machine) -> None:
    machine.driver().nodes(mode=0o660, owner=65534)
    driver = check_inside(machine, "--quick", capabilities=False).report["facts"]["driver"]
    assert (driver["nvml"]["code"], driver["cuda"]["code"]) == (4, 100)
    driver = check_inside(machine, "--quick").report["facts"]["driver"]
    assert driver["nvml"]["simulated"]


@needs_overlay
@pytest.mark.tensorflow
def test_tensorflow_registers_the_simulated_gpu(real: Machine) -> None:
    done = run_inside(real, [real.python, "-c", LIST_GPUS], {"LD_LIBRARY_PATH": cusolver(real)})
    assert done.stdout == GPU_0


@needs_overlay
@pytest.mark.tensorflow
def test_tensorflow_skips_every_gpu_for_the_cusolver_it_cannot_find(real: Machine) -> None:
    done = run_inside(real, [real.python, "-c", LIST_GPUS])
    assert done.stdout == "[]\n"
    assert "Cannot dlopen some GPU libraries" in done.stderr


@needs_overlay
@pytest.mark.tensorflow
@pytest.mark.parametrize(("code", "name"), [(100, "CUDA_ERROR_NO_DEVICE"), (999, "CUDA_ERROR_UNKNOWN")])
def test_tensorflow_reports_a_failed_cuinit_in_its_own_words(real: Machine, code: int, name: str) -> None:
    done = run_inside(real.driver(cuda=code), [real.python, "-c", LIST_GPUS])
    assert done.stdout == "[]\n"
    assert f"failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: {name}" in done.stderr
