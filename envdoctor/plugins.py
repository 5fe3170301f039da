"""Checks from other packages: the entry-point group `envdoctor.checks`.

An entry point names a module (or any object) with `CONDITIONS`, a tuple of `Condition` rows; the `check` of
a row is the absolute "package.module:function" of a function like those in envdoctor/checks. What fails is
told, never dropped.
"""

from __future__ import annotations

import os
import re
import sys

from msgspec import Struct

from envdoctor import catalog
from envdoctor.catalog import Condition

GROUP = "envdoctor.checks"
_CODE = re.compile(r"[A-Z]{3}[0-9]{3}")


class PluginFailure(Struct, frozen=True):
    plugin: str
    reason: str


def load_plugins() -> tuple[PluginFailure, ...]:
    """Add the rows of every plugin to the catalogue; what went wrong, by plugin."""
    if not _any_offered():
        return ()
    from importlib.metadata import entry_points  # noqa: PLC0415  20 ms, and there seldom is a plugin

    failures = []
    for entry in entry_points(group=GROUP):
        try:
            catalog.add(_rows(entry.load()))
        except Exception as error:  # noqa: BLE001  another package's code: whatever it raises is told
            failures.append(
                PluginFailure(f"{entry.name} ({entry.value})", f"{type(error).__name__}: {error}")
            )
    return tuple(failures)


def _rows(offered: object) -> tuple[Condition, ...]:
    rows = getattr(offered, "CONDITIONS", None)
    if not isinstance(rows, (tuple, list)) or not all(isinstance(row, Condition) for row in rows):
        raise TypeError("has no CONDITIONS, a tuple of envdoctor.catalog.Condition")
    for row in rows:
        if not _CODE.fullmatch(row.code):
            raise ValueError(f"{row.code!r} is no code: three capital letters and three digits")
        if "." not in row.check.partition(":")[0]:
            raise ValueError(f"{row.code}: check is {row.check!r}, expected 'package.module:function'")
    return tuple(rows)


def _any_offered() -> bool:
    """Whether any distribution on sys.path names the group: importlib.metadata would read all of each."""
    needle = f"[{GROUP}]".encode()
    for directory in sys.path:
        try:
            names = os.listdir(directory or ".")
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                try:
                    with open(os.path.join(directory, name, "entry_points.txt"), "rb") as file:
                        if needle in file.read():
                            return True
                except OSError:
                    continue
    return False
