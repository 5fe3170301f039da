"""Repairs for libraries that are installed where the loader does not look."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from envdoctor.checks.libraries import classify
from envdoctor.facts.loader_model import Lookup, Rule
from envdoctor.facts.model import Facts, Interpreter
from envdoctor.finding import Finding
from envdoctor.fixes.exporting import export
from envdoctor.fixes.link_risk import choose
from envdoctor.fixes.plan import Symlink
from envdoctor.fixes.repair import Repair, Wishes
from envdoctor.resolution import Candidate, FrameworkLibraries, Need

VARIABLE = "LD_LIBRARY_PATH"


def links(facts: Facts, finding: Finding, _wishes: Wishes) -> Iterator[Repair]:
    """For each directory that the RUNPATH already searches: a link there for every library that is missing.

    The linked library's own `$ORIGIN` is the link's directory, not the file's (glibc takes the name by
    which it was opened), so only a directory at the right depth keeps its needs; the proof finds it.
    """
    libraries, concerned = _concerned(facts, finding)
    needs = [need for need in concerned if need.lookup.error]  # of others it is a need of theirs that fails
    if not needs:
        return
    opener = posixpath.basename(libraries.framework.opener)
    chosen = [(need, *choose(facts, finding.framework, need)) for need in needs]
    for directory in own_search_directories(facts, needs[0].lookup):
        world = facts.libraries
        actions = []
        for need, candidate, judgement in chosen:
            real = world.aliases.get(directory, directory)
            world = world.with_link(real, need.soname, candidate.real)
            target = posixpath.relpath(candidate.path, directory)
            actions.append(
                Symlink(
                    code=finding.code,
                    summary=f"link {need.soname} where {opener} looks",
                    risk=judgement.risk,
                    reason=f"{directory} is in the RUNPATH of {opener}"
                    if candidate.exact
                    else judgement.reason,
                    path=f"{directory}/{need.soname}",
                    target=target,
                )
            )
        yield Repair(tuple(actions), replace(facts, libraries=world))


def exports(facts: Facts, finding: Finding, wishes: Wishes) -> Iterator[Repair]:
    """One LD_LIBRARY_PATH export that names the directory of every library that is missing."""
    _, needs = _concerned(facts, finding)
    chosen = [_choice(need) for need in needs if _usable(need)]
    if len(chosen) == len(needs) and all(c.exact for c in chosen):
        yield from searched_first(facts, finding, wishes, [posixpath.dirname(c.path) for c in chosen])


def searched_first(
    facts: Facts, finding: Finding, wishes: Wishes, directories: Iterable[str]
) -> Iterator[Repair]:
    """These directories in front of LD_LIBRARY_PATH, where that is possible and changes something."""
    values = tuple(dict.fromkeys(directories))
    if not values:
        return
    repair = export(
        facts,
        finding.code,
        wishes,
        VARIABLE,
        values,
        summary=f"put {', '.join(values)} on {VARIABLE}",
        reason="every program started from the environment looks there first",
    )
    if repair is not None:
        yield repair


def _concerned(facts: Facts, finding: Finding) -> tuple[FrameworkLibraries, list[Need]]:
    """The needs that a finding speaks of."""
    libraries = next(r for r in facts.resolution if r.framework.name == finding.framework)
    missing = [need for need in libraries.needs if need.lookup.failures]
    if finding.code == "LIB010":
        return libraries, [n for n in missing if n.soname in finding.subject and _usable(n)]
    named = finding.subject.split(", ")
    return libraries, [n for n in missing if n.soname in named and classify(n, libraries) == finding.code]


def _choice(need: Need) -> Candidate:
    """The exact file if there is one, the highest version otherwise."""
    usable = _usable(need)
    return next((c for c in usable if c.exact), usable[-1])


def _usable(need: Need) -> list[Candidate]:
    return [c for c in need.candidates if not c.problem]


def own_search_directories(facts: Facts, lookup: Lookup) -> list[str]:
    """Of the directories in the asking RUNPATH those of the target's own packages that may be written."""
    interpreter = facts.interpreter
    if not isinstance(interpreter, Interpreter):
        return []
    searched: dict[str, None] = {}
    for attempt in lookup.attempts:
        if attempt.rule in {Rule.RUNPATH, Rule.RPATH}:
            directory = posixpath.normpath(posixpath.dirname(attempt.path))
            real = facts.libraries.aliases.get(directory, "") or directory
            own = any(real.startswith(f"{site}/") for site in interpreter.site_packages)
            if own and real in facts.writable:
                searched[real] = None
    return list(searched)
