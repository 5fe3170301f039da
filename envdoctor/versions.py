"""Which version a library file is, told from names alone."""

from __future__ import annotations

import re

from envdoctor.facts.model import Distribution, Facts, Unavailable

_WHEEL_PATH = re.compile(r"(?P<site>.*)/nvidia/(?P<component>[a-z0-9_]+)/lib(?:64)?/[^/]+$")


def library_version(real: str, facts: Facts) -> str:
    """`9.1.1` of `…/libcudnn.so.9.1.1`; of a file in a pip wheel, whose name tells only the major version,
    the wheel's version. "" where neither tells.
    """
    wheel = owning_wheel(real, facts)
    if wheel:
        return wheel.version
    suffix = real.rpartition(".so.")[2]
    return suffix if suffix != real and suffix.count(".") >= 1 and suffix.replace(".", "").isdigit() else ""


def owning_wheel(real: str, facts: Facts) -> Distribution | None:
    """The nvidia-* distribution that a file in site-packages/nvidia/<component>/lib belongs to."""
    match = _WHEEL_PATH.match(real)
    if match is None or isinstance(facts.packages, Unavailable):
        return None
    stem = "nvidia-" + match["component"].replace("_", "-")
    here = [d for d in facts.packages.distributions if d.location == match["site"]]
    return next((d for d in here if d.name == stem or d.name.startswith(stem + "-cu")), None)


def wheel_named(component: str, facts: Facts) -> Distribution | None:
    """The first nvidia-<component>[-cuNN] distribution: "cudnn", "cuda-runtime"."""
    if isinstance(facts.packages, Unavailable):
        return None
    stem = "nvidia-" + component
    return next(
        (d for d in facts.packages.distributions if d.name == stem or d.name.startswith(stem + "-cu")), None
    )
