"""Conditions of envdoctor itself: the checks that others add to it."""

from __future__ import annotations

from envdoctor.catalog.condition import Condition, Repair, Severity

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        code="PLG001",
        name="plugin-failed",
        severity=Severity.WARNING,
        title="A plugin of envdoctor could not be used",
        means=(
            "A package offers checks in the entry-point group envdoctor.checks, and importing it or running "
            "one of its checks failed: what it would have looked for was not looked for."
        ),
        why="A check that is silently missing reads like a check that passed.",
        see=(
            (
                "python -c 'from importlib.metadata import entry_points; "
                'print(entry_points(group="envdoctor.checks"))\''
            ),
        ),
        repairs=(Repair("", "Update or uninstall the package that the finding names, or tell its authors."),),
        sources=("packaging.python.org, entry points specification",),
    ),
)
