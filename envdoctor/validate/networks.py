"""The networks that can be trained, as data; their options; their number of parameters."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from envdoctor.errors import UsageError
from envdoctor.report.terminal import harmless

REFERENCE = "mnist-cnn"
INPUT = (28, 28, 1)
CLASSES = 10
ACTIVATIONS = ("relu", "leaky_relu", "elu", "sigmoid", "tanh")
INITIALISERS = ("glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_normal")

Shape = tuple[int, ...]


class Conv(Struct, frozen=True, tag="conv", tag_field="is"):
    label: ClassVar[str] = "conv2d"
    filters: int
    kernel: int  # square
    stride: int = 1
    padding: str = "valid"  # or "same"
    bias: bool = True

    def output(self, shape: Shape) -> Shape:
        height, width, _ = shape
        return self._side(height), self._side(width), self.filters

    def _side(self, side: int) -> int:
        return math.ceil((side if self.padding == "same" else side - self.kernel + 1) / self.stride)

    def parameters(self, shape: Shape) -> int:
        return (self.kernel**2 * shape[-1] + self.bias) * self.filters


class Pool(Struct, frozen=True, tag="pool", tag_field="is"):
    """The largest of each window; windows that do not fit are left out."""

    label: ClassVar[str] = "max_pooling2d"
    size: int = 2

    def output(self, shape: Shape) -> Shape:
        return shape[0] // self.size, shape[1] // self.size, shape[2]

    def parameters(self, shape: Shape) -> int:  # noqa: ARG002
        return 0


class Dropout(Struct, frozen=True, tag="dropout", tag_field="is"):
    label: ClassVar[str] = "dropout"
    rate: float

    def output(self, shape: Shape) -> Shape:
        return shape

    def parameters(self, shape: Shape) -> int:  # noqa: ARG002
        return 0


class Flatten(Struct, frozen=True, tag="flatten", tag_field="is"):
    label: ClassVar[str] = "flatten"

    def output(self, shape: Shape) -> Shape:
        return (math.prod(shape),)

    def parameters(self, shape: Shape) -> int:  # noqa: ARG002
        return 0


class Dense(Struct, frozen=True, tag="dense", tag_field="is"):
    label: ClassVar[str] = "dense"
    units: int
    bias: bool = True

    def output(self, shape: Shape) -> Shape:  # noqa: ARG002
        return (self.units,)

    def parameters(self, shape: Shape) -> int:
        return (shape[-1] + self.bias) * self.units


Layer = Conv | Pool | Dropout | Flatten | Dense


class RMSprop(Struct, frozen=True, tag="rmsprop", tag_field="is"):
    """`decay`: the rate of an inverse time decay for each step; 0 for a constant learning rate."""

    learning_rate: float = 0.001
    decay: float = 0.0
    momentum: float = 0.0
    rho: float = 0.9
    epsilon: float = 1e-7


class Sgd(Struct, frozen=True, tag="sgd", tag_field="is"):
    learning_rate: float = 0.01
    decay: float = 0.0
    momentum: float = 0.0


class Adam(Struct, frozen=True, tag="adam", tag_field="is"):
    learning_rate: float = 0.001
    decay: float = 0.0
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7


Optimiser = RMSprop | Sgd | Adam
OPTIMISERS: dict[str, type[RMSprop | Sgd | Adam]] = {
    "rmsprop": RMSprop,
    "sgd": Sgd,
    "adam": Adam,
}


class Published(Struct, frozen=True):
    what: str
    value: str
    source: str


class Bound(Struct, frozen=True):
    """A test accuracy that this network reaches with its own options, and epochs or more of them."""

    data: str  # "mnist" or "digits"
    samples: int  # different training samples, at least
    epochs: int  # at least
    minimum: float
    seen: str  # what it rests on


class Network(Struct, frozen=True):
    name: str
    title: str
    layers: tuple[Layer, ...]
    activation: str  # of every layer with weights but the last, which gives logits
    optimiser: Optimiser
    batch_size: int
    epochs: int
    standardise: bool  # of the inputs, by mean and deviation of the training set; else pixels from 0 to 1
    published: tuple[Published, ...]
    chosen: tuple[str, ...]  # what the sources leave open, and how it was settled
    initialiser: str = "glorot_uniform"
    bounds: tuple[Bound, ...] = ()  # none where an option other than the epochs was changed
    l2: float = 0.0  # on the kernels of the dense layers, as Keras counts it: l2 · sum of squares


class _Table(Struct, frozen=True):
    about: str
    rows: tuple[Network, ...]


@cache
def networks() -> tuple[Network, ...]:
    path = os.path.join(os.path.dirname(__file__), "networks.json")
    with open(path, "rb") as file:
        return msgspec.json.decode(file.read(), type=_Table).rows


def names() -> tuple[str, ...]:
    return tuple(network.name for network in networks())


def load(name: str, **options: object) -> Network:
    """A network by name, with options changed; an option that is None stays as the network has it.

    Options: activation, initialiser, optimiser (by name, with Keras's defaults), learning_rate, decay,
    momentum, l2, dropout (of every dropout layer), batch_size, epochs, standardise.
    Raises UsageError for an unknown name or option, and for a value that an option cannot have.
    """
    network = next((row for row in networks() if row.name == name), None)
    if network is None:
        close = difflib.get_close_matches(name.lower(), names(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(names())}"
        raise UsageError(f"no network is called '{harmless(name)}': {hint}")
    for option, value in options.items():
        if option not in _EXPECTED:
            raise UsageError(f"network {name}: no option '{option}': expected one of {', '.join(_EXPECTED)}")
        expected, holds = _EXPECTED[option]
        if value is not None and not holds(value):
            raise UsageError(f"network {name}: {option} is {harmless(repr(value))}: expected {expected}")
    return _with(network, {option: value for option, value in options.items() if value is not None})


def _with(network: Network, options: dict[str, Any]) -> Network:
    optimiser = network.optimiser
    wish = options.pop("optimiser", None)
    if wish and not isinstance(optimiser, OPTIMISERS[wish]):
        optimiser = OPTIMISERS[wish](decay=optimiser.decay)
    for option in ("learning_rate", "decay", "momentum"):
        if option not in options:
            continue
        if option not in optimiser.__struct_fields__:
            kind = type(optimiser).__struct_config__.tag
            raise UsageError(
                f"network {network.name}: {option} is {options[option]}: "
                f"expected none, for the optimiser {kind} has no {option}"
            )
        optimiser = msgspec.structs.replace(optimiser, **{option: options.pop(option)})
    if "dropout" in options:
        rate = options.pop("dropout")
        if not any(isinstance(layer, Dropout) for layer in network.layers):
            raise UsageError(
                f"network {network.name}: dropout is {rate}: expected none, for it has no dropout layer"
            )
        options["layers"] = tuple(
            Dropout(rate=rate) if isinstance(layer, Dropout) else layer for layer in network.layers
        )
    changed = msgspec.structs.replace(network, optimiser=optimiser, **options)
    as_measured = msgspec.structs.replace(changed, epochs=network.epochs) == network
    return changed if as_measured else msgspec.structs.replace(changed, bounds=())


def _one_of(words: tuple[str, ...]) -> tuple[str, Callable[[object], bool]]:
    return f"one of {', '.join(words)}", lambda value: value in words


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _from_zero_below_one(value: object) -> bool:
    return _number(value) and 0 <= value < 1  # type: ignore[operator]


def _not_negative(value: object) -> bool:
    return _number(value) and value >= 0  # type: ignore[operator]


_EXPECTED: dict[str, tuple[str, Callable[[object], bool]]] = {
    "activation": _one_of(ACTIVATIONS),
    "initialiser": _one_of(INITIALISERS),
    "optimiser": _one_of(tuple(OPTIMISERS)),
    "learning_rate": (
        "a number above 0",
        lambda value: _not_negative(value) and value != 0,
    ),
    "decay": ("a number of 0 or more", _not_negative),
    "momentum": ("a number from 0 to below 1", _from_zero_below_one),
    "l2": ("a number of 0 or more", _not_negative),
    "dropout": ("a number from 0 to below 1", _from_zero_below_one),
    "batch_size": ("a whole number of 1 or more", _whole),
    "epochs": ("a whole number of 1 or more", _whole),
    "standardise": ("true or false", lambda value: isinstance(value, bool)),
}


def shapes(network: Network) -> tuple[Shape, ...]:
    """What goes into each layer, and last what comes out: height, width, channels; or features."""
    found: list[Shape] = [INPUT]
    for layer in network.layers:
        found.append(layer.output(found[-1]))
    return tuple(found)


def parameters(network: Network) -> int:
    """How many numbers training sets: kernels and biases."""
    return sum(layer.parameters(shape) for layer, shape in zip(network.layers, shapes(network), strict=False))


def describe(network: Network) -> dict[str, Any]:
    """The network as the worker is told it: plain JSON in which nothing is left to look up."""
    counted: dict[str, int] = {}
    layers: list[dict[str, Any]] = []
    for layer in network.layers:
        counted[layer.label] = counted.get(layer.label, 0) + 1
        row: dict[str, Any] = {**msgspec.to_builtins(layer), "name": f"{layer.label}_{counted[layer.label]}"}
        if isinstance(layer, (Conv, Dense)):
            row["activation"] = "linear" if layer is network.layers[-1] else network.activation
            row["initialiser"] = network.initialiser
            row["l2"] = network.l2 if isinstance(layer, Dense) else 0.0
        layers.append(row)
    return {
        "name": network.name,
        "input": list(INPUT),
        "classes": CLASSES,
        "layers": layers,
        "optimiser": msgspec.to_builtins(network.optimiser),
        "loss": "categorical_crossentropy",
        "batch_size": network.batch_size,
        "epochs": network.epochs,
        "standardise": network.standardise,
        "bounds": msgspec.to_builtins(network.bounds),
    }
