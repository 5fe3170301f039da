"""Which package brings a library: pip's wheels, conda, and the package managers of the distributions."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from functools import cache

from msgspec import Struct

from envdoctor.knowledge.loading import load_rows, release_key
from envdoctor.knowledge.sonames import toolkit_soname_rows, toolkit_sonames

_SYSTEMS = {
    "apt": {"debian", "ubuntu", "linuxmint", "pop"},
    "dnf": {"fedora", "rhel", "centos", "rocky", "almalinux", "ol", "amzn"},
    "zypper": {"suse", "opensuse", "opensuse-leap", "opensuse-tumbleweed", "sles", "sled"},
}
_COMMANDS = {
    "apt": "sudo apt-get install",
    "dnf": "sudo dnf install",
    "zypper": "sudo zypper install",
    "conda": "conda install -c conda-forge",
    "pip": "python -m pip install",
}


class Provider(Struct, frozen=True):
    soname: str  # "libcublas.so.12"; "libcublas.so" for every version
    manager: str  # a key of the commands: "pip", "apt", …
    repository: str  # "pypi", "conda-forge", "nvidia", "distribution"
    package: str  # a requirement; {major} and {minor} stand for the CUDA version
    source: str
    verified: bool
    cuda: tuple[int, ...] = ()  # only for these CUDA majors; () for any
    directory: str = ""  # where a wheel puts it, below site-packages


class InstallHint(Struct, frozen=True):
    """A package to install, with the command that does it."""

    soname: str
    manager: str
    repository: str  # "nvidia": the distribution's own repositories do not have it, NVIDIA's must be set up
    package: str
    command: str
    directory: str
    source: str
    verified: bool


@cache
def soname_providers() -> tuple[Provider, ...]:
    return load_rows("soname_providers", Provider)


def system_manager(os_id: str, os_like: Iterable[str] = ()) -> str:
    """The package manager ("apt") of an ID and ID_LIKE of os-release; "" for one that is not known."""
    for word in (os_id, *os_like):
        for manager, systems in _SYSTEMS.items():
            if word in systems:
                return manager
    return ""


def providers(soname: str, cuda: str = "", manager: str = "") -> tuple[InstallHint, ...]:
    """Every package that brings a library to a CUDA version ("12.5", "12"; "" for any), NVIDIA's own first.

    Also for "ptxas" and "libdevice.10.bc". A package name that needs the minor version gets the newest
    known one that has this library, where `cuda` is a major alone.
    """
    found = [
        _hint(row, soname, filled)
        for row in soname_providers()
        if _brings(row, soname) and (not manager or row.manager == manager)
        for filled in [_fill(row, soname, cuda)]
        if filled
    ]
    return tuple(sorted(found, key=lambda h: h.repository == "distribution"))


def install_hint(soname: str, os_id: str, os_like: Iterable[str] = (), cuda: str = "") -> InstallHint | None:
    """The package of the target's distribution; None where none is known, or the distribution is not."""
    manager = system_manager(os_id, os_like)
    return next(iter(providers(soname, cuda, manager)), None) if manager else None


def pip_hint(soname: str, cuda: str = "") -> InstallHint | None:
    """The wheel that brings a library."""
    return next(iter(providers(soname, cuda, "pip")), None)


def conda_hint(soname: str, cuda: str = "") -> InstallHint | None:
    return next(iter(providers(soname, cuda, "conda")), None)


def install_command(hints: Iterable[InstallHint]) -> str:
    """One command for the packages of several hints of one manager."""
    listed = list(hints)
    packages = dict.fromkeys(hint.package for hint in listed)
    return " ".join([_COMMANDS[listed[0].manager], *map(shlex.quote, packages)]) if listed else ""


def _brings(row: Provider, soname: str) -> bool:
    return soname == row.soname or (row.soname.endswith(".so") and soname.startswith(row.soname + "."))


def _fill(row: Provider, soname: str, cuda: str) -> str:
    """The package's name for a CUDA version; "" where it is not for that one."""
    key = release_key(cuda)[:2]
    if key and row.cuda and key[0] not in row.cuda:
        return ""
    if row.soname == soname and "{minor}" not in row.package:
        return row.package.replace("{major}", str(key[0])) if key else _unfilled(row)
    versions = [release_key(r.cuda) for r in toolkit_soname_rows() if _has(r.sonames, soname)]
    fitting = [v for v in versions if v[: len(key)] == key and (not row.cuda or v[0] in row.cuda)]
    if len(key) == 2 and not fitting:  # a minor version between or after those of the table
        same = toolkit_sonames(cuda)
        fitting = [key] if same and _has(same.sonames, soname) else []
    if not fitting:
        return ""
    major, minor = max(fitting)
    return row.package.replace("{major}", str(major)).replace("{minor}", str(minor))


def _has(sonames: dict[str, str], soname: str) -> bool:
    """Whether a toolkit has a library; of what carries no CUDA version (cuDNN, ptxas) each has its own."""
    stem = soname.partition(".so")[0] + ".so."
    same = [s for s in sonames.values() if s.startswith(stem)]
    return soname in same or not same


def _unfilled(row: Provider) -> str:
    return "" if "{" in row.package else row.package


def _hint(row: Provider, soname: str, package: str) -> InstallHint:
    return InstallHint(
        soname=soname,
        manager=row.manager,
        repository=row.repository,
        package=package,
        command=f"{_COMMANDS[row.manager]} {shlex.quote(package)}",
        directory=row.directory,
        source=row.source,
        verified=row.verified,
    )
