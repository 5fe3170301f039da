"""Kernelspecs of the user, read where Jupyter looks for them. Jupyter itself is not started."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping

import msgspec

from envdoctor.facts.model import Interpreter, Unavailable
from envdoctor.facts.model_jupyter import Jupyter, Kernel, UnreadableKernel
from envdoctor.facts.root import Root

MAX_KERNELS = 200  # a guard, not a promise: nobody has that many
_PYTHON = re.compile(r"(?:.*/)?(?:python|pypy)[\d.]*")
_VARIABLE = re.compile(r"\$(?:\$|(?P<name>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*)\})")


class _KernelFile(msgspec.Struct):
    """kernel.json, as far as it matters here (jupyter_client documentation: kernel specs)."""

    argv: list[str]
    display_name: str = ""
    language: str = ""
    env: dict[str, str] = {}


def read_jupyter(
    interpreter: Interpreter | Unavailable, environment: Mapping[str, str], root: Root
) -> Jupyter | Unavailable:
    """Every kernelspec that this user's Jupyter would find."""
    if isinstance(interpreter, Unavailable):
        return interpreter
    kernels: list[Kernel | UnreadableKernel] = []
    prefix = _real(interpreter.prefix, root)
    for directory, is_own in _directories(interpreter, environment):
        own = prefix if is_own else ""
        try:
            names = sorted(root.listdir(directory))
        except OSError:
            continue
        for name in names[: MAX_KERNELS - len(kernels)]:
            kernel = _kernel(f"{directory}/{name}/kernel.json", name, environment, root, own)
            if kernel is not None:
                kernels.append(kernel)
    return Jupyter(prefix=prefix, kernels=tuple(kernels))


def library_paths(jupyter: Jupyter | Unavailable, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """The environments, other than this shell's, in which kernels of the examined interpreter may start.

    They differ in LD_LIBRARY_PATH alone: what else a kernel sets does not move the loader.
    """
    if isinstance(jupyter, Unavailable):
        return []
    here = environment.get("LD_LIBRARY_PATH", "")
    paths = {
        kernel.environment.get("LD_LIBRARY_PATH", "")
        for kernel in jupyter.kernels
        if isinstance(kernel, Kernel) and kernel.prefix == jupyter.prefix
    }
    return [{**environment, "LD_LIBRARY_PATH": path} for path in sorted(paths - {here})]


def _directories(interpreter: Interpreter, environment: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    """`jupyter_core.paths.jupyter_path("kernels")`, and whether it is the environment's own.

    An environment's own directory comes before the user's: JUPYTER_PREFER_ENV_PATH is on by default in one
    since jupyter_core 5.0; outside of one (a system Python) it comes after.
    """
    user = environment.get("JUPYTER_DATA_DIR", "")
    home = environment.get("HOME", "")
    if not user and home:
        user = (environment.get("XDG_DATA_HOME") or f"{home}/.local/share") + "/jupyter"
    own = f"{interpreter.prefix}/share/jupyter"
    switch = environment.get("JUPYTER_PREFER_ENV_PATH", "").lower()
    prefers = (
        switch not in {"no", "n", "false", "off", "0", "0.0"} if switch else interpreter.kind != "system"
    )
    listed = [p for p in environment.get("JUPYTER_PATH", "").split(":") if p]
    listed += [own, user] if prefers else [user, own]
    listed += ["/usr/local/share/jupyter", "/usr/share/jupyter"]
    for place in dict.fromkeys(p.rstrip("/") for p in listed if p):
        yield f"{place}/kernels", place == own
    if home:
        yield f"{environment.get('IPYTHONDIR') or home + '/.ipython'}/kernels", False


def _kernel(
    path: str, name: str, environment: Mapping[str, str], root: Root, own: str
) -> Kernel | UnreadableKernel | None:
    """None where there is no kernel.json; `own` is the examined environment that it lies in, "" for none."""
    try:
        spec = msgspec.json.decode(root.read_bytes(path, 1 << 20), type=_KernelFile)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return UnreadableKernel(path=path, reason=f"{path}: {error.strerror}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return UnreadableKernel(path=path, reason=f"{path} is no kernelspec: {error}")
    first = spec.argv[0] if spec.argv else ""
    interpreter = first if first.startswith("/") and _PYTHON.fullmatch(first) else ""
    # `python` alone becomes the interpreter that Jupyter runs in (jupyter_client/manager.py)
    bare = own if "/" not in first and _PYTHON.fullmatch(first) else ""
    return Kernel(
        name=name.lower(),
        path=path,
        display_name=spec.display_name,
        language=spec.language.lower(),
        argv=tuple(spec.argv),
        environment={key: _expanded(value, environment) for key, value in spec.env.items()},
        interpreter=interpreter,
        prefix=_prefix(interpreter, root) if interpreter else bare,
        own=bool(own),
    )


def _expanded(value: str, environment: Mapping[str, str]) -> str:
    """${NAME} from the server's environment, unknown names left as they are (string.Template, as Jupyter)."""

    def replacement(match: re.Match[str]) -> str:
        name = match["name"] or match["braced"]
        return environment.get(name, match[0]) if name else "$"

    return _VARIABLE.sub(replacement, value)


def _prefix(interpreter: str, root: Root) -> str:
    """The environment of an interpreter: where its pyvenv.cfg or conda-meta is, else its installation."""
    directory = posixpath.dirname(posixpath.dirname(interpreter))
    try:
        if not root.is_file(interpreter):
            return ""
        if root.exists(f"{directory}/pyvenv.cfg") or root.exists(f"{directory}/conda-meta"):
            return root.realpath(directory)
        return posixpath.dirname(posixpath.dirname(root.realpath(interpreter)))
    except OSError:
        return ""


def _real(path: str, root: Root) -> str:
    try:
        return root.realpath(path)
    except OSError:
        return path
