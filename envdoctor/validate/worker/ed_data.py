"""The digits that are trained on: from a file, Keras's cache, a download, or scikit-learn.

NumPy alone, but for the download (Keras, in a child) and the digits (scikit-learn). Bad data raise DataError.
"""

import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib

import numpy as np

KEYS = ("x_train", "y_train", "x_test", "y_test")
LEAST = 100  # of each set: below it one digit more or less is a percent of the accuracy
MOST = 1_000_000  # an epoch, in memory: 3 GB
LARGEST_MEMBER = 4 << 30  # bytes of one array; MNIST's largest has 47 million
# Mean and deviation of MNIST's pixels from 0 to 1, and how far a selection of some thousand may be off:
# the 8,000 of the t10k files have 0.1324 and 0.3103, Fashion-MNIST has 0.2860 and 0.3530
MNIST_PIXELS = (0.1307, 0.3081, 0.01)
DOWNLOAD = "import keras; keras.datasets.mnist.load_data()"


class DataError(Exception):
    """No data, or bad data: one line that says what, where, and what was expected."""


@dataclasses.dataclass
class DataSet:
    """x: float32 (samples, 28, 28, 1); y: int64 (samples,), 0 to 9; description: plain JSON."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    description: dict[str, object]


def load(spec, samples=None, seed=0, standardised=True, offline=False, deadline=60.0, given=None):
    """The training and test set that `spec` names: "auto", "mnist", "digits" or the path of an .npz file.

    samples: how many training samples an epoch has; fewer than there are: drawn by `seed`; more: the set is
    repeated, which the description says. offline: nothing is downloaded. deadline: seconds for a download.
    given: a file that "auto" takes where Keras's cache has nothing.
    """
    if samples is not None and not LEAST <= samples <= MOST:
        raise DataError(f"--samples {samples}: expected {LEAST} to {MOST}")
    arrays, description = _found(spec, seed, offline, deadline, given)
    x_train, y_train, x_test, y_test = arrays
    distinct = len(x_train)
    if samples is not None:
        chosen = order(distinct, 0, seed)
        chosen = np.sort(chosen[:samples]) if samples <= distinct else np.resize(chosen, samples)
        x_train, y_train = x_train[chosen], y_train[chosen]
    description["distinct"] = min(distinct, len(x_train))
    mean, deviation = float(x_train.mean(dtype="float64")), float(x_train.std(dtype="float64"))
    if deviation == 0:
        raise DataError(
            "x_train in {}: every pixel is {:g}: expected images of digits".format(description["path"], mean)
        )
    if description["source"] != "digits":
        description["like_mnist"] = (
            abs(mean - MNIST_PIXELS[0]) < MNIST_PIXELS[2]
            and abs(deviation - MNIST_PIXELS[1]) < MNIST_PIXELS[2]
        )
    if standardised:
        x_train, x_test = ((x - np.float32(mean)) / np.float32(deviation) for x in (x_train, x_test))
    description.update(
        train=len(x_train), test=len(x_test), standardised=standardised, mean=mean, std=deviation
    )
    description["words"] = _words(description)
    return DataSet(x_train, y_train, x_test, y_test, description)


def order(count, epoch, seed):
    """The order of the samples in an epoch: a permutation, the same on every device."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(count)


def accuracy_bound(description, data):
    """What the network must reach on this data: {"minimum", "why"}; None where nothing is known.

    description: the network's (networks.describe), whose bounds hold for its own options alone;
    data: DataSet.description.
    """
    kind = "digits" if data["source"] == "digits" else "mnist"
    if kind == "mnist" and not data["like_mnist"]:
        return None
    fitting = [
        bound
        for bound in description["bounds"]
        if bound["data"] == kind
        and bound["samples"] <= data["distinct"]
        and bound["epochs"] <= description["epochs"]
    ]
    if not fitting:
        return None
    best = max(fitting, key=lambda bound: bound["minimum"])
    return {"minimum": best["minimum"], "why": best["seen"]}


def _words(description):
    text = "{train} training and {test} test samples of {path}".format(**description)
    if description["train"] > description["distinct"]:
        text += " ({distinct} different ones, repeated)".format(**description)
    return text


def _found(spec, seed, offline, deadline, given):
    if spec == "digits":
        return _digits(seed)
    if spec not in ("auto", "mnist"):
        return _file(spec, "file")
    attempts = [_cached]
    if spec == "auto" and given is not None:
        attempts.append(lambda: _file(given, "file"))
    if offline:
        attempts.append(_not_allowed)
    else:
        attempts.append(lambda: _downloaded(deadline))
    if spec == "auto":
        attempts.append(lambda: _digits(seed))
    tried = []
    for attempt in attempts:
        try:
            arrays, description = attempt()
        except DataError as error:
            tried.append(str(error))
        else:
            description["tried"] = tried
            return arrays, description
    raise DataError("no data: " + "; ".join(tried) + ": expected one of these, or --data FILE.npz")


def cache():
    """Where Keras keeps the file (keras/src/backend/config.py, keras_home)."""
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    return os.path.join(home, "datasets", "mnist.npz")


def _cached():
    if not os.path.exists(cache()):
        raise DataError(f"{_shown(cache())}: no such file")
    return _file(cache(), "keras-cache")


def _not_allowed():
    raise DataError("the download of MNIST was not tried: offline")


def _downloaded(deadline):
    """Through Keras itself, which knows the address and checks the hash; then kept where Keras looks.

    Into a directory of its own first, so that a download cut short is never taken for Keras's cache.
    """
    with tempfile.TemporaryDirectory(prefix="envdoctor-mnist-") as place:
        environment = dict(os.environ, KERAS_HOME=place, CUDA_VISIBLE_DEVICES="-1")  # it wakes no GPU
        try:
            child = subprocess.run(
                [sys.executable, "-c", DOWNLOAD],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=deadline,
            )
        except subprocess.TimeoutExpired:
            raise DataError(f"the download of MNIST by Keras did not end within {deadline:g} s") from None
        if child.returncode != 0:
            said = child.stderr.decode("utf-8", "replace").strip().splitlines() or ["no word"]
            raise DataError(f"the download of MNIST by Keras failed: {_shown(said[-1][:300])}")
        fetched = os.path.join(place, "datasets", "mnist.npz")
        arrays, description = _file(fetched, "keras-download")
        description["path"] = "MNIST, downloaded by Keras"
        _keep(fetched)
        return arrays, description


def _keep(fetched):
    """In Keras's cache for the next time: whole or not at all."""
    kept = cache()
    try:
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=os.path.dirname(kept))
        os.close(handle)
        try:
            shutil.copyfile(fetched, beside)
            os.replace(beside, kept)
        except OSError:
            os.unlink(beside)
            raise
    except OSError:  # a home that cannot be written: this run has its data
        pass


def _digits(seed):
    """scikit-learn's 1,797 digits of 8×8 pixels, interpolated to 28×28; a fifth of them is the test set."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        install = shlex.quote(sys.executable) + " -m pip install scikit-learn"
        raise DataError(f"scikit-learn's digits: {error}: expected scikit-learn there: {install}") from None
    found = load_digits()
    images = found.images.astype("float32") / 16
    across = _interpolation(8, 28)
    images = (across @ images @ across.T)[..., None]
    labels = found.target.astype("int64")
    shuffled = order(len(images), 0, seed)
    test, train = np.split(shuffled, [len(images) // 5])
    arrays = images[train], labels[train], images[test], labels[test]
    return arrays, {"source": "digits", "path": "scikit-learn's digits, 8×8 scaled to 28×28", "tried": []}


def _interpolation(small, large):
    """float32 (large, small): linear interpolation between the centres of the pixels."""
    at = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, small - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(small))).astype("float32")


def _file(path, source):
    arrays = _read(path)
    where = _shown(path)
    images = [_images(arrays[key], key, where) for key in ("x_train", "x_test")]
    labels = [_labels(arrays[key], key, where) for key in ("y_train", "y_test")]
    for (x, y), part in zip(zip(images, labels), ("train", "test")):
        if len(x) != len(y):
            raise DataError(f"{where}: x_{part} has {len(x)} samples and y_{part} {len(y)}: expected as many")
        if len(x) < LEAST:
            raise DataError(f"{where}: x_{part} has {len(x)} samples: expected {LEAST} or more")
    scale = _scale(arrays["x_train"])
    (x_train, x_test), (y_train, y_test) = images, labels
    description = {"source": source, "path": where, "tried": []}
    return (x_train / scale, y_train, x_test / scale, y_test), description


def _read(path):
    where = _shown(path) or "''"
    wanted = "expected an .npz file with " + ", ".join(KEYS)
    if not os.path.exists(path):
        raise DataError(f"{where}: no such file: {wanted}; or auto, mnist, digits")
    if not os.path.isfile(path):
        raise DataError(f"{where}: not a file: {wanted}")
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.file_size > LARGEST_MEMBER:
                    raise DataError(
                        f"{where}: {_shown(member.filename)} would take {member.file_size} bytes"
                        f": expected at most {LARGEST_MEMBER}"
                    )
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in KEYS if key not in file.files]
            if missing:
                raise DataError(
                    "{}: no {} in it, but {}: expected {}".format(
                        where,
                        ", ".join(missing),
                        _shown(", ".join(file.files[:8])) or "nothing",
                        ", ".join(KEYS),
                    )
                )
            return {key: _array(file, key, where) for key in KEYS}
    except zipfile.BadZipFile:
        raise DataError(f"{where}: not an .npz file: {wanted}") from None
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error.strerror or error}") from None


def _array(file, key, where):
    try:
        array = file[key]
    except (ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        if "Object arrays" in str(error):
            raise DataError(
                f"{where}: {key} holds Python objects, which are never loaded: expected numbers"
            ) from None
        said = _shown(str(error).partition("\n")[0][:200])
        raise DataError(f"{where}: {key} is damaged: {said or type(error).__name__}") from None
    if not isinstance(array, np.ndarray):  # a member that is no .npy comes as bytes
        raise DataError(f"{where}: {key} is no array: expected one of NumPy's")
    return array


def _images(array, key, where):
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim != 3 or array.shape[1:] != (28, 28):
        raise DataError(f"{where}: {key} has the shape {array.shape}: expected (samples, 28, 28)")
    if array.dtype.kind not in "uif":
        raise DataError(f"{where}: {key} is of type {_shown(str(array.dtype))}: expected numbers")
    if not np.isfinite(array).all():
        wrong = ~np.isfinite(array).all(axis=(1, 2))
        raise DataError(
            f"{where}: {key} has pixels that are not numbers (NaN or infinite) in {wrong.sum()} of"
            f" {len(array)} samples, first in {wrong.argmax()}: expected finite ones"
        )
    lowest, highest = (float(f(array)) for f in (np.min, np.max)) if array.size else (0.0, 0.0)
    if lowest < 0 or highest > 255:
        raise DataError(
            f"{where}: {key} has pixels from {lowest:g} to {highest:g}: expected 0 to 255, or 0 to 1"
        )
    return array.astype("float32")[..., None]


def _scale(pixels):
    """What white is: 255, but for floating point up to 1."""
    return np.float32(1 if pixels.dtype.kind == "f" and pixels.max() <= 1 else 255)


def _labels(array, key, where):
    if array.ndim != 1:
        raise DataError(f"{where}: {key} has the shape {array.shape}: expected (samples,)")
    if array.dtype.kind not in "ui":
        raise DataError(f"{where}: {key} is of type {_shown(str(array.dtype))}: expected whole numbers")
    wrong = (array < 0) | (array > 9)
    if wrong.any():
        first = int(wrong.argmax())
        raise DataError(
            f"{where}: {key} has {wrong.sum()} labels outside 0 to 9, the first is {array[first]}, of sample"
            f" {first}: expected the digits"
        )
    return array.astype("int64")


def _shown(text):
    """On one line, and with nothing in it that a terminal acts on."""
    return text if text.isprintable() else ascii(text)[1:-1]
