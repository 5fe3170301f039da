"""Hypothesis strategies for library layouts: what a user, a wheel or a bad installation leaves on a disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

from tests.facts.elf_factory import (
    EM_386,
    EM_AARCH64,
    EM_S390,
    ET_EXEC,
    ET_REL,
    DF_1_NODEFLIB,
    DF_1_PIE,
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
MISSING = "libmissing.so.9"

# Elements of search paths; {top} is the layout's directory. Some are spelled in two ways.
ELEMENTS = (
    "$ORIGIN", "${{ORIGIN}}/../d1", "$ORIGIN/../d2", "{top}/d0", "{top}/d1", "{top}/d1//", "{top}/d2/", "d0", "d1/",
    "", "{top}/nowhere", "{top}/a-file", "{top}/to-d1", "{top}/to-nowhere", "$LIB", "$PLATFORM", "$ORIGINAL", "{top}/d1/../d0",
)  # fmt: skip
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
    "../a-file/x",
)


@dataclass(frozen=True)
class Library:
    soname: str
    needed: tuple[str, ...]
    rpath: str | None
    runpath: str | None
    nodeflib: bool

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


@dataclass(frozen=True)
class Layout:
    files: dict[tuple[str, str], Library | Link | str]  # str: a fault, or "directory"
    search: tuple[str, str] | None  # the program's
    needed: tuple[str, ...]
    environment: dict[str, str]
    cache: tuple[tuple[str, str, str], ...] | None
    requests: tuple[tuple[int, str], ...]  # who asks (of what is loaded by then), for what
    top: str = field(default="", compare=False)

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


def _paths(elements: Sequence[str] = ELEMENTS, separators: str = ":") -> st.SearchStrategy[str]:
    part = st.sampled_from(elements)
    joined = st.tuples(st.lists(part, min_size=1, max_size=4), st.sampled_from(separators))
    return joined.map(lambda both: both[1].join(both[0]))


_wanted = st.sampled_from((*NAMES, *NAMES, SYSTEM))
_by_path = st.sampled_from(
    ("{top}/d0/liba.so.1", "{top}/d1/libb.so.1", "d2/libc0.so.2", "{top}/to-d1/liba.so.1")
)
_origin_path = st.sampled_from(("$ORIGIN/libb.so.1", "$ORIGIN/../d0/libc0.so.2"))
_optional_path = st.none() | _paths()

libraries = st.builds(
    Library,
    soname=st.sampled_from(("", *NAMES)),
    needed=st.just(()) | st.lists(_wanted | _origin_path | _wanted, max_size=2).map(tuple),
    rpath=_optional_path,
    runpath=st.none() | _optional_path,
    nodeflib=st.sampled_from((False, False, False, True)),
)
_contents = st.one_of(
    *[libraries] * 6,
    st.sampled_from((*FAULTS, "directory")),
    st.sampled_from(LINKS).map(Link),
)
_places = st.tuples(
    st.sampled_from((*DIRECTORIES[:3], *DIRECTORIES[:3], *DIRECTORIES)), st.sampled_from((*NAMES, SYSTEM))
)
_cached = st.tuples(
    st.sampled_from(NAMES),
    st.sampled_from(tuple(f"{{top}}/{d}/{n}" for d in DIRECTORIES[:3] for n in NAMES[:2])),
    st.sampled_from(("", "", "x86-64-v2", "x86-64-v3", "odd")),
)


@st.composite
def environments(draw: st.DrawFn) -> dict[str, str]:
    found = {}
    library_path = draw(st.none() | st.just("") | st.one_of(*[_paths(separators=":;")] * 3))
    if library_path is not None:
        found["LD_LIBRARY_PATH"] = library_path
    preload = draw(st.lists(st.sampled_from((*NAMES, "{top}/d0/liba.so.1", MISSING)), max_size=2))
    if preload and draw(st.booleans()):
        found["LD_PRELOAD"] = draw(st.sampled_from(" :")).join(preload)
    return found


layouts = st.builds(
    Layout,
    files=st.dictionaries(_places, _contents, min_size=8, max_size=18),
    search=st.none() | st.tuples(st.sampled_from(("rpath", "rpath", "runpath")), _paths()),
    needed=st.just(()) | st.just(()) | st.lists(_wanted, max_size=2, unique=True).map(tuple),
    environment=environments(),
    cache=st.none() | st.lists(_cached, max_size=6, unique_by=lambda e: (e[0], e[2])).map(tuple),
    requests=st.lists(
        st.tuples(st.integers(0, 5), _wanted | _wanted | _by_path | _origin_path | st.just(MISSING)),
        max_size=4,
    ).map(tuple),
)
