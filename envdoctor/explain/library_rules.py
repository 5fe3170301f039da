"""Which library failed, and why: read from the dlerror, not from the library that the line quotes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from envdoctor.catalog import Severity
from envdoctor.explain.cause import Cause, cause
from envdoctor.explain.seen import Seen
from envdoctor.explain.sightings import Sighting
from envdoctor.explain.signatures import Confidence
from envdoctor.knowledge.loading import release_key
from envdoctor.knowledge.sonames import toolkits_with

_OPTIONAL = (
    "nvinfer",
    "libnvinfer",
    "libtpu",
    "libhipblas",
    "librocm",
    "libamdhip",
    "libnccl-net",
    "libibverbs",
)
_CUDA = re.compile(r"^(?:lib)?(?:cu|nv|nccl)", re.IGNORECASE)
_PLACES = ("LIB002", "LIB003")


def judge_libraries(seen: Seen) -> Iterator[Cause]:
    missing = [s for s in seen.facts("library-missing") if _matters(s)]
    opened = set(seen.values("library-opened", "soname"))
    here = _gpu_here(seen)
    transitive = [s for s in missing if _needs_other(s)]
    missing = [s for s in missing if s not in transitive and s.values["soname"] not in opened]
    yield from _transitive(transitive)
    driver = [s for s in missing if _stem(s) in {"libcuda", "nvcuda", "libnvidia-ml"}]
    yield from _no_libcuda(driver, seen)
    cuda = [s for s in missing if s not in driver and _CUDA.match(s.values["soname"])]
    yield from _cuda_libraries(cuda, seen, here=here)
    yield from _undefined_symbols(seen)
    yield from _jax_libraries(seen)
    for s in seen.facts("unversioned"):
        message = f"the linker finds no lib{s.values['library']}.so (the plain name)"
        yield cause("LIB013", message, [s], Confidence.LIKELY, alternatives=["LIB003"])
    if seen.has("gpus-skipped") and not missing and not transitive:
        yield from _nameless(seen)


def _matters(sighting: Sighting) -> bool:
    """TensorRT is optional: its absence is noise, unless something imports it by itself."""
    names = (sighting.values.get("asked", ""), sighting.values["soname"])
    return not any(name.lower().startswith(_OPTIONAL) for name in names)


def _stem(sighting: Sighting) -> str:
    return re.split(r"\.so|\.dll|\.dylib", sighting.values["soname"], maxsplit=1)[0]


def _needs_other(sighting: Sighting) -> bool:
    asked = sighting.values.get("asked", "")
    return bool(asked) and asked != sighting.values["soname"]


def _gpu_here(seen: Seen) -> bool:
    """The log shows that TensorFlow found a GPU and then wanted its libraries."""
    return seen.has("gpus-skipped", "device-found", "device-created")


def _transitive(sightings: list[Sighting]) -> Iterator[Cause]:
    for s in sightings:
        asked, soname = s.values["asked"], s.values["soname"]
        if asked.startswith("libcudnn_") and soname.startswith("libcudnn"):
            continue  # a part of cuDNN that lacks another part: CDN004
        places = ["LIB002", "LIB003", "LIB001"]
        if soname.startswith("libcuda.so"):
            places = ["HST009", "LIB013", "DRV001"]
        elif soname.endswith(".so"):
            places = ["LIB013", *places]
        if asked.startswith("libcudnn") and soname.startswith("libcublas"):
            message = f"{asked} needs {soname}, which is not there: it is built for another CUDA"
            yield cause("CDN003", message, [s], Confidence.LIKELY, subject=asked, alternatives=["LIB008"])
            continue
        message = f"{asked} is found, and {soname} that it needs is not"
        yield cause("LIB008", message, [s], Confidence.LIKELY, subject=asked, alternatives=places)


def _no_libcuda(sightings: list[Sighting], seen: Seen) -> Iterator[Cause]:
    if not sightings:
        return
    if seen.has("wsl"):
        message = "libcuda.so.1 is not found, and this is WSL2, which has it in /usr/lib/wsl/lib"
        yield cause("HST009", message, sightings, Confidence.LIKELY, alternatives=["DRV001"])
        return
    others = ["HST005", "GPU001", "HST009"]
    message = f"{sightings[0].values['soname']} is not there: no NVIDIA driver is installed here"
    yield cause("DRV001", message, sightings, Confidence.LIKELY, alternatives=others)


def _cuda_libraries(sightings: list[Sighting], seen: Seen, *, here: bool) -> Iterator[Cause]:
    if not sightings:
        return
    names = list(dict.fromkeys(s.values["soname"] for s in sightings))
    listed = ", ".join(names)
    other = _other_toolkit(names, seen)
    if seen.has("sudo"):
        message = f"{listed} not found under sudo, which drops LD_LIBRARY_PATH"
        sightings = [*sightings, *seen.facts("sudo")]
        yield cause("LIB003", message, sightings, Confidence.LIKELY, subject=listed, alternatives=["LIB001"])
    elif other:
        message = (
            f"{listed} not found: CUDA {', '.join(other)} is on the path, whose libraries have other names"
        )
        yield cause(
            "LIB005",
            message,
            [*sightings, *seen.facts("toolkit-mentioned")],
            Confidence.LIKELY,
            subject=listed,
            alternatives=("LIB001", "LIB003"),
        )
    elif all("cudnn" in name.lower() for name in names):
        if any(re.search(r"cudnn_\w", n) and "_" in n.partition("cudnn")[2] for n in names) and all(
            re.match(r"(?:lib)?cudnn_", n) for n in names
        ):
            message = f"a part of cuDNN is not found: {listed}"
            yield cause(
                "CDN004", message, sightings, Confidence.LIKELY, subject=listed, alternatives=["CDN001"]
            )
            return
        message = f"only cuDNN is missing: {listed} cannot be opened"
        yield cause("CDN001", message, sightings, subject=listed, alternatives=_PLACES)
    elif not here and _only_cudart(names) and seen.has("cudart-missing"):
        message = (
            f"{listed} cannot be opened: TensorFlow finds no CUDA libraries, "
            "which is harmless on a machine without a GPU"
        )
        yield _harmless_without_gpu(message, sightings, listed)
    else:
        message = f"not found: {listed}"
        yield cause("LIB001", message, sightings, subject=listed, alternatives=(*_PLACES, "LIB005"))


def _harmless_without_gpu(message: str, sightings: list[Sighting], subject: str) -> Cause:
    return cause(
        "LIB001",
        message,
        sightings,
        Confidence.POSSIBLE,
        subject=subject,
        alternatives=("GPU001", *_PLACES),
        severity=Severity.NOTE,
    )


def _only_cudart(names: list[str]) -> bool:
    return all("cudart" in name for name in names)


def _other_toolkit(names: list[str], seen: Seen) -> list[str]:
    """The CUDA versions that the log mentions, where none of them has a library of a missing name."""
    mentioned = seen.values("toolkit-mentioned", "cuda")
    windows = [re.fullmatch(r"cudart64_(\d+)(\d)\.dll", name) for name in names]
    wanted = {f"{m[1]}.{m[2]}" for m in windows if m}
    if wanted:
        return [] if any(m in wanted for m in mentioned) else mentioned
    known = [name for name in names if toolkits_with(name)]
    for name in names:
        suffix = name.partition(".so.")[2]
        if not toolkits_with(name) and release_key(suffix) < (10, 1) and suffix.count(".") == 1:
            return [] if suffix in mentioned else mentioned  # up to 10.0 a library has its toolkit's version
    if not known or any(release_key(m)[:2] <= (10, 0) and not toolkits_with(known[0]) for m in mentioned):
        return []
    fitting = set().union(*(set(toolkits_with(name)) for name in known))
    return [] if any(m in fitting for m in mentioned) else mentioned


def _undefined_symbols(seen: Seen) -> Iterator[Cause]:
    for s in seen.facts("undefined-symbol"):
        symbol, version = s.values["symbol"], s.values.get("version", "")
        owner = version or _owner(symbol)
        if not owner:
            continue
        message = (
            f"the {owner} that is found first lacks {symbol}: it is another version than the one built for"
        )
        others = ["PKG009", "PKG011", "LIB011"]
        code = "CDN004" if symbol.startswith("cudnn") or "cudnn" in owner else "LIB004"
        yield cause(code, message, [s], Confidence.LIKELY, subject=owner, alternatives=others)


def _owner(symbol: str) -> str:
    """Which library has a symbol, by the prefix of its name."""
    for prefix, library in (
        ("__nvJitLink", "libnvJitLink"),
        ("nvJitLink", "libnvJitLink"),
        ("__cuda", "libcudart"),
        ("cudnn", "libcudnn"),
        ("cublas", "libcublas"),
        ("cusparse", "libcusparse"),
        ("cusolver", "libcusolver"),
        ("cufft", "libcufft"),
        ("curand", "libcurand"),
        ("cuda", "libcudart"),
        ("nccl", "libnccl"),
        ("nvrtc", "libnvrtc"),
        ("cu", "libcuda"),
    ):
        if symbol.startswith(prefix):
            return library
    return ""


def _jax_libraries(seen: Seen) -> Iterator[Cause]:
    """JAX asks each library for its version: one that fails is absent, or hidden by an older relation."""
    sightings = seen.facts("jax-library")
    if not sightings:
        return
    names = ", ".join(dict.fromkeys(s.values["library"] for s in sightings))
    lowered = names.lower()
    if "cudnn" in lowered and "," not in names:
        others = ["LIB004", "PKG009", "LIB001", "LIB002"]
        yield cause("CDN001", f"JAX cannot load {names}", sightings, Confidence.LIKELY, alternatives=others)
    elif lowered == "cuda":
        message = "JAX cannot load the CUDA runtime library"
        others = ["LIB004", "PKG009", "DRV001"]
        yield cause("LIB001", message, sightings, Confidence.LIKELY, alternatives=others)
    else:
        message = (
            f"JAX cannot load {names}: another copy, or a library that it needs in another version, is first"
        )
        others = ["PKG009", "LIB001"]
        yield cause("LIB004", message, sightings, Confidence.LIKELY, subject=names, alternatives=others)


def _nameless(seen: Seen) -> Iterator[Cause]:
    """From 2.16 on TensorFlow does not name the library."""
    if seen.has("capability-ignored", "driver-mismatch", "cuinit"):
        return
    message = (
        "TensorFlow cannot open some GPU library, and does not say which (from 2.16 on it hides the name)"
    )
    sightings = seen.facts("gpus-skipped")
    yield cause("LIB001", message, sightings, Confidence.LIKELY, alternatives=("LIB002", "LIB003", "CDN001"))


def judge_cudart(seen: Seen) -> Iterator[Cause]:
    """The line of the cudart stub and nothing else: harmless on a machine without a GPU, and said so."""
    if seen.has("cudart-missing") and not seen.has("library-missing", "cuinit", "gpus-skipped"):
        message = (
            "TensorFlow finds no CUDA runtime library (nor says which), "
            "which is harmless on a machine without a GPU"
        )
        if seen.has("device-created"):
            return
        yield _harmless_without_gpu(message, seen.facts("cudart-missing"), "libcudart")
