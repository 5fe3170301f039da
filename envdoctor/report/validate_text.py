"""The report of a training for a terminal: the verdict first, a row for each device, then the proofs."""

from __future__ import annotations

from collections.abc import Sequence

from envdoctor.catalog import Severity
from envdoctor.checks.machine import title
from envdoctor.diagnose import Linked
from envdoctor.facts.model import Facts
from envdoctor.report.terminal import Terminal, harmless
from envdoctor.report.text import headline
from envdoctor.validate.findings import wrong
from envdoctor.validate.judge import Outcome, Result, Tuning
from envdoctor.validate.measure import DeviceRow
from envdoctor.validate.tune import line

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}
_NONE = "-"
_COLUMNS = (
    "device",
    "batch",
    "images/s",
    "(slowest, fastest)",
    "first step",
    "epochs",
    "end to end",
    "accuracy",
    "memory",
)


def render_validation(facts: Facts, result: Result, terminal: Terminal, *, seconds: float) -> str:
    lines = [headline(facts, terminal), "", _verdict(result, terminal)]
    lines += [f"  {harmless(text)}" for text in _subject(result, terminal)]
    if result.devices:
        lines += ["", *(f"  {harmless(text)}" for text in _table(result.devices))]
    proofs = [f"  {name:<10} {harmless(text)}" for name, text in _proofs(result, terminal)]
    lines += ["", *proofs] if proofs else []
    if result.findings:
        lines.append("")
    for linked in result.findings:
        lines += _finding(linked, terminal)
    for text in result.undecided:
        lines.append(
            terminal.paint(f"{terminal.symbol('unknown')} could not be judged: {harmless(text)}", "yellow")
        )
    if result.notes:
        lines.append("")
    lines += [terminal.paint(f"{terminal.symbol('note')} {harmless(text)}", "dim") for text in result.notes]
    trained = sum(row.train_s for row in result.devices)
    took = f"{seconds:.1f} s ({trained:.1f} s of it training)"
    lines += ["", terminal.paint(f"{result.outcome.value} {terminal.symbol('dot')} {took}", "dim")]
    return "\n".join(lines) + "\n"


def _verdict(result: Result, terminal: Terminal) -> str:
    rows = result.devices
    framework = f"{title(result.backend)} {rows[0].framework if rows else ''}".strip()
    names = " and ".join(dict.fromkeys(_called(row) for row in rows if row.complete))
    if result.outcome is Outcome.PASSED:
        best = rows[0]
        text = f"{framework} trains right on the {names}"
        if best.test_accuracy is not None:
            text += f": {best.test_accuracy:.2%} of the test digits"
        if result.speedups and result.speedups[0].steady is not None and not result.stand_in:
            text += f", {result.speedups[0].steady:.1f} times as fast as the CPU"
        return terminal.paint(f"{terminal.symbol('ok')} {harmless(text)}", "bold", "green")
    if result.outcome is Outcome.FAILED:
        worst = result.findings[0].finding
        died = worst.condition.area != "validation"  # the cause of a death, by the catalogue of `explain`
        text = (
            f"the training died: {worst.condition.title}" if died else _in_a_sentence(worst.condition.title)
        )
        return terminal.paint(
            f"{terminal.symbol('error')} {harmless(framework)}: {text} ({worst.code})", "bold", "red"
        )
    what = "interrupted; what was measured" if result.outcome is Outcome.INTERRUPTED else "not decided"
    return terminal.paint(f"{terminal.symbol('unknown')} {harmless(framework)}: {what}", "bold", "yellow")


def _in_a_sentence(title: str) -> str:
    return title if title[1].isupper() else title[0].lower() + title[1:]


def _called(row: DeviceRow) -> str:
    return f"{row.device} ({row.device_name})" if row.device_name else row.device


def _subject(result: Result, terminal: Terminal) -> list[str]:
    dot = f" {terminal.symbol('dot')} "
    batches = ", ".join(map(str, result.batch_sizes))
    keras = next((row.keras for row in result.devices if row.keras), "")
    parts = [
        f"{result.network.name}, {result.parameters:,} parameters",
        f"batch {batches}",
        f"{result.epochs} epoch{'s' if result.epochs > 1 else ''}",
        *([f"Keras {keras}"] if keras else []),
    ]
    lines = [dot.join(parts)]
    if result.data is not None:
        lines.append(str(result.data["words"]))
    if result.stand_in:
        lines.append(
            "CPU:1 is a second logical device of the same CPU and stands in for an accelerator: "
            "its speed says nothing of a GPU"
        )
    return lines


def _table(rows: Sequence[DeviceRow]) -> list[str]:
    cells = [_COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(_COLUMNS))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def _cells(row: DeviceRow) -> tuple[str, ...]:
    spread = (
        f"({row.images_per_s_min:,.0f}, {row.images_per_s_max:,.0f})"
        if row.images_per_s_min is not None and row.images_per_s_max is not None
        else ""
    )
    halved = row.batch_size != row.asked_batch_size
    memory = _bytes(row.peak_memory_bytes)
    if row.gpu_peak_memory_bytes is not None:
        memory += f" + {_bytes(row.gpu_peak_memory_bytes)} GPU"
    return (
        row.device,
        f"{row.batch_size} (of {row.asked_batch_size})" if halved else str(row.batch_size),
        f"{row.images_per_s:,.0f}" if row.images_per_s is not None else _NONE,
        spread,
        _seconds(row.first_step_s),
        f"{len(row.epochs)} in {row.train_s:.1f} s",
        _seconds(row.end_to_end_s),
        f"{row.test_accuracy:.2%}" if row.test_accuracy is not None else _NONE,
        memory or _NONE,
    )


def _seconds(value: float | None) -> str:
    return f"{value:.1f} s" if value is not None else _NONE


def _bytes(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _proofs(result: Result, terminal: Terminal) -> list[tuple[str, str]]:
    lines = []
    for speedup in result.speedups:
        if speedup.steady is None:
            continue
        text = (
            f"{speedup.device}, batch {speedup.batch_size}: {speedup.steady:.2f} times {speedup.base}, steady"
        )
        if speedup.steady_min is not None and speedup.steady_max is not None:
            text += f" ({speedup.steady_min:.2f} to {speedup.steady_max:.2f})"
        if speedup.end_to_end is not None:
            text += f"; {speedup.end_to_end:.2f} end to end"
        lines.append(("speed", text))
    for row in result.devices:
        if row.weights_on:
            lines.append(
                ("ran on", f"{row.weights_on} (the trained weights), {row.output_on} (a layer's output)")
            )
        if row.telemetry.gpu is not None:
            lines.append(("GPU", _telemetry(row, terminal)))
        elif row.device == "GPU":
            lines.append(("GPU", f"utilisation, power, temperature not available: {row.telemetry.reason}"))
    lines += _numerics(result, terminal)
    for curve in result.curves:
        text = f"{curve.device} against {curve.base}: first step {curve.first_step:.1e} apart, "
        text += f"epochs up to {max(curve.epochs, default=0.0):.1%} (band {curve.band:.0%})"
        lines.append(("loss", text))
    if result.numpy:
        lines.append(("NumPy", _numpy(result)))
    lines += _threads(result)
    return list(_once(lines))


def _threads(result: Result) -> list[tuple[str, str]]:
    """Each setting with its spread, and which to export; a best one only where it stands out."""
    tried = result.threads
    width = max((len(line(setting.variables)) for setting in tried), default=0)
    lines = [("threads", f"{line(setting.variables):<{width}}  {_rate(setting)}") for setting in tried]
    chosen = next((setting for setting in tried if setting.chosen), None)
    if chosen is not None:
        what = (
            "the fastest, by more than epochs differ, and"
            if chosen.best
            else "none stands out: others' epochs come as fast. The fastest median, with the fewest threads,"
        )
        lines += [("", f"{what} was trained with:"), ("", f"export {line(chosen.variables)}")]
    return lines


def _rate(setting: Tuning) -> str:
    if setting.images_per_s is None:
        return "did not end"
    text = f"{setting.images_per_s:,.0f} images/s"
    if setting.images_per_s_min is not None and setting.images_per_s_max is not None:
        text += f" ({setting.images_per_s_min:,.0f} to {setting.images_per_s_max:,.0f})"
    return text


def _once(lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without repetitions, and each name once for the lines that follow one another."""
    found: list[tuple[str, str]] = []
    last = ""
    for name, text in dict.fromkeys(lines):
        found.append(("" if name == last else name, text))
        last = name
    return found


def _telemetry(row: DeviceRow, terminal: Terminal) -> str:
    t = row.telemetry
    parts = [
        f"busy {t.utilisation:.0f} % of the time" if t.utilisation is not None else "",
        f"{_bytes(t.memory_bytes)} in use" if t.memory_bytes is not None else "",
        f"{t.power_w:.0f} W" if t.power_w is not None else "",
        f"{t.temperature_c} {'°C' if terminal.unicode else 'C'}" if t.temperature_c is not None else "",
    ]
    return f"batch {row.batch_size}: " + (", ".join(p for p in parts if p) or "NVML tells nothing of it")


def _numerics(result: Result, terminal: Terminal) -> list[tuple[str, str]]:
    lines = []
    for numerics in result.numerics:
        bad = [row for row in numerics.rows if wrong(row)]
        worst = bad[0] if bad else max(numerics.rows, key=lambda row: (row.error or 0.0) / row.bound)
        size = f"{worst.error:.1e}" if worst.error is not None else "not finite"
        mark = terminal.symbol("error" if bad else "ok")
        which = "first wrong" if bad else "worst"
        text = (
            f"{mark} {worst.device}, {worst.precision}: {len(numerics.rows)} tensors against NumPy float64, "
        )
        text += f"{which} {worst.tensor} {size} (bound {worst.bound:.0e})"
        lines.append(("numerics", text))
    return lines


def _numpy(result: Result) -> str:
    parts = [f"{row.dtype} {row.epoch_seconds:.1f} s an epoch" for row in result.numpy]
    timed = min(row.images for row in result.numpy)
    scaled = f" (scaled from {timed:,} images or more)" if any(row.scaled for row in result.numpy) else ""
    cpu = result.devices[-1]
    mean = cpu.train_s / len(cpu.epochs) if cpu.epochs else 0.0
    beside = f"; {title(result.backend)} {mean:.1f} s on the CPU" if mean else ""
    return ", ".join(parts) + scaled + beside


def _finding(linked: Linked, terminal: Terminal) -> list[str]:
    finding = linked.finding
    code = terminal.paint(finding.code, "bold", _COLOURS[finding.severity])
    if linked.because:
        branch = terminal.symbol("branch")
        return [terminal.paint(f"  {branch} {finding.code}  {harmless(finding.message)}", "dim")]
    lines = [f"{terminal.symbol(finding.severity.value)} {code}  {harmless(finding.message)}"]
    if finding.severity is not Severity.NOTE:
        lines += [f"          {harmless(e.what):<18} {harmless(e.value)}" for e in finding.evidence]
    if finding.remedy:
        lines.append(f"          {'next':<18} {terminal.paint(finding.remedy, 'cyan')}")
    return lines
