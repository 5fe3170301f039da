"""What the dynamic loader does when a program starts or calls dlopen: glibc's rules, without the loader.

The rules are those of glibc's elf/dl-load.c, elf/dl-deps.c and elf/dl-open.c (ld.so(8) is their summary);
the tests compare them with the loader itself. Nothing here reads the machine: a View does.

Not modelled: musl, set-user-ID programs, LD_AUDIT, DT_FILTER and DT_AUXILIARY, name spaces other than the
first, legacy hwcaps directories ("haswell", "tls"; searched until glibc 2.36), hard links to one file,
GLIBC_TUNABLES, and what follows the search: symbol versions and relocation.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from envdoctor.facts.loader_disk import DiskView
from envdoctor.facts.loader_model import (
    LINK_LOOP,
    PERMISSION_DENIED,
    Attempt,
    ElfObject,
    Lookup,
    NotLoadable,
    Rule,
)
from envdoctor.facts.loader_view import OutsideWorld, RecordedView, View

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from envdoctor.facts.loader_model import CacheEntry

__all__ = ["DiskView", "OutsideWorld", "Process", "RecordedView", "View"]

_STRERROR = {LINK_LOOP: "Too many levels of symbolic links", PERMISSION_DENIED: "Permission denied"}
_WRONG_CLASS = "wrong ELF class: ELFCLASS"
_TOKEN = re.compile(r"\$(?:(ORIGIN|LIB|PLATFORM)(?![A-Za-z0-9_])|\{(ORIGIN|LIB|PLATFORM)\})")


@dataclass(eq=False)
class _Loaded:
    """glibc's link_map."""

    path: str  # as it was spelled when it was found; "" for the program
    real: str
    elf: ElfObject
    origin: str
    names: set[str] = field(default_factory=set)
    loader: _Loaded | None = None  # whose DT_NEEDED brought it; None for what dlopen brought

    def answers_to(self, name: str) -> bool:
        return name == self.path or name in self.names or (bool(name) and name == self.elf.soname)


@dataclass
class _Node:
    lookup: Lookup
    needed: list[_Node] = field(default_factory=list)


@dataclass(frozen=True)
class _Refused:
    outcome: str
    fatal: bool = False


class _Failed(Exception):  # noqa: N818
    """The look-up ends without a file; the message is dlerror's."""


class Process:
    """A process under glibc: which files its start and its calls to dlopen load, and which they try before.

    A look-up that fails for one DT_NEEDED goes on with the others, as ldd does, so that all that is missing
    is told at once; the loader stops at the first, which is the first of them in breadth-first order.
    """

    def __init__(self, view: View, environment: Mapping[str, str], *, cwd: str = "/") -> None:
        self._view = view
        self._environment = environment
        self._cwd = cwd
        self._loaded: list[_Loaded] = []
        self._library_path: tuple[str, ...] = ()
        self._cached: dict[str, list[CacheEntry]] | None = None
        self.failed_preloads: tuple[Lookup, ...] = ()  # ld.so warns of them and goes on

    @property
    def loaded(self) -> tuple[tuple[str, str], ...]:
        """Path as the loader spells it ("" for the program) and real path of each object, in load order."""
        return tuple((loaded.path, loaded.real) for loaded in self._loaded)

    def load_program(self, path: str) -> Lookup:
        """The start of a program: itself, LD_PRELOAD, and all that they need."""
        lookup = Lookup(name=path, requester="", path="", real="", rule=None)
        try:
            found = self._examine(path)
        except OutsideWorld as doubt:
            return replace(lookup, unknown=str(doubt))
        if isinstance(found, _Refused):
            return replace(lookup, error=f"{path}: {found.outcome}")
        real, elf = found
        program = _Loaded(path="", real=real, elf=elf, origin=posixpath.dirname(real))
        self._loaded = [program]
        self._add_interpreter(elf.interpreter)
        library_path = self._environment.get("LD_LIBRARY_PATH", "")
        self._library_path = self._directories(library_path.replace(";", ":"), program)
        root = _Node(replace(lookup, path=path, real=real, rule=Rule.PATH))
        work = [(program, root)]
        for name in re.split("[ :]", self._environment.get("LD_PRELOAD", "")):
            if name:
                node, brought = self._map(name, program, program)
                if node.lookup.error:
                    self.failed_preloads += (node.lookup,)
                    continue
                root.needed.append(node)
                work += [(brought, node)] if brought else []
        return self._load_needs(root, work)

    def dlopen(self, name: str, caller: str = "") -> Lookup:
        """`dlopen(name)` by a loaded object, told by its path; "" is the program itself.

        Who asks for a path matters only to the tokens in it, so that a path can be opened for any caller.
        """
        asking = next((one for one in self._loaded if not caller or caller in {one.real, one.path}), None)
        if asking is None and "/" in name and self._loaded:
            asking = self._loaded[0]
        if asking is None:
            doubt = f"{caller or 'the program'} is not loaded, so it cannot ask for anything"
            return Lookup(name=name, requester=caller, path="", real="", rule=None, unknown=doubt)
        before = len(self._loaded)
        node, brought = self._map(name, asking, None)
        lookup = self._load_needs(node, [(brought, node)] if brought else [])
        if lookup.failures:
            del self._loaded[before:]
        return lookup

    def _add_interpreter(self, path: str) -> None:
        """The dynamic loader is in the process from the start, under its path and its SONAME."""
        if path:
            found = self._examine(path)
            name = posixpath.basename(path)
            elf = ElfObject(bits=self._view.bits, machine=self._view.machine, soname=name)
            real = "" if isinstance(found, _Refused) else found[0]
            self._loaded.append(_Loaded(path=path, real=real, elf=elf, origin=posixpath.dirname(path)))

    def _load_needs(self, root: _Node, work: list[tuple[_Loaded, _Node]]) -> Lookup:
        """DT_NEEDED, breadth-first; `work` grows as objects are brought in. The finished tree."""
        nodes = [root, *(node for _, node in work if node is not root)]
        failed = bool(root.lookup.error)
        for asking, node in work:
            for need in asking.elf.needed:
                child, brought = self._map(self._expand(need, asking), asking, asking, remember=not failed)
                failed = failed or bool(child.lookup.error)
                node.needed.append(child)
                nodes.append(child)
                if brought:
                    work.append((brought, child))
        for node in reversed(nodes):  # children stand after their parents
            if node.needed:
                node.lookup = replace(node.lookup, needed=tuple(child.lookup for child in node.needed))
        return root.lookup

    def _map(
        self, name: str, asking: _Loaded, loader: _Loaded | None, *, remember: bool = True
    ) -> tuple[_Node, _Loaded | None]:
        """`_dl_map_object`: the look-up, and the object if it is new to the process."""
        lookup = Lookup(name=name, requester=asking.real, path="", real="", rule=None)
        for one in self._loaded:
            if one.answers_to(name):
                found = replace(lookup, path=one.path or one.real, real=one.real, rule=Rule.LOADED)
                return _Node(found), None
        attempts: list[Attempt] = []
        try:
            path, real, elf, rule = self._search(name, asking, attempts)
        except _Failed as failure:
            return _Node(replace(lookup, attempts=tuple(attempts), error=str(failure))), None
        except OutsideWorld as doubt:
            return _Node(replace(lookup, attempts=tuple(attempts), unknown=str(doubt))), None
        node = _Node(replace(lookup, path=path, real=real, rule=rule, attempts=tuple(attempts)))
        for one in self._loaded[1:]:  # the program's own file is not known to glibc
            if one.real == real:
                if remember:
                    one.names.add(name)
                return node, None
        if elf.program:
            refused = Attempt(path=path, rule=rule, outcome="cannot dynamically load executable")
            error = f"{path}: {refused.outcome}"
            return _Node(replace(lookup, attempts=(*attempts, refused), error=error)), None
        origin = posixpath.dirname(posixpath.join(self._cwd, path))
        brought = _Loaded(path=path, real=real, elf=elf, origin=origin, names={name}, loader=loader)
        self._loaded.append(brought)
        return node, brought

    def _search(
        self, name: str, asking: _Loaded, attempts: list[Attempt]
    ) -> tuple[str, str, ElfObject, Rule]:
        """The first file that `open_verify` accepts. What it passed over goes into `attempts`."""
        other_class = False
        defaults = self._default_prefixes()
        for rule, directories in self._places(name, asking):
            for paths in directories:
                outcome = ""
                for path in paths:
                    found = self._examine(path)
                    if rule is Rule.CACHE and asking.elf.nodeflib and path.startswith(defaults):
                        found = _Refused("DF_1_NODEFLIB excludes the default directories")
                    if not isinstance(found, _Refused):
                        return path, *found, rule
                    outcome = found.outcome
                    attempts.append(Attempt(path=path, rule=rule, outcome=outcome))
                    if found.fatal:
                        raise _Failed(f"{path}: {outcome}")
                    other_class = other_class or outcome.startswith(_WRONG_CLASS)
                # `open_path`: ENOENT, ENOTDIR and EACCES go on to the next directory, any other errno ends
                # this list of directories, and the next rule has its turn.
                if outcome == LINK_LOOP:
                    break
        if other_class:
            raise _Failed(f"{name}: {_WRONG_CLASS}{96 - self._view.bits}")
        reason = _STRERROR.get(attempts[-1].outcome if attempts else "", "No such file or directory")
        raise _Failed(f"{name}: cannot open shared object file: {reason}")

    def _places(self, name: str, asking: _Loaded) -> Iterator[tuple[Rule, Iterable[Iterable[str]]]]:
        """Where glibc looks, in its order: for each rule, directory after directory, the paths to try."""
        if "/" in name:
            yield Rule.PATH, [[self._expand(name, asking)]]
            return
        elf = asking.elf
        if not (elf.runpath or elf.empty_runpath):
            for one in self._rpath_chain(asking):
                yield Rule.RPATH, self._paths(self._directories(one.elf.rpath, one), name)
        yield Rule.LD_LIBRARY_PATH, self._paths(self._library_path, name)
        yield Rule.RUNPATH, self._paths(self._directories(elf.runpath, asking), name)
        cached = self._in_cache(name)
        if cached:
            yield Rule.CACHE, [[cached]]
        if not elf.nodeflib:
            yield Rule.DEFAULT, self._paths(self._default_prefixes(), name)

    def _rpath_chain(self, asking: _Loaded) -> Iterator[_Loaded]:
        """DT_RPATHs that count: the asking object's, those of whatever brought it, and the program's."""
        chain = []
        one: _Loaded | None = asking
        while one is not None:
            chain.append(one)
            one = one.loader
        if self._loaded[0] not in chain:
            chain.append(self._loaded[0])
        return (one for one in chain if one.elf.rpath and not (one.elf.runpath or one.elf.empty_runpath))

    def _paths(self, prefixes: Iterable[str], name: str) -> Iterator[list[str]]:
        """In each directory the glibc-hwcaps subdirectories that there are come first, best first."""
        for prefix in prefixes:
            better = prefix + "glibc-hwcaps/"
            paths = []
            if self._view.hwcaps and self._directory(better):
                paths = [better + sub for sub in self._view.hwcaps if self._directory(better + sub)]
            yield [*(f"{path}/{name}" for path in paths), prefix + name]

    def _directories(self, raw: str, owner: _Loaded) -> tuple[str, ...]:
        """A search path as prefixes of names. An empty element is the current directory, spelled as ""."""
        if not raw:
            return ()
        prefixes = []
        for part in dict.fromkeys(raw.split(":")):
            expanded = self._expand(part, owner)
            prefixes.append(expanded.rstrip("/") + "/" if expanded else "")
        return tuple(dict.fromkeys(prefixes))

    def _default_prefixes(self) -> tuple[str, ...]:
        return tuple(directory.rstrip("/") + "/" for directory in self._view.default_directories)

    def _expand(self, text: str, owner: _Loaded) -> str:
        """$ORIGIN, $LIB and $PLATFORM. The platform is the machine, as for every CPU that is not Intel's."""
        if "$" not in text:
            return text
        defaults = self._view.default_directories
        values = {
            "ORIGIN": owner.origin,
            "LIB": defaults[0].strip("/") if defaults and defaults[0].startswith("/lib") else "lib",
            "PLATFORM": self._view.machine,
        }
        return _TOKEN.sub(lambda match: values[match[1] or match[2]], text)

    def _in_cache(self, name: str) -> str:
        """The path that ld.so.cache gives: of the best active subdirectory, else the first plain entry."""
        if self._view.cache_problem:
            raise OutsideWorld(f"ld.so.cache could not be read: {self._view.cache_problem}")
        if self._cached is None:
            self._cached = {}
            for entry in self._view.cache:
                if entry.machine == self._view.machine:
                    self._cached.setdefault(entry.name, []).append(entry)
        hwcaps = (*self._view.hwcaps, "")
        usable = [entry for entry in self._cached.get(name, ()) if entry.hwcap in hwcaps]
        return min(usable, key=lambda entry: hwcaps.index(entry.hwcap)).path if usable else ""

    def _directory(self, path: str) -> str:
        return self._view.directory(posixpath.join(self._cwd, path).rstrip("/") or "/")

    def _examine(self, path: str) -> tuple[str, ElfObject] | _Refused:
        """`open_verify`: the real path and the headers, or what is wrong and what follows from it."""
        prefix, name = posixpath.split(path)
        directory = self._directory(prefix)
        if not directory:
            return _Refused("no such directory")
        entry = self._view.entry(directory, name)
        if entry is None:
            return _Refused("no such file")
        if entry.problem:
            return _Refused(entry.problem)
        found = self._view.object(entry.real)
        bits, machine = self._view.bits, self._view.machine
        if found.bits and found.bits != bits:
            return _Refused(f"{_WRONG_CLASS}{found.bits}")
        # Upstream calls another byte order fatal; Debian and Ubuntu compare machines first. So does this.
        if found.machine and found.machine != machine:
            return _Refused(f"for another machine: {found.machine}")
        if isinstance(found, NotLoadable):
            return _Refused(found.reason, fatal=found.fatal)
        return entry.real, found
