"""NVML beside a training: a child samples it, so that a call that never returns stalls nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import msgspec

from envdoctor.facts.child import Child, Outcome, start
from envdoctor.facts.unavailable import Unavailable
from envdoctor.validate.recording import GpuSample

SAMPLE_SECONDS = 0.2


class _Line(msgspec.Struct, frozen=True):
    unavailable: str


def start_sampling(environment: Mapping[str, str]) -> Child:
    """Under the target's environment: its LD_LIBRARY_PATH says which libnvidia-ml.so.1 answers."""
    script = os.path.join(os.path.dirname(__file__), "nvml_sampler.py")
    # -I: the target's PYTHONPATH, PYTHONHOME and user site are not for this interpreter.
    return start([sys.executable, "-I", script, str(SAMPLE_SECONDS)], environment)


def stop_sampling(child: Child) -> tuple[GpuSample, ...] | Unavailable:
    """Every sample so far, in order, or why there is none. The child is killed, not waited for."""
    return parse(child.finish(0.0))


def parse(outcome: Outcome) -> tuple[GpuSample, ...] | Unavailable:
    samples = []
    for line in outcome.result.splitlines():
        try:
            samples.append(msgspec.json.decode(line, type=GpuSample))
        except msgspec.DecodeError:  # the last line, cut by SIGKILL, or the reason
            continue
    if samples:
        return tuple(samples)
    for line in outcome.result.splitlines():
        try:
            return Unavailable(msgspec.json.decode(line, type=_Line).unavailable)
        except msgspec.DecodeError:
            continue
    return Unavailable("NVML gave no answer" if outcome.hung else f"the sampler: {outcome.describe()}")
