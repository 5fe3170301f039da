"""/etc/ld.so.cache, the list of libraries that ldconfig leaves for the dynamic loader.

The formats are those of glibc's sysdeps/generic/dl-cache.h: the new one ("glibc-ld.so.cache1.1"), alone
or after the old one ("ld.so-1.7.0"), as ldconfig before glibc 2.32 wrote it.
"""

from __future__ import annotations

import os
import struct

from envdoctor.facts.loader_model import CacheEntry

_OLD_MAGIC, _NEW_MAGIC = b"ld.so-1.7.0", b"glibc-ld.so.cache1.1"
_OLD_HEADER, _OLD_ENTRY = 16, 12
_NEW_HEADER = 48
_EXTENSION_MAGIC = 0xEAA42174  # (uint32_t) -358342284
_TAG_GLIBC_HWCAPS = 1
# DL_CACHE_HWCAP_EXTENSION above the index of a subdirectory; the ten lowest bits of the upper half are an
# ISA level, which repeats what the name of the subdirectory says.
_HWCAP_IS_NAMED, _ISA_LEVEL_MASK = 1 << 30, (1 << 10) - 1
# FLAG_REQUIRED_MASK of sysdeps/generic/ldconfig.h. Zero is the machine without a flag of its own: i386 in
# the cache of an x86 system.
_MACHINES = {
    0x0000: "i386",
    0x0300: "x86_64",
    0x0400: "s390x",
    0x0500: "ppc64",
    0x0800: "x32",
    0x0900: "arm",
    0x0A00: "aarch64",
    0x0B00: "arm",
    0x0F00: "riscv64",
    0x1000: "riscv64",
    0x1100: "loongarch64",
    0x1200: "loongarch64",
}


class LdCacheError(Exception):
    """Not an ld.so.cache, or one that is cut short or damaged."""


def parse_ld_so_cache(data: bytes) -> tuple[CacheEntry, ...]:
    """The entries in the cache's own order: that in which the loader prefers them.

    An entry from a legacy hwcaps directory (a bit mask, ignored since glibc 2.37) gets the mask in
    hexadecimal as its `hwcap`, which no process has among its subdirectories.
    """
    try:
        return _parse(data)
    except struct.error:
        raise LdCacheError("it is cut short") from None


def _parse(data: bytes) -> tuple[CacheEntry, ...]:
    base = _new_format(data)
    flags = data[base + 28] & 3 if len(data) > base + 28 else 0
    order = ">" if flags == 3 or (not flags and _looks_big_endian(data, base)) else "<"
    count, _, _, extension = struct.unpack_from(order + "IIII", data, base + 20)
    end = base + _NEW_HEADER + count * 24
    if end > len(data):
        raise LdCacheError(f"it is cut short: {count} entries do not fit in {len(data)} bytes")
    subdirectories = _subdirectories(data, base, order, extension)
    little = order == "<"
    entries = []
    for kind, key, value, _, hwcap in struct.iter_unpack(order + "iIIIQ", data[base + _NEW_HEADER : end]):
        machine = _MACHINES.get(kind & 0xFF00, f"flags_{kind & 0xFF00:#06x}")
        entries.append(
            CacheEntry(
                name=_string(data, base + key),
                path=_string(data, base + value),
                machine="ppc64le" if machine == "ppc64" and little else machine,
                hwcap=_hwcap(hwcap, subdirectories) if hwcap else "",
            )
        )
    return tuple(entries)


def _new_format(data: bytes) -> int:
    """Where the new format begins: at the start, or after the old table, aligned to 8 bytes."""
    if data.startswith(_NEW_MAGIC):
        return 0
    if not data.startswith(_OLD_MAGIC):
        raise LdCacheError("it is no ld.so.cache: it does not begin as one")
    for order in "<>":
        (count,) = struct.unpack_from(order + "I", data, 12)
        base = (_OLD_HEADER + count * _OLD_ENTRY + 7) & ~7
        if data.startswith(_NEW_MAGIC, base):
            return int(base)
    raise LdCacheError("it has no table in the format of glibc 2.2 and later, or is cut short before it")


def _looks_big_endian(data: bytes, base: int) -> bool:
    """A cache from before glibc 2.33 does not say; a count that fits the file in one order only does."""
    (count,) = struct.unpack_from("<I", data, base + 20)
    return bool(base + _NEW_HEADER + count * 24 > len(data))


def _subdirectories(data: bytes, base: int, order: str, extension: int) -> tuple[str, ...]:
    """The names of the glibc-hwcaps subdirectories that entries point to."""
    if not extension:
        return ()
    magic, count = struct.unpack_from(order + "II", data, extension)
    if magic != _EXTENSION_MAGIC:
        raise LdCacheError("its extension directory is damaged")
    for index in range(count):
        tag, _, offset, size = struct.unpack_from(order + "IIII", data, extension + 8 + 16 * index)
        if tag == _TAG_GLIBC_HWCAPS:
            places = struct.unpack_from(f"{order}{size // 4}I", data, offset)
            return tuple(_string(data, base + place) for place in places)
    return ()


def _hwcap(bits: int, subdirectories: tuple[str, ...]) -> str:
    if (bits >> 32) & ~_ISA_LEVEL_MASK != _HWCAP_IS_NAMED:
        return f"{bits:#x}"
    index = bits & 0xFFFFFFFF
    if index >= len(subdirectories):
        raise LdCacheError("an entry names a glibc-hwcaps subdirectory that is not there")
    return subdirectories[index]


def _string(data: bytes, offset: int) -> str:
    end = data.find(b"\0", offset)
    if offset >= len(data) or end < 0:
        raise LdCacheError("it is cut short: a name is missing")
    return os.fsdecode(data[offset:end])
