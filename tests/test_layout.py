"""The rules of the house that a machine can hold: what may import what, and what gets packaged."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

TOP = Path(__file__).resolve().parent.parent
READS_OR_CHANGES = {
    "subprocess",
    "ctypes",
    "pynvml",
    "os",
    "pathlib",
    "io",
    "shutil",
    "socket",
    "tempfile",
    "psutil",
}
CHANGES_THE_MACHINE = {"executor.py", "placing.py", "journal.py", "running.py"}  # the executor, in parts
EXPLAIN = TOP / "envdoctor" / "explain"
READS_LOGS = {"reading.py", "cuda_errors.py"}  # the user's file; a table of ours
PURE = sorted(
    [
        *(TOP / "checks").glob("*.py"),
        *(p for p in (TOP / "fixes").glob("*.py") if p.name not in CHANGES_THE_MACHINE),
        *(TOP / "envdoctor" / "catalog").glob("*.py"),
        *(p for p in EXPLAIN.glob("*.py") if p.name not in READS_LOGS),
        TOP / "envdoctor" / "diagnose.py",
        TOP / "envdoctor" / "resolution.py",
        TOP / "envdoctor" / "dependencies.py",
        TOP / "envdoctor" / "versions.py",
        TOP / "envdoctor" / "facts" / "loader_model.py",
        TOP / "envdoctor" / "facts" / "unavailable.py",
        *(TOP / "envdoctor" / "facts").glob("model*.py"),
    ]
)


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", PURE, ids=lambda p: str(p.relative_to(TOP)))
def test_checks_and_fixes_neither_read_nor_change_the_machine(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imported(path)} & READS_OR_CHANGES
    opened = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"open", "exec", "eval"}
    ]
    assert not opened


def test_the_packaged_list_is_what_stands_on_the_disk() -> None:
    config = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["setuptools"]
    mapped = {"envdoctor.checks": "checks", "envdoctor.fixes": "fixes"}
    assert config["package-dir"] == mapped
    on_disk = {
        ".".join(path.parent.relative_to(TOP).parts)
        for path in (TOP / "envdoctor").rglob("__init__.py")
        if not {"checks", "fixes"} & set(path.relative_to(TOP).parts)
    }
    assert sorted(on_disk | set(mapped)) == sorted(config["packages"])


def test_checks_and_fixes_are_imported_under_envdoctor_only() -> None:
    sources = [
        p for d in ("envdoctor", "checks", "fixes", "tests", "benchmarks") for p in (TOP / d).rglob("*.py")
    ]
    bare = [p for p in sources if {n.partition(".")[0] for n in imported(p)} & {"checks", "fixes"}]
    assert bare == []


def test_probes_are_plain_python_3_7() -> None:
    for path in (TOP / "envdoctor" / "facts" / "probes").glob("*_probe.py"):
        ast.parse(path.read_text(), feature_version=(3, 7))


def test_the_program_names_nothing_outside_its_own_tree() -> None:
    for directory in ("envdoctor", "checks", "fixes"):
        for path in (TOP / directory).rglob("*.py"):
            assert "../shared" not in path.read_text(), path
