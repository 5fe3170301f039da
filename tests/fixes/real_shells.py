"""Real shells that run a script, and what a variable holds at points of it."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest


class Shell(NamedTuple):
    activation: str  # the script in a venv's bin
    options: tuple[str, ...]
    source: str  # the command that reads a file into this shell
    kind: str = "sh"  # as in `envdoctor env --shell`
    deactivates: bool = True  # the export is gone after `deactivate`


SHELLS = {
    "bash": Shell("activate", ("--norc",), "source"),
    "zsh": Shell("activate", ("-f",), "source"),
    "dash": Shell("activate", (), ".", deactivates=False),
    "fish": Shell("activate.fish", ("--no-config",), "source", "fish"),
    "tcsh": Shell("activate.csh", ("-f",), "source", "csh"),
}


def show(variable: str) -> str:
    """A command that prints the variable's bytes, or None."""
    return f"{sys.executable} -c 'import os; print(ascii(os.environb.get(b\"{variable}\")))'\n"


def run_shell(
    shell: str, script: str, start: dict[str, bytes | None], cwd: Path | None = None
) -> list[bytes | None]:
    """What `show` printed; None in `start` unsets."""
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    environment = {k: v for k, v in os.environb.items() if not k.startswith(b"_ENVDOCTOR")}
    environment[b"LC_ALL"] = b"C.UTF-8"
    for name, value in start.items():
        environment.pop(name.encode(), None)
        if value is not None:
            environment[name.encode()] = value
    done = subprocess.run(
        [found, *SHELLS[shell].options],
        input=os.fsencode(script),
        env=environment,
        cwd=cwd,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b""), (done.stderr, script)
    return [ast.literal_eval(line.decode()) for line in done.stdout.splitlines()]
