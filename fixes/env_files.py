"""Exports in a file that the user names: direnv's .envrc, else NAME=value lines.

systemd's EnvironmentFile=, `docker run --env-file` and python-dotenv read NAME=value lines; what they agree
on is an unquoted value that is taken as it stands, the last line of a name winning (docker passes them all
on, and runc keeps the last: libcontainer/env.go). They differ on quotes and backslashes (docker keeps them,
systemd.exec(5) and python-dotenv resolve them), on `$` (python-dotenv expands `${NAME}`), on ` #` (a comment
to python-dotenv alone) and on white space at the ends (docker keeps it); systemd and docker refuse what is
not UTF-8. Values with any of these are refused here. A shell that sources the file is another reader: it
splits at blanks.

Nothing is expanded in such a file, so a line is extended with what the file itself says before, and with
nothing of the shell that envdoctor runs in.
"""

from __future__ import annotations

import posixpath
import re

from envdoctor.fixes import blocks, shells
from envdoctor.fixes.joining import extended, joinable
from envdoctor.fixes.plan import Join


def with_export(path: str, text: str, variable: str, values: tuple[str, ...], join: Join) -> str:
    """The file's text with the variable's block; unchanged where its own line says as much already.

    Raises:
        ValueError: the readers of such files would not agree on what it says, or cannot hold it.

    """
    if posixpath.basename(path) == ".envrc":  # a script for bash; direnv takes back what it did
        body = shells.line(variable, values, join, "sh") + "\n"
        return blocks.insert(text, variable, blocks.block(variable, values, body))
    own = _own_value(blocks.remove(text, variable), variable)
    if not joinable(own, join):
        raise ValueError(f"its own {variable} names a file, which takes no further words")
    value = extended(own, values, join)
    if value == own and not blocks.values_in(text, variable):
        return text
    if _own_value(blocks.follows(text, variable), variable):
        text = blocks.remove(text, variable)  # the last line of a name wins
    return blocks.insert(text, variable, blocks.block(variable, values, dotenv_line(variable, value) + "\n"))


def dotenv_line(variable: str, value: str) -> str:
    """NAME=value as every reader takes it; ValueError where they would differ."""
    if not _plain(value):
        raise ValueError(
            f"{variable}={value!r} is not read alike by systemd, docker and python-dotenv "
            "(quotes, backslashes, dollar signs, ' #', line ends, bytes that are not UTF-8)"
        )
    return f"{variable}={value}"


def _plain(value: str) -> bool:
    return value == value.strip() and not re.search(r"[\0-\x1f\x7f'\"\\$\ud800-\udfff]|\s#|^#", value)


def _own_value(text: str, variable: str) -> str:
    """What the last line of that name says; "" where there is none."""
    lines = re.findall(
        rf"^[ \t]*(?:export[ \t]+)?{variable}[ \t]*(=.*|)\r?$", text.replace("\r\n", "\n"), re.MULTILINE
    )
    if not lines:
        return ""
    if not lines[-1]:
        raise ValueError(f"its line {variable} has docker take the host's value, which no line can extend")
    value = str(lines[-1][1:].strip())
    quoted = re.fullmatch(r"(['\"])(.*)\1", value)
    if quoted:
        value = quoted[2]
    if not _plain(value):
        raise ValueError(
            f"its own {variable}={value!r} is not read alike by systemd, docker and python-dotenv"
        )
    return value
