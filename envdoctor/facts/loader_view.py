"""What a look-up needs of the world, and the world as it was recorded. Nothing here reads the machine."""

from __future__ import annotations

import posixpath
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from envdoctor.facts.loader_model import ElfObject, Entry, NotLoadable, stem

if TYPE_CHECKING:
    from envdoctor.facts.loader_model import CacheEntry, LibraryWorld


class OutsideWorld(Exception):  # noqa: N818  an answer that the view does not have, not an error
    """The look-up needs something that was not recorded; the message says what."""


class View(Protocol):
    """The world as a look-up sees it. Any method may raise OutsideWorld."""

    @property
    def machine(self) -> str: ...
    @property
    def bits(self) -> int: ...
    @property
    def hwcaps(self) -> tuple[str, ...]: ...
    @property
    def cache(self) -> tuple[CacheEntry, ...]: ...
    @property
    def cache_problem(self) -> str: ...
    @property
    def default_directories(self) -> tuple[str, ...]: ...

    def directory(self, path: str) -> str:
        """The real path of a directory; "" where there is none."""

    def entry(self, directory: str, name: str) -> Entry | None:
        """A name in a real directory; None where there is no such name."""

    def object(self, real: str) -> ElfObject | NotLoadable: ...


class RecordedView:
    """The world as it was recorded; it knows what it does not know."""

    def __init__(self, world: LibraryWorld) -> None:
        self._world = world
        self.machine = world.machine
        self.bits = world.bits
        self.hwcaps = world.hwcaps
        self.cache = world.cache
        self.cache_problem = world.cache_problem
        self.default_directories = world.default_directories

    def directory(self, path: str) -> str:
        """As recorded for this spelling, or for another spelling of the same directory.

        A link that a repair would make is a new $ORIGIN, and so a new spelling of directories that were
        recorded under others. `..` is the parent of the real directory, as the kernel has it.
        """
        here = ""
        for part in path.split("/") if path not in self._world.aliases else ():
            if part == "..":
                parent = self._known(here or "/", path)
                if not parent:
                    return ""
                here = posixpath.dirname(parent)
            elif part not in ("", "."):
                here = f"{here.rstrip('/')}/{part}"
        return self._known(here or path, path)

    def _known(self, here: str, path: str) -> str:
        if here in self._world.aliases:
            return self._world.aliases[here]
        if here in self._parents:
            return here
        raise OutsideWorld(f"the directory {path} was not recorded")

    @cached_property
    def _parents(self) -> frozenset[str]:
        """The real directories that were recorded, and those above them."""
        found: set[str] = set()
        for listed in self._world.listings:
            directory = listed
            while directory not in found:
                found.add(directory)
                directory = posixpath.dirname(directory)
        return frozenset(found)

    def entry(self, directory: str, name: str) -> Entry | None:
        listing = self._world.listings.get(directory)
        if listing is None:
            raise OutsideWorld(f"the directory {directory} was not recorded")
        if name not in listing and stem(name) not in self._world.stems:
            raise OutsideWorld(f"no names like {name} were recorded")
        return listing.get(name)

    def object(self, real: str) -> ElfObject | NotLoadable:
        found = self._world.objects.get(real)
        if found is None:
            raise OutsideWorld(f"the file {real} was not recorded")
        return found
