"""Colour and symbols, and that no control character of the target's reaches the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_SYMBOLS = {
    "ok": ("✓", "ok"),
    "error": ("✗", "x"),
    "warning": ("!", "!"),
    "note": ("·", "-"),
    "unknown": ("?", "?"),
    "branch": ("└", "`-"),
    "dot": ("·", "|"),
    "at most": ("≤", "<="),
}
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Terminal:
    """How to print to one stream."""

    colour: bool = False
    unicode: bool = True

    def paint(self, text: str, *styles: str) -> str:
        if not self.colour or not styles:
            return text
        return f"\x1b[{';'.join(_CODES[s] for s in styles)}m{text}\x1b[0m"

    def symbol(self, name: str) -> str:
        return _SYMBOLS[name][0 if self.unicode else 1]


def terminal_for(stream: TextIO, environment: Mapping[str, str], colour: str) -> Terminal:
    """`--color`, then a non-empty NO_COLOR, then FORCE_COLOR, then whether it is a terminal.

    Source: no-color.org, force-color.org. ASCII where the stream's encoding lacks the symbols.
    """
    if colour != "auto":
        wanted = colour == "always"
    elif environment.get("NO_COLOR"):
        wanted = False
    elif environment.get("FORCE_COLOR"):
        wanted = True
    else:
        wanted = stream.isatty() and environment.get("TERM") != "dumb"
    try:
        "".join(symbol for symbol, _ in _SYMBOLS.values()).encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return Terminal(wanted, unicode=False)
    return Terminal(wanted)


def harmless(text: str) -> str:
    r"""Control characters and lone surrogates written out: `\x1b`, `\udcff`."""
    return _CONTROL.sub(lambda match: ascii(match.group())[1:-1], text)
