"""Frameworks run in children of the target's interpreter: what they do, not what their files say."""

from __future__ import annotations

import os
import time

import msgspec

from envdoctor.facts.child import Child, Outcome, start
from envdoctor.facts.model import (
    FrameworkCrash,
    FrameworkRun,
    ProbeFailure,
    ProbeFailureKind,
    Unavailable,
)
from envdoctor.target import Target

PROBES = {"tensorflow": "tensorflow_probe.py"}
STEP_NAMES = {"import": "import", "devices": "listing devices"}


class _Event(msgspec.Struct, frozen=True):
    step: str
    version: str = ""
    seconds: float = 0.0
    gpus: tuple[str, ...] = ()
    at: str = ""
    error: str = ""


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
        return _judge(self.framework, outcome)


def start_frameworks(target: Target, names: list[str]) -> list[FrameworkChild] | Unavailable:
    if not target.root.is_live:
        return Unavailable("another root is examined; nothing in it is executed")
    return [FrameworkChild(name, target) for name in names if name in PROBES]


def _judge(framework: str, outcome: Outcome) -> FrameworkRun | FrameworkCrash:
    events = list(_events(outcome.result))
    stderr = outcome.stderr.decode("utf-8", "replace")
    last = events[-1] if events else _Event("start")
    if last.step == "done":
        listing = next(e for e in events if e.step == "devices")
        return FrameworkRun(
            framework=framework,
            version=listing.version,
            import_seconds=round(listing.seconds, 3),
            gpus=last.gpus,
            stderr=stderr,
        )
    if last.step == "failed":
        failure = ProbeFailure(ProbeFailureKind.ERROR, last.error)
        return FrameworkCrash(framework=framework, step=last.at, failure=failure, stderr=stderr)
    kind = (
        ProbeFailureKind.HANG
        if outcome.hung
        else ProbeFailureKind.SIGNAL
        if outcome.signal
        else ProbeFailureKind.ERROR
    )
    return FrameworkCrash(
        framework=framework,
        step=STEP_NAMES.get(last.step, last.step),
        failure=ProbeFailure(kind, outcome.describe()),
        stderr=stderr,
    )


def _events(data: bytes) -> list[_Event]:
    """The lines that are events; anything else on the channel is nobody's."""
    events = []
    for line in data.splitlines():
        try:
            events.append(msgspec.json.decode(line, type=_Event))
        except msgspec.DecodeError:
            continue
    return events
