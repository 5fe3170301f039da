"""One training in a child of the target's interpreter, watched event by event.

The child leads a session of its own, and its whole group is killed at the end, whatever ends it: its last
event, its death, its silence, Ctrl-C. A child that SIGKILL does not end is not waited for.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping

import msgspec

from envdoctor.facts.child import REAP_SECONDS, Child
from envdoctor.target import Target
from envdoctor.validate.protocol import Done, Event, Failed, Job, parse
from envdoctor.validate.recording import Ending, Recording
from envdoctor.validate.telemetry import start_sampling, stop_sampling

WORKER = os.path.join(os.path.dirname(__file__), "worker", "ed_train.py")
TICK_SECONDS = 0.25
LEAVE_SECONDS = 5.0  # to end after its last event; it ends without teardown
STDERR_BYTES = 64 << 10  # at each end
_CHUNK = 64 << 10

Watcher = Callable[["Event | None"], None]  # None: a tick in which nothing was said


def run(job: Job, label: str, target: Target, silence_s: float, watcher: Watcher) -> Recording:
    """Train, and return what was seen; also where Ctrl-C ends it (`Ending.INTERRUPTED`).

    `silence_s`: seconds without an event or a word on stdout or stderr after which the child counts as hung.
    Whatever `watcher` raises ends the child and is raised again; KeyboardInterrupt alone is not.
    """
    environment = worker_environment(job, target.environment)
    sampler = start_sampling(environment) if job.device.startswith("gpu") else None
    worker = _Worker(job, label, target.python, environment)
    try:
        worker.watch(silence_s, watcher)
    except KeyboardInterrupt:
        worker.ending, worker.detail = Ending.INTERRUPTED, "Ctrl-C"
    finally:
        worker.end()
    return worker.recording(sampler)


def worker_environment(job: Job, environment: Mapping[str, str]) -> dict[str, str]:
    """The target's own, with GPUs hidden from a training on the CPU.

    JAX takes no more of a GPU's memory than it needs: others may use the GPU too (JAX documentation: GPU
    memory allocation). Keras must not take another backend than the one that is validated.
    """
    made = {**environment, "KERAS_BACKEND": job.backend}
    made.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if not job.device.startswith("gpu"):
        made |= {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    return made


class _Worker:
    def __init__(self, job: Job, label: str, python: str, environment: Mapping[str, str]) -> None:
        self.ending, self.detail = Ending.DIED, ""
        self._job, self._label = job, label
        self._events: list[Event] = []
        self._partial = b""
        self._stderr = bytearray()
        self._started = time.monotonic()
        self._selector = selectors.DefaultSelector()
        pipes = [os.pipe() for _ in ("events", "stdout", "stderr")]
        (events, stdout, stderr), (write_events, write_stdout, write_stderr) = zip(*pipes, strict=True)
        for descriptor, take in ((events, self._take_events), (stdout, None), (stderr, self._take_stderr)):
            self._selector.register(descriptor, selectors.EVENT_READ, take)
        try:
            with tempfile.TemporaryFile() as stdin:
                stdin.write(json.dumps(msgspec.to_builtins(job)).encode())  # surrogates come out as \udcff
                stdin.seek(0)
                # -B: a doctor must not change the patient, and __pycache__ is part of it.
                self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
                    [python, "-B", WORKER, str(write_events)],
                    stdin=stdin,
                    stdout=write_stdout,
                    stderr=write_stderr,
                    env=dict(environment),
                    pass_fds=(write_events,),
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:  # ValueError: a NUL where none may be
            self._process = None
            self.ending = Ending.NOT_STARTED
            self.detail = (error.strerror if isinstance(error, OSError) else "") or str(error)
            return
        finally:
            for descriptor in (write_events, write_stdout, write_stderr):
                os.close(descriptor)
        with contextlib.suppress(OSError):  # it ended already
            resource.prlimit(self._process.pid, resource.RLIMIT_CORE, (0, 0))  # a crash leaves no file behind

    def watch(self, silence_s: float, watcher: Watcher) -> None:
        """Until it has said its last word, has ended, or was silent for too long."""
        if self._process is None:
            return
        heard = time.monotonic()
        while self._selector.get_map():
            said = len(self._events)
            ready = self._selector.select(TICK_SECONDS)
            for key, _ in ready:
                self._read(key)
            for event in self._events[said:]:
                watcher(event)
                if isinstance(event, Done | Failed):
                    self.ending = Ending.DONE if isinstance(event, Done) else Ending.FAILED
                    return
            if ready:
                heard = time.monotonic()
                continue
            watcher(None)
            if _has_ended(self._process.pid):  # a grandchild may hold the pipes open
                return
            if time.monotonic() - heard > silence_s:
                self.ending, self.detail = Ending.HUNG, f"no sign of life for {silence_s:g} s"
                return

    def end(self) -> None:
        """Kill the whole group, also where the worker has ended and left somebody behind."""
        process = self._process
        if process is not None:
            if self.ending in {Ending.DONE, Ending.FAILED, Ending.DIED}:
                self._wait(process.pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(REAP_SECONDS)
            self._describe(process.returncode)
        while ready := [key for key, _ in self._selector.select(0)]:  # what it wrote before it ended
            for key in ready:
                self._read(key)
        for key in list(self._selector.get_map().values()):
            os.close(int(key.fd))
        self._selector.close()

    def recording(self, sampler: Child | None) -> Recording:
        more = {"telemetry": stop_sampling(sampler)} if sampler else {}
        return Recording(
            job=self._job,
            label=self._label,
            started=self._started,
            seconds=time.monotonic() - self._started,
            events=tuple(self._events),
            ending=self.ending,
            detail=self.detail,
            stderr=self._stderr.decode("utf-8", "replace"),
            **more,
        )

    def _describe(self, code: int | None) -> None:
        if self.ending is Ending.HUNG and code is None:
            self.detail += "; SIGKILL does not end it, it waits in the kernel"
        if self.ending is Ending.DIED and code is not None:
            self.detail = f"exit status {code}" if code >= 0 else _signal_name(-code)

    @staticmethod
    def _wait(pid: int) -> None:
        deadline = time.monotonic() + LEAVE_SECONDS
        while not _has_ended(pid) and time.monotonic() < deadline:
            time.sleep(0.005)

    def _read(self, key: selectors.SelectorKey) -> None:
        descriptor = int(key.fd)
        chunk = os.read(descriptor, _CHUNK)
        if not chunk:
            self._selector.unregister(descriptor)
            os.close(descriptor)
        elif key.data is not None:
            key.data(chunk)

    def _take_events(self, chunk: bytes) -> None:
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        self._events += [event for line in lines if (event := parse(line)) is not None]

    def _take_stderr(self, chunk: bytes) -> None:
        self._stderr += chunk
        if len(self._stderr) > 2 * STDERR_BYTES:
            del self._stderr[STDERR_BYTES:-STDERR_BYTES]


def _has_ended(pid: int) -> bool:
    """Whether it is a zombie, which is left to be one: so its group's number cannot become another's."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    except ChildProcessError:
        return True


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
