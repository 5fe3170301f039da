"""What each framework asks the loader for on this target, and what it would get.

Pure: from facts alone, so that it can be asked again of facts that a repair has changed in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from envdoctor.facts.loader import Process, RecordedView, View
from envdoctor.facts.loader_model import ElfObject, LibraryWorld, Lookup, NotLoadable, stem
from envdoctor.facts.model import DriverLibrary, Framework, Place, Requirement, Unavailable

if TYPE_CHECKING:
    from envdoctor.facts.model import Facts

DRIVER_SONAME = "libcuda.so.1"
DRIVER_SONAMES = (DRIVER_SONAME, "libnvidia-ml.so.1")
# In every release of the major version; later ones have more (knowledge/cudnn_releases.json).
CUDNN_PARTS = {
    "8": tuple(f"libcudnn_{part}_{use}" for part in ("ops", "cnn", "adv") for use in ("infer", "train")),
    "9": (
        "libcudnn_graph",
        "libcudnn_ops",
        "libcudnn_cnn",
        "libcudnn_adv",
        "libcudnn_heuristic",
        "libcudnn_engines_precompiled",
        "libcudnn_engines_runtime_compiled",
    ),
}
CUDNN_USES_NVRTC = frozenset({"libcudnn_cnn_infer"})  # of 8; "libnvrtc.so" is among its strings to 8.7


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
    cudnn_parts: tuple[Lookup, ...] = ()  # what libcudnn.so opens in its turn
    plain_nvrtc: Lookup | None = None  # libnvrtc.so without a version, as cuDNN 8 asks for it

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
            found = look_up(view, facts.environment, facts.program, framework)
            needs = tuple(
                Need(
                    requirement=requirement,
                    lookup=lookup,
                    candidates=candidates(requirement.soname, facts.libraries, facts.places),
                )
                for requirement, lookup in zip(framework.requirements, found.needs, strict=True)
            )
            resolved.append(
                FrameworkLibraries(
                    framework=framework,
                    needs=needs,
                    driver=found.driver,
                    cudnn_parts=found.cudnn_parts,
                    plain_nvrtc=found.plain_nvrtc,
                )
            )
    return tuple(resolved)


class LookedUp(Struct, frozen=True):
    needs: tuple[Lookup, ...]
    driver: Lookup
    cudnn_parts: tuple[Lookup, ...]
    plain_nvrtc: Lookup | None


def look_up(view: View, environment: Mapping[str, str], program: str, framework: Framework) -> LookedUp:
    """The framework's requirements in its own order, asked in one process as it asks them.

    First what its Python opens by path, then its own object with all that it is linked to, then libcuda.so.1,
    the libraries that it opens by name, and last those that these open in their turn.
    """
    process = Process(view, environment)
    process.load_program(program)
    brought = [process.dlopen(path) for path in framework.preloads]
    opened = process.dlopen(framework.opener, framework.opener)
    caller = framework.opener if not opened.failures else ""
    driver = process.dlopen(DRIVER_SONAME, caller)
    linked = _linked([*brought, opened])
    needs = []
    for requirement in framework.requirements:
        if requirement.linked and requirement.soname not in linked and requirement.asker:
            linked |= _linked([process.dlopen(requirement.asker)])
        found = linked.get(requirement.soname) if requirement.linked else None
        asker = caller if requirement.linked else framework.opener
        needs.append(found or process.dlopen(requirement.soname, asker))
    cudnn = next((n for n in needs if n.real and stem(n.name) == "libcudnn"), None)
    parts = tuple(_cudnn_parts(process, cudnn)) if cudnn else ()
    plain = next((p for p in parts if stem(p.name) in CUDNN_USES_NVRTC and p.real), None)
    return LookedUp(
        needs=tuple(needs),
        driver=driver,
        cudnn_parts=parts,
        plain_nvrtc=process.dlopen("libnvrtc.so", plain.path) if plain else None,
    )


def _linked(trees: list[Lookup]) -> dict[str, Lookup]:
    """Every DT_NEEDED below these, by name: the look-up that found it, else the first that did not."""
    found: dict[str, Lookup] = {}
    pending = list(trees)
    for lookup in pending:
        pending += lookup.needed
        for need in lookup.needed:
            known = found.get(need.name)
            if known is None or (not known.real and need.real):
                found[need.name] = need
    return found


def _cudnn_parts(process: Process, cudnn: Lookup) -> Iterator[Lookup]:
    """The parts of cuDNN 8 and 9, as libcudnn.so opens them when they are first used.

    8 opens libcudnn_X.so.8 alone; 9 tries libcudnn_X.so.9.1.0, .so.9.1, .so.9 and .so (the file names in
    libcudnn.so of 8.6.0, 8.9.7 and 9.1.0). A wheel's file name does not tell which 9 it is.
    """
    major = cudnn.name.rpartition(".so.")[2]
    for part in CUDNN_PARTS.get(major, ()):
        names = [f"{part}.so.{major}"]
        version = cudnn.real.rpartition(".so.")[2].split(".")
        if major == "9":
            longer = [f"{part}.so.{'.'.join(version[:n])}" for n in (3, 2) if len(version) >= n]
            names = [*longer, *names]
        lookups = []
        for name in names:
            lookups.append(process.dlopen(name, cudnn.path))
            if lookups[-1].real:
                break
        yield lookups[-1]


def candidates(soname: str, world: LibraryWorld, places: tuple[Place, ...]) -> tuple[Candidate, ...]:
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
            # One file has many names (libX.so.10 -> libX.so.10.2 -> libX.so.10.2.89): the one that is asked
            # for speaks for it, else its SONAME, which stays when a later release takes the file's place.
            known = found.get(entry.real or candidate.path)
            its_own = isinstance(content, ElfObject) and name == content.soname
            if (
                known is None
                or (exact and name == soname)
                or (its_own and not known.exact and not known.path.endswith(f"/{name}"))
            ):
                found[entry.real or candidate.path] = candidate
    return tuple(found.values())


def _unusable(content: ElfObject | NotLoadable | None, world: LibraryWorld) -> str:
    if isinstance(content, NotLoadable):
        return content.reason
    if isinstance(content, ElfObject) and (content.bits, content.machine) != (world.bits, world.machine):
        return f"for {content.machine} ({content.bits} bit), not {world.machine}"
    return ""


def driver_libraries(lookups: Sequence[Lookup]) -> tuple[DriverLibrary, ...] | Unavailable:
    """What the look-ups of DRIVER_SONAMES found."""
    doubts = [lookup.unknown for lookup in lookups if lookup.unknown]
    if doubts:
        return Unavailable(doubts[0])
    return tuple(
        DriverLibrary(
            soname=lookup.name,
            path=lookup.path,
            real=lookup.real,
            version=_version(lookup.real.rpartition(".so.")[2]),
        )
        for lookup in lookups
        if lookup.real
    )


def _version(suffix: str) -> str:
    """`550.54.14` of libcuda.so.550.54.14; libcuda.so.1 tells none."""
    return suffix if "." in suffix else ""
