"""What the running framework did: which devices it registered, where operations ran, what failed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from envdoctor.checks.machine import gpu_wanted, title
from envdoctor.facts.failure import ProbeFailureKind
from envdoctor.facts.loader_model import stem
from envdoctor.facts.model import Facts, FrameworkCrash, FrameworkRun, known
from envdoctor.facts.model_runs import Placement
from envdoctor.finding import Evidence, Finding, SkipError
from envdoctor.shell import quoted

STEPS = {"devices": "listing devices"}
LIST_GPUS = {
    "tensorflow": "import tensorflow as tf; print(tf.config.list_physical_devices('GPU'))",
    "torch": "import torch; print(torch.cuda.is_available(), torch.cuda.device_count())",
    "jax": "import jax; print(jax.devices())",
}
GROWTH = {
    "tensorflow": "export TF_FORCE_GPU_ALLOW_GROWTH=true",
    "jax": "export XLA_PYTHON_CLIENT_PREALLOCATE=false",
}
# Lines that say nothing of a failure: they stand in healthy logs too (tensorflow, tsl and absl at start).
_NOISE = re.compile(
    r"cpu_feature_guard|To enable the following instructions|oneDNN custom operations|absl::InitializeLog"
    r"|Attempting to register factory|TF-TRT Warning|NUMA node|computation_placer|cudart_stub"
)
# What NumPy, pandas and extension modules say when they were compiled for another NumPy ABI
_NUMPY_ABI = re.compile(
    r"numpy\.core\.multiarray failed to import|_ARRAY_API not found|numpy\.dtype size changed"
)


def check_devices_registered(facts: Facts) -> Iterator[Finding]:
    for run in _runs(facts):
        if isinstance(run, FrameworkCrash):
            yield _failed(run.framework, run.step, run.failure.detail, run.stderr, facts)
            yield from _known_cause(run, facts)
            continue
        for failure in run.failures:
            if failure.failure.kind is not ProbeFailureKind.ERROR or "exit status" in failure.failure.detail:
                yield _failed(run.framework, failure.step, failure.failure.detail, run.stderr, facts)
        if not run.gpus and gpu_wanted(facts):
            yield Finding(
                code="PLC001",
                subject=run.framework,
                framework=run.framework,
                message=f"{title(run.framework)} registers no GPU device",
                evidence=(Evidence("GPU devices", "none", _command(run.framework, facts)),),
            )


def check_operations_placed(facts: Facts) -> Iterator[Finding]:
    """Operations asked for a GPU that ran elsewhere or failed there."""
    for run in _completed(facts):
        elsewhere = [p for p in run.placements if p.asked.startswith("GPU") and p.ran != p.asked]
        operations = {(p.operation, p.asked): p for p in elsewhere}  # with and without soft placement: one
        if not operations:
            continue
        first = next(iter(operations.values()))
        yield Finding(
            code="PLC002",
            subject=", ".join(dict.fromkeys(name for name, _ in operations)),
            framework=run.framework,
            message=f"{title(run.framework)}: {first.operation} asked for {first.asked} "
            + (f"ran on {first.ran}" if first.ran else f"fails there: {_first_line(first.error)}"),
            evidence=tuple(Evidence(f"{p.operation}, asked {p.asked}", _where(p)) for p in elsewhere),
        )


def check_cpu_pin(facts: Facts) -> Iterator[Finding]:
    for run in _completed(facts):
        strayed = [p for p in run.placements if p.asked.startswith("CPU") and p.ran.startswith("GPU")]
        if strayed:
            yield Finding(
                code="PLC003",
                subject=", ".join(dict.fromkeys(p.operation for p in strayed)),
                framework=run.framework,
                message=f"{title(run.framework)}: {strayed[0].operation}, pinned to the CPU, "
                f"ran on {strayed[0].ran}",
                evidence=tuple(Evidence(f"{p.operation}, asked {p.asked}", _where(p)) for p in strayed),
            )


def check_xla_compiles(facts: Facts) -> Iterator[Finding]:
    for run in _completed(facts):
        failed = [c for c in run.compiled if c.error or (c.device.startswith("GPU") and c.ran != c.device)]
        if failed:
            yield Finding(
                code="PLC005",
                subject=failed[0].device,
                framework=run.framework,
                message=f"{title(run.framework)}: a compiled function on {failed[0].device} "
                + (
                    f"fails: {_first_line(failed[0].error)}" if failed[0].error else f"ran on {failed[0].ran}"
                ),
                evidence=tuple(Evidence(c.device, c.error or f"ran on {c.ran}") for c in failed),
            )


def check_memory_growth(facts: Facts) -> Iterator[Finding]:
    """The variable counts before what a program sets (gpu_bfc_allocator.cc, GetAllowGrowthValue)."""
    forced = facts.environment.get("TF_FORCE_GPU_ALLOW_GROWTH") == "true"
    for run in _completed(facts):
        if forced and run.framework == "tensorflow":
            continue
        if run.gpus and run.memory_growth and not all(run.memory_growth):
            yield Finding(
                code="PLC006",
                subject=run.framework,
                framework=run.framework,
                message=f"{title(run.framework)} takes nearly all memory of every visible GPU at its start",
                evidence=(Evidence("memory growth", "off"),),
                remedy=GROWTH.get(run.framework, ""),
            )


def check_foretold_libraries(facts: Facts) -> Iterator[Finding]:
    """The file that the loader model foretold against the one that the process mapped."""
    runs = {run.framework: run for run in _completed(facts)}
    for libraries in facts.resolution:
        run = runs.get(libraries.framework.name)
        mapped = {stem(path.rpartition("/")[2]): path for path in run.mapped} if run else {}
        for need in libraries.needs:
            real = mapped.get(stem(need.soname), "")
            if real and need.lookup.real and real != need.lookup.real:
                yield Finding(
                    code="LIB014",
                    subject=need.soname,
                    framework=libraries.framework.name,
                    message=f"{need.soname}: {real} was loaded, and {need.lookup.real} was expected",
                    evidence=(
                        Evidence("mapped", real, "grep libcu /proc/PID/maps"),
                        Evidence(
                            "expected", need.lookup.real, need.lookup.rule.value if need.lookup.rule else ""
                        ),
                    ),
                )


def _runs(facts: Facts) -> tuple[FrameworkRun | FrameworkCrash, ...]:
    runs = known(facts.runs)
    if not runs:
        raise SkipError("no framework is installed")
    return runs


def _completed(facts: Facts) -> list[FrameworkRun]:
    completed = [run for run in _runs(facts) if isinstance(run, FrameworkRun)]
    if not completed:
        raise SkipError("no framework could be imported (see PLC004)")
    return completed


def _failed(framework: str, step: str, detail: str, stderr: str, facts: Facts) -> Finding:
    lines = [line for line in stderr.splitlines() if line.strip() and not _NOISE.search(line)]
    return Finding(
        code="PLC004",
        subject=framework,
        framework=framework,
        message=f"{title(framework)} fails at {STEPS.get(step, step)}: {_first_line(detail)}",
        evidence=tuple(Evidence("stderr", line, _command(framework, facts)) for line in lines[-3:]),
    )


def _known_cause(crash: FrameworkCrash, facts: Facts) -> Iterator[Finding]:
    """What the failure itself tells of its cause, where no file did."""
    detail = crash.failure.detail
    if detail == "SIGILL":
        yield Finding(
            code="HST003",
            subject=facts.host.cpu.model or "CPU",
            framework=crash.framework,
            message=f"the CPU ({facts.host.cpu.model}) lacks an instruction that this build uses: "
            f"SIGILL at {STEPS.get(crash.step, crash.step)}",
            evidence=(Evidence("signal", "SIGILL", _command(crash.framework, facts)),),
        )
    elif _NUMPY_ABI.search(detail) or _NUMPY_ABI.search(crash.stderr):
        versions = [d.version for d in known(facts.packages).named("numpy")]
        yield Finding(
            code="PKG005",
            subject="numpy",
            framework=crash.framework,
            message=f"NumPy {', '.join(versions) or '(unknown version)'} is not the one that "
            f"{title(crash.framework)} or a module that it imports was compiled for",
            evidence=(Evidence("import", _first_line(detail), _command(crash.framework, facts)),),
        )


def _where(placement: Placement) -> str:
    soft = "soft placement" if placement.soft else "no soft placement"
    return f"{placement.ran or _first_line(placement.error)} ({soft})"


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _command(framework: str, facts: Facts) -> str:
    return f"{quoted(facts.target.python)} -c {quoted(LIST_GPUS.get(framework, f'import {framework}'))}"
