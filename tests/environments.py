"""The real frameworks that tests use, in environments installed once into a cache, never modified there.

    python tests/environments.py light full notebook jax digits [torch]     install what is missing

`light`: the TensorFlow wheel and the small cudart wheel (600 MB to download); `full`: with all of
`[and-cuda]` (6 GB on disk); `notebook`: `light` with a Jupyter kernel and client.
Tests that change an environment take a copy of links (see `borrow`).
`torch` is installed where it is named, and its tests skip where it is not: the build of PyTorch for the CPU
is not on every index, and the one that is brings gigabytes of CUDA. It and `jax` have Keras, for `validate`;
`digits` has scikit-learn, whose digits it can train on, and NumPy.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

TENSORFLOW = "2.21.0"
TORCH = "2.13.0"
JAX = "0.10.2"
KERAS = "keras>=3"
REQUIREMENTS = {
    "light": [f"tensorflow=={TENSORFLOW}", "nvidia-cuda-runtime-cu12<13"],
    "full": [f"tensorflow[and-cuda]=={TENSORFLOW}"],
    "notebook": ["ipykernel", "jupyter-client"],
    "torch": [f"torch=={TORCH}", KERAS],
    "jax": [f"jax=={JAX}", f"jaxlib=={JAX}", KERAS],
    "digits": ["scikit-learn"],
}
ON_TOP_OF = {"notebook": "light"}  # the files of that one, as hard links, and what is asked for besides
RELEASES = {"torch": f"torch-{TORCH}", "jax": f"jax-{JAX}", "digits": "scikit-learn"}
ALWAYS = ("light", "full", "notebook", "jax", "digits")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "envdoctor-tests"


def directory(name: str) -> Path:
    release = RELEASES.get(name, f"tf-{TENSORFLOW}-{name}")
    return CACHE / f"{release}-py{sys.version_info[0]}.{sys.version_info[1]}"


def installed(name: str) -> Path | None:
    """The environment, where it was installed completely."""
    place = directory(name)
    return place if (place / "complete").exists() else None


def install(name: str) -> Path:
    place = installed(name)
    if place is not None:
        return place
    place = directory(name)
    place.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    print(f"installing {', '.join(REQUIREMENTS[name])} into {place}", flush=True)
    if name in ON_TOP_OF:
        install(ON_TOP_OF[name])
        subprocess.run(["rm", "-rf", place], check=True)
        borrow(ON_TOP_OF[name], place)
        (place / "complete").unlink()
    else:
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
    pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *REQUIREMENTS[name]], check=True)
    (place / "complete").touch()
    print(f"done in {time.monotonic() - started:.0f} s", flush=True)
    return place


def borrow(name: str, place: Path) -> Path:
    """A copy at `place` whose files are hard links: its directories are its own, its files are the cache's.

    A test may add and remove names in it, and must write into no file.
    """
    source = directory(name).resolve()
    try:
        subprocess.run(["cp", "-al", source, place], check=True, capture_output=True)
    except subprocess.CalledProcessError:  # another file system
        subprocess.run(["cp", "-a", source, place], check=True)
    return place


if __name__ == "__main__":
    for wanted in sys.argv[1:] or ALWAYS:
        install(wanted)
