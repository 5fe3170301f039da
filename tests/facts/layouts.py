"""Layouts of libraries: what a user, a wheel or a bad installation leaves on a disk."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field

from tests.facts.elf_factory import (
    DF_1_NODEFLIB,
    DF_1_PIE,
    EM_386,
    EM_AARCH64,
    EM_S390,
    ET_EXEC,
    ET_REL,
    library,
)

DIRECTORIES = (
    "d0",
    "d1",
    "d2",
    "d1/glibc-hwcaps/x86-64-v2",
    "d1/glibc-hwcaps/x86-64-v3",
    "d1/glibc-hwcaps/odd",
)
NAMES = ("liba.so.1", "libb.so.1", "libc0.so.2", "libd.so")
SYSTEM = "libm.so.6"  # in the default directories, and not in the driver

# Elements of search paths; {top} is the layout's directory. Some are spelled in two ways.
ELEMENTS = (
    *("$ORIGIN", "${{ORIGIN}}/../d1", "$ORIGIN/../d2", "{top}/d0", "{top}/d1", "{top}/d1//", "{top}/d2/"),
    *("d0", "d1/", "", "{top}/nowhere", "{top}/a-file", "{top}/to-d1", "{top}/to-nowhere", "{top}/d1/../d0"),
    *("$LIB", "$PLATFORM", "$ORIGINAL"),
)
FAULTS = {
    "wrong class": library(bits=32, machine=EM_386),
    "wrong machine": library(machine=EM_AARCH64),
    "wrong class and encoding": library(bits=32, machine=EM_S390, big=True),
    "big-endian": library(machine=EM_S390, big=True),
    "text": b"/* GNU ld script */ GROUP ( /lib/libx.so.1 AS_NEEDED ( /lib/liby.so ) )\n" * 2,
    "empty": b"",
    "header cut": library()[:50],
    "segments cut": library()[:100],
    "of another system": library(os_abi=9),
    "object file": library(kind=ET_REL),
    "program": library(kind=ET_EXEC),
    "position-independent program": library(flags_1=DF_1_PIE),
    "debug information": library(dynamic=False),
    "unknown class": library()[:4] + b"\x07" + library()[5:],
    "new ELF version": library()[:6] + b"\x02" + library()[7:],
}
LINKS = (
    "{top}/d0/{name}",
    "../d1/{name}",
    "{name}",
    "../nowhere/{name}",
    "{top}/d2/liba.so.1",
)


@dataclass(frozen=True)
class Library:
    soname: str = ""
    needed: tuple[str, ...] = ()
    rpath: str | None = None
    runpath: str | None = None
    nodeflib: bool = False

    def image(self, top: str) -> bytes:
        return library(
            soname=self.soname,
            needed=[name.format(top=top) for name in self.needed],
            rpath=None if self.rpath is None else self.rpath.format(top=top),
            runpath=None if self.runpath is None else self.runpath.format(top=top),
            flags_1=DF_1_NODEFLIB if self.nodeflib else 0,
        )


@dataclass(frozen=True)
class Link:
    to: str


Content = Library | Link | str  # a fault, or "directory"


@dataclass(frozen=True)
class Layout:
    files: dict[tuple[str, str], Content]
    search: tuple[str, str] | None = None  # the program's
    needed: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    cache: tuple[tuple[str, str, str], ...] | None = None
    requests: tuple[tuple[int, str], ...] = ()  # who asks (of what is loaded by then), for what

    def write(self, top: str) -> None:
        for directory in DIRECTORIES:
            os.makedirs(f"{top}/{directory}")
        with open(f"{top}/a-file", "w") as file:
            file.write("text")
        os.symlink("d1", f"{top}/to-d1")
        os.symlink("nowhere", f"{top}/to-nowhere")
        for (directory, name), content in self.files.items():
            path = f"{top}/{directory}/{name}"
            if isinstance(content, Link):
                os.symlink(content.to.format(top=top, name=name), path)
            elif content == "directory":
                os.mkdir(path)
            else:
                with open(path, "wb") as out:
                    out.write(content.image(top) if isinstance(content, Library) else FAULTS[content])


def layout(seed: int) -> Layout:
    """A layout from a number: strategies would make far less of it succeed (they prefer what is small)."""
    pick = random.Random(seed)
    files: dict[tuple[str, str], Content] = {}
    for _ in range(pick.randint(6, 22)):
        place = pick.choice((*DIRECTORIES[:3] * 3, *DIRECTORIES)), pick.choice((*NAMES, *NAMES, SYSTEM))
        files[place] = _content(pick)
    cache = [
        (pick.choice(NAMES), f"{{top}}/{pick.choice(DIRECTORIES[:3])}/{pick.choice(NAMES)}", _hwcap(pick))
        for _ in range(pick.randint(0, 6))
    ]
    return Layout(
        files=files,
        search=pick.choice((None, ("rpath", _path(pick)), ("runpath", _path(pick)))),
        needed=tuple(_names(pick, 2)) if pick.random() < 0.4 else (),
        environment=_environment(pick),
        cache=tuple({entry[::2]: entry for entry in cache}.values()) if pick.random() < 0.5 else None,
        requests=tuple((pick.randint(0, 9), _request(pick)) for _ in range(pick.randint(1, 6))),
    )


def _content(pick: random.Random) -> Content:
    kind = pick.random()
    if kind < 0.12:
        return pick.choice((*FAULTS, "directory"))
    if kind < 0.27:
        return Link(pick.choice(LINKS))
    return Library(
        soname=pick.choice(("", *NAMES)),
        needed=tuple(_names(pick, 2)),
        rpath=_path(pick) if pick.random() < 0.3 else None,
        runpath=_path(pick) if pick.random() < 0.4 else pick.choice((None, None, None, "")),
        nodeflib=pick.random() < 0.1,
    )


def _names(pick: random.Random, most: int) -> list[str]:
    names = (*NAMES * 3, SYSTEM, "$ORIGIN/libb.so.1", "$ORIGIN/../d0/libc0.so.2")
    return [pick.choice(names) for _ in range(pick.randint(0, most))]


def _path(pick: random.Random, separator: str = ":") -> str:
    return separator.join(pick.choice(ELEMENTS) for _ in range(pick.randint(1, 5)))


def _hwcap(pick: random.Random) -> str:
    return pick.choice(("", "", "x86-64-v2", "x86-64-v3", "odd"))


def _request(pick: random.Random) -> str:
    by_path = ("{top}/d0/liba.so.1", "{top}/d1/libb.so.1", "d2/libc0.so.2", "{top}/to-d1/liba.so.1")
    return pick.choice(
        (*NAMES * 4, SYSTEM, "libmissing.so.9", *by_path, "$ORIGIN/libb.so.1", "$ORIGIN/../d0/libd.so")
    )


def _environment(pick: random.Random) -> dict[str, str]:
    found = {}
    if pick.random() < 0.6:
        found["LD_LIBRARY_PATH"] = pick.choice(("", _path(pick), _path(pick), _path(pick, ";")))
    if pick.random() < 0.25:
        preload = (*NAMES, "{top}/d0/liba.so.1", "libmissing.so.9")
        found["LD_PRELOAD"] = pick.choice(" :").join(pick.choice(preload) for _ in range(pick.randint(1, 2)))
    return found
