"""The sightings as the rules ask for them: by what they mean."""

from __future__ import annotations

from envdoctor.explain.sightings import Sighting, Sightings
from envdoctor.explain.signatures import Signature, all_signatures


class Seen:
    """The sightings of a log, by fact and by signature."""

    def __init__(self, sightings: Sightings) -> None:
        self._sightings = sightings
        self._rows = {row.id: row for row in all_signatures()}

    def facts(self, *names: str) -> list[Sighting]:
        """All sightings of facts of these names, in the order of their lines."""
        found = [s for i in self._sightings if self._rows[i].fact in names for s in self._sightings.of(i)]
        return sorted(found, key=lambda s: s.line)

    def has(self, *names: str) -> bool:
        return any(self._rows[i].fact in names for i in self._sightings)

    def values(self, fact: str, value: str) -> list[str]:
        """What was captured under a name, each once."""
        return list(dict.fromkeys(s.values[value] for s in self.facts(fact) if value in s.values))

    def codes(self) -> list[tuple[Signature, list[Sighting]]]:
        """The signatures that stand for a condition by themselves."""
        return [(self._rows[i], self._sightings.of(i)) for i in self._sightings if self._rows[i].code]

    def noise(self) -> list[tuple[str, int, int]]:
        """Kind, number of lines and first line of what can be ignored."""
        return [
            (self._rows[i].noise, self._sightings.lines(i), self._sightings.of(i)[0].line)
            for i in self._sightings
            if self._rows[i].noise
        ]

    def lines(self, sighting: Sighting) -> int:
        return self._sightings.lines(sighting.signature)
