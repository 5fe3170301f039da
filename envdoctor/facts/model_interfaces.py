"""Facts on whether a library may stand for another version of itself: what is used of it, and what it has."""

from __future__ import annotations

from msgspec import Struct


class Asked(Struct, frozen=True, kw_only=True):
    """Symbols that a library is to provide, and those of them that the candidate lacks."""

    by: tuple[str, ...] = ()  # the objects that ask
    symbols: int = 0
    missing: int = 0
    examples: tuple[
        str, ...
    ] = ()  # the first few of the missing ones; those that are surely called come first
    called: int = 0  # of the missing ones, those that code of the objects is seen to call


class Interface(Struct, frozen=True, kw_only=True):
    """A library of another name, beside what is asked of the one that is wanted and not found."""

    framework: str
    soname: str  # that is wanted
    candidate: str  # the real path of the file that might stand for it
    candidate_soname: str  # "" where it has none
    opened: Asked = Asked()  # taken by name, with dlsym: a miss shows when the function is called
    linked: Asked = Asked()  # undefined symbols of objects that have the wanted library in DT_NEEDED
    missing_versions: tuple[str, ...] = ()  # of symbols, that these objects need and the candidate lacks
    unknown: str = ""  # why nothing, or not all of this, could be told
