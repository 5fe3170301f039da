"""Printed lines, pasted into bash on a machine where every command only says how it was called."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from functools import cache
from itertools import takewhile
from pathlib import Path

# What a line begins with that is a command, and no sentence.
_COMMAND = re.compile(
    r"(sudo|export|unset|rm|ln|chmod|kill|echo|printf|conda|uv|poetry|envdoctor|python[\d.]*|jupyter|nvidia-smi"
    r"|[A-Z_]+=\S+|v=\S+|\S*/python[\d.]*|'[^']*/python[\d.]*')(\s|$)"
)
_PREPARED = """
record() { printf '%s\\0' "$#" "$@" >> "$RECORD"; }
command_not_found_handle() { record "$@"; }
enable -n kill ulimit test [ cd source echo
PATH=/nowhere
"""
_RUN_FOR_REAL = frozenset({"export", "unset", "printf", "set"})
_OPERATORS = frozenset({"&&", ";", "|", "||"})
_COMPOUND = frozenset({"for", "if", "while", "do", "(", "{", "case"})


def is_command(line: str) -> bool:
    return _COMMAND.match(line) is not None


@cache
def assert_runs_as_printed(line: str) -> None:
    """Bash runs the commands that the line says, with the words that it says; a remark is no part of them."""
    assert not re.search(r" {4}(?!# )", line), f"a remark that bash takes for words: {line}"
    said, done = calls_of(line), called(line)
    if said is None:
        return
    if _expands(line):  # $(…), *: bash makes other words of those, and runs what is in them
        assert {c[0] for c in said} <= {c[0] for c in done}, line
    else:
        assert sorted(done) == sorted(said), line


def called(line: str) -> list[tuple[str, ...]]:
    """The commands that bash starts for a line, with their words; none of them is really run.

    What is named by a path is a function of that name; a path that bash takes for no name has to be a stub().
    """
    with tempfile.TemporaryDirectory() as directory:
        place, record = Path(directory), Path(directory, "record")
        record.touch()
        programs = {call[0] for call in calls_of(line) or ()}
        for program in programs:
            if program.startswith("~/"):
                stub(place / program.removeprefix("~/"))
        named = {p for p in programs if re.fullmatch(r"/[\w./+-]+", p)}
        functions = "".join(f'{name}() {{ record {name} "$@"; }}\n' for name in named)
        script = place / "script"
        script.write_text(_PREPARED + functions + line + "\n", errors="surrogateescape")
        environment = {"RECORD": str(record), "HOME": directory, "PATH": "/nowhere", "USER": "ada"}
        done = subprocess.run(
            ["/bin/bash", script], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (line, done.stderr)
        return _read(record.read_bytes().replace(os.fsencode(directory), b"~"))


def stub(path: Path) -> Path:
    """A program there that records how it is called."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('#!/bin/bash\nprintf \'%s\\0\' "$(($# + 1))" "$0" "$@" >> "$RECORD"\n')
    path.chmod(0o755)
    return path


def calls_of(line: str) -> list[tuple[str, ...]] | None:
    """The simple commands of a line, by Python's reading of the shell; None where it has other constructs."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    calls: list[tuple[str, ...]] = []
    words: list[str] = []
    before = ""
    for word in [*lexer, ";"]:
        if word in _COMPOUND or (set(word) <= set("<>&") and word not in _OPERATORS):
            return None
        if word not in _OPERATORS:
            words.append(word)
            continue
        assignments = len(list(takewhile(lambda w: re.match(r"\w+=", w), words)))
        call = tuple(words[assignments:])
        if call and before != "||" and call[0] not in _RUN_FOR_REAL:
            calls.append(call)
        words, before = [], word
    return calls


def _expands(line: str) -> bool:
    return re.search(r"[$`*?{]", re.sub(r"'[^']*'", "", line.partition("    # ")[0])) is not None


def _read(record: bytes) -> list[tuple[str, ...]]:
    words = record.decode(errors="surrogateescape").split("\0")[:-1]
    found = []
    while words:
        count = int(words[0])
        found.append(tuple(words[1 : count + 1]))
        words = words[count + 1 :]
    return found
