"""Logs that an unmodified TensorFlow 2.21 prints here, against the simulated driver: stored, and made again.

TensorFlow is real; libcuda and NVML are simulated (tests/machines). How each stored log was made stands in
real/README.md.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from envdoctor.explain.explanation import Explanation, explain
from tests import environments
from tests.machines.drivers import driver_libraries

REAL = Path(__file__).resolve().parent / "real"
LIST = "import tensorflow as tf; print(tf.config.list_physical_devices('GPU'))"
OPERATE = "import tensorflow as tf; print(tf.reduce_sum(tf.ones(9)))"
COMPILE = "import tensorflow as tf; tf.function(lambda x: x * 2, jit_compile=True)(tf.ones(2))"
STORED = {
    "cublas-handle": "CDN006",
    "cudnn-9.1": "CDN002",
    "cudnn-9.21": "",
    "cuinit-34": "LIB004",
    "cuinit-100": "DRV009",
    "cuinit-803": "DRV012",
    "cuinit-803-diagnostics": "DRV003",
    "cuinit-804": "DRV012",
    "cuinit-999": "DRV010",
    "cuinit-999-diagnostics": "DRV010",
    "cusolver-found": "",
    "cusolver-not-found": "LIB001",
    "cusolver-not-found-named": "LIB001",
    "driver-11.4": "DRV004",
    "driver-11.4-listing": "",  # TensorFlow lists the GPU: nothing in the log tells of the driver
    "driver-12.0": "DRV004",
    "gpu-sm37": "GPU004",
    "hidden": "DRV009",
    "hidden-diagnostics": "GPU002",
    "libraries-missing": "LIB001",
    "no-libcuda": "DRV001",
    "tf-xla-flag-unknown": "XLA007",
    "xla-flag-unknown": "XLA004",
    "xla-flag-value": "XLA005",
    "xla-flag-without-dashes": "XLA005",
}


def first(answer: Explanation) -> str:
    """The code of the cause; "" for a log that is called healthy."""
    if answer.cause is None:
        assert answer.healthy
        assert not answer.findings
        return ""
    assert answer.findings[0] is answer.cause
    return answer.cause.finding.code


def test_every_stored_log_has_its_cause() -> None:
    assert sorted(path.stem for path in REAL.glob("*.log")) == sorted(STORED)


@pytest.mark.parametrize(("name", "code"), STORED.items(), ids=STORED)
def test_a_stored_log_has_its_cause_first(name: str, code: str) -> None:
    assert first(explain((REAL / f"{name}.log").read_bytes())) == code


def test_a_nameless_library_may_lie_outside_the_runpath() -> None:
    """What pip install 'tensorflow[and-cuda]' leaves is LIB002, which the log cannot tell from LIB001."""
    for name in ("cusolver-not-found", "cusolver-not-found-named"):
        cause = explain((REAL / f"{name}.log").read_bytes()).cause
        assert cause
        assert "LIB002" in cause.alternatives


def test_a_hidden_gpu_is_an_alternative_where_the_log_does_not_print_the_variable() -> None:
    cause = explain((REAL / "hidden.log").read_bytes()).cause
    assert cause
    assert "GPU002" in cause.alternatives


def printed(environment: str, driver: Path, program: str, *path: Path, **variables: str) -> Explanation:
    done = subprocess.run(
        [environments.directory(environment) / "bin" / "python", "-B", "-c", program],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(driver),
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, (*path, driver))),
            **variables,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=300,
    )
    return explain(done.stdout)


needs_light = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(environments.installed("light") is None, reason="light is not installed"),
]
needs_full = [
    pytest.mark.cuda_wheels,
    pytest.mark.skipif(environments.installed("full") is None, reason="full is not installed"),
]


@pytest.mark.parametrize(
    ("cuinit", "code"),
    [
        pytest.param(number, code, marks=needs_light, id=str(number))
        for number, code in (
            (34, "LIB004"),
            (100, "DRV009"),
            (803, "DRV012"),
            (804, "DRV012"),
            (999, "DRV010"),
        )
    ],
)
def test_what_tensorflow_says_of_a_failed_cuinit(tmp_path: Path, cuinit: int, code: str) -> None:
    driver_libraries(tmp_path, cuda=cuinit)
    assert first(printed("light", tmp_path, LIST)) == code


@pytest.mark.parametrize("_", [pytest.param("", marks=needs_light)])
def test_what_tensorflow_says_without_a_driver_and_of_hidden_gpus(tmp_path: Path, _: str) -> None:
    assert first(printed("light", tmp_path, LIST)) == "DRV001"
    driver_libraries(tmp_path)
    hidden = printed("light", tmp_path, LIST, CUDA_VISIBLE_DEVICES="-1")
    assert first(hidden) == "DRV009"
    assert hidden.cause
    assert "GPU002" in hidden.cause.alternatives


@pytest.mark.parametrize(
    ("variable", "value", "code", "says"),
    [
        pytest.param(*row, marks=needs_light, id=row[1])
        for row in (
            ("XLA_FLAGS", "--xla_gpu_autotune_levell=2", "XLA004", "did you mean --xla_gpu_autotune_level?"),
            ("XLA_FLAGS", "--xla_gpu_autotune_level=high", "XLA005", "xla_gpu_autotune_level"),
            ("XLA_FLAGS", "xla_gpu_autotune_level=2", "XLA005", "xla_gpu_autotune_level=2"),
            ("TF_XLA_FLAGS", "--tf_xla_auto_jitt=2", "XLA007", "did you mean --tf_xla_auto_jit?"),
        )
    ],
)
def test_what_tensorflow_says_of_a_flag(
    tmp_path: Path, variable: str, value: str, code: str, says: str
) -> None:
    answer = printed("light", tmp_path, COMPILE, **{variable: value})
    assert first(answer) == code
    assert answer.cause
    assert says in answer.cause.finding.message


@pytest.mark.parametrize("_", [pytest.param("", marks=needs_light)])
def test_a_program_with_a_valid_flag_on_a_machine_without_libraries_tells_of_no_flag(
    tmp_path: Path, _: str
) -> None:
    driver_libraries(tmp_path)
    answer = printed("light", tmp_path, COMPILE, XLA_FLAGS="--xla_gpu_autotune_level=2")
    assert [e.finding.code for e in answer.findings] == ["LIB001", "PLC001"]


@pytest.mark.parametrize("_", [pytest.param("", marks=needs_full)])
def test_the_whole_install_without_and_with_cusolver_on_the_path(tmp_path: Path, _: str) -> None:
    """The defect of pip install 'tensorflow[and-cuda]', and its healthy twin."""
    driver_libraries(tmp_path)
    (cusolver,) = environments.directory("full").glob("lib/python*/site-packages/nvidia/cusolver/lib")
    without = printed("full", tmp_path, LIST)
    assert [e.finding.code for e in without.findings] == ["LIB001", "PLC001"]
    assert without.cause
    assert "LIB002" in without.cause.alternatives
    named = printed("full", tmp_path, LIST, TF_CPP_VMODULE="dso_loader=1", TF_CPP_MAX_VLOG_LEVEL="0")
    assert named.cause
    assert "libcusolver.so.11" in named.cause.finding.message
    assert printed("full", tmp_path, LIST, cusolver).healthy


@pytest.mark.parametrize("_", [pytest.param("", marks=needs_full)])
def test_the_whole_install_on_a_driver_that_is_too_old(tmp_path: Path, _: str) -> None:
    """NVIDIA's own cudart asks the simulated driver for its version, and refuses it."""
    driver_libraries(tmp_path, "470.57.02", supports="11.4")
    (cusolver,) = environments.directory("full").glob("lib/python*/site-packages/nvidia/cusolver/lib")
    assert first(printed("full", tmp_path, OPERATE, cusolver)) == "DRV004"
