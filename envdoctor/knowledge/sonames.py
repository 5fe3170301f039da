"""Which file name each CUDA library has, by CUDA version."""

from __future__ import annotations

from functools import cache

from msgspec import Struct

from envdoctor.knowledge.loading import load_rows, release_key


class ToolkitSonames(Struct, frozen=True):
    cuda: str  # "12.5"
    sonames: dict[str, str]  # by component: "cublasLt" -> "libcublasLt.so.12"
    source: str
    verified: bool


@cache
def toolkit_soname_rows() -> tuple[ToolkitSonames, ...]:
    return load_rows("cuda_sonames", ToolkitSonames)


def toolkit_sonames(cuda: str) -> ToolkitSonames | None:
    """The sonames of a CUDA version's libraries.

    From CUDA 12 on a minor version newer than the table gets the row of the newest older minor of its
    major: the suffixes have not changed within those majors.
    """
    key = release_key(cuda)[:2]
    rows = {release_key(r.cuda): r for r in toolkit_soname_rows()}
    if len(key) == 2 and key[0] >= 12 and key not in rows:
        key = max((k for k in rows if k[0] == key[0] and k < key), default=key)
    return rows.get(key)


def toolkits_with(soname: str) -> tuple[str, ...]:
    """The CUDA versions that have a library of this name: libcusparse.so.12 is in all of 12 and 13."""
    return tuple(r.cuda for r in toolkit_soname_rows() if soname in r.sonames.values())


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
