"""Find the signatures in a stream of any length, in constant memory.

Nearly every line of a long log repeats others but for its numbers. So a line is reduced to its shape (letters
g to z and punctuation), by C code on whole blocks, and only a shape that was not met before is looked at: for
one of the words that some signature needs, and then with the patterns. Where no two lines are alike, their
words still repeat: each word is looked at once.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property

from envdoctor.explain.normalise import readable, without_controls
from envdoctor.explain.sightings import Sightings
from envdoctor.explain.signatures import Compiled, all_signatures, compiled, words

BLOCK = 1 << 20
LONGEST = 8192  # bytes of a line that are looked at as one; a longer one is looked at in pieces
OVERLAP = 1024
WHOLE = 1024  # characters up to which a line is kept as it stands
BEFORE, AFTER = 2, 3  # lines around one that are looked at with it, for a message may be wrapped
REPEATS = 40  # lines of one shape that are read in full; more are counted
FEW = 16  # shapes that are looked for one by one
REMEMBERED = 1 << 24  # bytes of shapes, and of words, that are remembered
ENTRY = 100  # bytes that an entry of a set costs besides
_LOWER = bytes(range(256)).lower()
_DROPPED = b"0123456789abcdefABCDEF"
_ALIKE = _LOWER.translate(bytes.maketrans(b"123456789", b"000000000"))  # digits do not make another word
_WHITE = re.compile(r"[\s>#|]+")
_OTHERWISE = "error-not-explained"


def scan(chunks: Iterable[bytes]) -> tuple[Sightings, int]:
    """The sightings and the number of lines. How the text is cut into chunks makes no difference."""
    scanner = _Scanner()
    for block in _blocks(chunks):
        scanner.read(block)
    scanner.finish()
    return scanner.sightings, scanner.lines


def _blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Blocks of whole lines; a line longer than a block is cut, with an overlap."""
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size >= BLOCK:
            text, start = b"".join(held), 0
            while len(text) - start >= BLOCK:
                end = text.rfind(b"\n", start, start + BLOCK) + 1
                yield text[start : end or start + BLOCK]
                start = end or start + BLOCK - OVERLAP
            held = [text[start:]]
            size = len(held[0])
    if size:
        yield b"".join(held)


class _Words:
    """The words that signatures need: which of them a line has."""

    def __init__(self) -> None:
        self._phrases: dict[str, list[str]] = {}  # by one of its words: the rest may be on the next line
        for phrase in words():
            self._phrases.setdefault(_telling(phrase), []).append(phrase)
        alike = {word.encode().translate(_ALIKE).decode() for word in self._phrases}
        self._any = re.compile(_one_of(alike).encode())
        self._each = re.compile(f"(?=({_one_of(self._phrases)}))")
        # The search stops at the shortest: with "cuda" in a line, "cudart" may be too.
        self._with = {
            short: [word for word in self._phrases if word.startswith(short)] for short in self._phrases
        }
        self._dull: set[bytes] = set()
        self._telling: set[bytes] = set()
        self._bytes = 0

    def telling(self, lines: list[bytes]) -> list[bool]:
        """Whether one may be in each line; a word that was met before is not searched again."""
        text = b"\n".join(lines).translate(_ALIKE)
        met = set(text.split())
        self._learn(met)
        telling = self._telling & met
        if not telling:
            return [False] * len(lines)
        return [not telling.isdisjoint(line.split()) for line in text.split(b"\n")]

    def _learn(self, met: set[bytes]) -> None:
        """Tell apart those that have a word of a signature in them."""
        fresh = met - self._dull - self._telling
        if self._bytes > REMEMBERED:
            self._dull.clear()
            self._telling.clear()
            self._bytes = 0
            fresh = met
        for word in fresh:
            self._bytes += len(word) + ENTRY
            (self._telling if self._any.search(word) else self._dull).add(word)

    def phrases(self, line: str) -> set[str]:
        """The phrases of which a word is in a line (in lower case)."""
        met = {match[1] for match in self._each.finditer(line)}
        return {phrase for short in met for word in self._with[short] for phrase in self._phrases[word]}


def _telling(phrase: str) -> str:
    return max(phrase.split(" "), key=len)


class _Shape:
    """A kind of line that has a word of a signature: how often it was read, and what it was."""

    __slots__ = ("found", "read")

    def __init__(self) -> None:
        self.read = 0
        self.found: set[str] = set()


class _Window:
    """The lines of a block, after the last ones of the block before."""

    def __init__(self, text: bytes, shapes: list[bytes], ended: int, wanted: _Words) -> None:
        self.shapes = shapes
        self._text = text
        self._ended = ended  # line ends before it
        self._wanted = wanted
        self._readable: dict[int, str] = {}
        self._phrases: dict[int, set[str]] = {}

    @cached_property
    def lines(self) -> list[bytes]:
        return self._text.splitlines()

    @cached_property
    def numbers(self) -> list[int]:
        r"""The number of each line; carriage returns (``\r``) make lines of their own within one."""
        if b"\r" not in self._text:
            return list(range(self._ended + 1, self._ended + len(self.shapes) + 1))
        numbers, ended = [], self._ended
        for line in self._text.splitlines(keepends=True):
            numbers.append(ended + 1)
            ended += line.endswith(b"\n")
        return numbers

    def readable(self, index: int) -> str:
        if index not in self._readable:
            self._readable[index] = readable(self.lines[index][:LONGEST])
        return self._readable[index]

    def phrases(self, index: int) -> set[str]:
        if index not in self._phrases:
            (tells,) = self._wanted.telling([self.lines[index][:LONGEST]])
            self._phrases[index] = self._wanted.phrases(self.readable(index).lower()) if tells else set()
        return self._phrases[index]


class _Scanner:
    def __init__(self) -> None:
        self.sightings = Sightings()
        self._ended = 0  # line ends so far
        self._open = False  # the text so far does not end with one
        self._held = b""  # the last lines: a message may wrap into the next block
        self._held_read = 0  # how many of them were read
        self._dull: set[bytes] = set()
        self._dull_bytes = 0
        self._shapes: dict[bytes, _Shape] = {}
        self._signatures = words()
        self._words = _Words()
        self._numbers = {s.id for s in all_signatures() if s.numbers}

    @property
    def lines(self) -> int:
        return self._ended + self._open

    def read(self, block: bytes) -> None:
        text = self._held + without_controls(block)
        before = self._ended - self._held.count(b"\n")
        self._ended += block.count(b"\n")
        self._open = not block.endswith(b"\n")
        # Of a line that is cut the rest follows with an overlap; the last whole lines await their neighbours.
        waiting = 0 if self._open else AFTER
        unread = self._read_lines(text, before, waiting)
        self._held = b"" if self._open else text[_beginning(text, BEFORE + AFTER) :]
        self._held_read = len(self._held.splitlines()) - unread if self._held else 0

    def finish(self) -> None:
        """Read the lines that waited for their neighbours."""
        self._read_lines(self._held, self._ended - self._held.count(b"\n"), 0)

    def _read_lines(self, text: bytes, ended: int, waiting: int) -> int:
        """Read all lines but the first ones, which were read, and the last, which wait: how many do."""
        all_shapes = text.translate(_LOWER, _DROPPED).splitlines()
        begin = self._held_read
        end = max(len(all_shapes) - waiting, begin)
        shapes = all_shapes[begin:end]
        fresh = set(shapes) - self._dull
        if fresh:
            window = _Window(text, all_shapes, ended, self._words)
            unknown = fresh - self._shapes.keys()
            if unknown:
                self._learn(unknown, dict(zip(shapes, window.lines[begin:end], strict=True)))
            known = fresh & self._shapes.keys()
            if known:
                self._look(known, shapes, window, begin)
        return len(all_shapes) - end

    def _learn(self, unknown: set[bytes], example: dict[bytes, bytes]) -> None:
        """Which of the shapes have a word that matters."""
        if self._dull_bytes > REMEMBERED:
            self._dull.clear()
            self._dull_bytes = 0
        if len(self._shapes) > REMEMBERED >> 10:
            self._shapes.clear()
        telling = self._words.telling([example[shape] for shape in unknown])
        for shape, tells in zip(unknown, telling, strict=True):
            if tells:
                self._shapes[shape] = _Shape()
            else:
                self._dull.add(shape)
                self._dull_bytes += len(shape) + ENTRY

    def _look(self, known: set[bytes], shapes: list[bytes], window: _Window, begin: int) -> None:
        """Read the lines of known shapes: the first ones in full, later ones where their digits matter."""
        wanted = {shape for shape in known if self._read_on(self._shapes[shape])}
        unread = _counted(known, shapes)
        for index in _places(wanted, shapes):
            shape = shapes[index]
            state = self._shapes[shape]
            if self._read_on(state):
                state.read += 1
                unread[shape] -= 1
                state.found |= self._read_line(window, begin + index)
        for shape, times in unread.items():
            for identifier in self._shapes[shape].found if times else ():
                self.sightings.count(identifier, times)

    def _read_on(self, state: _Shape) -> bool:
        return state.read < REPEATS or not self._numbers.isdisjoint(state.found)

    def _read_line(self, window: _Window, index: int) -> set[str]:
        """Search a line, with its neighbours, for a message may be wrapped; what was found."""
        line, number = window.lines[index], window.numbers[index]
        if len(line) > LONGEST:
            found: set[str] = set()
            for start in range(0, len(line), LONGEST - OVERLAP):
                piece = readable(line[start : start + LONGEST])
                found |= self._search([piece], 0, [number], self._words.phrases(piece.lower()))
            return found
        first, last = max(index - BEFORE, 0), min(index + AFTER + 1, len(window.lines))
        phrases = set().union(*(window.phrases(place) for place in range(first, last)))
        if not phrases:
            return set()
        near = [window.readable(place) for place in range(first, last)]
        return self._search(near, index - first, window.numbers[first:last], phrases)

    def _search(self, near: list[str], this: int, places: list[int], phrases: set[str]) -> set[str]:
        text = "\n".join(near)
        start = sum(len(line) + 1 for line in near[:this])
        end = start + len(near[this])
        lower = _WHITE.sub(" ", text.lower())
        candidates = {i for phrase in phrases if phrase in lower for i in self._signatures[phrase]}
        found: set[str] = set()
        for identifier in sorted(candidates - {_OTHERWISE}):
            if self._match(compiled(identifier), text, start, end, near, places):
                found.add(identifier)
        if not found and _OTHERWISE in candidates:
            self._match(compiled(_OTHERWISE), text, start, end, near, places)
        return found

    def _match(
        self, candidate: Compiled, text: str, start: int, end: int, near: list[str], places: list[int]
    ) -> bool:
        """Whether a pattern matches on this line, or from the one before into it."""
        matched = False
        for search in candidate.searches:
            for match in search.finditer(text):
                if match.start() >= end:
                    break
                if match.end() <= start:
                    continue
                row = text.count("\n", 0, match.start())
                values = {
                    name: " ".join(value.split())
                    for name, value in match.groupdict().items()
                    if value is not None
                }
                column = max(match.start() - text.rfind("\n", 0, match.start()) - 1, 0)
                self.sightings.add(candidate.signature.id, places[row], _around(near[row], column), values)
                matched = True
        return matched


def _around(line: str, column: int) -> str:
    """The line; of a very long one what stands around a match."""
    if len(line) <= WHOLE:
        return line
    start = max(column - WHOLE // 16, 0)
    return ("\u2026" if start else "") + line[start : start + WHOLE]


def _places(wanted: set[bytes], shapes: list[bytes]) -> list[int]:
    """Where they stand, in order; by C code where they are few."""
    if len(wanted) > FEW:
        return [index for index, shape in enumerate(shapes) if shape in wanted]
    found: list[int] = []
    for shape in wanted:
        index = -1
        with contextlib.suppress(ValueError):
            while True:
                index = shapes.index(shape, index + 1)
                found.append(index)
    return sorted(found)


def _counted(known: set[bytes], shapes: list[bytes]) -> dict[bytes, int]:
    if len(known) <= FEW:
        return {shape: shapes.count(shape) for shape in known}
    counts = Counter(shapes)
    return {shape: counts[shape] for shape in known}


def _one_of(words: Iterable[str]) -> str:
    """A pattern for any of the words that shares their beginnings: 25 times as fast as an alternation."""
    following: dict[str, list[str]] = {}
    for word in words:
        if not word:
            return ""  # one ends here; the longer ones need not be told from it
        following.setdefault(word[0], []).append(word[1:])
    branches = [re.escape(first) + _one_of(rest) for first, rest in sorted(following.items())]
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"


def _beginning(text: bytes, lines: int) -> int:
    """Where the last lines of a text begin, which ends with a line's end."""
    position = len(text) - 1
    for _ in range(lines):
        position = text.rfind(b"\n", 0, max(position, 0))
    return position + 1
