"""A plan of repairs as text: what one yes does, what is asked about by itself, what is left to the user."""

from __future__ import annotations

from collections.abc import Iterator

from envdoctor.fixes.exports import shell_line
from envdoctor.fixes.plan import (
    Automatic,
    Command,
    Destination,
    Export,
    Join,
    Kernelspec,
    Manual,
    Risk,
    Symlink,
    render_diff,
)
from envdoctor.fixes.propose import Proposal
from envdoctor.report.terminal import Terminal, harmless
from envdoctor.shell import quoted

_EXTENT = {
    Join.PATH: "before what it holds",
    Join.WORDS: "before what it holds",
    Join.DEFAULT: "where it holds nothing",
}
_ON_THEIR_OWN: dict[str, type[Command | Manual]] = {
    "Commands, each asked about by itself:": Command,
    "Left to you:": Manual,
}
_STYLES = {"+": "green", "-": "red", "~": "yellow"}


def plan_lines(proposal: Proposal, terminal: Terminal, *, diff: bool = False) -> Iterator[str]:
    """The plan; `diff`: with every line that is written, else only where and what it says."""
    actions = proposal.plan.actions
    for action in actions:
        if isinstance(action, Automatic):
            yield _title(action, terminal)
            if action.reason:
                yield f"  {harmless(action.reason)}"
            for line in render_diff(action).splitlines() if diff else _changes(action):
                style = _STYLES.get(line[:1])
                yield "  " + terminal.paint(harmless(line), *([style] if style else []))
            if isinstance(action, Export) and action.destination is Destination.PRINT:
                yield f"  {harmless(shell_line(action.variable, action.values, action.join))}"
    for refused in proposal.refused:
        yield f"{refused.code}  not repaired ({harmless(refused.subject)}): {harmless(refused.reason)}"
    for heading, kind in _ON_THEIR_OWN.items():
        listed = [action for action in actions if isinstance(action, kind)]
        if listed:
            yield terminal.paint(heading, "dim")
        for action in listed:
            yield _title(action, terminal)
            line = command_line(action) if isinstance(action, Command) else action.command
            yield f"  {harmless(line)}"


def _changes(action: Automatic) -> Iterator[str]:
    """One line for each place: `+` what is made, `~` what is changed."""
    match action:
        case Symlink(path=path, target=target):
            yield f"+ {path} -> {target}"
        case Export(edits=edits):
            for edit in edits:
                yield f"{'+' if edit.before is None else '~'} {edit.path}"
            if edits:
                yield f"    {action.variable}: {', '.join(action.values)}, {_EXTENT[action.join]}"
        case Kernelspec(edits=edits, environment=environment):
            for edit in edits:
                yield f"~ {edit.path}"
            for variable, value in environment.items():
                yield f'    "env": {{"{variable}": "{value}"}}'


def command_line(action: Command) -> str:
    return " ".join(quoted(word) for word in action.argv)


def to_do(proposal: Proposal, prefix: str, to: str) -> list[str]:
    """What the user has to do so that what was written is read."""
    again = "Activate the environment again in open shells: "
    lines: dict[str, None] = {}
    for action in proposal.plan.actions:
        match action:
            case Export(destination=Destination.PRINT):
                line = shell_line(action.variable, action.values, action.join)
                lines[f"Run this, or put it in your shell's start-up file: {line}"] = None
            case Export(destination=Destination.VENV):
                lines[f"{again}. {quoted(f'{prefix}/bin/activate')}"] = None
            case Export(destination=Destination.CONDA):
                lines[f"{again}conda deactivate && conda activate {quoted(prefix)}"] = None
            case Export(destination=Destination.FILE):
                allow = ", after `direnv allow`" if to.endswith(".envrc") else ""
                lines[f"Start anew what reads {to}{allow}."] = None
            case Kernelspec(kernel=kernel):
                lines[f"Restart the notebooks that run the kernel {kernel!r}."] = None
            case _:
                pass
    return list(lines)


def _title(action: Automatic | Command | Manual, terminal: Terminal) -> str:
    risk = "" if action.risk is Risk.NONE else f"  [risk: {action.risk.value}]"
    return f"{terminal.paint(action.code, 'bold')}  {harmless(action.summary)}{risk}"
