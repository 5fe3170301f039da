"""Repairs for thread pools: how many threads each may start, where the user has not said it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from envdoctor.checks.threads import fitting_exports, pool_sizes
from envdoctor.facts.model import Facts
from envdoctor.finding import Finding
from envdoctor.fixes.exporting import export
from envdoctor.fixes.plan import Action, Join
from envdoctor.fixes.repair import Repair, Wishes


def fitting_pools(facts: Facts, finding: Finding, wishes: Wishes) -> Iterator[Repair]:
    """THR001: the pools that are too large get as many threads as this process may keep busy."""
    pools = {name: size for name, size in pool_sizes(facts).items() if name in finding.subject.split(", ")}
    yield from _limited(facts, finding, wishes, fitting_exports(facts, pools))


def smaller_pools(facts: Facts, finding: Finding, wishes: Wishes) -> Iterator[Repair]:
    """THR003: fitting pools where there is room for them, else one thread each."""
    fitting = fitting_exports(facts, pool_sizes(facts))
    yield from _limited(facts, finding, wishes, fitting)
    yield from _limited(facts, finding, wishes, dict.fromkeys(fitting, "1"))


def _limited(facts: Facts, finding: Finding, wishes: Wishes, exports: Mapping[str, str]) -> Iterator[Repair]:
    """All of them in one repair; a variable that is set stays as it is."""
    actions: tuple[Action, ...] = ()
    for variable, number in exports.items():
        repair = export(
            facts,
            finding.code,
            wishes,
            variable,
            (number,),
            Join.DEFAULT,
            summary=f"set {variable} to {number} where it is not set",
            reason="as many as this process may use now; a number that is set elsewhere counts before it",
        )
        if repair is not None:
            actions += repair.actions
            facts = repair.after
    if actions:
        yield Repair(actions, facts)
