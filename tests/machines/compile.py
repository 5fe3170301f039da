"""Compile the small C libraries of simulated machines; what was compiled once is taken from a cache."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
# -nostdlib: no DT_NEEDED for libc, which is not below a machine's root; whoever loads them has it already.
FLAGS = ("-shared", "-fPIC", "-O0", "-Wall", "-Werror", "-nostdlib", "-Wl,--no-as-needed")


@functools.cache
def _cache() -> Path:
    """Of this user, for the life of /tmp: a test session that follows finds everything compiled."""
    directory = Path(tempfile.gettempdir()) / f"envdoctor-tests-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def compile_library(
    path: Path,
    sources: Sequence[Path],
    soname: str,
    *,
    header: str = "",
    needed: Sequence[str] = (),
    runpath: str = "",
    rpath: bool = False,
) -> Path:
    """Write the library compiled from `sources` to `path`; `header` becomes its config.h.

    `needed` are SONAMEs for DT_NEEDED, which need not exist; `rpath` writes DT_RPATH instead of RUNPATH.
    """
    texts = [*(s.read_text() for s in sources), (HERE / "simulated.h").read_text()]
    key = hashlib.sha256(repr((texts, soname, header, needed, runpath, rpath, FLAGS)).encode()).hexdigest()[
        :24
    ]
    compiled = _cache() / key
    if not compiled.exists():
        _compile(compiled, sources, soname, header, needed, runpath, rpath=rpath)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    shutil.copy(compiled, path)
    return path


def stub_library(
    path: Path,
    soname: str = "",
    *,
    needed: Sequence[str] = (),
    runpath: str = "",
    symbols: Sequence[str] = (),
    source: str = "",
    rpath: bool = False,
) -> Path:
    """A library with a SONAME (its file's name, unless given) and functions that return 0."""
    functions = source + "".join(f"int {name}(void) {{ return 0; }}\n" for name in symbols)
    key = hashlib.sha256(functions.encode()).hexdigest()[:24]
    file = _cache() / f"{key}.c"
    if not file.exists():
        _write(file, functions.encode())
    return compile_library(path, [file], soname or path.name, needed=needed, runpath=runpath, rpath=rpath)


def _compile(
    target: Path,
    sources: Sequence[Path],
    soname: str,
    header: str,
    needed: Sequence[str],
    runpath: str,
    *,
    rpath: bool,
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        (work / "config.h").write_text(header)
        for name in needed:  # the linker wants to see what it links to
            _gcc("-x", "c", "/dev/null", f"-Wl,-soname,{name}", "-o", str(work / name))
        link = [f"-L{work}", *(f"-l:{name}" for name in needed)]
        if runpath:
            tags = "--disable-new-dtags" if rpath else "--enable-new-dtags"
            link.append(f"-Wl,{tags},-rpath,{runpath}")
        output = work / "out"
        _gcc(f"-I{work}", *map(str, sources), f"-Wl,-soname,{soname}", *link, "-o", str(output))
        _write(target, output.read_bytes())


def _gcc(*arguments: str) -> None:
    subprocess.run(["gcc", *FLAGS, *arguments], check=True)


def _write(target: Path, content: bytes) -> None:
    """Beside it first, then renamed: sessions may share the cache."""
    handle, beside = tempfile.mkstemp(dir=target.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.replace(beside, target)
