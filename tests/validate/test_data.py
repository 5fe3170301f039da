"""The digits: real files, each kind of bad file, the sources in their order, and what belongs to them."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.validate.in_target import DIGITS, run, run_keras

pytestmark = pytest.mark.tensorflow  # whose environment has NumPy

LOAD = """
import ed_data
def load(*args, **how):
    try:
        return ed_data.load(*args, **how)
    except ed_data.DataError as error:
        return str(error)
"""
BAD = {
    "missing": ("no such file: expected an .npz file with x_train", "or auto, mnist, digits"),
    "directory": ("not a file: expected an .npz file with x_train, y_train, x_test, y_test",),
    "pipe": ("not a file: expected an .npz file",),
    "empty": ("not an .npz file",),
    "text": ("not an .npz file: expected an .npz file with x_train",),
    "npy": ("not an .npz file",),
    "cut": ("not an .npz file",),
    "bits": ("x_train is damaged: ",),
    "member": ("y_test is no array",),
    "header": ("y_test is damaged: ",),
    "keys": ("no x_train, y_train in it, but x_test, y_test, a: expected x_train, y_train, x_test, y_test",),
    "objects": ("y_train holds Python objects, which are never loaded: expected numbers",),
    "shape": ("x_train has the shape (200, 32, 32): expected (samples, 28, 28)",),
    "colour": ("x_test has the shape (100, 28, 28, 3): expected (samples, 28, 28)",),
    "strings": ("x_train is of type <U1: expected numbers",),
    "complex": ("x_train is of type complex64: expected numbers",),
    "nan": ("x_train has pixels that are not numbers (NaN or infinite) in 2 of 200 samples, first in 3",),
    "infinite": ("x_test has pixels that are not numbers", "in 1 of 100 samples, first in 99"),
    "range": ("x_train has pixels from -1 to 255: expected 0 to 255, or 0 to 1",),
    "blank": ("every pixel is 0: expected images of digits",),
    "label": ("y_train has 2 labels outside 0 to 9, the first is 10, of sample 5: expected the digits",),
    "negative": ("y_test has 1 labels outside 0 to 9, the first is -1, of sample 0",),
    "floats": ("y_train is of type float64: expected whole numbers",),
    "onehot": ("y_train has the shape (200, 10): expected (samples,)",),
    "few": ("x_test has 99 samples: expected 100 or more",),
    "none": ("x_train has 0 samples: expected 100 or more",),
    "lengths": ("x_train has 200 samples and y_train 199: expected as many",),
    "line\nbreak": ("no such file",),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """{kind of bad file: what was said}"""
    place = tmp_path_factory.mktemp("bad")
    return run(f"""
{LOAD}
import io, os, zipfile
place = {str(place)!r}
good = {{"x_train": np.random.default_rng(1).integers(0, 256, (200, 28, 28), "uint8")}}
good["y_train"] = np.arange(200) % 10
good.update(x_test=good["x_train"][:100], y_test=good["y_train"][:100])
def at(name):
    return os.path.join(place, name)
def save(name, **changed):
    np.savez(at(name), **{{**good, **changed}})
    os.rename(at(name) + ".npz", at(name))
def put(array, where, value):
    array = array.copy()
    array[where] = value
    return array
def without(name, *keys, **more):
    np.savez(at(name), **{{k: v for k, v in good.items() if k not in keys}}, **more)
    os.rename(at(name) + ".npz", at(name))
os.mkdir(at("directory"))
os.mkfifo(at("pipe"))
open(at("empty"), "w").close()
open(at("text"), "w").write("x_train\\n" * 100)
np.save(open(at("npy"), "wb"), good["x_train"])
save("whole")
whole = open(at("whole"), "rb").read()
open(at("cut"), "wb").write(whole[: len(whole) // 2])
open(at("bits"), "wb").write(whole[:5000] + b"damaged" + whole[5007:])
for name, content in (("member", b"hello"), ("header", b"\\x93NUMPY\\x01\\x00\\x04\\x00oops")):
    without(name, "y_test")
    with zipfile.ZipFile(at(name), "a") as archive:
        archive.writestr("y_test.npy" if name == "header" else "y_test", content)
without("keys", "x_train", "y_train", a=np.zeros(3))
save("objects", y_train=np.array([1, "two"] * 100, dtype=object))
save("shape", x_train=np.zeros((200, 32, 32)))
save("colour", x_test=np.zeros((100, 28, 28, 3)))
save("strings", x_train=np.full((200, 28, 28), "a"))
save("complex", x_train=good["x_train"].astype("complex64"))
save("nan", x_train=put(good["x_train"].astype("float32"), ([3, 7], 2, 2), np.nan))
save("infinite", x_test=put(good["x_test"].astype("float64"), (99, 0, 0), np.inf))
save("range", x_train=put(good["x_train"].astype("int16"), (0, 0, 0), -1))
save("blank", x_train=np.zeros((200, 28, 28), "uint8"))
save("label", y_train=put(good["y_train"], [5, 9], 10))
save("negative", y_test=put(good["y_test"], 0, -1))
save("floats", y_train=good["y_train"].astype("float64"))
save("onehot", y_train=np.eye(10, dtype=int)[good["y_train"]])
save("few", x_test=good["x_test"][:99], y_test=good["y_test"][:99])
save("none", x_train=good["x_train"][:0], y_train=good["y_train"][:0])
save("lengths", y_train=good["y_train"][:199])
assert not isinstance(load(at("whole")), str)
print(json.dumps({{kind: load(at(kind)) for kind in {list(BAD)!r}}}))
""")


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_line_that_says_what_where_and_what_was_expected(said: Any, kind: str) -> None:
    assert isinstance(said[kind], str)
    assert said[kind].isprintable()
    assert ascii(kind)[1:-1] in said[kind]
    for words in BAD[kind]:
        assert words in said[kind]


def test_the_training_set_is_standardised_by_its_own_mean_and_deviation() -> None:
    found = run(f"""
{LOAD}
raw = np.load(DIGITS)
data = load(DIGITS)
part = load(DIGITS, samples=1000)
plain = load(DIGITS, standardised=False)
pixels = raw["x_test"][..., None] / 255
expected = (pixels - data.description["mean"]) / data.description["std"]
print(json.dumps({{
    "shapes": [list(a.shape) for a in (data.x_train, data.y_train, data.x_test, data.y_test)],
    "types": [a.dtype.name for a in (data.x_train, data.y_train, data.x_test, data.y_test)],
    "moments": [float(f(d.x_train.astype("float64"))) for d in (data, part) for f in (np.mean, np.std)],
    "test": float(abs(data.x_test - expected).max()),
    "plain": float(abs(plain.x_test - pixels).max()),
    "description": data.description,
}}))
""")
    assert found["shapes"] == [[8000, 28, 28, 1], [8000], [2000, 28, 28, 1], [2000]]
    assert found["types"] == ["float32", "int64", "float32", "int64"]
    assert found["moments"] == pytest.approx([0, 1, 0, 1], abs=1e-5)
    assert found["test"] < 1e-5
    assert found["plain"] < 1e-6
    assert found["description"]["source"] == "file"
    assert found["description"]["words"] == f"8000 training and 2000 test samples of {DIGITS}"
    assert found["description"]["like_mnist"]


def test_samples_are_drawn_by_seed_in_pairs_and_repeated_where_there_are_too_few() -> None:
    found = run(f"""
{LOAD}
raw = np.load(DIGITS)
label = {{image.tobytes(): int(y) for image, y in zip(raw["x_train"], raw["y_train"])}}
def images(data):
    return [i.tobytes() for i in (data.x_train[..., 0] * 255).round().astype("uint8")]
def pairs(data):
    return all(label[image] == y for image, y in zip(images(data), data.y_train))
def sample(count, seed):
    return load(DIGITS, samples=count, seed=seed, standardised=False)
one, same, other, more = sample(500, 1), sample(500, 1), sample(500, 2), sample(20000, 1)
print(json.dumps([pairs(one), pairs(more), len(set(images(one))), images(one) == images(same),
                  len(set(images(one)) & set(images(other))), len(more.x_train), more.description,
                  load(DIGITS, samples=99), load(DIGITS, samples=2_000_000)]))
""")
    assert found[:4] == [True, True, 500, True]
    assert found[4] < 100  # of 500 from 8,000
    assert found[5] == 20_000
    assert found[6]["distinct"] == 8000
    assert "(8000 different ones, repeated)" in found[6]["words"]
    assert found[7] == "--samples 99: expected 100 to 1000000"
    assert found[8] == "--samples 2000000: expected 100 to 1000000"


def test_the_order_of_an_epoch_is_set_by_seed_and_epoch() -> None:
    assert run("""
import ed_data
first, again, later, other = (ed_data.order(1000, e, s).tolist() for e, s in ((0, 1), (0, 1), (1, 1), (0, 2)))
print(json.dumps([sorted(first) == list(range(1000)), first == again, first == later, first == other]))
""") == [True, True, False, False]


def test_auto_takes_kerass_cache_before_a_given_file(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    shutil.copy(DIGITS, tmp_path / "datasets" / "mnist.npz")
    script = f"""
{LOAD}
print(json.dumps([load("auto", given=DIGITS, offline=True).description,
                  load("mnist", offline=True).description]))
"""
    cached, named = run(script, KERAS_HOME=str(tmp_path))
    assert cached["source"] == named["source"] == "keras-cache"
    (tmp_path / "datasets" / "mnist.npz").write_bytes(b"cut short")
    given, none = run(
        f"""
{LOAD}
given = load("auto", given=DIGITS, offline=True).description
print(json.dumps([given, load("mnist", offline=True)]))
""",
        KERAS_HOME=str(tmp_path),
    )
    assert (given["source"], given["path"]) == ("file", str(DIGITS))
    assert given["tried"][0].startswith(f"{tmp_path}/datasets/mnist.npz: not an .npz file")
    assert none.startswith(f"no data: {tmp_path}/datasets/mnist.npz: not an .npz file")
    assert "; the download of MNIST was not tried: offline: expected" in none


@contextlib.contextmanager
def proxy(*, answers: bool) -> Iterator[tuple[str, socket.socket]]:
    """A network that takes connections and never says a word; or one where nobody listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answers:
            server.listen()
        server.settimeout(0)
        yield f"http://127.0.0.1:{server.getsockname()[1]}", server


def test_a_download_that_never_ends_is_ended_by_its_deadline_and_leaves_no_cache(tmp_path: Path) -> None:
    with proxy(answers=True) as (address, server):
        message = run_keras(
            f'{LOAD}\nprint(json.dumps(load("mnist", deadline=25.0)))',
            https_proxy=address,
            HTTPS_PROXY=address,
            no_proxy="",
            KERAS_HOME=str(tmp_path),
        )
        server.accept()[0].close()  # Keras did ask
    assert "; the download of MNIST by Keras did not end within 25 s: expected" in message
    assert list(tmp_path.rglob("*.npz*")) == []


def test_a_download_that_fails_says_why_in_one_line(tmp_path: Path) -> None:
    with proxy(answers=False) as (address, _):
        message = run_keras(
            f'{LOAD}\nprint(json.dumps(load("mnist", deadline=100.0)))',
            https_proxy=address,
            HTTPS_PROXY=address,
            no_proxy="",
            KERAS_HOME=str(tmp_path),
        )
    assert "the download of MNIST by Keras failed: " in message
    assert "Connection refused" in message
    assert message.isprintable()


def test_what_was_downloaded_is_kept_where_keras_looks(tmp_path: Path) -> None:
    """A package named keras stands in for the real one, for its download: it copies the file."""
    stand_in = tmp_path / "keras"
    stand_in.mkdir()
    (stand_in / "__init__.py").write_text(
        "import os, shutil\n"
        "class mnist:\n"
        "    def load_data():\n"
        "        place = os.path.join(os.environ['KERAS_HOME'], 'datasets')\n"
        "        os.makedirs(place)\n"
        f"        shutil.copyfile({str(DIGITS)!r}, os.path.join(place, 'mnist.npz'))\n"
        "class datasets:\n"
        "    mnist = mnist\n"
    )
    home = tmp_path / "home"
    script = f"""
import os, sys
os.environ["PYTHONPATH"] = {str(tmp_path)!r}
{LOAD}
print(json.dumps([load("auto").description, load("auto", offline=True).description]))
"""
    first, second = run(script, KERAS_HOME=str(home))
    assert (first["source"], first["path"]) == ("keras-download", "MNIST, downloaded by Keras")
    assert second["source"] == "keras-cache"
    assert [path.name for path in home.rglob("*") if path.is_file()] == ["mnist.npz"]
    assert (home / "datasets" / "mnist.npz").read_bytes() == DIGITS.read_bytes()


def test_without_any_source_every_reason_is_said_in_one_line(tmp_path: Path) -> None:
    message = run(f'{LOAD}\nprint(json.dumps(load("auto", offline=True)))', KERAS_HOME=str(tmp_path))
    assert message.startswith(
        f"no data: {tmp_path}/datasets/mnist.npz: no such file; "
        "the download of MNIST was not tried: offline; scikit-learn's digits: No module named 'sklearn': "
        "expected scikit-learn there: "
    )
    assert message.endswith("-m pip install scikit-learn: expected one of these, or --data FILE.npz")


def test_auto_ends_with_the_digits_of_scikit_learn_scaled_to_28(tmp_path: Path) -> None:
    found = run(
        f"""
{LOAD}
from sklearn.datasets import load_digits
data = load("auto", offline=True, standardised=False)
small = load_digits().images / 16
images = np.concatenate([data.x_train, data.x_test])[..., 0]
# A corner's pixel is the corner; the mean of the whole is that of the small one, but for the edges
corners = sorted(map(tuple, images[:, ::27, ::27].reshape(-1, 4).round(5).tolist()))
expected = sorted(map(tuple, small[:, ::7, ::7].reshape(-1, 4).round(5).tolist()))
brightness = float(images.mean() / small.mean())
across = ed_data._interpolation(8, 28)
mirrored = bool(np.allclose(across, across[::-1, ::-1]) and np.allclose(across.sum(axis=1), 1))
print(json.dumps([data.description, list(images.shape), corners == expected, brightness, mirrored,
                  sorted(set(data.y_test.tolist()))]))
""",
        environment="digits",
        package="sklearn",
        KERAS_HOME=str(tmp_path),
    )
    description, shape, corners, brightness, mirrored, labels = found
    assert description["source"] == "digits"
    assert "scaled to 28" in description["words"]
    assert len(description["tried"]) == 2
    assert shape == [1797, 28, 28]
    assert corners
    assert mirrored
    assert brightness == pytest.approx(1, abs=0.02)
    assert labels == list(range(10))


def test_the_accuracy_bound_is_that_of_the_data_their_number_and_the_epochs() -> None:
    found = run("""
import ed_data
def bound(source="file", distinct=8000, epochs=5, like_mnist=True, **changed):
    description = dict(DESCRIPTIONS["mnist-cnn"], epochs=epochs, **changed)
    data = {"source": source, "distinct": distinct, "like_mnist": like_mnist}
    found = ed_data.accuracy_bound(description, data)
    return found and found["minimum"]
print(json.dumps([bound(), bound(epochs=1), bound(distinct=60000), bound(distinct=500), bound("digits", 1438),
                  bound("digits", 1438, epochs=4), bound(like_mnist=False), bound(bounds=[])]))
""")
    assert found == [0.97, 0.9, 0.985, None, 0.9, None, None, None]


def test_a_file_that_looks_like_other_pictures_is_not_taken_for_mnist() -> None:
    """Brighter images, as those of clothes are (Fashion-MNIST)."""
    assert (
        run(f"""
{LOAD}
import os, tempfile
raw = dict(np.load(DIGITS))
raw["x_train"] = np.minimum(raw["x_train"] + 60, 255)
with tempfile.TemporaryDirectory() as place:
    np.savez(os.path.join(place, "other.npz"), **raw)
    print(json.dumps(load(os.path.join(place, "other.npz")).description["like_mnist"]))
""")
        is False
    )
