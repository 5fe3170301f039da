"""The loader's world, read from a disk as look-ups ask for it."""

from __future__ import annotations

import errno
import os
import posixpath
import re
from functools import cached_property
from typing import TYPE_CHECKING

from envdoctor.facts.elf import read_elf
from envdoctor.facts.ldcache import LdCacheError, parse_ld_so_cache
from envdoctor.facts.loader_model import (
    LINK_LOOP,
    PERMISSION_DENIED,
    ElfObject,
    Entry,
    LibraryWorld,
    NotLoadable,
    stem,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from envdoctor.facts.loader_model import CacheEntry
    from envdoctor.facts.root import Root

# Where programs of each machine name their loader (PT_INTERP); the machine's own comes before i386.
_LOADERS = (
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib64/ld64.so.2",
    "/lib/ld64.so.1",
    "/lib/ld-linux-riscv64-lp64d.so.1",
    "/lib64/ld-linux-loongarch-lp64d.so.1",
    "/lib/ld-linux-armhf.so.3",
    "/lib/ld-linux.so.2",
)
# What a CPU needs for each level, in the words of /proc/cpuinfo (glibc sysdeps/x86_64/dl-hwcaps_subdirs.c).
_X86_LEVELS = (
    ("x86-64-v2", {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}),
    ("x86-64-v3", {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}),
    ("x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
)


class DiskView:
    """A root's disk, read lazily: one listing a directory, links and headers of the names asked for only.

    The dynamic loader itself tells what it would do: its default directories, the place of its cache and
    whether it knows glibc-hwcaps are in its read-only data. `program` (PT_INTERP) tells which loader; without
    it, the first of the customary places that exists. Where a root has none, the customary directories of
    Debian and of Red Hat that exist stand for the defaults.
    """

    def __init__(self, root: Root, program: str = "") -> None:
        self._root = root
        self._program = program
        self._prefix = root.directory.rstrip("/")
        self._stems: set[str] = set()
        self._aliases: dict[str, str] = {}
        self._names: dict[str, dict[str, bool] | None] = {}  # is it a link; None: cannot be listed
        self._entries: dict[str, dict[str, Entry | None]] = {}
        self._objects: dict[str, ElfObject | NotLoadable] = {}
        self._plain_names: dict[str, str] = {}

    @cached_property
    def _loader(self) -> str:
        if self._program:
            program = self.object(self._root.realpath(self._program))
            if isinstance(program, ElfObject) and program.interpreter:
                return program.interpreter
        return next((path for path in _LOADERS if self._root.is_file(path)), "")

    @cached_property
    def _loader_object(self) -> ElfObject:
        found = self.object(self._root.realpath(self._loader)) if self._loader else None
        if isinstance(found, ElfObject):
            return found
        return ElfObject(bits=64, machine=os.uname().machine)

    @cached_property
    def _loader_data(self) -> bytes:
        try:
            return self._root.read_bytes(self._loader) if self._loader else b""
        except OSError:
            return b""

    @property
    def machine(self) -> str:
        return self._loader_object.machine

    @property
    def bits(self) -> int:
        return self._loader_object.bits

    @cached_property
    def default_directories(self) -> tuple[str, ...]:
        """SYSTEM_DIRS as compiled into the loader: one string, a NUL after each (trusted-dirs.h)."""
        runs = re.findall(rb"/(?:[\w.+-]+/)+\0(?:/(?:[\w.+-]+/)+\0)*", self._loader_data)
        if runs:
            return tuple(os.fsdecode(part.rstrip(b"/")) for part in max(runs, key=len)[:-1].split(b"\0"))
        tuple_name = f"{self.machine}-linux-gnu"
        customary = (
            f"/lib/{tuple_name}",
            f"/usr/lib/{tuple_name}",
            "/lib64",
            "/usr/lib64",
            "/lib",
            "/usr/lib",
        )
        return tuple(path for path in customary if self._root.is_dir(path))

    @cached_property
    def hwcaps(self) -> tuple[str, ...]:
        """The active x86-64 levels, best first. None without a /proc/cpuinfo, or on other machines."""
        if self.machine != "x86_64" or (self._loader_data and b"glibc-hwcaps" not in self._loader_data):
            return ()
        try:
            text = self._root.read_bytes("/proc/cpuinfo", limit=8192)  # the first CPU's paragraph
        except OSError:
            return ()
        match = re.search(rb"^flags\s*:(.*)", text, re.MULTILINE)
        flags = set(os.fsdecode(match[1]).split()) if match else set()
        active: list[str] = []
        for level, needs in _X86_LEVELS:
            if not needs <= flags:
                break
            active.insert(0, level)
        return tuple(active)

    @cached_property
    def _parsed_cache(self) -> tuple[tuple[CacheEntry, ...], str]:
        place = re.search(rb"/[\w./+-]*ld\.so\.cache(?=\0)", self._loader_data)
        path = os.fsdecode(place[0]) if place else "/etc/ld.so.cache"
        try:
            return parse_ld_so_cache(self._root.read_bytes(path)), ""
        except FileNotFoundError:
            return (), ""
        except (OSError, LdCacheError) as error:
            return (), f"{path}: {error}"

    @property
    def cache(self) -> tuple[CacheEntry, ...]:
        return self._parsed_cache[0]

    @property
    def cache_problem(self) -> str:
        return self._parsed_cache[1]

    def directory(self, path: str) -> str:
        if path not in self._aliases:
            try:
                self._aliases[path] = self._root.realpath(path) if self._root.is_dir(path) else ""
            except OSError:
                self._aliases[path] = ""
        return self._aliases[path]

    def entry(self, directory: str, name: str) -> Entry | None:
        self._stems.add(stem(name))
        directory = self.directory(directory)
        if not directory:
            return None
        entries = self._entries.setdefault(directory, {})
        if name not in entries:
            entries[name] = self._read_entry(directory, name)
        return entries[name]

    def _read_entry(self, directory: str, name: str) -> Entry | None:
        names = self._listing(directory)
        path = posixpath.join(directory, name)
        try:
            if names is None:
                link = os.path.islink(self._prefix + path)
                os.lstat(self._prefix + path)
            elif name in names:
                link = names[name]
            else:
                return None
            if not link:
                return Entry(real=path)
            real = self._root.realpath(path)
            os.lstat(self._prefix + real)
        except OSError as error:
            return self._problem(path, error)
        return Entry(real=real)

    def _problem(self, path: str, error: OSError) -> Entry | None:
        if error.errno == errno.ELOOP:
            return Entry(real="", problem=LINK_LOOP)
        if error.errno == errno.EACCES:
            return Entry(real="", problem=PERMISSION_DENIED)
        try:
            return Entry(real="", problem=f"dangling link to {os.readlink(self._prefix + path)}")
        except OSError:
            return None

    def _listing(self, directory: str) -> dict[str, bool] | None:
        if directory not in self._names:
            try:
                with os.scandir(self._prefix + directory) as found:
                    self._names[directory] = {entry.name: entry.is_symlink() for entry in found}
            except OSError:
                self._names[directory] = None
        return self._names[directory]

    def object(self, real: str) -> ElfObject | NotLoadable:
        if real not in self._objects:
            try:
                self._objects[real] = read_elf(self._prefix + real)
            except OSError as error:
                denied = error.errno == errno.EACCES
                reason = PERMISSION_DENIED if denied else os.strerror(error.errno or 0)
                fatal = error.errno not in (errno.EACCES, errno.ENOENT, errno.ENOTDIR)
                self._objects[real] = NotLoadable(reason=reason, fatal=fatal)
        return self._objects[real]

    def look_at_directory(self, path: str) -> tuple[str, ...]:
        """Record a directory that a search path may come to name, with its glibc-hwcaps. The names in it."""
        real = self.directory(path)
        if not real:
            return ()
        if self.hwcaps and self.directory(f"{path}/glibc-hwcaps"):
            for level in self.hwcaps:
                better = self.directory(f"{path}/glibc-hwcaps/{level}")
                if better:
                    self._listing(better)
        return tuple(self._listing(real) or ())

    def look_at_object(self, path: str) -> ElfObject | NotLoadable | None:
        """Record a file that a link or a path may come to name; None where there is none."""
        directory, name = posixpath.split(path)
        self.look_at_directory(directory)
        entry = self.entry(directory, name)
        return self.object(entry.real) if entry and entry.real else None

    def record(self, extra_stems: Iterable[str] = ()) -> LibraryWorld:
        """All that was looked at, with every name of a stem that was asked for and the headers behind it."""
        self._stems.update(extra_stems)
        for directory, names in list(self._names.items()):
            for name in names or ():
                if stem(name) in self._stems:
                    entry = self.entry(directory, name)
                    if entry and entry.real:
                        self.object(entry.real)
        listings = {
            directory: {name: entry for name, entry in self._entries.get(directory, {}).items() if entry}
            for directory in self._names
        }
        aliases = dict(self._aliases)
        for path, real in self._aliases.items():
            if not real:  # under its plain name too, whichever way another look-up would spell it
                aliases.setdefault(self._plain(path), "")
        return LibraryWorld(
            machine=self.machine,
            bits=self.bits,
            stems=frozenset(self._stems),
            hwcaps=self.hwcaps,
            aliases=aliases,
            listings=listings,
            objects=dict(self._objects),
            cache=self.cache,
            cache_problem=self.cache_problem,
            default_directories=self.default_directories,
        )

    def _plain(self, path: str) -> str:
        if path not in self._plain_names:
            try:
                self._plain_names[path] = self._root.realpath(path)
            except OSError:
                self._plain_names[path] = path
        return self._plain_names[path]
