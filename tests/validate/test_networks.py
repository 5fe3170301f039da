"""The networks as data: published counts, options, and the same model in Keras."""

from __future__ import annotations

import ast
import sys
from typing import Any

import pytest

from envdoctor.errors import UsageError
from envdoctor.validate import networks
from tests.validate.in_target import WORKER, run_keras

PARAMETERS = {
    "mnist-cnn": 96_844,  # published
    "mnist-cnn-tuned": 208_982,
    "mnist-cnn-tuned-wide": 250_994,
    "mlp-70-30": 57_390,  # published
    "mlp-200-100-50-30": 183_990,
    "keras-mlp": 669_706,
    "keras-cnn": 233_022,
    "parity-cnn": 1_982_955,
    "lab-cnn": 8_438,  # published
}


def test_every_network_has_the_parameters_that_are_published_or_counted_by_hand() -> None:
    assert {name: networks.parameters(networks.load(name)) for name in networks.names()} == PARAMETERS


def test_the_reference_is_what_the_requirements_describe() -> None:
    description = networks.describe(networks.load(networks.REFERENCE))
    assert [layer["name"] for layer in description["layers"]] == [
        "conv2d_1",
        "max_pooling2d_1",
        "conv2d_2",
        "max_pooling2d_2",
        "conv2d_3",
        "flatten_1",
        "dense_1",
        "dense_2",
    ]
    assert [layer["activation"] for layer in description["layers"] if "activation" in layer] == [
        *["relu"] * 4,
        "linear",
    ]
    assert description["optimiser"]["is"] == "rmsprop"
    assert (description["batch_size"], description["epochs"], description["standardise"]) == (64, 5, True)


def test_l2_is_on_the_dense_layers_alone() -> None:
    layers = networks.describe(networks.load("mnist-cnn-tuned"))["layers"]
    assert {layer["is"]: layer["l2"] for layer in layers if "l2" in layer} == {"conv": 0.0, "dense": 0.0008}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnist-cn", "did you mean mnist-cnn?"),
        ("MNIST-CNN", "did you mean mnist-cnn?"),
        ("resnet", "expected one of mnist-cnn, "),
        ("a\x1b[2Jb", "expected one of mnist-cnn, "),
    ],
)
def test_an_unknown_network_gets_one_line_with_the_nearest_name(name: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        networks.load(name)
    assert expected in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("network", "options", "expected"),
    [
        ("mnist-cnn", {"activation": "rleu"}, "activation is 'rleu': expected one of relu, leaky_relu"),
        ("mnist-cnn", {"initialiser": "zeros"}, "initialiser is 'zeros': expected one of glorot_uniform"),
        ("mnist-cnn", {"optimiser": "lbfgs"}, "optimiser is 'lbfgs': expected one of rmsprop, sgd, adam"),
        ("mnist-cnn", {"optimiser": ["adam"]}, "optimiser is ['adam']: expected one of rmsprop, sgd, adam"),
        ("mnist-cnn", {"learning_rate": 0}, "learning_rate is 0: expected a number above 0"),
        ("mnist-cnn", {"learning_rate": "fast"}, "learning_rate is 'fast': expected a number above 0"),
        ("mnist-cnn", {"decay": float("nan")}, "decay is nan: expected a number of 0 or more"),
        ("mnist-cnn", {"momentum": 1.0}, "momentum is 1.0: expected a number from 0 to below 1"),
        ("mnist-cnn", {"l2": -0.1}, "l2 is -0.1: expected a number of 0 or more"),
        ("keras-cnn", {"dropout": 1}, "dropout is 1: expected a number from 0 to below 1"),
        ("mnist-cnn", {"dropout": 0.5}, "dropout is 0.5: expected none, for it has no dropout layer"),
        ("mnist-cnn", {"batch_size": 0}, "batch_size is 0: expected a whole number of 1 or more"),
        ("mnist-cnn", {"batch_size": 64.0}, "batch_size is 64.0: expected a whole number of 1 or more"),
        ("mnist-cnn", {"epochs": True}, "epochs is True: expected a whole number of 1 or more"),
        ("mnist-cnn", {"standardise": 1}, "standardise is 1: expected true or false"),
        (
            "keras-cnn",
            {"momentum": 0.9},
            "momentum is 0.9: expected none, for the optimiser adam has no momentum",
        ),
        ("mnist-cnn", {"units": 7}, "no option 'units': expected one of activation, "),
    ],
)
def test_a_bad_option_is_one_line_with_network_field_value_and_what_was_expected(
    network: str, options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UsageError) as caught:
        networks.load(network, **options)
    assert str(caught.value).startswith(f"network {network}: {expected}")
    assert "\n" not in str(caught.value)


def test_options_change_what_the_worker_is_told() -> None:
    changed = networks.load(
        "keras-cnn",
        activation="tanh",
        initialiser="he_normal",
        optimiser="sgd",
        learning_rate=0.05,
        momentum=0.5,
        decay=0.01,
        l2=0.1,
        dropout=0.3,
        batch_size=7,
        epochs=2,
        standardise=True,
    )
    description = networks.describe(changed)
    assert description["optimiser"] == {"is": "sgd", "learning_rate": 0.05, "decay": 0.01, "momentum": 0.5}
    assert (description["batch_size"], description["epochs"], description["standardise"]) == (7, 2, True)
    layers = description["layers"]
    assert {layer["rate"] for layer in layers if layer["is"] == "dropout"} == {0.3}
    assert {layer["activation"] for layer in layers[:-1] if "activation" in layer} == {"tanh"}
    assert {layer["initialiser"] for layer in layers if "initialiser" in layer} == {"he_normal"}
    assert {layer["l2"] for layer in layers if layer["is"] == "dense"} == {0.1}


def test_another_optimiser_comes_with_its_own_defaults_and_keeps_the_schedule() -> None:
    network = networks.load("mnist-cnn-tuned", optimiser="sgd")
    assert network.optimiser == networks.Sgd(learning_rate=0.01, decay=0.001, momentum=0.0)
    assert networks.load("mnist-cnn-tuned", optimiser="rmsprop") == networks.load("mnist-cnn-tuned")


def test_an_option_that_is_none_changes_nothing() -> None:
    assert networks.load("mnist-cnn", epochs=None, optimiser=None) == networks.load("mnist-cnn")


def test_an_accuracy_bound_holds_for_the_networks_own_options_alone() -> None:
    assert networks.load("mnist-cnn").bounds
    assert networks.load("mnist-cnn", epochs=7, batch_size=64).bounds == networks.load("mnist-cnn").bounds
    assert networks.load("mnist-cnn", batch_size=512).bounds == ()
    assert networks.load("mnist-cnn", optimiser="sgd").bounds == ()


@pytest.mark.tensorflow
def test_keras_builds_the_same_networks_with_weights_from_numpy() -> None:
    found = run_keras("""
        import ed_network
        found = {}
        for name, description in DESCRIPTIONS.items():
            model = ed_network.build(description)
            weights = ed_network.initial_weights(description, seed=3)
            assert [w.dtype.name for w in weights] == ["float32"] * len(weights)
            same = [w.shape for w in weights] == [w.shape for w in model.get_weights()]
            model.set_weights(weights)
            names = [n for n, _ in ed_network.parameter_shapes(description)]
            trainable = [v.path for v in model.trainable_variables]
            found[name] = [model.count_params(), same, [t.endswith(n) for t, n in zip(trainable, names)]]
        print(json.dumps(found))
    """)
    assert {name: row[0] for name, row in found.items()} == PARAMETERS
    assert all(row[1] and all(row[2]) for row in found.values())


@pytest.mark.tensorflow
def test_initial_weights_have_the_deviation_of_keras_initialisers() -> None:
    """The same distributions as Keras's own: deviation and range of 60,000 numbers."""
    found = run_keras("""
        import keras, ed_network
        found = {}
        for name, own in ed_network.INITIALISERS.items():
            layer = {"is": "dense", "name": "d", "units": 300, "bias": False, "initialiser": name}
            (drawn,) = ed_network.initial_weights({"input": [200], "layers": [layer]}, 1)
            again = ed_network.initial_weights({"input": [200], "layers": [layer]}, 1)[0]
            other = ed_network.initial_weights({"input": [200], "layers": [layer]}, 2)[0]
            theirs = np.asarray(keras.initializers.get(name)((200, 300)))
            found[name] = [float(drawn.std() / theirs.std()), float(abs(drawn).max() / abs(theirs).max()),
                           bool((drawn == again).all()), bool((drawn == other).any())]
        print(json.dumps(found))
    """)
    assert set(found) == set(networks.INITIALISERS)
    for deviation, largest, again, other in found.values():
        assert deviation == pytest.approx(1, abs=0.02)
        assert largest == pytest.approx(1, abs=0.02)
        assert again
        assert not other


@pytest.mark.tensorflow
def test_the_compiled_model_decays_its_rate_in_inverse_time_with_each_step() -> None:
    rates = run_keras("""
        import keras, ed_network
        description = DESCRIPTIONS["mnist-cnn-tuned"]
        optimiser = ed_network.optimiser(description)
        optimiser.build([keras.Variable(np.zeros(1, "float32"))])
        rates = []
        for step in (0, 1000, 3000):
            optimiser.iterations.assign(step)
            rates.append(float(optimiser.learning_rate))
        constant = ed_network.optimiser(DESCRIPTIONS["mnist-cnn"])
        print(json.dumps([rates, float(constant.learning_rate), optimiser.momentum]))
    """)
    assert rates[0] == pytest.approx([0.001, 0.001 / 2, 0.001 / 4], rel=1e-5)
    assert rates[1:] == [pytest.approx(0.001), 0.9]


def test_the_worker_is_plain_python_3_9_and_needs_numpy_and_keras_alone() -> None:
    siblings = {path.stem for path in WORKER.glob("ed_*.py")}
    allowed = {*sys.stdlib_module_names, *siblings, "numpy", "keras", "tensorflow", "jax", "torch", "sklearn"}
    for path in WORKER.glob("ed_*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 9))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.partition(".")[0] for name in names} <= allowed, path.name
