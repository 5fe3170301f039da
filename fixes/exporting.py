"""An export as a repair: where it is written so that the target reads it, and the facts as they would be."""

from __future__ import annotations

from msgspec.structs import replace

from envdoctor.facts.model import Facts, Interpreter
from envdoctor.fixes import kernels
from envdoctor.fixes.exports import (
    conda_directories,
    conda_edits,
    extended,
    file_edits,
    unexportable,
    venv_edits,
)
from envdoctor.fixes.plan import Action, Destination, Export, FileEdit, Join, Manual, Risk
from envdoctor.fixes.repair import Repair, Wishes
from envdoctor.shell import quoted


def export(
    facts: Facts,
    code: str,
    wishes: Wishes,
    variable: str,
    values: tuple[str, ...],
    join: Join = Join.PATH,
    *,
    summary: str,
    reason: str,
    risk: Risk = Risk.LOW,
) -> Repair | None:
    """`values` for `variable`, kept where the target reads it; None where that cannot be or changes nothing.

    To the user's own file if one is named, else to what enters the environment; a system Python has nothing
    of the kind, and the line is printed. The environment's notebook kernels get a search path too.
    """
    held = facts.environment.get(variable, "")
    value = extended(held, values, join)
    if unexportable(variable, values, join) or value == held:
        return None
    destination, edits = _place(facts, wishes.to, variable, values, join)
    prefix = facts.interpreter.prefix if isinstance(facts.interpreter, Interpreter) else ""
    after = replace(
        facts,
        environment={**facts.environment, variable: value},
        editable={**facts.editable, **{edit.path: edit.after for edit in edits}},
    )
    action: Action = Export(
        code=code,
        summary=summary,
        risk=risk,
        reason=reason,
        variable=variable,
        values=values,
        join=join,
        destination=destination,
        edits=edits,
        directories=conda_directories(prefix) if destination is Destination.CONDA else (),
    )
    if not edits and destination is not Destination.PRINT:
        action = _enter_again(code, variable, destination, wishes.to or prefix)
    actions = [action]
    if variable == kernels.VARIABLE and destination is not Destination.FILE:
        for kernel in kernels.in_need(after, after.environment):
            repair = kernels.with_variable(after, kernel, code, variable, kernels.needed(after))
            if repair is not None:
                actions += repair.actions
                after = repair.after
    return Repair(tuple(actions), after)


def _place(
    facts: Facts, to: str, variable: str, values: tuple[str, ...], join: Join
) -> tuple[Destination, tuple[FileEdit, ...]]:
    """ValueError where envdoctor's marks in a file were tampered with."""
    interpreter = facts.interpreter
    if to:
        return Destination.FILE, file_edits(to, variable, values, join, facts.editable)
    if isinstance(interpreter, Interpreter) and interpreter.kind == "conda":
        return Destination.CONDA, conda_edits(interpreter.prefix, variable, values, join, facts.editable)
    if isinstance(interpreter, Interpreter) and f"{interpreter.prefix}/bin/activate" in facts.editable:
        return Destination.VENV, venv_edits(interpreter.prefix, variable, values, join, facts.editable)
    return Destination.PRINT, ()


def _enter_again(code: str, variable: str, destination: Destination, where: str) -> Manual:
    """The export is written already, and this shell has not read it."""
    enter = {
        Destination.VENV: f". {quoted(f'{where}/bin/activate')}",
        Destination.CONDA: f"conda deactivate && conda activate {quoted(where)}",
    }
    return Manual(
        code=code,
        summary=f"{where} sets {variable} already, and this shell has not read it",
        command=enter.get(destination, f"start the program again with what {where} says"),
    )
