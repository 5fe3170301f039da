"""What a log means, and the page of a condition, for a terminal."""

from __future__ import annotations

import shutil
import textwrap

from envdoctor.catalog import Condition, Repair, Severity, condition
from envdoctor.catalog.page import leads_to
from envdoctor.explain.explanation import Explained, Explanation
from envdoctor.explain.joining import CONFIRMED, NOT_JUDGED, PAST
from envdoctor.report.terminal import Terminal, harmless

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}
_WIDTH, _NARROWEST = 100, 50
_NUMBERS = 8  # line numbers that are listed
_STATUS = {
    CONFIRMED: "confirmed by the facts of this machine",
    PAST: "not so on this machine now: it was repaired since, or the log is of another machine",
    NOT_JUDGED: "the facts of this machine cannot tell",
}


def render_explanation(explanation: Explanation, name: str, terminal: Terminal) -> str:
    """The whole answer to a log."""
    dot = f" {terminal.symbol('dot')} "
    lines = [terminal.paint(f"{harmless(name)}{dot}{_count(explanation.lines, 'line')}", "dim"), ""]
    lines += [_verdict(explanation, terminal)]
    roots = [i for i, e in enumerate(explanation.findings) if not e.because]
    for index in roots:
        lines += ["", *_finding(explanation, index, terminal)]
    for number, text in explanation.unexplained:
        lines.append(f"  line {number:<8} {_fits(text, terminal)}")
    if explanation.noise:
        lines += ["", "Can be ignored:"]
        for noise in explanation.noise:
            text = f"  {noise.kind:<32} {_count(noise.lines, 'line')}, first {noise.first}"
            lines.append(terminal.paint(text, "dim"))
    return "\n".join(lines) + "\n"


def _verdict(explanation: Explanation, terminal: Terminal) -> str:
    lead = explanation.cause
    if lead and lead.status != PAST:
        row = condition(lead.finding.code)
        kind = "error" if lead.finding.severity is Severity.ERROR else "warning"
        others = len(lead.alternatives)
        doubt = f", or {_count(others, 'other cause')} that this log cannot tell from it" if others else ""
        said = f"{terminal.symbol(kind)} {row.title}{doubt}"
        return terminal.paint(said, "bold", _COLOURS[lead.finding.severity])
    if lead:
        return terminal.paint(f"{terminal.symbol('ok')} the cause in this log does not hold here now", "bold")
    if explanation.healthy:
        return terminal.paint(
            f"{terminal.symbol('ok')} healthy: nothing in this log is wrong", "bold", "green"
        )
    if explanation.unexplained:
        text = "no cause found: these lines tell of an error that envdoctor does not know"
        return terminal.paint(f"{terminal.symbol('unknown')} {text}", "bold", "yellow")
    text = "no cause found: nothing in this text is known to envdoctor"
    return terminal.paint(f"{terminal.symbol('unknown')} {text}", "bold")


def _finding(explanation: Explanation, index: int, terminal: Terminal) -> list[str]:
    explained = explanation.findings[index]
    finding, row = explained.finding, condition(explained.finding.code)
    code = terminal.paint(finding.code, "bold", _COLOURS[finding.severity])
    rows = [f"  {code}  {harmless(finding.message)}  ({explained.confidence.value})"]
    if explained.status:
        rows.append(_labelled("here", _STATUS[explained.status]))
    rows.append(_labelled("lines", _numbers(explained)))
    for evidence in finding.evidence:
        if evidence.what.startswith("line "):
            shown = f"{evidence.what.removeprefix('line '):>10}: {_fits(evidence.value, terminal)}"
            rows.append(terminal.paint(shown, "dim"))
        else:
            rows.append(_labelled(harmless(evidence.what), harmless(evidence.value)))
    rows.append(_labelled("means", row.means))
    if finding.remedy:
        rows.append(_labelled("repair", terminal.paint(harmless(finding.remedy), "cyan"), wrap=False))
    rows.append(_labelled("more", f"envdoctor explain {finding.code}", wrap=False))
    told = ""
    for alternative in explained.alternatives:
        other = condition(alternative)
        rows.append(_labelled("or", f"{other.code} {other.title}"))
        if other.see and other.see[0] != told:
            told = other.see[0]
            rows.append(_labelled("", f"if so, it shows in: {other.see[0]}", wrap=False))
    if explained.alternatives:
        rows.append(_labelled("", "The log cannot tell these apart: run `envdoctor check` on that machine."))
    for effect in explanation.findings:
        if index in effect.because:
            branch = terminal.symbol("branch")
            said = f"{effect.finding.code}  {harmless(effect.finding.message)}"
            rows.append(terminal.paint(f"    {branch} {said}   line {_numbers(effect)}", "dim"))
    return rows


def _numbers(explained: Explained) -> str:
    shown = ", ".join(str(n) for n in explained.lines[:_NUMBERS])
    rest = len(explained.lines) - _NUMBERS
    return shown + (f" and {rest} more" if rest > 0 else "")


def _labelled(label: str, text: str, *, wrap: bool = True) -> str:
    indent = " " * 20
    lines = textwrap.wrap(text, _width() - len(indent), break_long_words=False) if wrap else [text]
    return f"        {label:<11} " + f"\n{indent}".join(lines or [""])


def _fits(text: str, terminal: Terminal) -> str:
    return harmless(text) if terminal.unicode else harmless(text).encode("ascii", "backslashreplace").decode()


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def render_page(row: Condition, terminal: Terminal) -> str:
    """The page of a condition; `docs/conditions` has the same as Markdown.

    Commands stand alone on their lines and are never wrapped, so that they can be copied as they are.
    """
    head = f"{terminal.paint(row.code, 'bold', _COLOURS[row.severity])}  {row.name}  ({row.severity.value})"
    lines = [head, *_prose(row.title, terminal, "bold"), ""]
    lines += [*_prose(row.means, terminal), "", *_prose(row.why, terminal)]
    lines += _section("See it yourself", _commands(row.see, terminal), terminal)
    repairs: list[str] = []
    for repair in row.repairs:
        repairs += _prose(" ".join(_told(repair)), terminal)
        repairs += [*_commands(repair.commands, terminal), ""]
    lines += _section("Repair", repairs[:-1], terminal)
    for heading, codes in (("Follows from", row.follows_from), ("Leads to", leads_to(row))):
        lines += _section(heading, [f"    {c}  {condition(c).title}" for c in codes], terminal)
    lines += _section("Sources", [f"    {source}" for source in row.sources], terminal)
    text = "\n".join(lines) + "\n"
    return text if terminal.unicode else text.encode("ascii", "replace").decode()


def _told(repair: Repair) -> tuple[str, ...]:
    """The situation and the advice, with a colon where something follows."""
    said = tuple(text.rstrip(":") for text in (repair.situation, repair.advice) if text)
    if len(said) > 1:
        said = (f"{said[0]}:", *said[1:])
    colon = repair.commands and said and said[-1][-1] not in ".;!?"
    return (*said[:-1], f"{said[-1]}:") if colon else said


def _commands(commands: tuple[str, ...], terminal: Terminal) -> list[str]:
    return ["    " + terminal.paint(line, "cyan") for command in commands for line in command.splitlines()]


def _section(heading: str, lines: list[str], terminal: Terminal) -> list[str]:
    return ["", terminal.paint(heading, "bold"), *lines] if lines else []


def _prose(text: str, terminal: Terminal, *styles: str) -> list[str]:
    """Wrapped to the terminal; what Markdown has between backticks is painted, or keeps them without colours.

    A wrapped piece of code is painted on each of its lines.
    """
    lines, code = [], False
    for line in textwrap.wrap(text, _width(), break_long_words=False, break_on_hyphens=False):
        made = []
        for number, piece in enumerate(line.split("`")):
            code = code != (number > 0)
            made.append(terminal.paint(piece, "cyan") if code and piece else terminal.paint(piece, *styles))
        lines.append("".join(made) if terminal.colour else line)
    return lines


def _width() -> int:
    """Of the terminal (or of COLUMNS), within what reads well."""
    return min(_WIDTH, max(_NARROWEST, shutil.get_terminal_size((_WIDTH, 24)).columns))
