"""What conda says of an environment: plain data."""

from __future__ import annotations

from msgspec import Struct


class CondaPackage(Struct, frozen=True):
    """A package of a conda environment, from its record's name: conda-meta/<name>-<version>-<build>.json."""

    name: str
    version: str
    build: str
