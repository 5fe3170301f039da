"""The catalogue: complete, consistent, and with commands that can be pasted."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

from envdoctor.catalog import AREAS, CONDITIONS, Condition, Severity, condition, find
from envdoctor.catalog.page import file_name, leads_to, render_index, render_markdown

TOP = Path(__file__).resolve().parent.parent
LIST = TOP.parent / "shared" / "CONDITIONS.md"
SEVERITIES = {"E": Severity.ERROR, "E/W": Severity.ERROR, "W": Severity.WARNING, "N": Severity.NOTE}
EVERY_ROW = pytest.mark.parametrize("row", CONDITIONS, ids=lambda row: row.code)
NEEDS_ROOT = {
    "akmods",
    "apt-get",
    "dmesg",
    "dnf",
    "dracut",
    "modprobe",
    "mokutil --import",
    "poweroff",
    "reboot",
    "systemctl enable",
    "systemctl restart",
    "update-grub",
    "update-initramfs",
    "usermod",
}


def commands(row: Condition) -> list[str]:
    return [*row.see, *(command for repair in row.repairs for command in repair.commands)]


def prose(row: Condition) -> list[str]:
    repairs = [text for repair in row.repairs for text in (repair.situation, repair.advice)]
    return [row.title, row.means, row.why, *repairs, *row.sources]


def unquoted(command: str) -> str:
    """The part of a shell command that the shell itself reads: no quoted text, but what $(…) in it runs."""
    kept: list[str] = []
    inside: list[str] = []  # ' or " or ( for each thing that is open
    i = 0
    while i < len(command):
        at, top = command[i], inside[-1] if inside else ""
        if top == "'":
            if at == "'":
                inside.pop()
        elif at == "\\":
            i += 1
        elif command.startswith("$(", i):
            inside.append("(")
            kept.append(" ; ")
            i += 1
        elif at == '"':
            if top == '"':
                inside.pop()
            else:
                inside.append(at)
        elif top == '"':
            pass
        elif at == "'":
            inside.append(at)
        elif at == ")" and top == "(":
            inside.pop()
            kept.append(" ; ")
        else:
            kept.append(at)
        i += 1
    return "".join(kept)


def needs_editing(command: str) -> bool:
    bare = unquoted(command)
    return bool(re.search(r"\w\[[a-z]", bare) or re.search(r"\w[<>~!]=|\w[<>]\d", bare))


def runs_as_root_unmarked(command: str) -> bool:
    simple = (part.strip() for part in re.split(r"&&|\|\||[;|]", unquoted(command)))
    return any(part == name or part.startswith(name + " ") for part in simple for name in NEEDS_ROOT)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", TOP / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not LIST.exists(), reason="the list of conditions is not beside this checkout")
def test_the_catalogue_has_every_condition_of_the_list_in_its_order() -> None:
    wanted = re.findall(r"^\| ([A-Z]{3}\d{3}) \| (\S+) \| (E/W|E|W|N) \|", LIST.read_text(), re.MULTILINE)
    assert len(wanted) > 90
    codes = {code for code, _, _ in wanted}
    assert [(r.code, r.name, r.severity) for r in CONDITIONS if r.code in codes] == [
        (code, name, SEVERITIES[letter]) for code, name, letter in wanted
    ]


def test_codes_and_names_are_unique() -> None:
    assert len({row.code for row in CONDITIONS}) == len(CONDITIONS)
    assert len({row.name for row in CONDITIONS}) == len(CONDITIONS)


def test_every_module_of_conditions_is_an_area() -> None:
    modules = {p.stem for p in (TOP / "envdoctor" / "catalog").glob("*.py")}
    assert {a.__name__.rpartition(".")[2] for a in AREAS} == modules - {
        "__init__",
        "condition",
        "commands",
        "page",
    }


def test_a_condition_is_found_by_its_code_in_any_case_and_by_its_name() -> None:
    assert find("lib002") is find("pip-cuda-libs-not-on-path") is condition("LIB002")
    assert find("LIB999") is None


def test_causes_are_known_and_run_in_no_circle() -> None:
    graph = {row.code: row.follows_from for row in CONDITIONS}
    assert {code for causes in graph.values() for code in causes} <= set(graph)
    assert all(len(set(causes)) == len(causes) for causes in graph.values())
    list(TopologicalSorter(graph).static_order())


def test_an_unregistered_gpu_follows_from_what_prevents_it() -> None:
    causes = set(condition("PLC001").follows_from)
    assert {"DRV001", "DRV003", "LIB001", "LIB002", "CDN001", "PKG002", "GPU001", "GPU002"} <= causes
    assert not causes & {"LIB010", "DRV015", "XLA002", "THR001", "PLC006", "HST006"}
    assert leads_to(condition("LIB010")) == ()


@pytest.mark.parametrize("reference", sorted({row.check for row in CONDITIONS if row.check}))
def test_a_check_that_is_named_exists(reference: str) -> None:
    module, _, function = reference.partition(":")
    assert callable(getattr(importlib.import_module(f"envdoctor.checks.{module}"), function))


@EVERY_ROW
def test_a_row_says_what_why_how_to_see_it_and_how_to_repair_it(row: Condition) -> None:
    assert re.fullmatch(r"[A-Z]{3}\d{3}", row.code)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", row.name)
    assert "\n" not in row.title
    assert not row.title.endswith(".")
    assert row.means.endswith((".", ")"))
    assert row.means != row.title + "."
    assert row.why.endswith((".", '"'))
    assert row.see
    assert row.repairs
    assert all(repair.advice or repair.commands for repair in row.repairs)
    assert row.sources
    assert not row.runs_framework or row.check


@EVERY_ROW
def test_prose_is_finished_and_names_nothing_of_the_workshop(row: Condition) -> None:
    text = "\n".join([*prose(row), *commands(row)])
    assert not re.search(r"\b(TODO|FIXME|XXX|TBD)\b", text)
    assert "shared/" not in text
    assert "/work/" not in text
    assert not any("  " in part or part != part.strip() for part in prose(row))
    mentioned = set(re.findall(r"\b(?:HST|DRV|GPU|LIB|CDN|XLA|PKG|PLC|THR|ENV|NCC|VAL)\d{3}\b", text))
    assert all(find(code) for code in mentioned)


@EVERY_ROW
def test_commands_are_valid_shell_and_survive_being_pasted(row: Condition) -> None:
    for command in commands(row):
        parsed = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
        assert parsed.returncode == 0, (command, parsed.stderr)
        assert not needs_editing(command), command
        assert "\n" not in command
        assert not re.search(r"<[A-Za-z_-]+>|\bYOUR_|/path/to", command), command
        assert not runs_as_root_unmarked(command), command


@pytest.mark.parametrize(
    "command",
    [
        "pip install tensorflow[and-cuda]",
        "pip install tensorflow>=2.14",
        "pip install numpy<2",
        'pip install "$(echo torch>=2)"',
    ],
)
def test_an_unquoted_requirement_is_noticed(command: str) -> None:
    assert needs_editing(command)


@pytest.mark.parametrize(
    "command",
    [
        "pip install 'tensorflow[and-cuda]>=2.14'",
        'pip install "tensorflow[and-cuda]==$(python -c \'print("2.21.0")\')"',
        "python -c 'print(1 >= 0)' 2>&1 | grep -E '[a-z]' >/dev/null",
    ],
)
def test_a_quoted_requirement_is_not(command: str) -> None:
    assert not needs_editing(command)


def test_root_is_noticed_where_it_is_not_marked() -> None:
    assert runs_as_root_unmarked("true && apt-get install -y foo")
    assert not runs_as_root_unmarked("sudo apt-get install -y foo && apt-cache policy foo")


@EVERY_ROW
def test_a_page_holds_every_command_and_links_only_to_pages_that_exist(row: Condition) -> None:
    page = render_markdown(row)
    assert page.startswith(f"# {row.code} {row.name}\n")
    assert page.endswith("\n")
    assert "\n\n\n" not in page
    for command in commands(row):
        assert f"\n{command}\n" in page
    assert set(re.findall(r"\]\(([^)]+\.md)\)", page)) <= {file_name(other) for other in CONDITIONS}


def test_the_index_links_to_every_page() -> None:
    assert re.findall(r"\]\(([^)]+\.md)\)", render_index()) == [file_name(row) for row in CONDITIONS]


def test_the_generated_docs_are_up_to_date(generate: ModuleType) -> None:
    assert generate.differing() == []


def test_generating_writes_what_is_missing_and_removes_what_belongs_to_no_condition(
    generate: ModuleType, tmp_path: Path
) -> None:
    generate.write(tmp_path)
    (tmp_path / "OLD001-gone.md").write_text("old")
    (tmp_path / "README.md").write_text("edited by hand")
    assert generate.differing(tmp_path) == ["OLD001-gone.md", "README.md"]
    assert generate.write(tmp_path) == ["OLD001-gone.md", "README.md"]
    assert generate.differing(tmp_path) == []


def test_check_names_the_files_that_differ(
    generate: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["generate.py", "--check"])
    monkeypatch.setattr(generate, "differing", lambda: ["LIB002-pip-cuda-libs-not-on-path.md"])
    assert generate.main() == 1
    assert "docs/conditions/LIB002-pip-cuda-libs-not-on-path.md" in capsys.readouterr().err
