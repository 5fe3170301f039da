"""`envdoctor fix`: plan, ask, apply, check again."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass

import click

from envdoctor.commands.progress import waiting
from envdoctor.diagnose import Diagnosis, diagnose
from envdoctor.errors import UsageError
from envdoctor.facts.gather import gather
from envdoctor.facts.model import Facts
from envdoctor.fixes.executor import apply, recover
from envdoctor.fixes.exports import shell_line
from envdoctor.fixes.journal import state_directory
from envdoctor.fixes.placing import FixError
from envdoctor.fixes.plan import Destination, Export, Risk, as_json, render_diff
from envdoctor.fixes.propose import Prefer, Proposal, propose
from envdoctor.report.envelope import encode, envelope, finding_rows
from envdoctor.report.terminal import Terminal, harmless
from envdoctor.report.text import render
from envdoctor.target import Target


@dataclass(frozen=True)
class Options:
    only: frozenset[str]
    prefer: str
    allow_risky: bool
    dry_run: bool
    exit_code: bool
    yes: bool
    as_json: bool


def run_fix(target: Target, options: Options, terminal: Terminal) -> int:
    """0: nothing to do, or done and checked; 1: not repaired, or (dry run with --exit-code) pending."""
    state = "" if options.dry_run else state_directory(os.environ)
    if state:
        for undone in recover(state):  # before the facts are read: they would show what is half done
            click.echo(f"Rolled back {undone.journal}, which had been interrupted.", err=True)
    facts = gather(target, quick=True)
    diagnosis = diagnose(facts)
    proposal = propose(
        facts,
        diagnosis,
        prefer=Prefer(options.prefer),
        allow_risky=options.allow_risky,
        only=options.only,
    )
    if options.dry_run or not proposal.plan.actions:
        return _show_only(facts, diagnosis, proposal, options, terminal)
    if not options.as_json:
        _print_plan(proposal, terminal)
    if not options.yes:
        _ask()
    try:
        applied = apply(proposal.plan, state)
    except FixError as error:
        if options.as_json:
            _print_json(facts, diagnosis, proposal, changed=False, failed=True, msg=str(error))
        else:
            click.echo(f"Nothing was changed: {harmless(str(error))}", err=True)
        return 1
    started = time.perf_counter()
    with waiting("checking again", terminal):
        facts = gather(_as_after(target, proposal), quick=False)
    after = diagnose(facts)
    remains = {linked.finding.code for linked in after.findings} & _cured_codes(diagnosis, proposal)
    failed = bool(remains)
    changed = bool(applied.changed)
    msg = (
        f"{', '.join(sorted(remains))} is still there" if failed else f"{len(applied.changed)} changed"
    ) + (f"; undo with: envdoctor undo {applied.journal}" if applied.journal else "")
    if options.as_json:
        _print_json(facts, after, proposal, changed=changed, failed=failed, msg=msg, journal=applied.journal)
        return int(failed)
    if changed:
        click.echo(f"Applied. Take it back with: envdoctor undo {applied.journal}")
    for line in _to_do(proposal, target):
        click.echo(line)
    click.echo("\nChecked again:\n")
    seconds = time.perf_counter() - started
    click.echo(render(facts, after, propose(facts, after), terminal, seconds=seconds), nl=False, color=True)
    return int(failed)


def _show_only(
    facts: Facts, diagnosis: Diagnosis, proposal: Proposal, options: Options, terminal: Terminal
) -> int:
    pending = bool(proposal.plan.actions)
    msg = "changes are pending" if pending else "there is nothing that envdoctor can repair here"
    if options.as_json:
        _print_json(facts, diagnosis, proposal, changed=pending and options.dry_run, failed=False, msg=msg)
    elif pending:
        _print_plan(proposal, terminal)
        click.echo("Nothing was changed.")
    else:
        _print_refused(proposal)
        click.echo("There is nothing that envdoctor can repair here. `envdoctor check` says what is wrong.")
        click.echo("Nothing was changed.")
    if options.dry_run:
        return int(pending and options.exit_code)
    return 0


def _print_plan(proposal: Proposal, terminal: Terminal) -> None:
    for action in proposal.plan.actions:
        risk = "" if action.risk is Risk.NONE else f"  [risk: {action.risk.value}]"
        click.echo(f"{terminal.paint(action.code, 'bold')}  {harmless(action.summary)}{risk}", color=True)
        if action.reason:
            click.echo(f"  {harmless(action.reason)}")
        for line in render_diff(action).splitlines():
            style = {"+": "green", "-": "red", "~": "yellow"}.get(line[:1])
            click.echo("  " + terminal.paint(harmless(line), *([style] if style else [])), color=True)
        if isinstance(action, Export) and action.destination is Destination.PRINT:
            click.echo(f"  {harmless(shell_line(action.variable, action.prepend))}")
    _print_refused(proposal)


def _print_refused(proposal: Proposal) -> None:
    for refused in proposal.refused:
        click.echo(f"{refused.code}  not repaired ({harmless(refused.subject)}): {harmless(refused.reason)}")


def _ask() -> None:
    if not sys.stdin.isatty():
        raise UsageError(
            "fix asks before it changes anything, and stdin is no terminal; expected --yes or --dry-run"
        )
    click.confirm("Apply this?", abort=True)


def _as_after(target: Target, proposal: Proposal) -> Target:
    """The target as it is once its environment is entered anew: an export does not reach this shell."""
    environment = dict(target.environment)
    for action in proposal.plan.actions:
        if isinstance(action, Export):
            rest = environment.get(action.variable, "")
            environment[action.variable] = ":".join([*action.prepend, *([rest] if rest else [])])
    return Target(
        target.python, target.chosen_by, target.root, environment, target.gpu_required, target.timeout
    )


def _to_do(proposal: Proposal, target: Target) -> list[str]:
    """What the user has to do so that an export is seen."""
    lines = []
    for action in proposal.plan.actions:
        if not isinstance(action, Export):
            continue
        if action.destination is Destination.PRINT:
            lines.append(
                "Run this, or put it in your shell's start-up file: "
                + shell_line(action.variable, action.prepend)
            )
        else:
            prefix = os.path.dirname(os.path.dirname(target.python))
            lines.append(
                f"Activate the environment again ({prefix}) so that this shell has {action.variable}."
            )
    return lines


def _cured_codes(diagnosis: Diagnosis, proposal: Proposal) -> set[str]:
    return {diagnosis.findings[i].finding.code for i in proposal.cures}


def _print_json(
    facts: Facts,
    diagnosis: Diagnosis,
    proposal: Proposal,
    *,
    changed: bool,
    failed: bool,
    msg: str,
    journal: str = "",
) -> None:
    document = {
        **envelope(facts),
        "plan": [as_json(action) for action in proposal.plan.actions],
        "refused": proposal.refused,
        "changed": changed,
        "failed": failed,
        "msg": msg,
        "diff": "".join(render_diff(action) for action in proposal.plan.actions),
        "journal": journal or None,
        "findings": finding_rows(diagnosis.findings, proposal.cures if not journal else frozenset()),
    }
    click.echo(encode(document), nl=False)
