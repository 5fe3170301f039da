"""What pip, JAX and the variables say."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from envdoctor.explain.cause import Cause, cause
from envdoctor.explain.seen import Seen
from envdoctor.explain.signatures import Confidence

_FRAMEWORK = re.compile(r"(?:tensorflow|torch|jax|tf[-_]nightly)", re.IGNORECASE)
_DEFAULT_CUDA_DIRECTORY = "./cuda_sdk_lib"


def judge_packages(seen: Seen) -> Iterator[Cause]:
    yield from _jax(seen)
    yield from _pip(seen)
    yield from _flags(seen)
    yield from _directories(seen)
    yield from _missing_module(seen)
    yield from _duplicates(seen)


def _jax(seen: Seen) -> Iterator[Cause]:
    fallen, backend = seen.facts("jax-cpu"), seen.facts("jax-backend")
    if not (fallen or backend) or seen.has(
        "jax-library", "library-missing", "cudnn-versions", "undefined-symbol", "cuinit"
    ):
        return  # the plugin is there and failed: it says so after every failure
    if backend:
        message = "JAX's CUDA plugin does not start, and JAX falls back to the CPU"
        yield cause("PLC001", message, [*backend, *fallen], Confidence.LIKELY)
        return
    platforms = seen.facts("jax-platforms")
    message = "a jaxlib without CUDA is installed, and JAX falls back to the CPU"
    yield cause(
        "PKG002", message, [*fallen, *platforms], Confidence.LIKELY, alternatives=["ENV001", "PKG009"]
    )


def _pip(seen: Seen) -> Iterator[Cause]:
    for s in seen.facts("pip-conflict"):
        by, needs, has = s.values["by"], s.values["needs"], s.values["has"]
        message = (
            f"{by} {s.values['byversion']} asks for {needs}{s.values.get('spec', '')}, "
            f"and {has} {s.values['hasversion']} is installed"
        )
        if needs.startswith("nvidia-"):
            if _FRAMEWORK.match(by):
                yield cause("PKG009", message, [s], subject=needs, alternatives=["PKG010"])
        elif needs == "numpy":
            yield cause("PKG005", message, [s], Confidence.LIKELY, subject=needs)
        elif needs == "protobuf":
            yield cause("PKG006", message, [s], Confidence.LIKELY, subject=needs)
        elif needs in {"keras", "tf-keras", "tf_keras"}:
            yield cause("PKG007", message, [s], Confidence.LIKELY, subject=needs)


def _flags(seen: Seen) -> Iterator[Cause]:
    for s in seen.facts("xla-flag"):
        from envdoctor.knowledge.flags import tf_xla_flags, xla_flags  # noqa: PLC0415  the tables are large

        variable = s.values["variable"].upper()
        flags = re.findall(r"--?([\w-]+)", s.values.get("flags", ""))
        known = list(tf_xla_flags() if variable.startswith("TF") else xla_flags())
        near = [n for f in flags for n in difflib.get_close_matches(f, known, 1)]
        hint = f" (did you mean --{near[0]}?)" if near and near[0] not in flags else ""
        named = f": --{', --'.join(flags)}{hint}" if flags else ""
        message = f"{variable} names a flag that this build does not have{named}"
        yield cause("XLA007" if variable.startswith("TF") else "XLA004", message, [s], subject=variable)


def _directories(seen: Seen) -> Iterator[Cause]:
    for s in seen.facts("cuda-directories"):
        first = s.values["first"]
        if first.rstrip("/") != _DEFAULT_CUDA_DIRECTORY and first.startswith("/"):
            message = f"{first}, set with --xla_gpu_cuda_data_dir, has no nvvm/libdevice"
            yield cause("XLA006", message, [s], Confidence.LIKELY, subject=first, alternatives=["XLA001"])
            return


def _missing_module(seen: Seen) -> Iterator[Cause]:
    sightings = seen.facts("module-missing")
    if sightings:
        modules = ", ".join(dict.fromkeys(s.values["module"] for s in sightings))
        yield cause("PKG001", f"{modules} is not installed in this interpreter", sightings, subject=modules)


def _duplicates(seen: Seen) -> Iterator[Cause]:
    sightings = [s for s in seen.facts("distribution") if "torch" not in s.values["name"]]
    names = {s.values["name"].lower().replace("_", "-") for s in sightings}
    if len(names) > 1:
        message = f"{', '.join(sorted(names))} are installed together: their files overwrite each other"
        yield cause("PKG004", message, sightings, Confidence.LIKELY)
