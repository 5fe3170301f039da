"""Marked blocks in a text, one for each variable: put in, taken out exactly, and read again.

A block says in a comment, as JSON, what it holds: a later repair adds to it and loses nothing of it.
"""

from __future__ import annotations

import json
import re

import msgspec
from msgspec import Struct

_NOTE = "# Written by `envdoctor fix`; `envdoctor undo` takes it out.\n"
_HOLDS = "# Holds: "
MARK = re.compile(r"\n# (>>>|<<<) envdoctor ")  # no value may contain it


class _Held(Struct, frozen=True):
    values: tuple[str, ...]


def block(variable: str, values: tuple[str, ...], body: str) -> str:
    held = json.dumps({"values": values}, ensure_ascii=True)
    return f"# >>> envdoctor {variable} >>>\n{_NOTE}{_HOLDS}{held}\n{body}# <<< envdoctor {variable} <<<\n"


def insert(text: str, variable: str, marked: str) -> str:
    """`text` with the block at its end, or in the place of the one that it has.

    A last line without newline is closed, and the block then ends without one in its stead: so `remove`
    can tell. ValueError where the marks were tampered with.
    """
    span = _span(text, variable)
    if span is not None:
        start, end = span
        kept_open = not text[start:end].endswith("\n")
        return text[:start] + (marked.removesuffix("\n") if kept_open else marked) + text[end:]
    if text and not text.endswith("\n"):
        return f"{text}\n{marked}".removesuffix("\n")
    return text + marked


def remove(text: str, variable: str) -> str:
    """The inverse of `insert` into a text that had no block."""
    span = _span(text, variable)
    if span is None:
        return text
    start, end = span
    if not text[start:end].endswith("\n"):
        return text[:start].removesuffix("\n")
    return text[:start] + text[end:]


def values_in(text: str, variable: str) -> tuple[str, ...]:
    """What the variable's block holds; () where there is none, ValueError where it was tampered with."""
    span = _span(text, variable)
    if span is None:
        return ()
    found = re.search(rf"^{_HOLDS}(.*?)\r?$", text[slice(*span)], re.MULTILINE)
    try:
        return msgspec.convert(json.loads(found[1] if found else ""), _Held).values
    except (ValueError, msgspec.ValidationError):
        raise ValueError(f"envdoctor's block for {variable} was edited") from None


def follows(text: str, variable: str) -> str:
    """The text after the variable's block; "" where there is none."""
    span = _span(text, variable)
    return "" if span is None else text[span[1] :]


def _span(text: str, variable: str) -> tuple[int, int] | None:
    begins = list(re.finditer(rf"^# >>> envdoctor {variable} >>>\r?$", text, re.MULTILINE))
    ends = list(re.finditer(rf"^# <<< envdoctor {variable} <<<(\r?\n|\r?\Z)", text, re.MULTILINE))
    if not begins and not ends:
        return None
    if len(begins) != 1 or len(ends) != 1 or begins[0].start() > ends[0].start():
        raise ValueError(f"the marks of envdoctor's block for {variable} were edited")
    return begins[0].start(), ends[0].end()
