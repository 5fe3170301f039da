"""ELF headers as the dynamic loader reads them: program headers and the dynamic section, nothing else.

Reads files and executes nothing. The checks, their order and their words are those of glibc
(elf/dl-load.c, `open_verify` and `_dl_map_object_from_fd`), so that a file which is refused here is
refused by the loader, for the reason that dlerror gives.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from msgspec import Struct

from envdoctor.facts.loader_model import ElfObject, NotLoadable

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER_SIZE = 64  # Elf64_Ehdr; a 64-bit glibc calls anything shorter "file too short"
_DYNAMIC_LIMIT = 1 << 20  # bytes; a large library has 1 KiB
_STRING_LIMIT = 1 << 20  # bytes; TensorFlow 2.21 has a RUNPATH of 27,000
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_ET_EXEC, _ET_DYN = 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 14, 15, 29
_DT_FLAGS_1, _DT_VERDEF, _DT_VERDEFNUM = 0x6FFFFFFB, 0x6FFFFFFC, 0x6FFFFFFD
_DT_VERNEED, _DT_VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF
_DF_1_NODEFLIB, _DF_1_PIE = 0x800, 0x8000000
_VER_FLG_BASE = 1  # the definition that stands for the file itself
_VER_FLG_WEAK = 2  # only weak symbols need the version: the loader does without it

# e_machine, bits, big-endian: the name that `uname -m` gives such a machine.
_MACHINES = {
    (3, 32, False): "i386",
    (20, 32, True): "ppc",
    (21, 64, True): "ppc64",
    (21, 64, False): "ppc64le",
    (22, 32, True): "s390",
    (22, 64, True): "s390x",
    (40, 32, False): "arm",
    (62, 32, False): "x32",
    (62, 64, False): "x86_64",
    (183, 64, False): "aarch64",
    (183, 64, True): "aarch64_be",
    (243, 32, False): "riscv32",
    (243, 64, False): "riscv64",
    (258, 64, False): "loongarch64",
}


class ElfError(Exception):
    """glibc would not load this file; the message is dlerror's where it has one.

    `bits` and `machine` are set where the header told them before it went wrong: a process of
    another class or machine never gets as far as the fault.
    """

    def __init__(self, reason: str, *, bits: int = 0, machine: str = "", fatal: bool = True) -> None:
        super().__init__(reason)
        self.not_loadable = NotLoadable(reason=reason, fatal=fatal, bits=bits, machine=machine)


class SymbolVersions(Struct, frozen=True, kw_only=True):
    """Versions that an object's symbols need, by library, and those that it defines ("GLIBC_2.34")."""

    needed: dict[str, tuple[str, ...]]
    defined: tuple[str, ...]


class _Segment(NamedTuple):
    kind: int
    offset: int
    address: int
    file_size: int


def read_elf(path: str) -> ElfObject | NotLoadable:
    """The headers of a file of this machine. OSError where it cannot be opened or read."""
    try:
        with open_regular(path) as file:
            return parse_elf(file)
    except ElfError as error:
        return error.not_loadable


def parse_elf(file: BinaryIO) -> ElfObject:
    """The headers in an open file, read as the loader reads them. ElfError where it would refuse them."""
    return Headers(file).object()


def read_symbol_versions(path: str) -> SymbolVersions:
    """The symbol versions of a file. ElfError where it is not loadable, OSError where it is not readable."""
    with open_regular(path) as file:
        return Headers(file).symbol_versions()


def open_regular(path: str) -> BinaryIO:
    """A regular file, unbuffered. A directory, a FIFO or a device is refused, and never waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ElfError("not a regular file")
    return os.fdopen(descriptor, "rb", buffering=0)


class Headers:
    """The parsed headers; strings are fetched one by one, for string tables can be many megabytes.

    `elf_symbols.py` reads on from here.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        header = self._at(0, min(self._size, _HEADER_SIZE))
        if len(header) < _HEADER_SIZE:
            raise ElfError("file too short")
        if header[:4] != b"\x7fELF":
            raise ElfError("invalid ELF header")
        if header[4] not in (1, 2):
            raise ElfError(f"wrong ELF class: ELFCLASS{header[4]}", fatal=False)
        self.bits = 32 * header[4]
        self._order = ">" if header[5] == 2 else "<"
        layout = self._order + ("HHIQQQIHHH" if self.bits == 64 else "HHIIIIIHHH")
        fields = struct.unpack_from(layout, header, 16)
        self._type, number, version, _, table, _, _, _, entry_size, count = fields
        big = self._order == ">"
        self.machine = _MACHINES.get((number, self.bits, big), f"em_{number}" + "_be" * big)
        self._check_ident(header)
        if version != 1:
            raise self._error("ELF file version does not match current one")
        if self._type not in (_ET_EXEC, _ET_DYN):
            raise self._error("only ET_DYN and ET_EXEC can be loaded")
        if entry_size != (56 if self.bits == 64 else 32):
            raise self._error("ELF file's phentsize not the expected size")
        self._segments = self._read_segments(table, count)
        self._loads = [segment for segment in self._segments if segment.kind == _PT_LOAD]
        self._check_segments()
        self._dynamic, self._needed = self._read_dynamic()

    def _error(self, reason: str) -> ElfError:
        return ElfError(reason, bits=self.bits, machine=self.machine)

    def _check_ident(self, header: bytes) -> None:
        data, version, abi, abi_version = header[5:9]
        if data not in (1, 2):
            raise self._error("ELF file data encoding not little-endian")
        if version != 1:
            raise self._error("ELF file version ident does not match current one")
        if abi not in (0, 3):  # ELFOSABI_SYSV, ELFOSABI_GNU
            raise self._error("ELF file OS ABI invalid")
        if abi_version and abi == 0:
            raise self._error("ELF file ABI version invalid")
        if any(header[9:16]):
            raise self._error("nonzero padding in e_ident")

    def _read_segments(self, table: int, count: int) -> list[_Segment]:
        layout = self._order + ("IIQQQQQQ" if self.bits == 64 else "IIIIIIII")
        raw = self._at(table, count * struct.calcsize(layout))
        segments = []
        for fields in struct.iter_unpack(layout, raw):
            if self.bits == 64:
                kind, _, offset, address, _, file_size, _, _ = fields
            else:
                kind, offset, address, _, file_size, _, _, _ = fields
            segments.append(_Segment(kind, offset, address, file_size))
        return segments

    def _check_segments(self) -> None:
        if not self._loads:
            raise self._error("object file has no loadable segments")
        if any(segment.offset + segment.file_size > self._size for segment in self._loads):
            # glibc maps it all the same, and the process dies of SIGBUS when it touches what is missing.
            raise self._error("the file is cut short: it ends before its segments do")

    def _read_dynamic(self) -> tuple[dict[int, int], list[int]]:
        """Tags and values (of a repeated tag, the last, as for glibc), and the values of all DT_NEEDED."""
        place = next((s for s in self._segments if s.kind == _PT_DYNAMIC and s.file_size), None)
        tags: dict[int, int] = {}
        needed: list[int] = []
        if place is None:
            if self._type == _ET_DYN:
                raise self._error("object file has no dynamic section")
            return tags, needed
        layout = self._order + ("QQ" if self.bits == 64 else "II")
        size = min(place.file_size, _DYNAMIC_LIMIT) // struct.calcsize(layout) * struct.calcsize(layout)
        for tag, value in struct.iter_unpack(layout, self._at(self._offset(place.address), size)):
            if tag == _DT_NULL:
                break
            if tag == _DT_NEEDED:
                needed.append(value)
            tags[tag] = value
        return tags, needed

    def object(self) -> ElfObject:
        tags = self._dynamic
        flags = tags.get(_DT_FLAGS_1, 0)
        runpath = self._tagged(_DT_RUNPATH)
        interpreter = next((s for s in self._segments if s.kind == _PT_INTERP), None)
        return ElfObject(
            bits=self.bits,
            machine=self.machine,
            soname=self._tagged(_DT_SONAME),
            needed=tuple(self._string(value) for value in self._needed),
            rpath=self._tagged(_DT_RPATH),
            runpath=runpath,
            empty_runpath=_DT_RUNPATH in tags and not runpath,
            nodeflib=bool(flags & _DF_1_NODEFLIB),
            interpreter=self._string_at(interpreter.offset) if interpreter else "",
            program=self._type == _ET_EXEC or bool(flags & _DF_1_PIE),
        )

    def symbol_versions(self) -> SymbolVersions:
        """DT_VERNEED and DT_VERDEF: linked lists, the same in both classes (the gABI's Symbol Versioning)."""
        needed = {
            self._string(library): tuple(
                self._string(name)
                for _, (_, flags, _, name, _) in self._linked(at + first, "IHHII", count)
                if not flags & _VER_FLG_WEAK
            )
            for at, (_, count, library, first, _) in self._table(_DT_VERNEED, _DT_VERNEEDNUM, "HHIII")
        }
        defined = tuple(
            self._string(self._fields(at + first, "I")[0])
            for at, (_, flags, _, _, _, first, _) in self._table(_DT_VERDEF, _DT_VERDEFNUM, "HHHHIII")
            if not flags & _VER_FLG_BASE
        )
        return SymbolVersions(needed=needed, defined=defined)

    def _table(self, tag: int, count_tag: int, layout: str) -> Iterator[tuple[int, tuple[int, ...]]]:
        if tag in self._dynamic:
            yield from self._linked(self._offset(self._dynamic[tag]), layout, self._dynamic.get(count_tag, 0))

    def _linked(self, at: int, layout: str, count: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Records whose last field is the distance to the next, 0 at the end; each with its offset."""
        for _ in range(count):
            fields = self._fields(at, layout)
            yield at, fields
            if not fields[-1]:
                return
            at += fields[-1]

    def _fields(self, offset: int, layout: str) -> tuple[int, ...]:
        layout = self._order + layout
        return struct.unpack(layout, self._at(offset, struct.calcsize(layout)))

    def _tagged(self, tag: int) -> str:
        return self._string(self._dynamic[tag]) if tag in self._dynamic else ""

    def _string(self, index: int) -> str:
        if _DT_STRTAB not in self._dynamic:
            raise self._error("corrupt dynamic section: no string table")
        return self._string_at(self._offset(self._dynamic[_DT_STRTAB]) + index)

    def _string_at(self, offset: int) -> str:
        text = b""
        while b"\0" not in text:
            start = offset + len(text)
            text += self._at(start, min(max(256, len(text)), max(self._size - start, 1)))
            if len(text) > _STRING_LIMIT:
                raise self._error("corrupt dynamic section: a string without end")
        return os.fsdecode(text[: text.index(b"\0")])

    def _offset(self, address: int) -> int:
        """Where an address of the loaded object lies in the file."""
        for load in self._loads:
            if load.address <= address < load.address + load.file_size:
                return address - load.address + load.offset
        raise self._error("corrupt dynamic section: an address outside of the segments")

    def _at(self, offset: int, size: int) -> bytes:
        if offset + size > self._size:
            raise self._error("cannot read file data")
        self._file.seek(offset)
        return self._file.read(size)
