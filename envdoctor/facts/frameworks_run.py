"""Frameworks run in children of the target's interpreter: what they do, not what their files say."""

from __future__ import annotations

import os
import time

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

PROBES = {"tensorflow": "tensorflow_probe.py"}


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


class FrameworkChild:
    """A framework's probe under way."""

    def __init__(self, framework: str, target: Target) -> None:
        script = os.path.join(os.path.dirname(__file__), "probes", PROBES[framework])
        self.framework = framework
        self._ends = time.monotonic() + target.timeout
        # -B: a doctor must not change the patient, and __pycache__ is part of it.
        self._child: Child = start([target.python, "-B", script], target.environment)

    def finish(self) -> FrameworkRun | FrameworkCrash:
        """Wait for it, as long as the target's timeout allows; what it said, or how it failed."""
        outcome = self._child.finish(max(0.0, self._ends - time.monotonic()))
        return judge(self.framework, outcome)


def start_frameworks(target: Target, names: list[str]) -> list[FrameworkChild] | Unavailable:
    if not target.root.is_live:
        return Unavailable("another root is examined; nothing in it is executed")
    return [FrameworkChild(name, target) for name in names if name in PROBES]


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
