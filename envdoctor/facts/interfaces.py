"""What is asked of a library that is not found, against what another version of it has.

Read only where no file of the wanted name can be used and another version is there.

A framework opens most libraries with dlopen and takes functions by name: the names stand in its read-only
data. Seen in the wheels of TensorFlow 2.1.4 and 2.21.0: the object that opens libcudart has a stub for each
function of its API (libtensorflow_framework.so.2: 206 names, and 399); the stubs of cuSOLVER and TensorRT are
in the object that uses them (_pywrap_tensorflow_internal.so, libtensorflow_cc.so.2). Other objects name
functions for other reasons: the former has 156 that libcudart lacks, of Direct3D and the like.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from envdoctor.facts.elf import ElfError, SymbolVersions, read_symbol_versions
from envdoctor.facts.elf_symbols import (
    called_symbols,
    exported_symbols,
    read_only_strings,
    undefined_symbols,
)
from envdoctor.facts.loader import Process, RecordedView
from envdoctor.facts.loader_model import ElfObject, LibraryWorld, Lookup, stem
from envdoctor.facts.model import Framework, Place, Requirement
from envdoctor.facts.model_interfaces import Asked, Interface
from envdoctor.facts.root import Root
from envdoctor.facts.surroundings import main_objects
from envdoctor.resolution import Candidate, candidates, look_up

EXAMPLES = 5
T = TypeVar("T")

# How the functions of a library are named. Each begins with plain text, for speed.
_NAMES = {
    "libcudart": (rb"cuda[A-Z]\w+", rb"__cuda[A-Z]\w+"),
    "libcublas": (rb"cublas(?!Lt)[A-Z]\w+",),
    "libcublasLt": (rb"cublasLt[A-Z]\w+",),
    "libcudnn": (rb"cudnn[A-Z]\w+",),
    "libcufft": (rb"cufft[A-Z]\w+",),
    "libcurand": (rb"curand[A-Z]\w+",),
    "libcusolver": (rb"cusolver[A-Z]\w+",),
    "libcusparse": (rb"cusparse(?!Lt)[A-Z]\w+",),
    "libcusparseLt": (rb"cusparseLt[A-Z]\w+",),
    "libcupti": (rb"cupti[A-Z]\w+",),
    "libnvrtc": (rb"nvrtc[A-Z]\w+",),
    "libnvJitLink": (rb"nvJitLink\w+", rb"__nvJitLink\w+"),
    "libnccl": (rb"nccl[A-Z]\w+",),
    "libnvinfer": (rb"create\w+_INTERNAL", rb"getPluginRegistry", rb"getInferLibVersion"),
    "libnvinfer_plugin": (rb"initLibNvInferPlugins",),
}
PATTERNS = {library: tuple(re.compile(p, re.ASCII) for p in names) for library, names in _NAMES.items()}


def read_interfaces(
    root: Root,
    environment: Mapping[str, str],
    program: str,
    frameworks: tuple[Framework, ...],
    world: LibraryWorld,
    places: tuple[Place, ...],
) -> tuple[Interface, ...]:
    """For each library that is wanted and not found: every other version of it that is installed."""
    files = _Files(root, world)
    found: list[Interface] = []
    for framework in frameworks:
        if framework.cuda_build is not True or not framework.opener:
            continue
        others = {r.soname: _others(r.soname, world, places) for r in framework.requirements if _matters(r)}
        if not any(others.values()):
            continue
        process = _Loading(environment, program, framework, world, places)
        for requirement, lookup in zip(framework.requirements, process.needs, strict=True):
            if lookup.error:
                askers = () if requirement.linked else _askers(framework, root)
                for candidate in others.get(requirement.soname, ()):
                    found.append(_interface(requirement.soname, candidate, framework, askers, process, files))
    return tuple(found)


def _matters(requirement: Requirement) -> bool:
    """Is there a finding where it is missing?"""
    tensorrt = stem(requirement.soname) in {"libnvinfer", "libnvinfer_plugin"}
    return requirement.required or bool(requirement.needed_for) or tensorrt


def _others(soname: str, world: LibraryWorld, places: tuple[Place, ...]) -> list[Candidate]:
    usable = [c for c in candidates(soname, world, places) if not c.problem]
    return [] if any(c.exact for c in usable) else usable


def _askers(framework: Framework, root: Root) -> tuple[str, ...]:
    """The object that calls dlopen, and then the framework's others."""
    opener = root.realpath(framework.opener)
    return opener, *(path for path in main_objects(framework, root) if path != opener)


class _UnreadableError(Exception):
    """Names the file and what is wrong with it."""


class _Files:
    """What is read of files, each once. Every method raises _UnreadableError."""

    def __init__(self, root: Root, world: LibraryWorld) -> None:
        self._root = root
        self._world = world
        self._read: dict[tuple[object, ...], Any] = {}

    def exported(self, path: str) -> frozenset[str]:
        return self._once(exported_symbols, path)

    def undefined(self, path: str) -> dict[str, str]:
        return self._once(undefined_symbols, path)

    def versions(self, path: str) -> SymbolVersions:
        return self._once(read_symbol_versions, path)

    def named(self, path: str, library: str) -> frozenset[str]:
        return self._once(read_only_strings, path, PATTERNS.get(library, ()))

    def called(self, path: str, names: frozenset[str], library: str) -> frozenset[str]:
        return self._once(called_symbols, path, names, PATTERNS.get(library, ()))

    def headers(self, path: str) -> ElfObject:
        found = self._world.objects.get(path)
        return found if isinstance(found, ElfObject) else ElfObject(bits=0, machine="")

    def _once(self, read: Callable[..., T], path: str, *rest: object) -> T:
        key = (read, path, *rest)
        if key not in self._read:
            try:
                self._read[key] = read(self._root.host(path), *rest)
            except (ElfError, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise _UnreadableError(f"{path} could not be read: {reason}") from error
        found: T = self._read[key]
        return found


class _Loading:
    """What the framework's look-ups come to: trees of look-ups, and the order of its requirements."""

    def __init__(
        self,
        environment: Mapping[str, str],
        program: str,
        framework: Framework,
        world: LibraryWorld,
        places: tuple[Place, ...],
    ) -> None:
        view = RecordedView(world)
        self.needs = look_up(view, environment, program, framework).needs
        process = Process(view, environment)
        self.program = process.load_program(program)
        usable = [
            c for r in framework.requirements for c in candidates(r.soname, world, places) if not c.problem
        ]
        opened = [
            *framework.preloads,
            framework.opener,
            *(r.asker for r in framework.requirements if r.asker),
            *(c.path for c in usable if c.exact),  # a repair may bring them into play
        ]
        self.trees = (*(process.dlopen(path) for path in dict.fromkeys(opened)), *self.needs)

    def around(self, path: str) -> list[Lookup]:
        """All look-ups of the process's start, and of the trees in which this file stands."""
        trees = [nodes for nodes in map(_nodes, self.trees) if any(n.real == path for n in nodes)]
        return [*_nodes(self.program), *(node for nodes in trees for node in nodes)]

    def files(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(n.real for tree in self.trees for n in _nodes(tree) if n.real))


def _nodes(lookup: Lookup) -> list[Lookup]:
    return [lookup, *(node for need in lookup.needed for node in _nodes(need))]


def _interface(
    soname: str,
    candidate: Candidate,
    framework: Framework,
    askers: tuple[str, ...],
    process: _Loading,
    files: _Files,
) -> Interface:
    opened, linked = Asked(), Asked()
    missing_versions: tuple[str, ...] = ()
    unknown = ""
    try:
        opened = _opened(soname, candidate.real, askers, files)
        dependents = [path for path in process.files() if soname in files.headers(path).needed]
        linked, unknown = _linked(soname, candidate.real, dependents, process, files)
        missing_versions = tuple(_missing_versions(soname, candidate.real, dependents, files))
    except _UnreadableError as error:
        unknown = str(error)
    return Interface(
        framework=framework.name,
        soname=soname,
        candidate=candidate.real,
        candidate_soname=files.headers(candidate.real).soname,
        opened=opened,
        linked=linked,
        missing_versions=missing_versions,
        unknown=unknown,
    )


def _opened(soname: str, candidate: str, askers: tuple[str, ...], files: _Files) -> Asked:
    """By the object that opens the library; where that names no function of it, by those that do."""
    library = stem(soname)
    named = {path: files.named(path, library) for path in askers[:1]}
    if not any(named.values()):
        named = {path: files.named(path, library) for path in askers[1:]}
    names = frozenset[str]().union(*named.values())
    missing = names - files.exported(candidate)
    called: frozenset[str] = frozenset()
    if missing:
        called = called.union(*(files.called(path, missing, library) for path in askers))
    return Asked(
        by=tuple(path for path, its in named.items() if its),
        symbols=len(names),
        missing=len(missing),
        examples=(*sorted(called), *sorted(missing - called))[:EXAMPLES],
        called=len(called),
    )


def _linked(
    soname: str, candidate: str, dependents: list[str], process: _Loading, files: _Files
) -> tuple[Asked, str]:
    """Undefined symbols that only the wanted library can be meant to define; and what is unknown of them.

    A versioned one tells its library. An unversioned one is searched for in all that is loaded around it
    (elf/dl-lookup.c): what is nowhere there is missing, unless a part of that could not be looked into.
    """
    have = files.exported(candidate)
    asked: set[str] = set()
    missing: set[str] = set()
    unknown = ""
    for path in dependents:
        undefined = files.undefined(path)
        asked |= {name for name, library in undefined.items() if name in have and library in {"", soname}}
        missing |= {name for name, library in undefined.items() if name not in have and library == soname}
        unexplained = {name for name, library in undefined.items() if name not in have and not library}
        around = process.around(path)
        for other in dict.fromkeys(node.real for node in around):
            if unexplained and other and other != path:
                unexplained -= files.exported(other)
        doubts = [n for n in around if (n.error or n.unknown) and n.name != soname]
        if unexplained and doubts:
            own = {
                n for n in unexplained if any(p.fullmatch(n.encode()) for p in PATTERNS.get(stem(soname), ()))
            }
            unknown = (
                f"{doubts[0].name} is not found either, so that it is unknown what defines {min(unexplained)}"
            )
            unexplained = own
        missing |= unexplained
    examples = tuple(sorted(missing)[:EXAMPLES])
    symbols = len(asked | missing)
    return Asked(by=tuple(dependents), symbols=symbols, missing=len(missing), examples=examples), unknown


def _missing_versions(soname: str, candidate: str, dependents: list[str], files: _Files) -> Iterator[str]:
    """A file without any version definitions satisfies glibc (elf/dl-version.c, `match_symbol`)."""
    defined = files.versions(candidate).defined
    needed = (v for path in dependents for v in files.versions(path).needed.get(soname, ()))
    if defined:
        yield from dict.fromkeys(version for version in needed if version not in defined)
