"""What a running process has mapped, against what a new process like it would load."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from msgspec import Struct

from envdoctor.checks.placement import check_foretold_libraries
from envdoctor.facts.loader import Process, RecordedView
from envdoctor.facts.loader_model import ElfObject, Lookup, stem
from envdoctor.facts.model import Facts
from envdoctor.facts.model_process import MappedLibrary, ProcessFacts
from envdoctor.finding import Evidence, Finding, SkipError
from envdoctor.resolution import FrameworkLibraries


class _Stale(Struct, frozen=True):
    """A mapped library, and the other file that a new process would have in its place."""

    name: str
    has: str
    takes: str  # "" where it would find none


def check_loaded_libraries(facts: Facts) -> Iterator[Finding]:
    """Of the frameworks that were run, or of the process that is examined."""
    if facts.process is None:
        yield from check_foretold_libraries(facts)
        return
    if not facts.process.mapped:
        raise SkipError(f"process {facts.process.pid} has no CUDA library mapped")
    gone = [library for library in facts.process.mapped if library.gone]
    if gone:
        yield _gone(gone, facts.process)
    stale = [s for library in facts.process.mapped if not library.gone for s in _compared(library, facts)]
    if stale:
        yield _stale(stale, facts.process)


def _compared(library: MappedLibrary, facts: Facts) -> Iterator[_Stale]:
    """Nothing where they agree, and nothing where it cannot be known how the process came by its library.

    For what a framework in the process asks the loader for, its look-up answers. Any other library may
    have been opened by its path, or by an object with a search path of its own: only for one that lies
    where every program looks is a look-up by name the same question.
    """
    assert facts.process is not None
    name = _asked_as(library, facts)
    answers = [
        lookup
        for libraries in facts.resolution
        if libraries.framework.name in facts.process.frameworks
        for lookup in _lookups(libraries)
        if stem(lookup.name) == stem(name)
    ]
    if not answers and not _preloaded(name, facts) and posixpath.dirname(library.path) in _searched(facts):
        process = Process(RecordedView(facts.libraries), facts.environment)
        process.load_program(facts.program)
        answers = [process.dlopen(name)]
    if not answers or any(answer.unknown or answer.real == library.path for answer in answers):
        return
    found = next((answer for answer in answers if answer.real), answers[0])
    yield _Stale(name=found.name, has=library.path, takes=found.real)


def _lookups(libraries: FrameworkLibraries) -> Iterator[Lookup]:
    """All that the framework would have loaded once it used everything, by DT_NEEDED or by dlopen."""
    pending = [need.lookup for need in libraries.needs]
    pending += [libraries.driver, *libraries.cudnn_parts]
    pending += [libraries.plain_nvrtc] if libraries.plain_nvrtc else []
    for lookup in pending:
        pending += lookup.needed
        yield lookup


def _asked_as(library: MappedLibrary, facts: Facts) -> str:
    """The SONAME, where the file was read: libcudnn.so.9.1.0 is asked for as libcudnn.so.9."""
    content = facts.libraries.objects.get(library.path)
    name = content.soname if isinstance(content, ElfObject) else ""
    return name or posixpath.basename(library.path)


def _preloaded(name: str, facts: Facts) -> bool:
    """Whether a framework opens it by its path."""
    assert facts.process is not None
    return any(
        posixpath.basename(path) == name
        for libraries in facts.resolution
        if libraries.framework.name in facts.process.frameworks
        for path in libraries.framework.preloads
    )


def _searched(facts: Facts) -> frozenset[str]:
    """The real directories where a look-up by name gets, whoever asks."""
    world = facts.libraries
    path = facts.environment.get("LD_LIBRARY_PATH", "").replace(";", ":")
    listed = [entry.rstrip("/") for entry in path.split(":") if entry.startswith("/")]
    cached = {posixpath.dirname(entry.path) for entry in world.cache}
    return frozenset(world.aliases.get(d, d) for d in (*listed, *cached, *world.default_directories))


def _gone(libraries: list[MappedLibrary], process: ProcessFacts) -> Finding:
    names = [posixpath.basename(library.path) for library in libraries]
    return Finding(
        code="LIB014",
        subject=", ".join(names),
        message=f"{_some(names)}: process {process.pid} still has the "
        f"{'files that were' if len(names) > 1 else 'file that was'} deleted or replaced since it started",
        evidence=tuple(
            Evidence("deleted or replaced", library.path, _source(process)) for library in libraries
        ),
        remedy=_restart(process),
    )


def _stale(libraries: list[_Stale], process: ProcessFacts) -> Finding:
    names = [library.name for library in libraries]
    first = libraries[0]
    return Finding(
        code="LIB014",
        subject=", ".join(names),
        message=f"{_some(names)}: process {process.pid} has {first.has}, and a new process "
        + (f"would take {first.takes}" if first.takes else "would find none"),
        evidence=tuple(
            Evidence(
                library.name, f"{library.has}; a new process: {library.takes or 'none'}", _source(process)
            )
            for library in libraries
        ),
        remedy=_restart(process) if all(library.takes for library in libraries) else "",
    )


def _some(names: Iterable[str]) -> str:
    first, *more = names
    return f"{first} and {len(more)} more" if more else first


def _restart(process: ProcessFacts) -> str:
    return f"restart process {process.pid} ({process.program}) to take what is installed now"


def _source(process: ProcessFacts) -> str:
    return f"grep -E 'lib(cu|nv|nccl)' /proc/{process.pid}/maps"
