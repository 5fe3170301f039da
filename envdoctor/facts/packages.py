"""The distributions that the target's interpreter would import, read from its site-packages."""

from __future__ import annotations

import re
from collections.abc import Iterator

from envdoctor.facts.model import Distribution, Interpreter, Packages
from envdoctor.facts.model_packages import CondaPackage
from envdoctor.facts.root import Root

# Whose METADATA is read: frameworks, for what they ask of others, and the wheels that they ask for. Of the
# rest the name and version in the directory's name are enough, and 500 small files would cost 30 ms.
_READ = re.compile(
    r"tensorflow|tf[-_]nightly|tf[-_]keras|intel[-_]tensorflow|torch$|jax|nvidia[-_]|cuda[-_]toolkit$"
)

_END_OF_HEADERS = re.compile(rb"\r?\n\r?\n")


def read_packages(interpreter: Interpreter, root: Root) -> Packages:
    """Every distribution, in search order; one found twice is listed twice (the first is imported)."""
    found: list[Distribution] = []
    for directory in dict.fromkeys(interpreter.site_packages):
        try:
            names = sorted(root.listdir(directory))
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")) and not name.startswith(("~", ".")):
                found.append(_distribution(directory, name, root))
    return Packages(
        distributions=tuple(found),
        conda=_conda_packages(interpreter, root),
        manager=_manager(interpreter, found, root),
        externally_managed=_externally_managed(interpreter, root),
    )


def normalised(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _distribution(directory: str, entry: str, root: Root) -> Distribution:
    stem = entry.rsplit(".", 1)[0]
    name, _, rest = stem.partition("-")
    version = rest.split("-")[0]
    if not _READ.match(name.lower()) and version:
        return Distribution(name=normalised(name), version=version, location=directory)
    file = (
        f"{directory}/{entry}/METADATA" if entry.endswith(".dist-info") else f"{directory}/{entry}/PKG-INFO"
    )
    problem = ""
    requires: tuple[str, ...] = ()
    try:
        headers = list(_headers(root.read_bytes(file, 1 << 20)))
    except OSError as error:
        problem = f"{file}: {error.strerror}"
    else:
        values = dict(reversed(headers))
        requires = tuple(value for key, value in headers if key == "requires-dist")
        if "name" in values and "version" in values:
            name, version = values["name"], values["version"]
        else:
            problem = f"{file} names no Name and Version"
    return Distribution(
        name=normalised(name),
        version=version,
        location=directory,
        requires=requires,
        problem=problem,
        installer=_installer(f"{directory}/{entry}/INSTALLER", root),
    )


def _headers(data: bytes) -> Iterator[tuple[str, str]]:
    """The header lines of a METADATA file; they end at the first empty line (core metadata, RFC 822)."""
    for line in _END_OF_HEADERS.split(data, 1)[0].splitlines():
        key, colon, value = line.partition(b":")
        if colon and not line[:1].isspace():
            yield key.decode("utf-8", "replace").lower(), value.decode("utf-8", "replace").strip()


def _installer(path: str, root: Root) -> str:
    """The first word ("pip", "uv", "conda"; "poetry" adds its version); "" where nobody signed."""
    try:
        words = root.read_bytes(path, 256).decode("ascii", "replace").split()
    except OSError:
        return ""
    return words[0].lower() if words else ""


def _conda_packages(interpreter: Interpreter, root: Root) -> tuple[CondaPackage, ...]:
    if interpreter.kind != "conda":
        return ()
    try:
        names = sorted(root.listdir(f"{interpreter.prefix}/conda-meta"))
    except OSError:
        return ()
    records = (name.removesuffix(".json").rsplit("-", 2) for name in names if name.endswith(".json"))
    return tuple(CondaPackage(*record) for record in records if len(record) == 3)


def _manager(interpreter: Interpreter, found: list[Distribution], root: Root) -> str:
    """The tool that keeps this environment: uv marks pyvenv.cfg, Poetry has a directory of its own."""
    if interpreter.kind == "conda":
        return "conda"
    if "uv" in {d.installer for d in found if d.location.startswith(interpreter.prefix + "/")}:
        return "uv"
    if "/pypoetry/virtualenvs/" in interpreter.prefix or "poetry" in {d.installer for d in found}:
        return "poetry"
    if interpreter.kind == "venv":
        try:
            lines = root.read_text(f"{interpreter.prefix}/pyvenv.cfg").splitlines()
        except OSError:
            return "pip"
        if any(line.partition("=")[0].strip() == "uv" for line in lines):
            return "uv"
    return "pip"


def _externally_managed(interpreter: Interpreter, root: Root) -> bool:
    """Whether pip refuses to install for this Python (PEP 668); in a virtual environment it never does."""
    if interpreter.kind != "system":
        return False
    minor = ".".join(interpreter.version.split(".")[:2])
    places = (f"{interpreter.base_prefix}/{lib}/python{minor}" for lib in ("lib", "lib64"))
    return any(root.exists(f"{place}/EXTERNALLY-MANAGED") for place in places)
