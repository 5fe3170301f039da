"""What the recordings of trainings show to be wrong, slow or worth a word: findings. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from msgspec.structs import replace

from envdoctor.catalog import Severity, condition
from envdoctor.checks.machine import title
from envdoctor.finding import Evidence, Finding
from envdoctor.validate.comparison import FIRST_LOSS_BAND, CurveComparison, Speedup
from envdoctor.validate.measure import DeviceRow, device_rows
from envdoctor.validate.protocol import AccuracyBound, Begin, FirstStep, Numerics, NumericsRow, only
from envdoctor.validate.recording import Ending, Recording

STDERR_LINES = 4
BUSY = 60  # percent of the time: a GPU that waits for launches is busy for less than half of it
_OF_GPUS = frozenset({"driver", "gpu", "placement"})  # areas of conditions


def deaths(recording: Recording) -> Iterator[Finding]:
    framework, label = recording.job.backend, recording.label
    name = title(framework)
    done = _how_far(recording)
    failure = recording.failure
    last = next((e for e in reversed(recording.events) if isinstance(e, Begin | FirstStep)), None)
    step = "its start" if last is None else last.step if isinstance(last, Begin) else "training"
    if failure is not None:
        code = "VAL002" if failure.kind == "memory" else "VAL001"
        what = "ran out of memory" if failure.kind == "memory" else failure.error.partition("\n")[0]
    elif recording.ending in {Ending.DIED, Ending.NOT_STARTED}:
        code, what = "VAL001", recording.detail
    elif recording.ending is Ending.HUNG:
        code, what = "VAL003", recording.detail
    else:
        return
    cause = _cause(recording, code)
    if cause is not None:
        yield cause
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
        remedy="envdoctor check" if label == "GPU" and cause is None else "",
    )


def _cause(recording: Recording, death: str) -> Finding | None:
    """What `explain` reads in a dead worker's last words, if `death` can follow from it."""
    from envdoctor.explain.explanation import explain  # noqa: PLC0415 - who lives needs no explanation

    raised = f"{recording.failure.trace}\n{recording.failure.error}" if recording.failure else ""
    found = list(explain(f"{recording.stderr}\n{raised}".encode("utf-8", "replace")).findings)
    if not recording.job.device.startswith("gpu"):
        # The doctor hid the GPUs: frameworks complain of that on stderr, and train.
        found = [e for e in found if e.finding.condition.area not in {*_OF_GPUS, "libraries"}]
        of_raised = explain(raised.encode("utf-8", "replace")).findings
        found += [e for e in of_raised if e.finding.condition.area == "libraries"]
    for explained in found:
        finding = explained.finding
        if finding.severity is Severity.ERROR and finding.code in condition(death).follows_from:
            others = [f"{code}, {condition(code).title}" for code in explained.alternatives]
            evidence = (*finding.evidence, *(Evidence("or else", other) for other in others))
            return replace(finding, framework=recording.job.backend, evidence=evidence)
    return None


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


def wrong_device(recording: Recording) -> Iterator[Finding]:
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


def numerics(recording: Recording) -> Iterator[Finding]:
    for compared in only(Numerics, recording.events):
        bad = [row for row in compared.rows if wrong(row)]
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
                Evidence("tensors compared", str(len(compared.rows))),
                Evidence("wrong", ", ".join(row.tensor for row in bad[:8])),
                Evidence("reference", "NumPy, float64, same weights and images"),
            ),
        )


def differing_curves(curves: Sequence[CurveComparison], framework: str) -> Iterator[Finding]:
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


def accuracy(rows: Sequence[DeviceRow], framework: str, bound: AccuracyBound | None) -> Iterator[Finding]:
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


def halved(rows: Sequence[DeviceRow], framework: str) -> Iterator[Finding]:
    for row in rows:
        if row.batch_size != row.asked_batch_size and row.epochs:
            yield Finding(
                code="VAL010",
                subject=row.device,
                framework=framework,
                message=f"a batch of {row.asked_batch_size} does not fit into the memory of the "
                f"{row.device}: {row.batch_size} was trained with",
            )


def slow(
    speedups: Sequence[Speedup],
    rows: Sequence[DeviceRow],
    gate: float | None,
    framework: str,
    *,
    stand_in: bool = False,
) -> Iterator[Finding]:
    """Below the gate; without one, slower than the CPU. What stands in for a GPU says nothing of one."""
    if not speedups or speedups[0].steady is None:
        return
    first = speedups[0]
    assert first.steady is not None
    if gate is not None and first.steady < gate:
        yield Finding(
            code="VAL008",
            subject=first.device,
            framework=framework,
            message=f"{first.device} is {first.steady:.2f} times as fast as the CPU, "
            f"expected {gate:g} times or more (--min-speedup)",
            evidence=tuple(_why_slow(first.device, speedups, rows)),
        )
    elif first.steady < 1 and all(row.complete for row in rows) and not stand_in:
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
    if busy >= BUSY:
        return f"not for want of work, the GPU was busy {busy:.0f} % of the time"
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
            f"from batch {small.batch_size} to {large.batch_size}",
            f"{growth:.1f} times the images per second",
        )
