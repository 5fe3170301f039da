"""Text for a shell to read."""

from __future__ import annotations

import shlex


def quoted(word: str) -> str:
    """`word` as one shell word, to be pasted; `[extras]` and `>=` come out quoted."""
    return shlex.quote(word)
