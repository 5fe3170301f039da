"""Whether a device computes what the network says: each tensor against the NumPy reference in float64.

Forward, the output of every layer and the loss; backward, the gradients of every weight and of every layer's
input. They come in the order of computation, so that the first wrong one names the layer whose kernel is
wrong. A gradient is not defined where two numbers of a pooling window are equal, or a ReLU's input is zero;
near such a place rounding decides, and the reference follows the device's choice (Reference.follow).
"""

import contextlib

import numpy as np

import ed_network
import ed_reference

# error: the largest difference to the reference, relative to the largest magnitude in the reference.
# near: how far, on the same scale, rounding may move a number across a tie or a kink.
# "seen": the largest error of the networks of networks.json, their initial weights, batches of 16 digits
BOUNDS = {
    "float32": {
        "bound": 1e-4,
        "near": 1e-5,
        "why": "24 bits: 6e-8 for each product, some thousand of which are summed",
        "seen": "1.3e-6 on CPUs, with TensorFlow 2.21, JAX 0.10.2 and PyTorch 2.13",
    },
    "tf32": {
        "bound": 1e-2,
        "near": 5e-3,
        "why": "factors of 11 bits: 5e-4 for each, sums in float32",
        "seen": "1.4e-3 in NumPy with factors rounded to TF32; no GPU was measured",
    },
    "mixed_float16": {
        "bound": 1e-2,
        "near": 5e-3,
        "why": "factors and results of 11 bits: 5e-4 for each, sums in float32",
        "seen": "2.1e-3 with PyTorch 2.13 on a CPU; no GPU was measured",
    },
}
JITTER = 0.1  # deviation of the noise on the pixels; standardised, they have 1
LOSS_SCALE = 1024.0  # float16 ends at 6e-8: gradients are computed of the loss times this


def batch(x, y, size=16, seed=0):
    """The first samples, with some noise: a digit's background is one number, and so are its convolutions,
    so that of a pooling window's equal numbers rounding would choose one.
    """
    noise = np.random.Generator(np.random.PCG64(seed)).standard_normal(x[:size].shape)
    return (x[:size] + JITTER * noise).astype("float32"), y[:size]


def compare(description, weights, x, y, device=None, precision=None, policy="float32"):
    """The rows of the comparison, in the order of computation.

    device: as keras.device takes it ("cpu:0", "gpu:0"); None for the framework's own choice.
    precision: "float32" forbids TF32, "tf32" allows it, None leaves it as the framework has it.
    policy: Keras's dtype policy.
    A row: tensor, layer, device (where it was, read back), error (None: not finite), bound, precision.
    """
    with ed_network.on(device), _allowed(precision):
        found, where = _computed(description, weights, x, y, policy)
        kind = "mixed_float16" if policy == "mixed_float16" else precision_in_force(where)
    bound = BOUNDS[kind]["bound"]
    expected = expected_tensors(description, weights, x, y, found, BOUNDS[kind]["near"])
    return [
        {
            "tensor": tensor,
            "layer": layer,
            "device": where,
            "error": error(found[tensor], value),
            "bound": bound,
            "precision": kind,
        }
        for tensor, layer, value in expected
    ]


def first_wrong(rows):
    """The first row that is over its bound; None where every one is within."""
    return next((row for row in rows if row["error"] is None or not row["error"] <= row["bound"]), None)


def error(value, expected):
    """Largest difference relative to the largest magnitude expected; None where `value` is not finite."""
    value = np.asarray(value, "float64")
    if value.shape != np.shape(expected) or not np.isfinite(value).all():
        return None
    largest = np.abs(expected).max()
    return float(np.abs(value - expected).max() / (largest or 1.0))


def expected_tensors(description, weights, x, y, found=None, near=0.0, dtype="float64"):
    """[(tensor, layer, value)] by NumPy, in the order of computation.

    found: a device's tensors, whose choices are followed at ties and kinks (Reference.follow).
    """
    reference = ed_reference.Reference(description, weights, dtype)
    computed = reference.forward(x, y)
    if found is not None:
        reference.follow(*_choices(description, found), near)
    computed.update(reference.backward())
    layers = description["layers"]
    last = layers[-1]["name"]
    rows = [
        ("logits" if name == last else name + " output", name, value)
        for name, value in computed["activations"].items()
    ]
    rows.append(("loss", "loss", computed["loss"]))
    rows.append(("logits gradient", "loss", computed["inputs"]["loss"]))
    for position in range(len(layers) - 1, -1, -1):
        name = layers[position]["name"]
        for part in ("kernel", "bias"):
            if f"{name}/{part}" in computed["dw"]:
                rows.append((f"{name}/{part} gradient", name, computed["dw"][f"{name}/{part}"]))
        tensor = name + " input gradient" if position else "input gradient"
        rows.append((tensor, name, computed["inputs"][name]))
    trivial = {layer["name"] for layer in layers if layer["is"] in ("flatten", "dropout")}
    return [row for row in rows if row[1] not in trivial or row[0] == "input gradient"]


def _choices(description, found):
    """Each layer's output, and the gradient of each layer's input, by its name."""
    names = [layer["name"] for layer in description["layers"]]
    outputs = {name: found[f"{name} output"] for name in names[:-1]}
    gradients = {name: found[f"{name} input gradient"] for name in names[1:]}
    return outputs, dict(gradients, **{names[0]: found["input gradient"]})


def precision_in_force(device):
    """ "tf32" where the framework lets a GPU compute float32 products in it, else "float32".

    TensorFlow and JAX do by default; PyTorch does in convolutions, and only there.
    """
    import keras

    if device.startswith("CPU"):
        return "float32"
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        return "tf32" if tensorflow.config.experimental.tensor_float_32_execution_enabled() else "float32"
    if keras.backend.backend() == "jax":
        import jax

        strict = jax.config.jax_default_matmul_precision in ("highest", "float32")
        return "float32" if strict else "tf32"
    import torch

    return "tf32" if torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32 else "float32"


@contextlib.contextmanager
def _allowed(precision):
    """TF32 forbidden ("float32") or allowed ("tf32") for a while; None changes nothing."""
    import keras

    if precision is None:
        yield
    elif keras.backend.backend() == "tensorflow":
        import tensorflow

        settings = tensorflow.config.experimental
        before = settings.tensor_float_32_execution_enabled()
        settings.enable_tensor_float_32_execution(precision == "tf32")
        try:
            yield
        finally:
            settings.enable_tensor_float_32_execution(before)
    elif keras.backend.backend() == "jax":
        import jax

        with jax.default_matmul_precision("tensorfloat32" if precision == "tf32" else "highest"):
            yield
    else:
        import torch

        places = torch.backends.cuda.matmul, torch.backends.cudnn
        before = [place.allow_tf32 for place in places]
        for place in places:
            place.allow_tf32 = precision == "tf32"
        try:
            yield
        finally:
            for place, value in zip(places, before):
                place.allow_tf32 = value


def _computed(description, weights, x, y, policy):
    """({tensor: array}, the device it was on) by the framework, compiled as its training is."""
    import keras

    model = ed_network.build(description, policy)
    model.set_weights(weights)
    ed_network.compile_model(model, description)
    layers = [model.get_layer(layer["name"]) for layer in description["layers"]]
    scale = LOSS_SCALE if policy == "mixed_float16" else 1.0
    x, y = keras.ops.convert_to_tensor(x, "float32"), keras.ops.convert_to_tensor(y, "int32")
    # Zeros that are added to each layer's output: their gradient is that of the output
    zeros = [
        keras.ops.zeros((len(x),) + tuple(layer.output.shape[1:]), layer.compute_dtype) for layer in layers
    ]
    backend = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()]
    (loss, outputs), (dx, dw, dout), where = backend(model, layers, description, scale, x, y, zeros)
    found = {"loss": _array(loss) / scale, "input gradient": _array(dx) / scale}
    last = layers[-1].name
    for layer, output in zip(layers, outputs):
        found["logits" if layer.name == last else layer.name + " output"] = _array(output)
    for (name, _), gradient in zip(ed_network.parameter_shapes(description), dw):
        found[name + " gradient"] = _array(gradient) / scale
    following = [layer.name + " input gradient" for layer in layers[1:]] + ["logits gradient"]
    for tensor, gradient in zip(following, dout):
        found[tensor] = _array(gradient) / scale
    return found, where


def _array(tensor):
    import keras

    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64")


def _loss(description, scale, y, logits, kernels):
    """Cross-entropy and L2, as training counts them."""
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, logits)
    for layer in description["layers"]:
        if layer.get("l2"):
            loss = loss + layer["l2"] * keras.ops.sum(keras.ops.square(kernels[layer["name"]]))
    return loss * scale


def _forward(layers, description, scale, x, y, zeros):
    value, outputs = x, []
    for layer, zero in zip(layers, zeros):
        value = layer(value, training=False) + zero
        outputs.append(value)
    kernels = {layer.name: layer.kernel for layer in layers if hasattr(layer, "kernel")}
    return _loss(description, scale, y, value, kernels), outputs


def _tensorflow(model, layers, description, scale, x, y, zeros):
    import tensorflow

    variables = [v for layer in layers for v in layer.trainable_variables]

    def step(x, y, zeros):
        with tensorflow.GradientTape() as tape:
            tape.watch([x, *zeros])
            loss, outputs = _forward(layers, description, scale, x, y, zeros)
        return (loss, outputs), tape.gradient(loss, [x, [v.value for v in variables], zeros])

    # XLA or not, as Keras chooses for a training (keras/src/trainers/trainer.py, _resolve_auto_jit_compile)
    results, gradients = tensorflow.function(step, jit_compile=model.jit_compile)(x, y, zeros)
    kind, _, number = results[0].device.rpartition("device:")[2].partition(":")
    return results, gradients, f"{kind}:{number}"


def _jax(_model, layers, description, scale, x, y, zeros):
    import jax

    def step(x, weights, zeros):
        value, outputs, kernels = x, [], {}
        for layer, own, zero in zip(layers, weights, zeros):
            value, _ = layer.stateless_call(own, [v.value for v in layer.non_trainable_variables], value)
            value = value + zero
            outputs.append(value)
            kernels[layer.name] = own[0] if own else None
        return _loss(description, scale, y, value, kernels), outputs

    weights = [[v.value for v in layer.trainable_variables] for layer in layers]
    graded = jax.jit(jax.value_and_grad(step, argnums=(0, 1, 2), has_aux=True))
    results, (dx, dw, dout) = graded(x, weights, zeros)
    (device,) = results[0].devices()
    kind = "CPU" if device.platform == "cpu" else "GPU"
    return results, (dx, [g for own in dw for g in own], dout), f"{kind}:{device.id}"


def _torch(_model, layers, description, scale, x, y, zeros):
    import torch

    variables = [v.value for layer in layers for v in layer.trainable_variables]
    inputs = [x.requires_grad_(True), *variables, *(zero.requires_grad_(True) for zero in zeros)]
    loss, outputs = _forward(layers, description, scale, x, y, zeros)
    gradients = torch.autograd.grad(loss, inputs)
    weights = gradients[1 : 1 + len(variables)]
    kind = "GPU" if loss.device.type == "cuda" else loss.device.type.upper()
    where = f"{kind}:{loss.device.index or 0}"
    return (loss, outputs), (gradients[0], weights, gradients[1 + len(variables) :]), where
