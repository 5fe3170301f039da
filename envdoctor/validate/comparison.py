"""One device against another: speed, and how the loss falls. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from envdoctor.validate.measure import DeviceRow
from envdoctor.validate.recording import Recording

# How far the losses of two devices may be apart that start from the same weights and take the same batches.
# The first loss is one forward pass: seen 2e-7 apart between frameworks, TF32 keeps 10 bits of the mantissa.
FIRST_LOSS_BAND = 2e-3
# Later rounding grows chaotically. Seen for the reference network on 8,000 digits: two runs with the same
# threads are equal to the last bit; one thread against two, and oneDNN against Eigen, put the five epochs'
# mean losses 0.2, 1, 1, 4 and 4 % apart, by the measure of `difference`. Learning something else is far out.
CURVE_BAND = 0.15
CURVE_FLOOR = 0.1  # a smaller mean loss is a few hard digits, whose order of luck is chance


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


def _first_rows(rows: Sequence[DeviceRow], recordings: Sequence[Recording]) -> list[DeviceRow]:
    """Of each device the row of the first batch size: the training that the network is judged by."""
    found = [next((row for row in rows if row.device == r.label), None) for r in recordings]
    return [row for row in found if row is not None]


def compare_speeds(rows: Sequence[DeviceRow], recordings: Sequence[Recording]) -> Iterator[Speedup]:
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


def compare_losses(rows: Sequence[DeviceRow], recordings: Sequence[Recording]) -> Iterator[CurveComparison]:
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
