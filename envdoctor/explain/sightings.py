"""What was seen in a log: which signature, on which line, with which values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

KEPT = 200  # sightings of one signature that are kept; the rest is counted
SAME = 20  # of these, with the same values


class Sighting(Struct, frozen=True):
    signature: str
    line: int  # from 1
    text: str  # the line, as it stands but for terminal controls
    values: Mapping[str, str]  # what the pattern's groups took


class Sightings:
    """The sightings of a whole log, in bounded memory."""

    def __init__(self) -> None:
        self._kept: dict[str, list[Sighting]] = {}
        self._seen: dict[str, dict[tuple[str, ...], int]] = {}
        self._counts: dict[str, int] = {}
        self._last: dict[str, int] = {}

    def add(self, signature: str, line: int, text: str, values: Mapping[str, str]) -> None:
        """Take in one; the same signature with the same values on the same line is one sighting."""
        kept = self._kept.setdefault(signature, [])
        if any(s.line == line and s.values == values for s in kept[-8:]):
            return
        if line > self._last.get(signature, 0):
            self._counts[signature] = self._counts.get(signature, 0) + 1
            self._last[signature] = line
        times = self._seen.setdefault(signature, {})
        key = tuple(values.values())
        if len(kept) < KEPT and times.get(key, 0) < SAME:
            times[key] = times.get(key, 0) + 1
            kept.append(Sighting(signature, line, text, dict(values)))

    def count(self, signature: str, lines: int) -> None:
        """Lines that are known to show it, and of which nothing more is kept."""
        self._counts[signature] = self._counts.get(signature, 0) + lines

    def of(self, signature: str) -> list[Sighting]:
        return self._kept.get(signature, [])

    def lines(self, signature: str) -> int:
        """How many lines show it."""
        return self._counts.get(signature, 0)

    def __iter__(self) -> Iterator[str]:
        """The signatures that were seen, in the order of their first lines."""
        return iter(self._kept)
