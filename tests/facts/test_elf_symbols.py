"""Dynamic symbols and strings of read-only data: on real libraries, what readelf shows."""

from __future__ import annotations

import contextlib
import glob
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from hypothesis import given, settings
from hypothesis import strategies as st

from envdoctor.facts.elf import ElfError, read_elf
from envdoctor.facts.elf_symbols import (
    called_symbols,
    exported_symbols,
    read_only_strings,
    undefined_symbols,
)
from envdoctor.facts.loader_model import ElfObject

FILES = 150
SECONDS = 60
CUDA = [re.compile(rb"cuda[A-Z]\w+")]


def shared_objects() -> list[str]:
    """Of the real libraries here a sample that is the same in every run."""
    places = [
        "/usr/lib/*-linux-gnu/*.so*",
        "/usr/lib64/*.so*",
        f"{sys.base_prefix}/lib/python3*/lib-dynload/*.so",
    ]
    found = {os.path.realpath(path) for place in places for path in glob.glob(place)}
    real = sorted(path for path in found if isinstance(read_elf(path), ElfObject))
    return random.Random(1).sample(real, min(FILES, len(real)))


def readelf(option: str, path: str) -> str:
    command = ["readelf", "-W", option, path]
    return subprocess.run(command, capture_output=True, text=True, check=True, errors="replace").stdout


def rows(path: str) -> Iterator[list[str]]:
    """Value, size, type, binding, visibility, section, name; only those with a name."""
    for line in readelf("--dyn-syms", path).splitlines():
        fields = line.replace("<OS specific>: 10", "UNIQUE").split()  # glibc ignores what ABI the file names
        if len(fields) >= 8 and re.fullmatch(r"\d+:", fields[0]):
            yield fields[1:]


def test_symbols_are_those_that_readelf_shows() -> None:
    paths = shared_objects()
    deadline = time.monotonic() + SECONDS
    compared = 0
    for path in paths:
        if time.monotonic() > deadline:
            break
        exported, undefined = set(), {}
        libraries = version_libraries(path)
        for value, _, kind, binding, visibility, section, *name in rows(path):
            if section == "UND":
                if binding == "GLOBAL":
                    number = name[1].strip("()") if len(name) > 1 else ""
                    undefined[name[0].partition("@")[0]] = libraries.get(number, "")
            elif (
                binding in {"GLOBAL", "WEAK", "UNIQUE"}
                and visibility in {"DEFAULT", "PROTECTED"}
                and kind in {"NOTYPE", "OBJECT", "FUNC", "COMMON", "TLS", "IFUNC"}
                and (int(value, 16) or kind == "TLS" or section == "ABS")
            ):
                exported.add(name[0].partition("@")[0])
        assert exported_symbols(path) == exported, path
        assert undefined_symbols(path) == undefined, path
        compared += 1
    assert compared >= 100


def version_libraries(path: str) -> dict[str, str]:
    """By the number of a version, the file that `readelf -V` shows it under."""
    library, found = "", {}
    for line in readelf("-V", path).splitlines():
        file = re.search(r"File: (\S+)", line)
        number = re.search(r"Name: \S+ +Flags: .*Version: (\d+)", line)
        if file:
            library = file[1]
        elif number and line.lstrip().startswith("0x") and library:
            found[number[1]] = library
    return found


def compiled(directory: Path, source: str, *options: str) -> str:
    text, path = directory / "source.c", directory / "libx.so"
    text.write_text(source)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O0", "-nostdlib", *options, text, "-o", path], check=True)
    return str(path)


@pytest.mark.parametrize("style", ["sysv", "gnu", "both"])
def test_every_kind_of_hash_table_tells_the_symbols(tmp_path: Path, style: str) -> None:
    source = "int other(void); int one(void) { return other(); } int two(void) { return 0; }"
    path = compiled(tmp_path, source, f"-Wl,--hash-style={style}")
    assert exported_symbols(path) == {"one", "two"}
    assert undefined_symbols(path) == {"other": ""}


def test_a_library_that_exports_nothing_still_tells_what_it_needs(tmp_path: Path) -> None:
    source = 'int other(void); __attribute__((visibility("hidden"))) int one(void) { return other(); }'
    path = compiled(tmp_path, source, "-Wl,--hash-style=gnu")
    assert exported_symbols(path) == frozenset()
    assert undefined_symbols(path) == {"other": ""}


def test_a_hidden_symbol_is_not_found_by_a_look_up(tmp_path: Path) -> None:
    path = compiled(tmp_path, "int one(void) { return 0; } int two(void) { return 0; }")
    with open(path, "r+b") as file:
        table = ELFFile(file).get_section_by_name(".dynsym")
        assert isinstance(table, SymbolTableSection)
        place = next(i for i, symbol in enumerate(table.iter_symbols()) if symbol.name == "one")
        file.seek(table["sh_offset"] + 24 * place + 5)  # st_other
        file.write(b"\2")  # STV_HIDDEN
    assert exported_symbols(path) == {"two"}


def test_weak_symbols_are_no_needs(tmp_path: Path) -> None:
    source = """
    __attribute__((weak)) int maybe(void);
    int other(void);
    int one(void) { return maybe ? maybe() : other(); }
    """
    assert undefined_symbols(compiled(tmp_path, source)) == {"other": ""}


def test_only_whole_strings_of_read_only_data_count(tmp_path: Path) -> None:
    source = """
    const char *const a = "cudaFree";
    const char *const b = "cudaMalloc failed";
    const char *const c = "use xcudaMemset";
    const char *const d = "cudalaunch";
    char writable[] = "cudaWritable";
    int cudaNamed(void) { return 0; }
    """
    assert read_only_strings(compiled(tmp_path, source), CUDA) == {"cudaFree"}


def test_a_stub_is_called_where_the_objects_own_code_goes_through_the_look_up(tmp_path: Path) -> None:
    source = """
    int cudaOutside(void);
    int cudaCalled(void) { return 0; }
    int cudaUncalled(void) { return 0; }
    int cudaOther(void) { return 0; }
    int caller(void) { return cudaCalled() + cudaOutside() + cudaOther(); }
    """
    names = {"cudaCalled", "cudaUncalled", "cudaOutside"}
    assert called_symbols(compiled(tmp_path, source), names, CUDA) == {"cudaCalled", "cudaOutside"}


def test_without_section_headers_read_only_data_is_unknown(tmp_path: Path) -> None:
    path = compiled(tmp_path, 'const char *const a = "cudaFree"; int one(void) { return 0; }')
    with open(path, "r+b") as file:
        file.seek(40)
        file.write(bytes(8))  # e_shoff
    assert exported_symbols(path) >= {"one", "a"}
    with pytest.raises(ElfError, match="no section headers"):
        read_only_strings(path, CUDA)


def _image() -> bytes:
    path = next(p for p in shared_objects() if len(undefined_symbols(p)) > 10)
    with open(path, "rb") as file:
        return file.read()


_IMAGE = _image()


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8), st.booleans()), min_size=1, max_size=8
    ),
    length=st.floats(0.5, 1),
)
def test_damaged_files_are_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[float, bytes, bool]], length: float
) -> None:
    damaged = bytearray(_IMAGE[: int(length * len(_IMAGE))] if length < 0.6 else _IMAGE)
    for place, content, in_front in changes:
        at = int(place * (min(60_000, len(damaged)) if in_front else len(damaged)))
        damaged[at : at + len(content)] = content
    path = str(tmp_path_factory.getbasetemp() / "damaged.so")
    with open(path, "wb") as file:
        file.write(damaged)
    for read in (exported_symbols, undefined_symbols):
        with contextlib.suppress(ElfError):
            read(path)
    with contextlib.suppress(ElfError):
        read_only_strings(path, CUDA)
    with contextlib.suppress(ElfError):
        called_symbols(path, {"cudaFree"}, [re.compile(rb"\w+")])


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        exported_symbols(str(tmp_path / "libnone.so"))
