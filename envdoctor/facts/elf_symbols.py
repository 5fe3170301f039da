"""The dynamic symbols of ELF files, as the dynamic loader sees them, and the strings of their read-only data.

Reads files and executes nothing. Every function raises ElfError where the loader would refuse the file or
a table in it is corrupt, and OSError where it cannot be read.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Container, Iterable, Iterator
from typing import NamedTuple

from envdoctor.facts.elf import Headers, open_regular

_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ = 4, 5, 6, 10
_DT_GNU_HASH, _DT_VERSYM, _DT_VERNEED, _DT_VERNEEDNUM = 0x6FFFFEF5, 0x6FFFFFF0, 0x6FFFFFFE, 0x6FFFFFFF
_DT_RELA, _DT_RELASZ, _DT_REL, _DT_RELSZ = 7, 8, 17, 18
_DT_PLTREL, _DT_JMPREL, _DT_PLTRELSZ = 20, 23, 2
_SHT_PROGBITS, _SHT_DYNSYM = 1, 11
_SHN_UNDEF, _SHN_ABS = 0, 0xFFF1
_STB_GLOBAL, _STT_TLS = 1, 6
# What a look-up accepts (glibc's elf/dl-lookup.c, `check_match` and `do_lookup_x`).
_BINDINGS = frozenset({_STB_GLOBAL, 2, 10})  # STB_WEAK, STB_GNU_UNIQUE
_TYPES = frozenset({0, 1, 2, 5, _STT_TLS, 10})  # NOTYPE, OBJECT, FUNC, COMMON, GNU_IFUNC
_LOCAL = frozenset({1, 2})  # STV_INTERNAL, STV_HIDDEN


def exported_symbols(path: str) -> frozenset[str]:
    """The names under which a look-up finds something in this object, of whatever version."""
    with open_regular(path) as file:
        return frozenset(_Symbols(file).exported())


def undefined_symbols(path: str) -> dict[str, str]:
    """What the object must get from others: by name, the library of its version; "" for an unversioned one.

    Weak ones are left out: the loader does without them.
    """
    with open_regular(path) as file:
        return _Symbols(file).undefined()


def called_symbols(path: str, names: Container[str], patterns: Iterable[re.Pattern[bytes]]) -> frozenset[str]:
    """Of `names`, which all match a pattern, those that the object's code gets by the loader's look-up.

    They are undefined in it, or it exports them and its own calls go through the PLT or the GOT all the
    same, as those to the stubs in TensorFlow's libtensorflow_framework.so.2 do.
    """
    with open_regular(path) as file:
        return frozenset(_Symbols(file).called(names, patterns))


def read_only_strings(path: str, patterns: Iterable[re.Pattern[bytes]]) -> frozenset[str]:
    """The strings in .rodata that match a pattern from end to end.

    A pattern that begins with plain text is found at memory speed: 0.04 s in the 87 MB of TensorFlow 2.21's
    libtensorflow_cc.so.2, where one with an alternative or a look-behind in front takes 1 to 3 s.
    """
    found = set()
    with open_regular(path) as file:
        places = list(_Symbols(file).read_only_data())
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for pattern in patterns:
                for start, end in places:
                    found |= {
                        match[0].decode("ascii", "replace")
                        for match in pattern.finditer(data, start, end)
                        if data[match.end() : match.end() + 1] == b"\0"
                        and (match.start() == start or data[match.start() - 1] == 0)
                    }
    return frozenset(found)


class _Symbol(NamedTuple):
    place: int  # in the symbol table
    name: int  # where it begins in the string table
    defined: bool
    binding: int
    visible: bool  # a look-up finds it, if it is defined


class _Section(NamedTuple):
    name: bytes
    kind: int
    offset: int
    size: int


class _Symbols(Headers):
    def exported(self) -> Iterator[str]:
        strings = self._strings()
        return (self._name(strings, s.name) for s in self._symbols() if s.defined and s.visible)

    def undefined(self) -> dict[str, str]:
        strings, files = self._strings(), self._version_files()
        versions = self._tagged_data(_DT_VERSYM, 2 * self._symbol_count()) if files else b""
        found = {}
        for symbol in self._symbols():
            if not symbol.defined and symbol.binding == _STB_GLOBAL and symbol.place:
                number = struct.unpack_from(f"{self._order}H", versions, 2 * symbol.place)[0] if files else 0
                found[self._name(strings, symbol.name)] = files.get(number & 0x7FFF, "")
        return found

    def called(self, names: Container[str], patterns: Iterable[re.Pattern[bytes]]) -> Iterator[str]:
        strings = self._strings()
        places = {m.start(): os.fsdecode(m[0]) for p in patterns for m in p.finditer(strings)}
        wanted = {at: name for at, name in places.items() if name in names}
        rows = struct.iter_unpack(
            self._order + ("I2xH16x" if self.bits == 64 else "I10xH"), self._table_data()
        )
        found = [(index, *row) for index, row in enumerate(rows) if row[0] in wanted]
        relocated = self._relocated() if any(section for _, _, section in found) else frozenset()
        return (wanted[at] for index, at, section in found if section == _SHN_UNDEF or index in relocated)

    def read_only_data(self) -> Iterator[tuple[int, int]]:
        """Where .rodata and its like begin and end in the file."""
        for section in self._sections():
            if section.kind == _SHT_PROGBITS and section.name.startswith(b".rodata"):
                if section.offset + section.size > self._size:
                    raise self._error("cannot read file data")
                yield section.offset, section.offset + section.size

    def _symbols(self) -> Iterator[_Symbol]:
        layout = self._order + ("IBBHQQ" if self.bits == 64 else "IIIBBH")
        for index, fields in enumerate(struct.iter_unpack(layout, self._table_data())):
            if self.bits == 64:
                name, info, other, section, value, _ = fields
            else:
                name, value, _, info, other, section = fields
            binding, kind = info >> 4, info & 15
            somewhere = value or kind == _STT_TLS or section == _SHN_ABS
            visible = binding in _BINDINGS and kind in _TYPES and other & 3 not in _LOCAL and bool(somewhere)
            yield _Symbol(index, name, section != _SHN_UNDEF, binding, visible)

    def _table_data(self) -> bytes:
        return self._tagged_data(_DT_SYMTAB, self._symbol_count() * self._symbol_size)

    @property
    def _symbol_size(self) -> int:
        return 24 if self.bits == 64 else 16

    def _symbol_count(self) -> int:
        """As the hash table tells: nothing else that is loaded does. An empty one: by the section headers."""
        if _DT_GNU_HASH in self._dynamic:
            at = self._offset(self._dynamic[_DT_GNU_HASH])
            buckets, first, bloom, _ = self._fields(at, "IIII")
            at += 16 + bloom * self.bits // 8
            last = max(struct.unpack(f"{self._order}{buckets}I", self._at(at, 4 * buckets)), default=0)
            if last >= max(first, 1):
                chain = at + 4 * (buckets - first)
                while not self._fields(chain + 4 * last, "I")[0] & 1:
                    last += 1
                return last + 1
        elif _DT_HASH in self._dynamic:
            return self._fields(self._offset(self._dynamic[_DT_HASH]), "II")[1]
        tables = (section.size for section in self._sections() if section.kind == _SHT_DYNSYM)
        return sum(tables) // self._symbol_size

    def _strings(self) -> bytes:
        return self._tagged_data(_DT_STRTAB, self._dynamic.get(_DT_STRSZ, 0))

    def _name(self, strings: bytes, at: int) -> str:
        end = strings.find(b"\0", at)
        if end < 0:
            raise self._error("corrupt dynamic section: a symbol's name outside of the string table")
        return os.fsdecode(strings[at:end])

    def _version_files(self) -> dict[int, str]:
        """The library that a version belongs to, by the number that stands for the version in DT_VERSYM."""
        if _DT_VERSYM not in self._dynamic:
            return {}
        return {
            number & 0x7FFF: self._string(library)
            for at, (_, count, library, first, _) in self._table(_DT_VERNEED, _DT_VERNEEDNUM, "HHIII")
            for _, (_, _, number, _, _) in self._linked(at + first, "IHHII", count)
        }

    def _relocated(self) -> frozenset[int]:
        """The symbols that relocations name, by their index."""
        tags, word = self._dynamic, "Q" if self.bits == 64 else "I"
        found: set[int] = set()
        for place, size, kind in (
            (_DT_RELA, _DT_RELASZ, _DT_RELA),
            (_DT_REL, _DT_RELSZ, _DT_REL),
            (_DT_JMPREL, _DT_PLTRELSZ, tags.get(_DT_PLTREL, 0)),
        ):
            layout = self._order + word * (3 if kind == _DT_RELA else 2)
            length = tags.get(size, 0) // struct.calcsize(layout) * struct.calcsize(layout)
            shift = 32 if self.bits == 64 else 8
            entries = struct.iter_unpack(layout, self._tagged_data(place, length))
            found.update({entry[1] >> shift for entry in entries})
        return frozenset(found)

    def _tagged_data(self, tag: int, size: int) -> bytes:
        return self._at(self._offset(self._dynamic[tag]), size) if tag in self._dynamic and size else b""

    def _sections(self) -> list[_Section]:
        wide = self.bits == 64
        (table,) = self._fields(40 if wide else 32, "Q" if wide else "I")
        size, count, names = self._fields(58 if wide else 46, "HHH")
        layout = self._order + ("IIQQQQIIQQ" if wide else "IIIIIIIIII")
        if not table or size != struct.calcsize(layout) or names >= count:
            raise self._error("it has no section headers")
        rows = list(struct.iter_unpack(layout, self._at(table, count * size)))
        strings = self._at(rows[names][4], rows[names][5])
        return [_Section(strings[r[0] :].partition(b"\0")[0], r[1], r[4], r[5]) for r in rows]
