"""Libraries with symbol versions: what a C library defines, and what a framework's files need of it."""

from __future__ import annotations

import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from elftools.elf.elffile import ELFFile

from tests.machines.compile import FLAGS


def c_library(path: Path, soname: str, versions: Sequence[str]) -> Path:
    """A shared library `soname` that defines one symbol of each version ("GLIBC_2.17")."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        source, script = Path(directory) / "source.c", Path(directory) / "script"
        source.write_text("".join(f"int {_symbol(v)}(void) {{ return 0; }}\n" for v in versions))
        script.write_text("".join(f"{v} {{ {_symbol(v)}; }};\n" for v in versions))
        _gcc("-shared", f"-Wl,-soname,{soname}", f"-Wl,--version-script={script}", source, "-o", path)
    return path


def user_library(
    path: Path, needs: Mapping[str, Sequence[str]], *, runpath: str = "", weak: bool = False
) -> Path:
    """A library that needs these versions of these libraries, as its compiler's system had them.

    `weak` marks every need as one of weak symbols alone, as some linkers do (VER_FLG_WEAK).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        symbols = [_symbol(v) for versions in needs.values() for v in versions]
        calls = " + ".join(f"{s}()" for s in symbols) or "0"
        text = "".join(f"extern int {s}(void);\n" for s in symbols)
        (work / "source.c").write_text(text + f"int use(void) {{ return {calls}; }}\n")
        linked = [c_library(work / soname, soname, versions) for soname, versions in needs.items()]
        tags = [f"-Wl,--enable-new-dtags,-rpath,{runpath}"] if runpath else []
        _gcc("-shared", f"-Wl,-soname,{path.name}", work / "source.c", *linked, *tags, "-o", path)
    if weak:
        _mark_weak(path)
    return path


def _mark_weak(path: Path) -> None:
    """Set VER_FLG_WEAK (2) in every Elf64_Vernaux."""
    with path.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".gnu.version_r")
        assert section
        need, content = section["sh_offset"], bytearray(path.read_bytes())
    while True:
        _, count, _, first, following = struct.unpack_from("<HHIII", content, need)
        record = need + first
        for _ in range(count):
            struct.pack_into("<H", content, record + 4, 2)
            record += struct.unpack_from("<I", content, record + 12)[0]
        if not following:
            break
        need += following
    path.write_bytes(content)


def _symbol(version: str) -> str:
    return "of_" + version.replace(".", "_")


def _gcc(*arguments: str | Path) -> None:
    subprocess.run(["gcc", *FLAGS, *map(str, arguments)], check=True)
