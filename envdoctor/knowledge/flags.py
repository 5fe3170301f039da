"""XLA_FLAGS and TF_XLA_FLAGS: read as XLA reads them, and judged before XLA ends the process over them.

The parser follows xla/parse_flags_from_env.cc; the tables were read from, or tried on, TensorFlow 2.21 and
jaxlib 0.10.2. Flags come and go with every release: of another build nothing is certain but the syntax.
"""

from __future__ import annotations

import difflib
import re
from enum import Enum
from functools import cache

from msgspec import Struct

from envdoctor.knowledge.loading import load_rows, release_key

XLA_FLAGS = "XLA_FLAGS"
TF_XLA_FLAGS = "TF_XLA_FLAGS"
_WHITE = " \t\r\n"
_NAME = re.compile(r"[-_A-Za-z0-9]*")
_WORD = re.compile(r"[^ \t\r\n]*")
# White space around and a sign are taken, 0x is not: measured. int() refuses thousands of digits.
_INTEGER = re.compile(r"\s*([+-]?[0-9]{1,99})\s*")
_FLOAT = re.compile(
    r"\s*[+-]?(?:inf|infinity|nan|0x[0-9a-f]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)\s*",
    re.IGNORECASE,
)
_SINGLE_GPU = re.compile(r"single-gpu\(([^)]*)\)")


class Kind(Enum):
    BOOL = "bool"
    INT32 = "int32"
    INT64 = "int64"
    FLOAT = "float"
    TEXT = "text"
    ENUM = "enum"
    LIST = "list"  # comma-separated values, each perhaps with + or - before it
    AUTO_JIT = "auto_jit"
    NUMBER_OR_TEXT = "number_or_text"  # needs a value; which ones it takes was not found out


class FlagRow(Struct, frozen=True):
    name: str  # without the dashes
    kind: Kind
    known_to: tuple[str, ...]  # of the two measured builds
    source: str
    default: str = ""
    values: tuple[str, ...] = ()
    complete: bool = False  # a value not listed is refused
    rejected: tuple[str, ...] = ()
    rejected_by: tuple[str, ...] = ()  # () for every build
    needs: str = ""  # without effect unless this flag is set too
    note: str = ""


class Flag(Struct, frozen=True):
    """One word as XLA takes it, quotes removed."""

    text: str  # "--xla_dump_to=/tmp/a b"
    name: str  # "xla_dump_to"; of what does not begin with two dashes, the whole word before "="
    value: str | None  # None for a bare --flag


class ParsedFlags(Struct, frozen=True):
    flags: tuple[Flag, ...]
    file: str = ""  # the whole value, where XLA takes it for the name of a file with flags
    ignored: str = ""  # what stands from the first word without a dash on: XLA stops there and says nothing


class Verdict(Enum):
    OK = "ok"
    UNKNOWN = "unknown"
    NO_VALUE = "no-value"  # "--flag" or "--flag value" of a flag that is not bool; XLA calls it unknown
    WRONG_TYPE = "wrong-type"
    WRONG_VALUE = "wrong-value"
    NOT_JUDGED = "not-judged"


class Judgement(Struct, frozen=True):
    verdict: Verdict
    certain: bool  # the build is one whose flags were measured
    nearest: str = ""  # the name, or the value, that was probably meant
    belongs_to: str = ""  # the other variable, where the flag is one of its own
    expected: str = ""  # what the flag takes, in words
    row: FlagRow | None = None

    @property
    def fatal(self) -> bool:
        return self.certain and self.verdict not in {Verdict.OK, Verdict.NOT_JUDGED}


@cache
def xla_flags() -> dict[str, FlagRow]:
    return {row.name: row for row in load_rows("xla_flags", FlagRow)}


@cache
def tf_xla_flags() -> dict[str, FlagRow]:
    return {row.name: row for row in load_rows("tf_xla_flags", FlagRow)}


def parse_flags(value: str) -> ParsedFlags:
    """What XLA makes of the value of one of the two variables."""
    if not value:
        return ParsedFlags(())
    if not value.lstrip(_WHITE).startswith("-"):
        return ParsedFlags((), file=value)
    return parse_flag_text(value)


def parse_flag_text(text: str) -> ParsedFlags:
    """What XLA makes of a text with flags: a variable's value, or the content of the file that it names."""
    flags: list[Flag] = []
    begin = _skip_white(text, 0)
    while text.startswith("-", begin):
        name_end = _NAME.match(text, begin).end()  # type: ignore[union-attr]  # matches the empty string
        if text.startswith(("='", '="'), name_end):
            value, end = _quoted(text, name_end + 1)
            flags.append(_flag(text[begin : name_end + 1] + value))
        else:
            end = _WORD.match(text, name_end).end()  # type: ignore[union-attr]  # matches the empty string
            flags.append(_flag(text[begin:end]))
        begin = _skip_white(text, end)
    return ParsedFlags(tuple(flags), ignored=text[begin:])


def _skip_white(text: str, start: int) -> int:
    return len(text) - len(text[start:].lstrip(_WHITE))


def _quoted(text: str, start: int) -> tuple[str, int]:
    """The quoted value that begins at `start`, and the place behind it; an open quote runs to the end."""
    quote, place, value = text[start], start + 1, ""
    while place < len(text) and text[place] != quote:
        if quote == '"' and text[place] == "\\" and place + 1 < len(text):
            place += 1
        value += text[place]
        place += 1
    return value, min(place + 1, len(text))


def _flag(text: str) -> Flag:
    name, equals, value = text.partition("=")
    return Flag(text=text, name=name.removeprefix("--"), value=value if equals else None)


def judge_flag(flag: Flag, variable: str = XLA_FLAGS, build: str = "tensorflow 2.21") -> Judgement:
    """What a build ("tensorflow 2.21.0", "jaxlib 0.10.2") does with a flag in `variable`."""
    own, other = (xla_flags, tf_xla_flags) if variable == XLA_FLAGS else (tf_xla_flags, xla_flags)
    measured = _measured(build, own())
    row = own().get(flag.name) if flag.text.startswith("--") else None
    if row is None or (measured and measured not in row.known_to):
        known = [n for n, r in own().items() if not measured or measured in r.known_to]
        moved = flag.name in other() and flag.text.startswith("--")
        return Judgement(
            Verdict.UNKNOWN,
            certain=bool(measured),
            nearest="" if moved else _nearest(flag.name, known),
            belongs_to=(TF_XLA_FLAGS if variable == XLA_FLAGS else XLA_FLAGS) if moved else "",
            row=row,
        )
    verdict = _judge_value(row, flag.value, measured)
    wrong = verdict is Verdict.WRONG_VALUE and flag.value is not None
    return Judgement(
        verdict,
        certain=bool(measured),
        nearest=_nearest(flag.value or "", row.values) if wrong else "",
        expected=_expected(row),
        row=row,
    )


def _measured(build: str, rows: dict[str, FlagRow]) -> str:
    """The measured build ("tensorflow 2.21") that stands for one ("tensorflow 2.21.3"); "" for none."""
    name, _, version = build.partition(" ")
    for known in {k for row in rows.values() for k in row.known_to}:
        known_name, _, known_version = known.partition(" ")
        key = release_key(known_version)
        if name == known_name and release_key(version)[: len(key)] == key:
            return known
    return ""


def _judge_value(row: FlagRow, value: str | None, measured: str) -> Verdict:
    if value is None:
        if row.kind is not Kind.BOOL:
            return Verdict.NO_VALUE
        value = "true"
    if row.kind is Kind.BOOL:
        if value.lower() not in {"true", "false", "1", "0"}:
            return Verdict.WRONG_TYPE
        value = "true" if value.lower() in {"true", "1"} else "false"
    if not _right_type(row.kind, value):
        return Verdict.WRONG_TYPE
    if value in row.rejected and (not row.rejected_by or measured in row.rejected_by):
        return Verdict.WRONG_VALUE
    if row.kind is Kind.LIST:
        known = {v.lower() for v in row.values}
        listed = value in row.values or all(v.lstrip("+-").lower() in known for v in value.split(","))
    elif row.kind is Kind.ENUM:
        listed = value in row.values
    else:
        return Verdict.OK
    if listed:
        return Verdict.OK
    return Verdict.WRONG_VALUE if row.complete else Verdict.NOT_JUDGED


def _right_type(kind: Kind, value: str) -> bool:
    if kind is Kind.FLOAT:
        return bool(_FLOAT.fullmatch(value))
    if kind is Kind.AUTO_JIT:
        single = _SINGLE_GPU.fullmatch(value)
        return value == "fusible" or _fits(single[1] if single else value, 32)
    if kind in {Kind.INT32, Kind.INT64}:
        return _fits(value, 64 if kind is Kind.INT64 else 32)
    return True


def _fits(value: str, bits: int) -> bool:
    match = _INTEGER.fullmatch(value)
    return match is not None and -(1 << (bits - 1)) <= int(match[1]) < 1 << (bits - 1)


def _expected(row: FlagRow) -> str:
    if row.kind is Kind.BOOL:
        return "true or false (or 1, 0, or the bare flag)"
    if row.kind in {Kind.INT32, Kind.INT64}:
        return f"a decimal integer of {row.kind.value[3:]} bits"
    if row.kind is Kind.FLOAT:
        return "a number"
    if row.kind is Kind.AUTO_JIT:
        return "an integer, fusible or single-gpu(N)"
    if row.kind is Kind.LIST:
        return "values separated by commas, among them " + ", ".join(v for v in row.values if v)
    return "one of " + ", ".join(row.values) if row.values else "a value (--flag=value)"


def _nearest(word: str, known: list[str] | tuple[str, ...]) -> str:
    """The known word closest to one that was misspelt: -flag, --no-flag, dashes, capitals, a slip."""
    plain = word.lstrip("-").lower().replace("-", "_")
    names = {name.lower(): name for name in known}
    for candidate in (plain, plain.removeprefix("no_"), plain.removeprefix("no")):
        if candidate in names:
            return names[candidate]
    close = difflib.get_close_matches(plain, names, n=1, cutoff=0.75)
    return names[close[0]] if close else ""
