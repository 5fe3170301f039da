"""`envdoctor env`: the exports of the plan, for a shell to evaluate; nothing is written."""

from __future__ import annotations

import json
import sys

import click
from msgspec.structs import replace

from envdoctor.catalog import Severity
from envdoctor.diagnose import Diagnosis, diagnose
from envdoctor.facts.model import Facts
from envdoctor.fixes.exports import shell_line
from envdoctor.fixes.joining import extended, merged
from envdoctor.fixes.plan import Export, Join, Plan, encode
from envdoctor.fixes.propose import propose
from envdoctor.fixes.repair import Prefer, Wishes
from envdoctor.report.terminal import harmless

Exports = dict[str, tuple[tuple[str, ...], Join]]  # by variable


def run_env(facts: Facts, shell: str) -> int:
    """0; 1 where an export is needed that this shell cannot hold."""
    # What an activation script holds already is needed here all the same: this shell has not read it.
    unread = replace(facts, editable={p: d for p, d in facts.editable.items() if p.endswith("/kernel.json")})
    proposal = propose(unread, diagnose(unread), Wishes(prefer=Prefer.EXPORT, exports_only=True))
    exports = _exports(proposal.plan)
    status = 0
    if shell == "json":
        held = {name: facts.environment.get(name, "") for name in exports}
        click.echo(json.dumps({name: extended(held[name], *how) for name, how in exports.items()}))
    else:
        for name, (values, join) in exports.items():
            try:
                _print(shell_line(name, values, join, shell))
            except ValueError as error:
                _remark(str(error))
                status = 1
            if shell == "dotenv" and facts.environment.get(name) and join is not Join.DEFAULT:
                _remark(f"such a line extends nothing: it replaces the {name} that is set here")
    _tell_what_is_left(proposal.after)
    return status


def _exports(plan: Plan) -> Exports:
    found: Exports = {}
    for action in plan.actions:
        if isinstance(action, Export):
            earlier, _ = found.get(action.variable, ((), action.join))
            found[action.variable] = merged(action.values, earlier, action.join), action.join
    return found


def _print(line: str) -> None:
    """The value's own bytes; to a terminal without its control characters, as nothing evaluates it there."""
    click.echo(harmless(line) if sys.stdout.isatty() else encode(line))


def _tell_what_is_left(after: Diagnosis) -> None:
    left = {
        linked.finding.code
        for linked in after.findings
        if not linked.because and linked.finding.severity is not Severity.NOTE
    }
    if left:
        _remark(f"no export cures {', '.join(sorted(left))}: `envdoctor check` says more")


def _remark(text: str) -> None:
    click.echo(harmless(f"envdoctor: {text}"), err=True)
