"""Repairs of Jupyter kernelspecs: a kernel reads its kernel.json, and no shell's start-up files."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec.structs import replace

from envdoctor.facts.model import Facts, Interpreter
from envdoctor.facts.model_jupyter import Jupyter, Kernel
from envdoctor.finding import Finding
from envdoctor.fixes.exports import extended, unexportable
from envdoctor.fixes.plan import FileEdit, Join, Kernelspec, Risk, decode, encode
from envdoctor.fixes.repair import Repair, Wishes

VARIABLE = "LD_LIBRARY_PATH"


def repair_kernel(facts: Facts, finding: Finding, _wishes: Wishes) -> Iterator[Repair]:
    """ENV003: the entries that the kernel lacks, in its `env`; or the interpreter of its own environment."""
    kernel = next((k for k in kernels(facts) if k.name == finding.subject), None)
    if kernel is None:
        return
    if kernel.prefix == _prefix(facts):
        yield from _with_libraries(facts, finding, kernel)
    elif kernel.own:
        yield from _with_own_interpreter(facts, finding, kernel)


def _with_libraries(facts: Facts, finding: Finding, kernel: Kernel) -> Iterator[Repair]:
    repair = with_variable(facts, kernel, finding.code, VARIABLE, needed(facts))
    if repair is not None:
        yield repair


def needed(facts: Facts) -> tuple[str, ...]:
    """Of this shell's entries those where a framework finds a library, or the driver's.

    The rest is not the kernel's business; and these are all, since what the kernel sets hides what it would
    inherit.
    """
    found = set()
    for libraries in facts.resolution:
        for lookup in (*(need.lookup for need in libraries.needs), libraries.driver):
            if lookup.path:
                found.add(posixpath.normpath(posixpath.dirname(lookup.path)))
    entries = facts.environment.get(VARIABLE, "").split(":")
    return tuple(dict.fromkeys(e for e in entries if e.startswith("/") and posixpath.normpath(e) in found))


def _with_own_interpreter(facts: Facts, finding: Finding, kernel: Kernel) -> Iterator[Repair]:
    """A kernel in an environment that starts another's Python: the environment was moved or copied."""
    interpreter = facts.interpreter
    if not isinstance(interpreter, Interpreter):
        return

    def set_interpreter(spec: dict[str, Any]) -> None:
        spec["argv"][0] = interpreter.executable

    edit = _edited(facts, kernel, set_interpreter)
    if edit is None:
        return
    argv = (interpreter.executable, *kernel.argv[1:])
    changed = replace(kernel, argv=argv, interpreter=interpreter.executable, prefix=_prefix(facts))
    action = Kernelspec(
        code=finding.code,
        summary=f"let the Jupyter kernel {kernel.name!r} start {interpreter.executable}",
        reason="the kernelspec lies in this environment",
        risk=Risk.LOW,
        kernel=kernel.name,
        environment={},
        edits=(edit,),
    )
    yield Repair((action,), _after(facts, kernel, changed, edit))


def with_variable(
    facts: Facts, kernel: Kernel, code: str, variable: str, values: tuple[str, ...]
) -> Repair | None:
    """The kernel with `values` in front of what its own `env` says of the variable; None where it cannot be.

    Jupyter takes `$NAME` and `${NAME}` in a value from the server's environment, and `$$` as a dollar
    (jupyter_client, kernelspec `env`); a name that the server lacks stays as it is written. So nothing is
    taken from there.
    """
    if unexportable(variable, values, Join.PATH):
        return None
    escaped = tuple(value.replace("$", "$$") for value in values)
    shown: dict[str, str] = {}

    def extend(spec: dict[str, Any]) -> None:
        environment = spec.setdefault("env", {})
        shown[variable] = extended(environment.get(variable, ""), escaped, Join.PATH)
        environment[variable] = shown[variable]

    edit = _edited(facts, kernel, extend)
    if edit is None:
        return None
    action = Kernelspec(
        code=code,
        summary=f"set {variable} in the Jupyter kernel {kernel.display_name or kernel.name!r}",
        reason="a notebook reads its kernelspec, and no shell's start-up files",
        risk=Risk.LOW,
        kernel=kernel.name,
        environment=shown,
        edits=(edit,),
    )
    value = extended(kernel.environment.get(variable, ""), values, Join.PATH)
    changed = replace(kernel, environment={**kernel.environment, variable: value})
    return Repair((action,), _after(facts, kernel, changed, edit))


def kernels(facts: Facts) -> list[Kernel]:
    """The kernels that start, in the order in which Jupyter looks: the first of each name."""
    if not isinstance(facts.jupyter, Jupyter):
        return []
    found: dict[str, Kernel] = {}
    for kernel in facts.jupyter.kernels:
        if isinstance(kernel, Kernel):
            found.setdefault(kernel.name, kernel)
    return list(found.values())


def _prefix(facts: Facts) -> str:
    return facts.jupyter.prefix if isinstance(facts.jupyter, Jupyter) else ""


def _edited(facts: Facts, kernel: Kernel, change: Any) -> FileEdit | None:
    """kernel.json with a change, in the file's own indentation; None where it cannot be written back."""
    before = facts.editable.get(kernel.path)
    if before is None:
        return None
    text = decode(before)
    try:
        spec = json.loads(text)
        change(spec)
        indent = re.search(r"\n([ \t]+)\"", text)
        ascii_only = before.isascii()
        after = encode(
            json.dumps(spec, indent=indent[1] if indent else None, ensure_ascii=ascii_only)
            + ("\n" if text.endswith("\n") else "")
        )
    except (ValueError, TypeError, AttributeError, LookupError):
        return None
    return FileEdit(path=kernel.path, before=before, after=after) if after != before else None


def _after(facts: Facts, kernel: Kernel, changed: Kernel, edit: FileEdit) -> Facts:
    jupyter = facts.jupyter
    assert isinstance(jupyter, Jupyter)
    found = tuple(changed if k is kernel else k for k in jupyter.kernels)
    return replace(
        facts, jupyter=replace(jupyter, kernels=found), editable={**facts.editable, edit.path: edit.after}
    )


def in_need(facts: Facts, environment: Mapping[str, str]) -> list[Kernel]:
    """Kernels of this environment that other programs start: they will not read its activation scripts."""
    return [
        kernel
        for kernel in kernels(facts)
        if kernel.prefix == _prefix(facts)
        and (not kernel.own or VARIABLE in kernel.environment)
        and kernel.path in facts.editable
        and kernel.environment.get(VARIABLE, "") != environment.get(VARIABLE, "")
    ]
