"""What a repair consists of: the actions, in order, each with its risk and its reason. Pure data.

A plan fixes the outcome, not the way to it: an edit carries the bytes that were read and the bytes that
will stand there. What was shown is then what is done, and the executor can tell a file that changed since.
"""

from __future__ import annotations

import difflib
import re
import sys
from enum import Enum
from typing import Any

import msgspec
from msgspec import Struct


class Risk(Enum):
    NONE = "none"
    LOW = "low"
    HIGH = "high"  # only with --allow-risky


class Destination(Enum):
    """Where an export is written, so that the target reads it."""

    VENV = "venv"  # a marked block in each of the venv's bin/activate, activate.fish, activate.csh
    CONDA = "conda"  # etc/conda/activate.d and deactivate.d
    FILE = "file"  # --to FILE: direnv's .envrc, else NAME=value lines for systemd and others
    PRINT = "print"  # nowhere: the user is told the line


class Join(Enum):
    """How an export's values meet what the variable holds already."""

    PATH = "path"  # in front of it, separated by ":"
    WORDS = "words"  # in front of it, separated by a space (XLA_FLAGS)
    DEFAULT = "default"  # one value, where the variable is unset or empty


class FileEdit(Struct, frozen=True, kw_only=True):
    path: str
    before: bytes | None  # None: there is no such file
    after: bytes


class _Action(Struct, frozen=True, kw_only=True):
    code: str  # of the condition that it repairs
    summary: str
    risk: Risk = Risk.NONE
    reason: str = ""


class Symlink(_Action, frozen=True, kw_only=True, tag="symlink", tag_field="kind"):
    """A new link; nothing may stand at `path`."""

    path: str
    target: str  # as written into the link, usually relative


class Export(_Action, frozen=True, kw_only=True, tag="export", tag_field="kind"):
    """`variable` gets `values`; `exports.py` makes the edits."""

    variable: str
    values: tuple[str, ...]
    join: Join = Join.PATH
    destination: Destination
    edits: tuple[FileEdit, ...] = ()
    directories: tuple[str, ...] = ()  # made first where they are absent, outermost first


class Kernelspec(_Action, frozen=True, kw_only=True, tag="kernelspec", tag_field="kind"):
    """A change of a Jupyter kernel's kernel.json: notebooks do not read the shell's start-up files."""

    kernel: str  # its name
    environment: dict[str, str]  # what its `env` will say of these variables
    edits: tuple[FileEdit, ...]


class Command(_Action, frozen=True, kw_only=True, tag="command", tag_field="kind"):
    """A command in the target's own tool, run only where the user says yes to it."""

    argv: tuple[str, ...]
    proven: bool = True  # False: only checking again afterwards tells whether it cured anything


class Manual(_Action, frozen=True, kw_only=True, tag="manual", tag_field="kind"):
    """A step for the user or the administrator: printed, never run."""

    command: str  # a command to be pasted, or a sentence where no command does it


Action = Symlink | Export | Kernelspec | Command | Manual
Edited = Export | Kernelspec
Automatic = Symlink | Export | Kernelspec  # made and undone by envdoctor itself, on one yes for all


class Plan(Struct, frozen=True):
    actions: tuple[Action, ...] = ()


def as_json(action: Action) -> dict[str, Any]:
    """The action for `--json`: edits by path only (their contents are in `render_diff`).

    Paths may hold surrogates (bytes that are not UTF-8); `json.dumps` writes those, msgspec does not.
    """
    shape: dict[str, Any] = msgspec.to_builtins(action)
    if isinstance(action, Edited):
        shape["edits"] = [{"path": edit.path, "new": edit.before is None} for edit in action.edits]
    return shape


def render_diff(action: Action) -> str:
    """What the action changes on disk: a unified diff for edits, `+ path -> target` for a link."""
    match action:
        case Symlink(path=path, target=target):
            return f"+ {path} -> {target}\n"
        case Kernelspec(edits=edits):
            return "".join(_unified(edit) for edit in edits)
        case Export(edits=edits, directories=directories):
            made = "".join(f"+ {path}/ (if absent)\n" for path in directories)
            return made + "".join(_unified(edit) for edit in edits)
        case _:
            return ""


def _unified(edit: FileEdit) -> str:
    old = "/dev/null" if edit.before is None else edit.path
    lines = difflib.unified_diff(_lines(edit.before or b""), _lines(edit.after), old, edit.path)
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _lines(data: bytes) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", decode(data))  # str.splitlines also breaks at CR, VT, U+2028 …


def decode(data: bytes) -> str:
    """Bytes of a file as text; `encode` gives back the same bytes.

    By the file system's encoding, like os.fsdecode: a path written into a file must be the path's bytes.
    """
    return data.decode(sys.getfilesystemencoding(), "surrogateescape")


def encode(text: str) -> bytes:
    return text.encode(sys.getfilesystemencoding(), "surrogateescape")
