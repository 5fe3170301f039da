"""Exports: which can be made, and the edits that keep one where a shell or a service reads it.

A variable that has a block of envdoctor's in a file already keeps what stands there: the new values go in
front of them. The functions raise ValueError where a block was edited by somebody else, or where the file
cannot hold the values.
"""

from __future__ import annotations

import posixpath
import re
from functools import partial
from typing import TYPE_CHECKING

from envdoctor.fixes import blocks, shells
from envdoctor.fixes.env_files import dotenv_line, with_export
from envdoctor.fixes.joining import SEPARATORS, extended, merged
from envdoctor.fixes.plan import FileEdit, Join, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Body = Callable[[str, tuple[str, ...], Join], str]

__all__ = [
    "conda_directories",
    "conda_edits",
    "extended",
    "file_edits",
    "shell_line",
    "unexportable",
    "venv_edits",
]

VENV_FILES: Mapping[str, Body] = {
    "bin/activate": partial(shells.venv_activate, "sh"),
    "bin/activate.fish": partial(shells.venv_activate, "fish"),
    "bin/activate.csh": partial(shells.venv_activate, "csh"),
}
CONDA_FILES: Mapping[str, Body] = {
    "etc/conda/activate.d/envdoctor.sh": partial(shells.conda_activate, "sh"),
    "etc/conda/activate.d/envdoctor.fish": partial(shells.conda_activate, "fish"),
    "etc/conda/activate.d/envdoctor.csh": partial(shells.conda_activate, "csh"),
    "etc/conda/deactivate.d/envdoctor.sh": partial(shells.conda_deactivate, "sh"),
    "etc/conda/deactivate.d/envdoctor.fish": partial(shells.conda_deactivate, "fish"),
    "etc/conda/deactivate.d/envdoctor.csh": partial(shells.conda_deactivate, "csh"),
}
CONDA_DIRECTORIES = ("etc", "etc/conda", "etc/conda/activate.d", "etc/conda/deactivate.d")
_SHELLS = {"sh": "sh", "bash": "sh", "zsh": "sh", "fish": "fish", "csh": "csh"}


def unexportable(variable: str, values: tuple[str, ...], join: Join = Join.PATH) -> str:
    """Why these values cannot be exported in this variable; "" where they can."""
    name = r"[A-Z_]*PATH" if join is Join.PATH else r"[A-Z][A-Z0-9_]*"
    if not re.fullmatch(name, variable):
        return f"{variable!r} is not the name of a {'search path' if join is Join.PATH else 'variable'}"
    if not values or (join is Join.DEFAULT and len(values) != 1):
        return f"{len(values)} values for {variable}"
    return next(filter(None, (_unfit(variable, value, join) for value in values)), "")


def _unfit(variable: str, value: str, join: Join) -> str:
    """Why the value cannot be one entry, one word or the whole.

    The loader splits LD_LIBRARY_PATH at `:` and `;` and expands its tokens there (ld.so(8)); nothing
    escapes them. XLA splits its flags at white space and reads quotes (xla/parse_flags_from_env.cc).
    """
    if blocks.MARK.search(f"\n{value}"):
        return f"{value!r} looks like envdoctor's own marks"
    if join is Join.WORDS:
        return "" if re.fullmatch(r"--[^\s\0'\"]+", value) else f"{value!r} would not be read as one flag"
    if join is Join.DEFAULT:
        return "" if value and not re.search(r"[\0-\x1f\x7f]", value) else f"{value!r} is no plain value"
    if not value.startswith("/"):
        return f"{value!r} is not an absolute path"
    if "\0" in value or ":" in value:
        return f"{value!r} has a character that no search path can hold"
    if variable == "LD_LIBRARY_PATH" and re.search(r";|\$\{?(ORIGIN|LIB|PLATFORM)", value):
        return f"{value!r} would be read by the loader as something else"
    return ""


def venv_edits(
    prefix: str, variable: str, values: tuple[str, ...], join: Join, found: Mapping[str, bytes]
) -> tuple[FileEdit, ...]:
    """The edits of those activation scripts that `found` has (path → contents)."""
    paths = {posixpath.join(prefix, name): body for name, body in VENV_FILES.items()}
    return _edits(
        {path: body for path, body in paths.items() if path in found}, variable, values, join, found
    )


def conda_edits(
    prefix: str, variable: str, values: tuple[str, ...], join: Join, found: Mapping[str, bytes]
) -> tuple[FileEdit, ...]:
    """For the two directories that conda sources; `found` has the files already there."""
    paths = {posixpath.join(prefix, name): body for name, body in CONDA_FILES.items()}
    return _edits(paths, variable, values, join, found)


def conda_directories(prefix: str) -> tuple[str, ...]:
    return tuple(posixpath.join(prefix, name) for name in CONDA_DIRECTORIES)


def file_edits(
    path: str, variable: str, values: tuple[str, ...], join: Join, found: Mapping[str, bytes]
) -> tuple[FileEdit, ...]:
    """For the file that the user names: a block of shell in an `.envrc`, else a NAME=value line."""

    def edited(_path: str, text: str, every: tuple[str, ...]) -> str:
        return with_export(path, text, variable, every, join)

    return _edited([path], edited, variable, values, join, found)


def shell_line(variable: str, values: tuple[str, ...], join: Join, shell: str = "sh") -> str:
    """One line that sh, bash, zsh, fish or csh evaluates, or that a dotenv file holds.

    It adds nothing where its values stand in front already; a dotenv line holds them alone. ValueError
    where that shell, or such a file, cannot hold them.
    """
    if shell == "dotenv":
        return dotenv_line(variable, SEPARATORS[join].join(values))
    return shells.line(variable, values, join, _SHELLS[shell])


def _edits(
    files: Mapping[str, Body],
    variable: str,
    values: tuple[str, ...],
    join: Join,
    found: Mapping[str, bytes],
) -> tuple[FileEdit, ...]:
    def edited(path: str, text: str, every: tuple[str, ...]) -> str:
        marked = blocks.block(variable, every, files[path](variable, every, join))
        return blocks.insert(text, variable, marked)

    return _edited(files, edited, variable, values, join, found)


def _edited(
    paths: Iterable[str],
    edited: Callable[[str, str, tuple[str, ...]], str],
    variable: str,
    values: tuple[str, ...],
    join: Join,
    found: Mapping[str, bytes],
) -> tuple[FileEdit, ...]:
    problem = unexportable(variable, values, join)
    if problem:
        raise ValueError(problem)
    edits: list[FileEdit] = []
    for path in paths:
        before = found.get(path)
        text = decode(before or b"")
        try:
            after = encode(edited(path, text, merged(values, blocks.values_in(text, variable), join)))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if after != (before or b""):
            edits.append(FileEdit(path=path, before=before, after=after))
    return tuple(edits)
