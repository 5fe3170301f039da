"""Which version a library file is, told from names alone."""

from __future__ import annotations

import re
from collections.abc import Iterable

from envdoctor.facts.loader_model import stem
from envdoctor.facts.model import Distribution, Facts, Unavailable
from envdoctor.facts.model_toolkits import CudaDirectory
from envdoctor.knowledge.loading import release_key

_WHEEL_PATH = re.compile(r"(?P<site>.*)/nvidia/(?P<component>[a-z0-9_]+)/lib(?:64)?/[^/]+$")
_TOGETHER = re.compile(r"cu\d\d")  # nvidia/cu13/lib, where the wheels of CUDA 13 lie together
_COMPONENTS = {
    "libcudart": "cuda-runtime",
    "libcublas": "cublas",
    "libcublasLt": "cublas",
    "libnvblas": "cublas",
    "libcufft": "cufft",
    "libcufftw": "cufft",
    "libcurand": "curand",
    "libcusolver": "cusolver",
    "libcusolverMg": "cusolver",
    "libcusparse": "cusparse",
    "libcupti": "cuda-cupti",
    "libnvrtc": "cuda-nvrtc",
    "libnvrtc-builtins": "cuda-nvrtc",
    "libnvJitLink": "nvjitlink",
    "libcufile": "cufile",
}

# `nvidia-cudnn-cu12<10.0,>=9.3.0.75; …` -> 9.3. packaging's parser would cost 20 ms at every start.
_CUDNN_BOUND = re.compile(r"nvidia-cudnn[^;]*?(?:>=|==)\s*(?P<version>\d+(?:\.\d+)+)")


def library_version(real: str, facts: Facts) -> str:
    """`9.1.1` of `…/libcudnn.so.9.1.1`; of a file in a pip wheel, whose name tells only the major version,
    the wheel's version. "" where neither tells.
    """
    wheel = owning_wheel(real, facts)
    if wheel:
        return wheel.version
    suffix = real.rpartition(".so.")[2]
    return suffix if suffix != real and suffix.count(".") >= 1 and suffix.replace(".", "").isdigit() else ""


def same_version(one: str, other: str) -> bool:
    """Whether two versions agree as far as both go: 9.3.0 of a file name and 9.3.0.75 of its wheel."""
    first, second = release_key(one), release_key(other)
    length = min(len(first), len(second))
    return length > 1 and first[:length] == second[:length]


def owning_wheel(real: str, facts: Facts) -> Distribution | None:
    """The nvidia-* distribution that a file in site-packages/nvidia/<component>/lib belongs to."""
    found = owning_wheels(real, facts)
    return found[0] if found else None


def owning_wheels(real: str, facts: Facts) -> tuple[Distribution, ...]:
    """All that may own it: nvidia-cudnn-cu12 and nvidia-cudnn-cu13 put their files in the same place."""
    match = _WHEEL_PATH.match(real)
    if match is None or isinstance(facts.packages, Unavailable):
        return ()
    component = match["component"].replace("_", "-")
    if _TOGETHER.fullmatch(component):
        component = _COMPONENTS.get(stem(real.rpartition("/")[2]), "")
    name = "nvidia-" + component
    here = [d for d in facts.packages.distributions if d.location == match["site"]]
    return tuple(d for d in here if d.name == name or d.name.startswith(name + "-cu"))


def wheel_named(component: str, facts: Facts) -> Distribution | None:
    """The first nvidia-<component>[-cuNN] distribution: "cudnn", "cuda-runtime"."""
    if isinstance(facts.packages, Unavailable):
        return None
    name = "nvidia-" + component
    return next(
        (d for d in facts.packages.distributions if d.name == name or d.name.startswith(name + "-cu")), None
    )


def installation_of(path: str, facts: Facts) -> CudaDirectory | None:
    """The CUDA installation that a path lies in, by its own name or after links."""
    fitting = [
        d
        for d in facts.installations.directories
        if any(root and f"{path}/".startswith(f"{root}/") for root in (d.path, d.real))
    ]
    return max(fitting, key=lambda d: len(d.path), default=None)


def cudnn_bound(requires: Iterable[str]) -> str:
    """The lowest cuDNN that a distribution's own METADATA takes; "" where it names none."""
    return next((m["version"] for m in map(_CUDNN_BOUND.match, requires) if m), "")
