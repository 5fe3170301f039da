"""cuDNN and cuBLAS that do not start: what a status means depends on the versions and the memory told."""

from __future__ import annotations

from collections.abc import Iterator

from envdoctor.explain.cause import Cause, cause
from envdoctor.explain.seen import Seen
from envdoctor.explain.sightings import Sighting
from envdoctor.explain.signatures import Confidence
from envdoctor.knowledge.loading import release_key

# Statuses of cudnnStatus_t that memory has to do with: when a handle is created, or (9) by their names
_MEMORY = {"INTERNAL_ERROR", "ALLOC_FAILED", "NOT_INITIALIZED", "MAPPING_ERROR", "EXECUTION_FAILED"}
# Of cublasStatus_t and its relations, and TensorFlow's word for a product that was not computed
_CUBLAS = ("NOT_INITIALIZED", "ALLOC_FAILED", "INTERNAL", "EXECUTION_FAILED", "LAUNCH FAILED", "ROUTINE")
_VERSIONS = {"VERSION_MISMATCH", "SUBLIBRARY_VERSION_MISMATCH", "SUBLIBRARY_LOADING_FAILED"}
_CONSEQUENCES = {"CUDNN_STATUS_BAD_PARAM", "CUDNN_STATUS_SUCCESS"}


def judge_handles(seen: Seen) -> Iterator[Cause]:
    versions = list(_versions(seen))
    yield from versions
    statuses = [s for s in seen.facts("cudnn-status") if _tells(s)]
    named = {s.values["status"].upper() for s in statuses}
    if {n for n in named if n.removeprefix("CUDNN_STATUS_") in _VERSIONS}:
        message = (
            f"the parts of cuDNN are of different versions or cannot be loaded ({', '.join(sorted(named))})"
        )
        yield cause("CDN004", message, statuses, alternatives=["LIB004", "CDN001"])
    elif any("ARCH_MISMATCH" in n for n in named):
        yield cause("GPU003", "cuDNN has no code for this GPU (CUDNN_STATUS_ARCH_MISMATCH)", statuses)
    elif any("RUNTIME_PREREQUISITE" in n or "CUBLAS_UNAVAILABLE" in n for n in named):
        yield cause("LIB008", "cuDNN does not find a library that it needs", statuses, Confidence.LIKELY)
    elif any("INCOMPATIBLE_CUDART" in n for n in named):
        yield cause("CDN003", "cuDNN is built for another CUDA", statuses, Confidence.LIKELY)
    elif not versions:
        yield from _no_memory([s for s in statuses if _of_memory(s.values["status"])], seen)
    yield from _cublas(seen)


def _tells(sighting: Sighting) -> bool:
    """Where cuDNN is only asked for its version, a status says no more than that it could not be opened."""
    asked = "determine cuDNN version" in sighting.text
    return not asked and sighting.values["status"].upper() not in _CONSEQUENCES


def _versions(seen: Seen) -> Iterator[Cause]:
    told = seen.facts("cudnn-versions")
    for s in told:
        runtime, built = (_dotted(s.values.get(which, "")) for which in ("runtime", "built"))
        if not runtime or not built:
            continue
        message = f"cuDNN {runtime} is loaded, and the framework was built with {built}"
        if release_key(runtime) < release_key(built):
            yield cause(
                "CDN002", message, _alike(s, told), subject="libcudnn", alternatives=["LIB004", "PKG009"]
            )
        elif release_key(runtime)[0] != release_key(built)[0] or "compatibility version" in s.text:
            # Up to TensorFlow 1.8 (it names a compatibility version) a newer minor version was refused too.
            yield cause(
                "LIB004", message, _alike(s, told), Confidence.LIKELY, alternatives=["CDN003", "PKG009"]
            )
        else:
            continue  # a newer minor version serves
        return


def _alike(one: Sighting, all_of_them: list[Sighting]) -> list[Sighting]:
    return [s for s in all_of_them if s.values == one.values]


def _dotted(version: str) -> str:
    """`8.5.0`, of "8.5.0", "8, 5, 0", 8500 (up to 8) or 90100 (from 9 on: cudnnGetVersion)."""
    parts = [part for part in version.replace(",", ".").replace(" ", "").split(".") if part]
    if len(parts) != 1 or not parts[0].isdigit():
        return ".".join(parts)
    number = int(parts[0][:9])
    if number >= 90000:
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return f"{number // 1000}.{number // 100 % 10}.{number % 100}" if number >= 1000 else str(number)


def _of_memory(status: str) -> bool:
    name = status.upper().removeprefix("CUDNN_STATUS_")
    return name in _MEMORY or "ALLOCATION_FAILED" in name


def _no_memory(statuses: list[Sighting], seen: Seen) -> Iterator[Cause]:
    started = seen.facts("cudnn-not-started")
    if not statuses and not started:
        return
    if seen.has("driver-mismatch", "no-kernel", "library-missing", "capability-ignored", "xla-flag"):
        return
    oom = seen.facts("oom")
    sure = Confidence.CERTAIN if oom else Confidence.LIKELY if statuses else Confidence.POSSIBLE
    what = statuses[0].values["status"] if statuses else "it failed to initialise"
    message = f"cuDNN cannot start ({what}): GPU memory ran out" if oom else f"cuDNN cannot start ({what}), "
    if not oom:
        message += "mostly because the GPU's memory is taken already"
    others = ["CDN002", "GPU006", "GPU015", "PLC006"]
    yield cause("CDN005", message, [*statuses, *started, *oom], sure, alternatives=others)


def _cublas(seen: Seen) -> Iterator[Cause]:
    sightings = [s for s in seen.facts("cublas-status") if "SUCCESS" not in s.values["status"].upper()]
    starting = [
        s for s in sightings if any(w in s.values["status"].upper() for w in _CUBLAS) or "handle" in s.text
    ]
    mismatch = [s for s in sightings if "ARCH_MISMATCH" in s.values["status"].upper()]
    if mismatch:
        yield cause("GPU003", "cuBLAS has no code for this GPU", mismatch, alternatives=["GPU005"])
    elif starting:
        status = starting[0].values["status"]
        library = status.partition("_")[0].lower() if "_STATUS_" in status.upper() else "cublas"
        oom = seen.facts("oom")
        message = f"{library} cannot start ({status})"
        message += ": GPU memory ran out" if oom else ", mostly because the GPU's memory is taken already"
        sure = Confidence.CERTAIN if oom or "ALLOC" in message else Confidence.LIKELY
        yield cause("CDN006", message, [*starting, *oom], sure, alternatives=["GPU006", "GPU015", "LIB004"])
