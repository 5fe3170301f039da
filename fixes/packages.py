"""Repairs that the target's own package tool makes: its commands, and what they would leave installed.

What is judged by the packages' metadata alone is proven like any other repair, on the facts as they would be.
What brings or restores files is not: which libraries a wheel brings is seen when it is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from envdoctor.checks.installing import CONDA_NAMES
from envdoctor.dependencies import allows, bounds, parse
from envdoctor.facts.model import Distribution, Facts, Interpreter, Packages, Unavailable
from envdoctor.finding import Finding
from envdoctor.fixes.plan import Command, Risk
from envdoctor.fixes.repair import Repair, Wishes

FROM_METADATA = frozenset({"PKG003", "PKG004", "PKG005", "PKG006", "PKG007", "PKG009"})
MANY = 3  # distributions that are replaced by one repair: above that it is no small change
_SPEAKING = frozenset({"cuda-toolkit", "jax-cuda12-plugin", "jax-cuda13-plugin"})  # they name other versions
_VALUED = frozenset({"--python", "--directory", "-p", "-c"})
_REMOVING = frozenset({"uninstall", "remove"})
_DISTRIBUTIONS = {conda: name for name, names in CONDA_NAMES.items() for conda in names} | {
    "pytorch-gpu": "torch"
}


class Change(Struct, frozen=True):
    """What one command does to the distributions."""

    removes: tuple[str, ...] = ()
    installs: Mapping[str, str] = {}  # version specifiers by name
    again: bool = False  # installs what is installed, for its files
    solved: bool = False  # conda's solver may replace what fits as well, by another build
    by_force: bool = False  # what requires the removed is left without it


def commands(facts: Facts, finding: Finding, wishes: Wishes) -> Iterator[Repair]:
    """The finding's own commands, in their order; each is run only where the user says yes to it."""
    packages = facts.packages
    if not finding.commands or wishes.exports_only or isinstance(packages, Unavailable):
        return
    changes = [change_of(argv) for argv in finding.commands]
    after = _after(facts, packages, changes) if finding.code in FROM_METADATA else None
    risk = _risk(facts, packages, changes)
    doubt = "" if after else "what it brings is seen only when it is there: proven by checking again"
    yield Repair(
        tuple(
            Command(
                code=finding.code,
                summary=_summary(change),
                risk=Risk.HIGH if risk else Risk.LOW,
                reason="; ".join(said for said in (risk, doubt) if said),
                argv=argv,
                proven=after is not None,
            )
            for argv, change in zip(finding.commands, changes, strict=True)
        ),
        after or facts,
    )


def change_of(argv: Sequence[str]) -> Change:
    """Read from the command itself, as checks/installing.py writes it: pip's, uv's, poetry's or conda's."""
    verb = next(i for i, word in enumerate(argv) if word in {"install", "add", *_REMOVING})
    words: list[str] = []
    rest = iter(argv[verb + 1 :])
    for word in rest:
        if word in _VALUED:
            next(rest)
        elif not word.startswith("-"):
            words.append(word)
    if argv[verb] in _REMOVING:
        by_force = argv[0] == "conda" and "--force" in argv
        return Change(tuple(_DISTRIBUTIONS.get(w, w) for w in words), by_force=by_force)
    read = [_conda(w) if argv[0] == "conda" else _requirement(w) for w in words]
    return Change((), dict(read), again="--force-reinstall" in argv, solved=argv[0] == "conda")


def _requirement(word: str) -> tuple[str, str]:
    found = parse(word)
    return (found.name, found.specifier) if found else (word, "")


def _conda(word: str) -> tuple[str, str]:
    """`tensorflow=2.15.0=cuda*`, `protobuf<6,>=3.20`."""
    name, _, rest = word.partition("=")
    if name.isidentifier() or name.replace("-", "_").isidentifier():
        version = rest.partition("=")[0]
        return _DISTRIBUTIONS.get(name, name), f"=={version}" if version else ""
    return _requirement(word)


def _after(facts: Facts, packages: Packages, changes: Sequence[Change]) -> Facts | None:
    """The facts with the distributions as the commands would leave them; None where that cannot be told."""
    if isinstance(facts.frameworks, Unavailable):
        return None
    here = _imported(packages)
    left = packages.distributions
    conda = packages.conda
    for change in changes:
        gone = {(name, here[name].location) for name in change.removes if name in here}
        left = tuple(d for d in left if (d.name, d.location) not in gone)
        conda = tuple(c for c in conda if _DISTRIBUTIONS.get(c.name, c.name) not in change.removes)
        for name, specifier in change.installs.items():
            installed = _installed(name, specifier, here.get(name), facts)
            if installed is None:
                return None
            left = _with(left, installed)
    for framework in facts.frameworks:
        before = [d for d in packages.distributions if d.name == framework.distribution]
        if before and before[0] not in left:
            return None  # another build of it: what it can do is read from its files
    return replace(facts, packages=replace(packages, distributions=left, conda=conda))


def _with(left: tuple[Distribution, ...], new: Distribution) -> tuple[Distribution, ...]:
    """In the place of its records in that directory; what is in other directories stays."""
    same = [i for i, d in enumerate(left) if (d.name, d.location) == (new.name, new.location)]
    kept = [new if i in same[:1] else d for i, d in enumerate(left) if i not in same[1:]]
    return tuple(kept if same else [*kept, new])


def _installed(name: str, specifier: str, before: Distribution | None, facts: Facts) -> Distribution | None:
    """In the version that a specifier names; in the lowest that it takes, where the tool may choose."""
    version = next((v for v in sorted(bounds(specifier), key=_key, reverse=True) if allows(specifier, v)), "")
    if not version or isinstance(facts.interpreter, Unavailable):
        return None
    if before and before.version != version and name in _SPEAKING:
        return None
    site = _own_site(facts.interpreter)
    if before and (before.location.startswith(site) or facts.interpreter.kind == "system"):
        return replace(before, version=version)
    return Distribution(name=name, version=version, location=site)  # what is elsewhere may hide it


def _key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _own_site(interpreter: Interpreter) -> str:
    own = interpreter.prefix.rstrip("/") + "/"
    return next((s for s in interpreter.site_packages if s.startswith(own)), interpreter.prefix)


def _imported(packages: Packages) -> dict[str, Distribution]:
    """The distribution of each name that comes first."""
    return {d.name: d for d in reversed(packages.distributions)}


def _risk(facts: Facts, packages: Packages, changes: Sequence[Change]) -> str:
    """Why it is no small change; "" where it is one."""
    here = _imported(packages)
    own = () if isinstance(facts.frameworks, Unavailable) else {f.distribution for f in facts.frameworks}
    removed = {name for change in changes for name in change.removes if name in here}
    replaced = {
        name
        for change in changes
        for name, specifier in change.installs.items()
        if name in here and (change.solved or allows(specifier, here[name].version) is False)
    }
    frameworks = sorted((removed | replaced) & set(own))
    if frameworks:
        return f"it replaces {', '.join(frameworks)} itself"
    if len(removed | replaced) > MANY:
        return f"it replaces {len(removed | replaced)} packages"
    if any(change.by_force for change in changes):
        return "what requires the removed packages is left without them"
    return ""


def _summary(change: Change) -> str:
    if change.removes:
        return f"remove {', '.join(change.removes)}"
    listed = ", ".join(f"{name} {spec.removeprefix('==')}".strip() for name, spec in change.installs.items())
    return f"put the files of {listed} back" if change.again else f"install {listed}"
