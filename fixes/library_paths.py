"""Repairs for libraries that are found elsewhere than they should be, or not by who needs them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from envdoctor.facts.loader import Process, RecordedView
from envdoctor.facts.loader_model import Lookup, stem
from envdoctor.facts.model import Driver, Facts, Interpreter
from envdoctor.finding import Finding
from envdoctor.fixes.exporting import export
from envdoctor.fixes.libraries import VARIABLE, own_search_directories, searched_first
from envdoctor.fixes.plan import Symlink
from envdoctor.fixes.repair import Repair, Wishes
from envdoctor.resolution import (
    DRIVER_SONAME,
    DRIVER_SONAMES,
    Candidate,
    FrameworkLibraries,
    Need,
    candidates,
    driver_libraries,
)


def link_own_copy(facts: Facts, finding: Finding, wishes: Wishes) -> Iterator[Repair]:
    """LIB004: a link in the RUNPATH to the environment's own copy, which then wins over ld.so.cache."""
    chosen = _own_copies(facts, finding)
    asked = {n.soname: n.lookup for n in _libraries(facts, finding).needs if n.soname in chosen}
    yield from _linked(facts, finding, wishes, asked, chosen)


def own_copy_first(facts: Facts, finding: Finding, wishes: Wishes) -> Iterator[Repair]:
    """LIB004: the directory of the environment's own copy before those on LD_LIBRARY_PATH."""
    yield from _searched_first(facts, finding, wishes, _own_copies(facts, finding))


def another_cudnn_first(facts: Facts, finding: Finding, wishes: Wishes) -> Iterator[Repair]:
    """CDN002, CDN003, CDN004: another cuDNN that is installed, or all parts from where the main one lies."""
    need = _libraries(facts, finding).need("libcudnn")
    if need is None:
        return
    paths = [need.lookup.path, *(c.path for c in _others(need))]
    for directory in dict.fromkeys(posixpath.dirname(path) for path in paths):
        yield from searched_first(facts, finding, wishes, [directory])


def link_what_is_needed(facts: Facts, finding: Finding, wishes: Wishes) -> Iterator[Repair]:
    """LIB008: what a library needs itself, linked from where it is installed to where that one looks."""
    missing = _missing_needs(facts, finding)
    yield from _linked(facts, finding, wishes, missing, _installed(facts, missing))


def what_is_needed_first(facts: Facts, finding: Finding, wishes: Wishes) -> Iterator[Repair]:
    """LIB008: the directories where it is installed on LD_LIBRARY_PATH."""
    yield from _searched_first(facts, finding, wishes, _installed(facts, _missing_needs(facts, finding)))


def plain_name(facts: Facts, finding: Finding, wishes: Wishes) -> Iterator[Repair]:
    """LIB013: libnvrtc.so beside the versioned file, and its directory searched where it is not yet.

    Beside it, because libnvrtc opens libnvrtc-builtins by its own `$ORIGIN`, which is the link's directory.
    """
    plain = finding.subject
    for candidate in candidates(f"{plain}.0", facts.libraries, facts.places):
        directory, name = posixpath.split(candidate.path)
        real = facts.libraries.aliases.get(directory, directory)
        if candidate.problem:
            continue
        if plain in facts.libraries.listings.get(real, {}):
            yield from searched_first(facts, finding, wishes, [directory])
        elif real in facts.writable and _is_own(candidate, facts) and not wishes.exports_only:
            link = Symlink(
                code=finding.code,
                summary=f"link {plain} to {name}",
                reason=f"{plain} is asked for by that name",
                path=f"{real}/{plain}",
                target=name,
            )
            after = replace(facts, libraries=facts.libraries.with_link(real, plain, candidate.real))
            yield Repair((link,), after)
            for searched in searched_first(after, finding, wishes, [directory]):
                yield Repair((link, *searched.actions), searched.after)


def driver_searched(facts: Facts, finding: Finding, wishes: Wishes) -> Iterator[Repair]:
    """HST009, DRV001, HST005: libcuda.so.1 lies where drivers are put, and the loader does not look there.

    Only there: in a toolkit or a package it is a stub to link with. What cuInit answers then is seen when it
    is asked again.
    """
    for candidate in candidates(DRIVER_SONAME, facts.libraries, facts.places):
        if candidate.kind == "system" and candidate.exact and not candidate.problem:
            for repair in searched_first(facts, finding, wishes, [posixpath.dirname(candidate.path)]):
                yield Repair(repair.actions, replace(repair.after, driver=_driver(repair.after)))


def newer_libstdcxx(facts: Facts, finding: Finding, wishes: Wishes) -> Iterator[Repair]:
    """HST002: the environment's own libstdc++ before the system's; never the system's before conda's."""
    for real in facts.surroundings.symbols:
        directory, name = posixpath.split(real)
        if stem(name) == stem(finding.subject) and _is_inside(directory, facts):
            repair = export(
                facts,
                finding.code,
                wishes,
                VARIABLE,
                (directory,),
                summary=f"put {directory} on {VARIABLE}",
                reason=f"{real} is new enough; every program started from the environment takes the other "
                "libraries of that directory too",
            )
            if repair is not None:
                yield repair


def _libraries(facts: Facts, finding: Finding) -> FrameworkLibraries:
    return next(r for r in facts.resolution if r.framework.name == finding.framework)


def _own_copies(facts: Facts, finding: Finding) -> dict[str, Candidate]:
    """For each shadowed soname the environment's own copy; empty where one of them has none."""
    needs = [n for n in _libraries(facts, finding).needs if n.soname in _subjects(finding)]
    own = {n.soname: c for n in needs for c in reversed(_others(n)) if _is_own(c, facts)}
    return own if len(own) == len(needs) else {}


def _missing_needs(facts: Facts, finding: Finding) -> dict[str, Lookup]:
    libraries = _libraries(facts, finding)
    asked = (*(n.lookup for n in libraries.needs), *libraries.cudnn_parts)
    return {f.name: f for lookup in asked for f in lookup.failures if f.name in _subjects(finding)}


def _installed(facts: Facts, missing: Mapping[str, Lookup]) -> dict[str, Candidate]:
    """For each name a file that bears it; empty where one of them has none."""
    found = {
        name: c
        for name in missing
        for c in reversed(candidates(name, facts.libraries, facts.places))
        if c.exact and not c.problem
    }
    return found if len(found) == len(missing) else {}


def _subjects(finding: Finding) -> list[str]:
    return finding.subject.split(", ")


def _others(need: Need) -> list[Candidate]:
    """Usable files of that very name that the loader does not take."""
    return [c for c in need.candidates if c.exact and not c.problem and c.real != need.lookup.real]


def _is_own(candidate: Candidate, facts: Facts) -> bool:
    return candidate.kind == "pip wheel" or _is_inside(candidate.path, facts)


def _is_inside(path: str, facts: Facts) -> bool:
    """In an environment of its own; what lies in a system Python's prefix is everybody's."""
    interpreter = facts.interpreter
    return (
        isinstance(interpreter, Interpreter)
        and interpreter.kind != "system"
        and path.startswith(f"{interpreter.prefix}/")
    )


def _linked(
    facts: Facts,
    finding: Finding,
    wishes: Wishes,
    asked: Mapping[str, Lookup],
    chosen: Mapping[str, Candidate],
) -> Iterator[Repair]:
    """For each directory that the first of them is searched in: a link there to every chosen file."""
    if not chosen or wishes.exports_only:
        return
    for directory in own_search_directories(facts, next(iter(asked.values()))):
        if any(name in facts.libraries.listings.get(directory, {}) for name in asked):
            continue
        world = facts.libraries
        actions = []
        for name, lookup in asked.items():
            world = world.with_link(directory, name, chosen[name].real)
            asker = posixpath.basename(lookup.requester)
            actions.append(
                Symlink(
                    code=finding.code,
                    summary=f"link {name} where {asker} looks",
                    reason=f"{directory} is in the RUNPATH of {asker}",
                    path=f"{directory}/{name}",
                    target=posixpath.relpath(chosen[name].path, directory),
                )
            )
        yield Repair(tuple(actions), replace(facts, libraries=world))


def _searched_first(
    facts: Facts, finding: Finding, wishes: Wishes, chosen: Mapping[str, Candidate]
) -> Iterator[Repair]:
    return searched_first(facts, finding, wishes, [posixpath.dirname(c.path) for c in chosen.values()])


def _driver(facts: Facts) -> Driver:
    """With the libraries that the loader would find in this environment."""
    process = Process(RecordedView(facts.libraries), facts.environment)
    process.load_program(facts.program)
    found = driver_libraries([process.dlopen(name, "") for name in DRIVER_SONAMES])
    return replace(facts.driver, libraries=found)
