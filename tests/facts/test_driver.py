"""The driver: kernel files on fixture trees, and real children that ask compiled, simulated libraries."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envdoctor.facts.driver import (
    NOT_EXECUTED,
    gather_driver,
    parse_module_version,
    start_driver_probes,
)
from envdoctor.facts.model import (
    CudaDriver,
    Driver,
    Gpu,
    Nvml,
    PciGpu,
    ProbeFailure,
    ProbeFailureKind,
    Unavailable,
)
from envdoctor.facts.model_gpu import EccErrors, GpuFailure, Link, PcieLink
from envdoctor.facts.root import Root
from tests.machines.compile import stub_library
from tests.machines.drivers import CRASH, GIB, H100, HANG, RTX_4090, driver_libraries
from tests.machines.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")


def link(generation: int) -> PcieLink:
    """Sixteen lanes at both ends and now."""
    whole = Link(16, generation)
    return PcieLink(current=whole, gpu_maximum=whole, port_maximum=whole)


def seen(machine: Machine) -> Driver:
    """The facts below the machine's root."""
    root = Root(str(machine.root))
    return gather_driver(root, {}, start_driver_probes(root, {}))


def probed(directory: Path, environment: dict[str, str] | None = None, deadline_s: float = 5.0) -> Driver:
    """The facts of this machine, with the driver libraries in `directory`."""
    variables = {"LD_LIBRARY_PATH": str(directory), **(environment or {})}
    probes = start_driver_probes(Root(), variables)
    return gather_driver(Root(), variables, probes, deadline_s)


def simulated(tmp_path: Path, environment: dict[str, str] | None = None, **driver: Any) -> Driver:
    driver_libraries(tmp_path, **driver)
    return probed(tmp_path, environment)


# --- the kernel's files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22\nGCC version:  12.2.0\n",
            "550.54.14",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release Build\n",
            "560.35.03",
        ),
        ("NVRM version: NVIDIA UNIX aarch64 Kernel Module  535.129.03  Thu Oct 19 2023\n", "535.129.03"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  390.157  Wed Oct 12 2022\n", "390.157"),
        ("GCC version:  gcc version 12.2.0\n", ""),
    ],
)
def test_module_version_is_read_in_every_wording(text: str, version: str) -> None:
    assert parse_module_version(text) == version


def test_whole_driver_is_seen(machine: Machine) -> None:
    driver = seen(machine.driver("550.54.14", gpus=[RTX_4090, H100]))
    assert driver.kernel_module == "550.54.14"
    assert driver.modules == ("nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_drm")
    assert driver.pci == (
        PciGpu(address="0000:01:00.0", device_id="0x2684", kernel_driver="nvidia", link=link(4)),
        PciGpu(address="0000:02:00.0", device_id="0x2330", kernel_driver="nvidia", link=link(5)),
    )
    assert not isinstance(driver.nodes, Unavailable)
    assert [node.path for node in driver.nodes] == [
        "/dev/nvidia-modeset",
        "/dev/nvidia-uvm",
        "/dev/nvidia0",
        "/dev/nvidia1",
        "/dev/nvidiactl",
    ]
    assert all(node.readable and node.writable for node in driver.nodes)
    assert {node.mode[1:] for node in driver.nodes} == {"rw-rw-rw-"}


def test_machine_without_a_driver_has_none(machine: Machine) -> None:
    driver = seen(machine)
    assert (driver.kernel_module, driver.modules, driver.pci, driver.nodes) == ("", (), (), ())


def test_nothing_is_executed_below_another_root(machine: Machine) -> None:
    driver = seen(machine.driver())
    assert driver.nvml == driver.cuda == NOT_EXECUTED


def test_nouveau_holds_the_gpu(machine: Machine) -> None:
    driver = seen(machine.pci(driver="nouveau").file("/sys/module/nouveau/initstate", "live\n"))
    assert driver.modules == ("nouveau",)
    assert driver.pci == (
        PciGpu(address="0000:01:00.0", device_id="0x2684", kernel_driver="nouveau", link=link(4)),
    )


def test_unbound_gpu_has_no_kernel_driver(machine: Machine) -> None:
    assert seen(machine.pci(driver="")).pci == (
        PciGpu(address="0000:01:00.0", device_id="0x2684", kernel_driver="", link=link(4)),
    )


def test_a_gpus_sound_device_is_no_gpu(machine: Machine) -> None:
    base = "/sys/bus/pci/devices/0000:01:00.1"
    machine.file(f"{base}/vendor", "0x10de\n").file(f"{base}/class", "0x040300\n")
    assert seen(machine.file(f"{base}/device", "0x22ba\n")).pci == ()


def test_device_that_vanishes_while_it_is_read_is_passed_over(machine: Machine) -> None:
    machine.pci().path("/sys/bus/pci/devices/0000:00:02.0/vendor").unlink()
    pci = seen(machine).pci
    assert not isinstance(pci, Unavailable)
    assert len(pci) == 1


def test_machine_without_sysfs_cannot_tell_of_its_bus(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    root = Root(str(tmp_path))
    driver = gather_driver(root, {}, NOT_EXECUTED)
    assert isinstance(driver.pci, Unavailable)
    assert isinstance(driver.modules, Unavailable)


def test_machine_without_a_pci_bus_has_no_gpu_on_it(machine: Machine) -> None:
    machine.path("/sys/bus/pci/devices").rmdir()
    machine.path("/sys/bus/pci").rmdir()
    assert seen(machine).pci == ()


def test_modules_are_read_from_proc_where_sysfs_is_not_mounted(machine: Machine) -> None:
    machine.path("/sys/module").rmdir()
    machine.file(
        "/proc/modules", "nvidia_uvm 1 0 - Live 0x0\nnvidia 2 1 nvidia_uvm, Live 0x0\nsnd 3 0 - Live 0x0\n"
    )
    assert seen(machine).modules == ("nvidia", "nvidia_uvm")


def test_windows_gpu_of_wsl_is_one_node(machine: Machine) -> None:
    nodes = seen(machine.file("/dev/dxg", mode=0o666)).nodes
    assert not isinstance(nodes, Unavailable)
    assert [node.path for node in nodes] == ["/dev/dxg"]


def test_owner_and_group_are_named_from_the_targets_own_files(machine: Machine) -> None:
    machine.file("/etc/passwd", f"gamer:x:{os.getuid()}:0::/:/bin/sh\n")
    machine.file("/etc/group", f"broken line\nvideo:x:{os.getgid()}:\n").nodes(0)
    nodes = seen(machine).nodes
    assert not isinstance(nodes, Unavailable)
    assert {(node.owner, node.group) for node in nodes} == {("gamer", "video")}


def test_what_may_not_be_read_is_unavailable(machine: Machine) -> None:
    machine.kernel_module("550.54.14").path("/proc/driver/nvidia").chmod(0)
    script = """
import sys
from envdoctor.facts.driver import NOT_EXECUTED, gather_driver
from envdoctor.facts.root import Root
print(gather_driver(Root(sys.argv[1]), {}, NOT_EXECUTED).kernel_module.reason)
"""
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
    argv = [*powerless, sys.executable, "-c", script, str(machine.root)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
    finally:
        machine.path("/proc/driver/nvidia").chmod(0o755)
    assert done.stdout == "/proc/driver/nvidia/version: Permission denied\n"


@pytest.mark.parametrize("content", ["", "nothing of the kind\n", "\0\0\0"])
def test_version_file_that_names_no_version_is_unavailable(machine: Machine, content: str) -> None:
    module = seen(machine.file("/proc/driver/nvidia/version", content)).kernel_module
    assert isinstance(module, Unavailable)
    assert "names no version" in module.reason


def test_directories_and_loops_in_place_of_files_raise_nothing(machine: Machine) -> None:
    machine.link("/proc/driver/nvidia/version", "version").file("/sys/bus/pci/devices/x/vendor/y")
    machine.link("/dev/nvidia0", "nvidia0")
    machine.path("/sys/module").rmdir()
    machine.link("/sys/module", "module").link("/proc/modules", "modules")
    driver = seen(machine)
    assert isinstance(driver.kernel_module, Unavailable)
    assert isinstance(driver.modules, Unavailable)
    assert (driver.pci, driver.nodes) == ((), ())


# --- the libraries ----------------------------------------------------------------------------------


def test_healthy_driver_answers(tmp_path: Path) -> None:
    driver = simulated(tmp_path, version="550.54.14", supports="12.4", gpus=[RTX_4090])
    unsupported = Unavailable("NVML error 3: Not Supported")
    assert driver.nvml == Nvml(
        driver_version="550.54.14",
        cuda_version="12.4",
        simulated=True,
        gpus=(
            Gpu(
                index=0,
                uuid="GPU-00000000-0000-4000-8000-000000000000",
                name="NVIDIA GeForce RTX 4090",
                pci_address="0000:01:00.0",
                compute_capability="8.9",
                memory_bytes=24 * GIB,
                memory_used_bytes=512 << 20,
                processes=(),
                utilization=0,
                temperature=41,
                slowdown=1,
                ecc=EccErrors(unsupported, unsupported),
                remapped_rows=unsupported,
                retired_pages=unsupported,
                mig=unsupported,
                compute_mode=0,
                virtualization=0,
            ),
        ),
    )
    assert isinstance(driver.cuda, CudaDriver)
    assert (driver.cuda.version, driver.cuda.simulated) == ("12.4", True)
    assert [(d.name, d.compute_capability, d.memory_bytes) for d in driver.cuda.devices] == [
        ("NVIDIA GeForce RTX 4090", "8.9", 24 * GIB)
    ]


def test_driver_that_does_not_say_so_is_not_simulated(tmp_path: Path) -> None:
    source = "int nvmlInitWithFlags(unsigned f) { return 0; }\n" + "".join(
        f"int {name}(int *n) {{ *n = {value}; return 0; }}\n"
        for name, value in (
            ("nvmlSystemGetCudaDriverVersion_v2", 12020),
            ("nvmlDeviceGetCount_v2", 0),
            ("cuDriverGetVersion", 12020),
            ("cuDeviceGetCount", 0),
        )
    )
    source += "int nvmlSystemGetDriverVersion(char *v, int n) { v[0] = '5'; v[1] = 0; return 0; }\n"
    for name in ("libnvidia-ml.so.1", "libcuda.so.1"):
        stub_library(tmp_path / name, source=source, symbols=["cuInit"])
    driver = probed(tmp_path)
    assert driver.nvml == Nvml(driver_version="5", cuda_version="12.2", simulated=False, gpus=())
    assert driver.cuda == CudaDriver(version="12.2", simulated=False, devices=())


def test_lost_gpu_does_not_hide_the_others(tmp_path: Path) -> None:
    nvml = simulated(tmp_path, gpus=[RTX_4090, RTX_4090.lost, H100]).nvml
    assert isinstance(nvml, Nvml)
    assert nvml.gpus[1] == Unavailable("NVML error 15: GPU is lost")
    assert nvml.failures == (GpuFailure(1, 15, "NVML error 15: GPU is lost"),)
    assert [gpu.name for gpu in nvml.gpus if isinstance(gpu, Gpu)] == [RTX_4090.name, H100.name]


def test_what_a_gpu_does_not_support_is_unavailable_alone(tmp_path: Path) -> None:
    nvml = simulated(tmp_path, gpus=[replace(RTX_4090, limited=True)]).nvml
    assert isinstance(nvml, Nvml)
    (gpu,) = nvml.gpus
    assert isinstance(gpu, Gpu)
    assert gpu.name == RTX_4090.name
    missing = Unavailable("NVML error 3: Not Supported")
    assert gpu.memory_bytes == gpu.memory_used_bytes == missing
    assert gpu.compute_capability == gpu.pci_address == missing


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        (9, "NVML error 9: Driver Not Loaded"),
        (15, "NVML error 15: GPU is lost"),
        (18, "NVML error 18: Driver/library version mismatch"),
        (999, "NVML error 999: Unknown Error"),
    ],
)
def test_nvml_error_keeps_its_number_and_the_drivers_words(tmp_path: Path, code: int, detail: str) -> None:
    driver = simulated(tmp_path, nvml=code)
    assert driver.nvml == ProbeFailure(ProbeFailureKind.ERROR, detail, code)
    assert isinstance(driver.cuda, CudaDriver), "the other library is asked all the same"


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        (34, "CUDA error 34: CUDA_ERROR_STUB_LIBRARY (CUDA driver is a stub library)"),
        (100, "CUDA error 100: CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)"),
        (802, "CUDA error 802: CUDA_ERROR_SYSTEM_NOT_READY (system not yet initialized)"),
        (999, "CUDA error 999: CUDA_ERROR_UNKNOWN (unknown error)"),
        (4711, "CUDA error 4711: unknown to this driver"),
    ],
)
def test_cuda_error_keeps_its_number_and_name(tmp_path: Path, code: int, detail: str) -> None:
    driver = simulated(tmp_path, cuda=code)
    assert driver.cuda == ProbeFailure(ProbeFailureKind.ERROR, detail, code)
    assert isinstance(driver.nvml, Nvml)


@pytest.mark.parametrize(
    ("code", "name"),
    [(803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"), (804, "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE")],
)
def test_failed_forward_compatibility_is_named(tmp_path: Path, code: int, name: str) -> None:
    cuda = simulated(tmp_path, cuda=code).cuda
    assert isinstance(cuda, ProbeFailure)
    assert cuda.code == code
    assert cuda.detail.startswith(f"CUDA error {code}: {name} (")


def test_crash_is_a_signal(tmp_path: Path) -> None:
    driver = simulated(tmp_path, nvml=CRASH, cuda=CRASH)
    assert driver.nvml == driver.cuda == ProbeFailure(ProbeFailureKind.SIGNAL, "SIGSEGV")


def test_both_hangs_together_end_at_one_deadline(tmp_path: Path) -> None:
    driver_libraries(tmp_path, nvml=HANG, cuda=HANG)
    started = time.monotonic()
    driver = probed(tmp_path, deadline_s=3.0)
    assert time.monotonic() - started < 5.5  # one after the other: 6
    for answer in (driver.nvml, driver.cuda):
        assert isinstance(answer, ProbeFailure)
        assert answer.kind is ProbeFailureKind.HANG
        assert answer.detail.startswith("no answer in 3")


@pytest.mark.skipif(ctypes.util.find_library("cuda") is not None, reason="this machine has a driver")
def test_missing_library_is_told_in_the_loaders_words(tmp_path: Path) -> None:
    driver = probed(tmp_path)
    for answer, name in ((driver.nvml, "libnvidia-ml.so.1"), (driver.cuda, "libcuda.so.1")):
        detail = f"{name}: cannot open shared object file: No such file or directory"
        assert answer == ProbeFailure(ProbeFailureKind.ERROR, detail)


def test_text_file_in_place_of_a_library_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_text("a placeholder, longer than the header of an ELF file " * 3)
    cuda = probed(tmp_path).cuda
    assert isinstance(cuda, ProbeFailure)
    assert (cuda.kind, cuda.code) == (ProbeFailureKind.ERROR, None)
    assert "invalid ELF header" in cuda.detail


def test_library_without_cudas_functions_is_an_error(tmp_path: Path) -> None:
    stub_library(tmp_path / "libcuda.so.1")
    cuda = probed(tmp_path).cuda
    assert isinstance(cuda, ProbeFailure)
    assert "cuDriverGetVersion" in cuda.detail


@pytest.mark.parametrize(
    ("mask", "names"),
    [
        ("1", [H100.name]),
        ("1,0", [H100.name, RTX_4090.name]),
        ("0,7,1", [RTX_4090.name]),
        ("GPU-00000000-0000-4000-8000-000000000001", [H100.name]),
    ],
)
def test_visible_devices_are_those_of_the_targets_environment(
    tmp_path: Path, mask: str, names: list[str]
) -> None:
    driver = simulated(tmp_path, {"CUDA_VISIBLE_DEVICES": mask}, gpus=[RTX_4090, H100])
    assert isinstance(driver.cuda, CudaDriver)
    assert [device.name for device in driver.cuda.devices] == names
    assert isinstance(driver.nvml, Nvml)
    assert len(driver.nvml.gpus) == 2


@pytest.mark.parametrize("mask", ["", "-1", "7", "no"])
def test_mask_that_hides_all_devices_is_error_100(tmp_path: Path, mask: str) -> None:
    cuda = simulated(tmp_path, {"CUDA_VISIBLE_DEVICES": mask}).cuda
    assert isinstance(cuda, ProbeFailure)
    assert cuda.code == 100


@pytest.mark.parametrize(
    "hostile",
    [
        {"PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere", "PYTHONSTARTUP": "/nowhere"},
        {"PYTHONWARNINGS": "error", "PYTHONVERBOSE": "1", "PYTHONINSPECT": "1"},
        {"LANG": "\udcff", "LC_ALL": "C", "X": "\udc80"},
    ],
)
def test_targets_python_variables_do_not_disturb_the_probes(tmp_path: Path, hostile: dict[str, str]) -> None:
    driver = simulated(tmp_path, hostile)
    assert isinstance(driver.nvml, Nvml)
    assert isinstance(driver.cuda, CudaDriver)


@pytest.mark.parametrize("content", ["", "def nvmlInit():\n    pass\n"])
def test_look_alike_pynvml_is_named_with_the_remedy(tmp_path: Path, content: str) -> None:
    """nvidia-ml-py3 and others install a module of the same name."""
    driver_libraries(tmp_path)
    (tmp_path / "pynvml.py").write_text(content)
    result = tmp_path / "result"
    code = f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); runpy.run_path(sys.argv.pop(1))"
    script = Path(start_driver_probes.__code__.co_filename).parent / "probes" / "nvml_probe.py"
    with result.open("wb") as file:
        subprocess.run(
            [sys.executable, "-c", code, script, str(file.fileno())],
            env={"LD_LIBRARY_PATH": str(tmp_path)},
            pass_fds=[file.fileno()],
            check=True,
        )
    assert "is not NVIDIA's nvidia-ml-py" in result.read_text()
    assert "pip install nvidia-ml-py" in result.read_text()


def test_probes_of_a_dead_envdoctor_die_too(tmp_path: Path) -> None:
    driver_libraries(tmp_path, nvml=HANG, cuda=HANG)
    script = """
import os, sys, time
from envdoctor.facts.driver import start_driver_probes
from envdoctor.facts.root import Root
probes = start_driver_probes(Root(), {"LD_LIBRARY_PATH": sys.argv[1]})
time.sleep(0.5)
print(probes.nvml._process.pid, probes.cuda._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    time.sleep(0.2)
    for pid in done.stdout.split():
        status = Path(f"/proc/{pid}/stat")
        assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"
