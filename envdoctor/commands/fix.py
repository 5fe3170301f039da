"""`envdoctor fix`: plan, ask, apply, check again."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field, replace

import click

from envdoctor.commands.progress import waiting
from envdoctor.diagnose import Diagnosis, diagnose
from envdoctor.errors import UsageError
from envdoctor.facts.editable import with_file
from envdoctor.facts.gather import gather, installed_versions
from envdoctor.facts.model import Facts, Interpreter
from envdoctor.fixes import running
from envdoctor.fixes.executor import apply, recover
from envdoctor.fixes.exports import extended
from envdoctor.fixes.journal import state_directory
from envdoctor.fixes.placing import FixError
from envdoctor.fixes.plan import Automatic, Command, Export, as_json, render_diff
from envdoctor.fixes.propose import Key, Proposal, key, keys, propose
from envdoctor.fixes.repair import Wishes
from envdoctor.report.envelope import encode, envelope, finding_rows
from envdoctor.report.plan_text import command_line, plan_lines, to_do
from envdoctor.report.terminal import Terminal, harmless
from envdoctor.report.text import render
from envdoctor.target import Target


@dataclass(frozen=True)
class Options:
    wishes: Wishes
    run: frozenset[str]  # codes whose package commands may be run without being asked about
    dry_run: bool
    exit_code: bool
    diff: bool
    yes: bool
    as_json: bool


@dataclass
class Outcome:
    """What was done, as it is done."""

    journal: str = ""
    changed: list[str] = field(default_factory=list)
    commands: list[dict[str, object]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def run_fix(target: Target, options: Options, terminal: Terminal) -> int:
    """0: nothing to do, or done and checked; 1: not repaired, or (dry run with --exit-code) pending."""
    state = "" if options.dry_run else state_directory(os.environ)
    if state:
        for undone in recover(state):  # before the facts are read: they would show what is half done
            click.echo(f"Rolled back {undone.journal}, which had been interrupted.", err=True)
            for what, why in undone.kept:
                click.echo(f"  kept {harmless(what)}: {harmless(why)}", err=True)
    facts = gather(target, quick=True)
    if options.wishes.to:
        facts = with_file(facts, target.root, options.wishes.to)
    diagnosis = diagnose(facts)
    proposal = propose(facts, diagnosis, options.wishes)
    automatic = [a for a in proposal.plan.actions if isinstance(a, Automatic)]
    commands = [a for a in proposal.plan.actions if isinstance(a, Command)]
    asked_for = [a for a in commands if a.code in options.run]
    if options.dry_run or not (automatic or commands):
        pending = bool(automatic or asked_for)
        return _show_only(facts, diagnosis, proposal, options, terminal, pending=pending)
    if not options.as_json:
        _print_plan(proposal, options, terminal)
    if not options.yes and not sys.stdin.isatty():
        raise UsageError(
            "fix asks before it changes anything, and stdin is no terminal; expected --yes or --dry-run"
        )
    outcome = Outcome()
    if automatic and (options.yes or click.confirm("Apply this?", err=options.as_json)):
        try:
            applied = apply(proposal.plan, state)
        except FixError as error:
            return _failed(facts, diagnosis, proposal, options, str(error))
        outcome.journal, outcome.changed = applied.journal, list(applied.changed)
        if outcome.journal and not options.as_json:
            click.echo(f"Applied. Take it back with: envdoctor undo {outcome.journal}")
    elif automatic:
        raise click.Abort
    for command in commands:
        if _wanted(command, options):
            _run(command, state, target, outcome, options)
    if not (outcome.changed or outcome.commands):
        return _show_only(facts, diagnosis, proposal, options, terminal, pending=False)
    return _check_again(target, diagnosis, proposal, options, outcome, terminal)


def _wanted(command: Command, options: Options) -> bool:
    """A yes to that very command: by --run with its code, or by the user at the terminal."""
    line = harmless(command_line(command))
    if command.code in options.run:
        return True
    if options.yes or not sys.stdin.isatty():
        click.echo(f"Not run, it needs a yes of its own (--run {command.code}): {line}", err=True)
        return False
    return click.confirm(f"Run this? {line}", err=options.as_json)


def _run(command: Command, state: str, target: Target, outcome: Outcome, options: Options) -> None:
    try:
        ran = running.run(
            command, state, target.python, target.environment, lambda: installed_versions(target)
        )
    except FixError as error:
        outcome.problems.append(str(error))
        return
    outcome.commands.append({"argv": command.argv, "status": ran.status, "journal": ran.journal or None})
    changes = [f"{name} {old or 'none'} → {new or 'none'}" for name, (old, new) in ran.changed.items()]
    outcome.changed += changes
    if ran.status:
        outcome.problems.append(f"`{command_line(command)}` ended with {ran.status}")
    if ran.journal and not options.as_json:
        click.echo(f"{', '.join(changes)}. Take it back with: envdoctor undo {ran.journal}")


def _check_again(
    target: Target,
    before: Diagnosis,
    proposal: Proposal,
    options: Options,
    outcome: Outcome,
    terminal: Terminal,
) -> int:
    """What is cured, what remains, what to restart, and how to undo."""
    started = time.perf_counter()
    with waiting("checking again", terminal):
        facts = gather(_as_after(target, proposal), quick=False)
    after = diagnose(facts)
    remains = sorted({code for code, *_ in repaired_findings(before, proposal, outcome) & keys(after)})
    problems = outcome.problems + ([f"{', '.join(remains)} is still there"] if remains else [])
    undo = f"envdoctor undo {outcome.journal}" if outcome.journal else "envdoctor undo"
    msg = "; ".join([*(problems or [f"{len(outcome.changed)} changed"]), f"undo with: {undo}"])
    if options.as_json:
        _print_json(
            facts,
            after,
            proposal,
            changed=bool(outcome.changed),
            failed=bool(problems),
            msg=msg,
            outcome=outcome,
        )
        return int(bool(problems))
    for problem in problems:
        click.echo(f"Not repaired: {harmless(problem)}", err=True)
    prefix = facts.interpreter.prefix if isinstance(facts.interpreter, Interpreter) else ""
    if outcome.journal:
        for line in to_do(proposal, prefix, options.wishes.to):
            click.echo(harmless(line))
    click.echo("\nChecked again:\n")
    seconds = time.perf_counter() - started
    click.echo(render(facts, after, propose(facts, after), terminal, seconds=seconds), nl=False, color=True)
    return int(bool(problems))


def repaired_findings(before: Diagnosis, proposal: Proposal, outcome: Outcome) -> set[Key]:
    """The findings that what was done should have cured; others of the same code may well be there still."""
    run = [done["argv"] for done in outcome.commands]
    return {
        key(linked.finding)
        for index, linked in enumerate(before.findings)
        if (outcome.journal and index in proposal.cures)
        or (linked.finding.commands and all(argv in run for argv in linked.finding.commands))
    }


def _as_after(target: Target, proposal: Proposal) -> Target:
    """The target as it is once its environment is entered anew: an export does not reach this shell."""
    environment = dict(target.environment)
    for action in proposal.plan.actions:
        if isinstance(action, Export):
            held = environment.get(action.variable, "")
            environment[action.variable] = extended(held, action.values, action.join)
    return replace(target, environment=environment)


def _show_only(
    facts: Facts,
    diagnosis: Diagnosis,
    proposal: Proposal,
    options: Options,
    terminal: Terminal,
    *,
    pending: bool,
) -> int:
    msg = "changes are pending" if pending else _nothing(proposal)
    if options.as_json:
        _print_json(facts, diagnosis, proposal, changed=pending and options.dry_run, failed=False, msg=msg)
    else:
        _print_plan(proposal, options, terminal)
        if not pending:
            click.echo(f"{msg[0].upper()}{msg[1:]}.")
        click.echo("Nothing was changed.")
    return int(pending and options.dry_run and options.exit_code)


def _nothing(proposal: Proposal) -> str:
    """Why nothing is changed without the user."""
    if any(isinstance(action, Command) for action in proposal.plan.actions):
        return "nothing is repaired without a command: `envdoctor fix` asks about each, `--run CODE` runs it"
    if proposal.plan.actions or proposal.refused:
        return "there is nothing that envdoctor may repair here by itself"
    return "there is nothing to repair"


def _failed(facts: Facts, diagnosis: Diagnosis, proposal: Proposal, options: Options, reason: str) -> int:
    if options.as_json:
        _print_json(facts, diagnosis, proposal, changed=False, failed=True, msg=reason)
    else:
        click.echo(f"Nothing was changed: {harmless(reason)}", err=True)
    return 1


def _print_plan(proposal: Proposal, options: Options, terminal: Terminal) -> None:
    for line in plan_lines(proposal, terminal, diff=options.diff):
        click.echo(line, color=True)


def _print_json(
    facts: Facts,
    diagnosis: Diagnosis,
    proposal: Proposal,
    *,
    changed: bool,
    failed: bool,
    msg: str,
    outcome: Outcome | None = None,
) -> None:
    document = {
        **envelope(facts),
        "plan": [as_json(action) for action in proposal.plan.actions],
        "refused": proposal.refused,
        "changed": changed,
        "failed": failed,
        "msg": msg,
        "diff": "".join(render_diff(action) for action in proposal.plan.actions),
        "journal": (outcome.journal or None) if outcome else None,
        "commands": outcome.commands if outcome else [],
        "findings": finding_rows(diagnosis.findings, frozenset() if outcome else proposal.cures),
    }
    click.echo(encode(document), nl=False)
