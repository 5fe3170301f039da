"""Run a child that may crash, hang or flood, and never wait for one that cannot be killed.

A child starts at once and is collected later, so that other reading hides behind it. A thread empties its
pipes meanwhile. The child leads a session of its own: its whole group is killed at the end, and always
while the child itself is alive or a zombie, so that the group's id cannot have become another's.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import subprocess
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HEAD_BYTES = 4 << 20  # of the result and of stdout; more is read and dropped
STDERR_BYTES = 256 << 10  # at each end of stderr: causes stand at its head, crashes at its tail
LINE_CHARACTERS = 300  # of the last line on stderr, in a description
REAP_SECONDS = 0.2  # after SIGKILL; who outlives it sits in an uninterruptible system call (D state)
_TICK_SECONDS = 0.02
_DRAIN_SECONDS = 0.1  # of pipes that a grandchild holds open, after the child ended
_CHUNK = 64 << 10


@dataclass(frozen=True)
class Outcome:
    """What a child left behind. `result` came over the descriptor whose number it was given."""

    result: bytes = b""
    stdout: bytes = b""
    stderr: bytes = b""
    status: int | None = None  # exit status; None when it did not exit by itself
    signal: str = ""  # "SIGSEGV", where one ended it
    hung: bool = False  # it was still running at its deadline
    abandoned: bool = False  # SIGKILL did not end it either: an uninterruptible system call
    error: str = ""  # why it could not be started
    seconds: float = 0.0  # since its start

    def describe(self) -> str:
        """How it ended, in a few words."""
        if self.error:
            return f"could not be started: {self.error}"
        if self.hung:
            stuck = "; SIGKILL does not end it, it waits in the kernel" if self.abandoned else ""
            return f"no answer in {round(self.seconds, 1):g} s{stuck}"
        if self.signal:
            return self.signal
        lines = self.stderr.decode("utf-8", "replace").strip().splitlines()
        return f"exit status {self.status}" + (f": {lines[-1].strip()[:LINE_CHARACTERS]}" if lines else "")


def start(argv: Sequence[str], environment: Mapping[str, str], stdin: bytes = b"") -> Child:
    """Start `argv` with the number of the result descriptor appended.

    Results have a descriptor of their own because libraries print on stdout as they please. Surrogates
    (PEP 383) in `argv` and `environment` become the bytes they stand for. What cannot be started is an
    outcome too.
    """
    return Child(argv, environment, stdin)


class Child:
    """A child under way. Dropped unfinished, or at exit (Ctrl-C too), it is killed."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], stdin: bytes) -> None:
        self.started = time.monotonic()
        self._outcome: Outcome | None = None
        pipes = [os.pipe() for _ in ("result", "stdout", "stderr")]
        (result, stdout, stderr), (write_result, write_stdout, write_stderr) = zip(*pipes, strict=True)
        source = _memory_file(stdin) if stdin else os.open(os.devnull, os.O_RDONLY)
        try:
            self._process = subprocess.Popen(
                [*argv, str(write_result)],
                stdin=source,
                stdout=write_stdout,
                stderr=write_stderr,
                env=dict(environment),
                pass_fds=(write_result,),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL or "=" where none may be
            for descriptor in (result, stdout, stderr):
                os.close(descriptor)
            self._outcome = Outcome(
                error=(error.strerror if isinstance(error, OSError) else "") or str(error)
            )
            return
        finally:
            for descriptor in (write_result, write_stdout, write_stderr, source):
                os.close(descriptor)
        with contextlib.suppress(OSError):  # it ended already, or runs as another user
            resource.prlimit(self._process.pid, resource.RLIMIT_CORE, (0, 0))  # a crash leaves no file behind
        self._kill = weakref.finalize(self, _kill_and_reap, self._process)
        self._streams = {
            result: _Stream(HEAD_BYTES, 0),
            stdout: _Stream(HEAD_BYTES, 0),
            stderr: _Stream(STDERR_BYTES, STDERR_BYTES),
        }
        self._pump = threading.Thread(target=_pump, args=(self._process.pid, self._streams), daemon=True)
        try:
            self._pump.start()
        except RuntimeError as error:  # RLIMIT_NPROC or the cgroup's pids.max: not one thread more
            self._kill()
            for descriptor in self._streams:
                os.close(descriptor)
            self._outcome = Outcome(error=str(error))

    def finish(self, deadline_s: float) -> Outcome:
        """Wait `deadline_s` at most, end the child's whole group, and return what it left."""
        if self._outcome is None:
            self._pump.join(max(0.0, deadline_s))
            self._outcome = self._collect(hung=self._pump.is_alive())
        return self._outcome

    def _collect(self, *, hung: bool) -> Outcome:
        seconds = time.monotonic() - self.started
        self._kill()
        self._pump.join(REAP_SECONDS)
        code = self._process.returncode
        result, stdout, stderr = (stream.value() for stream in self._streams.values())
        return Outcome(
            result=result,
            stdout=stdout,
            stderr=stderr,
            status=code if code is not None and code >= 0 and not hung else None,
            signal=_signal_name(-code) if code is not None and code < 0 and not hung else "",
            hung=hung,
            abandoned=code is None,
            seconds=seconds,
        )


class _Stream:
    """The first bytes of a stream, and the last ones; what lies between is counted and dropped."""

    def __init__(self, head: int, tail: int) -> None:
        self._room = head
        self._tail_size = tail
        self._head = bytearray()
        self._tail = b""
        self._dropped = 0

    def add(self, chunk: bytes) -> None:
        kept = chunk[: self._room]
        self._room -= len(kept)
        self._head += kept
        rest = self._tail + chunk[len(kept) :]
        self._tail = rest[len(rest) - self._tail_size :] if len(rest) > self._tail_size else rest
        self._dropped += len(rest) - len(self._tail)

    def value(self) -> bytes:
        gap = b"\n... %d bytes left out ...\n" % self._dropped if self._dropped and self._tail else b""
        return bytes(self._head) + gap + self._tail


def _pump(pid: int, streams: dict[int, _Stream]) -> None:
    """Empty the pipes until the child has ended, and close them."""
    try:
        _read_all(pid, streams)
    finally:
        for descriptor in streams:
            os.close(descriptor)
    _has_ended(pid, 0)


def _read_all(pid: int, streams: dict[int, _Stream]) -> None:
    """To the end of every pipe; who holds one open after the child has ended is not waited for."""
    poll = select.poll()
    for descriptor in streams:
        poll.register(descriptor, select.POLLIN)
    still_open = len(streams)
    ended_at: float | None = None
    while still_open:
        # Asked before the poll: what a child wrote before it ended is then in the pipes.
        if ended_at is None and _has_ended(pid, os.WNOHANG):
            ended_at = time.monotonic()
        ready = poll.poll(_TICK_SECONDS * 1000 if ended_at is None else 0)
        for descriptor, _ in ready:
            chunk = os.read(descriptor, _CHUNK)
            streams[descriptor].add(chunk)
            if not chunk:
                poll.unregister(descriptor)
                still_open -= 1
        if ended_at is not None and (not ready or time.monotonic() > ended_at + _DRAIN_SECONDS):
            return


def _has_ended(pid: int, flags: int) -> bool:
    """Whether it is a zombie, which is left to be one: waits unless `flags` say otherwise."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | flags) is not None
    except ChildProcessError:  # reaped: it was killed at its deadline
        return True


def _kill_and_reap(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it became another user (setuid)
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(REAP_SECONDS)


def _memory_file(content: bytes) -> int:
    """A descriptor to read `content` from: a pipe would block the writer past 64 KiB."""
    descriptor = os.memfd_create("stdin")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
