"""The only place that changes the machine: applies a plan, and takes it back, step by journaled step.

A step is begun in the journal, done, and marked done. To take one back, the world is asked, not the marks: a
path that is as the step left it is put back, one that is as it was before stays. So an apply or an undo that
was killed anywhere is ended by the same function. What is neither is somebody else's work: then nothing at
all is changed, and the reasons are told.

The operations on the disk, and whom they trust, are in `placing.py`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import shlex
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from envdoctor.errors import UsageError
from envdoctor.fixes import journal as log
from envdoctor.fixes import placing
from envdoctor.fixes.interrupts import deferred
from envdoctor.fixes.journal import (
    CommandRun,
    DirectoryStep,
    FileState,
    FileStep,
    Journal,
    LinkStep,
    Record,
    State,
)
from envdoctor.fixes.placing import Directory, FixError, Link, Seen
from envdoctor.fixes.plan import Automatic, Command, Export, FileEdit, Kernelspec, Manual, Plan, Symlink

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Applied", "FixError", "RefusedError", "Undone", "apply", "recover", "undo"]

NEW_FILE_MODE = 0o644


class RefusedError(FixError):
    """Found out before anything was touched: each path, and why not."""

    def __init__(self, reasons: Iterable[tuple[str, str]]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("; ".join(f"{path}: {why}" for path, why in self.reasons))


class Applied(Struct, frozen=True, kw_only=True):
    journal: str  # its id; "" where the plan had nothing to do here
    changed: tuple[str, ...]


class Undone(Struct, frozen=True, kw_only=True):
    journal: str
    was_applied: bool  # False: an interrupted fix was rolled back
    changed: tuple[str, ...]
    kept: tuple[tuple[str, str], ...]  # paths left as they are, and why


# --- the three operations ---------------------------------------------------------------------------


def apply(plan: Plan, state_dir: str) -> Applied:
    """Does the whole plan or nothing of it. Raises FixError, UsageError, Interrupted."""
    operations = _operations(plan)
    if not operations:
        return Applied(journal="", changed=())
    with deferred() as interrupts, log.locked(state_dir):
        _recover(state_dir)
        problems = _problems(operations)
        if problems:
            raise RefusedError(problems)
        done = tuple(action.summary for action in plan.actions if isinstance(action, Automatic))
        writer = log.create(state_dir, done)
        changed: list[str] = []
        try:
            for number, operation in enumerate(operations):
                interrupts.check()
                if _do(operation, writer, f".envdoctor-{writer.id}-{number}"):
                    changed.append(_path(operation))
            interrupts.check()
            writer.applied()
        except BaseException as error:  # noqa: BLE001  raised again, whatever it is
            _roll_back(log.load(state_dir, writer.id), error)
        finally:
            writer.close()
        return Applied(journal=writer.id, changed=tuple(changed))


def undo(state_dir: str, journal_id: str | None = None) -> Undone:
    """Takes back an interrupted fix, else the named or the last applied one; all of it or nothing."""
    if not log.list_journals(state_dir):
        raise UsageError(f"there is nothing to undo: {state_dir} has no journal")
    with deferred(), log.locked(state_dir):
        for undone in _recover(state_dir):
            if journal_id in (None, undone.journal):
                return undone
        journal = _chosen(state_dir, journal_id)
        try:
            return _revert(journal)
        except OSError as error:
            raise _unfinished(journal, error) from error


def recover(state_dir: str) -> tuple[Undone, ...]:
    """Takes back what an earlier run left half done, the newest first. Makes nothing where nothing is."""
    if all(journal.state is not State.OPEN for journal in log.list_journals(state_dir)):
        return ()
    with deferred(), log.locked(state_dir):
        return _recover(state_dir)


def _chosen(state_dir: str, journal_id: str | None) -> Journal:
    if journal_id is not None:
        journal = log.load(state_dir, journal_id)
        if journal.state is State.UNDONE:
            raise UsageError(f"{journal.id} was taken back already")
        return journal
    applied = [journal for journal in log.list_journals(state_dir) if journal.state is State.APPLIED]
    if not applied:
        raise UsageError("there is nothing to undo: every fix was taken back already")
    return applied[-1]


def _recover(state_dir: str) -> tuple[Undone, ...]:
    undone: list[Undone] = []
    for journal in reversed(log.list_journals(state_dir)):
        if journal.state is State.OPEN:
            try:
                undone.append(_revert(journal))
            except (OSError, RefusedError) as error:
                raise _unfinished(journal, error) from error
    return tuple(undone)


def _roll_back(journal: Journal, error: BaseException) -> None:
    """Always raises: what stopped the fix, in the words that its end deserves."""
    try:
        _revert(journal, rolling_back=True)
    except (OSError, RefusedError) as second:
        raise _unfinished(journal, second) from error
    if isinstance(error, (OSError, FixError)):
        raise FixError(f"{_reason(error)}; everything done so far was put back") from error
    raise error


def _unfinished(journal: Journal, error: Exception) -> FixError:
    return FixError(
        f"{_reason(error)}; because of that, part of {journal.id} still stands: put it right and run "
        f"`envdoctor undo` again, or keep that part and delete {journal.path}"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


# --- forth ------------------------------------------------------------------------------------------

_Operation = Symlink | FileEdit | str  # str: a directory to be made where it is absent


def _operations(plan: Plan) -> list[_Operation]:
    operations: list[_Operation] = []
    for action in plan.actions:
        match action:
            case Symlink():
                operations.append(action)
            case Export(directories=directories, edits=edits):
                operations += [*directories, *edits]
            case Kernelspec(edits=edits):
                operations += edits
            case Command() | Manual():  # on a word of their own; left to the user
                pass
    return operations


def _path(operation: _Operation) -> str:
    return operation if isinstance(operation, str) else operation.path


def _problems(operations: Sequence[_Operation]) -> list[tuple[str, str]]:
    """Why these cannot be done, each judged on the world that the ones before it leave."""
    problems: list[tuple[str, str]] = []
    world: dict[str, Seen] = {}
    for operation in operations:
        path = _path(operation)
        if not path.startswith("/") or posixpath.normpath(path) != path:
            problems.append((path, "is not a plain absolute path"))
            continue
        try:
            if isinstance(world.get(posixpath.dirname(path)), Directory):
                _object(operation, world.get(path))
            else:
                with placing.parent(path) as place:
                    seen = world[path] if path in world else placing.look(place)
                    _object(operation, seen)
                    if isinstance(seen, FileState) and path not in world:
                        placing.check_replaceable(place, seen)
                    if isinstance(operation, str) and seen is not None:
                        continue  # it is there: what goes into it is judged on the disk
        except (OSError, FixError) as error:
            problems.append((path, error.strerror or "" if isinstance(error, OSError) else str(error)))
            continue
        match operation:
            case str():
                world[path] = Directory()
            case Symlink(target=target):
                world[path] = Link(target)
            case FileEdit(after=after):
                world[path] = FileState(data=after, mode=NEW_FILE_MODE, mtime_ns=0, uid=0, gid=0)
    return problems


def _object(operation: _Operation, seen: Seen) -> None:
    match operation, seen:
        case (str(), None | Directory()) | (Symlink() | FileEdit(before=None), None):
            return
        case FileEdit(before=bytes(before)), FileState(data=data):
            if data == before:
                return
            raise FixError("has changed since the plan was made")
        case FileEdit(), None:
            raise FixError("is gone since the plan was made")
        case _:
            raise FixError(f"{placing.describe(seen)} stands there, which envdoctor did not make")


def _do(operation: _Operation, writer: log.Writer, temporary: str) -> bool:
    """One step, journaled; False where there is nothing to do."""
    with placing.parent(_path(operation)) as place:
        seen = placing.look(place)
        try:
            _object(operation, seen)
        except FixError as error:
            raise FixError(f"{place.path}: {error}") from error
        match operation:
            case str():
                if seen is not None:
                    return False
                writer.begin(DirectoryStep(path=place.path, parent_mtime_ns=place.mtime_ns))
                placing.make_directory(place)
            case Symlink(target=target):
                writer.begin(LinkStep(path=place.path, target=target, parent_mtime_ns=place.mtime_ns))
                placing.make_link(place, target)
            case FileEdit(after=after):
                before = seen if isinstance(seen, FileState) else None
                mode = before.mode if before else NEW_FILE_MODE
                step = FileStep(
                    path=place.path,
                    before=before,
                    after_sha256=hashlib.sha256(after).hexdigest(),
                    after_mode=mode,
                    temporary=temporary,
                    parent_mtime_ns=place.mtime_ns,
                )
                writer.begin(step)
                placing.put_file(place, temporary, after, mode=mode, replaced=before)
        os.fsync(place.fd)
        writer.done(os.fstat(place.fd).st_mtime_ns)
    return True


# --- and back ---------------------------------------------------------------------------------------


def _revert(journal: Journal, *, rolling_back: bool = False) -> Undone:
    """Puts back whatever stands of a journal, in reverse; RefusedError before anything where it cannot."""
    if journal.command is not None:
        return _leave(journal, journal.command)
    kept = _judge(journal)
    writer = log.resume(journal)
    try:
        if journal.state is State.APPLIED:
            writer.undoing()
        changed: list[str] = []
        for record in reversed(journal.records):
            path = record.step.path
            if path in kept:
                continue
            try:
                if _take_back(record):
                    changed.append(path)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                kept[path] = "holds files that envdoctor did not make"
        # On a full disk the mark may fail; what was put back is put back, and the next run marks it.
        with suppress(*[OSError] if rolling_back else []):
            writer.undone()
    finally:
        writer.close()
    return Undone(
        journal=journal.id,
        was_applied=journal.was_applied,
        changed=tuple(dict.fromkeys(changed)),
        kept=tuple(kept.items()),
    )


def _leave(journal: Journal, command: CommandRun) -> Undone:
    """A package tool's command that was interrupted: nobody can say here what it did."""
    writer = log.resume(journal)
    try:
        writer.undone()
    finally:
        writer.close()
    why = f"it was interrupted; `envdoctor check` judges what it left, {journal.path} has the versions before"
    return Undone(journal=journal.id, was_applied=False, changed=(), kept=((shlex.join(command.argv), why),))


def _judge(journal: Journal) -> dict[str, str]:
    """RefusedError where the world has changed since; else the paths whose directory went away, and why."""
    problems: dict[str, str] = {}
    gone: dict[str, str] = {}
    world: dict[str, Seen] = {}
    for record in reversed(journal.records):
        step = record.step
        try:
            with placing.parent(step.path) as place:
                seen = world[step.path] if step.path in world else placing.look(place)
        except (FileNotFoundError, NotADirectoryError):
            gone[step.path] = "its directory is gone, and what was done in it"
            continue
        except (OSError, FixError) as error:
            problems.setdefault(step.path, _reason(error))
            continue
        before = step.before if isinstance(step, FileStep) else None
        why = _changed_since(step, seen)
        if why and not _same(before, seen):
            problems.setdefault(step.path, why)
        world[step.path] = seen if why else before
    if problems:
        raise RefusedError(problems.items())
    return gone


def _same(before: FileState | None, seen: Seen) -> bool:
    if before is None:
        return seen is None
    return isinstance(seen, FileState) and seen.data == before.data


def _changed_since(step: log.Step, seen: Seen) -> str:
    """How what stands there differs from what the step made; "" where it does not."""
    match step, seen:
        case LinkStep(target=target), Link(target=now):
            return "" if now == target else f"the link was changed since: it leads to {now}, not to {target}"
        case DirectoryStep(), Directory():
            return ""
        case FileStep(), FileState(data=data, mode=mode):
            if hashlib.sha256(data).hexdigest() != step.after_sha256:
                return "the file was changed since"
            return "" if mode == step.after_mode else "the file's permissions were changed since"
        case _, None:
            return "it is gone"
        case _:
            return f"{placing.describe(seen)} stands there now, which envdoctor did not make"


def _take_back(record: Record) -> bool:
    """Whether there was something to take back. Judged anew, on the directory that is then changed."""
    step = record.step
    with placing.parent(step.path) as place:
        # A directory may look untouched only where nobody changed it since; an unmarked step is fresh.
        restore_time = record.parent_mtime_ns in (None, place.mtime_ns)
        leftover = isinstance(step, FileStep) and placing.remove_file(place, step.temporary)
        stands = not _changed_since(step, placing.look(place))
        if stands:
            match step:
                case LinkStep():
                    os.unlink(place.name, dir_fd=place.fd)
                case DirectoryStep():
                    os.rmdir(place.name, dir_fd=place.fd)
                case FileStep(before=None):
                    os.unlink(place.name, dir_fd=place.fd)
                case FileStep(before=before, temporary=temporary):
                    assert before is not None
                    placing.put_file(
                        place,
                        temporary,
                        before.data,
                        mode=before.mode,
                        replaced=before,
                        mtime_ns=before.mtime_ns,
                    )
        if (stands or leftover) and restore_time:
            os.utime(place.fd, ns=(place.atime_ns, step.parent_mtime_ns))
        os.fsync(place.fd)
    return stands
