"""What the doctor tells the worker (one job) and what the worker tells back (events), as typed data.

`at` of an event is in seconds of CLOCK_MONOTONIC, which the processes of a machine share (clock_gettime(2)).
A loss that is None was not finite: JSON has no NaN.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

BUILDING = "building the network"  # the step with which each batch size begins


class DataWanted(Struct, frozen=True, kw_only=True):
    spec: str  # "auto", "mnist", "digits", or the path of an .npz
    samples: int | None = None  # of training, an epoch; None: all there are
    offline: bool = False  # nothing is downloaded
    deadline: float = 30.0  # seconds, for a download


class Job(Struct, frozen=True, kw_only=True):
    """One training on one device; several batch sizes are trained one after another."""

    backend: str  # "tensorflow", "jax", "torch"
    device: str  # "cpu", "gpu"; "cpu:1" where `logical_cpus` makes one
    description: dict[str, Any]  # networks.describe()
    data: DataWanted
    batch_sizes: tuple[int, ...]
    epochs: int
    seed: int = 20
    logical_cpus: int = 0  # TensorFlow splits the CPU into so many; 0 leaves it whole
    smallest_batch: int = 8  # below which a batch that does not fit is not halved any more
    evaluate: bool = True
    numerics: bool = True
    numpy_seconds: float = 0.0  # for each of float32 and float64; 0: NumPy is not timed
    activations: bool = False


class Begin(Struct, frozen=True, kw_only=True, tag="begin", tag_field="event"):
    at: float
    step: str


class AccuracyBound(Struct, frozen=True, kw_only=True):
    minimum: float
    why: str


class Data(Struct, frozen=True, kw_only=True, tag="data", tag_field="event"):
    at: float
    description: dict[str, Any]  # ed_data.DataSet.description
    bound: AccuracyBound | None
    seconds: float


class Ready(Struct, frozen=True, kw_only=True, tag="ready", tag_field="event"):
    at: float
    framework: str  # its version
    keras: str
    device_name: str  # the hardware's; "" for the CPU
    import_seconds: float


class StartValues(Struct, frozen=True, kw_only=True, tag="start-values", tag_field="event"):
    at: float
    parameters: int
    weights: str  # digests: two devices that start from the same say the same
    data: str


class Built(Struct, frozen=True, kw_only=True, tag="built", tag_field="event"):
    at: float
    batch_size: int
    steps: int  # an epoch
    seconds: float


class FirstStep(Struct, frozen=True, kw_only=True, tag="first-step", tag_field="event"):
    at: float
    seconds: float  # since fit() was called: tracing, compiling, autotuning, the step
    loss: float | None


class Step(Struct, frozen=True, kw_only=True, tag="step", tag_field="event"):
    at: float
    epoch: int  # from 0
    step: int  # from 1, in the epoch
    loss: float | None  # mean since the epoch's beginning
    images_per_s: float


class Epoch(Struct, frozen=True, kw_only=True, tag="epoch", tag_field="event"):
    at: float
    epoch: int
    seconds: float
    images: int
    loss: float | None
    accuracy: float
    curve: tuple[tuple[int, float | None], ...]  # (step since the start, mean loss since the point before)


class Halved(Struct, frozen=True, kw_only=True, tag="halved", tag_field="event"):
    at: float
    batch_size: int
    to: int
    error: str


class Evaluated(Struct, frozen=True, kw_only=True, tag="evaluated", tag_field="event"):
    at: float
    loss: float | None
    accuracy: float
    seconds: float


class Placed(Struct, frozen=True, kw_only=True, tag="placed", tag_field="event"):
    """Where a trained weight and the output of the first layer that has weights were found."""

    at: float
    weights: str  # "GPU:0"
    output: str
    layer: str
    peak_bytes: int  # resident, of the process so far
    gpu_peak_bytes: int | None


class Activations(Struct, frozen=True, kw_only=True, tag="activations", tag_field="event"):
    at: float
    label: int
    image: str  # base64: 28 rows of 28 bytes
    maps: tuple[dict[str, Any], ...]  # {"layer", "shape": [maps, height, width], "bytes": base64}


class NumericsRow(Struct, frozen=True, kw_only=True):
    tensor: str
    layer: str
    device: str
    error: float | None  # largest difference by the tensor's largest magnitude; None: not finite
    bound: float
    precision: str  # "float32", "tf32": what the framework allowed there


class Numerics(Struct, frozen=True, kw_only=True, tag="numerics", tag_field="event"):
    at: float
    rows: tuple[NumericsRow, ...]  # in the order of computation
    batch_size: int
    seconds: float


class NumpyEpoch(Struct, frozen=True, kw_only=True, tag="numpy", tag_field="event"):
    at: float
    dtype: str
    epoch_seconds: float
    images: int  # that were timed
    complete: bool  # False: scaled from those


class Failed(Struct, frozen=True, kw_only=True, tag="failed", tag_field="event"):
    """The worker says why it ends; `kind`: data, missing, old-keras, no-device, memory, error."""

    at: float
    step: str
    kind: str
    error: str
    trace: str


class Done(Struct, frozen=True, kw_only=True, tag="done", tag_field="event"):
    at: float


Event = (
    Begin
    | Data
    | Ready
    | StartValues
    | Built
    | FirstStep
    | Step
    | Epoch
    | Halved
    | Evaluated
    | Placed
    | Activations
    | Numerics
    | NumpyEpoch
    | Failed
    | Done
)
Kind = TypeVar("Kind")
_DECODER = msgspec.json.Decoder(Event)


def parse(line: bytes) -> Event | None:
    """The event of a line; None for what is none: a library may write where it should not."""
    try:
        event: Event = _DECODER.decode(line)
    except msgspec.DecodeError:
        return None
    return event


def only(kind: type[Kind], events: Iterable[Event]) -> list[Kind]:
    return [event for event in events if isinstance(event, kind)]
