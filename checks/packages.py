"""The framework's package: installed, and built for the GPU?"""

from __future__ import annotations

from collections.abc import Iterator

from envdoctor.checks.machine import gpu_wanted, require_gpu_wanted, title
from envdoctor.facts.model import Facts, Interpreter, known
from envdoctor.finding import Evidence, Finding, Unknown
from envdoctor.knowledge.tables import driver_floor, newest_tensorflow
from envdoctor.shell import quoted


def check_framework_not_installed(facts: Facts) -> Iterator[Finding]:
    if known(facts.frameworks):
        return
    interpreter = known(facts.interpreter)
    release = newest_tensorflow(interpreter.version)
    floor = driver_floor(release.cuda)
    extra = "[and-cuda]" if gpu_wanted(facts) else ""
    yield Finding(
        code="PKG001",
        subject="framework",
        message=f"no framework is installed for this Python; TensorFlow {release.tensorflow} would need "
        f"driver {floor.floor if floor else '?'} or newer and brings CUDA {release.cuda}",
        evidence=(
            Evidence(
                "looked in",
                ", ".join(interpreter.site_packages) or "no site-packages",
                f"{quoted(interpreter.executable)} -m pip list",
            ),
        ),
        remedy=pip_install(interpreter, f"tensorflow{extra}=={release.tensorflow}.*"),
    )


def check_cpu_only_build(facts: Facts) -> Iterator[Finding | Unknown]:
    require_gpu_wanted(facts)
    interpreter = known(facts.interpreter)
    for framework in known(facts.frameworks):
        if not isinstance(framework.cuda_build, bool):
            yield Unknown("PKG002", framework.cuda_build.reason)
        elif not framework.cuda_build:
            yield Finding(
                code="PKG002",
                subject=framework.distribution,
                framework=framework.name,
                message=f"{title(framework)} ({framework.distribution}) is built for the CPU only",
                evidence=(Evidence("is_cuda_build", "False", framework.source),),
                remedy=_gpu_build(interpreter, framework.distribution, framework.version, facts.host.machine),
            )


def _gpu_build(interpreter: Interpreter, distribution: str, version: str, machine: str) -> str:
    if machine != "x86_64":
        return f"PyPI has no GPU build of TensorFlow for {machine}; NVIDIA's containers do"
    install = pip_install(interpreter, f"tensorflow[and-cuda]=={version}")
    if distribution == "tensorflow":
        return install
    return f"{quoted(interpreter.executable)} -m pip uninstall -y {quoted(distribution)} && {install}"


def pip_install(interpreter: Interpreter, *requirements: str) -> str:
    """A pip command for that very interpreter, to be pasted."""
    return " ".join([f"{quoted(interpreter.executable)} -m pip install", *(quoted(r) for r in requirements)])
