"""Real training on the CPU: the reference network with TensorFlow, JAX and PyTorch, on real digits."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.test_cli import valid
from tests.validate.in_target import BACKENDS, DIGITS, ENVIRONMENTS, python

SHORT = ["--samples", "2000", "--epochs", "5"]
# Seen after 5 epochs of 2,000: 94.2 % with TensorFlow, 89.6 % with JAX, 91.7 % with PyTorch (each shuffles in
# an order of its own); of all 8,000: 98.5, 98.4 and 98.3 %.
SHORT_BAND = (0.86, 0.97)


def validate(backend: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    interpreter = str(python(ENVIRONMENTS[backend], package="keras"))
    command = [sys.executable, "-m", "envdoctor", "validate", "--python", interpreter, "--data", str(DIGITS)]
    return subprocess.run(
        [*command, "--backend", backend, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )


@pytest.fixture(scope="module")
def reference() -> Any:
    """The whole reference training: five epochs of 8,000 digits; 20 s of two idle CPUs."""
    done = validate("tensorflow", "--cpu", "--json")
    assert done.returncode == 0, (done.stdout[-3000:], done.stderr[-3000:])
    return valid(done.stdout, "validate")


@pytest.mark.tensorflow
def test_the_reference_network_recognises_97_of_100_digits_after_five_epochs(reference: Any) -> None:
    (row,) = reference["devices"]
    assert row["test_accuracy"] >= 0.97
    assert (len(row["epochs"]), row["batch_size"], row["complete"]) == (5, 64, True)
    assert (reference["passed"], reference["parameters"]) == (True, 96844)
    assert (row["weights_on"], row["output_on"]) == ("CPU:0", "CPU:0")


@pytest.mark.tensorflow
def test_the_first_step_stands_apart_from_the_steady_state(reference: Any) -> None:
    (row,) = reference["devices"]
    assert 0 < row["first_step_s"] < row["epochs"][0]["seconds"]
    assert row["images_per_s_min"] <= row["images_per_s"] <= row["images_per_s_max"]
    rates = [epoch["images_per_s"] for epoch in row["epochs"]]
    assert row["images_per_s_max"] == max(rates[1:])
    assert row["end_to_end_s"] > row["train_s"] > sum(8000 / rate for rate in rates) * 0.99
    assert row["peak_memory_bytes"] > 100 << 20


@pytest.mark.tensorflow
def test_the_loss_falls_along_a_curve_of_steps(reference: Any) -> None:
    (row,) = reference["devices"]
    steps = [step for step, _ in row["curve"]]
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (1, 5 * 125)
    losses = [loss for _, loss in row["curve"]]
    assert losses[0] == pytest.approx(2.3, abs=0.2)  # ln 10: nothing is known yet
    assert losses[-1] < 0.2
    # The points of an epoch, weighted by their steps, are its mean.
    last, weighted = 0, 0.0
    for step, loss in row["curve"]:
        if step <= 125:
            weighted, last = weighted + loss * (step - last), step
    assert weighted / 125 == pytest.approx(row["epochs"][0]["loss"], rel=1e-4)


@pytest.mark.tensorflow
def test_every_tensor_agrees_with_numpy_in_float64(reference: Any) -> None:
    assert len(reference["numerics"]) > 20
    assert {row["precision"] for row in reference["numerics"]} == {"float32"}
    assert all(row["error"] <= 1e-4 for row in reference["numerics"])


@pytest.mark.tensorflow
def test_numpys_own_time_stands_beside(reference: Any) -> None:
    assert [row["dtype"] for row in reference["numpy"]] == ["float32", "float64"]
    assert all(row["epoch_seconds"] > 0.5 and row["scaled"] for row in reference["numpy"])


@pytest.mark.tensorflow
def test_a_second_logical_cpu_goes_through_the_whole_path_of_an_accelerator() -> None:
    done = validate("tensorflow", "--stand-in", "--samples", "1000", "--epochs", "2", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    document = valid(done.stdout, "validate")
    first, second = document["devices"]
    assert [first["device"], second["device"]] == ["CPU:1", "CPU:0"]
    assert (first["weights_on"], first["output_on"]) == ("CPU:1", "CPU:1")
    assert (second["weights_on"], second["output_on"]) == ("CPU:0", "CPU:0")
    assert {row["device"] for row in document["numerics"]} == {"CPU:0", "CPU:1"}
    assert document["stand_in"] is True
    assert document["speedup"]["steady"] > 0
    # Same weights, same batches in the same order, same arithmetic: the same losses.
    assert document["curves"][0]["first_step"] < 1e-6
    assert max(document["curves"][0]["epochs"]) < 0.05
    assert first["test_accuracy"] == pytest.approx(second["test_accuracy"], abs=0.02)


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b.values != ("tensorflow",)])
def test_jax_and_pytorch_reach_the_same_band_with_the_same_numerics(backend: str) -> None:
    done = validate(backend, "--cpu", *SHORT, "--json")
    assert done.returncode == 0, (done.stdout[-3000:], done.stderr[-3000:])
    document = valid(done.stdout, "validate")
    (row,) = document["devices"]
    assert SHORT_BAND[0] <= row["test_accuracy"] <= SHORT_BAND[1]
    assert row["weights_on"] == row["output_on"] == "CPU:0"
    assert max(numerics["error"] for numerics in document["numerics"]) <= 1e-4
    assert document["backend"] == backend
