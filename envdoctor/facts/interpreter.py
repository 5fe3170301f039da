"""The target's interpreter, read from its own files where they tell, else from one short child."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Mapping

import msgspec

from envdoctor.errors import UsageError
from envdoctor.facts.child import start
from envdoctor.facts.model import Interpreter, Unavailable
from envdoctor.facts.root import Root
from envdoctor.target import Target

# Only `sys`, which is built in: with -c a json.py in the user's current directory would be imported.
_ASK = """
import sys
print()
print([".".join(map(str, sys.version_info[:3])), sys.prefix, getattr(sys, "base_prefix", sys.prefix),
       tuple(p for p in sys.path if p)])
"""
_ASK_SECONDS = 10.0


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    version: str
    prefix: str
    base: str
    path: tuple[str, ...]


def read_interpreter(target: Target) -> Interpreter | Unavailable:
    """The interpreter's version, prefixes and site-packages.

    A venv says all of it in pyvenv.cfg (PEP 405), a conda environment in conda-meta: nothing is started.

    Raises:
        UsageError: what was named as the interpreter is none, or crashes.

    """
    if not target.python:
        return Unavailable("no Python interpreter was found below the root; name one with --python")
    return _from_pyvenv(target) or _from_conda(target) or _from_this_process(target) or _from_child(target)


def _from_pyvenv(target: Target) -> Interpreter | None:
    root = target.root
    directory = os.path.dirname(target.python)
    for prefix in (os.path.dirname(directory), directory):
        try:
            text = root.read_text(f"{prefix}/pyvenv.cfg")
        except OSError:
            continue
        keys = dict(_key_value(line) for line in text.splitlines() if "=" in line)
        version = keys.get("version_info") or keys.get("version", "")
        if version.count(".") < 1 or "home" not in keys:
            continue
        version = ".".join(version.split(".")[:3])
        base = os.path.dirname(keys["home"])
        places = [_site_packages(prefix, version)]
        if keys.get("include-system-site-packages", "").lower() == "true":
            places += [*_user_site(target.environment, version), *_system_site_packages(base, version, root)]
        return Interpreter(
            executable=target.python,
            version=version,
            prefix=prefix,
            base_prefix=base,
            kind="venv",
            site_packages=(*_pythonpath(target.environment), *places),
            read_from="pyvenv.cfg",
        )
    return None


def _from_conda(target: Target) -> Interpreter | None:
    prefix = os.path.dirname(os.path.dirname(target.python))
    try:
        names = target.root.listdir(f"{prefix}/conda-meta")
    except OSError:
        return None
    for name in sorted(names):
        parts = name.split("-")
        if len(parts) == 3 and parts[0] == "python" and name.endswith(".json"):
            site = _site_packages(prefix, parts[1])
            return Interpreter(
                executable=target.python,
                version=parts[1],
                prefix=prefix,
                base_prefix=prefix,
                kind="conda",
                site_packages=(
                    *_pythonpath(target.environment),
                    *_user_site(target.environment, parts[1]),
                    site,
                ),
                read_from="conda-meta",
            )
    return None


def _from_this_process(target: Target) -> Interpreter | None:
    if not target.root.is_live or target.python != sys.executable:
        return None
    version = ".".join(map(str, sys.version_info[:3]))
    return _interpreter(
        target, _Answer(version, sys.prefix, sys.base_prefix, tuple(sys.path)), "this process"
    )


def _from_child(target: Target) -> Interpreter | Unavailable:
    if not target.root.is_live or target.foreign:
        return _from_layout(target)
    outcome = start([target.python, "-B", "-c", _ASK], target.environment).finish(_ASK_SECONDS)
    named = f"{target.chosen_by} names {target.python!r}, which"
    try:
        said = outcome.stdout.strip().rpartition(b"\n")[2].decode("utf-8", "surrogateescape")
        answer = msgspec.convert(ast.literal_eval(said), _Answer)
    except (ValueError, SyntaxError, RecursionError, MemoryError, msgspec.ValidationError):
        raise UsageError(
            f"{named} does not answer as a Python interpreter does ({outcome.describe()})"
        ) from None
    return _interpreter(target, answer, "a child")


def _from_layout(target: Target) -> Interpreter | Unavailable:
    """Below another root, or of another user, nothing is started.

    `python3` links to `python3.11`, and that names its library.
    """
    try:
        real = target.root.realpath(target.python)
    except OSError as error:
        return Unavailable(f"{target.python}: {error.strerror}")
    version = os.path.basename(real).removeprefix("python")
    if version.count(".") != 1 or not version.replace(".", "").isdigit():
        return Unavailable(f"the version of {real} cannot be told without starting it")
    prefix = os.path.dirname(os.path.dirname(real))
    places = (
        *_user_site(target.environment, version),
        *_system_site_packages(prefix, version, target.root),
    )
    return Interpreter(
        executable=target.python,
        version=version,
        prefix=prefix,
        base_prefix=prefix,
        kind="system",
        site_packages=(*_pythonpath(target.environment), *places),
        read_from="its name",
    )


def _interpreter(target: Target, answer: _Answer, read_from: str) -> Interpreter:
    places = [p for p in answer.path if p.rstrip("/").endswith(("site-packages", "dist-packages"))]
    listed = [p for p in _pythonpath(target.environment) if p not in places]
    return Interpreter(
        executable=target.python,
        version=answer.version,
        prefix=answer.prefix,
        base_prefix=answer.base,
        kind="venv" if answer.prefix != answer.base else "system",
        site_packages=(*listed, *places),
        read_from=read_from,
    )


def program_of(interpreter: Interpreter | Unavailable, root: Root) -> str:
    """The ELF file whose start stands for the interpreter's: a wrapper script is none.

    Where the interpreter tells none, the shell stands in: what matters of it are its loader and that it
    has no search path of its own.
    """
    candidates = ["/bin/sh"]
    if isinstance(interpreter, Interpreter):
        minor = ".".join(interpreter.version.split(".")[:2])
        candidates[:0] = [interpreter.executable, f"{interpreter.base_prefix}/bin/python{minor}"]
    for path in candidates:
        try:
            if root.is_file(path) and root.read_bytes(path, 4) == b"\x7fELF":
                return path
        except OSError:
            continue
    return ""


def _key_value(line: str) -> tuple[str, str]:
    key, _, value = line.partition("=")
    return key.strip().lower(), value.strip()


def _site_packages(prefix: str, version: str) -> str:
    return f"{prefix}/lib/python{'.'.join(version.split('.')[:2])}/site-packages"


def _system_site_packages(prefix: str, version: str, root: Root) -> list[str]:
    """Of the base installation; Debian's Python has dist-packages instead (site.getsitepackages)."""
    minor = ".".join(version.split(".")[:2])
    candidates = [_site_packages(prefix, version), f"{prefix}/lib64/python{minor}/site-packages"]
    if prefix == "/usr":
        candidates += [f"/usr/local/lib/python{minor}/dist-packages", "/usr/lib/python3/dist-packages"]
    return [c for c in candidates if root.is_dir(c)]


def _user_site(environment: Mapping[str, str], version: str) -> list[str]:
    """`pip install --user` goes there; PYTHONNOUSERSITE switches it off (site, PEP 370)."""
    home = environment.get("PYTHONUSERBASE") or (
        f"{environment['HOME']}/.local" if environment.get("HOME") else ""
    )
    if not home or environment.get("PYTHONNOUSERSITE"):
        return []
    return [_site_packages(home, version)]


def _pythonpath(environment: Mapping[str, str]) -> list[str]:
    return [p for p in environment.get("PYTHONPATH", "").split(":") if p]
