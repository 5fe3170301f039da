"""Repairs for libraries that are installed where the loader does not look."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from msgspec.structs import replace

from envdoctor.checks.libraries import classify
from envdoctor.facts.loader_model import Rule
from envdoctor.facts.model import Facts, Interpreter
from envdoctor.finding import Finding
from envdoctor.fixes.exports import conda_directories, conda_edits, unexportable, venv_edits
from envdoctor.fixes.plan import Destination, Export, FileEdit, Risk, Symlink
from envdoctor.fixes.repair import Repair
from envdoctor.resolution import Candidate, FrameworkLibraries, Need

VARIABLE = "LD_LIBRARY_PATH"


def links(facts: Facts, finding: Finding) -> Iterator[Repair]:
    """For each directory that the RUNPATH already searches: a link there for every library that is missing.

    The linked library's own `$ORIGIN` is the link's directory, not the file's (glibc takes the name by
    which it was opened), so only a directory at the right depth keeps its needs; the proof finds it.
    """
    libraries, needs = _concerned(facts, finding)
    if not needs:
        return
    opener = posixpath.basename(libraries.framework.opener)
    chosen = [(need, _choice(need)) for need in needs]
    for directory in _own_search_directories(facts, needs):
        world = facts.libraries
        actions = []
        for need, candidate in chosen:
            real = world.aliases.get(directory, directory)
            world = world.with_link(real, need.soname, candidate.real)
            target = posixpath.relpath(candidate.path, directory)
            actions.append(
                Symlink(
                    code=finding.code,
                    summary=f"link {need.soname} where {opener} looks",
                    risk=Risk.NONE if candidate.exact else Risk.HIGH,
                    reason=f"{directory} is in the RUNPATH of {opener}"
                    if candidate.exact
                    else f"{posixpath.basename(candidate.real)} is another version than the one asked for: "
                    "what changed between them is found out when it is used",
                    path=f"{directory}/{need.soname}",
                    target=target,
                )
            )
        yield Repair(tuple(actions), replace(facts, libraries=world))


def exports(facts: Facts, finding: Finding) -> Iterator[Repair]:
    """One LD_LIBRARY_PATH export, in the environment's activation scripts; for a system Python, printed."""
    interpreter = facts.interpreter
    _, needs = _concerned(facts, finding)
    chosen = [_choice(need) for need in needs]
    if not isinstance(interpreter, Interpreter) or not all(c.exact for c in chosen):
        return
    directories = tuple(dict.fromkeys(posixpath.dirname(c.path) for c in chosen))
    if unexportable(VARIABLE, directories):
        return
    destination = Destination.PRINT
    edits: tuple[FileEdit, ...] = ()
    made: tuple[str, ...] = ()
    if interpreter.kind == "venv":
        destination = Destination.VENV
        edits = venv_edits(interpreter.prefix, VARIABLE, directories, facts.activation)
    elif interpreter.kind == "conda":
        destination = Destination.CONDA
        edits = conda_edits(interpreter.prefix, VARIABLE, directories, facts.activation)
        made = conda_directories(interpreter.prefix)
    before = facts.environment.get(VARIABLE, "")
    after = {**facts.environment, VARIABLE: ":".join([*directories, *([before] if before else [])])}
    action = Export(
        code=finding.code,
        summary=f"put {', '.join(directories)} on {VARIABLE}",
        risk=Risk.LOW,
        reason="every program started from the environment looks there first",
        variable=VARIABLE,
        prepend=directories,
        destination=destination,
        edits=edits,
        directories=made,
    )
    yield Repair((action,), replace(facts, environment=after))


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


def _own_search_directories(facts: Facts, needs: list[Need]) -> list[str]:
    """Directories in the RUNPATH that belong to the target's own packages and may be written."""
    interpreter = facts.interpreter
    if not isinstance(interpreter, Interpreter):
        return []
    searched: dict[str, None] = {}
    for attempt in needs[0].lookup.attempts:
        if attempt.rule in {Rule.RUNPATH, Rule.RPATH}:
            directory = posixpath.normpath(posixpath.dirname(attempt.path))
            real = facts.libraries.aliases.get(directory, "") or directory
            own = any(real.startswith(f"{site}/") for site in interpreter.site_packages)
            if own and real in facts.writable:
                searched[real] = None
    return list(searched)
