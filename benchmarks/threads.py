"""Which way of limiting threads is kept: CPU seconds per wall second, measured.

    python benchmarks/threads.py --python ENV/bin/python [-o benchmarks/results/threads.json]

Each way runs in a process of its own: an endless matrix product or convolution for 1.2 s. On an idle machine
of two processors 2.0 is "no limit" and 1.0 is "one thread". `docs/threads.md` holds the results in words.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path

MEASURE = """
import time
def measure(function):
    function()
    cpu, wall = time.process_time(), time.perf_counter()
    while time.perf_counter() - wall < 1.2:
        function()
    return round((time.process_time() - cpu) / (time.perf_counter() - wall), 2)
"""
TENSORFLOW = """
import tensorflow as tf
{set_up}
a = tf.ones((1024, 1024))
x, k = tf.ones((16, 56, 56, 32)), tf.ones((3, 3, 32, 32))
compiled = tf.function(lambda z: tf.matmul(z, z), jit_compile=True)
print(measure(lambda: tf.matmul(a, a).numpy()), measure(lambda: tf.nn.conv2d(x, k, 1, "SAME").numpy()),
      measure(lambda: compiled(a).numpy()))
"""
SESSION = """
import tensorflow.compat.v1 as tf1
tf1.disable_eager_execution()
config = tf1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
a = tf1.ones((1024, 1024)); x, k = tf1.ones((16, 56, 56, 32)), tf1.ones((3, 3, 32, 32))
product, conv = tf1.reduce_sum(tf1.matmul(a * tf1.random.uniform(()), a)), tf1.reduce_sum(
    tf1.nn.conv2d(x * tf1.random.uniform(()), k, 1, "SAME"))
with tf1.Session(config=config) as session:
    print(measure(lambda: session.run(product)), measure(lambda: session.run(conv)))
"""
NUMPY = """
import numpy as np
a = np.ones((1500, 1500), dtype=np.float32)
print(measure(lambda: a @ a))
"""
API = "tf.config.threading.set_intra_op_parallelism_threads(1)"
WAYS: list[tuple[str, dict[str, str], list[str], str]] = [
    ("TensorFlow, no limit", {}, [], TENSORFLOW.format(set_up="")),
    (
        "TensorFlow, TF_NUM_INTRAOP_THREADS=1",
        {"TF_NUM_INTRAOP_THREADS": "1"},
        [],
        TENSORFLOW.format(set_up=""),
    ),
    (
        "TensorFlow, TF_NUM_INTEROP_THREADS=1",
        {"TF_NUM_INTEROP_THREADS": "1"},
        [],
        TENSORFLOW.format(set_up=""),
    ),
    ("TensorFlow, OMP_NUM_THREADS=1", {"OMP_NUM_THREADS": "1"}, [], TENSORFLOW.format(set_up="")),
    ("TensorFlow, OPENBLAS_NUM_THREADS=1", {"OPENBLAS_NUM_THREADS": "1"}, [], TENSORFLOW.format(set_up="")),
    ("TensorFlow, set_intra_op_parallelism_threads(1)", {}, [], TENSORFLOW.format(set_up=API)),
    ("TensorFlow, v1 session config", {}, [], SESSION),
    ("TensorFlow, taskset -c 0", {}, ["taskset", "-c", "0"], TENSORFLOW.format(set_up="")),
    ("NumPy, no limit", {}, [], NUMPY),
    ("NumPy, OMP_NUM_THREADS=1", {"OMP_NUM_THREADS": "1"}, [], NUMPY),
    ("NumPy, OPENBLAS_NUM_THREADS=1", {"OPENBLAS_NUM_THREADS": "1"}, [], NUMPY),
    ("NumPy, taskset -c 0", {}, ["taskset", "-c", "0"], NUMPY),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", required=True, help="interpreter of an environment with TensorFlow")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_THREADS")}
    results: dict[str, object] = {}
    for name, variables, prefix, code in WAYS:
        done = subprocess.run(
            [*prefix, options.python, "-c", MEASURE + code],
            env={**kept, **variables},
            capture_output=True,
            text=True,
            check=True,
        )
        results[name] = [float(word) for word in done.stdout.split()]
        print(f"{name:<50} {results[name]}", flush=True)
    version = "import tensorflow, numpy; print(tensorflow.__version__, numpy.__version__)"
    versions = subprocess.run([options.python, "-c", version], capture_output=True, text=True, check=True)
    text = json.dumps(
        {
            "tensorflow, numpy": versions.stdout.split(),
            "cpus": os.cpu_count(),
            "order": "matmul, conv2d, XLA-compiled matmul",
            "cpu_seconds_per_second": results,
        },
        indent=1,
    )
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
