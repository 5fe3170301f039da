"""From the recordings of the trainings to a verdict: pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

from msgspec import Struct

from envdoctor.diagnose import Linked, link
from envdoctor.validate import findings
from envdoctor.validate.comparison import CurveComparison, Speedup, compare_losses, compare_speeds
from envdoctor.validate.measure import DeviceRow, device_rows
from envdoctor.validate.networks import Network, parameters
from envdoctor.validate.protocol import (
    AccuracyBound,
    Activations,
    Data,
    Numerics,
    NumpyEpoch,
    StartValues,
    only,
)
from envdoctor.validate.recording import Ending, Recording


class Outcome(Enum):
    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"
    INTERRUPTED = "interrupted"


class Gates(Struct, frozen=True, kw_only=True):
    """What the user demands; None: what belongs to the network and the data, or nothing."""

    min_accuracy: float | None = None
    min_speedup: float | None = None


class NumpyRow(Struct, frozen=True, kw_only=True):
    dtype: str
    epoch_seconds: float
    images: int  # that were timed
    scaled: bool


class Tuning(Struct, frozen=True, kw_only=True):
    """A setting of the thread pools, and what it brought."""

    variables: dict[str, str]
    images_per_s: float | None  # median of the steady epochs; None: it did not come to an end
    images_per_s_min: float | None = None
    images_per_s_max: float | None = None
    chosen: bool = False  # the fastest; of those within 3 % of it, the one with the fewest threads
    best: bool = False  # and faster than every other by more than epochs differ


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
) -> Result:
    """Everything that the recordings show. The last of `recordings` is the one compared with: the CPU's."""
    job = recordings[0].job
    rows = tuple(row for recording in recordings for row in device_rows(recording))
    data = next((found[0] for r in recordings if (found := only(Data, r.events))), None)
    bound = _bound(gates, data)
    speedups = tuple(compare_speeds(rows, recordings))
    curves = tuple(compare_losses(rows, recordings))
    interrupted = any(r.ending is Ending.INTERRUPTED for r in recordings)
    stand_in = any(r.job.logical_cpus for r in recordings)
    linked = link(
        [
            *(f for r in recordings for f in findings.deaths(r)),
            *(f for r in recordings for f in findings.wrong_device(r)),
            *(f for r in recordings for f in findings.numerics(r)),
            *findings.differing_curves(curves, job.backend),
            *findings.accuracy(rows, job.backend, bound),
            *findings.halved(rows, job.backend),
            *findings.slow(speedups, rows, gates.min_speedup, job.backend, stand_in=stand_in),
        ]
    )
    undecided = () if interrupted else tuple(_undecided(recordings, rows, speedups, gates))
    failed = any(one.finding.severity.value == "error" for one in linked)
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
        findings=linked,
        activations=next((a for r in recordings for a in only(Activations, r.events)), None),
        stand_in=stand_in,
    )


def _bound(gates: Gates, data: Data | None) -> AccuracyBound | None:
    if gates.min_accuracy is not None:
        return AccuracyBound(minimum=gates.min_accuracy, why="--min-accuracy")
    return data.bound if data else None


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
    if data is not None and data.description.get("tried"):
        yield f"tried before these data: {'; '.join(data.description['tried'])}"
    if bound is None and data is not None and any(row.test_accuracy is not None for row in rows):
        yield "no accuracy is known that this network must reach on these data with these options: not judged"
    if any(len(row.epochs) == 1 for row in rows):
        yield "one epoch: images/s are those of its steps after the first"
    samples = data.description.get("train") if data is not None else None
    large = [row.batch_size for row in rows if samples is not None and row.batch_size > samples]
    if large:
        yield f"a batch of {large[0]:,} is more than the {samples:,} training samples: an epoch is one step"
