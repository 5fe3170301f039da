"""The framework's package: installed, one of its kind, and built for the GPU?"""

from __future__ import annotations

from collections.abc import Iterator

from envdoctor.catalog import Severity
from envdoctor.checks.installing import (
    CONDA_NAMES,
    Remedy,
    conda_forget,
    exchange,
    install,
    other_python,
    tensorflow_requirement,
)
from envdoctor.checks.machine import driver_cuda_version, gpu_wanted, require_gpu_wanted, title
from envdoctor.dependencies import allows, parse
from envdoctor.facts.model import (
    Distribution,
    Facts,
    Framework,
    Interpreter,
    known,
)
from envdoctor.finding import Evidence, Finding, SkipError, Unknown
from envdoctor.knowledge.tables import (
    TensorFlowRelease,
    driver_floor,
    newest_tensorflow,
    release_key,
    tensorflow_releases,
)
from envdoctor.shell import quoted

# Distributions that own the import package of the same framework: their files are the same files.
OWNERS = {
    "tensorflow": (
        "tensorflow",
        "tensorflow-cpu",
        "tensorflow-gpu",
        "tensorflow-rocm",
        "tensorflow-cpu-aws",
        "tf-nightly",
        "tf-nightly-cpu",
        "tf-nightly-gpu",
        "intel-tensorflow",
        "intel-tensorflow-avx512",
    ),
    "torch": ("torch",),
    "jax": ("jaxlib",),
    "keras": ("keras", "keras-nightly"),
}
FIRST_STUB = (2, 12)  # from that version on tensorflow-gpu holds nothing but a setup.py that fails


def check_framework_not_installed(facts: Facts) -> Iterator[Finding]:
    if known(facts.frameworks):
        return
    interpreter = known(facts.interpreter)
    release = _release_for(interpreter)
    looked = Evidence(
        "looked in",
        ", ".join(interpreter.site_packages) or "no site-packages",
        f"{quoted(interpreter.executable)} -m pip list",
    )
    nothing = "no framework is installed for this Python"
    if release is None:
        yield Finding(
            code="PKG001",
            subject="framework",
            message=f"{nothing} ({interpreter.version})",
            evidence=(looked,),
            remedy=other_python(facts),
        )
        return
    floor = driver_floor(release.cuda)
    cure = install(facts, tensorflow_requirement(release, cuda=gpu_wanted(facts)))
    yield Finding(
        code="PKG001",
        subject="framework",
        message=f"{nothing}; TensorFlow {release.tensorflow} would need "
        f"driver {floor.floor if floor else '?'} or newer and brings CUDA {release.cuda}",
        evidence=(looked,),
        remedy=cure.text,
        commands=cure.commands,
    )


def check_python_version(facts: Facts) -> Iterator[Finding]:
    """Only where nothing is installed: what is installed has found its wheel.

    An interpreter without a framework is no illness: an error only where a GPU is required of it.
    """
    if known(facts.frameworks):
        raise SkipError("a framework is installed")
    interpreter = known(facts.interpreter)
    if _release_for(interpreter) is not None:
        return
    newest = newest_tensorflow()
    minor = _minor(interpreter)
    yield Finding(
        code="PKG008",
        subject=f"Python {minor}",
        severity_here=None if facts.target.gpu_required else Severity.NOTE,
        message=f"TensorFlow has no wheel for Python {minor}, up to its release {newest.tensorflow} "
        f"(for Python {newest.python[0]} to {newest.python[-1]})",
        evidence=(
            Evidence("Python", interpreter.version, f"{quoted(interpreter.executable)} --version"),
            Evidence(f"wheels of {newest.tensorflow}", ", ".join(newest.python), newest.source),
        ),
        remedy=other_python(facts),
    )


def check_stub_package(facts: Facts) -> Iterator[Finding]:
    """tensorflow-gpu since 2.12: itself here without TensorFlow, or required by something installed."""
    packages = known(facts.packages)
    interpreter = known(facts.interpreter)
    stubs = [d for d in packages.named("tensorflow-gpu") if release_key(d.version) >= FIRST_STUB]
    tensorflow = any(f.name == "tensorflow" for f in known(facts.frameworks))
    release = _release_for(interpreter) or newest_tensorflow()
    wanted = tensorflow_requirement(release, cuda=True)
    if stubs and not tensorflow:
        cure = exchange(facts, ["tensorflow-gpu"], wanted)
        yield Finding(
            code="PKG003",
            subject="tensorflow-gpu",
            framework="tensorflow",
            message=f"tensorflow-gpu {stubs[0].version} is an empty package: TensorFlow is not installed",
            evidence=(
                Evidence("tensorflow-gpu", stubs[0].version, stubs[0].location),
                Evidence("tensorflow", "no such package", f"ls -d {quoted(stubs[0].location)}/tensorflow"),
            ),
            remedy=cure.text,
            commands=cure.commands,
        )
    if packages.named("tensorflow-gpu"):
        return
    for distribution in packages.distributions:
        line = next((r for r in distribution.requires if _asks_for_stub(r)), "")
        if line:
            yield Finding(
                code="PKG003",
                subject=distribution.name,
                framework="tensorflow",
                severity_here=Severity.NOTE if tensorflow else Severity.ERROR,
                message=f"{distribution.name} {distribution.version} requires tensorflow-gpu, "
                "whose releases since 2.12 are empty packages that fail to install",
                evidence=(Evidence("Requires-Dist", line, f"METADATA of {distribution.name}"),),
                remedy=install(facts, wanted).only_said(f"{distribution.name} itself with --no-deps").text,
            )


def check_duplicates(facts: Facts) -> Iterator[Finding]:
    """Several owners of one package: beside each other, over each other (conda and pip), or shadowed."""
    packages = known(facts.packages)
    for framework, names in OWNERS.items():
        here = [d for d in packages.distributions if d.name in names and not _is_stub(d)]
        places = dict.fromkeys(d.location for d in here)
        for place in places:
            yield from _beside(framework, _owners([d for d in here if d.location == place]), facts)
        if len(places) > 1:
            yield from _shadowed(framework, here, facts)
        for distribution in here:
            yield from _over_conda(framework, distribution, facts)


def _beside(framework: str, owners: list[Distribution], facts: Facts) -> Iterator[Finding]:
    listed = [f"{d.name} {d.version}" for d in owners]
    if len(listed) < 2:
        return
    one_name = len({d.name for d in owners}) == 1
    # tensorflow and tensorflow-gpu were one and the same wheel from 2.1 to 2.11: only a removal does harm
    same = {d.name for d in owners} == {"tensorflow", "tensorflow-gpu"} and len(
        {d.version for d in owners}
    ) == 1
    cure = exchange(facts, sorted({d.name for d in owners}), _kept(owners, facts))
    yield Finding(
        code="PKG004",
        subject=framework,
        framework=framework if framework != "keras" else "tensorflow",
        severity_here=Severity.WARNING if same or one_name or framework == "keras" else None,
        message=f"{' and '.join(listed)} are installed in one directory: "
        + (
            "an upgrade left two records behind"
            if one_name
            else f"both own the files of {framework}, and the last one installed has overwritten the other's"
        ),
        evidence=tuple(
            Evidence(d.name, d.version, f"ls -d {quoted(d.location)}/*.dist-info") for d in owners
        ),
        remedy=cure.text,
        commands=cure.commands,
    )


def _shadowed(framework: str, here: list[Distribution], facts: Facts) -> Iterator[Finding]:
    """What is imported comes from outside the environment, and hides the environment's own.

    An environment that hides the base installation's copy is what environments are for, and a user's own
    packages before the system's are as well.
    """
    interpreter = known(facts.interpreter)
    inside = [d for d in here if d.location.startswith(interpreter.prefix.rstrip("/") + "/")]
    wins = here[0]
    if interpreter.kind == "system" or wins in inside or not inside:
        return
    hidden = inside[0]
    if (wins.name, wins.version) == (hidden.name, hidden.version):
        return
    cpu_wins = any(f.name == framework and f.cuda_build is False for f in known(facts.frameworks))
    by_path = wins.location in facts.environment.get("PYTHONPATH", "").split(":")
    yield Finding(
        code="PKG004",
        subject=framework,
        framework=framework if framework != "keras" else "tensorflow",
        severity_here=None if cpu_wins and "cpu" not in hidden.name else Severity.WARNING,
        message=f"{wins.name} {wins.version} in {wins.location} is imported, not the environment's "
        f"{hidden.name} {hidden.version}",
        evidence=(
            Evidence("imported", f"{wins.name} {wins.version}", wins.location),
            Evidence("hidden", f"{hidden.name} {hidden.version}", hidden.location),
            Evidence("because of", "PYTHONPATH" if by_path else "the user's site-packages", "python -m site"),
        ),
        remedy="unset PYTHONPATH" if by_path else "export PYTHONNOUSERSITE=1",
    )


def _over_conda(framework: str, distribution: Distribution, facts: Facts) -> Iterator[Finding]:
    """Conda believes in another version than the one pip has put in its place."""
    record = next(
        (c for c in known(facts.packages).conda if c.name in CONDA_NAMES.get(framework, (framework,))), None
    )
    interpreter = known(facts.interpreter)
    if (
        record is None
        or distribution.installer in {"", "conda"}
        or record.version == distribution.version
        or not distribution.location.startswith(interpreter.prefix.rstrip("/") + "/")
    ):
        return
    # conda removes what stands under the names of its own files, and these are pip's by now.
    back = install(facts, f"{distribution.name}=={distribution.version}", again=True)
    cure = Remedy((conda_forget(interpreter, record.name), *back.commands))
    yield Finding(
        code="PKG004",
        subject=framework,
        framework=framework if framework != "keras" else "tensorflow",
        severity_here=Severity.WARNING,
        message=f"{distribution.installer} has put {distribution.name} {distribution.version} over conda's "
        f"{record.name} {record.version}: the next conda update mixes the two",
        evidence=(
            Evidence("conda", f"{record.name} {record.version} {record.build}", f"conda list {record.name}"),
            Evidence(
                distribution.installer, f"{distribution.name} {distribution.version}", distribution.location
            ),
        ),
        remedy=cure.text,
        commands=cure.commands,
    )


def check_cpu_only_build(facts: Facts) -> Iterator[Finding | Unknown]:
    require_gpu_wanted(facts)
    others = {f.name for f in known(facts.frameworks) if f.cuda_build is True}
    for framework in known(facts.frameworks):
        if not isinstance(framework.cuda_build, bool):
            yield Unknown("PKG002", framework.cuda_build.reason)
        elif not framework.cuda_build:
            cure = _gpu_build(framework, facts)
            yield Finding(
                code="PKG002",
                subject=framework.distribution,
                framework=framework.name,
                # TensorFlow 2.12 to 2.15 and many libraries bring JAX along for the CPU.
                severity_here=Severity.NOTE if framework.name == "jax" and others - {"jax"} else None,
                message=f"{title(framework)} ({framework.distribution}) is built for the CPU only",
                evidence=(Evidence("is_cuda_build", "False", framework.source),),
                remedy=cure.text,
                commands=cure.commands,
            )


def _gpu_build(framework: Framework, facts: Facts) -> Remedy:
    machine = facts.host.machine
    version = framework.version.partition("+")[0]
    if framework.name == "torch":
        return exchange(facts, ["torch"], f"torch=={version}")
    if framework.name == "jax":
        served = release_key(driver_cuda_version(facts))
        return install(facts, f"jax[cuda{13 if served[:1] >= (13,) else 12}]=={version}")
    if machine != "x86_64":
        return Remedy(words=f"PyPI has no GPU build of TensorFlow for {machine}; NVIDIA's containers do")
    key = release_key(version)
    name = "tensorflow-gpu" if key < (2, 1) else "tensorflow[and-cuda]" if key >= (2, 14) else "tensorflow"
    same = framework.distribution == name.partition("[")[0]
    return exchange(facts, [] if same else [framework.distribution], f"{name}=={version}")


def _owners(here: list[Distribution]) -> list[Distribution]:
    """Without those that only stand for another: `tensorflow` for aarch64 requires tensorflow-cpu-aws."""
    required = {
        (d.name, found.name) for d in here for line in d.requires if (found := parse(line)) is not None
    }
    return [d for d in here if not any((d.name, other.name) in required for other in here if other is not d)]


def _kept(owners: list[Distribution], facts: Facts) -> str:
    """The one to install again: the newest, with CUDA for TensorFlow where a GPU is wanted."""
    newest = max(owners, key=lambda d: release_key(d.version))
    stable = [d for d in owners if d.name == "tensorflow"]
    if newest.name in OWNERS["tensorflow"] and gpu_wanted(facts) and facts.host.machine == "x86_64":
        chosen = (stable or [newest])[0]
        extra = "[and-cuda]" if release_key(chosen.version) >= (2, 14) else ""
        name = chosen.name if "nightly" in chosen.name else "tensorflow"
        return f"{name}{extra}=={chosen.version}"
    return f"{newest.name}=={newest.version}"


def _is_stub(distribution: Distribution) -> bool:
    return distribution.name == "tensorflow-gpu" and release_key(distribution.version) >= FIRST_STUB


def _asks_for_stub(line: str) -> bool:
    if not line.lower().replace("_", "-").startswith("tensorflow-gpu"):
        return False
    found = parse(line)
    return (
        found is not None
        and found.name == "tensorflow-gpu"
        and allows(found.specifier, "2.12.0") is not False
    )


def _release_for(interpreter: Interpreter) -> TensorFlowRelease | None:
    """The newest TensorFlow with a wheel for this Python; None where none has one."""
    return next((r for r in reversed(tensorflow_releases()) if _minor(interpreter) in r.python), None)


def _minor(interpreter: Interpreter) -> str:
    return ".".join(interpreter.version.split(".")[:2])
