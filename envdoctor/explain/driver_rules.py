"""What cuInit and the CUDA error numbers say, read with what else the log tells of the driver."""

from __future__ import annotations

from collections.abc import Iterator

from envdoctor.explain.cause import Cause, cause
from envdoctor.explain.cuda_errors import CudaError, cuda_error
from envdoctor.explain.seen import Seen
from envdoctor.explain.sightings import Sighting
from envdoctor.explain.signatures import Confidence

_HIDING = {"", "-1", "none", "void", "NoDevFiles"}


def judge_driver(seen: Seen) -> Iterator[Cause]:
    yield from _mismatch(seen)
    hidden = _hidden(seen)
    failures = _failures(seen)
    absent = seen.facts("kernel-driver-absent")
    no_device = [s for s, error in failures if error.number == 100] + seen.facts("no-device")
    unknown = [s for s, error in failures if error.number == 999]
    no_library = any(error.number == 303 for _, error in failures) or seen.has("driver-not-installed")
    if hidden:
        value = _value(hidden[0])
        message = f'CUDA_VISIBLE_DEVICES is "{value}", which hides every GPU'
        sure = Confidence.CERTAIN if no_device else Confidence.LIKELY
        yield cause("GPU002", message, [*hidden, *no_device], sure, subject="CUDA_VISIBLE_DEVICES")
    if absent and not no_library and not (hidden and no_device):
        yield _not_loaded(absent, seen)
    if no_device and not hidden and not absent:
        message = "the driver finds no device (cuInit 100)"
        others = ["GPU001", "GPU002", "HST005", "DRV002"]
        yield cause("DRV009", message, no_device, Confidence.LIKELY, alternatives=others)
    if unknown:
        yield from _unknown(unknown, seen)
    done = {100, 999}
    for number in dict.fromkeys(error.number for _, error in failures if error.number not in done):
        sightings = [s for s, error in failures if error.number == number]
        error = next(e for _, e in failures if e.number == number)
        if error.condition and error.condition != "kernel":
            yield cause(
                error.condition,
                f"{error.meaning} ({(error.names or ('CUDA',))[0]}, {number})",
                sightings,
                Confidence.LIKELY,
                alternatives=error.alternatives,
            )

    other = [s for s in seen.facts("cuinit") if not _stands_for_something(s)]
    if other and not any(error.condition for _, error in failures) and not hidden and not absent:
        message = "the driver does not start (cuInit fails)"
        yield cause(
            "DRV010", message, other, Confidence.POSSIBLE, alternatives=["DRV009", "DRV002", "DRV003"]
        )


def _stands_for_something(sighting: Sighting) -> bool:
    error = cuda_error(number=sighting.values.get("number", ""), name=sighting.values.get("name", ""))
    return bool(error and error.condition)


def _mismatch(seen: Seen) -> Iterator[Cause]:
    sightings = seen.facts("driver-mismatch")
    versions = {s.values["which"]: s.values["version"] for s in seen.facts("driver-versions")}
    kernel, library = versions.get("kernel", ""), versions.get("libcuda", "")
    for s in sightings:
        kernel, library = s.values.get("kernel", kernel).strip(), s.values.get("library", library)
    if not sightings and (not kernel or not library or _same(kernel, library)):
        return
    told = f": {kernel} and {library}" if kernel and library else ""
    message = f"the kernel module and the driver's libraries are of different versions{told}"
    others = ["HST010"] if seen.has("wsl") or not told else []
    yield cause("DRV003", message, sightings or seen.facts("driver-versions"), alternatives=others)


def _same(one: str, other: str) -> bool:
    """580.142 and 580.142.0 are one version; so are 470.57.2 and 470.57.02."""
    first, second = ([int(part) for part in v.strip(".").split(".")] for v in (one, other))
    length = max(len(first), len(second))
    return first + [0] * (length - len(first)) == second + [0] * (length - len(second))


def _hidden(seen: Seen) -> list[Sighting]:
    return [
        s
        for s in seen.facts("visible-devices")
        if "variable" not in s.values and _value(s).partition(",")[0] in _HIDING
    ]


def _value(sighting: Sighting) -> str:
    return sighting.values.get("value", "").strip("\"',.")


def _failures(seen: Seen) -> list[tuple[Sighting, CudaError]]:
    found = []
    for s in seen.facts("cuinit", "cuda-error"):
        name = s.values.get("name", "")
        error = cuda_error(number=s.values.get("number", ""), name=name, text=s.values.get("text", ""))
        if error:
            found.append((s, error))
    return found


def _not_loaded(absent: list[Sighting], seen: Seen) -> Cause:
    others = ["HST005", "GPU001", "DRV001", "DRV005"]
    message = "the NVIDIA kernel driver is not running (/proc/driver/nvidia/version does not exist)"
    sightings = [*absent, *seen.facts("cuinit")]
    if seen.has("container"):
        message = "this is a container, and the NVIDIA kernel driver is not visible in it"
        return cause("HST005", message, sightings, Confidence.LIKELY, alternatives=["DRV002", "GPU001"])
    return cause("DRV002", message, sightings, Confidence.LIKELY, alternatives=others)


def _unknown(sightings: list[Sighting], seen: Seen) -> Iterator[Cause]:
    if seen.has("kernel-driver-absent"):
        return
    suspended = seen.facts("suspend")
    if suspended:
        message = "cuInit fails with an unknown error (999) after a suspend: reload nvidia_uvm"
        yield cause("DRV011", message, [*suspended, *sightings], Confidence.LIKELY, alternatives=["DRV010"])
        return
    message = "the driver fails with an unknown error (999)"
    others = ["DRV011", "DRV007", "HST007", "DRV002"]
    yield cause("DRV010", message, sightings, Confidence.LIKELY, alternatives=others)
