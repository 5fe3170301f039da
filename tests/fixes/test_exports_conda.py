"""Exports in a conda environment: what `conda activate` sources, by the shell's ending.

conda itself is not there to be run: the files are sourced as its activators source them, those of
`etc/conda/activate.d` with the shell's ending on activation, those of `deactivate.d` before leaving
(conda/activate.py: `_get_activate_scripts`, `script_extension`).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from envdoctor.fixes.exports import conda_directories, conda_edits
from envdoctor.fixes.joining import extended
from envdoctor.fixes.plan import Join
from tests.fixes.real_shells import SHELLS, run_shell, show

ENDINGS = {"sh": ".sh", "fish": ".fish", "csh": ".csh"}
PATH, FLAGS, THREADS = "LD_LIBRARY_PATH", "XLA_FLAGS", "OMP_NUM_THREADS"
NASTY = ("/tmp/a b'c\"d$HOME`id`!x\\y*[z]?~\n#w é!", "/end\\")


def put(prefix: Path, variable: str, values: tuple[str, ...], join: Join) -> None:
    """The export in the environment, and in no other place than its two directories."""
    for directory in conda_directories(str(prefix)):
        Path(directory).mkdir(parents=True, exist_ok=True)
    found = {str(file): file.read_bytes() for file in prefix.glob("etc/conda/*/*")}
    for edit in conda_edits(str(prefix), variable, values, join, found):
        assert edit.before == found.get(edit.path)
        Path(edit.path).write_bytes(edit.after)


def source(shell: str, prefix: Path, directory: str) -> str:
    files = sorted(prefix.glob(f"etc/conda/{directory}/*{ENDINGS[SHELLS[shell].kind]}"))
    assert files
    return "".join(f"{SHELLS[shell].source} {file}\n" for file in files)


@pytest.mark.parametrize("start", [None, b"", b"/old", b"/old:/o2:"])
@pytest.mark.parametrize("shell", SHELLS)
def test_entering_adds_once_and_leaving_takes_out(tmp_path: Path, shell: str, start: bytes | None) -> None:
    put(tmp_path, PATH, NASTY, Join.PATH)
    enter, leave = source(shell, tmp_path, "activate.d"), source(shell, tmp_path, "deactivate.d")
    inside = os.fsencode(extended(os.fsdecode(start or b""), NASTY, Join.PATH))
    strict = "set -eu\n" if shell in {"bash", "dash"} else ""
    script = strict + (enter + show(PATH)) * 2 + leave + show(PATH) + leave + show(PATH)
    after = start or None
    assert run_shell(shell, script, {PATH: start}) == [inside, inside, after, after]


@pytest.mark.parametrize("shell", SHELLS)
def test_three_variables_and_a_second_repair(tmp_path: Path, shell: str) -> None:
    put(tmp_path, PATH, ("/first",), Join.PATH)
    put(tmp_path, FLAGS, ("--a=/b",), Join.WORDS)
    put(tmp_path, THREADS, ("2",), Join.DEFAULT)
    put(tmp_path, PATH, ("/second",), Join.PATH)
    every = show(PATH) + show(FLAGS) + show(THREADS)
    enter, leave = source(shell, tmp_path, "activate.d"), source(shell, tmp_path, "deactivate.d")
    seen = run_shell(shell, enter + every + leave + every, {PATH: b"/old", FLAGS: b"--old", THREADS: None})
    inside: list[bytes | None] = [b"/second:/first:/old", b"--a=/b --old", b"2"]
    assert seen == [*inside, b"/old", b"--old", None]


@pytest.mark.parametrize("shell", SHELLS)
def test_leaving_an_environment_that_was_not_entered_changes_nothing(tmp_path: Path, shell: str) -> None:
    put(tmp_path, PATH, ("/a",), Join.PATH)
    put(tmp_path, FLAGS, ("--a",), Join.WORDS)
    put(tmp_path, THREADS, ("2",), Join.DEFAULT)
    every = show(PATH) + show(FLAGS) + show(THREADS)
    script = source(shell, tmp_path, "deactivate.d") + every
    start = {PATH: b"/a:/old", FLAGS: b"--a --old", THREADS: b"2"}
    assert run_shell(shell, script, dict(start)) == list(start.values())
