"""cuDNN: new enough, for the right CUDA, and of one piece?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from envdoctor.catalog import Severity
from envdoctor.checks.installing import Remedy, exchange, install, requirement
from envdoctor.checks.lookups import (
    built_version,
    directory,
    wanted,
    wheel_requirement,
    why,
    without_directory,
)
from envdoctor.checks.machine import title
from envdoctor.dependencies import imported
from envdoctor.facts.loader_model import Lookup, stem
from envdoctor.facts.model import Facts, Framework, Packages
from envdoctor.finding import Evidence, Finding, Unknown
from envdoctor.knowledge.loading import release_key
from envdoctor.resolution import FrameworkLibraries
from envdoctor.shell import quoted
from envdoctor.versions import cudnn_bound, library_version, owning_wheels, same_version

_CUDA_OF_PACKAGE = re.compile(r"(?:\+cuda|-cuda-)(?P<major>\d+)")
_WHEEL = re.compile(r"-cu(?P<major>\d+)$")


def check_cudnn_version(facts: Facts) -> Iterator[Finding | Unknown]:
    """A framework wants the cuDNN major version that it was built with and at least its minor version."""
    for libraries in wanted(facts):
        need = libraries.need("libcudnn")
        framework = libraries.framework
        if need is None or not need.lookup.real or need.lookup.real.startswith(f"{framework.location}/"):
            continue  # PyTorch's own copy is the one that it was built with
        built = built_cudnn(framework, facts)
        loaded = library_version(need.lookup.real, facts)
        if not loaded or not built:
            yield Unknown(
                "CDN002", f"{need.lookup.real} does not tell its version" if built else "no build version"
            )
        elif too_old(loaded, framework, facts):
            cure = _newer_cudnn(framework, need.lookup, facts)
            yield Finding(
                code="CDN002",
                subject=need.soname,
                framework=framework.name,
                message=f"cuDNN {loaded} would be loaded; {title(framework)} was built with {built} "
                "and takes no older minor version",
                evidence=(
                    Evidence("loaded", need.lookup.path, f"because of {why(need.lookup, facts)}"),
                    Evidence("built with", built, framework.source),
                ),
                remedy=cure.text,
                commands=cure.commands,
            )


def check_cuda_major(facts: Facts) -> Iterator[Finding]:
    """The file name does not say for which CUDA a cuDNN was built; its wheel, its package, its needs do."""
    for libraries in wanted(facts):
        need = libraries.need("libcudnn")
        framework = libraries.framework
        wants = _cuda_major(framework)
        if need is None or not need.lookup.real or not wants:
            continue
        told = _built_for(libraries, need.lookup, facts)
        if not told or any(major == wants for major, _ in told):
            continue
        major, evidence = told[0]
        cure = _right_cudnn(framework, need.lookup, facts)
        yield Finding(
            code="CDN003",
            subject=need.soname,
            framework=framework.name,
            message=f"{need.lookup.path} is a cuDNN for CUDA {major}; {title(framework)} is built for CUDA "
            f"{framework.cuda_version}",
            evidence=(evidence, Evidence("built for", f"CUDA {framework.cuda_version}", framework.source)),
            remedy=cure.text,
            commands=cure.commands,
        )


def check_parts(facts: Facts) -> Iterator[Finding]:
    """libcudnn.so opens its parts by name: each is searched like any other library."""
    for libraries in wanted(facts):
        need = libraries.need("libcudnn")
        if need is None or not need.lookup.real:
            continue
        main = need.lookup
        version = library_version(main.real, facts)
        other = [p for p in libraries.cudnn_parts if p.real and _differs(p, main, version, facts)]
        if not other:
            continue
        first = other[0]
        part_version = library_version(first.real, facts)
        known = bool(version and part_version)
        apart = directory(first.real) != directory(main.real)
        yield Finding(
            code="CDN004",
            subject=", ".join(p.name for p in other),
            framework=libraries.framework.name,
            severity_here=None if known else Severity.WARNING,
            message=f"{need.soname} is cuDNN {version or 'of an unknown version'}, and its part "
            f"{first.name} is {part_version or 'of an unknown version'}"
            + (f", from {directory(first.path)} because of {why(first, facts)}" if apart else ", beside it"),
            evidence=(
                Evidence(need.soname, main.path, f"because of {why(main, facts)}"),
                *(Evidence(p.name, p.real, f"because of {why(p, facts)}") for p in other),
            ),
            remedy=_of_one_piece(first, facts, apart=apart),
        )


def built_cudnn(framework: Framework, facts: Facts) -> str:
    """The cuDNN version of the build: the lower bound in its own METADATA, else what its files say."""
    if isinstance(facts.packages, Packages):
        for distribution in facts.packages.named(framework.distribution):
            bound = cudnn_bound(distribution.requires)
            if bound:
                return ".".join(bound.split(".")[:2])
    return built_version(framework)


def too_old(loaded: str, framework: Framework, facts: Facts) -> bool:
    built = built_cudnn(framework, facts)
    return bool(loaded and "." in built) and release_key(loaded)[:2] < release_key(built)[:2]


def _built_for(libraries: FrameworkLibraries, cudnn: Lookup, facts: Facts) -> list[tuple[str, Evidence]]:
    """The CUDA majors that something says this copy is for."""
    wheels = owning_wheels(cudnn.real, facts)
    if wheels:
        named = ((w, _WHEEL.search(w.name)) for w in wheels)
        return [(m["major"], Evidence("wheel", f"{w.name} {w.version}", w.location)) for w, m in named if m]
    needs = {n.name: p for p in libraries.cudnn_parts for n in p.needed if stem(n.name) == "libcublas"}
    if needs:
        return [
            (name.rpartition(".so.")[2].split(".")[0], Evidence("needs", name, _readelf(part)))
            for name, part in needs.items()
        ]
    if cudnn.real.startswith(("/usr/lib/", "/lib/")):
        major = cudnn.name.rpartition(".so.")[2]
        packages = [p for p in facts.installations.cudnn_packages if p.name.startswith(f"libcudnn{major}")]
        found = ((p, _CUDA_OF_PACKAGE.search(f"{p.name} {p.version}")) for p in packages)
        return [
            (m["major"], Evidence("package", f"{p.name} {p.version}", f"dpkg -s {quoted(p.name)}"))
            for p, m in found
            if m
        ]
    return []


def _readelf(part: Lookup) -> str:
    return f"readelf -d {quoted(part.path)} | grep NEEDED"


def _wheel(framework: Framework, facts: Facts) -> str:
    """The cuDNN wheel that the framework's METADATA asks for, else one that the build takes."""
    name, built = f"nvidia-cudnn-cu{_cuda_major(framework)}", built_cudnn(framework, facts)
    specifier = ""
    if "." in built:
        specifier = f">={'.'.join(built.split('.')[:2])},<{int(built.split('.')[0]) + 1}"
    return wheel_requirement(name, framework, facts) or requirement(name, specifier)


def _newer_cudnn(framework: Framework, cudnn: Lookup, facts: Facts) -> Remedy:
    """A wheel replaces what is a wheel's; before another copy it comes only where that one goes."""
    cure = install(facts, _wheel(framework, facts))
    if owning_wheels(cudnn.real, facts):
        return cure
    away = without_directory(cudnn, facts)
    there = imported(f"nvidia-cudnn-cu{_cuda_major(framework)}", facts)
    if there and not too_old(there.version, framework, facts):
        return Remedy(words=away or f"remove the cuDNN in {directory(cudnn.path)}")
    return Remedy(words=f"{away} && {cure.text}") if away else cure.only_said()


def _right_cudnn(framework: Framework, cudnn: Lookup, facts: Facts) -> Remedy:
    wheels = owning_wheels(cudnn.real, facts)
    if wheels:
        return exchange(facts, [w.name for w in wheels], _wheel(framework, facts))
    return Remedy(words=_right_system_cudnn(framework, cudnn, facts))


def _right_system_cudnn(framework: Framework, cudnn: Lookup, facts: Facts) -> str:
    major, built = _cuda_major(framework), built_version(framework)
    name = cudnn.name.rpartition(".so.")[2]
    if cudnn.real.startswith(("/usr/lib/", "/lib/")) and facts.installations.cudnn_packages:
        if int(name) >= 9:
            return f"sudo apt-get install -y libcudnn9-cuda-{major}"
        return (
            f"v=\"$(apt-cache madison libcudnn{name} | awk '/cuda{major}/ {{print $3; exit}}')\" && "
            f'sudo apt-get install -y --allow-downgrades "libcudnn{name}=$v" && '
            f"sudo apt-mark hold libcudnn{name}"
        )
    return f"put cuDNN {built} for CUDA {major} in the place of {cudnn.path}"


def _differs(part: Lookup, main: Lookup, version: str, facts: Facts) -> bool:
    found = library_version(part.real, facts)
    if version and found:
        return not same_version(version, found)
    return directory(part.real) != directory(main.real)


def _of_one_piece(part: Lookup, facts: Facts, *, apart: bool) -> str:
    if apart:
        return without_directory(part, facts) or f"remove the cuDNN in {directory(part.path)}"
    return f"rm {quoted(directory(part.path))}/libcudnn*    # then install one version of cuDNN there again"


def _cuda_major(framework: Framework) -> str:
    return framework.cuda_version.split(".")[0]
