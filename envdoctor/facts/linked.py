"""The CUDA libraries that a framework's own files are linked to: their DT_NEEDED, read from the ELF headers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from envdoctor.facts.elf import read_elf
from envdoctor.facts.loader_model import ElfObject
from envdoctor.facts.model import Requirement
from envdoctor.facts.root import Root

# libcuda.so.1 is the driver's, and has its own conditions.
_CUDA = re.compile(r"lib(?:cu(?!da\.so)|nv|nccl)[^/]*\.so")
# `nvidia-cudnn-cu12<10.0,>=9.3.0.75; …` -> 9.3. packaging's parser would cost 20 ms at every start.
_CUDNN_BOUND = re.compile(r"nvidia-cudnn[^;]*?(?:>=|==)\s*(?P<version>\d+(?:\.\d+)+)")


def linked_to(objects: Iterable[str], root: Root, needed_for: str = "") -> list[Requirement]:
    """What each object of a framework needs of CUDA, each library once: the first that needs it asks.

    `needed_for`: the objects are opened late, for this alone, and a miss does not fail the import.
    """
    found: dict[str, Requirement] = {}
    for path in objects:
        for name in needed_by(path, root):
            if _CUDA.match(name):
                found.setdefault(
                    name,
                    Requirement(
                        soname=name,
                        required=not needed_for,
                        linked=True,
                        asker=path,
                        needed_for=needed_for,
                    ),
                )
    return list(found.values())


def needed_by(path: str, root: Root) -> tuple[str, ...]:
    """DT_NEEDED of a file; nothing where it is not there or is no library."""
    try:
        found = read_elf(root.host(path))
    except OSError:
        return ()
    return found.needed if isinstance(found, ElfObject) else ()


def cudnn_bound(requires: Iterable[str]) -> str:
    """The lowest cuDNN that a distribution's own METADATA takes; "" where it names none."""
    return next((m["version"] for m in map(_CUDNN_BOUND.match, requires) if m), "")
