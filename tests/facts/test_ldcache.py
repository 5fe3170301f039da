from __future__ import annotations

import contextlib
import os
import re
import shutil
import struct
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envdoctor.facts.ldcache import LdCacheError, parse_ld_so_cache
from tests.facts.elf_factory import ld_so_cache, library

LDCONFIG = shutil.which("ldconfig") or shutil.which("ldconfig", path="/sbin:/usr/sbin") or ""
needs_ldconfig = pytest.mark.skipif(not LDCONFIG, reason="there is no ldconfig")
MACHINES = {"x86-64": "x86_64", "": "i386", "AArch64": "aarch64", "x32": "x32"}


def shown(cache: str) -> list[tuple[str, str, str, str]]:
    """(name, path, machine, hwcap) of `ldconfig -p`."""
    out = subprocess.run([LDCONFIG, "-p", "-C", cache], capture_output=True, text=True, check=True).stdout
    found = []
    for line in out.splitlines():
        if match := re.match(r'\t(.*) \(libc6(?:,([\w-]+))?(?:, hwcap: "([^"]*)")?\) => (.*)', line):
            found.append((match[1], match[4], MACHINES[match[2] or ""], match[3] or ""))
    return found


def parsed(data: bytes) -> list[tuple[str, str, str, str]]:
    return [(entry.name, entry.path, entry.machine, entry.hwcap) for entry in parse_ld_so_cache(data)]


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def made_by_ldconfig(top: str, *options: str) -> str:
    """A cache of a directory with two libraries, one of them also in a glibc-hwcaps subdirectory."""
    for place in ("lib", "lib/glibc-hwcaps/x86-64-v2", "lib/glibc-hwcaps/x86-64-v3"):
        os.makedirs(os.path.join(top, place), exist_ok=True)
        with open(os.path.join(top, place, "liba.so.1"), "wb") as file:
            file.write(library(soname="liba.so.1", needed=["libc.so.6"]))
    with open(os.path.join(top, "lib/libb.so.2"), "wb") as file:
        file.write(library(soname="libb.so.2", needed=["libc.so.6"]))
    with open(os.path.join(top, "conf"), "w") as file:
        file.write(f"{top}/lib\n")
    cache = os.path.join(top, "cache")
    command = [LDCONFIG, "-X", *options, "-C", cache, "-f", os.path.join(top, "conf")]
    subprocess.run(command, check=True, capture_output=True)
    return cache


@needs_ldconfig
@pytest.mark.skipif(not os.path.exists("/etc/ld.so.cache"), reason="there is no ld.so.cache")
def test_the_cache_of_this_machine_reads_as_ldconfig_shows_it() -> None:
    entries = parsed(read("/etc/ld.so.cache"))
    assert entries == shown("/etc/ld.so.cache")
    assert entries


@needs_ldconfig
def test_a_glibc_hwcaps_subdirectory_is_named(tmp_path: os.PathLike[str]) -> None:
    cache = made_by_ldconfig(os.fspath(tmp_path))
    assert parsed(read(cache)) == shown(cache)
    found = [(path, hwcap) for name, path, _, hwcap in parsed(read(cache)) if name == "liba.so.1"]
    assert {hwcap for _, hwcap in found} == {"", "x86-64-v2", "x86-64-v3"}
    assert found[-1][1] == ""


@needs_ldconfig
def test_the_new_format_is_found_behind_the_old_one(tmp_path: os.PathLike[str]) -> None:
    cache = made_by_ldconfig(os.fspath(tmp_path), "-c", "compat")
    assert read(cache).startswith(b"ld.so-1.7.0")
    # `ldconfig -p` looks for the names of subdirectories from the wrong place here; the loader does not.
    assert [entry[:3] for entry in parsed(read(cache))] == [entry[:3] for entry in shown(cache)]
    assert {entry[3] for entry in parsed(read(cache))} == {"", "x86-64-v2", "x86-64-v3"}


@needs_ldconfig
def test_the_factory_writes_what_ldconfig_reads(tmp_path: os.PathLike[str]) -> None:
    cache = os.path.join(tmp_path, "cache")
    entries = [
        ("liba.so.1", "/x/liba.so.1", ""),
        ("liba.so.10", "/x/l", ""),
        ("liba.so.1", "/y", "x86-64-v3"),
    ]
    with open(cache, "wb") as file:
        file.write(ld_so_cache(entries))
    assert parsed(read(cache)) == shown(cache)


_CACHE = ld_so_cache(
    [(f"lib{i}.so.{i}", f"/usr/lib/lib{i}.so.{i}.0", "x86-64-v3" * (i % 2)) for i in range(20)]
)


@pytest.mark.parametrize("length", [*range(0, len(_CACHE), 7), len(_CACHE) - 1])
def test_a_cache_that_is_cut_short_is_an_error(length: int) -> None:
    with pytest.raises(LdCacheError):
        parse_ld_so_cache(_CACHE[:length])


@needs_ldconfig
def test_a_real_cache_cut_anywhere_is_an_error_or_a_part_of_it(tmp_path: os.PathLike[str]) -> None:
    for options in ((), ("-c", "compat")):
        data = read(made_by_ldconfig(os.fspath(tmp_path), *options))
        whole = parse_ld_so_cache(data)
        for length in range(0, len(data), max(1, len(data) // 500)):
            with contextlib.suppress(LdCacheError):
                assert parse_ld_so_cache(data[:length]) == whole


@settings(max_examples=500, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, len(_CACHE) - 1), st.integers(0, 255)), max_size=10))
def test_a_damaged_cache_is_read_or_is_an_error(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(_CACHE)
    for place, value in changes:
        damaged[place] = value
    with contextlib.suppress(LdCacheError):
        parse_ld_so_cache(bytes(damaged))


@given(data=st.binary())
def test_garbage_is_an_error(data: bytes) -> None:
    with pytest.raises(LdCacheError):
        parse_ld_so_cache(data)


def test_legacy_hwcap_bits_are_kept_as_a_number_that_no_process_has() -> None:
    data = bytearray(ld_so_cache([("liba.so.1", "/x/haswell/liba.so.1", "")]))
    struct.pack_into("<Q", data, 48 + 16, 0x4_0000_0000_0000)
    (entry,) = parse_ld_so_cache(bytes(data))
    assert entry.hwcap == "0x4000000000000"


@pytest.mark.parametrize(
    ("flags", "machine"),
    [
        (0x303, "x86_64"),
        (0x803, "x32"),
        (3, "i386"),
        (0xA03, "aarch64"),
        (0x503, "ppc64le"),
        (0x6603, "flags_0x6600"),
    ],
)
def test_flags_tell_the_machine(flags: int, machine: str) -> None:
    (entry,) = parse_ld_so_cache(ld_so_cache([("liba.so.1", "/x", "")], flags=flags))
    assert entry.machine == machine
