"""A `tensorflow` and a `keras` that compute nothing, in which a training can fail in every way.

They stand in front of the real packages on PYTHONPATH, so that the worker that runs is the real one. $WRONG
says what goes wrong, $GPUS how many GPUs are registered.
"""

from __future__ import annotations

import os
from pathlib import Path

from envdoctor.target import Target, choose_target
from tests.validate.in_target import python

TENSORFLOW = """
import os
__version__ = "2.21.0"
class Device:
    def __init__(self, number): self.name = "/physical_device:GPU:%d" % number
class experimental:
    set_memory_growth = staticmethod(lambda gpu, on: None)
    get_device_details = staticmethod(lambda gpu: {"device_name": "Fake GPU"})
    get_memory_info = staticmethod(lambda gpu: {"peak": 123 << 20})
class config:
    list_physical_devices = lambda kind: [Device(i) for i in range(int(os.environ.get("GPUS", 0)))]
    experimental = experimental
"""
KERAS = """
import os, signal, subprocess, sys, time, types
__version__ = "3.15.1"
WRONG = os.environ.get("WRONG", "")
GPUS = int(os.environ.get("GPUS", 0)) and os.environ.get("CUDA_VISIBLE_DEVICES") != "-1"
print("CUDA_VISIBLE_DEVICES=" + os.environ.get("CUDA_VISIBLE_DEVICES", "unset"), file=sys.stderr)
backend = types.SimpleNamespace(backend=lambda: "tensorflow", clear_session=lambda: None)
config = types.SimpleNamespace(set_floatx=lambda x: None, set_image_data_format=lambda x: None)
utils = types.SimpleNamespace(set_random_seed=lambda seed: None)
regularizers = types.SimpleNamespace(L2=lambda x: None)
losses = types.SimpleNamespace(SparseCategoricalCrossentropy=lambda **k: None)
optimizers = types.SimpleNamespace(RMSprop=lambda **k: None, SGD=None, Adam=None)
ops = types.SimpleNamespace(reshape=lambda x, shape: x, zeros=lambda shape: None)
class ResourceExhaustedError(Exception): pass
class Tensor:
    shape = (None, 28, 28, 1)
    device = "/job:localhost/device:" + ("GPU:0" if GPUS and WRONG != "elsewhere" else "CPU:0")
class Layer:
    input = Tensor()
    def __init__(self, *a, name="", **k):
        self.name, self.weights = name, [Tensor()] if name.startswith(("conv", "dense")) else []
    def __call__(self, value): return Tensor()
Input = lambda shape, **k: Tensor()
layers = types.SimpleNamespace(Conv2D=Layer, MaxPooling2D=Layer, Flatten=Layer, Dropout=Layer, Dense=Layer)
class callbacks:
    class Callback: pass
class Model:
    def __init__(self, inputs, outputs, name=""):
        self.layers = [Layer(name="conv2d_1")]
        self.weights = self.layers[0].weights
    def compile(self, **k): pass
    def set_weights(self, weights): pass
    def evaluate(self, x, y, **k): return [0.05, 0.985]
    def fit(self, x, y, batch_size, epochs, verbose, callbacks):
        if WRONG == "memory" and batch_size > 16 or WRONG == "no memory":
            raise ResourceExhaustedError("OOM when allocating tensor with shape[%d,26,26,32]" % batch_size)
        watch, = callbacks
        steps = -(-len(x) // batch_size)
        for epoch in range(epochs):
            watch.on_epoch_begin(epoch)
            for step in range(steps):
                time.sleep(0.1 / steps)
                loss = float("nan") if WRONG == "diverges" else 2.3 / (1 + epoch)
                watch.on_train_batch_end(step, {"loss": loss})
                if epoch == 2:
                    self.go_wrong()
            watch.on_epoch_end(epoch, {"loss": 2.3 / (1 + epoch), "accuracy": 0.9})
    def go_wrong(self):
        if WRONG == "raises":
            raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered")
        if WRONG == "killed":
            print("\\x1b[31mNVRM: Xid 79", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if WRONG == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        if WRONG == "hangs":
            child = subprocess.Popen(["sleep", "600"])
            print("grandchild", child.pid, file=sys.stderr, flush=True)
            time.sleep(600)
        if WRONG == "silent":
            time.sleep(600)
        if WRONG == "floods":
            for _ in range(3000):
                print("x" * 1000); print("y" * 1000, file=sys.stderr)
"""


def fake_target(place: Path, wrong: str = "", *, gpus: int = 0, **variables: str) -> Target:
    """An interpreter with a real NumPy that imports the fakes."""
    for name, text in (("tensorflow", TENSORFLOW), ("keras", KERAS)):
        (place / name).mkdir(parents=True, exist_ok=True)
        (place / name / "__init__.py").write_text(text)
    environment = {"PATH": os.environ["PATH"], "HOME": str(place), "PYTHONPATH": str(place)}
    environment |= {"WRONG": wrong, "GPUS": str(gpus), **variables}
    return choose_target(str(python("light", package="numpy")), None, environment)


def workers_of(pid: int) -> list[int]:
    """The workers among the children of a process."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = place.joinpath("stat").read_text().rpartition(")")[2].split()[1]
            if parent == str(pid) and "ed_train.py" in place.joinpath("cmdline").read_text():
                found.append(int(place.name))
        except OSError:  # it ended meanwhile
            continue
    return found
