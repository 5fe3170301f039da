"""The charts of the HTML report, drawn by Matplotlib as SVG that takes its colours from the page."""

from __future__ import annotations

import base64
import io
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import Struct

from envdoctor.validate.measure import DeviceRow
from envdoctor.validate.protocol import AccuracyBound

# Matplotlib knows no CSS: these stand for the page's variables and are replaced in its SVG.
_INK, _LINE = "#0a0b0c", "#0d0e0f"
_SERIES = ("#010101", "#020202", "#030303", "#040404")
_VARIABLES = {
    _INK: "var(--ink-soft)",
    _LINE: "var(--line)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(_SERIES, 1)},
}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and scales with the page
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "text.color": _INK,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.solid_capstyle": "round",
}
_DASHES = ("-", "--", ":", "-.")  # one for each batch size
_MARKERS = ("o", "s", "^", "D")  # one for each device: not by the colour alone
_MANY_BARS = 40
_DENSE = 100  # points, from which a broad line would hide the curve
_NOT_OURS = re.compile(
    r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", re.DOTALL
)
_NAMES = re.compile(r' id="[A-Za-z][A-Za-z0-9.]*_\d+"')  # of groups: the same in every chart
_SIZE = re.compile(r' (?:width|height)="[\d.]+pt"')
_NAMESPACES = re.compile(r' xmlns(?::\w+)?="[^"]*"')


class Line(Struct, frozen=True, kw_only=True):
    """How a row is drawn, in every chart alike: colour and marker by its device, dashes by its batch size."""

    row: DeviceRow
    name: str
    colour: str
    dashes: str
    marker: str
    width: float  # the first device's lies broad beneath the others': curves that agree are both seen


def load_matplotlib() -> None:
    """Without the user's backend, which may not exist here, and without its remarks on stderr."""
    os.environ["MPLBACKEND"] = "agg"
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib.figure  # noqa: PLC0415
    import matplotlib.image  # noqa: PLC0415, F401
    from matplotlib.backends import backend_agg, backend_svg  # noqa: PLC0415, F401


def loss_by_step(rows: Sequence[DeviceRow]) -> str:
    """Nothing ("") where no loss was finite; likewise of the other charts where there is nothing to draw."""
    return _curves(
        rows,
        "Loss by step",
        "step (mean since the point before)",
        lambda row: [(step, loss) for step, loss in row.curve],
        logarithmic=True,
        markers=False,
    )


def loss_by_epoch(rows: Sequence[DeviceRow]) -> str:
    return _curves(
        rows,
        "Loss by epoch",
        "epoch",
        lambda row: [(number, epoch.loss) for number, epoch in enumerate(row.epochs, 1)],
        logarithmic=True,
    )


def accuracy_by_epoch(rows: Sequence[DeviceRow], bound: AccuracyBound | None) -> str:
    """In training; at the end, hollow, that of the test, with the bound that it must reach."""

    def more(axes: Any, lines: list[Line]) -> None:
        for one in lines:
            if one.row.test_accuracy is not None and one.row.epochs:
                at, size = [len(one.row.epochs)], 8 + one.width
                axes.plot(
                    at,
                    [one.row.test_accuracy],
                    one.marker,
                    ms=size,
                    mfc="none",
                    mec=one.colour,
                    clip_on=False,
                )
        if bound is not None:
            axes.axhline(bound.minimum, color=_INK, linewidth=1, dashes=(4, 3))
            axes.annotate(
                f"bound {bound.minimum:.2%}", (0.01, bound.minimum), xycoords=("axes fraction", "data"),
                xytext=(0, 3), textcoords="offset points", fontsize=8,
            )  # fmt: skip
        axes.set_ylim(top=min(1.0, axes.get_ylim()[1]))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}")

    return _curves(
        rows,
        "Accuracy in training; of the test (hollow)",
        "epoch",
        lambda row: [(number, epoch.accuracy) for number, epoch in enumerate(row.epochs, 1)],
        more=more,
    )


def speed_by_epoch(rows: Sequence[DeviceRow]) -> str:
    rows = [row for row in rows if row.epochs]
    most = max((len(row.epochs) for row in rows), default=0)
    if most * len(rows) > _MANY_BARS:
        return _curves(
            rows,
            "Images per second, by epoch",
            "epoch",
            lambda row: [(number, epoch.images_per_s) for number, epoch in enumerate(row.epochs, 1)],
            markers=False,
        )
    if not rows:
        return ""
    with _figure("speed by epoch") as (axes, done):
        width = 0.8 / len(rows)
        for index, one in enumerate(_lines(rows)):
            at = [
                number + (index - (len(rows) - 1) / 2) * width for number in range(1, len(one.row.epochs) + 1)
            ]
            heights = [epoch.images_per_s for epoch in one.row.epochs]
            axes.bar(at, heights, width * 0.92, color=one.colour, alpha=_shade(one), label=one.name)
        _whole_numbers(axes)
        _finish(axes, "Images per second, by epoch", "epoch", names=len(rows))
        _thousands(axes.yaxis)
    return done()


def speed_by_batch(rows: Sequence[DeviceRow]) -> str:
    """A bar for each device and batch size, with the slowest and the fastest epoch."""
    rows = [row for row in rows if row.images_per_s is not None]
    if not rows:
        return ""
    with _figure("speed by batch", height=0.8 + 0.5 * len(rows)) as (axes, done):
        for place, one in enumerate(_lines(rows)):
            row = one.row
            assert row.images_per_s is not None
            spread = [
                [row.images_per_s - (row.images_per_s_min or row.images_per_s)],
                [(row.images_per_s_max or row.images_per_s) - row.images_per_s],
            ]
            style = {"ecolor": _INK, "elinewidth": 1, "capsize": 3}
            alpha = _shade(one)
            axes.barh(
                [place], [row.images_per_s], 0.62, xerr=spread, color=one.colour, alpha=alpha, error_kw=style
            )
            axes.annotate(
                f"{row.images_per_s:,.0f}", (max(row.images_per_s, row.images_per_s_max or 0), place),
                xytext=(5, 0), textcoords="offset points", va="center", fontsize=9,
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [f"{_plain(row.device)}, batch {row.batch_size}" for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.18)
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        _finish(axes, "Steady images per second (median, range)", "", names=1)
        _thousands(axes.xaxis)
    return done()


TELEMETRY: tuple[tuple[str, str, float], ...] = (
    ("utilisation", "GPU busy (% of the time)", 1),
    ("memory_bytes", "GPU memory in use (GiB)", 2**30),
    ("power_w", "Power (W)", 1),
    ("temperature_c", "Temperature (°C)", 1),
)


def telemetry(rows: Sequence[DeviceRow]) -> dict[str, str]:
    """By name of the figure: a chart over the seconds since the worker's start."""
    charts = {}
    for name, heading, unit in TELEMETRY:

        def points(row: DeviceRow, name: str = name, unit: float = unit) -> list[tuple[float, float | None]]:
            values = [(sample["s"], sample[name]) for sample in row.telemetry.samples]
            return [(at, None if value is None else value / unit) for at, value in values]

        def from_zero(axes: Any, _: list[Line], name: str = name) -> None:
            axes.set_ylim(bottom=0, top=105 if name == "utilisation" else None)

        label = "seconds since the worker's start"
        charts[name] = _curves(rows, heading, label, points, markers=False, more=from_zero, by_batch=False)
    return charts


def map_image(planes: bytes, count: int, height: int, width: int) -> tuple[str, int]:
    """A data URI: `count` planes of one byte a pixel, side by side, a pixel apart; and how wide it is.

    Raises:
        ValueError: there are not so many bytes.

    """
    import matplotlib as mpl  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    from matplotlib.image import imsave  # noqa: PLC0415

    values = np.frombuffer(planes, dtype=np.uint8).reshape(count, height, width)
    columns = min(count, 16)
    rows = -(-count // columns)
    mosaic: Any = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, 4), dtype=np.uint8)
    colours = mpl.colormaps["gray" if count == 1 else "viridis"]
    for number in range(count):
        top, left = number // columns * (height + 1), number % columns * (width + 1)
        mosaic[top : top + height, left : left + width] = colours(values[number], bytes=True)
    made = io.BytesIO()
    no_address: Any = {"Software": None}
    imsave(made, mosaic, format="png", metadata=no_address)
    return "data:image/png;base64," + base64.b64encode(made.getvalue()).decode(), mosaic.shape[1]


def _curves(
    rows: Sequence[DeviceRow],
    title: str,
    x_label: str,
    points: Callable[[DeviceRow], Sequence[tuple[float, float | None]]],
    *,
    logarithmic: bool = False,
    markers: bool = True,
    by_batch: bool = True,
    more: Callable[[Any, list[Line]], None] | None = None,
) -> str:
    lines = [
        one for one in _lines(rows, by_batch=by_batch) if _drawable(points(one.row), logarithmic=logarithmic)
    ]
    if not lines:
        return ""
    with _figure(title) as (axes, done):
        for one in lines:
            found = points(one.row)
            axes.plot(
                [x for x, _ in found],
                [_finite(value, logarithmic=logarithmic) for _, value in found],
                one.dashes,
                color=one.colour,
                label=one.name,
                linewidth=one.width if len(found) < _DENSE else min(one.width, 2.2),
                marker=one.marker if markers or len(found) == 1 else None,
                markersize=3 + one.width,
            )
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if _leading(value) in {2, 5} else "")
        if x_label == "epoch":
            _whole_numbers(axes)
        if more is not None:
            more(axes, lines)
        _finish(axes, title, x_label, names=len(lines))
    return done()


def _lines(rows: Sequence[DeviceRow], *, by_batch: bool = True) -> list[Line]:
    devices = list(dict.fromkeys(row.device for row in rows))
    batches = list(dict.fromkeys(row.asked_batch_size for row in rows))
    found = []
    for row in rows:
        device, batch = devices.index(row.device), batches.index(row.asked_batch_size)
        several = by_batch and len(batches) > 1
        found.append(
            Line(
                row=row,
                name=_plain(f"{row.device}, batch {row.batch_size}" if several else row.device),
                colour=_SERIES[device % len(_SERIES)],
                dashes=_DASHES[batch % len(_DASHES) if several else 0],
                marker=_MARKERS[device % len(_MARKERS)],
                width=3.6 if device == 0 and len(devices) > 1 else 1.4,
            )
        )
    return found


def _shade(line: Line) -> float:
    """A bar has no dashes."""
    return (1.0, 0.7, 0.5, 0.35)[_DASHES.index(line.dashes)]


def _plain(text: str) -> str:
    """Matplotlib reads a formula between dollars."""
    return text.replace("$", r"\$")


def _finite(value: float | None, *, logarithmic: bool) -> float:
    usable = value is not None and math.isfinite(value) and not (logarithmic and value <= 0)
    return value if usable and value is not None else math.nan


def _drawable(points: Sequence[tuple[float, float | None]], *, logarithmic: bool) -> bool:
    return any(not math.isnan(_finite(value, logarithmic=logarithmic)) for _, value in points)


def _leading(value: float) -> int:
    return round(value / math.pow(10, math.floor(math.log10(value))))


def _whole_numbers(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _thousands(axis: Any) -> None:
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _finish(axes: Any, title: str, x_label: str, *, names: int) -> None:
    axes.set_title(title, fontweight="bold")
    axes.set_xlabel(x_label)
    axes.tick_params(length=0)
    if names > 1:
        axes.figure.legend(loc="outside lower left", ncols=2)


@contextmanager
def _figure(name: str, height: float = 2.9) -> Iterator[tuple[Any, Callable[[], str]]]:
    """Axes to draw on, and a function that gives the finished SVG. The user's matplotlibrc does not count."""
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    # The identifiers of clipping paths are hashes with this salt: those of two charts must differ.
    with mpl.rc_context({**mpl.rcParamsDefault, **_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(5.6, height), layout="constrained")
        FigureCanvasSVG(figure)
        made = io.StringIO()
        yield figure.add_subplot(), lambda: _for_the_page(made.getvalue())
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(made, format="svg", transparent=True, metadata=metadata)


def _for_the_page(svg: str) -> str:
    """As an element of HTML: without what belongs to a file of its own, in the page's colours."""
    for pattern in (_NOT_OURS, _NAMES, _SIZE, _NAMESPACES):
        svg = pattern.sub("", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg.replace("xlink:href=", "href=").replace("<svg", '<svg aria-hidden="true"', 1).strip()
