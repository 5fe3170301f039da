"""The network of a description (see networks.describe) as a Keras model, and the weights it begins with.

Keras is imported only where a model is built, after KERAS_BACKEND has been set.
"""

import contextlib
import math

import numpy as np

# What Keras calls VarianceScaling: scale, which fan, distribution (keras/src/initializers)
INITIALISERS = {
    "glorot_uniform": (1.0, "average", "uniform"),
    "glorot_normal": (1.0, "average", "normal"),
    "he_uniform": (2.0, "in", "uniform"),
    "he_normal": (2.0, "in", "normal"),
    "lecun_normal": (1.0, "in", "normal"),
}
TRUNCATED = 0.87962566103423978  # deviation of a unit normal cut off at 2


def output_side(side, layer):
    """Height or width after a convolution."""
    reached = side if layer["padding"] == "same" else side - layer["kernel"] + 1
    return -(-reached // layer["stride"])


def output_shape(layer, shape):
    """What a layer makes of an input of this shape (without the batch)."""
    if layer["is"] == "conv":
        return (output_side(shape[0], layer), output_side(shape[1], layer), layer["filters"])
    if layer["is"] == "pool":
        return (shape[0] // layer["size"], shape[1] // layer["size"], shape[2])
    if layer["is"] == "flatten":
        return (math.prod(shape),)
    return (layer["units"],) if layer["is"] == "dense" else shape


def kernel_shape(layer, shape):
    """(height, width, channels in, channels out) or (features, units), as Keras keeps them."""
    if layer["is"] == "conv":
        return (layer["kernel"], layer["kernel"], shape[-1], layer["filters"])
    return (shape[-1], layer["units"])


def parameter_shapes(description):
    """[("conv2d_1/kernel", shape), ("conv2d_1/bias", shape), …] in the order of model.get_weights()."""
    found = []
    shape = tuple(description["input"])
    for layer in description["layers"]:
        if layer["is"] in ("conv", "dense"):
            kernel = kernel_shape(layer, shape)
            found.append((layer["name"] + "/kernel", kernel))
            if layer["bias"]:
                found.append((layer["name"] + "/bias", kernel[-1:]))
        shape = output_shape(layer, shape)
    return found


def initial_weights(description, seed):
    """float32 arrays in the order of model.get_weights(), the same for every framework and device."""
    random = np.random.Generator(np.random.PCG64(seed))
    initialisers = {layer["name"]: layer.get("initialiser") for layer in description["layers"]}
    weights = []
    for name, shape in parameter_shapes(description):
        layer, _, kind = name.partition("/")
        weights.append(
            _drawn(random, shape, initialisers[layer]) if kind == "kernel" else np.zeros(shape, "float32")
        )
    return weights


def _drawn(random, shape, initialiser):
    scale, fan, distribution = INITIALISERS[initialiser]
    field = math.prod(shape[:-2])
    fan_in, fan_out = field * shape[-2], field * shape[-1]
    variance = scale / (fan_in if fan == "in" else (fan_in + fan_out) / 2)
    if distribution == "uniform":
        limit = math.sqrt(3 * variance)
        return random.uniform(-limit, limit, shape).astype("float32")
    drawn = random.standard_normal(shape)
    while True:
        outside = np.abs(drawn) > 2
        if not outside.any():
            return (drawn * math.sqrt(variance) / TRUNCATED).astype("float32")
        drawn[outside] = random.standard_normal(int(outside.sum()))


def on(device):
    """The scope in which a model is built and used on a device ("cpu:0", "gpu:0"); None: Keras's choice.

    PyTorch has one CPU, "cpu": to "cpu:0" Keras 3.15 copies each variable, which is no parameter then, and a
    dropout layer cannot be made at all (seen with PyTorch 2.13).
    """
    import keras

    if device is None:
        return contextlib.nullcontext()
    one_cpu = keras.backend.backend() == "torch" and device.lower().startswith("cpu")
    return keras.device("cpu" if one_cpu else device)


def build(description, policy="float32"):
    """A functional model from (batch, 28, 28, 1) to logits, its layers named as in the description.

    `policy` is Keras's dtype policy; under "mixed_float16" the logits are still float32.
    """
    import keras

    inputs = keras.Input(tuple(description["input"]), name="input", dtype="float32")
    value = inputs
    for layer in description["layers"]:
        last = layer is description["layers"][-1]
        value = _layer(keras, layer, "float32" if last else policy)(value)
    return keras.Model(inputs, value, name=description["name"].replace("-", "_"))


def _layer(keras, layer, policy):
    common = {"name": layer["name"], "dtype": policy}
    if layer["is"] == "pool":
        return keras.layers.MaxPooling2D(layer["size"], **common)
    if layer["is"] == "flatten":
        return keras.layers.Flatten(**common)
    if layer["is"] == "dropout":
        return keras.layers.Dropout(layer["rate"], **common)
    common.update(
        use_bias=layer["bias"],
        activation=layer["activation"],
        kernel_initializer=layer["initialiser"],
        kernel_regularizer=keras.regularizers.L2(layer["l2"]) if layer["l2"] else None,
    )
    if layer["is"] == "dense":
        return keras.layers.Dense(layer["units"], **common)
    return keras.layers.Conv2D(
        layer["filters"], layer["kernel"], strides=layer["stride"], padding=layer["padding"], **common
    )


def optimiser(description):
    """Keras's optimiser, with its schedule."""
    import keras

    values = dict(description["optimiser"])
    kind, rate, decay = values.pop("is"), values.pop("learning_rate"), values.pop("decay")
    if decay:
        rate = keras.optimizers.schedules.InverseTimeDecay(rate, decay_steps=1, decay_rate=decay)
    made = {"rmsprop": keras.optimizers.RMSprop, "sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}
    return made[kind](learning_rate=rate, **values)


def compile_model(model, description, **more):
    """Ready for fit() with labels as whole numbers; `more` goes to Model.compile (jit_compile, …).

    Categorical cross-entropy of labels as whole numbers is what Keras calls sparse; it is the same number.
    """
    import keras

    model.compile(
        optimizer=optimiser(description),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **more,
    )
