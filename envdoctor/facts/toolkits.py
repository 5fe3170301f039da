"""CUDA installations on the target, and which cuDNN packages dpkg has installed."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping

from envdoctor.facts.model_toolkits import CudaDirectory, CudaInstallations, SystemPackage
from envdoctor.facts.root import Root

_PARENTS = (("/usr/local", "cuda"), ("/opt", "cuda"), ("/usr/lib", "cuda"))
# /usr/local/cuda, /usr/local/cuda-12.5, /apps/cuda/12.5.1
_NAMED = re.compile(r"(?P<root>.*/cuda(?:[-_/](?P<version>\d+(?:\.\d+)*))?)(?:/|$)")
_VERSION_JSON = re.compile(rb'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"(\d+\.\d+)')
_VERSION_TXT = re.compile(rb"CUDA Version (\d+\.\d+)")
_DPKG = "/var/lib/dpkg/status"
_CUDNN_PACKAGE = re.compile(
    rb"^Package: (libcudnn\d[^\n]*)\nStatus: [^\n]* installed\n"
    rb"(?:[A-Z][^\n]*\n| [^\n]*\n)*?Version: ([^\n]+)",
    re.MULTILINE,
)


def read_installations(root: Root, environment: Mapping[str, str]) -> CudaInstallations:
    """Where CUDA is installed, or was: in the customary places and where the search paths point."""
    paths = dict.fromkeys((*_customary(root), *_named_by(environment)))
    return CudaInstallations(
        directories=tuple(d for d in (_directory(path, root) for path in paths) if d),
        cudnn_packages=tuple(_packages(root)),
    )


def cuda_root(path: str) -> str:
    """The installation that a path belongs to: "/usr/local/cuda-12.5" of its lib64; "" for others."""
    match = _NAMED.match(posixpath.normpath(path)) if path.startswith("/") else None
    return match["root"] if match else ""


def _customary(root: Root) -> Iterator[str]:
    for parent, prefix in _PARENTS:
        try:
            names = sorted(root.listdir(parent))
        except OSError:
            continue
        yield from (f"{parent}/{name}" for name in names if cuda_root(f"{parent}/{name}") and name >= prefix)


def _named_by(environment: Mapping[str, str]) -> Iterator[str]:
    for variable in ("PATH", "LD_LIBRARY_PATH"):
        for entry in environment.get(variable, "").split(":"):
            found = cuda_root(entry)
            if found:
                yield found


def _directory(path: str, root: Root) -> CudaDirectory | None:
    try:
        target = root.readlink(path)
    except OSError:
        target = ""
    try:
        real = root.realpath(path) if root.is_dir(path) else ""
    except OSError:
        real = ""
    if not real:
        return CudaDirectory(path=path, real="", version="", target=target) if target else None
    return CudaDirectory(path=path, real=real, version=_version(real, root))


def _version(real: str, root: Root) -> str:
    match = _NAMED.match(real)
    if match and match["version"] and "." in match["version"]:
        return ".".join(match["version"].split(".")[:2])
    for name, pattern in (("version.json", _VERSION_JSON), ("version.txt", _VERSION_TXT)):
        try:
            found = pattern.search(root.read_bytes(f"{real}/{name}", 1 << 16))
        except OSError:
            continue
        if found:
            return found[1].decode()
    return ""


def _packages(root: Root) -> Iterator[SystemPackage]:
    """Installed packages only: dpkg keeps a paragraph for what was removed, too."""
    try:
        status = root.read_bytes(_DPKG)
    except OSError:
        return
    if b"\nPackage: libcudnn" not in status and not status.startswith(b"Package: libcudnn"):
        return
    for match in _CUDNN_PACKAGE.finditer(status):
        name, version = (part.decode("utf-8", "replace") for part in match.groups())
        yield SystemPackage(name=name, version=version, source=_DPKG)
