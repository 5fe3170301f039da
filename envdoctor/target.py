"""What is examined: an interpreter, a root directory, an environment."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from envdoctor.errors import UsageError
from envdoctor.facts.root import Root

if TYPE_CHECKING:
    from envdoctor.facts.process import RunningProcess


@dataclass(frozen=True)
class Target:
    """An interpreter below a root, under an environment; paths are the target's own."""

    python: str
    chosen_by: str
    root: Root
    environment: Mapping[str, str]
    gpu_required: bool = False
    timeout: float = 60.0  # seconds, for a framework's child
    process: RunningProcess | None = None  # that is examined, and whose environment this is

    @property
    def foreign(self) -> bool:
        """A process of another user's: root may read it, and must start nothing of its."""
        return self.process is not None and not self.process.facts.own


def process_target(
    pid: int, python: str | None, root: str | None, *, gpu_required: bool = False, timeout: float = 60.0
) -> Target:
    """The target that a running process is: its interpreter, under its environment.

    Raises:
        UsageError: it cannot be examined, or another target was named too.

    """
    from envdoctor.facts.process import read_process  # noqa: PLC0415

    for option, value in (("--python", python), ("--root", root)):
        if value is not None:
            raise UsageError(
                f"--pid and {option} exclude each other: a process has its own interpreter and root"
            )
    process = read_process(pid)
    path, how = process.python, process.chosen_by
    return Target(path, how, Root(), process.environment, gpu_required, timeout, process)


def choose_target(
    python: str | None,
    root: str | None,
    environment: Mapping[str, str],
    *,
    gpu_required: bool = False,
    timeout: float = 60.0,
) -> Target:
    """The target that the options and the environment name.

    `--python` first (an interpreter, an environment's directory, or a command on PATH), then
    `$VIRTUAL_ENV`, then `$CONDA_PREFIX`, then the interpreter that envdoctor runs in; below another root,
    where that one means nothing, the root's own python3.

    Raises:
        UsageError: what was named is missing, or is no directory, no file or not executable.

    """
    tree = _root(root)
    path, chosen_by = _interpreter(python, tree, environment)
    return Target(_checked(path, chosen_by, tree), chosen_by, tree, environment, gpu_required, timeout)


def _root(directory: str | None) -> Root:
    if directory is None:
        return Root()
    if not os.path.isdir(directory):
        what = "is not a directory" if os.path.lexists(directory) else "does not exist"
        raise UsageError(f"--root {directory!r} {what}; expected the top directory of a file tree")
    return Root(os.path.realpath(directory))


def _interpreter(python: str | None, root: Root, environment: Mapping[str, str]) -> tuple[str, str]:
    if python is not None:
        if "/" not in python and root.is_live and not os.path.exists(python):
            found = shutil.which(python, path=environment.get("PATH"))
            if found is None:
                raise UsageError(
                    f"--python {python!r} is not a command on PATH; expected a Python interpreter"
                )
            return found, "--python"
        path = os.path.abspath(python) if root.is_live else _below(python, root)
        return (_python_in(path, root) if root.is_dir(path) else path), "--python"
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        prefix = environment.get(variable)
        if prefix and (root.is_live or root.is_dir(prefix)):
            return _python_in(prefix, root), f"${variable}"
    if root.is_live:
        return sys.executable, "the interpreter envdoctor runs in"
    for path in ("/usr/bin/python3", "/usr/local/bin/python3", "/usr/bin/python"):
        if root.exists(path):
            return path, f"{path} below --root"
    return "", "no interpreter below --root"


def _below(path: str, root: Root) -> str:
    """A path given with --root: the tree's own, or one on this machine that lies in the tree."""
    prefix = root.directory + "/"
    absolute = os.path.abspath(path)
    if absolute.startswith(prefix):
        return absolute[len(prefix) - 1 :]
    return path if path.startswith("/") else "/" + path


def _python_in(prefix: str, root: Root) -> str:
    candidates = [f"{prefix.rstrip('/')}/bin/{name}" for name in ("python", "python3")]
    return next((c for c in candidates if root.exists(c)), candidates[0])


def _checked(path: str, chosen_by: str, root: Root) -> str:
    if not path:
        return path
    what = f"{chosen_by} names {path!r}, which"
    try:
        if root.is_file(path):
            if os.access(root.host(path), os.X_OK):
                return path
            raise UsageError(f"{what} is not executable; expected a Python interpreter")
    except OSError as error:
        raise UsageError(f"{what} cannot be read ({error.strerror}); expected a Python interpreter") from None
    if os.path.islink(root.host(path, follow=False)):
        link = root.readlink(path)
        raise UsageError(f"{what} is a link to {link!r} that leads nowhere; expected a Python interpreter")
    exists = "is not a file" if root.exists(path) else "does not exist"
    hint = "" if chosen_by == "--python" else " (deactivate that environment, or name another with --python)"
    raise UsageError(f"{what} {exists}; expected a Python interpreter{hint}")
