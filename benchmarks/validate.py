"""What the doctor adds to a training: `validate --cpu` against a bare Keras script of the same work.

    python benchmarks/validate.py --python ENV/bin/python --data FILE.npz [-n 3] [-o RESULT.json]

Pairs, alternating in one invocation: the whole commands, from start to end; model.fit in them (the doctor's
own figure against the script's); and model.fit in one process, with and without the doctor's callback, which
is the closest look. CPU seconds stand beside wall seconds: other work on the machine moves them less. Bounds:
1.05 for the training, 3 s for all that is added: reading the machine, comparing with NumPy, timing NumPy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
WORKER = TOP / "envdoctor" / "validate" / "worker"
SET_UP = """
import json, sys, time
import numpy as np, keras
description, path, rounds = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with np.load(path) as file:
    x, y, x_test, y_test = (file[name] for name in ("x_train", "y_train", "x_test", "y_test"))
x, x_test = x.astype("float32")[..., None] / 255, x_test.astype("float32")[..., None] / 255
mean, deviation = x.mean(), x.std()
x, x_test = (x - mean) / deviation, (x_test - mean) / deviation
def network():
    layers = keras.layers
    model = keras.Sequential([keras.Input((28, 28, 1)), layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(), layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation="relu"), layers.Flatten(), layers.Dense(70, activation="relu"),
        layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("rmsprop", loss, metrics=["accuracy"])
    return model
EPOCHS, BATCH = description["epochs"], description["batch_size"]
"""
BARE = (
    SET_UP
    + """
model = network()
began = time.perf_counter()
model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0)
fit = time.perf_counter() - began
model.evaluate(x_test, y_test, batch_size=BATCH, verbose=0)
print(json.dumps(fit))
"""
)
PAIRED = (
    SET_UP
    + """
import os
import ed_train
from ed_channel import Channel
channel = Channel(os.open(os.devnull, os.O_WRONLY))
def fit(callbacks):
    model = network()
    model.fit(x[:BATCH], y[:BATCH], batch_size=BATCH, verbose=0)  # traced
    began, cpu = time.perf_counter(), time.process_time()
    model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=callbacks)
    return time.perf_counter() - began, time.process_time() - cpu
pairs = []
for _ in range(rounds):
    bare = fit([])
    pairs.append([bare, fit([ed_train.watch(channel, EPOCHS, -(-len(x) // BATCH), BATCH, len(x))])])
print(json.dumps(pairs))
"""
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", required=True, help="interpreter of an environment with Keras 3")
    parser.add_argument("--data", required=True, help="an .npz in Keras's format")
    parser.add_argument("-n", type=int, default=3, help="counted rounds")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    sys.path.insert(0, str(TOP))
    from envdoctor.validate.networks import describe, load  # noqa: PLC0415

    description = json.dumps(describe(load("mnist-cnn")))
    doctor = [sys.executable, "-m", "envdoctor", "validate", "--cpu", "--json", "--python", options.python]
    doctor += ["--data", options.data]
    rows: list[dict[str, float]] = []
    for number in range(options.n + 1):
        bare_wall, bare_cpu, answer = timed([options.python, "-c", BARE, description, options.data, "0"])
        doctor_wall, doctor_cpu, report = timed(doctor)
        document = json.loads(report)
        (row,) = document["devices"]
        if number:  # the first round warms the page cache
            rows.append(
                {
                    "bare_s": bare_wall,
                    "doctor_s": doctor_wall,
                    "bare_cpu_s": bare_cpu,
                    "doctor_cpu_s": doctor_cpu,
                    "bare_fit_s": json.loads(answer.splitlines()[-1]),
                    "doctor_fit_s": row["train_s"],
                }
            )
    *_, answer = timed([options.python, "-c", PAIRED, description, options.data, str(options.n)])
    pairs = json.loads(answer.splitlines()[-1])
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}",
        "runs": options.n,
        "training_ratio": spread([row["doctor_fit_s"] / row["bare_fit_s"] for row in rows]),
        "training_ratio_in_one_process": spread([watched[0] / bare[0] for bare, watched in pairs]),
        "training_cpu_ratio_in_one_process": spread([watched[1] / bare[1] for bare, watched in pairs]),
        "added_s": spread([row["doctor_s"] - row["bare_s"] for row in rows]),
        "added_cpu_s": spread([row["doctor_cpu_s"] - row["bare_cpu_s"] for row in rows]),
        "bounds": {"training_ratio": 1.05, "added_s": 3.0},
        "rows": rows,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def timed(command: list[str]) -> tuple[float, float, str]:
    """Wall seconds, CPU seconds of it and its children, what it printed."""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    environment |= {"PYTHONPATH": str(WORKER), "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONDONTWRITEBYTECODE": "1"}
    if command[0] == sys.executable:
        environment["PYTHONPATH"] = str(TOP)
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {done.stdout[-1000:]} {done.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, done.stdout


def spread(values: list[float]) -> dict[str, float]:
    return {
        "min": round(min(values), 3),
        "median": round(statistics.median(values), 3),
        "max": round(max(values), 3),
    }


if __name__ == "__main__":
    main()
