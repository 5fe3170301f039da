"""Does the running framework register the GPU?"""

from __future__ import annotations

from collections.abc import Iterator

from envdoctor.checks.machine import gpu_wanted, title
from envdoctor.facts.model import Facts, FrameworkCrash, known
from envdoctor.finding import Evidence, Finding, SkipError
from envdoctor.shell import quoted

STEPS = {"devices": "listing devices"}
LIST_GPUS = {"tensorflow": "import tensorflow as tf; print(tf.config.list_physical_devices('GPU'))"}


def check_devices_registered(facts: Facts) -> Iterator[Finding]:
    runs = known(facts.runs)
    if not runs:
        raise SkipError("no framework is installed")
    python = quoted(facts.target.python)
    for run in runs:
        name = title(run.framework)
        if isinstance(run, FrameworkCrash):
            yield Finding(
                code="PLC004",
                subject=run.framework,
                framework=run.framework,
                message=f"{name} fails at {STEPS.get(run.step, run.step)}: {run.failure.detail}",
                evidence=tuple(
                    Evidence("stderr", line, f"{python} -c 'import {run.framework}'")
                    for line in run.stderr.strip().splitlines()[-3:]
                ),
            )
        elif not run.gpus and gpu_wanted(facts):
            yield Finding(
                code="PLC001",
                subject=run.framework,
                framework=run.framework,
                message=f"{name} registers no GPU device",
                evidence=(
                    Evidence(
                        "list_physical_devices('GPU')",
                        "[]",
                        f"{python} -c {quoted(LIST_GPUS[run.framework])}",
                    ),
                ),
            )
