"""Frameworks run in children of the target's interpreter: what they do, not what their files say."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque

import msgspec

from envdoctor.facts.child import Child, Outcome, start
from envdoctor.facts.failure import ProbeFailure, ProbeFailureKind
from envdoctor.facts.model import Unavailable
from envdoctor.facts.model_runs import (
    Compiled,
    FrameworkCrash,
    FrameworkRun,
    Load,
    Placement,
    StepFailure,
    ThreadRun,
)
from envdoctor.target import Target

PROBES = {"tensorflow": "tensorflow_probe.py", "torch": "torch_probe.py", "jax": "jax_probe.py"}


class _Event(msgspec.Struct, frozen=True):
    """A line of a probe: a step that begins, or what it gave."""

    step: str
    name: str = ""  # of a step that begins
    error: str = ""
    version: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0
    gpus: tuple[str, ...] = ()
    mapped: tuple[str, ...] = ()
    growth: tuple[bool, ...] = ()
    operation: str = ""
    asked: str = ""
    ran: str = ""
    soft: bool = True
    device: str = ""
    intra_op: int = 0
    inter_op: int = 0
    matmul: Load | None = None
    convolution: Load | None = None
    threads: int = 0


class FrameworkProbes:
    """The probes of several frameworks, one after another: never two CUDA contexts at once.

    A thread waits for each and starts the next, so that other facts are gathered meanwhile. Each has the
    target's whole timeout.
    """

    def __init__(self, target: Target, names: list[str]) -> None:
        self._target = target
        self._waiting = deque(names)
        self._under_way: tuple[str, Child] | None = None
        self._ended: list[tuple[str, Outcome]] = []
        self._lock = threading.Lock()
        self._start_next()
        # Asked after the first child was started, which registered its own end: this runs before that.
        atexit.register(self._start_no_more)
        self._thread: threading.Thread | None = threading.Thread(target=self._work, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # RLIMIT_NPROC or the cgroup's pids.max: `finish` does the work
            self._thread = None

    def finish(self) -> tuple[FrameworkRun | FrameworkCrash, ...]:
        """Wait for all, each as long as the target's timeout allows; what they said, or how they failed."""
        if self._thread:
            self._thread.join()
        self._work()
        atexit.unregister(self._start_no_more)
        return tuple(judge(name, outcome) for name, outcome in self._ended)

    def _work(self) -> None:
        while self._under_way or self._start_next():
            assert self._under_way
            name, child = self._under_way
            left = child.started + self._target.timeout - time.monotonic()
            self._ended.append((name, child.finish(max(0.0, left))))
            self._under_way = None

    def _start_next(self) -> bool:
        with self._lock:
            if not self._waiting:
                return False
            name = self._waiting[0]
            script = os.path.join(os.path.dirname(__file__), "probes", PROBES[name])
            # -B: a doctor must not change the patient, and __pycache__ is part of it.
            argv = [self._target.python, "-B", script]
            self._under_way = name, start(argv, self._target.environment)
            self._waiting.popleft()
            return True

    def _start_no_more(self) -> None:
        with self._lock:
            self._waiting.clear()


def start_frameworks(target: Target, names: list[str]) -> FrameworkProbes | Unavailable:
    if not target.root.is_live:
        return Unavailable("another root is examined; nothing in it is executed")
    return FrameworkProbes(target, [name for name in names if name in PROBES])


def judge(framework: str, outcome: Outcome) -> FrameworkRun | FrameworkCrash:
    """What a probe's events amount to, with the step at which it ended where it did not come to the end."""
    events = _events(outcome.result)
    stderr = outcome.stderr.decode("utf-8", "replace")
    by_step = {event.step: event for event in events if not event.error}
    failures = [
        StepFailure(step=e.step, failure=ProbeFailure(ProbeFailureKind.ERROR, e.error))
        for e in events
        if e.error and e.step not in {"placement", "xla"}  # those carry it themselves
    ]
    if "done" not in by_step and not any(f.step in {"import", "devices"} for f in failures):
        begun = [event.name for event in events if event.step == "begin"]
        failures.append(StepFailure(step=begun[-1] if begun else "start", failure=_ended(outcome)))
    if "import" not in by_step or "devices" not in by_step:
        return FrameworkCrash(
            framework=framework, step=failures[-1].step, failure=failures[-1].failure, stderr=stderr
        )
    imported = by_step["import"]
    return FrameworkRun(
        framework=framework,
        version=imported.version,
        import_seconds=round(imported.seconds, 3),
        peak_bytes=imported.peak_bytes,
        gpus=by_step["devices"].gpus,
        stderr=stderr,
        simulated="simulated" in by_step,
        mapped=by_step["libraries"].mapped if "libraries" in by_step else (),
        memory_growth=by_step["memory growth"].growth if "memory growth" in by_step else (),
        placements=tuple(
            Placement(operation=e.operation, asked=e.asked, ran=e.ran, soft=e.soft, error=e.error)
            for e in events
            if e.step == "placement"
        ),
        compiled=tuple(
            Compiled(device=e.device, ran=e.ran, seconds=round(e.seconds, 3), error=e.error)
            for e in events
            if e.step == "xla"
        ),
        threads=_threads(by_step.get("threads")),
        failures=tuple(failures),
    )


def _threads(event: _Event | None) -> ThreadRun | None:
    if event is None or event.matmul is None or event.convolution is None:
        return None
    return ThreadRun(
        intra_op=event.intra_op,
        inter_op=event.inter_op,
        matmul=event.matmul,
        convolution=event.convolution,
        threads=event.threads,
    )


def _ended(outcome: Outcome) -> ProbeFailure:
    if outcome.hung:
        return ProbeFailure(ProbeFailureKind.HANG, outcome.describe())
    kind = ProbeFailureKind.SIGNAL if outcome.signal else ProbeFailureKind.ERROR
    return ProbeFailure(kind, outcome.describe())


def _events(data: bytes) -> list[_Event]:
    """The lines that are events; anything else on the channel is nobody's."""
    events = []
    for line in data.splitlines():
        try:
            events.append(msgspec.json.decode(line, type=_Event))
        except msgspec.DecodeError:
            continue
    return events
