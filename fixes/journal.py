"""The journal of a fix: what is about to be done, on disk before it is done, and enough to undo it exactly.

One file per run, `journals/<id>.jsonl` in the state directory, a line per event: the header, `begin` with a
step, `done` after it, then `applied`, later perhaps `undoing` and `undone`. Every line is fsynced before the
next thing happens. A last line without newline is the mark of a crash while it was written: its event did not
happen. Anything else that does not read as a journal is refused.

The state directory is private (0700): a journal says which bytes to write where, so nobody else may write it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import time
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from envdoctor.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VERSION = 1
_ID = re.compile(r"\d{8}T\d{6}Z-(\d{4,})")


class BusyError(UsageError):
    """Another fix or undo is at work."""


class State(Enum):
    OPEN = "open"  # interrupted: applying or undoing it did not come to the end
    APPLIED = "applied"
    UNDONE = "undone"  # taken back, or rolled back


class FileState(Struct, frozen=True, kw_only=True):
    data: bytes
    mode: int
    mtime_ns: int
    uid: int
    gid: int


class LinkStep(Struct, frozen=True, kw_only=True, tag="link"):
    """Nothing stood at `path`; a link to `target` will."""

    path: str
    target: str
    parent_mtime_ns: int


class DirectoryStep(Struct, frozen=True, kw_only=True, tag="directory"):
    """Nothing stood at `path`; an empty directory will."""

    path: str
    parent_mtime_ns: int


class FileStep(Struct, frozen=True, kw_only=True, tag="file"):
    path: str
    before: FileState | None  # None: nothing stood at `path`
    after_sha256: str
    after_mode: int
    temporary: str  # name beside `path` that a crash may leave
    parent_mtime_ns: int


Step = LinkStep | DirectoryStep | FileStep


class CommandRun(Struct, frozen=True, kw_only=True):
    """A command of a package tool, alone in its journal: what it changed is told by the versions."""

    argv: tuple[str, ...]
    python: str  # of the environment that it changes
    before: dict[str, str]  # distribution → version
    after: dict[str, str] | None = None  # None: it did not come to its end


class Record(Struct, frozen=True, kw_only=True):
    """A step that was begun; `parent_mtime_ns` is the directory's after it, None where it was not done."""

    step: Step
    parent_mtime_ns: int | None = None


class Journal(Struct, frozen=True, kw_only=True):
    id: str
    path: str
    actions: tuple[str, ...]  # the summaries that the plan showed
    state: State
    was_applied: bool
    records: tuple[Record, ...]
    command: CommandRun | None
    size: int  # bytes of whole lines


class _Header(Struct, frozen=True, kw_only=True, tag="journal", tag_field="event"):
    version: int
    id: str
    actions: tuple[str, ...]


class _Begin(Struct, frozen=True, tag="begin", tag_field="event"):
    step: Step


class _Done(Struct, frozen=True, tag="done", tag_field="event"):
    parent_mtime_ns: int


class _Run(Struct, frozen=True, tag="run", tag_field="event"):
    command: CommandRun


class _Ran(Struct, frozen=True, tag="ran", tag_field="event"):
    after: dict[str, str]


class _Applied(Struct, frozen=True, tag="applied", tag_field="event"):
    pass


class _Undoing(Struct, frozen=True, tag="undoing", tag_field="event"):
    pass


class _Undone(Struct, frozen=True, tag="undone", tag_field="event"):
    pass


_Event = _Header | _Begin | _Done | _Run | _Ran | _Applied | _Undoing | _Undone


# --- reading ----------------------------------------------------------------------------------------


def parse(data: bytes, path: str) -> Journal:
    """The journal in `data`; UsageError with the line where it is not one."""
    size = data.rfind(b"\n") + 1
    header: _Header | None = None
    records: list[Record] = []
    command: CommandRun | None = None
    last: type[_Event] | None = None
    was_applied = False
    for number, line in enumerate(data[:size].split(b"\n")[:-1], 1):
        try:
            event = msgspec.convert(json.loads(line), _Event)  # msgspec's own parser takes no surrogates
        except (ValueError, msgspec.ValidationError) as error:
            raise _corrupt(path, number, str(error)) from error
        if last not in _FOLLOWS[type(event)]:
            raise _corrupt(path, number, f"`{_name(event)}` in the wrong place")
        last = type(event)
        match event:
            case _Header():
                if event.version != VERSION:
                    raise _corrupt(path, number, f"version {event.version}, this envdoctor knows {VERSION}")
                header = event
            case _Begin(step=step):
                records.append(Record(step=step))
            case _Done(parent_mtime_ns=mtime):
                records[-1] = Record(step=records[-1].step, parent_mtime_ns=mtime)
            case _Run():
                command = event.command
            case _Ran(after=after):
                assert command is not None  # `_FOLLOWS`
                command = replace(command, after=after)
            case _Applied():
                was_applied = True
            case _:
                pass
    if header is None or header.id != os.path.basename(path).removesuffix(".jsonl"):
        raise _corrupt(path, 1, "no header, or another journal's")
    state = {_Applied: State.APPLIED, _Undone: State.UNDONE}.get(last or _Header, State.OPEN)
    return Journal(
        id=header.id,
        path=path,
        actions=header.actions,
        state=state,
        was_applied=was_applied,
        records=tuple(records),
        command=command,
        size=size,
    )


_FOLLOWS: dict[type[_Event], tuple[type[_Event] | None, ...]] = {
    _Header: (None,),
    _Begin: (_Header, _Done),
    _Done: (_Begin,),
    _Run: (_Header,),
    _Ran: (_Run,),
    _Applied: (_Header, _Done, _Ran),
    _Undoing: (_Applied,),
    _Undone: (_Undoing, _Header, _Begin, _Done, _Run, _Ran),  # all but the first: rolled back
}


def _name(event: _Event) -> str:
    return str(msgspec.to_builtins(event)["event"])


def _corrupt(path: str, line: int, why: str) -> UsageError:
    return UsageError(
        f"{path}, line {line}: not a journal of envdoctor ({why}); move the file away to go on without it"
    )


def list_journals(state_dir: str) -> tuple[Journal, ...]:
    """All journals, oldest first. Makes nothing."""
    directory = os.path.join(state_dir, "journals")
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _unusable(state_dir, error) from error
    _check_private(state_dir)
    ids = [name.removesuffix(".jsonl") for name in names if name.endswith(".jsonl")]
    return tuple(
        load(state_dir, journal_id) for journal_id in sorted(filter(_ID.fullmatch, ids), key=_sequence)
    )


def _sequence(journal_id: str) -> int:
    """The running number counts, not the time: clocks are set back."""
    return int(journal_id.rpartition("-")[2])


def load(state_dir: str, journal_id: str) -> Journal:
    path = os.path.join(state_dir, "journals", f"{journal_id}.jsonl")
    if not _ID.fullmatch(journal_id):
        raise UsageError(f"{journal_id!r} is no journal id (`envdoctor undo --list` shows them)")
    try:
        with open(path, "rb") as file:
            return parse(file.read(), path)
    except FileNotFoundError:
        raise UsageError(f"there is no journal {journal_id} in {os.path.dirname(path)}") from None
    except OSError as error:
        raise _unusable(state_dir, error) from error


# --- the state directory ----------------------------------------------------------------------------


def state_directory(environ: Mapping[str, str]) -> str:
    """`$XDG_STATE_HOME/envdoctor`; the XDG specification has relative values ignored."""
    base = environ.get("XDG_STATE_HOME", "")
    if not base.startswith("/"):
        home = environ.get("HOME", "")
        if not home.startswith("/"):
            raise UsageError(
                "HOME is not set: set XDG_STATE_HOME to a directory that keeps envdoctor's journals"
            )
        base = os.path.join(home, ".local", "state")
    return os.path.join(base, "envdoctor")


@contextmanager
def locked(state_dir: str) -> Iterator[None]:
    """Makes the state directory and holds it alone; BusyError where another process does."""
    try:
        os.makedirs(os.path.dirname(state_dir), mode=0o700, exist_ok=True)
        for directory in (state_dir, os.path.join(state_dir, "journals")):
            if not os.path.isdir(directory):
                os.mkdir(directory, 0o700)
            _check_private(directory)
        lock = os.open(os.path.join(state_dir, "lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(state_dir, error) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"another envdoctor fix or undo is at work ({state_dir}): let it end first"
            ) from None
        except OSError as error:
            raise _unusable(state_dir, error) from error
        yield
    finally:
        os.close(lock)


def _check_private(directory: str) -> None:
    status = os.stat(directory, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise UsageError(
            f"{directory} must be a directory of yours that nobody else can write, because `undo` trusts "
            "what stands there: correct it, or set XDG_STATE_HOME to another directory"
        )


def _unusable(state_dir: str, error: OSError) -> UsageError:
    return UsageError(
        f"{error.filename or state_dir}: {error.strerror}: envdoctor keeps its journals in {state_dir}; "
        "set XDG_STATE_HOME to a directory that you can write"
    )


# --- writing ----------------------------------------------------------------------------------------


class Writer:
    """Appends to one journal; what was appended is on disk when the method returns."""

    def __init__(self, journal_id: str, fd: int, size: int) -> None:
        self.id = journal_id
        self._fd = fd
        self._size = size

    def begin(self, step: Step) -> None:
        self._append(_Begin(step))

    def done(self, parent_mtime_ns: int) -> None:
        self._append(_Done(parent_mtime_ns))

    def run(self, command: CommandRun) -> None:
        self._append(_Run(command))

    def ran(self, after: dict[str, str]) -> None:
        self._append(_Ran(after))

    def applied(self) -> None:
        self._append(_Applied())

    def undoing(self) -> None:
        self._append(_Undoing())

    def undone(self) -> None:
        self._append(_Undone())

    def close(self) -> None:
        os.close(self._fd)

    def _append(self, event: _Event) -> None:
        line = _line(event)
        try:
            _write(self._fd, line)
            os.fsync(self._fd)
            self._size += len(line)
        except BaseException:
            os.ftruncate(self._fd, self._size)  # no half a line before the next
            raise


def create(state_dir: str, actions: tuple[str, ...]) -> Writer:
    """A new journal, there with its header or not at all. The caller holds the lock."""
    directory = os.path.join(state_dir, "journals")
    numbers = [int(found[1]) for name in os.listdir(directory) if (found := _ID.match(name))]
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    journal_id = f"{stamp}-{max(numbers, default=0) + 1:04d}"
    path = os.path.join(directory, f"{journal_id}.jsonl")
    temporary = os.path.join(directory, "new")
    line = _line(_Header(version=VERSION, id=journal_id, actions=actions))
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW
    fd = -1
    try:
        fd = os.open(temporary, flags, 0o600)
        _write(fd, line)
        os.fsync(fd)
        os.rename(temporary, path)
        _fsync_directory(directory)
    except BaseException as error:
        if fd >= 0:
            os.close(fd)
        if isinstance(error, OSError):
            raise _unusable(state_dir, error) from error
        raise
    return Writer(journal_id, fd, len(line))


def resume(journal: Journal) -> Writer:
    """Goes on with a journal; a half-written last line is cut off."""
    fd = os.open(journal.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
    os.ftruncate(fd, journal.size)
    return Writer(journal.id, fd, journal.size)


def _fsync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _line(event: _Event) -> bytes:
    builtins: dict[str, Any] = msgspec.to_builtins(event)
    return json.dumps(builtins, ensure_ascii=True).encode() + b"\n"


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
