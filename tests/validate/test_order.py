"""Every training takes the same batches in the same order, whatever device it is on."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from envdoctor.target import choose_target
from envdoctor.validate import networks
from envdoctor.validate.protocol import DataWanted, Job
from envdoctor.validate.recording import Ending
from envdoctor.validate.runner import run
from tests.validate.in_target import BACKENDS, DIGITS, ENVIRONMENTS, python

SAMPLES, EPOCHS = 256, 2
# Stands in the worker's way to Keras and writes down the labels that the loss is given, step by step.
LISTENER = """
import os
import keras

def write(labels):
    with open(os.environ["LABELS"], "a") as file:
        file.write("".join("%d" % label for label in labels.reshape(-1)))
    return labels

def heard(y):
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        import tensorflow
        same = tensorflow.numpy_function(write, [y], y.dtype, stateful=True)
        return tensorflow.reshape(same, tensorflow.shape(y))
    if os.environ["KERAS_BACKEND"] == "jax":
        import jax
        jax.debug.callback(lambda labels: (write(labels), None)[1], y, ordered=True)
        return y
    write(y.detach().cpu().numpy())
    return y

def call(self, y_true, y_pred, _call=keras.losses.SparseCategoricalCrossentropy.call):
    return _call(self, heard(y_true), y_pred)

keras.losses.SparseCategoricalCrossentropy.call = call
"""


def labels(
    place: Path, backend: str, device: str = "cpu", *, logical_cpus: int = 0, seed: int = 20
) -> list[str]:
    """The labels that a training takes, in its order: a string for each epoch."""
    place.mkdir()
    (place / "sitecustomize.py").write_text(LISTENER)
    interpreter = str(python(ENVIRONMENTS[backend], package="keras"))
    environment = {"PATH": os.environ["PATH"], "HOME": str(place), "PYTHONPATH": str(place)}
    environment |= {"LABELS": str(place / "labels"), "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": backend}
    job = Job(
        backend=backend,
        device=device,
        description=networks.describe(networks.load("mnist-cnn")),
        data=DataWanted(spec=str(DIGITS), samples=SAMPLES),
        batch_sizes=(64,),
        epochs=EPOCHS,
        seed=seed,
        logical_cpus=logical_cpus,
        evaluate=False,
        numerics=False,
    )
    recording = run(job, device, choose_target(interpreter, None, environment), 120, lambda _: None)
    assert recording.ending is Ending.DONE, (recording.failure, recording.stderr[-2000:])
    taken = (place / "labels").read_text()
    before = len(taken) - SAMPLES * EPOCHS
    assert before in {0, 64}  # Keras tries the loss of PyTorch on a batch of ones
    taken = taken[before:]
    return [taken[i : i + SAMPLES] for i in range(0, len(taken), SAMPLES)]


@pytest.mark.tensorflow
def test_a_second_logical_cpu_takes_the_batches_that_the_first_takes(tmp_path: Path) -> None:
    first = labels(tmp_path / "first", "tensorflow", "cpu:0", logical_cpus=2)
    second = labels(tmp_path / "second", "tensorflow", "cpu:1", logical_cpus=2)
    assert first == second


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_trainings_take_the_same_batches_in_an_order_that_belongs_to_the_seed(
    backend: str, tmp_path: Path
) -> None:
    one, other = labels(tmp_path / "one", backend)
    # Keras on TensorFlow, with a seed set, shuffles each epoch alike; the others do it anew.
    assert (one == other) == (backend == "tensorflow")
    assert Counter(one) == Counter(other)
    assert [one, other] == labels(tmp_path / "two", backend)
    if backend == "tensorflow":
        assert [one, other] != labels(tmp_path / "three", backend, seed=21)
