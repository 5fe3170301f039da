"""The network of a description in NumPy: forward, backward, and training, with nothing of a framework in it.

Arrays are (batch, height, width, channels) or (batch, features). Convolutions are matrix products over
patches (im2col). Dropout is off; L2 is counted in the loss and in the gradients of the kernels, as Keras
counts it: l2 · sum of squares. Of equal numbers in a pooling window the first, row by row, gets the gradient.
"""

import time

import numpy as np

import ed_network

LEAK = 0.2  # Keras's negative_slope of leaky_relu


def _sigmoid(z):
    return 0.5 * (1 + np.tanh(0.5 * z))


# Each: value of z; slope from z and the value
ACTIVATIONS = {
    "linear": (lambda z: z, lambda z, a: np.ones_like(z)),
    "relu": (lambda z: np.maximum(z, 0), lambda z, a: (z > 0).astype(z.dtype)),
    "leaky_relu": (
        lambda z: np.where(z > 0, z, z.dtype.type(LEAK) * z),
        lambda z, a: np.where(z > 0, z.dtype.type(1), z.dtype.type(LEAK)),
    ),
    "elu": (
        lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
        lambda z, a: np.where(z > 0, z.dtype.type(1), a + 1),
    ),
    "sigmoid": (_sigmoid, lambda z, a: a * (1 - a)),
    "tanh": (np.tanh, lambda z, a: 1 - a * a),
}
KINKED = ("relu", "leaky_relu")  # their slope jumps at 0


def padding(side, layer):
    """Rows before and after, as TensorFlow counts SAME: the odd one comes after."""
    if layer["padding"] == "valid":
        return (0, 0)
    out = ed_network.output_side(side, layer)
    total = max((out - 1) * layer["stride"] + layer["kernel"] - side, 0)
    return (total // 2, total - total // 2)


class Convolution:
    def __init__(self, layer, kernel, bias):
        self.layer, self.kernel, self.bias = layer, kernel, bias

    def forward(self, x):
        size, stride = self.layer["kernel"], self.layer["stride"]
        self.before = padding(x.shape[1], self.layer), padding(x.shape[2], self.layer)
        padded = np.pad(x, ((0, 0), self.before[0], self.before[1], (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
        patches = windows[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)
        self.padded, self.out = padded.shape, patches.shape[:3]
        self.patches = patches.reshape(-1, size * size * x.shape[3])
        z = self.patches @ self.kernel.reshape(-1, self.kernel.shape[-1])
        if self.bias is not None:
            z += self.bias
        return z.reshape(self.out + (-1,))

    def backward(self, dz, wanted=True):
        """dL/dx (None where it is not wanted), and dL/dw as self.dkernel and self.dbias."""
        rows = dz.reshape(-1, dz.shape[-1])
        self.dkernel = (self.patches.T @ rows).reshape(self.kernel.shape)
        self.dbias = rows.sum(axis=0)
        if not wanted:
            return None
        size, stride = self.layer["kernel"], self.layer["stride"]
        spread = rows @ self.kernel.reshape(-1, self.kernel.shape[-1]).T
        spread = spread.reshape(self.out + (size, size, -1))
        dx = np.zeros(self.padded, dz.dtype)
        height, width = self.out[1] * stride, self.out[2] * stride
        for row in range(size):
            for column in range(size):
                dx[:, row : row + height : stride, column : column + width : stride] += spread[
                    :, :, :, row, column
                ]
        (top, bottom), (left, right) = self.before
        return dx[:, top : dx.shape[1] - bottom, left : dx.shape[2] - right]


class Dense:
    def __init__(self, layer, kernel, bias):
        self.layer, self.kernel, self.bias = layer, kernel, bias

    def forward(self, x):
        self.x = x
        z = x @ self.kernel
        return z if self.bias is None else z + self.bias

    def backward(self, dz, wanted=True):
        self.dkernel, self.dbias = self.x.T @ dz, dz.sum(axis=0)
        return dz @ self.kernel.T if wanted else None


class Pooling:
    def __init__(self, layer):
        self.size = layer["size"]

    def windows(self, x):
        """(batch, rows, columns, channels, size · size), of the windows that fit."""
        size = self.size
        rows, columns = x.shape[1] // size, x.shape[2] // size
        cut = x[:, : rows * size, : columns * size]
        cut = cut.reshape(x.shape[0], rows, size, columns, size, x.shape[3])
        return cut.transpose(0, 1, 3, 5, 2, 4).reshape(x.shape[0], rows, columns, x.shape[3], size * size)

    def forward(self, x):
        self.shape = x.shape
        windows = self.windows(x)
        self.first = windows.argmax(axis=-1)[..., None]
        self.x, self.y = windows, np.take_along_axis(windows, self.first, axis=-1)
        return self.y[..., 0]

    def follow(self, gradient, near):
        chosen = np.abs(self.windows(gradient)).argmax(axis=-1)[..., None]
        value = np.take_along_axis(self.x, chosen, axis=-1)
        self.first = np.where(value >= self.y - near * np.abs(self.x).max(), chosen, self.first)

    def backward(self, dy):
        batch, rows, columns, channels = dy.shape
        size = self.size
        spread = np.zeros(dy.shape + (size * size,), dy.dtype)
        np.put_along_axis(spread, self.first, dy[..., None], axis=-1)
        spread = spread.reshape(batch, rows, columns, channels, size, size).transpose(0, 1, 4, 2, 5, 3)
        dx = np.zeros(self.shape, dy.dtype)
        dx[:, : rows * size, : columns * size] = spread.reshape(batch, rows * size, columns * size, channels)
        return dx


class Flatten:
    def forward(self, x):
        self.shape = x.shape
        return x.reshape(x.shape[0], -1)

    def backward(self, dy):
        return dy.reshape(self.shape)


class Dropout:
    """Off: what goes in comes out."""

    def forward(self, x):
        return x

    def backward(self, dy):
        return dy


class Activation:
    def __init__(self, name):
        self.value, self.slope = ACTIVATIONS[name]

    def forward(self, z):
        self.z, self.a = z, self.value(z)
        return self.a

    def backward(self, da):
        return da * self.slope(self.z, self.a)


def _step(layer, weights):
    """The description of a layer, what computes it, its activation or None."""
    if layer["is"] == "pool":
        return layer, Pooling(layer), None
    if layer["is"] in ("flatten", "dropout"):
        return layer, (Flatten if layer["is"] == "flatten" else Dropout)(), None
    kernel = next(weights)
    bias = next(weights) if layer["bias"] else None
    made = Convolution if layer["is"] == "conv" else Dense
    return layer, made(layer, kernel, bias), Activation(layer["activation"])


class Reference:
    """A network with weights (order of ed_network.parameter_shapes), computed in one dtype throughout."""

    def __init__(self, description, weights, dtype="float64"):
        self.dtype = np.dtype(dtype)
        self.weights = [np.array(w, self.dtype) for w in weights]
        left = iter(self.weights)
        self.steps = [_step(layer, left) for layer in description["layers"]]

    def forward(self, x, y):
        """x (batch, 28, 28, 1), y (batch,) whole numbers → activations by layer, logits, loss."""
        value = np.asarray(x, self.dtype)
        activations = {}
        for layer, made, activation in self.steps:
            value = made.forward(value)
            if activation is not None:
                value = activation.forward(value)
            activations[layer["name"]] = value
        shifted = value - value.max(axis=1, keepdims=True)
        normaliser = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        self.log_probabilities, self.labels = shifted - normaliser, y
        entropy = -self.log_probabilities[np.arange(len(y)), y].mean()
        loss = entropy + sum(layer["l2"] * (made.kernel**2).sum() for layer, made in self._regularised())
        return {"activations": activations, "logits": value, "loss": loss}

    def _regularised(self):
        return [(layer, made) for layer, made, _ in self.steps if layer.get("l2")]

    def follow(self, outputs, input_gradients, near):
        """Between forward and backward: decide ties and kinks as a device did, where both ways are right.

        outputs, input_gradients: the device's, by layer. near: how far, relative to the largest magnitude in
        the layer, rounding may move a number. A pooling window's gradient goes where the device sent it if
        the number there is within that of the largest; a ReLU's input within that of zero takes the sign of
        the device's output. Elsewhere nothing changes: a wrong choice stays wrong.
        """
        for layer, made, activation in self.steps:
            if layer["is"] == "pool":
                made.follow(input_gradients[layer["name"]], near)
            elif layer.get("activation") in KINKED:
                z = activation.z
                undecided = np.abs(z) <= near * np.abs(z).max()
                sign = np.where(outputs[layer["name"]] > 0, 1, -1)
                activation.z = np.where(undecided, sign, z)

    def gradients(self, x, y, input_too=True):
        """What forward() and backward() give."""
        return dict(self.forward(x, y), **self.backward(input_too))

    def backward(self, input_too=True):
        """After forward(): `inputs`, dL by the input of each layer and of the loss, by name; `dx`, that of
        the first layer (None where it is not wanted); `dw`, dL by parameter's name.
        """
        y = self.labels
        d = np.exp(self.log_probabilities)
        d[np.arange(len(y)), y] -= 1
        d /= len(y)
        dw, inputs = {}, {"loss": d}
        for position in range(len(self.steps) - 1, -1, -1):
            layer, made, activation = self.steps[position]
            if activation is None:
                d = made.backward(d)
            else:
                d = made.backward(activation.backward(d), wanted=input_too or position > 0)
                if layer["l2"]:
                    made.dkernel = made.dkernel + 2 * self.dtype.type(layer["l2"]) * made.kernel
                dw[layer["name"] + "/kernel"] = made.dkernel
                if layer["bias"]:
                    dw[layer["name"] + "/bias"] = made.dbias
            inputs[layer["name"]] = d
        return {"dx": d, "dw": dw, "inputs": inputs}


class Optimiser:
    """RMSprop, SGD or Adam as Keras 3 has them; changes the weights in place."""

    def __init__(self, description, weights):
        self.told = description["optimiser"]
        self.weights = weights
        self.first = [np.zeros_like(w) for w in weights]
        self.second = [np.zeros_like(w) for w in weights]
        self.step = 0

    def update(self, gradients):
        told = self.told
        rate = told["learning_rate"] / (1 + told["decay"] * self.step)
        self.step += 1
        for w, m, v, g in zip(self.weights, self.first, self.second, gradients):
            scale = w.dtype.type
            if told["is"] == "sgd":
                m *= scale(told["momentum"])
                m -= scale(rate) * g
                w += m
            elif told["is"] == "rmsprop":
                v *= scale(told["rho"])
                v += scale(1 - told["rho"]) * g * g
                m *= scale(told["momentum"])
                m += scale(rate) * g / np.sqrt(v + scale(told["epsilon"]))
                w -= m
            else:
                m += scale(1 - told["beta_1"]) * (g - m)
                v += scale(1 - told["beta_2"]) * (g * g - v)
                unbiased = np.sqrt(1 - told["beta_2"] ** self.step) / (1 - told["beta_1"] ** self.step)
                w -= scale(rate * unbiased) * m / (np.sqrt(v) + scale(told["epsilon"]))


def train_epoch(description, weights, x, y, batch_size, dtype="float32", deadline=None):
    """One epoch over x and y in their order; `weights` stay as they are.

    `deadline`: seconds after which no further batch is begun; the epoch's time is then scaled by the images.
    Returns seconds, images, images_per_s, epoch_seconds, complete, loss (mean), weights.
    """
    reference = Reference(description, weights, dtype)
    optimiser = Optimiser(description, reference.weights)
    names = [name for name, _ in ed_network.parameter_shapes(description)]
    x = np.ascontiguousarray(x, dtype)
    images, seconds, losses = 0, 0.0, 0.0
    begun = time.perf_counter()
    while images < len(x) and (deadline is None or not images or seconds < deadline):
        batch = slice(images, images + batch_size)
        found = reference.gradients(x[batch], y[batch], input_too=False)
        optimiser.update([found["dw"][name] for name in names])
        losses += float(found["loss"]) * len(y[batch])
        images = min(images + batch_size, len(x))
        seconds = time.perf_counter() - begun
    return {
        "seconds": seconds,
        "images": images,
        "images_per_s": images / seconds,
        "epoch_seconds": seconds * len(x) / images,
        "complete": images == len(x),
        "loss": losses / images,
        "weights": reference.weights,
    }
