"""The libraries that a framework asks the loader for: found, and whole?"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from envdoctor.catalog import Severity
from envdoctor.checks.lookups import directory, install, looked, names, wanted, why
from envdoctor.checks.machine import title
from envdoctor.facts.loader_model import Lookup, stem
from envdoctor.facts.model import Facts
from envdoctor.finding import Evidence, Finding, Unknown
from envdoctor.resolution import DRIVER_SONAME, Candidate, FrameworkLibraries, Need
from envdoctor.shell import quoted
from envdoctor.versions import owning_wheel

# cuDNN's own package without the precompiled engines ("jit") is complete without the others.
ESSENTIAL_PARTS = ("_graph", "_ops", "_cnn", "_adv", "_infer")


def check_required_libraries(facts: Facts) -> Iterator[Finding | Unknown]:
    """One finding per kind of trouble, naming every library that has it: no wall of red."""
    for libraries in wanted(facts):
        groups: dict[tuple[str, str], list[Need]] = {}
        absent = {n.soname for n in libraries.needs if n.lookup.error}
        for need in libraries.needs:
            use = need.requirement.needed_for
            if not (need.requirement.required or use) or need.lookup.ok:
                continue
            failures = need.lookup.failures
            if not failures:
                if need.requirement.required:
                    yield Unknown("LIB001", f"{need.soname}: {need.lookup.doubts[0]}")
            elif failures[0] is need.lookup or failures[0].name not in absent:
                groups.setdefault((classify(need, libraries), use), []).append(need)
        for (code, use), needs in groups.items():
            finding = _FINDING[code](code, needs, libraries, facts)
            if use:
                message = f"{finding.message}: without it {use} fails"
                finding = replace(finding, message=message, severity_here=Severity.WARNING)
            yield finding
        yield from _parts_of_cudnn(libraries, facts)


def _parts_of_cudnn(libraries: FrameworkLibraries, facts: Facts) -> Iterator[Finding]:
    """What libcudnn.so opens when it is first used, and does not find."""
    need = libraries.need("libcudnn")
    if need is None or not need.lookup.ok:
        return
    leaves: dict[str, Lookup] = {}
    beside = facts.libraries.listings.get(directory(need.lookup.real), {})
    for part in libraries.cudnn_parts:
        leaf = next(iter(part.failures), None)
        if leaf is part and part.name in beside:
            continue  # no release is known that does not find what lies beside it
        if leaf and leaf.name != DRIVER_SONAME and stem(part.name).endswith(ESSENTIAL_PARTS):
            leaves.setdefault(leaf.name, leaf)
    if leaves:
        first = next(iter(leaves.values()))
        missing = ", ".join(leaves)
        cure = install(libraries.framework, [need], facts)
        yield Finding(
            code="LIB008",
            subject=missing,
            framework=libraries.framework.name,
            severity_here=Severity.WARNING,  # the GPU is registered all the same
            message=f"{need.soname} is found, but {missing}, which it opens when it is first used, "
            f"{'is' if len(leaves) == 1 else 'are'} not: convolutions fail",
            evidence=(Evidence("cuDNN", need.lookup.path, why(need.lookup, facts)), *looked(first)),
            remedy=cure.text,
            commands=cure.commands,
        )


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


def check_tensorrt(facts: Facts) -> Iterator[Finding]:
    """Optional: only TF-TRT uses it."""
    for libraries in wanted(facts):
        asked = [n for n in libraries.needs if stem(n.soname) in {"libnvinfer", "libnvinfer_plugin"}]
        missing = [n for n in asked if not n.lookup.ok]
        if not missing:
            continue
        others = [c for n in missing for c in n.candidates if not c.problem]
        here = f"; another version is here: {', '.join(c.path for c in others)}" if others else ""
        yield Finding(
            code="LIB010",
            subject=names(missing),
            framework=libraries.framework.name,
            message=f"TensorRT ({names(missing)}) is not found: harmless unless TF-TRT is used{here}",
            evidence=looked(missing[0].lookup),
        )


def _missing(code: str, needs: list[Need], libraries: FrameworkLibraries, facts: Facts) -> Finding:
    framework = libraries.framework
    cure = install(framework, needs, facts)
    nothing = "cuDNN is" if code == "CDN001" else f"{names(needs)} {_is(needs)}"
    return Finding(
        code=code,
        subject=names(needs),
        framework=framework.name,
        message=f"{nothing} not installed anywhere on this target; "
        + (f"`import {framework.name}` fails without" if _linked(needs) else f"{title(framework)} needs")
        + f" {'it' if len(needs) == 1 else 'them'}",
        evidence=_asked(needs),
        remedy=cure.text,
        commands=cure.commands,
    )


def _elsewhere(code: str, needs: list[Need], libraries: FrameworkLibraries, _: Facts) -> Finding:
    framework = libraries.framework
    found = [_best(n, exact=True) for n in needs]
    return Finding(
        code=code,
        subject=names(needs),
        framework=framework.name,
        message=f"{names(needs)} {_is(needs)} installed but {title(framework.name)} cannot find "
        f"{'it' if len(needs) == 1 else 'them'}",
        evidence=(*_asked(needs), *(Evidence("is at", c.path, c.kind) for c in found)),
        remedy="envdoctor fix",
    )


def _other_version(code: str, needs: list[Need], libraries: FrameworkLibraries, facts: Facts) -> Finding:
    there = "; ".join(_best(n, exact=False).path for n in needs)
    cure = install(libraries.framework, needs, facts)
    return Finding(
        code=code,
        subject=names(needs),
        framework=libraries.framework.name,
        message=f"{title(libraries.framework)} asks for {names(needs)}; another version is here: {there}",
        evidence=(
            *_asked(needs),
            *(Evidence("installed", c.path, c.kind) for n in needs for c in n.candidates if not c.problem),
        ),
        remedy=cure.remarked(
            "a link to the other version may do: envdoctor fix --dry-run --allow-risky"
        ).text,
        commands=cure.commands,
    )


def _broken_link(code: str, needs: list[Need], libraries: FrameworkLibraries, facts: Facts) -> Finding:
    broken = [
        (a.path, a.outcome)
        for n in needs
        for a in n.lookup.attempts
        if a.outcome.startswith(("dangling", "link loop"))
    ] or [(c.path, c.problem) for n in needs for c in n.candidates if c.problem]
    cure = install(libraries.framework, needs, facts)
    return Finding(
        code=code,
        subject=names(needs),
        framework=libraries.framework.name,
        message=f"{names(needs)}: {broken[0][0]} is a {broken[0][1]}",
        evidence=(
            *(Evidence("link", f"{path}: {outcome}", f"ls -lL {quoted(path)}") for path, outcome in broken),
            *_asked(needs),
        ),
        remedy=cure.text,
        commands=cure.commands,
    )


def _unusable(code: str, needs: list[Need], libraries: FrameworkLibraries, facts: Facts) -> Finding:
    bad = [f for n in needs for f in _unusable_files(n.lookup)] or [
        (c.path, c.problem) for n in needs for c in n.candidates if c.problem
    ]
    cure = install(libraries.framework, needs, facts)
    if not all(owning_wheel(path, facts) for path, _ in bad):
        cure = cure.only_said()  # the file itself stays where it is
    return Finding(
        code=code,
        subject=names(needs),
        framework=libraries.framework.name,
        message=f"{bad[0][0]} cannot be loaded: {bad[0][1]}",
        evidence=tuple(Evidence(path, reason, f"file -L {quoted(path)}") for path, reason in bad),
        remedy=cure.text,
        commands=cure.commands,
    )


def _transitive(code: str, needs: list[Need], libraries: FrameworkLibraries, facts: Facts) -> Finding:
    leaves = {n.lookup.failures[0].name: n.lookup.failures[0] for n in needs}
    first = next(iter(leaves.values()))
    missing = ", ".join(leaves)
    cure = install(libraries.framework, needs, facts)
    return Finding(
        code=code,
        subject=missing,
        framework=libraries.framework.name,
        message=f"{names(needs)} {_is(needs)} found, but {missing}, which "
        f"{'it needs' if len(needs) == 1 else 'they need'}, {'is' if len(leaves) == 1 else 'are'} not",
        evidence=(
            Evidence("needed by", first.requester, f"readelf -d {quoted(first.requester)} | grep NEEDED"),
            *looked(first)[1:],
        ),
        remedy=cure.text,
        commands=cure.commands,
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


def _asked(needs: list[Need]) -> tuple[Evidence, ...]:
    return looked(needs[0].lookup, linked=needs[0].requirement.linked)


def _linked(needs: list[Need]) -> bool:
    return all(n.requirement.linked and n.requirement.required for n in needs)


def _unusable_files(lookup: Lookup) -> list[tuple[str, str]]:
    """Files of that very name which the loader met and could not use."""
    passed = ("no such", "not searched", "dangling", "link loop")
    return [(a.path, a.outcome) for a in lookup.attempts if a.outcome and not a.outcome.startswith(passed)]


def _best(need: Need, *, exact: bool) -> Candidate:
    return next(c for c in need.candidates if not c.problem and (c.exact or not exact))


def _is(needs: list[Need]) -> str:
    return "is" if len(needs) == 1 else "are"
