"""ELF libraries and ld.so.caches written by hand: what glibc loads, made in microseconds."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from functools import cmp_to_key

EM_386, EM_X86_64, EM_S390, EM_AARCH64 = 3, 62, 22, 183
ET_REL, ET_EXEC, ET_DYN = 1, 2, 3
DF_1_NODEFLIB, DF_1_PIE = 0x800, 0x8000000
CALLER_SYMBOL = "open_from_here"
# void *open_from_here(void *(*dlopen)(const char *, int), const char *name, int flags): glibc tells who
# called dlopen by the return address, so that the call must stand in the library itself (x86-64).
_CALLER_CODE = bytes.fromhex("4883ec08 4889f8 4889f7 89d6 ffd0 4883c408 c3")
_TAGS = {"soname": 14, "rpath": 15, "runpath": 29}


def library(
    *,
    soname: str = "",
    needed: Sequence[str] = (),
    rpath: str | None = None,
    runpath: str | None = None,
    flags_1: int = 0,
    bits: int = 64,
    machine: int = EM_X86_64,
    big: bool = False,
    kind: int = ET_DYN,
    os_abi: int = 0,
    dynamic: bool = True,
) -> bytes:
    """A shared object of one segment that exports `open_from_here`."""
    order = ">" if big else "<"
    word = "Q" if bits == 64 else "I"
    strings = bytearray(b"\0")

    def string(text: str) -> int:
        offset = len(strings)
        strings.extend(text.encode() + b"\0")
        return offset

    entries = [(1, string(name)) for name in needed]
    for name, value in (("soname", soname or None), ("rpath", rpath), ("runpath", runpath)):
        if value is not None:
            entries.append((_TAGS[name], string(value)))
    if flags_1:
        entries.append((0x6FFFFFFB, flags_1))
    symbol_name = string(CALLER_SYMBOL)

    headers = 64 + 2 * 56 if bits == 64 else 52 + 2 * 32
    code_at = (headers + 15) & ~15
    hash_at = (code_at + len(_CALLER_CODE) + 7) & ~7
    hash_table = struct.pack(order + "6I", 1, 2, 1, 0, 0, 0)
    symbols_at = hash_at + len(hash_table)
    if bits == 64:
        symbol = struct.pack(order + "IBBHQQ", symbol_name, 0x12, 0, 1, code_at, len(_CALLER_CODE))
    else:
        symbol = struct.pack(order + "IIIBBH", symbol_name, code_at, len(_CALLER_CODE), 0x12, 0, 1)
    symbols = bytes(len(symbol)) + symbol
    strings_at = symbols_at + len(symbols)
    dynamic_at = (strings_at + len(strings) + 15) & ~15
    entries += [(4, hash_at), (5, strings_at), (6, symbols_at), (10, len(strings)), (11, len(symbol)), (0, 0)]
    table = b"".join(struct.pack(order + 2 * word, *entry) for entry in entries)
    size = dynamic_at + len(table)

    ident = b"\x7fELF" + bytes([bits // 32, 2 if big else 1, 1, os_abi, 0]) + bytes(7)
    header = struct.pack(
        order + f"HHI{3 * word}I6H",
        *(kind, machine, 1, 0, 64 if bits == 64 else 52, 0, 0),
        *((64, 56) if bits == 64 else (52, 32)),
        *(2 if dynamic else 1, 0, 0, 0),
    )
    segments = [(1, 7, 0, size), (2, 6, dynamic_at, len(table))]
    if bits == 64:
        table_of = [struct.pack(order + "IIQQQQQQ", t, f, a, a, a, n, n, 4096) for t, f, a, n in segments]
    else:
        table_of = [struct.pack(order + "IIIIIIII", t, a, a, a, n, n, f, 4096) for t, f, a, n in segments]
    image = bytearray(size)
    for place, content in (
        (0, ident + header + b"".join(table_of)),
        (code_at, _CALLER_CODE),
        (hash_at, hash_table),
        (symbols_at, symbols),
        (strings_at, bytes(strings)),
        (dynamic_at, table),
    ):
        image[place : place + len(content)] = content
    return bytes(image)


def patched_program(
    image: bytes, *, rpath_placeholder: str, search: tuple[str, str] | None, needs: dict[str, str]
) -> bytes:
    """A linked program with its placeholders filled in: its search path and its DT_NEEDED.

    `search` is ("rpath" or "runpath", path); `needs` maps the placeholder SONAMEs to names, "" for none.
    """
    out = bytearray(image)
    (table,) = struct.unpack_from("<Q", out, 32)
    (count,) = struct.unpack_from("<H", out, 56)
    segments = [struct.unpack_from("<IIQQQQQQ", out, table + 56 * i) for i in range(count)]
    loads = [s for s in segments if s[0] == 1]
    table_at, table_size = next((s[2], s[5]) for s in segments if s[0] == 2)

    def offset(address: int) -> int:
        return next(int(address - s[3] + s[2]) for s in loads if s[3] <= address < s[3] + s[5])

    entries = []
    for at in range(table_at, table_at + table_size, 16):
        entries.append((at, *struct.unpack_from("<QQ", out, at)))
    strings_at = offset(next(value for _, tag, value in entries if tag == 5))
    for at, tag, value in entries:
        if tag not in (1, 15, 29):
            continue
        end = out.index(b"\0", strings_at + value)
        text = out[strings_at + value : end].decode()
        if tag == 1 and text not in needs:
            continue
        new = needs[text] if tag == 1 else search[1] if search else ""
        assert len(new) <= len(text), "the placeholder is too short"
        out[strings_at + value : end] = new.encode().ljust(len(text), b"\0")
        gone = not new if tag == 1 else search is None
        new_tag = tag if tag == 1 else _TAGS[search[0]] if search else tag
        struct.pack_into("<Q", out, at, 0x6000_0123 if gone else new_tag)  # a tag that nobody reads
    assert rpath_placeholder.encode() not in out
    return bytes(out)


def ld_so_cache(entries: Sequence[tuple[str, str, str]], *, flags: int = 0x0303) -> bytes:
    """A cache of (name, path, glibc-hwcaps subdirectory or ""), sorted as ldconfig sorts."""
    subdirectories = sorted({hwcap for _, _, hwcap in entries if hwcap})

    def compare(a: tuple[str, str, str], b: tuple[str, str, str]) -> int:
        return _compare_names(b[0], a[0]) or (a[2] == "") - (b[2] == "")

    ordered = sorted(entries, key=cmp_to_key(compare))
    strings_at = 48 + 24 * len(ordered)
    strings = bytearray()

    def string(text: str) -> int:
        place = strings_at + len(strings)
        strings.extend(text.encode() + b"\0")
        return place

    rows = b"".join(
        struct.pack(
            "<iIIIQ",
            *(flags, string(name), string(path), 0),
            (1 << 62) | subdirectories.index(hwcap) if hwcap else 0,
        )
        for name, path, hwcap in ordered
    )
    places = [string(name) for name in subdirectories]
    strings.extend(bytes(-len(strings) % 4))
    extension = strings_at + len(strings)
    header = b"glibc-ld.so.cache1.1" + struct.pack("<IIB3xI12x", len(ordered), len(strings), 2, extension)
    section = struct.pack("<6I", 0xEAA42174, 1, 1, 0, extension + 24, 4 * len(places))
    if not places:
        section = struct.pack("<2I", 0xEAA42174, 0)
    return header + rows + bytes(strings) + section + struct.pack(f"<{len(places)}I", *places)


def _compare_names(a: str, b: str) -> int:
    """`_dl_cache_libcmp`: numbers compare as numbers, and sort after everything else."""
    left, right = (re.findall(r"\d+|\D", text) for text in (a, b))
    for x, y in zip(left, right, strict=False):
        if x.isdigit() != y.isdigit():
            return 1 if x.isdigit() else -1
        if x != y and x.isdigit() and int(x) != int(y):
            return int(x) - int(y)
        if x != y and not x.isdigit():
            return ord(x) - ord(y)
    return len(left) - len(right)
