"""How risky it is to give a library another name: judged from what is used of it and what it has."""

from __future__ import annotations

import posixpath
import re

from msgspec import Struct

from envdoctor.facts.loader_model import stem
from envdoctor.facts.model import Facts
from envdoctor.facts.model_interfaces import Asked, Interface
from envdoctor.fixes.plan import Risk
from envdoctor.resolution import Candidate, Need


class IncompatibleError(ValueError):
    """No link is proposed: the message says what the library lacks."""


class Judgement(Struct, frozen=True, kw_only=True):
    risk: Risk
    reason: str


def choose(facts: Facts, framework: str, need: Need) -> tuple[Candidate, Judgement]:
    """The file that answers a need with the least risk: the exact one, else the highest version that may do.

    Raises:
        IncompatibleError: none of those that are there can.

    """
    usable = [c for c in need.candidates if not c.problem]
    exact = next((c for c in usable if c.exact), None)
    if exact is not None:
        return exact, Judgement(risk=Risk.NONE, reason="it is the very library that is asked for")
    candidate, judged = max(
        ((c, _judge(facts, framework, need.soname, c)) for c in usable),
        key=lambda pair: (_rank(pair[1]), _version(posixpath.basename(pair[0].real))),
    )
    if isinstance(judged, str):
        raise IncompatibleError(f"{candidate.path} cannot stand for {need.soname}: {judged}")
    return candidate, judged


def _rank(judged: Judgement | str) -> int:
    return 0 if isinstance(judged, str) else 1 if judged.risk is Risk.HIGH else 2


def _judge(facts: Facts, framework: str, soname: str, candidate: Candidate) -> Judgement | str:
    """What rules it out, where something does."""
    name = posixpath.basename(candidate.real)
    interface = next(
        (
            i
            for i in facts.interfaces
            if (i.framework, i.soname, i.candidate) == (framework, soname, candidate.real)
        ),
        None,
    )
    if interface is None:
        return Judgement(risk=Risk.HIGH, reason=f"{name} is another version, and was not looked into")
    lacking = _lacking(interface, name)
    if lacking:
        return lacking
    opened = interface.opened
    if interface.unknown:
        reason = f"whether {name} has what is used of {soname} is unknown: {interface.unknown}"
        return Judgement(risk=Risk.HIGH, reason=reason)
    if opened.missing:
        called = f" ({opened.called} of them surely called)" if opened.called else ""
        reason = (
            f"{name} lacks {opened.missing} of the {opened.symbols} functions that {_by(opened)} asks for"
            f"{called}: {_listed(opened)}; that is found out only when one is called"
        )
        return Judgement(risk=Risk.HIGH, reason=reason)
    has = [f"all {a.symbols} functions that {_by(a)} {verb} are in it" for a, verb in _asked(interface)]
    if not has:
        reason = f"{name} is another version, and nothing tells which of its functions are used"
        return Judgement(risk=Risk.HIGH, reason=reason)
    if _version(soname)[:1] == _version(interface.candidate_soname or name)[:1]:
        return Judgement(risk=Risk.LOW, reason=f"{name} is another minor version: {'; '.join(has)}")
    reason = f"{name} is another major version: {'; '.join(has)}, but what they take and do may have changed"
    return Judgement(risk=Risk.HIGH, reason=reason)


def _lacking(interface: Interface, name: str) -> str:
    """What rules a library out; "" where nothing does."""
    soname, opened, linked = interface.candidate_soname, interface.opened, interface.linked
    if soname and stem(soname) != stem(interface.soname):
        return f"{name} is {soname}, another library"
    if interface.missing_versions:
        versions = ", ".join(interface.missing_versions)
        return f"{_by(linked)} needs the symbol version {versions}, which {name} does not define"
    if linked.missing:
        lacks = f"{name} lacks {linked.missing} of the {linked.symbols} functions"
        return f"{lacks} that {_by(linked)} is linked to: {_listed(linked)}"
    if opened.symbols and opened.missing == opened.symbols:
        asked = f"the {opened.symbols} functions that {_by(opened)} asks for"
        return f"{name} has none of {asked}: {_listed(opened)}"
    return ""


def _asked(interface: Interface) -> list[tuple[Asked, str]]:
    both = ((interface.opened, "asks for"), (interface.linked, "is linked to"))
    return [(asked, verb) for asked, verb in both if asked.symbols]


def _by(asked: Asked) -> str:
    names = [posixpath.basename(path) for path in asked.by]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _listed(asked: Asked) -> str:
    return ", ".join(asked.examples) + (", …" if asked.missing > len(asked.examples) else "")


def _version(name: str) -> tuple[int, ...]:
    """`(10, 2, 89)` of libcudart.so.10.2.89."""
    return tuple(int(number) for number in re.findall(r"\d+", name.partition(".so")[2]))
