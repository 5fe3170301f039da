"""The CUDA libraries that a framework's own files are linked to: DT_NEEDED, read from the ELF headers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from envdoctor.facts.elf import read_elf
from envdoctor.facts.loader_model import ElfObject
from envdoctor.facts.model import Requirement
from envdoctor.facts.root import Root

# libcuda.so.1 is the driver's, and has its own conditions.
_CUDA = re.compile(r"lib(?:cu(?!da\.so)|nv|nccl)[^/]*\.so")


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
