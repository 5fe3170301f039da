"""The libraries that a framework asks the loader for: found, the right ones, and whole?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from envdoctor.catalog import Severity
from envdoctor.checks.machine import cuda_frameworks, require_gpu_wanted, title
from envdoctor.checks.packages import pip_install
from envdoctor.facts.loader_model import Lookup, Rule, stem
from envdoctor.facts.model import Facts, Framework, known
from envdoctor.finding import Evidence, Finding, SkipError, Unknown
from envdoctor.knowledge.tables import release_key, tensorflow_release
from envdoctor.resolution import Candidate, FrameworkLibraries, Need
from envdoctor.shell import quoted
from envdoctor.versions import library_version

# `nvidia-cudnn-cu12<10.0,>=9.3.0.75; …` -> 9.3. packaging's parser would cost 20 ms at every start.
_CUDNN_BOUND = re.compile(r"nvidia-cudnn[^;]*?(?:>=|==)\s*(?P<version>\d+\.\d+)")


def check_required_libraries(facts: Facts) -> Iterator[Finding | Unknown]:
    """One finding per kind of trouble, naming every library that has it: no wall of red."""
    for libraries in _wanted(facts):
        groups: dict[str, list[Need]] = {}
        for need in libraries.needs:
            if not need.requirement.required or need.lookup.ok:
                continue
            if need.lookup.failures:
                groups.setdefault(classify(need, libraries), []).append(need)
            else:
                yield Unknown("LIB001", f"{need.soname}: {need.lookup.doubts[0]}")
        for code, needs in groups.items():
            yield _FINDING[code](code, needs, libraries, facts)


def classify(need: Need, libraries: FrameworkLibraries) -> str:
    """The condition that explains why a look-up fails."""
    leaf = need.lookup.failures[0]
    if leaf is not need.lookup:
        return "LIB008"
    exact = [c for c in need.candidates if c.exact]
    if any(a.outcome.startswith(("dangling", "link loop")) for a in leaf.attempts):
        return "LIB006"
    if _unusable_files(leaf):
        return "LIB007"
    if any(not c.problem and c.kind == "pip wheel" for c in exact):
        return "LIB002"
    if any(not c.problem for c in exact):
        return "LIB003"
    if exact:
        return "LIB006" if "link" in exact[0].problem else "LIB007"
    if any(not c.problem for c in need.candidates):
        return "LIB005"
    others = (n for n in libraries.needs if n.requirement.required and n is not need)
    if stem(need.soname) == "libcudnn" and all(n.lookup.ok for n in others):
        return "CDN001"
    return "LIB001"


def check_shadowing(facts: Facts) -> Iterator[Finding]:
    """A copy from elsewhere wins over the wheel that the framework was installed with."""
    for libraries in _wanted(facts):
        for need in libraries.needs:
            wheels = [c for c in need.candidates if c.exact and c.kind == "pip wheel" and not c.problem]
            lookup = need.lookup
            if not lookup.real or not wheels or any(lookup.real == c.real for c in wheels):
                continue
            wins, wheel = library_version(lookup.real, facts), library_version(wheels[0].real, facts)
            if wins and wins == wheel:
                continue
            older = bool(wins and wheel) and release_key(wins) < release_key(wheel)
            yield Finding(
                code="LIB004",
                subject=need.soname,
                framework=libraries.framework.name,
                severity_here=Severity.ERROR
                if stem(need.soname) == "libcudnn" and _too_old(wins, libraries.framework, facts)
                else Severity.WARNING,
                message=f"{need.soname} is taken from {_directory(lookup.path)} "
                f"({wins or 'version unknown'}), not from the wheel ({wheel or 'version unknown'})"
                + (": older than what was installed with the framework" if older else ""),
                evidence=(
                    Evidence("found first", lookup.path, f"because of {_why(lookup, facts)}"),
                    Evidence("the wheel's", wheels[0].path, "pip"),
                ),
                remedy=_unshadow(lookup, facts),
            )


def check_cudnn_version(facts: Facts) -> Iterator[Finding | Unknown]:
    """TensorFlow wants the cuDNN major version it was built with and at least its minor version."""
    for libraries in _wanted(facts):
        need = libraries.need("libcudnn")
        if need is None or not need.lookup.real:
            continue
        framework = libraries.framework
        built = built_cudnn(framework, facts)
        loaded = library_version(need.lookup.real, facts)
        if not loaded or not built:
            yield Unknown(
                "CDN002", f"{need.lookup.real} does not tell its version" if built else "no build version"
            )
        elif _too_old(loaded, framework, facts):
            yield Finding(
                code="CDN002",
                subject=need.soname,
                framework=framework.name,
                message=f"cuDNN {loaded} would be loaded; {title(framework)} was built with {built} "
                "and takes no older minor version",
                evidence=(
                    Evidence("loaded", need.lookup.path, f"because of {_why(need.lookup, facts)}"),
                    Evidence("built with", built, framework.source),
                ),
                remedy=pip_install(
                    known(facts.interpreter),
                    f"nvidia-cudnn-cu{_major(framework)}>={built},<{int(built.split('.')[0]) + 1}",
                ),
            )


def check_tensorrt(facts: Facts) -> Iterator[Finding]:
    """Optional: only TF-TRT uses it."""
    for libraries in _wanted(facts):
        asked = [n for n in libraries.needs if stem(n.soname) in {"libnvinfer", "libnvinfer_plugin"}]
        missing = [n for n in asked if not n.lookup.ok]
        if not missing:
            continue
        others = [c for n in missing for c in n.candidates if not c.problem]
        here = f"; another version is here: {', '.join(c.path for c in others)}" if others else ""
        yield Finding(
            code="LIB010",
            subject=_names(missing),
            framework=libraries.framework.name,
            message=f"TensorRT ({_names(missing)}) is not found: harmless unless TF-TRT is used{here}",
            evidence=_lookup_evidence(missing[0].lookup),
        )


def built_cudnn(framework: Framework, facts: Facts) -> str:
    """The cuDNN version of the build: the lower bound in its own METADATA, else the release table's."""
    for distribution in known(facts.packages).named(framework.distribution):
        for line in distribution.requires:
            lower = _CUDNN_BOUND.match(line)
            if lower:
                return lower["version"]
    if "." in framework.cudnn_version:
        return framework.cudnn_version
    row = tensorflow_release(framework.version) if framework.name == "tensorflow" else None
    return row.cudnn if row else ""


def _wanted(facts: Facts) -> Iterable[FrameworkLibraries]:
    require_gpu_wanted(facts)
    cuda_frameworks(facts)
    if not facts.resolution:
        raise SkipError("no framework here opens CUDA libraries")
    return facts.resolution


def _missing(code: str, needs: list[Need], libraries: FrameworkLibraries, facts: Facts) -> Finding:
    framework = libraries.framework
    nothing = "cuDNN is" if code == "CDN001" else f"{_names(needs)} {_is(needs)}"
    return Finding(
        code=code,
        subject=_names(needs),
        framework=framework.name,
        message=f"{nothing} not installed anywhere on this target; {title(framework)} needs "
        f"{'it' if len(needs) == 1 else 'them'}",
        evidence=_lookup_evidence(needs[0].lookup),
        remedy=_install(framework, needs, facts),
    )


def _elsewhere(code: str, needs: list[Need], libraries: FrameworkLibraries, _: Facts) -> Finding:
    framework = libraries.framework
    found = [_best(n, exact=True) for n in needs]
    return Finding(
        code=code,
        subject=_names(needs),
        framework=framework.name,
        message=f"{_names(needs)} {_is(needs)} installed but {title(framework.name)} cannot find "
        f"{'it' if len(needs) == 1 else 'them'}",
        evidence=(*_lookup_evidence(needs[0].lookup), *(Evidence("is at", c.path, c.kind) for c in found)),
        remedy="envdoctor fix",
    )


def _other_version(code: str, needs: list[Need], libraries: FrameworkLibraries, facts: Facts) -> Finding:
    there = "; ".join(_best(n, exact=False).path for n in needs)
    return Finding(
        code=code,
        subject=_names(needs),
        framework=libraries.framework.name,
        message=f"{title(libraries.framework)} asks for {_names(needs)}; another version is here: {there}",
        evidence=(
            *_lookup_evidence(needs[0].lookup),
            *(Evidence("installed", c.path, c.kind) for n in needs for c in n.candidates if not c.problem),
        ),
        remedy=_install(libraries.framework, needs, facts),
    )


def _broken_link(code: str, needs: list[Need], libraries: FrameworkLibraries, facts: Facts) -> Finding:
    broken = [
        (a.path, a.outcome)
        for n in needs
        for a in n.lookup.attempts
        if a.outcome.startswith(("dangling", "link loop"))
    ] or [(c.path, c.problem) for n in needs for c in n.candidates if c.problem]
    return Finding(
        code=code,
        subject=_names(needs),
        framework=libraries.framework.name,
        message=f"{_names(needs)}: {broken[0][0]} is a {broken[0][1]}",
        evidence=(
            *(Evidence("link", f"{path}: {outcome}", f"ls -lL {quoted(path)}") for path, outcome in broken),
            *_lookup_evidence(needs[0].lookup),
        ),
        remedy=_install(libraries.framework, needs, facts, force=True),
    )


def _unusable(code: str, needs: list[Need], libraries: FrameworkLibraries, facts: Facts) -> Finding:
    bad = [f for n in needs for f in _unusable_files(n.lookup)] or [
        (c.path, c.problem) for n in needs for c in n.candidates if c.problem
    ]
    return Finding(
        code=code,
        subject=_names(needs),
        framework=libraries.framework.name,
        message=f"{bad[0][0]} cannot be loaded: {bad[0][1]}",
        evidence=tuple(Evidence(path, reason, f"file -L {quoted(path)}") for path, reason in bad),
        remedy=_install(libraries.framework, needs, facts, force=True),
    )


def _transitive(code: str, needs: list[Need], libraries: FrameworkLibraries, facts: Facts) -> Finding:
    leaves = {n.lookup.failures[0].name: n.lookup.failures[0] for n in needs}
    first = next(iter(leaves.values()))
    missing = ", ".join(leaves)
    return Finding(
        code=code,
        subject=missing,
        framework=libraries.framework.name,
        message=f"{_names(needs)} {_is(needs)} found, but {missing}, which "
        f"{'it needs' if len(needs) == 1 else 'they need'}, {'is' if len(leaves) == 1 else 'are'} not",
        evidence=(
            Evidence("needed by", first.requester, f"readelf -d {quoted(first.requester)} | grep NEEDED"),
            *_lookup_evidence(first)[1:],
        ),
        remedy=_install(libraries.framework, needs, facts),
    )


_FINDING = {
    "LIB001": _missing,
    "CDN001": _missing,
    "LIB002": _elsewhere,
    "LIB003": _elsewhere,
    "LIB005": _other_version,
    "LIB006": _broken_link,
    "LIB007": _unusable,
    "LIB008": _transitive,
}


def _lookup_evidence(lookup: Lookup) -> tuple[Evidence, ...]:
    """Who asks, and where was looked, in the loader's order; a long RUNPATH is one item."""
    places: dict[Rule, dict[str, None]] = {rule: {} for rule in Rule}
    for attempt in lookup.attempts:
        places[attempt.rule][_directory(attempt.path)] = None
    looked = []
    for rule, directories in places.items():
        listed = ", ".join(directories)
        if rule is Rule.LD_LIBRARY_PATH:
            looked.append(f"LD_LIBRARY_PATH ({listed or 'unset'})")
        elif rule is Rule.CACHE:
            looked.append("ld.so.cache" + (f" ({listed})" if listed else ""))
        elif rule is Rule.DEFAULT:
            looked += [d for d in directories if "/glibc-hwcaps" not in d]
        elif directories:
            several = f"{len(directories)} directories"
            looked.append(f"its {rule.value} ({several if len(directories) > 3 else listed})")
    opener = lookup.requester.rpartition("/")[2]
    return (
        Evidence("needed by", f"{opener} (dlopen)", lookup.requester),
        Evidence("looked in", ", ".join(looked), f"LD_DEBUG=libs, look for {lookup.name}"),
    )


def _unusable_files(lookup: Lookup) -> list[tuple[str, str]]:
    """Files of that very name which the loader met and could not use."""
    passed = ("no such", "not searched", "dangling", "link loop")
    return [(a.path, a.outcome) for a in lookup.attempts if a.outcome and not a.outcome.startswith(passed)]


def _install(framework: Framework, needs: list[Need], facts: Facts, *, force: bool = False) -> str:
    """What brings the libraries: from 2.14 on the framework's own extra; before that the CUDA toolkit."""
    interpreter = known(facts.interpreter)
    if framework.name == "tensorflow" and release_key(framework.version) >= (2, 14):
        command = pip_install(interpreter, f"tensorflow[and-cuda]=={framework.version}")
        return command.replace(" install ", " install --force-reinstall --no-deps ", 1) if force else command
    cudnn = any(stem(n.soname) == "libcudnn" for n in needs)
    parts = [f"cuDNN {framework.cudnn_version}"] if cudnn else []
    if any(stem(n.soname) != "libcudnn" for n in needs):
        parts.insert(0, f"CUDA {framework.cuda_version}")
    return f"install {' and '.join(parts)}, and put its lib64 directory on LD_LIBRARY_PATH"


def _unshadow(lookup: Lookup, facts: Facts) -> str:
    if lookup.rule is Rule.LD_LIBRARY_PATH:
        rest = [
            entry
            for entry in facts.environment.get("LD_LIBRARY_PATH", "").split(":")
            if entry and entry.rstrip("/") != _directory(lookup.path).rstrip("/")
        ]
        return f"export LD_LIBRARY_PATH={quoted(':'.join(rest))}" if rest else "unset LD_LIBRARY_PATH"
    return ""


def _too_old(loaded: str, framework: Framework, facts: Facts) -> bool:
    built = built_cudnn(framework, facts)
    return bool(loaded and built) and release_key(loaded)[:2] < release_key(built)[:2]


def _why(lookup: Lookup, facts: Facts) -> str:
    if lookup.rule is Rule.LD_LIBRARY_PATH:
        return f"LD_LIBRARY_PATH={facts.environment.get('LD_LIBRARY_PATH', '')}"
    if lookup.rule in {Rule.RUNPATH, Rule.RPATH}:
        return f"the {lookup.rule.value} of {lookup.requester.rpartition('/')[2]}"
    return lookup.rule.value if lookup.rule else ""


def _best(need: Need, *, exact: bool) -> Candidate:
    return next(c for c in need.candidates if not c.problem and (c.exact or not exact))


def _names(needs: list[Need]) -> str:
    return ", ".join(n.soname for n in needs)


def _is(needs: list[Need]) -> str:
    return "is" if len(needs) == 1 else "are"


def _major(framework: Framework) -> str:
    return framework.cuda_version.split(".")[0]


def _directory(path: str) -> str:
    return path.rpartition("/")[0]
