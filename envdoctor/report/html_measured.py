"""The sections of the HTML report that show what was measured."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from envdoctor.checks.machine import simulated, title
from envdoctor.report import charts
from envdoctor.report.html_parts import NONE, Page, bullets, chart, figures, paragraph, section, table
from envdoctor.validate.comparison import FIRST_LOSS_BAND
from envdoctor.validate.findings import wrong
from envdoctor.validate.judge import Tuning
from envdoctor.validate.measure import DeviceRow
from envdoctor.validate.protocol import Activations, NumericsRow
from envdoctor.validate.tune import line

_Count = Annotated[int, Meta(gt=0, le=4096)]


class _Maps(Struct, frozen=True):
    layer: str
    shape: tuple[_Count, _Count, _Count]  # maps, height, width
    bytes: str  # base64


def devices(page: Page) -> str:
    head = [
        "Device", "Batch", "Images/s<br>(slowest, fastest)", "Import", "First step", "Training", "End to end",
        "Test accuracy", "Test loss", "Memory", "Ran on",
    ]  # fmt: skip
    rows = [_device(page, row) for row in page.result.devices]
    if not rows:
        return section("devices", "Devices", paragraph("Nothing was trained."))
    caption = (
        "Images/s: of the whole epochs after the first, median. First step: with tracing, compiling and "
        "autotuning. End to end: from the interpreter's start to the end of the test."
    )
    ended = [
        f"{page.text(row.device)}, batch {row.batch_size}, is not complete: {page.text(row.ended)}"
        for row in page.result.devices
        if not row.complete
    ]
    return section("devices", "Devices", table(caption, head, rows, left=(10,)), bullets(ended))


def _device(page: Page, row: DeviceRow) -> list[str]:
    halved = f" <small>of {row.asked_batch_size}</small>" if row.batch_size != row.asked_batch_size else ""
    speed = f"{row.images_per_s:,.0f}" if row.images_per_s is not None else NONE
    memory = _bytes(row.peak_memory_bytes)
    plural = "" if len(row.epochs) == 1 else "s"
    if row.gpu_peak_memory_bytes is not None:
        memory += f"<br>{_bytes(row.gpu_peak_memory_bytes)} GPU"
    return [
        page.called(row),
        f"{row.batch_size}{halved}",
        f"{speed}<br><small>{spread(row)}</small>",
        _seconds(row.import_s),
        _seconds(row.first_step_s),
        f"{row.train_s:.1f} s<br><small>{len(row.epochs)} epoch{plural}</small>",
        _seconds(row.end_to_end_s),
        f"{row.test_accuracy:.2%}" if row.test_accuracy is not None else NONE,
        f"{row.test_loss:.4f}" if row.test_loss is not None else NONE,
        memory,
        page.text(row.weights_on or NONE),
    ]


def speed(page: Page) -> str:
    rows, result = page.result.devices, page.result
    says = "; ".join(
        f"{r.device}, batch {r.batch_size}: {r.images_per_s:,.0f}" for r in rows if r.images_per_s
    )
    compared = [
        [
            page.text(f"{s.device} over {s.base}"),
            str(s.batch_size),
            f"{s.steady:.2f}" if s.steady is not None else NONE,
            ratios(s.steady_min, s.steady_max) or NONE,
            f"{s.end_to_end:.2f}" if s.end_to_end is not None else NONE,
        ]
        for s in result.speedups
    ]
    caption = "How many times as fast. Range: slowest epoch against the other's fastest, and the reverse."
    head = ["Speedup", "Batch", "Steady", "Range", "End to end"]
    return section(
        "speed",
        "Speed",
        table(caption, head, compared)
        if compared
        else paragraph("No speedup: there are no two devices to compare."),
        figures(
            chart(charts.speed_by_batch(rows), page.text(f"Images per second, steady. {says}")),
            chart(charts.speed_by_epoch(rows), "Images per second of each epoch, for each device"),
        ),
    )


def curves(page: Page) -> str:
    rows, bound = page.result.devices, page.result.bound
    drawn = figures(
        chart(charts.loss_by_step(rows), "Loss over the steps of the training, for each device"),
        chart(charts.loss_by_epoch(rows), "Mean loss of each epoch, for each device"),
        chart(charts.accuracy_by_epoch(rows, bound), "Accuracy of each epoch, for each device"),
    )
    apart = [
        page.text(
            f"{c.device} against {c.base}: the first step's losses are {c.first_step:.1e} apart (band "
            f"{FIRST_LOSS_BAND:.0e}), the epochs' means up to {max(c.epochs, default=0.0):.1%} (band "
            f"{c.band:.0%}): "
        )
        + ('<span class="good">they agree</span>' if c.agrees else '<span class="bad">they differ</span>')
        for c in page.result.curves
    ]
    nothing = "" if drawn else paragraph("No epoch came to its end.")
    return section("curves", "Loss and accuracy", drawn or nothing, bullets(apart))


def telemetry(page: Page) -> str:
    heading = "GPU over time"
    rows = [row for row in page.first if row.telemetry.samples]
    if not rows:
        asked = [row.telemetry.reason for row in page.first if row.device == "GPU" and row.telemetry.reason]
        why = f"Not available: {asked[0]}" if asked else "None: no training ran on a GPU, so none was sampled"
        return section("telemetry", heading, paragraph(f"{page.text(why)}."))
    drawn = charts.telemetry(rows)
    return section(
        "telemetry",
        heading,
        paragraph(
            "Asked of NVML five times a second, beside the training"
            + (" (SIMULATED driver)." if simulated(page.facts) else "."),
            "soft",
        ),
        figures(*(chart(drawn[name], f"{says} over time") for name, says, _ in charts.TELEMETRY)),
        table(
            "In the steady epochs: the GPU busy and the power, median; memory and temperature, most.",
            ["Device", "Batch", "GPU busy", "Memory", "Power", "Temperature"],
            [_sampled(page, row) for row in page.result.devices if row.telemetry.samples],
        ),
    )


def _sampled(page: Page, row: DeviceRow) -> list[str]:
    t = row.telemetry
    return [
        page.called(row),
        str(row.batch_size),
        f"{t.utilisation:.0f} %" if t.utilisation is not None else NONE,
        _bytes(t.memory_bytes),
        f"{t.power_w:.0f} W" if t.power_w is not None else NONE,
        f"{t.temperature_c} °C" if t.temperature_c is not None else NONE,
    ]


def activations(page: Page) -> str:
    heading, found = "What each convolution sees", page.result.activations
    if found is None:
        return section("activations", heading, paragraph("Not taken: the training did not come so far."))
    drawn = list(_maps(page, found))
    if len(drawn) == 1:
        drawn.append(paragraph("This network has no convolution."))
    note = "The trained network's outputs for one digit of the test set; each map uses the whole scale."
    return section(
        "activations", heading, paragraph(note, "soft"), f'<div class="maps">{"".join(drawn)}</div>'
    )


def _maps(page: Page, found: Activations) -> Iterator[str]:
    digit = {"layer": "", "shape": (1, 28, 28), "bytes": found.image}
    for number, one in enumerate((digit, *found.maps)):
        try:  # the worker is a process of the target's: what it says is not believed
            maps = msgspec.convert(one, _Maps)
            uri, wide = charts.map_image(base64.b64decode(maps.bytes, validate=True), *maps.shape)
        except ValueError:
            yield paragraph("Maps that cannot be read.")
            continue
        count, height, width = maps.shape
        says = page.text(f"{maps.layer}: {count} maps of ") + f"{height} &times; {width}"
        if number == 0:
            says = f"The digit: a {found.label}"
        shown = min(960, wide * max(1, min(16, 900 // wide))) if number else 5 * wide
        image = f'<img src="{uri}" width="{shown}" alt="{says}">'
        yield f"<figure>{image}<figcaption>{says}</figcaption></figure>"


def numerics(page: Page) -> str:
    heading, compared = "Numerics", page.result.numerics
    if not compared:
        return section("numerics", heading, paragraph("Not compared: the training did not come so far."))
    columns = [{row.tensor: row for row in numerics.rows} for numerics in compared]
    names = [
        page.text(f"{numerics.rows[0].device}, {numerics.rows[0].precision}") if numerics.rows else NONE
        for numerics in compared
    ]
    tensors = dict.fromkeys(row.tensor for numerics in compared for row in numerics.rows)
    rows = [[page.text(tensor), *(_error(column.get(tensor)) for column in columns)] for tensor in tensors]
    caption = (
        f"The first step on {compared[0].batch_size} images against NumPy in float64, from the same weights: "
        "largest error by the tensor's largest magnitude, with its bound; in the order of computation."
    )
    return section("numerics", heading, table(caption, ["Tensor", *names], rows))


def threads(page: Page) -> str:
    tried = page.result.threads
    if not tried:
        return section(
            "threads", "Threads", paragraph("Not searched for (<code>--threads tune</code> does).")
        )
    rows = [
        [
            f"<code>{page.text(line(setting.variables))}</code>",
            _rate(setting),
            '<span class="good">best</span>' if setting.best else "chosen" if setting.chosen else "",
        ]
        for setting in tried
    ]
    chosen = next((s for s in tried if s.chosen), None)
    return section(
        "threads",
        "Threads",
        table(
            "Short trainings on the CPU: the median of the epochs, the slowest and the fastest.",
            ["Setting", "Images/s", ""],
            rows,
        ),
        page.text.command(f"export {line(chosen.variables)}") if chosen else "",
    )


def _rate(setting: Tuning) -> str:
    if setting.images_per_s is None:
        return "did not end"
    if setting.images_per_s_min is None or setting.images_per_s_max is None:
        return f"{setting.images_per_s:,.0f}"
    return f"{setting.images_per_s:,.0f} ({setting.images_per_s_min:,.0f} to {setting.images_per_s_max:,.0f})"


def numpy(page: Page) -> str:
    rows = [
        [
            f"NumPy {page.text(row.dtype)}",
            f"{row.epoch_seconds:.1f} s",
            f"{row.images:,}" + (", scaled to an epoch" if row.scaled else ""),
        ]
        for row in page.result.numpy
    ]
    if not rows:
        return section("numpy", "NumPy beside it", paragraph("Not timed."))
    cpu = page.result.devices[-1] if page.result.devices else None
    if cpu is not None and cpu.epochs:
        framework = f"{title(page.result.backend)} on the {cpu.device}"
        rows.append([page.text(framework), f"{cpu.train_s / len(cpu.epochs):.1f} s", "the training itself"])
    caption = "The same training by plain NumPy on the CPU: a slow BLAS or a bad thread setting shows here."
    return section("numpy", "NumPy beside it", table(caption, ["By", "An epoch", "Images timed"], rows))


def _error(row: NumericsRow | None) -> str:
    if row is None:
        return NONE
    size = f"{row.error:.1e}" if row.error is not None else "not finite"
    marked = f'<span class="bad">{size} ✗</span>' if wrong(row) else size
    return f"{marked} <small>≤ {row.bound:.0e}</small>"


def spread(row: DeviceRow) -> str:
    if row.images_per_s_min is None or row.images_per_s_max is None:
        return ""
    return f"{row.images_per_s_min:,.0f} to {row.images_per_s_max:,.0f}"


def ratios(low: float | None, high: float | None) -> str:
    return f"{low:.2f} to {high:.2f}" if low is not None and high is not None else ""


def _seconds(value: float | None) -> str:
    return f"{value:.1f} s" if value is not None else NONE


def _bytes(count: int | None) -> str:
    if count is None:
        return NONE
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


SECTIONS = (devices, speed, curves, telemetry, activations, numerics, threads, numpy)
