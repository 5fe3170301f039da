"""What the log says of the GPU itself: its capability, its memory, its faults."""

from __future__ import annotations

from collections.abc import Iterator

from envdoctor.catalog import Severity
from envdoctor.explain.cause import Cause, cause
from envdoctor.explain.seen import Seen
from envdoctor.explain.sightings import Sighting
from envdoctor.explain.signatures import Confidence
from envdoctor.knowledge.loading import release_key

NEW = (10, 0)  # Blackwell: no framework build before 2025 has code for it
OLD = (5, 0)  # below Maxwell: dropped by CUDA 12
# NVIDIA's Xid catalogue, by the recovery it asks for: a reset or a new card; what the memory has; links,
# which say whether it is fatal; 154 sums up what the others ask for. The rest comes from programs.
XID_FAULTS = {46, 48, 61, 62, 64, 74, 79, 95, 109, 110, 119, 120, 136, 140, 143, 158, 167, 169}
XID_MEMORY = {48, 63, 64, 92, 94, 156, 157, 171, 172}
XID_LINKS = {*range(144, 151), 155}
XID_RECOVERY = 154


def judge_gpu(seen: Seen) -> Iterator[Cause]:
    yield from _capability(seen)
    yield from _torch_capability(seen)
    yield from _xid(seen)
    yield from _memory(seen)


def _capability(seen: Seen) -> Iterator[Cause]:
    ignored = seen.facts("capability-ignored")
    if ignored:
        have, need = ignored[0].values["have"], ignored[0].values["need"]
        message = f"the GPU has compute capability {have}, and this build needs at least {need}"
        yield cause("GPU003", message, ignored)
    jit, kernel = seen.facts("jit-from-ptx"), seen.facts("no-kernel")
    if kernel and not seen.has("torch-capability"):
        have = _capabilities(seen)
        named = f" (compute capability {have})" if have else ""
        if have and release_key(have) < OLD:
            message = f"this build has no code for so old a GPU{named}"
            yield cause("GPU003", message, kernel, Confidence.LIKELY, alternatives=["GPU005"])
        else:
            sure = Confidence.LIKELY if have and release_key(have) >= NEW else Confidence.POSSIBLE
            message = f"this build has no code that runs on this GPU{named}"
            yield cause("GPU005", message, [*kernel, *jit], sure, alternatives=["GPU003", "DRV004"])
    if jit:
        have = next((s.values["have"] for s in jit if "have" in s.values), "")
        gpu = f"compute capability {have}" if have else "this GPU"
        message = f"this build has no binary for {gpu}: kernels are compiled at first use"
        yield cause("GPU004", message, jit, alternatives=["GPU005"])


def _capabilities(seen: Seen) -> str:
    """The capability that the log names; "" where it names none, or several."""
    named = [
        "12.0" if "blackwell" in s.values else s.values["have"]
        for s in seen.facts("capability", "jit-from-ptx", "no-kernel")
        if "have" in s.values or "blackwell" in s.values
    ]
    dotted = {n.rstrip("abf") if "." in n else f"{n[:-1]}.{n[-1]}" for n in named}
    return dotted.pop() if len(dotted) == 1 else ""


def _torch_capability(seen: Seen) -> Iterator[Cause]:
    sightings = seen.facts("torch-capability")
    if not sightings:
        return
    have = next((s.values["have"] for s in sightings if "have" in s.values), "") or _capabilities(seen)
    if not have:
        message = "this PyTorch build does not support the GPU's compute capability"
        yield cause("GPU005", message, sightings, Confidence.POSSIBLE, alternatives=["GPU003"])
        return
    dotted = have if "." in have else f"{have[:-1]}.{have[-1]}"
    built = [w.partition("_")[2].rstrip("abf") for s in sightings for w in s.values.get("list", "").split()]
    numbers = [(int(b[:-1]), int(b[-1])) for b in built if b[1:].isdigit()]
    low = min(numbers, default=(7, 0))
    if release_key(dotted) < low:
        message = f"the GPU has compute capability {dotted}, older than this PyTorch build supports"
        yield cause("GPU003", message, sightings)
    else:
        message = f"the GPU has compute capability {dotted}, newer than this PyTorch build supports"
        yield cause("GPU005", message, sightings)


def _xid(seen: Seen) -> Iterator[Cause]:
    for code, numbers, meaning in (
        ("GPU007", XID_FAULTS, "a hardware fault, or a GPU out of service until a reset"),
        ("GPU010", XID_MEMORY - XID_FAULTS, "an error of the GPU's memory"),
    ):
        found = [s for s in seen.facts("xid") if _number(s) in numbers or (code == "GPU007" and _lasting(s))]
        if found:
            named = ", ".join(dict.fromkeys(f"Xid {_number(s)}" for s in found))
            memory = any(_number(s) in XID_MEMORY for s in found)
            others = ["GPU010"] if memory and code == "GPU007" else []
            yield cause(code, f"the kernel log has {named}: {meaning}", found, alternatives=others)


def _number(sighting: Sighting) -> int:
    return int(sighting.values["xid"][:6])


def _lasting(sighting: Sighting) -> bool:
    """Of those that tell it in words: a link that is down, or an action that the driver waits for."""
    text = sighting.text.lower()
    if _number(sighting) == XID_RECOVERY:
        return "(none)" not in text.rpartition(" to ")[2]
    return _number(sighting) in XID_LINKS and " fatal" in text


def _memory(seen: Seen) -> Iterator[Cause]:
    """Out of memory: by another process, by a library's handle, or by the model itself."""
    oom = seen.facts("oom")
    handles = [*seen.facts("cudnn-status"), *seen.facts("cublas-status")]
    if not oom:
        return
    held = _held_by_others(seen) or ([] if handles else _pool_refused(seen))
    if handles and not held and not seen.has("tensor-refused"):
        return  # the memory is told of where the handle is
    if held:
        message = "GPU memory ran out, and most of it is held by another process"
        yield cause("GPU006", message, [*held, *oom], Confidence.LIKELY, severity=Severity.ERROR)
    size = next((s.values["size"] for s in oom if "size" in s.values), "")
    message = f"GPU memory ran out{f' when {size} more were asked for' if size else ''}"
    yield cause("GPU015", message, oom, Confidence.LIKELY, alternatives=["GPU006", "PLC006"])


def _pool_refused(seen: Seen) -> list[Sighting]:
    """TensorFlow asks for the memory that was free a moment ago, then for less and less of it."""
    refused = seen.facts("pool-refused")
    shrinking = len({s.values["size"] for s in refused}) > 1
    return refused if shrinking and not seen.has("tensor-refused") else []


def _held_by_others(seen: Seen) -> list[Sighting]:
    """Lines that show little free memory before this process took any, or another process with much of it.

    A device that TensorFlow creates gets nearly all memory that is free: under 1 GiB of it the rest is taken.
    """
    found = [s for s in seen.facts("device-created") if "mb" in s.values and int(s.values["mb"][:9]) < 1024]
    for s in seen.facts("oom-others"):
        v = s.values
        total, mine, free = (
            _mebibytes(v, a, u) for a, u in (("total", "tu"), ("mine", "mu"), ("free", "fu"))
        )
        used = _mebibytes(v, "used", "uu")
        apart = (
            total - mine - free if total and "mine" in v else total - free if "freeMemory" in s.text else 0
        )
        if (used and used > 1024) or (total and apart > total / 2):
            found.append(s)
    return found


def _mebibytes(values: object, amount: str, unit: str) -> float:
    assert isinstance(values, dict)
    try:
        number = float(values.get(amount, "0"))
    except ValueError:
        return 0.0
    return number * {"gib": 1024, "mib": 1, "kib": 1 / 1024}.get(values.get(unit, "").lower(), 1 / 2**20)
