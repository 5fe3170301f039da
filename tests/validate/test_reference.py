"""The NumPy reference against arithmetic that shares nothing with it: finite differences, loops, Keras."""

from __future__ import annotations

from typing import Any

import pytest

from tests.validate.in_target import run, run_keras

pytestmark = pytest.mark.tensorflow  # whose environment has NumPy

SMALL = """
import ed_network, ed_reference
def layer(kind, name, **more):
    common = {"is": kind, "name": name}
    if kind in ("conv", "dense"):
        common.update(bias=True, activation=ACTIVATION, initialiser="glorot_normal", l2=0.0)
    if kind == "conv":
        common.update(stride=1, padding="valid")
    return dict(common, **more)
def network(layers, input=(7, 6, 2), **optimiser):
    return {"input": list(input), "layers": layers, "optimiser": optimiser}
def example(description, count=3, seed=5):
    random = np.random.default_rng(seed)
    x = random.standard_normal((count, *description["input"]))
    y = random.integers(0, 4, count)
    weights = [random.standard_normal(shape) * 0.5 for _, shape in ed_network.parameter_shapes(description)]
    return x, y, weights
def last(**more):
    return layer("dense", "last", units=4, **dict({"activation": "linear"}, **more))
"""
FINITE = """
STEP = 1e-6
def worst(description):
    x, y, weights = example(description)
    found = ed_reference.Reference(description, weights).gradients(x, y)
    def loss():
        return ed_reference.Reference(description, weights).forward(x, y)["loss"]
    names = [name for name, _ in ed_network.parameter_shapes(description)]
    worst = 0
    for array, gradient in [(x, found["dx"])] + [(w, found["dw"][n]) for w, n in zip(weights, names)]:
        assert array.shape == gradient.shape
        for place in np.random.default_rng(1).permutation(array.size)[:60]:
            place = np.unravel_index(place, array.shape)
            before = array[place]
            array[place] = before + STEP
            above = loss()
            array[place] = before - STEP
            below = loss()
            array[place] = before
            worst = max(worst, abs((above - below) / (2 * STEP) - gradient[place]) / abs(gradient).max())
    return float(worst)
"""
NETWORKS = {
    "convolution": '[layer("conv", "c", filters=3, kernel=3)]',
    "without bias": '[layer("conv", "c", filters=3, kernel=3, bias=False)]',
    "stride": '[layer("conv", "c", filters=3, kernel=2, stride=2)]',
    "stride that leaves a rest": '[layer("conv", "c", filters=3, kernel=3, stride=3)]',
    "same": '[layer("conv", "c", filters=3, kernel=3, padding="same")]',
    "same, even kernel": '[layer("conv", "c", filters=3, kernel=4, padding="same")]',
    "same, stride": '[layer("conv", "c", filters=3, kernel=3, stride=2, padding="same")]',
    "two": '[layer("conv", "c", filters=3, kernel=3), layer("conv", "d", filters=2, kernel=2)]',
    "pooling": '[layer("pool", "p", size=2)]',
    "pooling after": '[layer("conv", "c", filters=3, kernel=2), layer("pool", "p", size=3)]',
    "dropout": '[layer("dropout", "o", rate=0.5)]',
    "nothing": "[]",
    "l2": '[layer("flatten", "f"), layer("dense", "h", units=5, l2=0.3)]',
}


@pytest.fixture(scope="module")
def finite_differences() -> Any:
    """{network: {activation: worst difference}}, and L2 in the last layer everywhere."""
    cases = "".join(
        f"    found[{name!r}] = {{}}\n"
        f"    hidden = {layers}\n"
        '    flatten = [] if hidden and hidden[0]["is"] == "flatten" else [layer("flatten", "f")]\n'
        f"    both[{name!r}] = network(hidden + flatten + [last(l2=0.02)])\n"
        for name, layers in NETWORKS.items()
    )
    script = (
        f"{SMALL}{FINITE}\nresult = {{}}\n"
        "for ACTIVATION in ('relu', 'leaky_relu', 'elu', 'sigmoid', 'tanh', 'linear'):\n"
        f"    found, both = {{}}, {{}}\n{cases}"
        "    result[ACTIVATION] = {name: worst(d) for name, d in both.items()}\n"
        "print(json.dumps(result))\n"
    )
    return run(script)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "sigmoid", "tanh", "linear"])
@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_are_those_of_finite_differences(
    finite_differences: Any, network: str, activation: str
) -> None:
    assert finite_differences[activation][network] < 1e-6


def test_a_convolution_is_its_definition_in_loops() -> None:
    worst = run(f"""
ACTIVATION = "linear"
{SMALL}
worst = 0
for padding in ("valid", "same"):
    for stride in (1, 2, 3):
        for kernel in (1, 2, 3, 4):
            conv = layer("conv", "c", filters=2, kernel=kernel, stride=stride, padding=padding)
            description = network([conv, layer("flatten", "f"), last()])
            x, y, weights = example(description, 2)
            made = ed_reference.Reference(description, weights).forward(x, y)["activations"]["c"]
            k, b = weights[:2]
            height, width = x.shape[1:3]
            same = padding == "same"
            count = [-(-s // stride) if same else (s - kernel) // stride + 1 for s in (height, width)]
            total = [max((n - 1) * stride + kernel - s, 0) for n, s in zip(count, (height, width))]
            top, left = [t // 2 if same else 0 for t in total]
            assert made.shape == (2, *count, 2)
            for n, row, column, out in np.ndindex(*made.shape):
                expected = b[out]
                for i, j, c in np.ndindex(kernel, kernel, 2):
                    r, s = row * stride + i - top, column * stride + j - left
                    if 0 <= r < height and 0 <= s < width:
                        expected += k[i, j, c, out] * x[n, r, s, c]
                worst = max(worst, abs(expected - made[n, row, column, out]))
print(json.dumps(float(worst)))
""")
    assert worst < 1e-12


def test_the_first_of_equal_numbers_in_a_window_gets_the_gradient() -> None:
    gradient = run("""
import ed_reference
pool = ed_reference.Pooling({"size": 2})
x = np.array([[1.0, 3, 5, 5], [3, 2, 5, 0]]).reshape(1, 2, 4, 1)
assert pool.forward(x).ravel().tolist() == [3, 5]
print(json.dumps(pool.backward(np.array([7.0, 9]).reshape(1, 1, 2, 1))[0, :, :, 0].tolist()))
""")
    assert gradient == [[0, 7, 9, 0], [0, 0, 0, 0]]


def test_a_devices_choice_is_followed_near_a_tie_and_nowhere_else() -> None:
    near, far, kink = run("""
ACTIVATION = "relu"
import ed_network, ed_reference
def route(second):
    description = {"input": [2, 2, 1], "optimiser": {}, "layers": [
        {"is": "pool", "name": "p", "size": 2}, {"is": "flatten", "name": "f"},
        {"is": "dense", "name": "d", "units": 2, "bias": False, "activation": "linear", "l2": 0.0}]}
    x = np.array([1.0, second, 0, 0]).reshape(1, 2, 2, 1)
    reference = ed_reference.Reference(description, [np.array([[1.0, -1.0]])])
    reference.forward(x, np.array([0]))
    device = np.array([0.0, 5.0, 0, 0]).reshape(1, 2, 2, 1)
    reference.follow({}, {"p": device}, 1e-3)
    return np.flatnonzero(reference.backward()["dx"]).tolist()
description = {"input": [3], "optimiser": {}, "layers": [
    {"is": "dense", "name": "h", "units": 3, "bias": False, "activation": "relu", "l2": 0.0},
    {"is": "dense", "name": "d", "units": 2, "bias": False, "activation": "linear", "l2": 0.0}]}
reference = ed_reference.Reference(description, [np.eye(3), np.arange(6.0).reshape(3, 2) + 1])
reference.forward(np.array([[1e-5, -1e-5, 1.0]]), np.array([0]))
reference.follow({"h": np.array([[0.0, 2e-5, 0.0]])}, {}, 1e-3)
print(json.dumps([route(0.9999), route(0.9), np.flatnonzero(reference.backward()["dx"]).tolist()]))
""")
    assert near == [1]  # where the device sent it
    assert far == [0]  # the device is wrong there
    assert kink == [1, 2]  # both choices turned; the third number is far from zero


# Adam's epsilon is larger than its default: below it, the sign of a gradient that is rounding would decide
@pytest.mark.parametrize(
    "optimiser",
    [
        {"is": "rmsprop", "learning_rate": 0.001, "momentum": 0.9, "decay": 0.1, "rho": 0.9, "epsilon": 1e-7},
        {"is": "sgd", "learning_rate": 0.05, "momentum": 0.5, "decay": 0.0},
        {"is": "adam", "learning_rate": 0.002, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-3, "decay": 0.0},
    ],
    ids=lambda optimiser: optimiser["is"],
)
def test_an_epoch_ends_with_the_weights_that_keras_has(optimiser: dict[str, Any]) -> None:
    worst, loss, kept = run_keras(f"""
        import ed_data, ed_network, ed_reference
        description = dict(DESCRIPTIONS["mlp-200-100-50-30"], optimiser={optimiser!r})
        for layer in description["layers"]:
            if layer["is"] == "dense":
                layer["l2"] = 0.001
        data = ed_data.load(DIGITS, samples=300)
        weights = ed_network.initial_weights(description, 1)
        kept = [w.copy() for w in weights]
        made = ed_reference.train_epoch(description, weights, data.x_train, data.y_train, 64, "float64")
        model = ed_network.build(description)
        model.set_weights(weights)
        ed_network.compile_model(model, description)
        done = model.fit(data.x_train, data.y_train, batch_size=64, shuffle=False, verbose=0)
        moved = [np.abs(a - b).max() for a, b in zip(made["weights"], weights)]
        off = [np.abs(a - b).max() for a, b in zip(made["weights"], model.get_weights())]
        worst = max(o / m for o, m in zip(off, moved))
        print(json.dumps([float(worst), made["loss"] / done.history["loss"][0],
                          all((a == b).all() for a, b in zip(weights, kept))]))
    """)
    assert worst < 1e-2  # of how far the weights moved; five steps of float32 make 1e-4 to 1e-3
    assert loss == pytest.approx(1, abs=1e-3)
    assert kept  # the weights that it was given


def test_an_epoch_cut_short_by_its_deadline_is_scaled_by_its_images() -> None:
    whole, cut, single = run("""
        import ed_data, ed_network, ed_reference
        description = DESCRIPTIONS["mnist-cnn"]
        data = ed_data.load(DIGITS, samples=640)
        weights = ed_network.initial_weights(description, 1)
        def epoch(dtype, deadline=None):
            x, y = data.x_train, data.y_train
            made = ed_reference.train_epoch(description, weights, x, y, 64, dtype, deadline)
            assert {w.dtype.name for w in made.pop("weights")} == {dtype}
            return made
        print(json.dumps([epoch("float64"), epoch("float64", 0.0), epoch("float32")]))
    """)
    assert (whole["images"], whole["complete"], cut["images"], cut["complete"]) == (640, True, 64, False)
    assert cut["epoch_seconds"] == pytest.approx(10 * cut["seconds"])
    assert cut["images_per_s"] == pytest.approx(64 / cut["seconds"])
    assert whole["epoch_seconds"] == pytest.approx(whole["seconds"])
    assert single["loss"] == pytest.approx(whole["loss"], rel=1e-3)
    assert single["loss"] < cut["loss"]  # it learns
