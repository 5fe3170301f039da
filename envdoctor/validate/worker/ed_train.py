"""Runs in the target's interpreter (Python 3.9+): trains one network on one device, and measures it.

The job is one JSON object on stdin; what is seen comes as events, one JSON line each, on the descriptor named
in argv[1] (see envdoctor/validate/protocol.py for both). The standard library, NumPy, Keras and the framework
are all that is imported.
"""

import base64
import gc
import json
import os
import sys
import time
import traceback

import ed_devices
from ed_channel import Channel, describe

STEP_POINTS = 400  # of the loss curve of a whole training
LIVE_SECONDS = 0.2  # between two lines of progress


class Refused(Exception):
    """What cannot be worked on, and is not the machine's fault: `kind` says which."""

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


def main():
    channel = Channel(int(sys.argv[1]))
    try:
        work(json.load(sys.stdin), channel)
    except Refused as error:
        channel.say("failed", step=channel.step, kind=error.kind, error=str(error), trace="")
        channel.leave(2)
    except Exception as error:
        kind = "memory" if ed_devices.is_out_of_memory(error) else "error"
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__)[-6:])[-4000:]
        channel.say("failed", step=channel.step, kind=kind, error=describe(error), trace=trace)
        channel.leave(1)
    channel.leave(0)


def work(job, channel):
    data = read_data(job, channel)
    devices = import_framework(job, channel)
    description, data_digest = job["description"], digest(data.x_train)

    import ed_network

    weights = ed_network.initial_weights(description, job["seed"])
    channel.say(
        "start-values",
        parameters=int(sum(w.size for w in weights)),
        weights=digest(*weights),
        data=data_digest,
    )
    with ed_network.on(asked_for(job)):
        for batch_size in job["batch_sizes"]:
            model = train_within_memory(job, channel, devices, data, weights, batch_size)
            if job["activations"] and batch_size == job["batch_sizes"][0]:
                channel.begin("activation maps")
                channel.say("activations", **activation_maps(model, data.x_test[:1], int(data.y_test[0])))
            del model
        if job["numerics"]:
            numerics(job, channel, data, weights)
    if job["numpy_seconds"]:
        numpy_epochs(job, channel, data, weights)


def read_data(job, channel):
    """Before the framework: a file that is no good is known in a moment."""
    channel.begin("reading the data")
    os.environ["KERAS_BACKEND"] = job["backend"]
    try:
        import numpy  # noqa: F401
    except ImportError as error:
        raise Refused("missing", "numpy cannot be imported: %s" % error) from None
    import ed_data

    wanted = job["data"]
    started = time.monotonic()
    try:
        data = ed_data.load(
            wanted["spec"],
            wanted["samples"],
            job["seed"],
            job["description"]["standardise"],
            wanted["offline"],
            wanted["deadline"],
        )
    except ed_data.DataError as error:
        raise Refused("data", str(error)) from None
    bound = ed_data.accuracy_bound(job["description"], data.description)
    channel.say("data", description=data.description, bound=bound, seconds=time.monotonic() - started)
    return data


def import_framework(job, channel):
    channel.begin("importing %s" % job["backend"])
    started = time.monotonic()
    try:
        devices = ed_devices.Devices(job["backend"])
        import keras
    except ModuleNotFoundError as error:
        raise Refused("missing", str(error)) from None
    if int(keras.__version__.split(".")[0]) < 3 or keras.backend.backend() != job["backend"]:
        raise Refused("old-keras", "Keras %s cannot run on %s" % (keras.__version__, job["backend"]))
    keras.config.set_floatx("float32")  # keras.json may say otherwise
    keras.config.set_image_data_format("channels_last")
    imported = time.monotonic()
    channel.begin("looking for the device")
    try:
        name = devices.prepare(job["device"], job["logical_cpus"])
    except ed_devices.NoDeviceError as error:
        raise Refused("no-device", str(error)) from None
    channel.say(
        "ready",
        framework=devices.version,
        keras=keras.__version__,
        device_name=name,
        import_seconds=imported - started,
    )
    return devices


def asked_for(job):
    """None for the framework's own choice, as a user's script has it; a second CPU must be asked for."""
    return job["device"] if job["logical_cpus"] else None


def train_within_memory(job, channel, devices, data, weights, batch_size):
    """The trained model. A batch for which the memory does not do is halved, and that is said."""
    while True:
        try:
            return train(job, channel, devices, data, weights, batch_size)
        except Exception as error:
            if not ed_devices.is_out_of_memory(error) or batch_size <= job["smallest_batch"]:
                raise
            channel.say("halved", batch_size=batch_size, to=batch_size // 2, error=describe(error)[:500])
            batch_size //= 2
        import keras

        keras.backend.clear_session()
        gc.collect()  # outside of the handler: its traceback holds the model
        devices.release()


def train(job, channel, devices, data, weights, batch_size):
    import ed_network
    import keras

    channel.begin("building the network")
    began = time.monotonic()
    description = job["description"]
    keras.utils.set_random_seed(job["seed"])  # the order of the batches, on every device; dropout
    model = ed_network.build(description)
    ed_network.compile_model(model, description)
    model.set_weights(weights)
    steps = -(-len(data.x_train) // batch_size)
    channel.say("built", batch_size=batch_size, steps=steps, seconds=time.monotonic() - began)
    channel.begin("the first step")
    model.fit(
        data.x_train,
        data.y_train,
        batch_size=batch_size,
        epochs=job["epochs"],
        verbose=0,
        callbacks=[watch(channel, job["epochs"], steps, batch_size, len(data.x_train))],
    )
    if job["evaluate"]:
        channel.begin("testing")
        started = time.monotonic()
        loss, accuracy = model.evaluate(data.x_test, data.y_test, batch_size=batch_size, verbose=0)[:2]
        channel.say(
            "evaluated", loss=float(loss), accuracy=float(accuracy), seconds=time.monotonic() - started
        )
    layer = next(layer for layer in model.layers if layer.weights)
    output = layer(keras.ops.reshape(keras.ops.zeros(layer.input.shape[1:]), (1, *layer.input.shape[1:])))
    channel.say(
        "placed",
        weights=devices.of(model.weights[-1]),
        output=devices.of(output),
        layer=layer.name,
        peak_bytes=peak_memory(),
        gpu_peak_bytes=devices.peak_bytes() if job["device"].startswith("gpu") else None,
    )
    return model


def watch(channel, epochs, steps, batch_size, images):
    """A callback that says when steps and epochs end, and how the loss falls; one point every few steps."""
    import keras

    every = max(1, epochs * steps // STEP_POINTS)

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]
        # Keras calls it from threads then, as it does for a script without callbacks (CallbackList):
        # the steps do not wait for it.
        async_safe = True

        def __init__(self):
            super().__init__()
            self._began = time.monotonic()
            self._means = {}
            self._first_seen = False
            self._said = 0.0

        def on_epoch_begin(self, epoch, logs=None):
            self._epoch, self._epoch_began = epoch, time.monotonic()
            self._means = {}

        def on_train_batch_end(self, batch, logs=None):
            now = time.monotonic()
            if not self._first_seen and batch == 0:
                self._first_seen = True
                channel.say("first-step", seconds=now - self._began, loss=logs["loss"])
                channel.step = "training"
            if batch % every == every - 1 or batch == 0 or batch == steps - 1:
                self._means[batch] = logs["loss"]
            if now - self._said > LIVE_SECONDS:
                self._said = now
                channel.say(
                    "step",
                    epoch=self._epoch,
                    step=batch + 1,
                    loss=logs["loss"],
                    images_per_s=(batch + 1) * batch_size / max(1e-9, now - self._epoch_began),
                )

        def on_epoch_end(self, epoch, logs=None):
            channel.say(
                "epoch",
                epoch=epoch,
                seconds=time.monotonic() - self._epoch_began,
                images=images,
                loss=logs["loss"],
                accuracy=logs["accuracy"],
                curve=self._curve(epoch),
            )

        def _curve(self, epoch):
            """[step, mean loss since the point before]: Keras gives means since the epoch's beginning."""
            points, done, total = [], 0, 0.0
            for batch, mean in sorted(self._means.items()):
                count = batch + 1
                points.append([epoch * steps + count, (mean * count - total) / (count - done)])
                done, total = count, mean * count
            return points

    return Watch()


def numerics(job, channel, data, weights):
    """The first gradients on this device against NumPy's in float64, from the same weights and batch."""
    import ed_numerics

    channel.begin("comparing with NumPy")
    started = time.monotonic()
    x, y = ed_numerics.batch(data.x_test, data.y_test)
    rows = ed_numerics.compare(job["description"], weights, x, y, device=asked_for(job))
    channel.say("numerics", rows=rows, batch_size=len(x), seconds=time.monotonic() - started)


def numpy_epochs(job, channel, data, weights):
    """NumPy's time for an epoch of the same training: a few batches, scaled."""
    import ed_reference

    for dtype in ("float32", "float64"):
        channel.begin("timing NumPy in %s" % dtype)
        took = ed_reference.train_epoch(
            job["description"],
            weights,
            data.x_train,
            data.y_train,
            job["batch_sizes"][0],
            dtype,
            job["numpy_seconds"],
        )
        channel.say(
            "numpy",
            dtype=dtype,
            epoch_seconds=took["epoch_seconds"],
            images=took["images"],
            complete=took["complete"],
        )


def activation_maps(model, image, label):
    """What each convolution of the trained network makes of one digit: bytes, each map scaled to 0–255."""
    import keras
    import numpy as np

    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    if not convolutions:
        return {"label": label, "image": encoded(image[0, ..., 0]), "maps": []}
    outputs = keras.Model(model.inputs, [layer.output for layer in convolutions])(image)
    maps = [np.moveaxis(keras.ops.convert_to_numpy(output)[0], -1, 0) for output in outputs]
    return {
        "label": label,
        "image": encoded(image[0, ..., 0]),
        "maps": [
            {"layer": layer.name, "shape": list(found.shape), "bytes": encoded(found)}
            for layer, found in zip(convolutions, maps)
        ],
    }


def encoded(values):
    """Base64 of one byte a value, row by row; each plane of the last two axes uses the whole range."""
    low, high = values.min((-2, -1), keepdims=True), values.max((-2, -1), keepdims=True)
    scaled = (values - low) / (high - low + 1e-12) * 255
    return base64.b64encode(scaled.astype("uint8").tobytes()).decode()


def digest(*arrays):
    """A name for exactly these values: two devices that start from the same have the same."""
    import hashlib

    found = hashlib.sha256()
    for array in arrays:
        found.update(array.tobytes())
    return found.hexdigest()[:16]


def peak_memory():
    """Bytes of the process; Linux counts ru_maxrss in KiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
