"""Containers and WSL2: each condition on a machine that has it, and engines that do it right."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from envdoctor.diagnose import diagnose
from envdoctor.facts.containers import read_shm, try_clone3
from envdoctor.facts.gather import gather
from envdoctor.facts.model import Driver, Facts
from envdoctor.facts.root import Root
from envdoctor.target import Target
from tests.conftest import needs_overlay, workstation
from tests.machines.drivers import H100, RTX_4090
from tests.machines.machine import LIBRARIES, Machine, checked
from tests.machines.overlay import check_inside, run_inside

MARKERS = {
    "docker": ("/.dockerenv", ""),
    "podman": ("/run/.containerenv", 'engine="podman-5.2.2"\n'),
    "singularity": ("/.singularity.d/runscript", "#!/bin/sh\n"),
    "kubernetes": ("/var/run/secrets/kubernetes.io/serviceaccount/namespace", "default"),
    "lxc": ("/run/systemd/container", "lxc\n"),
}
SMALL_SHM = "26 24 0:23 / /dev/shm rw,nosuid - tmpfs shm rw,size=65536k\n"


def inside(machine: Machine, kind: str) -> Machine:
    """In a container of this kind: the host's /proc and /sys are seen, its /dev is not."""
    return machine.file(*MARKERS[kind])


def without_gpu(root: Path, kind: str) -> Machine:
    """Started without the GPU: the bus and the module are the host's, no node and no library came in."""
    machine = Machine(root).os("ubuntu", "24.04").cpus(8).venv().tensorflow().nvidia_wheels()
    site = machine.site_packages
    machine.link(f"{site}/nvidia/cusparse/lib/libcusolver.so.11", "../../cusolver/lib/libcusolver.so.11")
    return inside(machine.kernel_module("550.54.14").pci(), kind)


def shm(machine: Machine, line: str = SMALL_SHM) -> Machine:
    mounts = machine.path("/proc/self/mountinfo")
    mounts.write_text(mounts.read_text() + line)
    return machine


# --- no GPU came in ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("docker", "--gpus all"),
        ("podman", "--device nvidia.com/gpu=all"),
        ("singularity", "--nv"),
        ("kubernetes", "nvidia.com/gpu: 1"),
        ("lxc", "nvidia.runtime=true"),
    ],
)
def test_a_container_started_without_the_gpu_is_told_how_its_engine_lets_it_in(
    tmp_path: Path, kind: str, remedy: str
) -> None:
    checked = without_gpu(tmp_path / "m", kind).check()
    assert checked.causes == ["HST005"]
    assert checked.codes == ["HST005", "DRV001", "DRV007"]
    for code in ("HST005", "DRV001"):
        assert remedy in checked.finding(code)["remedy"]
    assert "ubuntu-drivers" not in str(checked.report["findings"])
    assert checked.report["verdicts"][0]["cause"] == "HST005"


def test_what_the_image_asks_for_is_evidence(tmp_path: Path) -> None:
    machine = without_gpu(tmp_path / "m", "docker").export(NVIDIA_VISIBLE_DEVICES="void")
    checked = machine.check("--ignore", "GPU002")
    assert checked.causes == ["HST005"]
    assert "'void'" in [e["value"] for e in checked.finding("HST005")["evidence"]]


def test_singularity_shows_the_nodes_and_without_nv_no_library(tmp_path: Path) -> None:
    checked = without_gpu(tmp_path / "m", "singularity").nodes().check()
    assert checked.causes == ["HST005"]
    assert "not the driver's libraries" in checked.finding("HST005")["message"]


def test_an_image_with_a_libcuda_of_its_own_still_has_no_device(tmp_path: Path) -> None:
    machine = without_gpu(tmp_path / "m", "docker").user_libraries("550.54.14")
    checked = machine.check()
    assert checked.causes == ["HST005"]
    assert "/dev/nvidia0" in checked.finding("HST005")["message"]


def test_a_host_without_its_driver_loaded_cannot_let_a_gpu_in(tmp_path: Path) -> None:
    machine = without_gpu(tmp_path / "m", "docker").pci(driver="")
    for path in ("/proc/driver", "/sys/module"):
        shutil.rmtree(machine.path(path))
    machine.path("/sys/module").mkdir()
    checked = machine.check()
    assert checked.causes == ["DRV001"]
    assert checked.finding("DRV001")["remedy"].startswith("on the host of the docker container, not in it")


@needs_overlay
def test_a_container_without_the_compute_capability_has_the_monitoring_half(machine: Machine) -> None:
    for name in ("libcuda.so.1", "libcuda.so.550.54.14"):
        machine.path(f"{LIBRARIES}/{name}").unlink()
    checked = check_inside(inside(machine, "docker"), "--quick")
    assert checked.causes == ["HST005"]
    assert "NVIDIA_DRIVER_CAPABILITIES=compute" in checked.finding("HST005")["remedy"]


@pytest.mark.parametrize("kind", ["docker", "podman", "kubernetes", "lxc"])
def test_a_container_with_the_gpu_is_silent(machine: Machine, kind: str) -> None:
    machine.nodes(without=["nvidia-modeset"])
    checked = inside(machine, kind).check()
    assert (checked.status, checked.codes) == (0, [])
    assert checked.report["facts"]["host"]["container"] == kind


@needs_overlay
@pytest.mark.parametrize("kind", ["docker", "podman"])
def test_a_container_whose_driver_answers_is_silent(machine: Machine, kind: str) -> None:
    assert check_inside(inside(machine, kind), "--quick").codes == []


def test_singularity_with_nv_binds_the_libraries_elsewhere_and_is_silent(tmp_path: Path) -> None:
    machine = without_gpu(tmp_path / "m", "singularity").nodes()
    machine.user_libraries("550.54.14", directory="/.singularity.d/libs")
    for name in ("libcuda", "libnvidia-ml"):  # bound files, not links
        place = machine.path(f"/.singularity.d/libs/{name}.so.1")
        place.unlink()
        shutil.copy(machine.path(f"/.singularity.d/libs/{name}.so.550.54.14"), place)
    machine.export(LD_LIBRARY_PATH="/.singularity.d/libs")
    assert (machine.check().status, machine.check().codes) == (0, [])


def test_docker_on_a_machine_without_a_gpu_has_one_note(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("debian", "12").cpus(4).venv().tensorflow().nvidia_wheels()
    checked = shm(inside(machine, "docker")).check()
    assert (checked.status, checked.codes) == (0, ["GPU001"])


def test_a_gpu_that_no_container_can_show_is_no_gpu_even_where_one_is_required(tmp_path: Path) -> None:
    machine = without_gpu(tmp_path / "m", "docker")
    for path in ("/proc/driver", "/sys/bus/pci/devices", "/sys/module"):
        shutil.rmtree(machine.path(path))
        machine.path(path).mkdir()
    assert machine.check("--gpu").causes == ["GPU001"]


# --- access lost ------------------------------------------------------------------------------------


@needs_overlay
@pytest.mark.parametrize(("kind", "remedy"), [("docker", "docker restart"), ("podman", "podman restart")])
def test_nvml_unknown_error_in_a_container_is_lost_access(machine: Machine, kind: str, remedy: str) -> None:
    machine.user_libraries("550.54.14", nvml=999, cuda=999)
    checked = check_inside(inside(machine, kind), "--quick")
    assert checked.causes == ["HST007"]
    assert "DRV010" in checked.codes
    assert remedy in checked.finding("HST007")["remedy"]


@needs_overlay
def test_the_same_answer_on_a_host_is_not_the_containers_fault(machine: Machine) -> None:
    machine.user_libraries("550.54.14", nvml=999, cuda=999)
    assert "HST007" not in check_inside(machine, "--quick").codes


def facts_of(machine: Machine) -> Facts:
    target = Target(python=machine.python, chosen_by="--python", root=Root(str(machine.root)), environment={})
    return gather(target, quick=True)


def test_a_node_that_its_mode_opens_and_the_kernel_refuses_is_the_device_cgroup(machine: Machine) -> None:
    """No device cgroup can be made here: the nodes are told to be refused, all else is read."""
    facts = facts_of(inside(machine, "docker"))
    nodes = facts.driver.nodes
    assert isinstance(nodes, tuple)
    refused = tuple(replace(n, readable=False, writable=False) for n in nodes)
    driver: Driver = replace(facts.driver, nodes=refused)
    found = diagnose(replace(facts, driver=driver))
    assert [f.code for f in found.roots] == ["HST007"]
    assert "DRV008" in found.codes()
    assert "HST007" not in diagnose(facts).codes()


# --- threads under an old seccomp profile -----------------------------------------------------------

# Installs an old engine's filter, then becomes the program: clone3 fails with EPERM, all else is allowed.
_FILTER = """
import ctypes, os, struct, sys
code = b"".join(struct.pack("HBBI", *i) for i in (
    (0x20, 0, 0, 0), (0x15, 0, 1, 435), (0x06, 0, 0, 0x00050000 | {error}), (0x06, 0, 0, 0x7FFF0000)))
text = ctypes.create_string_buffer(code)
program = struct.pack("HP", 4, ctypes.addressof(text))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""
EPERM, ENOSYS = 1, 38


def filtered(machine: Machine, error: int) -> list[str]:
    command = [sys.executable, "-m", "envdoctor", "check", "--json", "--quick"]
    done = run_inside(machine, [sys.executable, "-c", _FILTER.format(error=error), *command])
    return checked(done).codes


@needs_overlay
def test_a_filter_that_answers_clone3_with_eperm_is_named(machine: Machine) -> None:
    assert filtered(inside(machine, "docker"), EPERM) == ["HST008"]


@needs_overlay
def test_a_filter_that_answers_enosys_is_what_glibc_expects(machine: Machine) -> None:
    assert filtered(inside(machine, "docker"), ENOSYS) == []


def test_without_a_filter_clone3_has_no_error() -> None:
    assert try_clone3() == ""


def test_the_filter_of_these_tests_does_stop_threads() -> None:
    """So that the finding's claim is seen: glibc from 2.34 on cannot start a thread under it."""
    program = "import threading; threading.Thread(target=print).start()"
    command = [sys.executable, "-c", _FILTER.format(error=EPERM), sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "can't start new thread" in done.stderr


# --- shared memory ----------------------------------------------------------------------------------


def test_two_gpus_with_dockers_shared_memory_are_warned(tmp_path: Path) -> None:
    machine = shm(inside(workstation(tmp_path / "m", gpus=(RTX_4090, H100)), "docker"))
    checked = machine.check()
    assert checked.causes == ["HST011"]
    assert (checked.status, checked.finding("HST011")["severity"]) == (0, "warning")
    assert "--shm-size" in checked.finding("HST011")["remedy"]


@pytest.mark.parametrize(
    "line", [SMALL_SHM.replace("65536k", "8388608k"), SMALL_SHM.replace(",size=65536k", "")]
)
def test_two_gpus_with_enough_shared_memory_are_silent(tmp_path: Path, line: str) -> None:
    machine = shm(inside(workstation(tmp_path / "m", gpus=(RTX_4090, H100)), "docker"), line)
    assert machine.check().codes == []


def test_one_gpu_with_dockers_shared_memory_is_silent(machine: Machine) -> None:
    assert shm(inside(machine, "docker")).check().codes == []


@pytest.mark.parametrize(("size", "value"), [("64m", 64 << 20), ("1g", 1 << 30), ("4096", 4096)])
def test_tmpfs_sizes_are_read_with_their_units(tmp_path: Path, size: str, value: int) -> None:
    machine = Machine(tmp_path).file("/proc/self/mountinfo", SMALL_SHM.replace("65536k", size))
    assert read_shm(Root(str(machine.root))) == value


# --- the engine on the host -------------------------------------------------------------------------


def engine(machine: Machine, *programs: str, daemon_json: str = "") -> Machine:
    for program in ("dockerd", *programs):
        machine.file(f"/usr/bin/{program}", "", mode=0o755)
    return machine.file("/etc/docker/daemon.json", daemon_json) if daemon_json else machine


RUNTIME = '{"runtimes": {"nvidia": {"path": "nvidia-container-runtime", "runtimeArgs": []}}}'


def test_docker_without_the_toolkit_is_a_note_and_no_alarm(machine: Machine) -> None:
    checked = engine(machine).check()
    assert (checked.status, checked.codes) == (0, ["HST006"])
    assert checked.finding("HST006")["severity"] == "note"
    assert "apt-get install -y nvidia-container-toolkit" in checked.finding("HST006")["remedy"]


@pytest.mark.parametrize(
    "daemon_json", [RUNTIME, '{"default-runtime": "nvidia", ' + RUNTIME[1:], '{"default-runtime": "nvidia"}']
)
def test_a_runtime_that_is_configured_and_not_installed_is_warned(machine: Machine, daemon_json: str) -> None:
    checked = engine(machine, daemon_json=daemon_json).check()
    assert checked.causes == ["HST006"]
    assert checked.finding("HST006")["severity"] == "warning"


@pytest.mark.parametrize(
    ("programs", "daemon_json"),
    [
        (["nvidia-container-runtime-hook", "nvidia-ctk"], ""),
        (["nvidia-ctk", "nvidia-container-runtime"], RUNTIME),
        (["nvidia-ctk"], "not JSON"),
        (["nvidia-ctk"], "[1]"),
        (["nvidia-ctk"], '{"runtimes": ["nvidia"]}'),
    ],
)
def test_docker_with_the_toolkit_is_silent(machine: Machine, programs: list[str], daemon_json: str) -> None:
    assert engine(machine, *programs, daemon_json=daemon_json).check().codes == []


def test_docker_with_a_cdi_description_is_silent(machine: Machine) -> None:
    assert engine(machine).file("/etc/cdi/nvidia.yaml", "cdiVersion: 0.5.0\n").check().codes == []


def test_docker_without_a_gpu_needs_no_toolkit(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("debian", "12").cpus(4).venv().tensorflow().nvidia_wheels()
    assert engine(machine).check().codes == ["GPU001"]


# --- WSL2 -------------------------------------------------------------------------------------------

WSL = "/usr/lib/wsl/lib"


def wsl(root: Path, *, driver: bool = True, searched: bool = True) -> Machine:
    """As Windows sets it up: one node, its libraries in a directory of their own, no kernel module."""
    machine = Machine(root).os("ubuntu", "24.04").kernel("5.15.153.1-microsoft-standard-WSL2").cpus(8)
    machine.file("/dev/dxg")
    machine._pci_device("0000:00:00.0", "0x1414", "0x030200", "0x008e", "dxgkrnl")
    if driver:
        machine.user_libraries("550.54.14", directory=WSL)
        for name in ("libcuda.so", "libnvidia-ml.so"):
            whole = machine.path(f"{WSL}/{name}.550.54.14")
            whole.rename(machine.path(f"{WSL}/{name}.1.1"))
            machine.link(f"{WSL}/{name}.1", f"{name}.1.1")
    machine.venv().tensorflow().nvidia_wheels()
    site = machine.site_packages
    machine.link(f"{site}/nvidia/cusparse/lib/libcusolver.so.11", "../../cusolver/lib/libcusolver.so.11")
    if searched:
        machine.export(LD_LIBRARY_PATH=WSL)
    return machine


def test_a_healthy_wsl2_is_silent(tmp_path: Path) -> None:
    checked = wsl(tmp_path / "m").check()
    assert (checked.status, checked.codes) == (0, [])
    assert checked.report["facts"]["host"]["wsl"] is True
    assert checked.report["verdicts"][0]["gpu"] == "usable"


@needs_overlay
def test_a_healthy_wsl2_whose_driver_answers_is_silent(tmp_path: Path) -> None:
    assert check_inside(wsl(tmp_path / "m"), "--quick").codes == []


def test_windows_libcuda_that_is_not_searched_is_named(tmp_path: Path) -> None:
    checked = wsl(tmp_path / "m", searched=False).check()
    assert checked.causes == ["HST009"]
    assert "DRV001" in checked.codes
    assert "ld.wsl.conf" in checked.finding("HST009")["remedy"]


@needs_overlay
def test_windows_libcuda_that_is_not_searched_is_named_by_the_machine_itself(tmp_path: Path) -> None:
    assert check_inside(wsl(tmp_path / "m", searched=False), "--quick").causes == ["HST009"]


def test_a_linux_driver_in_wsl2_hides_the_one_of_windows(tmp_path: Path) -> None:
    machine = wsl(tmp_path / "m", searched=False).user_libraries("550.54.14")
    checked = machine.check()
    assert checked.causes == ["HST010"]
    assert "apt-get purge" in checked.finding("HST010")["remedy"]


@needs_overlay
def test_what_cuinit_says_under_a_linux_driver_in_wsl2_follows_from_it(tmp_path: Path) -> None:
    machine = wsl(tmp_path / "m", searched=False).user_libraries("550.54.14", nvml=9, cuda=100)
    checked = check_inside(machine, "--quick")
    assert checked.causes == ["HST010"]
    assert checked.codes == ["HST010", "DRV009"]


@needs_overlay
def test_a_linux_library_in_wsl2_that_answers_is_let_be(tmp_path: Path) -> None:
    machine = wsl(tmp_path / "m", searched=False).user_libraries("550.54.14")
    assert check_inside(machine, "--quick").codes == []


def test_wsl2_without_an_nvidia_driver_in_windows_has_no_gpu(tmp_path: Path) -> None:
    checked = wsl(tmp_path / "m", driver=False, searched=False).check()
    assert (checked.status, checked.codes) == (0, ["GPU001"])


def test_wsl2_with_a_required_gpu_is_sent_to_windows(tmp_path: Path) -> None:
    checked = wsl(tmp_path / "m", driver=False, searched=False).check("--gpu")
    assert checked.causes == ["GPU001"]
    assert "in Windows" in checked.finding("DRV001")["remedy"]
