"""What the running framework did: real TensorFlow on the CPU and on simulated drivers, and frameworks that
misplace, fail to compile or die half-way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import venv
from pathlib import Path
from typing import Any

import pytest

from tests import environments
from tests.machines.drivers import driver_libraries
from tests.test_probe import install

FAKE = """
import os
__version__ = "2.21.0"
WRONG = os.environ.get("WRONG", "")
_now = ["CPU:0"]

class Tensor:
    def __init__(self):
        self.device = "/job:localhost/replica:0/task:0/device:" + _now[-1]
    numpy = __float__ = lambda self: 1.0

class device:
    def __init__(self, name):
        if WRONG == "soft" and name.startswith("GPU"):
            name = "CPU:0"
        if WRONG == "pin" and name.startswith("CPU"):
            name = "GPU:0"
        self.name = name
    def __enter__(self):
        _now.append(self.name)
    def __exit__(self, *_):
        _now.pop()

def ones(shape): return Tensor()
def constant(value): return Tensor()
def add(a, b): return Tensor()
def reduce_sum(x): return Tensor()
def matmul(a, b):
    if WRONG == "dies" and _now[-1].startswith("GPU"):
        os.kill(os.getpid(), 11)
    if WRONG == "raises" and _now[-1].startswith("GPU"):
        raise RuntimeError("CUDA_ERROR_INVALID_PTX: a PTX JIT compilation failed")
    return Tensor()

class nn:
    conv2d = staticmethod(lambda *a: Tensor())

class GradientTape:
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def watch(self, x): pass
    def gradient(self, y, x): return Tensor()

def function(f, jit_compile=False):
    if WRONG == "xla" and _now[-1].startswith("GPU"):
        raise RuntimeError("libdevice not found at ./libdevice.10.bc")
    return f

class GPU:
    name = "/physical_device:GPU:0"

class config:
    list_physical_devices = staticmethod(lambda kind: [GPU()])
    get_memory_growth = staticmethod(lambda gpu: WRONG != "grabs")
    set_memory_growth = staticmethod(lambda gpu, on: None)
    set_soft_device_placement = staticmethod(lambda soft: None)
    class threading:
        get_intra_op_parallelism_threads = get_inter_op_parallelism_threads = staticmethod(lambda: 0)
"""


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("running") / "env"
    venv.create(place, with_pip=False, symlinks=True)
    install(place, textwrap.dedent(FAKE))
    return place


def check(python: Path | str, *prefix: str, **variables: str) -> Any:
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "envdoctor", "check", "--json", "--python", str(python)],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def loud(report: Any) -> dict[str, str]:
    return {f["code"]: f["message"] for f in report["findings"] if f["code"] not in {"GPU001", "PKG005"}}


def test_a_framework_that_obeys_is_silent(fake: Path) -> None:
    report = check(fake)
    assert loud(report) == {}
    assert report["verdicts"][0]["gpu"] == "usable"
    (run,) = report["facts"]["runs"]
    assert {(p["operation"], p["asked"], p["ran"]) for p in run["placements"]} == {
        (operation, device, device)
        for operation in ("matmul", "conv2d with gradient", "int32 add")
        for device in ("CPU:0", "GPU:0")
    }


@pytest.mark.parametrize(
    ("wrong", "code", "says", "verdict"),
    [
        ("soft", "PLC002", "matmul asked for GPU:0 ran on CPU:0", "unusable"),
        ("raises", "PLC002", "fails there: RuntimeError: CUDA_ERROR_INVALID_PTX", "unusable"),
        ("pin", "PLC003", "pinned to the CPU, ran on GPU:0", "usable"),
        ("xla", "PLC005", "libdevice not found", "unusable"),
        ("grabs", "PLC006", "nearly all memory", "usable"),
        ("dies", "PLC004", "fails at matmul on GPU:0: SIGSEGV", "unusable"),
    ],
)
def test_what_goes_wrong_after_the_devices_are_listed_is_named_with_its_step(
    fake: Path, wrong: str, code: str, says: str, verdict: str
) -> None:
    report = check(fake, WRONG=wrong)
    assert says in loud(report)[code]
    assert report["verdicts"][0]["gpu"] == verdict
    if wrong == "dies":  # what came before stands
        assert report["facts"]["runs"][0]["gpus"] == ["GPU:0"]
        assert report["facts"]["runs"][0]["placements"]


def test_growth_that_the_variable_forces_is_no_grabbing(fake: Path) -> None:
    assert "PLC006" not in loud(check(fake, WRONG="grabs", TF_FORCE_GPU_ALLOW_GROWTH="true"))
    assert "PLC006" in loud(check(fake, WRONG="grabs", TF_FORCE_GPU_ALLOW_GROWTH="1"))  # not a word it takes


@pytest.fixture(scope="module")
def light() -> Path:
    place = environments.installed("light")
    if place is None:
        pytest.skip("not installed: python tests/environments.py light")
    return place


@pytest.mark.tensorflow
def test_real_tensorflow_places_every_operation_on_the_cpu_and_compiles_there(light: Path) -> None:
    report = check(light)
    (run,) = report["facts"]["runs"]
    assert [p["ran"] for p in run["placements"]] == ["CPU:0"] * 6
    assert [(c["device"], c["error"]) for c in run["compiled"]] == [("CPU:0", "")]
    assert run["threads"]["threads"] > 1
    assert {"THR002", "PLC002", "PLC005"}.isdisjoint(loud(report))


@pytest.mark.tensorflow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU cannot show more than one at work")
def test_openmps_variable_does_not_limit_tensorflow_and_its_own_does(light: Path) -> None:
    for _ in range(3):
        report = check(light, OMP_NUM_THREADS="1")
        if report["facts"]["runs"][0]["threads"]["matmul"]["parallelism"] > 1.6:
            break
    else:
        pytest.skip("the machine is too busy to show two CPUs at work")
    assert loud(report)["THR002"].startswith("OMP_NUM_THREADS=1 does not limit TensorFlow")
    kept = check(light, OMP_NUM_THREADS="1", TF_NUM_INTRAOP_THREADS="1")
    assert "THR002" not in loud(kept)
    assert kept["facts"]["runs"][0]["threads"]["matmul"]["parallelism"] < 1.4


@pytest.mark.tensorflow
def test_an_affinity_mask_limits_tensorflow_and_a_larger_number_is_oversubscription(light: Path) -> None:
    report = check(light, "taskset", "-c", "0", TF_NUM_INTRAOP_THREADS="8")
    assert report["facts"]["runs"][0]["threads"]["matmul"]["parallelism"] < 1.2
    assert "TensorFlow will start 8 threads on 1 CPUs" in loud(report)["THR001"]


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("code", "condition"), [(100, "DRV009"), (999, "DRV010"), (803, "DRV012"), (804, "DRV012")]
)
def test_real_tensorflow_on_a_driver_whose_cuinit_fails(
    light: Path, tmp_path: Path, code: int, condition: str
) -> None:
    driver_libraries(tmp_path, cuda=code)
    report = check(light, LD_LIBRARY_PATH=str(tmp_path))
    assert condition in loud(report)
    registers = next(f for f in report["findings"] if f["code"] == "PLC001")
    assert condition in [report["findings"][i]["code"] for i in registers["because"]]
