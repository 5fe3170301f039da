"""What each framework asks the loader for on this target, and what it would get.

Pure: from facts alone, so that it can be asked again of facts that a repair has changed in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from envdoctor.facts.loader import Process, RecordedView, View
from envdoctor.facts.loader_model import ElfObject, LibraryWorld, Lookup, NotLoadable, stem
from envdoctor.facts.model import Framework, Place, Requirement, Unavailable

if TYPE_CHECKING:
    from envdoctor.facts.model import Facts

DRIVER_SONAME = "libcuda.so.1"


class Candidate(Struct, frozen=True, kw_only=True):
    """A file that could answer a need, found in a place where CUDA libraries get installed."""

    path: str
    real: str
    kind: str  # of its Place
    exact: bool  # it bears the very name, or carries it as SONAME
    problem: str = ""  # why it cannot be used: dangling, wrong class, not ELF


class Need(Struct, frozen=True, kw_only=True):
    """One library that a framework asks for, what the loader answers, and what there is besides."""

    requirement: Requirement
    lookup: Lookup
    candidates: tuple[Candidate, ...]

    @property
    def soname(self) -> str:
        return self.requirement.soname


class FrameworkLibraries(Struct, frozen=True, kw_only=True):
    framework: Framework
    needs: tuple[Need, ...]
    driver: Lookup  # libcuda.so.1, as this framework would find it

    def need(self, library: str) -> Need | None:
        """The need of this library ("libcudnn")."""
        return next((n for n in self.needs if stem(n.soname) == library), None)


def resolve_frameworks(facts: Facts) -> tuple[FrameworkLibraries, ...]:
    """For every CUDA build among the target's frameworks; empty where nothing is known of them."""
    if isinstance(facts.frameworks, Unavailable):
        return ()
    view = RecordedView(facts.libraries)
    resolved = []
    for framework in facts.frameworks:
        if framework.cuda_build is True and framework.opener:
            lookups, driver = look_up(view, facts.environment, facts.program, framework)
            needs = tuple(
                Need(
                    requirement=requirement,
                    lookup=lookup,
                    candidates=_candidates(requirement.soname, facts.libraries, facts.places),
                )
                for requirement, lookup in zip(framework.requirements, lookups, strict=True)
            )
            resolved.append(FrameworkLibraries(framework=framework, needs=needs, driver=driver))
    return tuple(resolved)


def look_up(
    view: View, environment: Mapping[str, str], program: str, framework: Framework
) -> tuple[list[Lookup], Lookup]:
    """The framework's requirements in its own order, asked in one process, and libcuda.so.1 before them."""
    process = Process(view, environment)
    process.load_program(program)
    opened = process.dlopen(framework.opener, framework.opener)
    driver = process.dlopen(DRIVER_SONAME, framework.opener)
    linked = {need.name: need for need in opened.needed}
    return [
        linked.get(r.soname) or process.dlopen(r.soname, framework.opener) for r in framework.requirements
    ], driver


def _candidates(soname: str, world: LibraryWorld, places: tuple[Place, ...]) -> tuple[Candidate, ...]:
    found: dict[str, Candidate] = {}
    wanted = stem(soname)
    for place in places:
        directory = world.aliases.get(place.directory, place.directory)
        for name, entry in world.listings.get(directory, {}).items():
            if stem(name) != wanted or name == f"{wanted}.so":
                continue
            content = world.objects.get(entry.real)
            exact = name == soname or (isinstance(content, ElfObject) and content.soname == soname)
            candidate = Candidate(
                path=f"{place.directory}/{name}",
                real=entry.real,
                kind=place.kind,
                exact=exact,
                problem=entry.problem or _unusable(content, world),
            )
            # One file has many names (libX.so.10 -> libX.so.10.2.1): the exact one speaks for it.
            known = found.get(entry.real or candidate.path)
            if known is None or (exact and name == soname):
                found[entry.real or candidate.path] = candidate
    return tuple(found.values())


def _unusable(content: ElfObject | NotLoadable | None, world: LibraryWorld) -> str:
    if isinstance(content, NotLoadable):
        return content.reason
    if isinstance(content, ElfObject) and (content.bits, content.machine) != (world.bits, world.machine):
        return f"for {content.machine} ({content.bits} bit), not {world.machine}"
    return ""
