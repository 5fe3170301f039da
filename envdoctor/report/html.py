"""The report of a training as one HTML file: it loads nothing, runs nothing, names no host and no user."""

from __future__ import annotations

import os
from collections.abc import Iterator

from msgspec import Struct

from envdoctor import __version__
from envdoctor.catalog import Severity
from envdoctor.checks.machine import driver_cuda_version, driver_version, gpus, simulated, title
from envdoctor.diagnose import Linked
from envdoctor.facts.model import Facts, Unavailable
from envdoctor.report import html_measured
from envdoctor.report.html_measured import ratios, spread
from envdoctor.report.html_parts import Escaper, Page, bullets, definitions, paragraph, section
from envdoctor.report.shareable import Shareable
from envdoctor.validate.comparison import CURVE_BAND, FIRST_LOSS_BAND
from envdoctor.validate.findings import wrong
from envdoctor.validate.judge import Outcome, Result

_BADGES = {
    Outcome.PASSED: "Passed",
    Outcome.FAILED: "Failed",
    Outcome.UNDECIDED: "Could not be judged",
    Outcome.INTERRUPTED: "Partial: interrupted",
}
# The browser itself is told to load nothing and to run nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Conduct(Struct, frozen=True, kw_only=True):
    """How the training came about."""

    command: str
    began: str  # date and time, with the zone
    seconds: float
    seed: int | None  # None: nothing was trained


def render_html(facts: Facts, result: Result, conduct: Conduct) -> str:
    """The whole file. Matplotlib must be there (`charts.load_matplotlib`)."""
    page = Page(facts, result, Escaper(Shareable(facts)))
    with open(os.path.join(os.path.dirname(__file__), "html.css"), encoding="utf-8") as file:
        style = file.read()
    parts = [
        verdict(page),
        machine(page),
        subject(page),
        *(make(page) for make in html_measured.SECTIONS),
        findings(page),
        how(page, conduct),
    ]
    heading = f"envdoctor validate: {_BADGES[result.outcome].lower()}, {page.text(result.network.name)}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{heading}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(parts)}</main>\n"
        f"<footer>envdoctor {page.text(__version__)} · {page.text(conduct.began)} · "
        "without the names of the host and of its user</footer>\n</body>\n</html>\n"
    )


def verdict(page: Page) -> str:
    result = page.result
    errors = [one.finding for one in result.findings if one.finding.severity is Severity.ERROR]
    rows = page.first
    framework = f"{title(result.backend)} {rows[0].framework if rows else ''}".strip()
    trained = " and the ".join(page.called(row) for row in rows if row.complete)
    if result.outcome is Outcome.PASSED:
        says = f"{page.text(framework)} trains right on the {trained}"
    elif result.outcome is Outcome.FAILED and errors:
        says = f"{page.text(framework)}: {page.text(_within(errors[0].condition.title))}"
    elif result.outcome is Outcome.INTERRUPTED:
        says = f"{page.text(framework)}: interrupted; what was measured until then"
    else:
        says = f"{page.text(framework)}: what was asked for could not be judged"
    reasons = [page.text(f"{e.code}: {e.message}") for e in errors]
    reasons += [f"could not be judged: {page.text(why)}" for why in result.undecided]
    return (
        f'<header id="verdict" class="verdict {result.outcome.value}"><p class="badge">'
        f"{_BADGES[result.outcome]}</p><h1>{says}</h1>"
        f'<p class="soft">{_subject_line(page)}</p>{bullets(reasons)}'
        f"{definitions(_tiles(page), 'tiles')}</header>\n{_banners(page)}"
    )


def _tiles(page: Page) -> Iterator[tuple[str, str]]:
    result = page.result
    for row in page.first:
        if row.test_accuracy is not None:
            bound = f"bound {result.bound.minimum:.2%}" if result.bound else "no bound is known"
            yield f"Test accuracy, {page.text(row.device)}", _big(f"{row.test_accuracy:.2%}", bound)
    for row in page.first:
        if row.images_per_s is not None:
            yield f"Images/s, {page.text(row.device)}", _big(f"{row.images_per_s:,.0f}", spread(row))
    for speedup in result.speedups[:1]:
        if speedup.steady is not None:
            between = ratios(speedup.steady_min, speedup.steady_max)
            name = f"{page.text(speedup.device)} over {page.text(speedup.base)}"
            yield name, _big(f"{speedup.steady:.2f}&times;", between)
    compared = [row for numerics in result.numerics for row in numerics.rows]
    if compared:
        bad = sum(map(wrong, compared))
        size = _big("wrong" if bad else "right", f"{bad or 'all'} of {len(compared)} tensors")
        yield "Numerics", f'<span class="{"bad" if bad else "good"}">{size}</span>'


def _banners(page: Page) -> str:
    says = []
    if page.result.stand_in:
        says.append(
            "<strong>Stand-in.</strong> CPU:1 is a second logical device of the same CPU and stands in for "
            "an accelerator: its speed says nothing of a GPU."
        )
    if simulated(page.facts):
        says.append("<strong>SIMULATED driver.</strong> What is said of GPUs here is not of hardware.")
    if page.result.outcome is Outcome.INTERRUPTED:
        says.append(
            "<strong>Partial.</strong> The training was interrupted; what is missing was not measured."
        )
    return "".join(f'<p class="banner">{one}</p>\n' for one in says)


def _subject_line(page: Page) -> str:
    result = page.result
    keras = next((row.keras for row in result.devices if row.keras), "")
    parts = [
        result.network.name,
        f"{result.parameters:,} parameters",
        f"batch {', '.join(map(str, result.batch_sizes))}",
        f"{result.epochs} epoch{'s' if result.epochs > 1 else ''}",
        *([f"Keras {keras}"] if keras else []),
    ]
    return " · ".join(map(page.text, parts))


def machine(page: Page) -> str:
    facts, host = page.facts, page.facts.host
    interpreter = facts.interpreter
    version, cuda = driver_version(facts), driver_cuda_version(facts)
    kind = "SIMULATED driver " if simulated(facts) else ""
    driver = f"{kind}{version or 'of an unknown version'}" + (f", CUDA up to {cuda}" if cuda else "")
    where = [host.os_name, f"Linux {host.kernel}", host.machine, host.libc, "WSL2" if host.wsl else ""]
    pairs = [
        ("System", ", ".join(part for part in where if isinstance(part, str) and part)),
        ("Container", host.container),
        ("CPU", _cpu(page)),
        ("NVIDIA driver", driver if version or cuda else "none that answers"),
        ("GPUs", "; ".join(g.name for g in gpus(facts)) or "none that NVML describes"),
        (
            "Python",
            interpreter.reason
            if isinstance(interpreter, Unavailable)
            else f"{interpreter.version}, {interpreter.executable} ({interpreter.kind})",
        ),
    ]
    return section("machine", "Machine", definitions((n, page.text(v) if v else "") for n, v in pairs))


def _cpu(page: Page) -> str:
    cpu = page.facts.host.cpu
    parts = [cpu.model]
    for count, what in (
        (cpu.logical, "logical processors"),
        (cpu.physical, "cores"),
        (cpu.affinity, "may be used"),
        (cpu.quota, "CPUs granted by the cgroup"),
    ):
        if isinstance(count, (int, float)):
            parts.append(f"{count:g} {what}")
    return ", ".join(part for part in parts if part)


def subject(page: Page) -> str:
    result = page.result
    data = result.data or {}
    published = [page.text(f"{p.what}: {p.value}") for p in result.network.published]
    pairs = [
        ("Network", page.text(f"{result.network.name}: {result.network.title}")),
        ("Parameters", f"{result.parameters:,}"),
        ("Batch sizes", ", ".join(map(str, result.batch_sizes))),
        ("Epochs", str(result.epochs)),
        ("Published for it", bullets(published)),
        ("Data", page.text(data.get("words", "were not read"))),
        ("Accuracy expected", _bound(page)),
    ]
    return section("network", "Network and data", definitions(pairs))


def _bound(page: Page) -> str:
    bound = page.result.bound
    return page.text(f"{bound.minimum:.2%} or more: {bound.why}") if bound else "none is known: not judged"


def findings(page: Page) -> str:
    found = page.result.findings
    drawn = [_finding(page, one) for one in found] or [paragraph("None.")]
    notes = bullets(map(page.text, page.result.notes))
    return section("findings", "Findings", *drawn, f"<h3>Notes</h3>{notes}" if notes else "")


def _finding(page: Page, linked: Linked) -> str:
    finding, condition = linked.finding, linked.finding.condition
    causes = ", ".join(page.result.findings[i].finding.code for i in linked.because)
    shown = definitions((page.text(e.what), page.text(e.value)) for e in finding.evidence)
    repairs = [
        (f"<p><strong>{page.text(r.situation)}.</strong> " if r.situation else "<p>")
        + f"{page.text(r.advice)}</p>"
        + (page.text.command(*r.commands) if r.commands else "")
        for r in condition.repairs
    ]
    kind = f"{finding.severity.value} follows" if causes else finding.severity.value
    return (
        f'<article class="{kind}"><h3>{page.text(finding.code)}: {page.text(finding.message)}</h3>'
        + (paragraph(f"Follows from {page.text(causes)}.") if causes else "")
        + (shown if finding.evidence else "")
        + paragraph(f"{page.text(condition.means)} {page.text(condition.why)}", "soft")
        + ("<h4>What to do</h4>" if repairs or finding.remedy else "")
        + (page.text.command(finding.remedy) if finding.remedy else "")
        + "".join(repairs)
        + "</article>"
    )


def how(page: Page, conduct: Conduct) -> str:
    result = page.result
    trained = sum(row.train_s for row in result.devices)
    first = result.devices[0] if result.devices else None
    versions = [f"envdoctor {__version__}"]
    if first is not None:
        versions += [f"{title(result.backend)} {first.framework}", f"Keras {first.keras}"]
    pairs = [
        ("Command", f"<code>{page.text(conduct.command)}</code>"),
        ("Date", page.text(conduct.began)),
        ("Took", f"{conduct.seconds:.1f} s, {trained:.1f} s of it training"),
        ("Versions", page.text(", ".join(versions))),
        ("Seed", "" if conduct.seed is None else str(conduct.seed)),
    ]
    explained = [
        "Each device is trained by a process of its own in the target's interpreter, one after another.",
        "All start from the same weights and take the same batches in the same order.",
        "Images/s are of whole epochs after the first; of a single epoch, without its first step.",
        f"Losses of two devices must agree within {FIRST_LOSS_BAND:.1%} in the first step.",
        f"Later rounding grows, and an epoch's mean loss must agree within {CURVE_BAND:.0%}.",
    ]
    return section("conduct", "How it was measured", definitions(pairs), bullets(explained))


def _within(title: str) -> str:
    """As part of a sentence: "The GPU is…" becomes "the GPU is…", "GPU…" stays."""
    return title if title[:2].isupper() else title[:1].lower() + title[1:]


def _big(value: str, small: str) -> str:
    return f"{value}<small>{small}</small>" if small else value
