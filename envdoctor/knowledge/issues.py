"""Known surprises of certain releases, with their repairs."""

from __future__ import annotations

from functools import cache

from msgspec import Struct

from envdoctor.knowledge.loading import load_rows, matches


class KnownIssue(Struct, frozen=True):
    id: str
    package: str  # the distribution, normalised
    versions: str  # a version specifier
    when: str  # circumstances beyond the version; "" for always
    text: str
    repair: str  # "" where the text is itself the repair of another
    source: str
    verified: bool


@cache
def all_known_issues() -> tuple[KnownIssue, ...]:
    return load_rows("known_issues", KnownIssue)


def known_issues(package: str, version: str) -> tuple[KnownIssue, ...]:
    """The issues of a release of a distribution."""
    return tuple(i for i in all_known_issues() if i.package == package and matches(version, i.versions))


def known_issue(identifier: str) -> KnownIssue:
    """The issue of this id; KeyError where there is none."""
    for row in all_known_issues():
        if row.id == identifier:
            return row
    raise KeyError(identifier)
