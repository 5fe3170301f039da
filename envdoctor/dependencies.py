"""Requires-Dist lines: what a distribution asks of another, and whether a version satisfies it. Pure.

`packaging` judges what is unusual. The usual lines (final releases, plain markers) are judged here, by the
rules of PEP 440 and PEP 508: importing packaging's parser takes 20 ms, which every `check --quick` would pay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from msgspec import Struct

from envdoctor.facts.model import Distribution, Facts, Interpreter, Unavailable

_LINE = re.compile(
    r"\s*(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?P<extras>\[[^\]]*\])?\s*"
    r"(?P<specifier>\([^)]*\)|[<>=!~][^;@]*?|)\s*(?:;\s*(?P<marker>.*))?$"
)
_CLAUSE = re.compile(
    r"(?P<operator>~=|==|!=|<=|>=|<|>)\s*(?P<release>\d+(?:\.\d+)*)(?P<rest>\.\*|\.?(?:dev|a|b|rc)\d*)?"
)
_RELEASE = re.compile(r"\d+(?:\.\d+)*")
_COMPARISON = re.compile(
    r"(?P<variable>[a-z_]+)\s*(?P<operator>==|!=|<=|>=|<|>)\s*(?P<quote>['\"])(?P<value>.*?)(?P=quote)"
)
_SYSTEMS = {"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux"}


class Dependency(Struct, frozen=True):
    """One Requires-Dist line, taken apart."""

    name: str  # normalised
    specifier: str  # "<10.0,>=9.3.0.75"; "" for any version
    marker: str = ""


def parse(line: str) -> Dependency | None:
    """A Requires-Dist line, old ("numpy (>=1.23.5)") or new; None for what is none, or names a URL."""
    match = _LINE.match(line)
    if match is None:
        return None
    specifier = match["specifier"].strip("() ")
    return Dependency(re.sub(r"[-_.]+", "-", match["name"]).lower(), specifier, match["marker"] or "")


def dependencies(
    distribution: Distribution, facts: Facts, interpreter: Interpreter, names: tuple[str, ...]
) -> Iterator[Dependency]:
    """What a distribution or any of its extras asks for on this target, of those whose names begin so."""
    for line in distribution.requires:
        found = parse(line)
        if found is None or not found.name.startswith(names):
            continue
        if not found.marker or _holds(found.marker, facts, interpreter, extras=True):
            yield found


def asked_of(name: str, distribution: Distribution, facts: Facts, interpreter: Interpreter) -> str:
    """The version specifier that a distribution sets for another on this target; "" where it sets none."""
    stem = name.replace("-", "")
    lines = [line for line in distribution.requires if re.sub(r"[-_.]+", "", line).lower().startswith(stem)]
    return ",".join(
        found.specifier
        for line in lines
        if (found := parse(line)) and found.name == name and found.specifier
        if not found.marker or _holds(found.marker, facts, interpreter, extras=False)
    )


def allows(specifier: str, version: str) -> bool | None:
    """Whether a version is in a specifier; None where that cannot be told."""
    public = version.partition("+")[0]
    clauses = [c.strip() for c in specifier.split(",") if c.strip()]
    found = [_CLAUSE.fullmatch(clause) for clause in clauses]
    if _RELEASE.fullmatch(public) and all(c and _plain(c) for c in found):
        release = _numbers(public)
        return all(_fits(release, c["operator"], c["release"], prefix=c["rest"] == ".*") for c in found if c)
    return _allows(specifier, version)


def bounds(specifier: str) -> tuple[str, ...]:
    """The versions that a specifier names as its lowest: where anything fits, one of them may."""
    found = (_CLAUSE.fullmatch(clause.strip()) for clause in specifier.split(","))
    return tuple(c["release"] for c in found if c and c["operator"] in {"==", ">=", "~="})


def below(specifier: str, version: str) -> bool:
    """Whether a version is lower than everything that a specifier names as its lowest."""
    public = _RELEASE.match(version)
    lowest = [_numbers(b) for b in bounds(specifier)]
    return bool(public and lowest) and _numbers(public[0] if public else "") < max(lowest)


def imported(name: str, facts: Facts) -> Distribution | None:
    """The distribution that `import` finds: of the first directory that has one; None where none is, or where
    that directory has records of several versions (a botched upgrade), and nobody can tell which is there.
    """
    if isinstance(facts.packages, Unavailable):
        return None
    found = facts.packages.named(name)
    first = [d for d in found if d.location == found[0].location]
    return first[0] if len({d.version for d in first}) == 1 else None


def _plain(clause: re.Match[str]) -> bool:
    """Whether plain comparison of numbers judges it: for a final release `<5.0.0dev` is `<5.0.0`."""
    rest = clause["rest"]
    if rest == ".*":
        return clause["operator"] in {"==", "!="}
    return not rest or clause["operator"] in {"<", ">="}


def _numbers(release: str) -> tuple[int, ...]:
    numbers = [int(part) for part in release.split(".") if part]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _fits(version: tuple[int, ...], operator: str, release: str, *, prefix: bool) -> bool:
    other = _numbers(release)
    length = release.count(".") + 1
    if operator == "~=":
        head = tuple(int(p) for p in release.split("."))[:-1]
        return version >= other and _padded(version, len(head)) == head
    if prefix:
        head = tuple(int(p) for p in release.split("."))
        return (_padded(version, length) == head) is (operator == "==")
    return {
        "==": version == other,
        "!=": version != other,
        ">=": version >= other,
        "<=": version <= other,
        ">": version > other,
        "<": version < other,
    }[operator]


def _padded(version: tuple[int, ...], length: int) -> tuple[int, ...]:
    return (*version, *(0 for _ in range(length)))[:length]


def _allows(specifier: str, version: str) -> bool | None:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415  rarely needed, and slow
    from packaging.version import InvalidVersion  # noqa: PLC0415

    try:
        return SpecifierSet(specifier).contains(version, prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return None


def _holds(marker: str, facts: Facts, interpreter: Interpreter, *, extras: bool) -> bool:
    """Whether a marker holds for the target; with `extras`, for some extra of the distribution."""
    environment = {
        **_SYSTEMS,
        "platform_machine": facts.host.machine,
        "python_version": ".".join(interpreter.version.split(".")[:2]),
        "python_full_version": interpreter.version,
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    groups = [_alternatives(part) for part in marker.split(" and ")]
    if all(c and c["variable"] in {*environment, "extra"} for group in groups for c in group):
        return all(any(_compare(c, environment, extras=extras) for c in group if c) for group in groups)
    return _marker_holds(marker, environment, extras=extras)


def _alternatives(part: str) -> list[re.Match[str] | None]:
    """The comparisons of `(a or b)`, or the one of `a`; None for what is neither."""
    part = part.strip()
    inner = part[1:-1] if part.startswith("(") and part.endswith(")") else part
    return (
        [_COMPARISON.fullmatch(one.strip()) for one in inner.split(" or ")]
        if inner != part
        else [_COMPARISON.fullmatch(part)]
    )


def _compare(comparison: re.Match[str], environment: Mapping[str, str], *, extras: bool) -> bool:
    variable, operator, value = comparison["variable"], comparison["operator"], comparison["value"]
    if variable == "extra":
        return extras and operator == "=="
    if variable.startswith("python_"):
        return bool(allows(f"{operator}{value}", environment[variable]))
    return (environment[variable] == value) is (operator == "==")


def _marker_holds(marker: str, environment: dict[str, str], *, extras: bool) -> bool:
    from packaging.markers import InvalidMarker, Marker, UndefinedEnvironmentName  # noqa: PLC0415

    names = re.findall(r"extra\s*==\s*['\"](.*?)['\"]", marker) if extras else [""]
    try:
        parsed = Marker(marker)
        return any(parsed.evaluate({**environment, "extra": name}) for name in names or [""])
    except (InvalidMarker, UndefinedEnvironmentName):
        return False
