"""From the recordings of the trainings to a verdict: pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import pairwise
from typing import Any

from msgspec import Struct

from envdoctor.checks.machine import title
from envdoctor.diagnose import Linked, link
from envdoctor.finding import Evidence, Finding
from envdoctor.validate.measure import DeviceRow, device_rows
from envdoctor.validate.networks import Network, parameters
from envdoctor.validate.protocol import (
    AccuracyBound,
    Activations,
    Begin,
    Data,
    FirstStep,
    Numerics,
    NumericsRow,
    NumpyEpoch,
    StartValues,
    only,
)
from envdoctor.validate.recording import Ending, Recording

# How far the losses of two devices may be apart that start from the same weights and take the same batches.
# The first loss is one forward pass: seen 2e-7 apart between frameworks, TF32 keeps 10 bits of the mantissa.
FIRST_LOSS_BAND = 2e-3
# Later rounding grows chaotically. Seen for the reference network on 8,000 digits: two runs with the same
# threads are equal to the last bit; one thread against two, and oneDNN against Eigen, put the five epochs'
# mean losses 0.2, 1, 1, 4 and 4 % apart, by the measure of `difference`. Learning something else is far out.
CURVE_BAND = 0.15
CURVE_FLOOR = 0.1  # a smaller mean loss is a few hard digits, whose order of luck is chance
STDERR_LINES = 4


class Outcome(Enum):
    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"
    INTERRUPTED = "interrupted"


class Gates(Struct, frozen=True, kw_only=True):
    """What the user demands; None: what belongs to the network and the data, or nothing."""

    min_accuracy: float | None = None
    min_speedup: float | None = None


class Speedup(Struct, frozen=True, kw_only=True):
    """A device over the CPU, with the same batch asked for."""

    device: str
    base: str  # "CPU"
    batch_size: int
    steady: float | None
    steady_min: float | None  # slowest epoch against the CPU's fastest
    steady_max: float | None
    end_to_end: float | None


class CurveComparison(Struct, frozen=True, kw_only=True):
    """Losses of a device against the CPU's: relative differences."""

    device: str
    base: str
    first_step: float
    epochs: tuple[float, ...]
    band: float
    agrees: bool


class NumpyRow(Struct, frozen=True, kw_only=True):
    dtype: str
    epoch_seconds: float
    images: int  # that were timed
    scaled: bool


class Tuning(Struct, frozen=True, kw_only=True):
    """A setting of the thread pools, and what it brought."""

    variables: dict[str, str]
    images_per_s: float | None  # None: it did not come to an end
    best: bool = False


class Result(Struct, frozen=True, kw_only=True):
    outcome: Outcome
    backend: str
    network: Network
    parameters: int
    batch_sizes: tuple[int, ...]
    epochs: int
    data: dict[str, Any] | None  # ed_data.DataSet.description; None: it was not read
    bound: AccuracyBound | None  # by which the accuracy was judged
    devices: tuple[DeviceRow, ...]
    speedups: tuple[Speedup, ...]
    numerics: tuple[Numerics, ...]
    curves: tuple[CurveComparison, ...]
    numpy: tuple[NumpyRow, ...]
    threads: tuple[Tuning, ...]
    notes: tuple[str, ...]
    undecided: tuple[str, ...]  # what was asked for and could not be judged
    findings: tuple[Linked, ...]
    activations: Activations | None
    stand_in: bool  # a second logical CPU device stood in for an accelerator

    @property
    def passed(self) -> bool:
        return self.outcome is Outcome.PASSED


def judge(
    network: Network,
    recordings: Sequence[Recording],
    gates: Gates,
    *,
    threads: tuple[Tuning, ...] = (),
    notes: tuple[str, ...] = (),
    interrupted: bool = False,
) -> Result:
    """Everything that the recordings show. The last of `recordings` is the one compared with: the CPU's."""
    job = recordings[0].job
    rows = tuple(row for recording in recordings for row in device_rows(recording))
    data = next((found[0] for r in recordings if (found := only(Data, r.events))), None)
    bound = _bound(gates, data)
    speedups = tuple(_speedups(rows, recordings))
    curves = tuple(_curves(rows, recordings))
    interrupted = interrupted or any(r.ending is Ending.INTERRUPTED for r in recordings)
    findings = link(
        [
            *(f for r in recordings for f in _deaths(r)),
            *(f for r in recordings for f in _wrong_device(r)),
            *(f for r in recordings for f in _numerics(r)),
            *_differing_curves(curves, job.backend),
            *_accuracy(rows, job.backend, bound),
            *_halved(rows, job.backend),
            *_slow(speedups, rows, gates, job.backend),
        ]
    )
    undecided = () if interrupted else tuple(_undecided(recordings, rows, speedups, gates))
    failed = any(linked.finding.severity.value == "error" for linked in findings)
    outcome = (
        Outcome.INTERRUPTED
        if interrupted
        else Outcome.FAILED
        if failed
        else Outcome.UNDECIDED
        if undecided
        else Outcome.PASSED
    )
    return Result(
        outcome=outcome,
        backend=job.backend,
        network=network,
        parameters=parameters(network),
        batch_sizes=job.batch_sizes,
        epochs=job.epochs,
        data=data.description if data else None,
        bound=bound,
        devices=rows,
        speedups=speedups,
        numerics=tuple(n for r in recordings for n in only(Numerics, r.events)),
        curves=curves,
        numpy=tuple(
            NumpyRow(dtype=n.dtype, epoch_seconds=n.epoch_seconds, images=n.images, scaled=not n.complete)
            for r in recordings
            for n in only(NumpyEpoch, r.events)
        ),
        threads=threads,
        notes=(*notes, *_notes(rows, bound, data)),
        undecided=undecided,
        findings=findings,
        activations=next((a for r in recordings for a in only(Activations, r.events)), None),
        stand_in=any(r.job.logical_cpus for r in recordings),
    )


def _bound(gates: Gates, data: Data | None) -> AccuracyBound | None:
    if gates.min_accuracy is not None:
        return AccuracyBound(minimum=gates.min_accuracy, why="--min-accuracy")
    return data.bound if data else None


def _first_rows(rows: Sequence[DeviceRow], recordings: Sequence[Recording]) -> list[DeviceRow]:
    """Of each device the row of the first batch size: the training that the network is judged by."""
    found = [next((row for row in rows if row.device == r.label), None) for r in recordings]
    return [row for row in found if row is not None]


def _speedups(rows: Sequence[DeviceRow], recordings: Sequence[Recording]) -> Iterator[Speedup]:
    base = recordings[-1].label
    cpu = {row.asked_batch_size: row for row in rows if row.device == base}
    for row in rows:
        other = cpu.get(row.asked_batch_size)
        if row.device == base or other is None:
            continue
        yield Speedup(
            device=row.device,
            base=base,
            batch_size=row.asked_batch_size,
            steady=_ratio(row.images_per_s, other.images_per_s),
            steady_min=_ratio(row.images_per_s_min, other.images_per_s_max),
            steady_max=_ratio(row.images_per_s_max, other.images_per_s_min),
            end_to_end=_ratio(other.end_to_end_s, row.end_to_end_s),
        )


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _curves(rows: Sequence[DeviceRow], recordings: Sequence[Recording]) -> Iterator[CurveComparison]:
    first = _first_rows(rows, recordings)
    if len(first) < 2:
        return
    *others, cpu = first
    for row in others:
        if row.batch_size != cpu.batch_size or not row.curve or not cpu.curve:
            continue  # a halved batch takes other steps
        epochs = tuple(
            difference(mine.loss, its.loss) for mine, its in zip(row.epochs, cpu.epochs, strict=False)
        )
        start = difference(row.curve[0][1], cpu.curve[0][1])
        yield CurveComparison(
            device=row.device,
            base=cpu.device,
            first_step=start,
            epochs=epochs,
            band=CURVE_BAND,
            agrees=start <= FIRST_LOSS_BAND and all(one <= CURVE_BAND for one in epochs),
        )


def difference(a: float | None, b: float | None) -> float:
    """Relative difference of two losses, at most 1; two that are not finite agree in that."""
    if a is None or b is None:
        return float(a is not b)
    return abs(a - b) / max(abs(a), abs(b), CURVE_FLOOR)


def _deaths(recording: Recording) -> Iterator[Finding]:
    framework, label = recording.job.backend, recording.label
    name = title(framework)
    done = _how_far(recording)
    failure = recording.failure
    step = next((e.step for e in reversed(recording.events) if isinstance(e, Begin)), "its start")
    if failure is not None:
        code = "VAL002" if failure.kind == "memory" else "VAL001"
        what = "ran out of memory" if failure.kind == "memory" else failure.error.partition("\n")[0]
    elif recording.ending in {Ending.DIED, Ending.NOT_STARTED}:
        code, what = "VAL001", recording.detail
    elif recording.ending is Ending.HUNG:
        code, what = "VAL003", recording.detail
    else:
        return
    yield Finding(
        code=code,
        subject=label,
        framework=framework,
        message=f"{name} on the {label}: {what} ({done or step})",
        evidence=(
            Evidence("while", step),
            *((Evidence("before that", done),) if done else ()),
            *(Evidence("raised in" if failure else "stderr", line) for line in last_lines(recording)),
        ),
        remedy="envdoctor check" if label == "GPU" else "",
    )


def _how_far(recording: Recording) -> str:
    """How much of the training was done; "" where it had not begun."""
    rows = [row for row in device_rows(recording) if row.epochs]
    if not rows:
        return "in the first epoch" if only(FirstStep, recording.events) else ""
    row = rows[-1]
    loss = row.epochs[-1].loss
    text = f"after {len(row.epochs)} of {recording.job.epochs} epochs"
    return text + (f", loss {loss:.4f}" if loss is not None else ", loss not finite")


def last_lines(recording: Recording) -> list[str]:
    """Where an exception came from; of who died without a word, what stderr ends with."""
    failure = recording.failure
    text = failure.trace if failure is not None else recording.stderr
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if failure is not None:
        return [line for line in lines if line.startswith("File ")][-1:]
    return [line[:300] for line in lines[-STDERR_LINES:]]


def _wrong_device(recording: Recording) -> Iterator[Finding]:
    wanted = "GPU" if recording.job.device.startswith("gpu") else recording.job.device.upper()
    for row in device_rows(recording):
        for what, where in (("the trained weights", row.weights_on), ("a layer's output", row.output_on)):
            if where and not where.startswith(wanted):
                yield Finding(
                    code="VAL004",
                    subject=recording.label,
                    framework=recording.job.backend,
                    message=f"{what} of the training on the {recording.label} are on {where}",
                    evidence=(Evidence("asked for", wanted), Evidence(what, where)),
                )


def wrong(row: NumericsRow) -> bool:
    return row.error is None or row.error > row.bound


def _numerics(recording: Recording) -> Iterator[Finding]:
    for numerics in only(Numerics, recording.events):
        bad = [row for row in numerics.rows if wrong(row)]
        if not bad:
            continue
        first = bad[0]
        size = "is not finite" if first.error is None else f"is {first.error:.2g} off"
        yield Finding(
            code="VAL005",
            subject=first.layer or first.tensor,
            framework=recording.job.backend,
            message=f"{first.layer or first.tensor} is the first that is wrong on {first.device}: "
            f"{first.tensor} {size} (bound {first.bound:.0e}, {first.precision})",
            evidence=(
                Evidence("tensors compared", str(len(numerics.rows))),
                Evidence("wrong", ", ".join(row.tensor for row in bad[:8])),
                Evidence("reference", "NumPy, float64, same weights and images"),
            ),
        )


def _differing_curves(curves: Sequence[CurveComparison], framework: str) -> Iterator[Finding]:
    for curve in curves:
        if curve.agrees:
            continue
        at_start = curve.first_step > FIRST_LOSS_BAND
        worst = max(curve.epochs, default=0.0)
        yield Finding(
            code="VAL007",
            subject=curve.device,
            framework=framework,
            message=f"the losses of {curve.device} and {curve.base} differ "
            + (
                f"from the first step on: by {curve.first_step:.2%} (band {FIRST_LOSS_BAND:.1%})"
                if at_start
                else f"by {worst:.0%} of an epoch's mean (band {curve.band:.0%})"
            ),
            evidence=tuple(
                Evidence(f"epoch {number}", f"{value:.2%}") for number, value in enumerate(curve.epochs, 1)
            ),
        )


def _accuracy(rows: Sequence[DeviceRow], framework: str, bound: AccuracyBound | None) -> Iterator[Finding]:
    if bound is None:
        return
    seen = set()
    for row in rows:
        if row.device in seen or row.test_accuracy is None:
            continue
        seen.add(row.device)
        if row.test_accuracy < bound.minimum:
            yield Finding(
                code="VAL006",
                subject=row.device,
                framework=framework,
                message=f"the {row.device} reaches {row.test_accuracy:.2%} on the test set, "
                f"expected {bound.minimum:.2%} or more",
                evidence=(Evidence("the bound rests on", bound.why),),
            )


def _halved(rows: Sequence[DeviceRow], framework: str) -> Iterator[Finding]:
    for row in rows:
        if row.batch_size != row.asked_batch_size:
            yield Finding(
                code="VAL010",
                subject=row.device,
                framework=framework,
                message=f"a batch of {row.asked_batch_size} does not fit into the memory of the "
                f"{row.device}: {row.batch_size} was trained with",
            )


def _slow(
    speedups: Sequence[Speedup], rows: Sequence[DeviceRow], gates: Gates, framework: str
) -> Iterator[Finding]:
    if not speedups or speedups[0].steady is None:
        return
    first = speedups[0]
    assert first.steady is not None
    gate = gates.min_speedup
    if gate is not None and first.steady < gate:
        yield Finding(
            code="VAL008",
            subject=first.device,
            framework=framework,
            message=f"{first.device} is {first.steady:.2f} times as fast as the CPU, "
            f"expected {gate:g} times or more (--min-speedup)",
            evidence=tuple(_why_slow(first.device, speedups, rows)),
        )
    elif first.steady < 1 and all(row.complete for row in rows):
        yield Finding(
            code="VAL009",
            subject=first.device,
            framework=framework,
            message=f"{first.device} is {first.steady:.2f} times as fast as the CPU with batches of "
            f"{first.batch_size}: {_launch_bound(first.device, rows)}",
        )


def _launch_bound(device: str, rows: Sequence[DeviceRow]) -> str:
    row = next(row for row in rows if row.device == device)
    busy = row.telemetry.utilisation
    if busy is None:
        return "so small a network mostly waits for kernels to be launched"
    return f"launch-bound, the GPU was busy {busy:.0f} % of the time"


def _why_slow(device: str, speedups: Sequence[Speedup], rows: Sequence[DeviceRow]) -> Iterator[Evidence]:
    yield Evidence("the GPU", _launch_bound(device, rows))
    for speedup in speedups:
        if speedup.device == device and speedup.steady is not None:
            yield Evidence(f"batch {speedup.batch_size}", f"{speedup.steady:.2f} times")
    mine = [row for row in rows if row.device == device and row.images_per_s]
    for small, large in pairwise(mine):
        assert small.images_per_s is not None
        assert large.images_per_s is not None
        growth = large.images_per_s / small.images_per_s
        yield Evidence(
            f"batch {small.batch_size} → {large.batch_size}", f"{growth:.1f} times the images per second"
        )


def _undecided(
    recordings: Sequence[Recording],
    rows: Sequence[DeviceRow],
    speedups: Sequence[Speedup],
    gates: Gates,
) -> Iterator[str]:
    values = {(v.weights, v.data) for r in recordings for v in only(StartValues, r.events)}
    if len(values) > 1:
        yield "the devices did not start from the same weights and data"
    if gates.min_speedup is not None and not any(s.steady is not None for s in speedups):
        yield f"--min-speedup {gates.min_speedup:g}: no training on a GPU to compare with the CPU's"
    if gates.min_accuracy is not None and not any(row.test_accuracy is not None for row in rows):
        yield f"--min-accuracy {gates.min_accuracy:g}: nothing was tested"


def _notes(rows: Sequence[DeviceRow], bound: AccuracyBound | None, data: Data | None) -> Iterator[str]:
    if bound is None and data is not None and any(row.test_accuracy is not None for row in rows):
        yield "no accuracy is known that this network must reach on these data with these options: not judged"
    if any(len(row.epochs) == 1 for row in rows):
        yield "one epoch: images/s are those of its steps after the first"
