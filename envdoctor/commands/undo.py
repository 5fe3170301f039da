"""`envdoctor undo`: take back a fix exactly, or say why not."""

from __future__ import annotations

import os
import sys

import click

from envdoctor import __version__
from envdoctor.errors import UsageError
from envdoctor.fixes.executor import undo
from envdoctor.fixes.journal import State, list_journals, state_directory
from envdoctor.fixes.placing import FixError
from envdoctor.report.envelope import FORMAT_VERSION, encode
from envdoctor.report.terminal import Terminal, harmless


def run_list(*, as_json: bool) -> int:
    journals = list_journals(state_directory(os.environ))
    if as_json:
        rows = [{"journal": j.id, "state": j.state.value, "actions": j.actions} for j in journals]
        click.echo(encode({**_envelope(), "journals": rows}), nl=False)
        return 0
    for journal in journals:
        click.echo(f"{journal.id}  {journal.state.value:<8} {harmless('; '.join(journal.actions))}")
    if not journals:
        click.echo("No fix was made yet.")
    return 0


def run_undo(journal_id: str | None, terminal: Terminal, *, yes: bool, as_json: bool) -> int:
    state = state_directory(os.environ)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("undo asks before it changes anything, and stdin is no terminal; expected --yes")
        open_ones = [j for j in list_journals(state) if j.state is not State.UNDONE]
        last = next((j for j in reversed(open_ones) if journal_id in {None, j.id}), None)
        if last is not None:
            click.echo(f"{last.id}: {harmless('; '.join(last.actions))}")
            click.confirm("Take this back?", abort=True)
    try:
        undone = undo(state, journal_id)
    except FixError as error:
        if as_json:
            click.echo(encode({**_envelope(), "changed": False, "failed": True, "msg": str(error)}), nl=False)
        else:
            click.echo(f"Nothing was changed: {harmless(str(error))}", err=True)
        return 1
    msg = f"took back {undone.journal}" + ("" if undone.was_applied else " (it had been interrupted)")
    if as_json:
        document = {
            **_envelope(),
            "plan": [],
            "changed": bool(undone.changed),
            "failed": False,
            "msg": msg,
            "diff": "".join(f"- {path}\n" for path in undone.changed),
            "journal": undone.journal,
            "kept": undone.kept,
        }
        click.echo(encode(document), nl=False)
        return 0
    for path in undone.changed:
        click.echo("  " + terminal.paint(f"- {harmless(path)}", "red"), color=True)
    for path, why in undone.kept:
        click.echo(f"  kept {harmless(path)}: {harmless(why)}")
    click.echo(msg[0].upper() + msg[1:] + ".")
    return 0


def _envelope() -> dict[str, object]:
    return {"format_version": FORMAT_VERSION, "tool_version": __version__, "target": None}
