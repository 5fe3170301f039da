"""Real frameworks on the CPU against the reference, and kernels that are wrong on purpose."""

from __future__ import annotations

from typing import Any

import pytest

from tests.validate.in_target import BACKENDS, run, run_keras

# What every script below begins with
COMPARE = """
import ed_data, ed_network, ed_numerics
data = ed_data.load(DIGITS)
def compare(name="mnist-cnn", **how):
    description = DESCRIPTIONS[name]
    weights = ed_network.initial_weights(description, 1)
    x, y = ed_numerics.batch(data.x_test, data.y_test)
    return ed_numerics.compare(description, weights, x, y, **how)
"""
FORWARD = [
    *("conv2d_1 output", "max_pooling2d_1 output", "conv2d_2 output", "max_pooling2d_2 output"),
    *("conv2d_3 output", "dense_1 output", "logits", "loss"),
]
BACKWARD = [
    *("logits gradient", "dense_2/kernel gradient", "dense_2/bias gradient", "dense_2 input gradient"),
    *("dense_1/kernel gradient", "dense_1/bias gradient", "dense_1 input gradient"),
    *("conv2d_3/kernel gradient", "conv2d_3/bias gradient", "conv2d_3 input gradient"),
    "max_pooling2d_2 input gradient",
    *("conv2d_2/kernel gradient", "conv2d_2/bias gradient", "conv2d_2 input gradient"),
    "max_pooling2d_1 input gradient",
    *("conv2d_1/kernel gradient", "conv2d_1/bias gradient", "input gradient"),
]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_network_is_within_a_ten_thousandth_of_numpy_on_the_cpu(backend: str) -> None:
    found = run_keras(
        f"{COMPARE}\nprint(json.dumps({{name: compare(name, device='cpu:0') for name in DESCRIPTIONS}}))",
        backend=backend,
    )
    assert [row["tensor"] for row in found["mnist-cnn"]] == FORWARD + BACKWARD
    worst = {name: max(row["error"] for row in rows) for name, rows in found.items()}
    assert max(worst.values()) < 1e-4, worst
    assert min(worst.values()) > 0, "float32 rounds: no error at all means that nothing was compared"
    rows = [row for rows in found.values() for row in rows]
    assert {(row["device"], row["bound"], row["precision"]) for row in rows} == {("CPU:0", 1e-4, "float32")}


@pytest.mark.parametrize("backend", BACKENDS[:1] + BACKENDS[2:])  # PyTorch has one CPU
def test_the_device_of_the_rows_is_the_one_that_computed(backend: str) -> None:
    """Two logical CPUs stand in for two accelerators."""
    devices = run_keras(
        f"""
import os
if os.environ["KERAS_BACKEND"] == "tensorflow":
    import tensorflow
    (cpu,) = tensorflow.config.list_physical_devices("CPU")
    two = [tensorflow.config.LogicalDeviceConfiguration()] * 2
    tensorflow.config.set_logical_device_configuration(cpu, two)
{COMPARE}
rows = [compare("lab-cnn", device=device) for device in ("cpu:1", None)]
assert all(ed_numerics.first_wrong(r) is None for r in rows)
print(json.dumps([r[0]["device"] for r in rows]))
""",
        backend=backend,
        XLA_FLAGS="--xla_force_host_platform_device_count=2" if backend == "jax" else "",
    )
    assert devices == ["CPU:1", "CPU:0"]


WRONG = """
import keras, tensorflow
from keras.src.layers.convolutional.base_conv import BaseConv
right = BaseConv.convolution_op
scaled = tensorflow.constant([1.0] * 63 + [1.01])  # one map of the 64 is a hundredth too large
@tensorflow.custom_gradient
def in_gradient(value, *_):
    return tensorflow.identity(value), lambda d: d * 1.01
def wrong_output(layer, inputs, kernel):
    made = right(layer, inputs, kernel)
    return made * scaled if layer.name == "conv2d_2" else made
def turned(layer, inputs, kernel):  # a convolution in the sense of mathematics
    return right(layer, inputs, kernel[::-1, ::-1] if layer.name == "conv2d_3" else kernel)
def not_a_number(layer, inputs, kernel):
    made = right(layer, inputs, kernel)
    return made / tensorflow.where(made > 1.0, 0.0, 1.0) if layer.name == "conv2d_2" else made
def wrong_kernel_gradient(layer, inputs, kernel):
    return right(layer, inputs, in_gradient(kernel) if layer.name == "conv2d_2" else kernel)
def wrong_input_gradient(layer, inputs, kernel):
    return right(layer, in_gradient(inputs) if layer.name == "conv2d_3" else inputs, kernel)
def with_pooling(gradient):
    def pool(self, inputs):
        @tensorflow.custom_gradient
        def op(x):
            return original(self, x), lambda d: gradient(x, d)
        return op(inputs) if self.name == "max_pooling2d_1" else original(self, inputs)
    return pool
original = keras.layers.MaxPooling2D.call
def smallest(x):
    return -tensorflow.nn.max_pool2d(-x, 2, 2, "VALID")
def up(d):
    return tensorflow.repeat(tensorflow.repeat(d, 2, 1), 2, 2)
"""


@pytest.fixture(scope="module")
def caught() -> Any:
    """{what is wrong: the first wrong row}"""
    return run_keras(f"""
{COMPARE}
{WRONG}
found = {{"nothing": ed_numerics.first_wrong(compare(device="cpu:0"))}}
for wrong in (wrong_output, turned, not_a_number, wrong_kernel_gradient, wrong_input_gradient):
    BaseConv.convolution_op = wrong
    found[wrong.__name__] = ed_numerics.first_wrong(compare(device="cpu:0"))
BaseConv.convolution_op = right
for name, gradient in {{
    "pooling gives all of a window the gradient": lambda x, d: up(d) / 4,
    "pooling gives the smallest the gradient":
        lambda x, d: up(d) * tensorflow.cast(x == up(smallest(x)), "float32"),
}}.items():
    keras.layers.MaxPooling2D.call = with_pooling(gradient)
    found[name] = ed_numerics.first_wrong(compare(device="cpu:0"))
print(json.dumps(found))
""")


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("wrong", "tensor"),
    [
        ("wrong_output", "conv2d_2 output"),
        ("turned", "conv2d_3 output"),
        ("not_a_number", "conv2d_2 output"),
        ("wrong_kernel_gradient", "conv2d_2/kernel gradient"),
        ("wrong_input_gradient", "conv2d_3 input gradient"),
        ("pooling gives all of a window the gradient", "max_pooling2d_1 input gradient"),
        ("pooling gives the smallest the gradient", "max_pooling2d_1 input gradient"),
    ],
)
def test_a_wrong_kernel_is_caught_and_named_by_its_layer(caught: Any, wrong: str, tensor: str) -> None:
    assert caught["nothing"] is None
    assert caught[wrong]["tensor"] == tensor
    assert caught[wrong]["layer"] == tensor.partition(" ")[0].partition("/")[0]
    assert (caught[wrong]["error"] is None) == (wrong == "not_a_number")


@pytest.mark.torch
def test_mixed_precision_is_within_its_bound_and_would_not_be_within_that_of_float32() -> None:
    found = run_keras(
        f"""
{COMPARE}
how = {{"device": "cpu:0", "policy": "mixed_float16"}}
print(json.dumps({{name: compare(name, **how) for name in DESCRIPTIONS}}))
""",
        backend="torch",
    )
    for name, rows in found.items():
        assert {row["precision"] for row in rows} == {"mixed_float16"}
        assert all(row["error"] <= row["bound"] for row in rows), name
        assert max(row["error"] for row in rows) > 1e-4, name


@pytest.mark.tensorflow
def test_factors_rounded_to_tf32_are_within_its_bound_and_not_within_that_of_float32() -> None:
    """What a GPU's tensor cores do to the factors, done in NumPy; no GPU is involved."""
    found = run("""
import ed_data, ed_network, ed_numerics, ed_reference
def rounded(a):
    bits = np.ascontiguousarray(a, "float32").view("uint32")
    return ((bits + 0x0FFF + ((bits >> 13) & 1)) & np.uint32(0xFFFFE000)).view("float32")
def coarse(layer):
    class Coarse(layer):
        def forward(self, x):
            self.kernel = rounded(self.kernel)
            return super().forward(rounded(x))
        def backward(self, dz, wanted=True):
            dx = super().backward(rounded(dz), wanted)
            self.dbias = dz.reshape(-1, dz.shape[-1]).sum(axis=0)
            return dx
    return Coarse
data = ed_data.load(DIGITS)
exact = ed_reference.Convolution, ed_reference.Dense
found = {}
for name, description in DESCRIPTIONS.items():
    weights = ed_network.initial_weights(description, 1)
    x, y = ed_numerics.batch(data.x_test, data.y_test)
    ed_reference.Convolution, ed_reference.Dense = map(coarse, exact)
    if any(layer.get("l2") for layer in description["layers"]):  # L2 is of the kernels as they are
        for layer in description["layers"]:
            layer["l2"] = 0.0
    device = {t: v for t, _, v in ed_numerics.expected_tensors(description, weights, x, y, dtype="float32")}
    for layer in description["layers"]:  # not compared, and asked for where choices are followed
        device.setdefault(layer["name"] + " output", None)
        device.setdefault(layer["name"] + " input gradient", None)
    ed_reference.Convolution, ed_reference.Dense = exact
    near = ed_numerics.BOUNDS["tf32"]["near"]
    rows = ed_numerics.expected_tensors(description, weights, x, y, device, near)
    found[name] = max(ed_numerics.error(device[tensor], value) for tensor, _, value in rows)
print(json.dumps([found, ed_numerics.BOUNDS["tf32"]["bound"]]))
""")
    errors, bound = found
    assert all(1e-4 < error < bound / 3 for error in errors.values()), errors


@pytest.mark.tensorflow
def test_an_error_is_relative_to_the_largest_magnitude_and_none_where_it_is_not_finite() -> None:
    assert run("""
from ed_numerics import error
print(json.dumps([error([1.0, -3.9], np.array([1.0, -4.0])), error([0.5], np.array([0.0])),
                  error([1.0, np.nan], np.array([1.0, 1.0])), error([np.inf], np.array([1.0])),
                  error([1.0], np.array([1.0, 1.0]))]))
""") == [pytest.approx(0.025), 0.5, None, None, None]
