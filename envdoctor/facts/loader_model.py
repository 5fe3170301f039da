"""What the dynamic loader's world looks like: searched directories, ELF headers, ld.so.cache.

Plain data, so that a look-up can be repeated without the machine: on a snapshot, or after a repair that
has so far only been made in memory.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

LINK_LOOP = "link loop"  # the problems of an Entry, and reasons, that mean something to the rules
PERMISSION_DENIED = "permission denied"


def stem(name: str) -> str:
    """What the names of one library have in common: "libcusolver" of "libcusolver.so.11"."""
    return name.partition(".so")[0]


class ElfObject(Struct, frozen=True, kw_only=True, tag="elf", tag_field="is"):
    """The headers of an ELF file that matter to the loader."""

    bits: int  # 32 or 64
    machine: str  # "x86_64", "aarch64", "i386", "ppc64le" …; "em_<number>" for others
    soname: str = ""
    needed: tuple[str, ...] = ()
    rpath: str = ""  # raw DT_RPATH, as the loader uses it: ignored by glibc where runpath is set
    runpath: str = ""  # raw DT_RUNPATH
    empty_runpath: bool = False  # a DT_RUNPATH with nothing in it still turns DT_RPATHs off
    nodeflib: bool = False  # DF_1_NODEFLIB: ld.so.cache's default directories and defaults are skipped
    interpreter: str = ""  # PT_INTERP of a program: the dynamic loader that starts it
    program: bool = False  # ET_EXEC or PIE: can be started, not opened as a library


class NotLoadable(Struct, frozen=True, kw_only=True, tag="not-loadable", tag_field="is"):
    """A file that is there and cannot be loaded.

    `fatal`: glibc ends the whole look-up with this message (bad magic, truncated), where for another
    class or machine it silently goes on to the next directory.
    """

    reason: str  # in dlerror's words where it has some: "invalid ELF header", "file too short"
    fatal: bool
    bits: int = 0  # as far as its header could be read: a process of another class or machine
    machine: str = ""  # passes the file over before it sees what is wrong


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One name in a searched directory."""

    real: str  # where its links end; "" where they end nowhere
    problem: str = ""  # "dangling link to X", "link loop", "permission denied"


class CacheEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of `ldconfig -p`, in the cache's own order."""

    name: str
    path: str
    machine: str  # as ElfObject.machine, from the flags
    hwcap: str = ""  # glibc-hwcaps subdirectory, "x86-64-v3"


class LibraryWorld(Struct, frozen=True, kw_only=True):
    """Everything the loader would look at, for the library names in `stems`.

    `aliases` maps a directory as it was spelled in a search path to the real one ("" where there is no
    such directory); `listings` maps a real directory to the names in it, complete for every name whose
    stem (`libcusolver` of `libcusolver.so.11`) is in `stems`; `objects` maps a real path to its headers.
    """

    machine: str
    bits: int
    stems: frozenset[str] = frozenset()
    hwcaps: tuple[str, ...] = ()  # active glibc-hwcaps subdirectories, best first
    aliases: dict[str, str] = {}
    listings: dict[str, dict[str, Entry]] = {}
    objects: dict[str, ElfObject | NotLoadable] = {}
    cache: tuple[CacheEntry, ...] = ()
    cache_problem: str = ""  # an ld.so.cache that could not be read: nothing is known of what it offers
    default_directories: tuple[str, ...] = ()

    def with_link(self, directory: str, name: str, real: str) -> LibraryWorld:
        """This world after `ln -s real directory/name`; `directory` is a real directory."""
        listing = {**self.listings.get(directory, {}), name: Entry(real=real)}
        return replace(self, listings={**self.listings, directory: listing})


class Rule(Enum):
    """Why the loader looked where it looked (ld.so(8), in its order)."""

    PATH = "path given"
    LOADED = "already loaded"
    RPATH = "DT_RPATH"
    LD_LIBRARY_PATH = "LD_LIBRARY_PATH"
    RUNPATH = "RUNPATH"
    CACHE = "ld.so.cache"
    DEFAULT = "default directories"


class Attempt(Struct, frozen=True, kw_only=True):
    """A file the loader would have tried and did not take."""

    path: str
    rule: Rule
    outcome: str  # "no such file", "wrong ELF class: 32 bit", "dangling link to …"


class Lookup(Struct, frozen=True, kw_only=True):
    """What the loader does when `requester` asks for `name`."""

    name: str
    requester: str
    path: str  # the file it takes, as it spells it; "" where it finds none
    real: str
    rule: Rule | None
    attempts: tuple[Attempt, ...] = ()  # before it found `path`, in order
    error: str = ""  # what dlerror would say of this name; "" when found
    unknown: str = ""  # why this model cannot say (a name or object outside the recorded world)
    needed: tuple[Lookup, ...] = ()  # that file's own DT_NEEDED, all the way down

    @property
    def failures(self) -> tuple[Lookup, ...]:
        """The look-ups in this tree that find nothing: itself, or needs of what it found."""
        own = (self,) if self.error else ()
        return own + tuple(f for n in self.needed for f in n.failures)

    @property
    def doubts(self) -> tuple[str, ...]:
        own = (self.unknown,) if self.unknown else ()
        return own + tuple(d for n in self.needed for d in n.doubts)

    @property
    def ok(self) -> bool:
        return not self.failures and not self.doubts
