"""Logs that an unmodified TensorFlow 2.21 prints here, against the simulated driver.

TensorFlow is real; libcuda and NVML are simulated (tests/machines), and say so in their reports.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from envdoctor.explain.explanation import explain
from tests import environments
from tests.machines.drivers import driver_libraries

LIGHT = environments.directory("light")
LIST = "import tensorflow as tf; print(tf.config.list_physical_devices('GPU'))"
COMPILE = "import tensorflow as tf; tf.function(lambda x: x * 2, jit_compile=True)(tf.ones(2))"

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(
        environments.installed("light") is None, reason="the TensorFlow environment is not installed"
    ),
]


def printed(driver: Path, program: str, **variables: str) -> bytes:
    environment = {"PATH": os.environ["PATH"], "HOME": str(driver), "LD_LIBRARY_PATH": str(driver)}
    done = subprocess.run(
        [LIGHT / "bin" / "python", "-B", "-c", program],
        env=environment | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=300,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("cuinit", "code"), [(100, "DRV009"), (999, "DRV010"), (803, "DRV012"), (804, "DRV012")]
)
def test_what_tensorflow_says_of_a_failed_cuinit(tmp_path: Path, cuinit: int, code: str) -> None:
    driver_libraries(tmp_path, cuda=cuinit)
    answer = explain(printed(tmp_path, LIST))
    explained = {e.finding.code for e in answer.findings} | {
        alternative for e in answer.findings for alternative in e.alternatives
    }
    # The container has no /proc/driver/nvidia, and TensorFlow says that too: DRV002 may lead.
    assert code in explained
    assert answer.findings[0].finding.code in {code, "DRV002"}


def test_a_hiding_variable_that_tensorflow_does_not_print_is_an_alternative(tmp_path: Path) -> None:
    """The diagnostics that name the variable stand only in some builds' logs: this one has none."""
    driver_libraries(tmp_path, cuda=100)
    answer = explain(printed(tmp_path, LIST, CUDA_VISIBLE_DEVICES="-1"))
    assert answer.findings[0].finding.code == "DRV009"
    assert "GPU002" in answer.findings[0].alternatives


def test_a_flag_that_xla_does_not_know_is_named_with_the_nearest(tmp_path: Path) -> None:
    answer = explain(printed(tmp_path, COMPILE, XLA_FLAGS="--xla_gpu_autotune_levell=2"))
    lead = answer.findings[0].finding
    assert lead.code == "XLA004"
    assert "did you mean --xla_gpu_autotune_level?" in lead.message
