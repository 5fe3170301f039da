from __future__ import annotations

import contextlib
import io
import os
import random
import stat
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.enums import ENUM_E_MACHINE
from elftools.elf.segments import InterpSegment
from hypothesis import given, settings
from hypothesis import strategies as st

from envdoctor.facts.elf import ElfError, parse_elf, read_elf, read_symbol_versions
from envdoctor.facts.loader_model import ElfObject, NotLoadable
from tests.facts.elf_factory import DF_1_NODEFLIB, EM_386, EM_AARCH64, EM_S390, ET_EXEC, ET_REL, library

ORACLE_FILES = 1500
ORACLE_SECONDS = 60
REAL_FILES = (sys.executable, "/bin/sh", "/usr/bin/ldd")
E_MACHINE = {"i386": 3, "x32": 62, "x86_64": 62, "aarch64": 183, "aarch64_be": 183, "arm": 40, "riscv64": 243}


def parse(image: bytes) -> ElfObject:
    return parse_elf(io.BytesIO(image))


def elf_files() -> Iterator[str]:
    """Every ELF file under the usual directories, and this interpreter's, each real file once."""
    seen = set()
    for top in ("/usr/lib", "/usr/lib64", "/usr/bin", sys.base_prefix, sys.prefix):
        for directory, _, names in os.walk(top):
            for name in names:
                path = os.path.realpath(os.path.join(directory, name))
                if path in seen or not os.path.isfile(path):
                    continue
                seen.add(path)
                with open(path, "rb") as file:
                    if file.read(4) == b"\x7fELF":
                        yield path


def test_headers_are_those_that_pyelftools_reads() -> None:
    paths = sorted(elf_files(), key=os.path.getsize)
    chosen = paths[-20:]  # the largest, and a sample that is the same in every run
    chosen += random.Random(1).sample(paths[:-20], min(ORACLE_FILES, len(paths) - 20))
    deadline = time.monotonic() + ORACLE_SECONDS
    compared = 0
    for path in chosen:
        if time.monotonic() > deadline:
            break
        compared += compare_with_pyelftools(path)
    assert compared > min(100, len(paths) // 2)


def compare_with_pyelftools(path: str) -> bool:
    found = read_elf(path)
    with open(path, "rb") as file:
        elf = ELFFile(file)
        if isinstance(found, NotLoadable):
            no_dynamic = not any(
                s.header.p_type == "PT_DYNAMIC" and s.header.p_filesz for s in elf.iter_segments()
            )
            assert elf.header.e_type not in ("ET_DYN", "ET_EXEC") or no_dynamic, (path, found)
            return False
        machine = ENUM_E_MACHINE.get(elf.header.e_machine, elf.header.e_machine)
        assert found.bits == elf.elfclass, path
        assert E_MACHINE.get(found.machine) == machine or found.machine == f"em_{machine}", path
        tags: dict[str, list[str]] = {}
        interpreter = ""
        for segment in elf.iter_segments():
            if isinstance(segment, DynamicSegment):
                for tag in segment.iter_tags():
                    name = str(tag.entry.d_tag).removeprefix("DT_").lower()
                    tags.setdefault(name, []).append(str(getattr(tag, name, "")))
            elif isinstance(segment, InterpSegment):
                interpreter = segment.get_interp_name()
    for name in ("soname", "rpath", "runpath"):
        assert getattr(found, name) == tags.get(name, [""])[-1], (path, name)
    assert list(found.needed) == tags.get("needed", []), path
    assert found.interpreter == interpreter, path
    return True


@pytest.mark.parametrize("path", REAL_FILES)
def test_a_file_is_read_in_well_under_a_millisecond(path: str) -> None:
    path = os.path.realpath(path)
    best = min(_seconds(path) for _ in range(20))
    assert best < 0.001


def _seconds(path: str) -> float:
    start = time.perf_counter()
    read_elf(path)
    return time.perf_counter() - start


def test_a_program_tells_its_interpreter_and_that_it_is_no_library() -> None:
    elf = read_elf("/bin/sh")
    assert isinstance(elf, ElfObject)
    assert elf.program
    assert os.path.exists(elf.interpreter)


@pytest.mark.parametrize(
    ("bits", "machine", "big", "name"),
    [
        (64, 62, False, "x86_64"),
        (32, 62, False, "x32"),
        (32, EM_386, False, "i386"),
        (64, EM_AARCH64, False, "aarch64"),
        (64, EM_AARCH64, True, "aarch64_be"),
        (64, EM_S390, True, "s390x"),
        (64, 21, True, "ppc64"),
        (64, 21, False, "ppc64le"),
        (64, 4711, False, "em_4711"),
        (32, 4711, True, "em_4711_be"),
    ],
)
def test_valid_files_of_other_machines_are_read(bits: int, machine: int, big: bool, name: str) -> None:
    image = library(
        soname="liba.so.1",
        needed=["libb.so.2", "libc.so.6"],
        rpath="/r",
        runpath="$ORIGIN",
        bits=bits,
        machine=machine,
        big=big,
    )
    assert parse(image) == ElfObject(
        bits=bits,
        machine=name,
        soname="liba.so.1",
        needed=("libb.so.2", "libc.so.6"),
        rpath="/r",
        runpath="$ORIGIN",
    )


def test_an_empty_runpath_is_not_the_same_as_none() -> None:
    assert parse(library(runpath="")).empty_runpath
    assert not parse(library()).empty_runpath


def test_nodeflib_is_read_from_the_flags() -> None:
    assert parse(library(flags_1=DF_1_NODEFLIB)).nodeflib


def test_a_runpath_of_tens_of_thousands_of_characters_is_read_whole() -> None:
    runpath = ":".join(["$ORIGIN/../nvidia/cublas/lib"] * 2000)
    assert parse(library(runpath=runpath)).runpath == runpath


def test_section_headers_are_not_needed() -> None:
    assert parse(library(soname="liba.so")).soname == "liba.so"


_GOOD = library(soname="liba.so.1", needed=["libb.so.1"])


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "file too short"),
        (_GOOD[:40], "file too short"),
        (b"/* GNU ld script */".ljust(100), "invalid ELF header"),
        (_GOOD[:5] + b"\x07" + _GOOD[6:], "ELF file data encoding not little-endian"),
        (_GOOD[:6] + b"\x02" + _GOOD[7:], "ELF file version ident does not match current one"),
        (library(os_abi=9), "ELF file OS ABI invalid"),
        (_GOOD[:8] + b"\x01" + _GOOD[9:], "ELF file ABI version invalid"),
        (_GOOD[:12] + b"\x01" + _GOOD[13:], "nonzero padding in e_ident"),
        (_GOOD[:20] + b"\x02" + _GOOD[21:], "ELF file version does not match current one"),
        (library(kind=ET_REL), "only ET_DYN and ET_EXEC can be loaded"),
        (_GOOD[:54] + b"\x01" + _GOOD[55:], "ELF file's phentsize not the expected size"),
        (_GOOD[:100], "cannot read file data"),
        (_GOOD[:-20], "the file is cut short: it ends before its segments do"),
        (library(dynamic=False), "object file has no dynamic section"),
    ],
)  # fmt: skip
def test_garbage_is_refused_in_the_words_of_glibc(image: bytes, reason: str) -> None:
    with pytest.raises(ElfError) as refused:
        parse(image)
    assert str(refused.value) == reason
    assert refused.value.not_loadable.fatal


def test_another_class_is_told_before_what_else_is_wrong() -> None:
    with pytest.raises(ElfError) as refused:
        parse(library(bits=32, machine=EM_386, os_abi=9))
    assert refused.value.not_loadable.bits == 32
    assert refused.value.not_loadable.machine == "i386"


def test_a_static_program_is_an_object_without_needs() -> None:
    elf = parse(library(kind=ET_EXEC, dynamic=False))
    assert elf.program
    assert elf.needed == ()


def test_a_fifo_is_refused_without_waiting_for_it(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "libx.so.1")
    os.mkfifo(path)
    assert read_elf(path) == NotLoadable(reason="not a regular file", fatal=True)


def test_a_directory_and_a_device_are_refused(tmp_path: os.PathLike[str]) -> None:
    assert isinstance(read_elf(os.fspath(tmp_path)), NotLoadable)
    assert stat.S_ISCHR(os.stat("/dev/zero").st_mode)
    assert isinstance(read_elf("/dev/zero"), NotLoadable)


def test_a_missing_file_is_an_os_error(tmp_path: os.PathLike[str]) -> None:
    with pytest.raises(FileNotFoundError):
        read_elf(os.path.join(tmp_path, "libnone.so"))


def _base_images() -> list[bytes]:
    images = [_GOOD, library(bits=32, machine=EM_386, runpath="$ORIGIN"), library(machine=EM_S390, big=True)]
    with open(os.path.realpath("/bin/sh"), "rb") as file:
        return [*images, file.read()]


_IMAGES = _base_images()


@settings(max_examples=500, deadline=None)
@given(
    image=st.sampled_from(range(len(_IMAGES))),
    changes=st.lists(
        st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8), st.booleans()), max_size=8
    ),
    length=st.floats(0, 1),
    cut=st.booleans(),
)
def test_damaged_files_are_read_or_refused_and_nothing_else(
    image: int, changes: list[tuple[float, bytes, bool]], length: float, cut: bool
) -> None:
    damaged = bytearray(_IMAGES[image])
    for place, content, in_header in changes:
        at = int(place * (700 if in_header else len(damaged) - 8))
        at = min(at, len(damaged) - len(content))
        damaged[at : at + len(content)] = content
    data = bytes(damaged[: int(length * len(damaged))] if cut else damaged)
    with contextlib.suppress(ElfError):
        parse(data)


def test_versions_are_those_that_readelf_shows() -> None:
    path = os.path.realpath("/bin/sh")
    shown = subprocess.run(["readelf", "-V", "-W", path], capture_output=True, text=True, check=True).stdout
    versions = read_symbol_versions(path)
    assert versions.defined == ()
    assert "libc.so.6" in versions.needed
    for library_name, names in versions.needed.items():
        assert f"File: {library_name}" in shown
        assert names
        assert all(f"Name: {name}" in shown for name in names)


def test_libc_defines_the_versions_of_its_symbols() -> None:
    libc = next(path for path in elf_files() if os.path.basename(path) == "libc.so.6")
    assert "GLIBC_2.17" in read_symbol_versions(libc).defined


def test_pyelftools_refuses_what_is_no_elf() -> None:
    """The oracle is one: it does not accept everything."""
    with pytest.raises(ELFError):
        ELFFile(io.BytesIO(b"text"))
