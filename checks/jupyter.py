"""Jupyter kernels: does a notebook run what this shell runs?

Many kernels for many environments are the purpose of kernelspecs. Only those count that a user would take for
the examined environment: by lying in it, by bearing its name, or by starting its interpreter.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from envdoctor.checks.machine import title
from envdoctor.dependencies import imported
from envdoctor.facts.loader import RecordedView
from envdoctor.facts.model import Facts, Interpreter, known
from envdoctor.facts.model_jupyter import Jupyter, Kernel, UnreadableKernel
from envdoctor.finding import Evidence, Finding, SkipError, Unknown
from envdoctor.resolution import look_up
from envdoctor.shell import quoted

# Names that half of all environments have: a kernel of that name is as likely another project's.
_ANYBODYS = {
    "venv",
    ".venv",
    "env",
    ".env",
    "virtualenv",
    "base",
    "usr",
    "local",
    "python",
    "python3",
    "root",
}
_VARIABLE = "LD_LIBRARY_PATH"


def check_kernels(facts: Facts) -> Iterator[Finding | Unknown]:
    jupyter = known(facts.jupyter)
    interpreter = known(facts.interpreter)
    if not jupyter.kernels:
        raise SkipError("no Jupyter kernel is installed for this user")
    for kernel in jupyter.kernels:
        if isinstance(kernel, UnreadableKernel):
            yield Unknown("ENV003", kernel.reason)
    for kernel in _offered(jupyter):
        if kernel.language not in {"python", ""}:
            continue
        if kernel.prefix == jupyter.prefix:
            yield from _without_libraries(kernel, interpreter, facts)
        elif kernel.interpreter:
            yield from _another_interpreter(kernel, interpreter, facts)


def _another_interpreter(kernel: Kernel, interpreter: Interpreter, facts: Facts) -> Iterator[Finding]:
    why = _taken_for_this(kernel, interpreter, facts)
    if not why:
        return
    gone = "" if kernel.prefix else ", which does not exist"
    yield Finding(
        code="ENV003",
        subject=kernel.name,
        message=f"the Jupyter kernel {kernel.display_name or kernel.name!r} {why}, and starts "
        f"{kernel.interpreter}{gone}, not {interpreter.executable}",
        evidence=(
            Evidence("kernel", kernel.path, f"cat {quoted(kernel.path)}"),
            Evidence("starts", kernel.interpreter, "its argv[0]"),
            Evidence("examined", interpreter.executable, facts.target.chosen_by),
        ),
        remedy=_register(kernel.name, interpreter, own=kernel.own),
    )


def _taken_for_this(kernel: Kernel, interpreter: Interpreter, facts: Facts) -> str:
    """Why a user would expect the examined interpreter behind this kernel; "" where nobody would."""
    name = posixpath.basename(interpreter.prefix.rstrip("/")).lower()
    if kernel.own:
        return "lies in this environment"
    if interpreter.kind != "system" and name not in _ANYBODYS and name == kernel.name:
        return "bears this environment's name"
    # "Python 3" in a Jupyter that is started from this environment, where it finds the user's kernel first
    has_jupyter = imported("jupyter-client", facts) or imported("jupyter-core", facts)
    if kernel.name == "python3" and interpreter.kind != "system" and has_jupyter:
        return "is the one that Jupyter here starts as Python 3"
    return ""


def _without_libraries(kernel: Kernel, interpreter: Interpreter, facts: Facts) -> Iterator[Finding | Unknown]:
    """With this shell's LD_LIBRARY_PATH everything is found; would it be without, or with the kernel's own?

    A kernelspec that lies in the environment and sets nothing is started by the environment's own Jupyter,
    which inherits this shell's variables. One that is registered for the user is also started by others
    (JupyterHub, an editor), which never read this shell's start-up files.
    """
    here = facts.environment.get(_VARIABLE, "")
    there = kernel.environment.get(_VARIABLE, "")
    if here == there or (kernel.own and _VARIABLE not in kernel.environment):
        return
    view = RecordedView(facts.libraries)
    for libraries in facts.resolution:
        wanted = [n for n in libraries.needs if n.requirement.required]
        if not all(n.lookup.ok for n in wanted):
            continue  # not found here either: LIB... says so
        environment = {**facts.environment, _VARIABLE: there}
        lookups = look_up(view, environment, facts.program, libraries.framework).needs
        missing = [look.name for look in lookups if look.failures and look.name in {n.soname for n in wanted}]
        doubts = [d for look in lookups for d in look.doubts]
        if missing:
            value = f"{_VARIABLE}={there}" if _VARIABLE in kernel.environment else f"no {_VARIABLE}"
            yield Finding(
                code="ENV003",
                subject=kernel.name,
                framework=libraries.framework.name,
                message=f"the Jupyter kernel {kernel.display_name or kernel.name!r} sets {value}: "
                f"{title(libraries.framework)} finds {missing[0]} here and not there"
                + (f" ({len(missing)} libraries)" if len(missing) > 1 else ""),
                evidence=(
                    Evidence("kernel", kernel.path, f"cat {quoted(kernel.path)}"),
                    Evidence("this shell", f"{_VARIABLE}={here}", f"echo ${_VARIABLE}"),
                    Evidence("not found without it", ", ".join(missing), "the loader's rules"),
                ),
                remedy=_register(kernel.name, interpreter, own=kernel.own)
                + f" --env {_VARIABLE} {quoted(here)}",
            )
        elif doubts:
            yield Unknown("ENV003", f"{kernel.path}: {doubts[0]}")


def _offered(jupyter: Jupyter) -> list[Kernel]:
    """The first kernel of each name: the others are hidden by it."""
    found: dict[str, Kernel] = {}
    for kernel in jupyter.kernels:
        if isinstance(kernel, Kernel):
            found.setdefault(kernel.name, kernel)
    return list(found.values())


def _register(name: str, interpreter: Interpreter, *, own: bool) -> str:
    where = "--sys-prefix" if own else "--user"
    return f"{quoted(interpreter.executable)} -m ipykernel install {where} --name {quoted(name)}"
