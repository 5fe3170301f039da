"""Typed look-ups in the compatibility tables.

The target's own files come first (`build_info.py`, METADATA, ELF headers). The tables answer where nothing
is installed, or what no file says. Every row names its source.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TypeVar

import msgspec
from msgspec import Struct

T = TypeVar("T")


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


class CudaDriverRow(Struct, frozen=True):
    """A toolkit release and the Linux drivers it takes."""

    cuda: str  # "12.4.1"
    driver: str  # the driver that came with it
    floor: str  # the lowest that runs it
    source: str


class _Table(Struct, frozen=True):
    about: str
    rows: msgspec.Raw


def _rows(name: str, row_type: type[T]) -> tuple[T, ...]:
    path = os.path.join(os.path.dirname(__file__), name)
    with open(path, "rb") as file:
        table = msgspec.json.decode(file.read(), type=_Table)
    return tuple(msgspec.json.decode(table.rows, type=list[row_type]))  # type: ignore[valid-type]


@cache
def tensorflow_releases() -> tuple[TensorFlowRelease, ...]:
    return _rows("tensorflow_releases.json", TensorFlowRelease)


@cache
def cuda_drivers() -> tuple[CudaDriverRow, ...]:
    return _rows("cuda_drivers.json", CudaDriverRow)


def release_key(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for ordering: "12.5.1" -> (12, 5, 1), "2.21.0rc1" -> (2, 21, 0)."""
    key: list[int] = []
    for part in version.split("."):
        digits = len(part) - len(part.lstrip("0123456789"))
        if not digits:
            break
        key.append(int(part[:digits]))
        if digits < len(part):
            break
    return tuple(key)


def tensorflow_release(version: str) -> TensorFlowRelease | None:
    """The row of a release; None for one that the table does not know."""
    minor = release_key(version)[:2]
    return next((r for r in tensorflow_releases() if release_key(r.tensorflow) == minor), None)


def newest_tensorflow(python: str = "") -> TensorFlowRelease:
    """The newest release in the table that has a wheel for this Python ("3.11.7"; "" for any)."""
    minor = ".".join(python.split(".")[:2])
    fitting = [r for r in tensorflow_releases() if not minor or minor in r.python]
    return (fitting or list(tensorflow_releases()))[-1]


def driver_floor(cuda: str) -> CudaDriverRow | None:
    """The row that tells the lowest Linux driver for a CUDA version; None where the table has none.

    From CUDA 11 on the floor is that of the major version, so that a minor version newer than the table
    still gets one. Source: NVIDIA's CUDA compatibility guide, "Minor Version Compatibility".
    """
    key = release_key(cuda)[:2]
    same = [r for r in cuda_drivers() if key and release_key(r.cuda)[:2] == key]
    if not same and key and key[0] >= 11:
        same = [r for r in cuda_drivers() if release_key(r.cuda)[0] == key[0]]
    return min(same, key=lambda r: release_key(r.floor), default=None)


def cuda_sonames(cuda: str, cudnn: str, tensorflow: str) -> tuple[str, ...]:
    """The sonames a TensorFlow build dlopens, from its CUDA and cuDNN versions, by the build's own rule.

    Suffixes: below CUDA 10.1 `x.y`; in 10.1 and 10.2 cudart `x.y` and the rest `10`; in CUDA 11 cudart
    `11.0` and the others their own major; from 12 on majors only. Source: third_party/gpus/
    cuda_configure.bzl, agreeing with the names that the loader functions of seventeen released wheels
    tried. CUDA majors after 12 are not answered: no TensorFlow release has been built for them.
    """
    key = release_key(cuda)[:2]
    release = release_key(tensorflow)
    if len(key) < 2 or key[0] > 12:
        return ()
    dotted = f"{key[0]}.{key[1]}"
    if key < (10, 1):
        suffix = dict.fromkeys(
            ("cudart", "cublas", "cublasLt", "cufft", "curand", "cusolver", "cusparse"), dotted
        )
    elif key[0] == 10:
        suffix = dict.fromkeys(("cublas", "cublasLt", "cufft", "curand", "cusolver", "cusparse"), "10")
        suffix["cudart"] = dotted
    elif key[0] == 11:
        suffix = {"cudart": "11.0", "cublas": "11", "cublasLt": "11", "cufft": "10", "curand": "10"}
        suffix |= {"cusolver": "10" if key[1] == 0 else "11", "cusparse": "11"}
    else:
        suffix = {"cudart": "12", "cublas": "12", "cublasLt": "12", "cufft": "11", "curand": "10"}
        suffix |= {"cusolver": "11", "cusparse": "12"}
    names = ["cudart", "cublas"]
    names += ["cublasLt"] if release >= (2, 4) else []
    names += ["cufft"]
    names += ["curand"] if release < (2, 14) else []
    names += ["cusolver", "cusparse"]
    sonames = [f"lib{name}.so.{suffix[name]}" for name in names]
    return (*sonames, f"libcudnn.so.{cudnn.split('.', maxsplit=1)[0]}")
