"""`envdoctor undo`: take back a fix exactly, or say why not."""

from __future__ import annotations

import os
import sys

import click

from envdoctor import __version__
from envdoctor.errors import UsageError
from envdoctor.fixes.executor import Undone, undo
from envdoctor.fixes.journal import CommandRun, Journal, State, list_journals, state_directory
from envdoctor.fixes.placing import FixError
from envdoctor.report.envelope import FORMAT_VERSION, encode
from envdoctor.report.terminal import Terminal, harmless
from envdoctor.shell import quoted


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
    journal = _chosen(state, journal_id)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("undo asks before it changes anything, and stdin is no terminal; expected --yes")
        if journal is not None:
            click.echo(f"{journal.id}: {harmless('; '.join(journal.actions))}", err=as_json)
            click.confirm("Take this back?", abort=True, err=as_json)
    try:
        if journal is not None and journal.command is not None and journal.state is State.APPLIED:
            undone = _run_back(journal, journal.command, state, yes=yes, as_json=as_json)
        else:
            undone = undo(state, journal_id)
    except FixError as error:
        if as_json:
            click.echo(encode({**_envelope(), "changed": False, "failed": True, "msg": str(error)}), nl=False)
        else:
            click.echo(f"Not taken back: {harmless(str(error))}", err=True)
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


def _chosen(state: str, journal_id: str | None) -> Journal | None:
    """The journal that `undo` will take back: an interrupted one first, else the named or the last one."""
    standing = [j for j in list_journals(state) if j.state is not State.UNDONE]
    standing.sort(key=lambda j: j.state is State.OPEN)  # stable: the last of all is what counts
    return next((j for j in reversed(standing) if journal_id in {None, j.id}), None)


def _run_back(journal: Journal, command: CommandRun, state: str, *, yes: bool, as_json: bool) -> Undone:
    """A package command is taken back by the command that brings the former versions: on a yes to it."""
    from envdoctor.facts.gather import installed_versions  # noqa: PLC0415
    from envdoctor.fixes import running  # noqa: PLC0415
    from envdoctor.target import choose_target  # noqa: PLC0415

    target = choose_target(command.python, None, dict(os.environ))
    way = running.way_back(journal, installed_versions(target))
    for argv in way.commands:
        line = " ".join(quoted(word) for word in argv)
        click.echo(harmless(line), err=as_json)
    if way.commands and not yes:
        click.confirm("Run this?", abort=True, err=as_json)
    running.take_back(journal, state, way, target.environment)
    return Undone(
        journal=journal.id,
        was_applied=True,
        changed=tuple(" ".join(argv) for argv in way.commands),
        kept=tuple((name, "it was changed again since") for name in way.kept),
    )


def _envelope() -> dict[str, object]:
    return {"format_version": FORMAT_VERSION, "tool_version": __version__, "target": None}
