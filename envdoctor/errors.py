"""The errors a user can cause."""

from __future__ import annotations


class UsageError(Exception):
    """Bad input: one line that names the thing and what was expected. The command ends with exit 2."""


class Interrupted(Exception):  # noqa: N818  it is no error of anybody's
    """Ctrl-C, after everything half done was put right."""
