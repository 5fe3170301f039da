"""NVIDIA's wheels: the versions that the frameworks ask for, and of one CUDA major version?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from envdoctor.catalog import Severity
from envdoctor.checks.installing import (
    Remedy,
    conda_forget,
    conda_owns,
    exchange,
    install,
    pasted,
    requirement,
)
from envdoctor.checks.machine import title
from envdoctor.dependencies import allows, below, bounds, dependencies
from envdoctor.facts.loader_model import Lookup
from envdoctor.facts.model import Distribution, Facts, Unavailable, known
from envdoctor.facts.model_packages import CondaPackage
from envdoctor.finding import Evidence, Finding, SkipError
from envdoctor.knowledge.providers import soname_providers
from envdoctor.knowledge.tables import release_key
from envdoctor.shell import quoted
from envdoctor.versions import owning_wheel

_NAMES = ("nvidia-", "jax-cuda")
_MAJOR = re.compile(r"-cu(1\d)$")
# Whose METADATA names the wheels: the framework's own, or what it requires for that purpose.
_SPEAKERS = {
    "tensorflow": (),  # the distribution that is imported
    "torch": ("torch", "cuda-toolkit"),
    "jax": ("jax", "jax-cuda12-plugin", "jax-cuda13-plugin"),
}
_CONDA_CUDA = {"cudatoolkit", "cuda-cudart", "libcublas", "libcufft", "libcusolver", "libcusparse"}


class Asked(Struct, frozen=True):
    """What one framework asks of NVIDIA's wheels."""

    framework: str
    named: str  # "PyTorch 2.5.1"
    wheels: dict[str, str]  # version specifiers by distribution
    source: str
    requirement: str  # what installs it with them

    @property
    def majors(self) -> set[str]:
        return {m for name in self.wheels if (m := _major(name, self.wheels[name]))}


def check_wheel_versions(facts: Facts) -> Iterator[Finding]:
    """Each wheel against what the frameworks ask, and wheels of several CUDA majors in one directory.

    How much it matters is told by what the loader takes. An older cuDNN or nvJitLink than asked for fails
    (cuDNN checks its minor version, nvJitLink's symbols carry theirs); another older library may; a newer one
    of the same major version serves.
    """
    wheels = _wheels(facts)
    for asked in _asked(facts):
        outside = {
            name: wheels[name]
            for name, specifier in asked.wheels.items()
            if name in wheels and allows(specifier, wheels[name].version) is False
        }
        passed_over = _passed_over(asked.framework, facts) if outside else set()
        groups: dict[Severity, list[tuple[Distribution, str]]] = {}
        for name, wheel in outside.items():
            specifier = asked.wheels[name]
            severity = _severity(wheel, specifier, passed_over=name in passed_over)
            groups.setdefault(severity, []).append((wheel, specifier))
        for severity, group in groups.items():
            yield _outside(asked, group, severity, facts)
    yield from _side_by_side(wheels, facts)


def _outside(
    asked: Asked, group: list[tuple[Distribution, str]], severity: Severity, facts: Facts
) -> Finding:
    wheel, specifier = group[0]
    others = f", and {len(group) - 1} more are outside too" if len(group) > 1 else ""
    newer = severity is Severity.NOTE and not below(specifier, wheel.version)
    cure = install(facts, *(requirement(w.name, s) for w, s in group))
    return Finding(
        code="PKG009",
        subject=", ".join(w.name for w, _ in group),
        framework=asked.framework,
        severity_here=severity,
        message=f"{wheel.name} {wheel.version} is {'newer than' if newer else 'not'} what {asked.named} "
        f"asks for ({specifier}){others}" + (": mostly harmless" if newer else ""),
        evidence=tuple(
            Evidence(w.name, f"{w.version}; asked for {s}", f"METADATA of {asked.source}") for w, s in group
        ),
        remedy=cure.text,
        commands=cure.commands,
    )


def _severity(wheel: Distribution, specifier: str, *, passed_over: bool) -> Severity:
    if passed_over or not below(specifier, wheel.version):
        return Severity.NOTE
    lowest = max(release_key(b) for b in bounds(specifier))
    decisive = wheel.name.startswith(("nvidia-cudnn", "nvidia-nvjitlink", "jax-cuda"))
    older = release_key(wheel.version)[:2] < lowest[:2] or wheel.name.startswith("jax-cuda")
    return Severity.ERROR if decisive and older else Severity.WARNING


def _side_by_side(wheels: dict[str, Distribution], facts: Facts) -> Iterator[Finding]:
    """Two distributions that own one file: the last one installed is there; removing either removes it."""
    families: dict[str, list[Distribution]] = {}
    for wheel in wheels.values():
        families.setdefault(_MAJOR.sub("", wheel.name), []).append(wheel)
    for family in families.values():
        owned = [(wheel, _files(wheel)) for wheel in family] if len(family) > 1 else []
        for index, (one, files) in enumerate(owned):
            for other, others in owned[index + 1 :]:
                common = sorted(files & others)
                if not common or one.location != other.location:
                    continue
                frameworks = [a for a in _asked(facts) if one.name in a.wheels or other.name in a.wheels]
                keep = other if any(other.name in a.wheels for a in frameworks) else one
                drop = one if keep is other else other
                if len({m for a in frameworks for m in a.majors}) > 1:
                    cure = Remedy(words="one environment for each framework")
                else:
                    cure = exchange(facts, [drop.name], f"{keep.name}=={keep.version}", again=True)
                yield Finding(
                    code="PKG009",
                    subject=one.name,
                    severity_here=Severity.WARNING,
                    message=f"{one.name} {one.version} and {other.name} {other.version} own the same file "
                    f"{common[0].rpartition('/')[2]}: the last one installed is there",
                    evidence=(
                        *(Evidence("file", f"{one.location}/{path}", "both wheels") for path in common),
                        *(
                            Evidence(a.named, "asks for " + ", ".join(sorted(a.wheels)), a.source)
                            for a in frameworks
                        ),
                    ),
                    remedy=cure.text,
                    commands=cure.commands,
                )


def check_frameworks_agree(facts: Facts) -> Iterator[Finding]:
    """Two frameworks that no set of wheels suits: disjoint ranges, or CUDA majors that share names."""
    asked = list(_asked(facts))
    if len(asked) < 2:
        raise SkipError("no two frameworks here ask for NVIDIA's wheels")
    for index, one in enumerate(asked):
        for other in asked[index + 1 :]:
            disjoint = _disjoint(one, other, facts)
            shared = _shared_names(one, other)
            if not disjoint and not shared:
                continue
            why = (
                f"no {disjoint[0]} suits both ({one.wheels[disjoint[0]]} and {other.wheels[disjoint[0]]})"
                if disjoint
                else f"{_majors(one)} and {_majors(other)} share the names {', '.join(shared[:3])}"
            )
            yield Finding(
                code="PKG010",
                subject=f"{one.framework}, {other.framework}",
                message=f"{one.named} and {other.named} conflict: {why}",
                evidence=tuple(
                    Evidence(
                        a.named, ", ".join(f"{n} {a.wheels[n]}" for n in disjoint) or _majors(a), a.source
                    )
                    for a in (one, other)
                ),
                remedy="one environment for each: "
                f"python3 -m venv ~/venv-{other.framework} && "
                f"~/venv-{other.framework}/bin/python -m pip install {quoted(other.requirement)}",
            )


def check_pip_conda_mix(facts: Facts) -> Iterator[Finding]:
    """A conda environment whose CUDA is of one major version, with pip's wheels for another."""
    interpreter, packages = known(facts.interpreter), known(facts.packages)
    if interpreter.kind != "conda":
        raise SkipError("no conda environment")
    conda = [c for c in packages.conda if c.name in _CONDA_CUDA and release_key(c.version)]
    pip = {
        wheel: major
        for wheel in _wheels(facts).values()
        if (major := _major(wheel.name, "==" + wheel.version))
    }
    if not conda or not pip:
        return
    majors = {str(release_key(c.version)[0]) for c in conda if c.name in {"cudatoolkit", "cuda-cudart"}}
    if not majors or majors & set(pip.values()):
        return
    first = next(iter(pip))
    cure = _one_source(conda, [w.name for w in pip], facts)
    yield Finding(
        code="PKG011",
        subject=interpreter.prefix,
        message=f"conda has put CUDA {'/'.join(sorted(majors))} into {interpreter.prefix}/lib, "
        f"and pip CUDA {'/'.join(sorted(set(pip.values())))} beside it: who asks decides which one is loaded",
        evidence=(
            *(Evidence("conda", f"{c.name} {c.version}", f"conda list {c.name}") for c in conda),
            Evidence("pip", f"{first.name} {first.version}", first.location),
        ),
        remedy=cure.text,
        commands=cure.commands,
    )


def _one_source(conda: list[CondaPackage], wheels: list[str], facts: Facts) -> Remedy:
    """CUDA from whom the frameworks are from, where that is one."""
    forget = conda_forget(known(facts.interpreter), *(c.name for c in conda))
    owned = {conda_owns(f.distribution or f.name, known(facts.packages)) for f in known(facts.frameworks)}
    if owned == {False}:
        return Remedy((forget,))
    if owned == {True}:
        return exchange(facts, wheels)
    return Remedy(
        words=f"{pasted([forget])}    # where the framework is pip's; else uninstall the nvidia-* wheels"
    )


def _asked(facts: Facts) -> Iterator[Asked]:
    """What every framework here asks of the wheels, that can use a GPU and is not conda's."""
    interpreter, packages = known(facts.interpreter), known(facts.packages)
    installed = {d.name for d in packages.distributions}
    for framework in known(facts.frameworks):
        own = framework.distribution or framework.name
        if framework.cuda_build is False or conda_owns(own, packages):
            continue
        wheels: dict[str, str] = {}
        for name in _SPEAKERS.get(framework.name) or (own,):
            for distribution in packages.named(name)[:1]:
                for dependency in dependencies(distribution, facts, interpreter, _NAMES):
                    # Both CUDA variants are extras of `jax`: the one whose plugin is here is meant.
                    meant = dependency.name.startswith("nvidia-") or dependency.name in installed
                    if dependency.specifier and meant:
                        wheels[dependency.name] = dependency.specifier
        version = framework.version.partition("+")[0]
        if wheels:
            extra = {"tensorflow": "[and-cuda]", "jax": "[cuda12]"}.get(framework.name, "")
            if "jax-cuda13-plugin" in wheels:
                extra = "[cuda13]"
            yield Asked(framework.name, title(framework), wheels, own, f"{framework.name}{extra}=={version}")


def _wheels(facts: Facts) -> dict[str, Distribution]:
    """NVIDIA's wheels and JAX's plugins: the first of each name."""
    found: dict[str, Distribution] = {}
    for distribution in known(facts.packages).distributions:
        if distribution.name.startswith(_NAMES):
            found.setdefault(distribution.name, distribution)
    if not found:
        raise SkipError("no NVIDIA wheel is installed")
    return found


def _passed_over(framework: str, facts: Facts) -> set[str]:
    """The wheels whose library the loader does not take, because another copy comes first."""
    taken: set[str] = set()
    offered: set[str] = set()
    for libraries in facts.resolution:
        if libraries.framework.name == framework:
            for need in libraries.needs:
                taken |= {w.name for path in _loaded(need.lookup) if (w := owning_wheel(path, facts))}
                exact = [c.real for c in need.candidates if c.exact and not c.problem]
                offered |= {w.name for path in exact if need.lookup.real and (w := owning_wheel(path, facts))}
    return offered - taken


def _loaded(lookup: Lookup) -> Iterator[str]:
    if lookup.real:
        yield lookup.real
    for needed in lookup.needed:
        yield from _loaded(needed)


def _files(wheel: Distribution) -> set[str]:
    """The libraries of a wheel, below site-packages, as far as the table of providers knows them."""
    found = set()
    for row in soname_providers():
        if row.manager == "pip" and row.directory:
            name = re.split(r"[<>=!~]", row.package, maxsplit=1)[0]
            if name == wheel.name and allows(row.package[len(name) :], wheel.version):
                found.add(f"{row.directory}/{row.soname}")
    return found


def _disjoint(one: Asked, other: Asked, facts: Facts) -> list[str]:
    """The wheels for which no version suits both: where ranges overlap, the lowest of one is in the other."""
    found = []
    for name in sorted(one.wheels.keys() & other.wheels.keys()):
        first, second = one.wheels[name], other.wheels[name]
        installed = () if isinstance(facts.packages, Unavailable) else facts.packages.named(name)
        candidates = {*bounds(first), *bounds(second), *(d.version for d in installed)}
        judged = [(allows(first, c), allows(second, c)) for c in candidates]
        if judged and all(a is not None and b is not None and not (a and b) for a, b in judged):
            found.append(name)
    return found


def _shared_names(one: Asked, other: Asked) -> list[str]:
    """Sonames that exist in both frameworks' CUDA majors, where those differ."""
    if not one.majors or not other.majors or one.majors & other.majors:
        return []
    names = [
        {
            row.soname
            for row in soname_providers()
            if row.manager == "pip" and ".so." in row.soname and {str(c) for c in row.cuda} & asked.majors
        }
        for asked in (one, other)
    ]
    return sorted(names[0] & names[1])


def _major(name: str, specifier: str) -> str:
    """The CUDA major of a wheel: to 12 in its name, from 13 on its own version; "" where neither tells."""
    match = _MAJOR.search(name)
    if match:
        return match[1]
    if name in {"nvidia-cuda-runtime", "nvidia-cublas", "nvidia-cuda-nvcc"}:
        lowest = bounds(specifier)
        major = release_key(lowest[0])[0] if lowest else 0
        return str(major) if major >= 13 else ""
    return ""


def _majors(asked: Asked) -> str:
    return f"CUDA {'/'.join(sorted(asked.majors))}"
