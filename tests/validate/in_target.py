"""Runs a script beside the worker's, in an interpreter that has NumPy and a framework."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest

from envdoctor.validate import networks
from tests import environments

TOP = Path(__file__).resolve().parents[2]
WORKER = TOP / "envdoctor" / "validate" / "worker"
DIGITS = TOP.parent / "shared" / "data" / "mnist-10k.npz"
ENVIRONMENTS = {"tensorflow": "light", "torch": "torch", "jax": "jax"}
BACKENDS = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ENVIRONMENTS]


def python(environment: str, *, package: str) -> Path:
    """The interpreter of a cached environment; the test skips where that, or the package, is missing."""
    place = environments.installed(environment)
    if place is None or not list(place.glob(f"lib/python*/site-packages/{package}")):
        pytest.skip(f"{package} is not installed: python tests/environments.py {environment}")
    return place / "bin" / "python"


def run(
    script: str, *, environment: str = "light", package: str = "numpy", timeout: float = 300, **variables: str
) -> Any:
    """What the script prints last, as JSON. It finds the worker's modules, DESCRIPTIONS and DIGITS."""
    prologue = (
        f"import json\nDIGITS = {str(DIGITS)!r}\n"
        f"DESCRIPTIONS = json.loads({json.dumps(descriptions())!r})\nimport numpy as np\n"
    )
    done = subprocess.run(
        [python(environment, package=package), "-c", prologue + textwrap.dedent(script)],
        env={
            **os.environ,
            "PYTHONPATH": str(WORKER),
            "PYTHONDONTWRITEBYTECODE": "1",
            "CUDA_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def run_keras(script: str, *, backend: str = "tensorflow", timeout: float = 300, **variables: str) -> Any:
    return run(
        script,
        environment=ENVIRONMENTS[backend],
        package="keras",
        timeout=timeout,
        KERAS_BACKEND=backend,
        **variables,
    )


def descriptions() -> dict[str, Any]:
    return {network.name: networks.describe(network) for network in networks.networks()}
