"""What messages mean: the signatures beside this module, compiled."""

from __future__ import annotations

import os
import re
from enum import Enum
from functools import cache

import msgspec
from msgspec import Struct

from envdoctor.catalog import Severity
from envdoctor.explain.cuda_errors import error_texts

# Also the marks of quotations and comments at the beginning of a wrapped line, and what Compose, a journal
# or a container engine writes before each line.
_WHITE = (
    r"(?:[\s>#|]|\\n|<br ?/?>|\n[\w.-]{1,40} {0,20}\||\n[A-Z][a-z]{2} [ \d]\d [\d:]{8} [^\n]{1,60}?\]: "
    r"|\n[\d-]{10}T[\d:.]{8,18}\S{1,6} std(?:err|out) [FP] ){1,60}"
)
_TEXTS = "@texts"


class Confidence(Enum):
    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"

    @property
    def rank(self) -> int:
        """0 is best."""
        return tuple(Confidence).index(self)


class Signature(Struct, frozen=True, kw_only=True):
    """One message, by what it means: a condition, a fact for the rules to combine, or noise."""

    id: str
    words: tuple[str, ...]  # in lower case; a line without any of them is not looked at
    patterns: tuple[str, ...]  # regular expressions, case ignored; a space stands for any white space
    seen_in: tuple[str, ...]  # the programs and releases that print it
    tests: tuple[str, ...]  # lines that it matches
    code: str = ""
    fact: str = ""
    noise: str = ""
    confidence: Confidence = Confidence.LIKELY
    severity: Severity | None = None  # where it is not the condition's own
    says: str = ""  # the message, with the patterns' groups in braces; "" for the condition's title
    alternatives: tuple[str, ...] = ()  # codes that the line cannot tell from this one
    numbers: bool = False  # lines that differ in digits alone differ in meaning


class Compiled(Struct, frozen=True):
    """A signature with its patterns ready to search."""

    signature: Signature
    searches: tuple[re.Pattern[str], ...]


class _File(Struct, frozen=True):
    about: str
    rows: tuple[Signature, ...]


@cache
def all_signatures() -> tuple[Signature, ...]:
    """Every signature, in the order of the files' names."""
    directory = os.path.dirname(__file__)
    rows: list[Signature] = []
    for name in sorted(os.listdir(directory)):
        if name.endswith(".json"):
            with open(os.path.join(directory, name), "rb") as file:
                rows += msgspec.json.decode(file.read(), type=_File).rows
    return tuple(rows)


@cache
def compiled(identifier: str) -> Compiled:
    """The patterns of one signature; compiled when first needed, for most logs need few."""
    row = next(s for s in all_signatures() if s.id == identifier)
    return Compiled(row, tuple(_compile(pattern) for pattern in row.patterns))


def _compile(pattern: str) -> re.Pattern[str]:
    texts = "|".join(re.escape(text).replace(r"\ ", " ") for text in error_texts())
    pattern = pattern.replace(_TEXTS, texts).replace("\\ ", " ")
    return re.compile(_outside_classes(pattern), re.IGNORECASE | re.MULTILINE)


def _outside_classes(pattern: str) -> str:
    """Any white space for each space that does not stand in a character class or before a repetition."""
    made, inside, position = [], False, 0
    while position < len(pattern):
        character = pattern[position]
        following = pattern[position + 1 : position + 2]
        if character == "\\":
            made.append(character + following)
            position += 2
            continue
        if character in "[]":
            inside = character == "["
        optional = following in {"?", "*", "{", "+"}
        made.append(_WHITE if character == " " and not inside and not optional else character)
        position += 1
    return "".join(made)


@cache
def words() -> dict[str, tuple[str, ...]]:
    """Each word with the identifiers of the signatures that need it (one of theirs)."""
    found: dict[str, list[str]] = {}
    for row in all_signatures():
        for word in row.words:
            for each in error_texts() if word == _TEXTS else (word,):
                found.setdefault(each.lower(), []).append(row.id)
    return {word: tuple(dict.fromkeys(ids)) for word, ids in found.items()}
