"""What the running framework did: which devices it registered, where operations ran, what failed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from envdoctor.catalog import Severity, condition
from envdoctor.checks.machine import gpu_wanted, title
from envdoctor.facts.failure import ProbeFailureKind
from envdoctor.facts.loader_model import stem
from envdoctor.facts.model import Facts, FrameworkCrash, FrameworkRun, known
from envdoctor.facts.model_runs import Placement
from envdoctor.finding import Evidence, Finding, SkipError
from envdoctor.shell import quoted

if TYPE_CHECKING:
    from envdoctor.explain.explanation import Explained

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
# What a run that failed is called; its cause is named instead.
_CONSEQUENCES = frozenset({"PLC001", "PLC004", "PLC005"})
_TAIL, _LOOKED_AT = 3, 30  # lines at the end of stderr: shown, and looked through for them


def check_devices_registered(facts: Facts) -> Iterator[Finding]:
    for run in _runs(facts):
        if isinstance(run, FrameworkCrash):
            yield _failed(run.framework, run.step, run.failure.detail, run.stderr, facts)
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
                evidence=(
                    Evidence("GPU devices", "none", _command(run.framework, facts)),
                    *_shown(_cause(run.stderr, of="PLC001"), run.framework, facts),
                ),
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
    """A step that failed: with the condition that its messages show, else with its last words."""
    told = detail.partition(": ")[2] or detail  # an exit status is told with the last line of stderr
    shown = _cause(stderr if told in stderr else f"{stderr}\n{detail}")
    named = f" ({shown.finding.code}: {shown.finding.message})" if shown else ""
    return Finding(
        code="PLC004",
        subject=framework,
        framework=framework,
        message=f"{title(framework)} fails at {STEPS.get(step, step)}: {_first_line(detail)}{named}",
        evidence=_shown(shown, framework, facts) or _last_words(stderr, framework, facts),
        remedy=shown.finding.remedy if shown else "",
    )


def _cause(text: str, of: str = "") -> Explained | None:
    """The condition that a framework's messages show, where `of` is given one that it follows from, or None.

    Asked of failed runs alone: importing and compiling the signatures takes some 40 ms.
    """
    from envdoctor.explain.explanation import explain  # noqa: PLC0415

    for explained in explain(text.encode("utf-8", "replace")).findings:
        finding = explained.finding
        fits = finding.code in condition(of).follows_from if of else finding.code not in _CONSEQUENCES
        if fits and finding.severity is not Severity.NOTE:
            return explained
    return None


def _shown(shown: Explained | None, framework: str, facts: Facts) -> tuple[Evidence, ...]:
    """The lines that show a condition, and which one: facts may have found it, or tell it from the others."""
    if shown is None:
        return ()
    finding = shown.finding
    others = f"; or {', '.join(shown.alternatives)}" if shown.alternatives else ""
    name = f"{finding.code} {finding.condition.name}, {shown.confidence.value}{others}"
    return (
        *(Evidence("stderr", v.value, _command(framework, facts)) for v in finding.evidence[:_TAIL]),
        Evidence("which shows", name, f"envdoctor explain {finding.code}"),
    )


def _last_words(stderr: str, framework: str, facts: Facts) -> tuple[Evidence, ...]:
    """The last lines that are no noise: those of healthy runs are not of the failure."""
    from envdoctor.explain.explanation import explain  # noqa: PLC0415

    lines = [line for line in stderr.splitlines() if line.strip()][-_LOOKED_AT:]
    telling = [line for line in lines if not explain(line.encode("utf-8", "replace")).noise]
    return tuple(Evidence("stderr", line, _command(framework, facts)) for line in telling[-_TAIL:])


def _where(placement: Placement) -> str:
    soft = "soft placement" if placement.soft else "no soft placement"
    return f"{placement.ran or _first_line(placement.error)} ({soft})"


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _command(framework: str, facts: Facts) -> str:
    return f"{quoted(facts.target.python)} -c {quoted(LIST_GPUS.get(framework, f'import {framework}'))}"
