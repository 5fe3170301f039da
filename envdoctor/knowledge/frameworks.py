"""What the releases of TensorFlow, PyTorch and JAX were built for, and what they require.

The target's own files come first (`build_info.py`, METADATA, ELF headers). These tables answer where nothing
is installed, or what no file says.
"""

from __future__ import annotations

from functools import cache

from msgspec import Struct

from envdoctor.knowledge.loading import load_rows, matches, release_key


class TensorFlowRelease(Struct, frozen=True):
    """What a TensorFlow release's Linux GPU build was made for."""

    tensorflow: str  # "2.21"
    python: tuple[str, ...]
    cuda: str
    cudnn: str
    linked: bool  # libraries are DT_NEEDED of the extension module (before 1.14), not dlopened
    required: tuple[str, ...]  # sonames without which no GPU is registered (libcuda.so.1 apart)
    optional: tuple[str, ...]
    compute_capabilities: tuple[str, ...]  # "sm_80" has a cubin, "compute_90" a cubin and PTX
    minimum_capability: str
    source: str
    verified: bool


class TensorFlowPins(Struct, frozen=True):
    """The and-cuda extra of one TensorFlow release."""

    tensorflow: str  # "2.21.0"
    requires: tuple[str, ...]  # "nvidia-cudnn-cu12<10.0,>=9.3.0.75"
    source: str
    verified: bool


class PyTorchRelease(Struct, frozen=True):
    """PyTorch's default Linux x86_64 wheel of a release."""

    torch: str  # "2.10.0"
    python: str  # a specifier, ">=3.10"
    cuda: str
    cudnn: str
    requires: tuple[str, ...]
    source: str
    verified: bool


class PyTorchArchitectures(Struct, frozen=True):
    """The GPU architectures that PyTorch builds of some releases and CUDA versions were compiled for."""

    torch: str  # a specifier
    cuda: tuple[str, ...]
    architectures: tuple[str, ...]  # "9.0" is a binary alone, "12.0+PTX" a binary and PTX
    source: str
    verified: bool


class JaxRelease(Struct, frozen=True):
    """What JAX releases take, by CUDA variant; "" where the change log does not say."""

    jax: str  # a specifier
    variant: str  # "cuda12"
    cuda: str  # a specifier
    cudnn: str  # a specifier
    driver: str  # the lowest
    minimum_capability: str
    built_for: tuple[str, ...]  # "sm_80" has a cubin, "compute_120" a cubin and PTX
    note: str
    source: str
    verified: bool


class JaxPlugin(Struct, frozen=True):
    """A release of a CUDA plugin wheel of JAX."""

    plugin: str  # "jax-cuda12-plugin"
    version: str
    python: str
    requires: tuple[str, ...]
    source: str
    verified: bool


@cache
def tensorflow_releases() -> tuple[TensorFlowRelease, ...]:
    return load_rows("tensorflow_releases", TensorFlowRelease)


@cache
def tensorflow_pins() -> tuple[TensorFlowPins, ...]:
    return load_rows("tensorflow_pins", TensorFlowPins)


@cache
def pytorch_releases() -> tuple[PyTorchRelease, ...]:
    return load_rows("pytorch_releases", PyTorchRelease)


@cache
def pytorch_architectures() -> tuple[PyTorchArchitectures, ...]:
    return load_rows("pytorch_architectures", PyTorchArchitectures)


@cache
def jax_releases() -> tuple[JaxRelease, ...]:
    return load_rows("jax_releases", JaxRelease)


@cache
def jax_plugins() -> tuple[JaxPlugin, ...]:
    return load_rows("jax_plugins", JaxPlugin)


def tensorflow_release(version: str) -> TensorFlowRelease | None:
    """The row of a release; None for one that the table does not know."""
    minor = release_key(version)[:2]
    return next((r for r in tensorflow_releases() if release_key(r.tensorflow) == minor), None)


def newest_tensorflow(python: str = "") -> TensorFlowRelease:
    """The newest release in the table that has a wheel for this Python ("3.11.7"; "" for any)."""
    minor = ".".join(python.split(".")[:2])
    fitting = [r for r in tensorflow_releases() if not minor or minor in r.python]
    return (fitting or list(tensorflow_releases()))[-1]


def and_cuda_pins(version: str) -> TensorFlowPins | None:
    """What `tensorflow[and-cuda]` of exactly this release asks for; None before 2.14, and where not known."""
    return next((r for r in tensorflow_pins() if r.tensorflow == version.partition("+")[0]), None)


def pytorch_release(version: str) -> PyTorchRelease | None:
    """The row of a release ("2.10.0", "2.10.0+cu128"), else the newest known of the same minor version."""
    public = version.partition("+")[0]
    minor = release_key(public)[:2]
    same = [r for r in pytorch_releases() if len(minor) == 2 and release_key(r.torch)[:2] == minor]
    exact = next((r for r in same if r.torch == public), None)
    return exact or max(same, key=lambda r: release_key(r.torch), default=None)


def pytorch_built_for(version: str, cuda: str) -> PyTorchArchitectures | None:
    """The architectures of a PyTorch release's build for a CUDA version; verified rows first."""
    public, minor = version.partition("+")[0], ".".join(cuda.split(".")[:2])
    fitting = [r for r in pytorch_architectures() if minor in r.cuda and matches(public, r.torch)]
    return min(fitting, key=lambda r: not r.verified, default=None)


def jax_release(version: str, cuda_major: int) -> JaxRelease | None:
    """The row of a JAX release in its variant for a CUDA major."""
    variant = f"cuda{cuda_major}"
    rows = (r for r in jax_releases() if r.variant == variant and matches(version, r.jax))
    return next(rows, None)


def jax_plugin(plugin: str, version: str) -> JaxPlugin | None:
    return next((r for r in jax_plugins() if r.plugin == plugin and r.version == version), None)
