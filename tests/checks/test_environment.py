"""Environment variables: values that their reader does not take, and variables against each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from envdoctor.knowledge.variables import environment_variables
from tests.conftest import needs_overlay, workstation
from tests.machines.drivers import GTX_1080, H100, RTX_5090
from tests.machines.machine import Checked, Machine
from tests.machines.overlay import check_inside

ENV = ("--select", "ENV001,ENV002")


def with_jax(machine: Machine) -> Machine:
    """JAX 0.10.2 with its CUDA 12 plugin beside TensorFlow."""
    site = machine.site_packages
    for name in ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda12-pjrt"):
        machine.distribution(name, "0.10.2")
    machine.file(f"{site}/jax/__init__.py").file(f"{site}/jax_cuda12_plugin/__init__.py")
    return machine.library(f"{site}/jax_plugins/xla_cuda12/xla_cuda_plugin.so")


def said(checked: Checked, code: str) -> list[tuple[str, str, str]]:
    return [
        (f["subject"], f["severity"], f["remedy"]) for f in checked.report["findings"] if f["code"] == code
    ]


@pytest.mark.parametrize(
    ("name", "value", "repaired"),
    [
        ("TF_FORCE_GPU_ALLOW_GROWTH", "True", "true"),
        ("TF_FORCE_GPU_ALLOW_GROWTH", "1", "true"),
        ("TF_FORCE_GPU_ALLOW_GROWTH", "no", "false"),
        ("TF_GPU_ALLOCATOR", "CUDA_MALLOC_ASYNC", "cuda_malloc_async"),
        ("TF_GPU_ALLOCATOR", "cuda_mallocasync", "cuda_malloc_async"),
        ("TF_ENABLE_ONEDNN_OPTS", "off", "false"),
        ("TF_GPU_THREAD_MODE", "private", "gpu_private"),
        ("CUDA_CACHE_MAXSIZE", "4G", "4294967296"),
        ("CUDA_CACHE_MAXSIZE", "512 MiB", "536870912"),
        ("CUDA_DEVICE_ORDER", "PCI_BUS", "PCI_BUS_ID"),
        ("CUDA_MODULE_LOADING", "lazy", "LAZY"),
        ("CUDA_LAUNCH_BLOCKING", "true", "1"),
    ],
)
def test_a_value_that_its_reader_does_not_take_is_a_warning(
    machine: Machine, name: str, value: str, repaired: str
) -> None:
    checked = machine.export(**{name: value}).check()
    assert said(checked, "ENV002") == [(name, "warning", f"export {name}={repaired}")]
    assert checked.codes == ["ENV002"]
    assert machine.export(**{name: repaired}).check(*ENV).codes == []


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("XLA_PYTHON_CLIENT_MEM_FRACTION", "75", "export XLA_PYTHON_CLIENT_MEM_FRACTION=0.75"),
        ("XLA_PYTHON_CLIENT_MEM_FRACTION", ".75GB", "unset XLA_PYTHON_CLIENT_MEM_FRACTION"),
        ("XLA_PYTHON_CLIENT_PREALLOCATE", "FALSE", "export XLA_PYTHON_CLIENT_PREALLOCATE=false"),
        ("XLA_PYTHON_CLIENT_PREALLOCATE", "no", "export XLA_PYTHON_CLIENT_PREALLOCATE=false"),
        ("XLA_PYTHON_CLIENT_ALLOCATOR", "platfrom", "export XLA_PYTHON_CLIENT_ALLOCATOR=platform"),
    ],
)
def test_what_jax_does_not_take_matters_where_jax_is(
    machine: Machine, name: str, value: str, remedy: str
) -> None:
    machine.export(**{name: value})
    assert machine.check(*ENV).codes == []
    assert said(with_jax(machine).check(*ENV), "ENV002") == [(name, "warning", remedy)]


def test_more_than_all_memory_is_meant_with_unified_memory(machine: Machine) -> None:
    with_jax(machine).export(XLA_PYTHON_CLIENT_MEM_FRACTION="2.0", TF_FORCE_UNIFIED_MEMORY="1")
    assert machine.check(*ENV).codes == []


def test_a_log_level_in_words_is_a_note(machine: Machine) -> None:
    checked = machine.export(TF_CPP_MIN_LOG_LEVEL="ERROR").check()
    assert said(checked, "ENV002") == [("TF_CPP_MIN_LOG_LEVEL", "note", "export TF_CPP_MIN_LOG_LEVEL=2")]
    assert checked.status == 0


def test_a_cuda_home_that_is_gone_is_a_note(machine: Machine) -> None:
    checked = machine.export(CUDA_HOME="/usr/local/cuda-11.2").check()
    assert said(checked, "ENV002") == [("CUDA_HOME", "note", "unset CUDA_HOME")]
    machine.path("/usr/local/cuda-11.2").mkdir(parents=True)
    assert machine.check().codes == []


def test_a_preloaded_library_that_is_gone(machine: Machine) -> None:
    machine.library("/usr/lib/libtcmalloc.so.4")
    machine.export(LD_PRELOAD="/usr/lib/libtcmalloc.so.4:/opt/old/libjemalloc.so.2")
    checked = machine.check("--select", "ENV002")
    assert said(checked, "ENV002") == [
        ("LD_PRELOAD", "warning", "export LD_PRELOAD=/usr/lib/libtcmalloc.so.4")
    ]
    machine.export(LD_PRELOAD="/usr/lib/libtcmalloc.so.4 libm.so.6 $LIB/x.so")
    assert machine.check("--select", "ENV002").codes == []


def test_what_nobody_here_reads_is_not_judged(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("debian", "12").venv()
    machine.export(TF_FORCE_GPU_ALLOW_GROWTH="yes", CUDA_DEVICE_ORDER="PCI", JAX_PLATFORMS="cuda")
    assert machine.check(*ENV).codes == []


@pytest.mark.parametrize(
    "variables",
    [
        {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "TF_GPU_ALLOCATOR": "cuda_malloc_async"},
        {
            "TF_FORCE_GPU_ALLOW_GROWTH": "",
            "CUDA_CACHE_MAXSIZE": "4294967296",
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        },
        {"CUDA_VISIBLE_DEVICES": "0", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"},
        {"PYTORCH_CUDA_ALLOC_CONF": "roundup_power2_divisions:[256:1,512:2,>:4],expandable_segments:True"},
        {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"},
        {"CUDA_MODULE_LOADING": "EAGER", "CUDA_LAUNCH_BLOCKING": "0", "TF_UNHEARD_OF": "\udcff"},
    ],
)
def test_values_as_they_should_be_are_silent(machine: Machine, variables: dict[str, str]) -> None:
    checked = machine.export(**variables).check()
    assert (checked.status, checked.codes) == (0, [])


@pytest.mark.parametrize("value", ["\udcff", "9" * 5000, "1e999", "²", "''", "\n", "%s", "-"])
def test_garbage_in_every_variable_costs_no_report(machine: Machine, value: str) -> None:
    variables = {name: value for name in environment_variables() if name != "LD_LIBRARY_PATH"}
    checked = with_jax(machine).export(**variables, LD_PRELOAD="", CUDA_HOME=value).check(*ENV)
    assert checked.status in {0, 1, 3}  # 4 would be a check's defect
    assert "TF_FORCE_GPU_ALLOW_GROWTH" in {f["subject"] for f in checked.report["findings"]}


# --- variables against each other, and against the machine ------------------------------------------


def test_two_memory_fractions_stop_jaxs_plugin(machine: Machine) -> None:
    with_jax(machine).export(XLA_CLIENT_MEM_FRACTION=".5", XLA_PYTHON_CLIENT_MEM_FRACTION=".7")
    assert said(machine.check(*ENV), "ENV001") == [
        ("XLA_CLIENT_MEM_FRACTION", "warning", "unset XLA_PYTHON_CLIENT_MEM_FRACTION")
    ]
    machine.export(XLA_PYTHON_CLIENT_MEM_FRACTION="")
    assert machine.check(*ENV).codes == []


@pytest.mark.parametrize("name", ["JAX_PLATFORMS", "JAX_PLATFORM_NAME"])
def test_a_platform_that_keeps_jax_from_its_gpu(machine: Machine, name: str) -> None:
    checked = with_jax(machine).export(**{name: "cpu"}).check(*ENV)
    assert said(checked, "ENV001") == [(name, "warning", f"unset {name}")]
    assert machine.export(**{name: "cuda,cpu"}).check(*ENV).codes == []


def test_a_platform_that_this_machine_does_not_have(tmp_path: Path) -> None:
    machine = with_jax(Machine(tmp_path / "m").os("debian", "12").venv()).export(JAX_PLATFORMS="cuda")
    assert said(machine.check(*ENV), "ENV001") == [("JAX_PLATFORMS", "warning", "unset JAX_PLATFORMS")]
    assert machine.export(JAX_PLATFORMS="cpu").check(*ENV).codes == []


def test_the_asynchronous_allocator_needs_cuda_11_2(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("ubuntu", "20.04").driver("450.80.02", supports="11.0")
    machine.venv(version="3.8.10").tensorflow("2.4.4", cuda="11.0", cudnn="8")
    machine.export(TF_GPU_ALLOCATOR="cuda_malloc_async")
    assert said(machine.check(*ENV), "ENV001") == [("TF_GPU_ALLOCATOR", "warning", "unset TF_GPU_ALLOCATOR")]
    machine.export(TF_GPU_ALLOCATOR="cuda_malloc")
    assert machine.check(*ENV).codes == []


@needs_overlay
def test_a_driver_too_old_for_the_asynchronous_allocator(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m", version="450.80.02", supports="11.0")
    machine.export(TF_GPU_ALLOCATOR="cuda_malloc_async")
    assert "serves CUDA up to 11.0" in check_inside(machine, "--quick", *ENV).finding("ENV001")["message"]


@needs_overlay
def test_forced_ptx_leaves_a_gpu_older_than_the_ptx_without_kernels(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m", gpus=(GTX_1080,)).export(CUDA_FORCE_PTX_JIT="1")
    checked = check_inside(machine, "--quick", *ENV)
    assert said(checked, "ENV001") == [("CUDA_FORCE_PTX_JIT", "warning", "unset CUDA_FORCE_PTX_JIT")]


@needs_overlay
def test_forced_ptx_on_the_gpu_that_it_is_for_is_silent(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m", gpus=(H100,)).export(CUDA_FORCE_PTX_JIT="1")
    assert check_inside(machine, "--quick", *ENV).codes == []


@needs_overlay
@pytest.mark.parametrize("name", ["CUDA_DISABLE_PTX_JIT", "CUDA_CACHE_DISABLE"])
def test_a_gpu_that_lives_by_ptx(tmp_path: Path, name: str) -> None:
    machine = workstation(tmp_path / "m", version="580.95.05", supports="13.0", gpus=(RTX_5090,))
    checked = check_inside(machine.export(**{name: "1"}), "--quick", *ENV)
    assert said(checked, "ENV001") == [(name, "warning", f"unset {name}")]


@needs_overlay
@pytest.mark.parametrize("name", ["CUDA_DISABLE_PTX_JIT", "CUDA_CACHE_DISABLE"])
def test_a_gpu_that_needs_no_ptx(tmp_path: Path, name: str) -> None:
    machine = workstation(tmp_path / "m", gpus=(H100,)).export(**{name: "1"})
    assert check_inside(machine, "--quick", *ENV).codes == []
