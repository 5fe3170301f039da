"""A command of a package tool, run on the user's word, with a journal of its own and a way back.

What a package tool does to files is its own affair. The journal says which distributions changed, and the way
back is the same tool's command that brings exactly their former versions.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

from msgspec import Struct

from envdoctor.errors import UsageError
from envdoctor.fixes import journal as log
from envdoctor.fixes.interrupts import Interrupts, deferred
from envdoctor.fixes.journal import CommandRun, Journal, State
from envdoctor.fixes.placing import FixError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from envdoctor.fixes.plan import Command

    Versions = Callable[[], dict[str, str]]  # the environment's distributions now: name → version

_TICK_SECONDS = 0.2


class Ran(Struct, frozen=True, kw_only=True):
    journal: str  # its id; "" where nothing changed
    status: int  # exit status; negative: the signal that ended it
    changed: dict[str, tuple[str, str]]  # distribution → version before and after; "" for none


class WayBack(Struct, frozen=True, kw_only=True):
    """The commands that undo one, and the distributions left as they are: changed again since."""

    commands: tuple[tuple[str, ...], ...]
    kept: tuple[str, ...]


def run(
    command: Command, state_dir: str, python: str, environment: Mapping[str, str], versions: Versions
) -> Ran:
    """Runs it to its end, its output on stderr. FixError where it cannot be started.

    A signal ends it too, and is raised when what it changed is in the journal.
    """
    with deferred() as interrupts, log.locked(state_dir):
        before = versions()
        writer = log.create(state_dir, (shlex.join(command.argv),))
        try:
            writer.run(CommandRun(argv=command.argv, python=python, before=before))
            try:
                status = _wait(command.argv, environment, interrupts)
            except OSError as error:
                writer.undone()
                raise FixError(f"{command.argv[0]}: {error.strerror}") from error
            after = versions()
            writer.ran(after)
            changed = _changed(before, after)
            if changed:
                writer.applied()
            else:
                writer.undone()
        finally:
            writer.close()
        return Ran(journal=writer.id if changed else "", status=status, changed=changed)


def way_back(journal: Journal, now: Mapping[str, str]) -> WayBack:
    """What brings the versions that were there before. UsageError for a tool that keeps its own history."""
    done = journal.command
    if done is None:
        raise ValueError(f"{journal.id} has no command")
    changed = _changed(done.before, now if done.after is None else done.after)
    kept = tuple(
        f"{name} is {now.get(name) or 'gone'} now"
        for name, (_, made) in changed.items()
        if now.get(name, "") != made
    )
    mine = {name: old for name, (old, made) in changed.items() if now.get(name, "") == made}
    tool = _tool(done)
    wanted = [f"{name}=={old}" for name, old in mine.items() if old]
    added = [name for name, old in mine.items() if not old]
    commands: list[tuple[str, ...]] = []
    if added:
        agree = () if tool[0] == "uv" else ("-y",)
        commands.append((*tool, "uninstall", *_python(tool, done), *agree, *added))
    if wanted:  # last: what was removed may have taken files of these along
        commands.append((*tool, "install", *_python(tool, done), "--no-deps", *wanted))
    return WayBack(commands=tuple(commands), kept=kept)


def take_back(journal: Journal, state_dir: str, way: WayBack, environment: Mapping[str, str]) -> None:
    """Runs the commands. FixError where one fails: the journal can then be taken back again."""
    with deferred() as interrupts, log.locked(state_dir):
        for argv in way.commands:
            try:
                status = _wait(argv, environment, interrupts)
            except OSError as error:
                raise FixError(f"{argv[0]}: {error.strerror}") from error
            interrupts.check()
            if status:
                raise FixError(f"`{shlex.join(argv)}` ended with {status}")
        writer = log.resume(journal)
        try:
            if journal.state is State.APPLIED:
                writer.undoing()
            writer.undone()
        finally:
            writer.close()


def _tool(done: CommandRun) -> tuple[str, ...]:
    argv = done.argv
    if argv[0] == "uv":
        return ("uv", "pip")
    if "pip" in argv[:3]:
        return argv[: argv.index("pip") + 1]
    raise UsageError(
        f"`{shlex.join(argv)}` is taken back by its own tool: "
        f"`conda list -p {shlex.quote(os.path.dirname(os.path.dirname(done.python)))} --revisions` shows the "
        "state before it, and `conda install --revision N` brings it back"
    )


def _python(tool: Sequence[str], done: CommandRun) -> tuple[str, ...]:
    return ("--python", done.python) if tool[0] == "uv" else ()


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    names = sorted({*before, *after})
    pairs = {name: (before.get(name, ""), after.get(name, "")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _wait(argv: Sequence[str], environment: Mapping[str, str], interrupts: Interrupts) -> int:
    """The exit status. Ctrl-C reaches the command by itself, other signals are passed on."""
    child = subprocess.Popen(
        argv, env=dict(environment), stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno()
    )
    told = False
    while True:
        try:
            return child.wait(_TICK_SECONDS)
        except subprocess.TimeoutExpired:
            if interrupts.pending is not None and not told:
                child.send_signal(interrupts.pending)
                told = True
