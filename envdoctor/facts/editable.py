"""The files that an export may be written into: what a shell or a notebook kernel reads when it starts."""

from __future__ import annotations

import os

from msgspec.structs import replace

from envdoctor.errors import UsageError
from envdoctor.facts.model import Facts, Interpreter, Unavailable
from envdoctor.facts.model_jupyter import Jupyter, Kernel
from envdoctor.facts.root import Root

ACTIVATION_SCRIPTS = (
    "bin/activate",
    "bin/activate.fish",
    "bin/activate.csh",
    *(f"etc/conda/activate.d/envdoctor.{shell}" for shell in ("sh", "fish", "csh")),
    *(f"etc/conda/deactivate.d/envdoctor.{shell}" for shell in ("sh", "fish", "csh")),
)
MOST_BYTES = 1 << 20  # larger, and it is no file of this kind


def read_editable(
    root: Root, interpreter: Interpreter | Unavailable, jupyter: Jupyter | Unavailable
) -> dict[str, bytes]:
    """The environment's activation scripts, and the kernelspecs that start its interpreter."""
    if isinstance(interpreter, Unavailable):
        return {}
    paths = [] if interpreter.kind == "system" else [f"{interpreter.prefix}/{n}" for n in ACTIVATION_SCRIPTS]
    if isinstance(jupyter, Jupyter):
        kernels = [k for k in jupyter.kernels if isinstance(k, Kernel)]
        paths += [k.path for k in kernels if k.own or k.prefix == jupyter.prefix]
    found = {}
    for path in paths:
        try:
            found[path] = root.read_bytes(path, MOST_BYTES)
        except OSError:
            continue
    return found


def with_file(facts: Facts, root: Root, path: str) -> Facts:
    """The facts with one more file that may be edited; one that does not exist yet may be made.

    Raises:
        UsageError: it is there and is no file that can be read, or its directory does not exist.

    """
    if not root.is_dir(os.path.dirname(path)):
        raise UsageError(f"--to {path}: there is no directory {os.path.dirname(path)}")
    try:
        data = root.read_bytes(path, MOST_BYTES)
    except FileNotFoundError:
        return facts
    except OSError as error:
        raise UsageError(f"--to {path}: {error.strerror}; expected a file of NAME=value lines") from error
    return replace(facts, editable={**facts.editable, path: data})
