"""From the events of a training to its figures: pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from msgspec import Struct

from envdoctor.facts.unavailable import Unavailable
from envdoctor.validate.protocol import (
    BUILDING,
    Begin,
    Built,
    Epoch,
    Evaluated,
    Event,
    FirstStep,
    Halved,
    Placed,
    Ready,
    only,
)
from envdoctor.validate.recording import Ending, GpuSample, Recording


class EpochRow(Struct, frozen=True, kw_only=True):
    seconds: float
    images_per_s: float
    loss: float | None
    accuracy: float


class Telemetry(Struct, frozen=True, kw_only=True):
    """NVML beside the training: figures of the steady epochs, and every sample since the worker's start."""

    reason: str = ""  # why there is none
    gpu: int | None = None  # NVML's number of the GPU whose memory grew most
    utilisation: float | None = None  # percent of the time in which a kernel ran, median
    memory_bytes: int | None = None  # most
    power_w: float | None = None  # median
    temperature_c: int | None = None  # most
    samples: tuple[dict[str, Any], ...] = ()


class DeviceRow(Struct, frozen=True, kw_only=True):
    """One device with one batch size. None: it did not come so far."""

    device: str  # "GPU", "CPU"
    device_name: str  # the hardware's; "" where the framework does not say
    framework: str  # its version
    keras: str
    batch_size: int
    asked_batch_size: int
    images_per_s: float | None  # median of the whole epochs after the first
    images_per_s_min: float | None
    images_per_s_max: float | None
    import_s: float | None
    first_step_s: float | None
    train_s: float  # from the call of fit() to the end of the last epoch
    end_to_end_s: float | None  # from the interpreter's start to the test's end
    test_accuracy: float | None
    test_loss: float | None
    epochs: tuple[EpochRow, ...]
    curve: tuple[tuple[int, float | None], ...]  # (step, mean loss since the point before)
    weights_on: str  # "GPU:0"; "" where it was not seen
    output_on: str
    peak_memory_bytes: int | None
    gpu_peak_memory_bytes: int | None  # as the framework counts it
    telemetry: Telemetry
    complete: bool
    ended: str = ""  # how, where it is not complete


def device_rows(recording: Recording) -> tuple[DeviceRow, ...]:
    """A row for each batch size that was begun."""
    asked = list(recording.job.batch_sizes)
    attempts = _attempts(recording.events)
    rows: list[DeviceRow] = []
    for index, events in enumerate(attempts):
        again = index + 1 < len(attempts) and bool(only(Halved, events))
        if not again:  # a halved batch is another attempt at the same row
            rows.append(_row(recording, events, asked[len(rows)]))
    return tuple(rows)


def _attempts(events: Sequence[Event]) -> list[list[Event]]:
    """The events from one building of the network to the next."""
    found: list[list[Event]] = []
    for event in events:
        if isinstance(event, Begin) and event.step == BUILDING:
            found.append([])
        if found:
            found[-1].append(event)
    return found


def _row(recording: Recording, events: list[Event], asked: int) -> DeviceRow:
    ready = next(iter(only(Ready, recording.events)), None)
    built = next(iter(only(Built, events)), None)
    first = next(iter(only(FirstStep, events)), None)
    epochs = only(Epoch, events)
    tested = next(iter(only(Evaluated, events)), None)
    placed = next(iter(only(Placed, events)), None)
    rates = steady_rates(epochs, first, built.batch_size if built else asked)
    prepared = _attempts(recording.events)[0][0].at - recording.started  # what all batch sizes share
    return DeviceRow(
        device=recording.label,
        device_name=ready.device_name if ready else "",
        framework=ready.framework if ready else "",
        keras=ready.keras if ready else "",
        batch_size=built.batch_size if built else asked,
        asked_batch_size=asked,
        images_per_s=median(rates) if rates else None,
        images_per_s_min=min(rates, default=None),
        images_per_s_max=max(rates, default=None),
        import_s=ready.import_seconds if ready else None,
        first_step_s=first.seconds if first else None,
        train_s=epochs[-1].at - (first.at - first.seconds) if epochs and first else 0.0,
        end_to_end_s=prepared + tested.at - events[0].at if tested else None,
        test_accuracy=tested.accuracy if tested else None,
        test_loss=tested.loss if tested else None,
        epochs=tuple(
            EpochRow(seconds=e.seconds, images_per_s=e.images / e.seconds, loss=e.loss, accuracy=e.accuracy)
            for e in epochs
        ),
        curve=tuple(point for e in epochs for point in e.curve),
        weights_on=placed.weights if placed else "",
        output_on=placed.output if placed else "",
        peak_memory_bytes=placed.peak_bytes if placed else None,
        gpu_peak_memory_bytes=placed.gpu_peak_bytes if placed else None,
        telemetry=telemetry(recording, epochs),
        complete=placed is not None,
        ended="" if placed else _ended(recording),
    )


def steady_rates(epochs: Sequence[Epoch], first: FirstStep | None, batch_size: int) -> list[float]:
    """Images per second of the whole epochs after the first; of one epoch alone, without its first step."""
    if len(epochs) > 1:
        return [e.images / e.seconds for e in epochs[1:]]
    if not epochs or first is None:
        return []
    images, seconds = epochs[0].images - batch_size, epochs[0].seconds - first.seconds
    return [images / seconds] if images > 0 and seconds > 0 else []


def _ended(recording: Recording) -> str:
    failure = recording.failure
    if failure is not None:
        return failure.error
    return "" if recording.ending is Ending.DONE else recording.detail


def telemetry(recording: Recording, epochs: Sequence[Epoch]) -> Telemetry:
    """Of the GPU whose memory grew most: NVML's numbers need not be the framework's."""
    if isinstance(recording.telemetry, Unavailable):
        return Telemetry(reason=recording.telemetry.reason)
    by_gpu: dict[int, list[GpuSample]] = {}
    for sample in recording.telemetry:
        by_gpu.setdefault(sample.index, []).append(sample)
    gpu = max(by_gpu, key=lambda index: _growth(by_gpu[index]))
    samples = by_gpu[gpu]
    begin, end = (epochs[0].at, epochs[-1].at) if len(epochs) > 1 else (recording.started, float("inf"))
    steady = [s for s in samples if begin <= s.at <= end] or samples
    return Telemetry(
        gpu=gpu,
        utilisation=_of(median, [s.utilisation for s in steady]),
        memory_bytes=_of(max, [s.memory_bytes for s in samples]),
        power_w=_of(median, [s.power_w for s in steady]),
        temperature_c=_of(max, [s.temperature_c for s in samples]),
        samples=tuple(
            {
                "s": round(s.at - recording.started, 2),
                "utilisation": s.utilisation,
                "memory_bytes": s.memory_bytes,
                "power_w": s.power_w,
                "temperature_c": s.temperature_c,
            }
            for s in samples
        ),
    )


def _growth(samples: list[GpuSample]) -> int:
    used = [s.memory_bytes for s in samples if s.memory_bytes is not None]
    return max(used) - used[0] if used else 0


def _of(function: Any, values: Sequence[float | None]) -> Any:
    known = [value for value in values if value is not None]
    return function(known) if known else None
