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
FLAGS = ("-fPIC", "-O0", "-Wall", "-Werror", "-nostdlib", "-Wl,--no-as-needed")


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
    options = [f"-Wl,-soname,{soname}"]
    if runpath:
        tags = "--disable-new-dtags" if rpath else "--enable-new-dtags"
        options.append(f"-Wl,{tags},-rpath,{runpath}")
    texts = [s.read_text() for s in (*sources, HERE / "simulated.h")]
    return _compiled(path, repr((texts, header)), ["-shared", *options, *map(str, sources)], header, needed)


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
    text = source + "".join(f"int {name}(void) {{ return 0; }}\n" for name in symbols)
    return compile_library(
        path, [_source(text)], soname or path.name, needed=needed, runpath=runpath, rpath=rpath
    )


def stub_program(path: Path) -> Path:
    """An ELF program that can be started, and ends at once by a signal."""
    text = "void _start(void) { __builtin_trap(); }\n"
    return _compiled(path, text, ["-pie", str(_source(text))], "", ())


def _source(text: str) -> Path:
    file = _cache() / f"{_key(text)}.c"
    if not file.exists():
        _write(file, text.encode())
    return file


def _key(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:24]


def _compiled(path: Path, content: str, arguments: list[str], header: str, needed: Sequence[str]) -> Path:
    compiled = _cache() / _key(repr((content, arguments, needed, FLAGS)))
    if not compiled.exists():
        with tempfile.TemporaryDirectory() as directory:
            work = Path(directory)
            (work / "config.h").write_text(header)
            for name in needed:  # the linker wants to see what it links to
                _gcc("-shared", "-x", "c", "/dev/null", f"-Wl,-soname,{name}", "-o", str(work / name))
            links = [f"-L{work}", *(f"-l:{name}" for name in needed)]
            _gcc(f"-I{work}", *arguments, *links, "-o", str(work / "out"))
            _write(compiled, (work / "out").read_bytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    shutil.copy(compiled, path)
    return path


def _gcc(*arguments: str) -> None:
    subprocess.run(["gcc", *FLAGS, *arguments], check=True)


def _write(target: Path, content: bytes) -> None:
    """Beside it first, then renamed: sessions may share the cache."""
    handle, beside = tempfile.mkstemp(dir=target.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.chmod(beside, 0o755)  # as libraries are installed
    os.replace(beside, target)
