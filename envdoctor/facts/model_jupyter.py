"""Jupyter's kernels as their files describe them: plain data."""

from __future__ import annotations

from msgspec import Struct


class Kernel(Struct, frozen=True, kw_only=True, tag="kernel", tag_field="is"):
    """One kernelspec, in the order in which Jupyter searches: the first of a name is the one that starts."""

    name: str  # of its directory, lower case as Jupyter looks it up: "python3"
    path: str  # of its kernel.json
    display_name: str
    language: str
    argv: tuple[str, ...]
    environment: dict[str, str]  # what it sets for itself; the rest comes from the Jupyter server
    interpreter: str  # the Python it starts, as written; "" for a wrapper, and for `python` alone
    prefix: str  # real path of that Python's environment; "" where there is none, or nobody can tell
    own: bool  # lies in the examined environment


class UnreadableKernel(Struct, frozen=True, kw_only=True, tag="unreadable-kernel", tag_field="is"):
    """A kernel.json that is there and says nothing."""

    path: str
    reason: str


class Jupyter(Struct, frozen=True, kw_only=True, tag="jupyter", tag_field="is"):
    """The kernels that Jupyter, started for this user from the examined environment, would offer."""

    prefix: str  # real path of the examined environment, to compare a kernel's with
    kernels: tuple[Kernel | UnreadableKernel, ...] = ()
