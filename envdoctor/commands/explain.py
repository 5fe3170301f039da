"""`envdoctor explain`: the causes in a log, or the page of a condition."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable

import click

from envdoctor import __version__
from envdoctor.catalog import Condition, Severity, find, rows
from envdoctor.catalog.page import render_markdown
from envdoctor.diagnose import diagnose
from envdoctor.errors import UsageError
from envdoctor.explain.explanation import Explanation, explain
from envdoctor.explain.joining import PAST, join
from envdoctor.explain.reading import display_name, read_log
from envdoctor.facts.model import Facts
from envdoctor.report.envelope import FORMAT_VERSION, encode
from envdoctor.report.explain_text import render_explanation, render_page
from envdoctor.report.terminal import Terminal, harmless

CLEAN, FINDINGS = 0, 1
_NEAREST = 3  # names that are offered
_ALIKE = 0.5  # how alike a code must be, of 1: half of its characters


def run_explain(
    what: str,
    terminal: Terminal,
    *,
    as_json: bool,
    gather: Callable[[], Facts] | None = None,
) -> int:
    """Answer for a file, "-", a code or a name; `gather` gives the facts of this machine (`--check`).

    Raises:
        UsageError: it is none of these, or the file is not the text of a log.

    """
    row = find(what)
    if what != "-" and not os.path.exists(what):
        if row is None:
            raise UsageError(_not_known(what))
        if gather:
            raise UsageError(f"--check joins a log and this machine; {what} is a condition, not a log file")
        _print_page(row, terminal, as_json=as_json)
        return CLEAN
    if row is not None:
        _warn(f"{what} is a file here, and is read as a log (the page: envdoctor explain {row.name})")
    explanation = explain(read_log(what, sys.stdin.buffer, _warn))
    facts = gather() if gather else None
    if facts:
        explanation = join(explanation, diagnose(facts))
    if as_json:
        click.echo(encode(explain_document(explanation, facts)), nl=False)
    else:
        click.echo(render_explanation(explanation, display_name(what), terminal), nl=False, color=True)
    return exit_code(explanation)


def exit_code(explanation: Explanation) -> int:
    """1 where a finding is an error that is not past."""
    errors = [e for e in explanation.findings if e.finding.severity is Severity.ERROR and e.status != PAST]
    return FINDINGS if errors else CLEAN


def explain_document(explanation: Explanation, facts: Facts | None = None) -> dict[str, object]:
    """The answer of `explain --json`; without facts no machine is its target."""
    return {
        "format_version": FORMAT_VERSION,
        "tool_version": __version__,
        "target": facts.target if facts else None,
        "healthy": explanation.healthy,
        "findings": [
            {
                "code": e.finding.code,
                "name": e.finding.condition.name,
                "severity": e.finding.severity.value,
                "subject": e.finding.subject,
                "framework": e.finding.framework or None,
                "message": e.finding.message,
                "evidence": [
                    {"what": v.what, "value": v.value, "source": v.source} for v in e.finding.evidence
                ],
                "because": list(e.because),
                "fixable": False,
                "remedy": e.finding.remedy,
                "lines": list(e.lines),
                "confidence": e.confidence.value,
                "alternatives": [
                    {
                        "code": code,
                        "name": row.name,
                        "decided_by": row.see[0] if row.see else "envdoctor check",
                    }
                    for code in e.alternatives
                    if (row := find(code))
                ],
                **({"status": e.status} if e.status else {}),
            }
            for e in explanation.findings
        ],
        "noise": [{"kind": n.kind, "lines": n.lines, "first": n.first} for n in explanation.noise],
        "unexplained": [{"line": number, "text": text} for number, text in explanation.unexplained],
    }


def _warn(said: str) -> None:
    click.echo(harmless(f"envdoctor: {said}"), err=True)


def _print_page(row: Condition, terminal: Terminal, *, as_json: bool) -> None:
    if as_json:
        document = {
            "format_version": FORMAT_VERSION,
            "tool_version": __version__,
            "target": None,
            "condition": row,
            "page": render_markdown(row),
        }
        click.echo(encode(document), nl=False)
    else:
        click.echo(render_page(row, terminal), nl=False, color=True)


def _not_known(what: str) -> str:
    near = nearest(os.path.basename(what))
    hint = f"the nearest: {', '.join(near)}" if near else "all of them: envdoctor check --list-checks"
    return f"{what} is no file here, and no code or name of a condition; {hint}"


def nearest(word: str) -> list[str]:
    """Names that have the word in them, then codes and names that are written nearly like it."""
    names = [row.name for row in rows()]
    within = [name for name in names if len(word) > 2 and word.lower() in name]
    codes = difflib.get_close_matches(word.upper(), [row.code for row in rows()], _NEAREST, _ALIKE)
    alike = difflib.get_close_matches(word.lower(), names, _NEAREST)
    return list(dict.fromkeys((*within, *codes, *alike)))[:_NEAREST]
