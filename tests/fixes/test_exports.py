"""Exports in activation scripts, as real shells read them, in a real venv's scripts."""

from __future__ import annotations

import os
import venv
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envdoctor.facts.editable import ACTIVATION_SCRIPTS
from envdoctor.fixes.exports import CONDA_FILES, VENV_FILES, shell_line, unexportable, venv_edits
from envdoctor.fixes.joining import extended, merged
from envdoctor.fixes.plan import Destination, Export, FileEdit, Join, Symlink, as_json, render_diff
from envdoctor.fixes.shells import conda_activate, conda_deactivate, venv_activate
from tests.fixes.real_shells import SHELLS, run_shell, show

PATH, FLAGS, THREADS = "LD_LIBRARY_PATH", "XLA_FLAGS", "OMP_NUM_THREADS"
NASTY = ("/tmp/a b'c\"d$HOME`id`!x\\y*[z]?~\n#w é!", "/end\\")
NASTY_FLAGS = ("--xla_dir=/a$HOME`id`!x\\y*[z]?~#é!", "--end\\")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The activation scripts of a real venv."""
    prefix = tmp_path_factory.mktemp("venv")
    venv.create(prefix, with_pip=False)
    return {name: (prefix / "bin" / name).read_bytes() for name in {s.activation for s in SHELLS.values()}}


def put(at: Path, scripts: dict[str, bytes], variable: str, values: tuple[str, ...], join: Join) -> None:
    """The export in the venv at `at`, made of `scripts` where it is not there yet."""
    (at / "bin").mkdir(parents=True, exist_ok=True)
    paths = {str(at / "bin" / name): data for name, data in scripts.items()}
    found = {path: Path(path).read_bytes() if Path(path).exists() else data for path, data in paths.items()}
    for edit in venv_edits(str(at), variable, values, join, found):
        Path(edit.path).write_bytes(edit.after)


def source(shell: str, at: Path) -> str:
    return f"{SHELLS[shell].source} {at / 'bin' / SHELLS[shell].activation}\n"


@pytest.mark.parametrize("start", [None, b"", b"/old", b"/old:/o2:", b":", b"/x y\xff"])
@pytest.mark.parametrize("shell", SHELLS)
def test_activation_puts_the_entries_in_front_once_and_deactivation_takes_them_out(
    tmp_path: Path, scripts: dict[str, bytes], shell: str, start: bytes | None
) -> None:
    put(tmp_path, scripts, PATH, NASTY, Join.PATH)
    strict = "set -eu\n" if shell in {"bash", "dash"} else ""
    script = strict + (source(shell, tmp_path) + show(PATH)) * 2 + "deactivate\n" + show(PATH)
    added = os.fsencode(":".join(NASTY))
    inside = added + (b":" + start if start else b"")
    after = (start or None) if SHELLS[shell].deactivates else inside
    assert run_shell(shell, script, {PATH: start}) == [inside, inside, after]


@pytest.mark.parametrize("start", [None, b"", b"--old=1 --o2", b" --old", b"/flags.txt"])
@pytest.mark.parametrize("shell", SHELLS)
def test_flags_are_put_in_front_once_and_taken_out_and_a_flag_files_name_is_left_alone(
    tmp_path: Path, scripts: dict[str, bytes], shell: str, start: bytes | None
) -> None:
    put(tmp_path, scripts, FLAGS, NASTY_FLAGS, Join.WORDS)
    strict = "set -eu\n" if shell in {"bash", "dash"} else ""
    script = strict + (source(shell, tmp_path) + show(FLAGS)) * 2 + "deactivate\n" + show(FLAGS)
    inside = os.fsencode(extended(os.fsdecode(start or b""), NASTY_FLAGS, Join.WORDS))
    assert (inside == start) == (start == b"/flags.txt")
    after = (start or None) if SHELLS[shell].deactivates else inside
    assert run_shell(shell, script, {FLAGS: start}) == [inside, inside, after]


@pytest.mark.parametrize(("start", "inside"), [(None, b"2"), (b"", b"2"), (b"8", b"8")])
@pytest.mark.parametrize("shell", SHELLS)
def test_a_default_is_set_where_nothing_is_and_taken_out(
    tmp_path: Path, scripts: dict[str, bytes], shell: str, start: bytes | None, inside: bytes
) -> None:
    put(tmp_path, scripts, THREADS, ("2",), Join.DEFAULT)
    strict = "set -eu\n" if shell in {"bash", "dash"} else ""
    script = strict + (source(shell, tmp_path) + show(THREADS)) * 2 + "deactivate\n" + show(THREADS)
    after = (start or None) if SHELLS[shell].deactivates else inside
    assert run_shell(shell, script, {THREADS: start}) == [inside, inside, after]


@pytest.mark.parametrize("shell", SHELLS)
def test_exports_of_three_variables_stand_side_by_side(
    tmp_path: Path, scripts: dict[str, bytes], shell: str
) -> None:
    put(tmp_path, scripts, PATH, ("/a", "/b"), Join.PATH)
    put(tmp_path, scripts, FLAGS, ("--a=/b",), Join.WORDS)
    put(tmp_path, scripts, THREADS, ("2",), Join.DEFAULT)
    every = show(PATH) + show(FLAGS) + show(THREADS)
    script = source(shell, tmp_path) * 2 + every + "deactivate\n" + every
    seen = run_shell(shell, script, {PATH: b"/old", FLAGS: b"--old", THREADS: None})
    inside: list[bytes | None] = [b"/a:/b:/old", b"--a=/b --old", b"2"]
    after: list[bytes | None] = [b"/old", b"--old", None]
    assert seen == inside + (after if SHELLS[shell].deactivates else inside)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_second_repair_is_read_beside_the_first(
    tmp_path: Path, scripts: dict[str, bytes], shell: str
) -> None:
    put(tmp_path, scripts, PATH, ("/first",), Join.PATH)
    script = source(shell, tmp_path) + show(PATH)
    assert run_shell(shell, script, {PATH: b"/old"}) == [b"/first:/old"]
    put(tmp_path, scripts, PATH, ("/second",), Join.PATH)
    assert run_shell(shell, script, {PATH: b"/old"}) == [b"/second:/first:/old"]


def test_every_file_that_an_export_may_edit_is_read_first() -> None:
    """A file that was not read would be taken for one that somebody else made."""
    assert {*VENV_FILES, *CONDA_FILES} == {*ACTIVATION_SCRIPTS}


def test_a_flag_given_anew_takes_the_earlier_ones_place() -> None:
    """Of two, XLA takes the last: the earlier one behind ours would win."""
    earlier = ("--xla_gpu_cuda_data_dir=/old", "--xla_dump_to=/tmp")
    new = ("--xla_gpu_cuda_data_dir=/new",)
    assert merged(new, earlier, Join.WORDS) == (*new, "--xla_dump_to=/tmp")


@pytest.mark.parametrize("shell", ["bash", "zsh", "dash", "fish", "tcsh"])
def test_what_the_user_added_since_activation_survives_deactivation(
    tmp_path: Path, scripts: dict[str, bytes], shell: str
) -> None:
    put(tmp_path, scripts, PATH, ("/ours/1", "/ours/2"), Join.PATH)
    mine = {
        "fish": f"set -gx {PATH} /mine ${PATH}\n",
        "tcsh": f"setenv {PATH} /mine:${PATH}\n",
    }.get(shell, f'export {PATH}="/mine:${PATH}"\n')
    script = source(shell, tmp_path) + mine + show(PATH) + "deactivate\n" + show(PATH)
    inside = b"/mine:/ours/1:/ours/2:/old"
    cuts = shell not in {"dash", "tcsh"}
    assert run_shell(shell, script, {PATH: b"/old"}) == [inside, b"/mine:/old" if cuts else inside]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_flags_that_the_user_added_since_activation_survive_deactivation(
    tmp_path: Path, scripts: dict[str, bytes], shell: str
) -> None:
    put(tmp_path, scripts, FLAGS, ("--ours=1", "--ours=2"), Join.WORDS)
    mine = (
        f'set -gx {FLAGS} "--mine ${FLAGS}"\n' if shell == "fish" else f'export {FLAGS}="--mine ${FLAGS}"\n'
    )
    script = source(shell, tmp_path) + mine + show(FLAGS) + "deactivate\n" + show(FLAGS)
    assert run_shell(shell, script, {FLAGS: b"--old"}) == [b"--mine --ours=1 --ours=2 --old", b"--mine --old"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_default_that_the_user_changed_since_activation_survives_deactivation(
    tmp_path: Path, scripts: dict[str, bytes], shell: str
) -> None:
    put(tmp_path, scripts, THREADS, ("2",), Join.DEFAULT)
    mine = {"fish": f"set -gx {THREADS} 3\n", "tcsh": f"setenv {THREADS} 3\n"}.get(
        shell, f"export {THREADS}=3\n"
    )
    script = source(shell, tmp_path) + mine + "deactivate\n" + show(THREADS)
    assert run_shell(shell, script, {THREADS: None}) == [b"3"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh"])
def test_going_from_one_environment_to_another_leaves_nothing_of_the_first(
    tmp_path: Path, scripts: dict[str, bytes], shell: str
) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    put(first, scripts, PATH, ("/ours/1",), Join.PATH)
    put(first, scripts, THREADS, ("1",), Join.DEFAULT)
    put(second, scripts, PATH, ("/ours/2",), Join.PATH)
    put(second, scripts, THREADS, ("2",), Join.DEFAULT)
    every = show(PATH) + show(THREADS)
    script = source(shell, first) + source(shell, second) + every + "deactivate\n" + every
    seen = run_shell(shell, script, {PATH: b"/old", THREADS: None})
    assert seen == [b"/ours/2:/old", b"2", b"/old", None]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_deactivate_still_does_what_it_did(tmp_path: Path, scripts: dict[str, bytes], shell: str) -> None:
    put(tmp_path, scripts, PATH, ("/a",), Join.PATH)
    put(tmp_path, scripts, FLAGS, ("--a",), Join.WORDS)
    script = (
        f"before=$PATH\n{source(shell, tmp_path)}deactivate\n"
        '[ "$before" = "$PATH" ] && [ -z "${VIRTUAL_ENV+x}" ] && echo b\\"same\\"\n'
        "typeset -f | grep -e deactivate -e envdoctor\ntrue\n"
    )
    assert run_shell(shell, script, {}) == [b"same"]


def test_in_csh_deactivate_still_does_what_it_did(tmp_path: Path, scripts: dict[str, bytes]) -> None:
    put(tmp_path, scripts, PATH, ("/a",), Join.PATH)
    put(tmp_path, scripts, FLAGS, ("--a",), Join.WORDS)
    before = show("PATH")
    script = before + source("tcsh", tmp_path) + "deactivate\n" + before + show("VIRTUAL_ENV")
    script += 'if ( "`alias deactivate`" == "" ) echo \'b"gone"\'\n'
    first, second, venv_variable, alias = run_shell("tcsh", script, {})
    assert (first, venv_variable, alias) == (second, None, b"gone")


def test_an_entry_that_is_in_front_already_is_neither_added_nor_taken_out(
    tmp_path: Path, scripts: dict[str, bytes]
) -> None:
    put(tmp_path, scripts, PATH, ("/a",), Join.PATH)
    for shell in SHELLS:
        script = source(shell, tmp_path) + show(PATH) + "deactivate\n" + show(PATH)
        assert run_shell(shell, script, {PATH: b"/a:/b"}) == [b"/a:/b", b"/a:/b"]


def test_a_venv_inside_an_active_conda_environment_leaves_that_ones_entries(
    tmp_path: Path, scripts: dict[str, bytes]
) -> None:
    put(tmp_path, scripts, PATH, ("/venv",), Join.PATH)
    script = (
        conda_activate("sh", PATH, ("/conda",), Join.PATH)
        + source("bash", tmp_path)
        + show(PATH)
        + "deactivate\n"
        + show(PATH)
        + conda_deactivate("sh", PATH, (), Join.PATH)
        + show(PATH)
    )
    assert run_shell("bash", script, {PATH: None}) == [b"/venv:/conda", b"/conda", None]


names = st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & set(b"/:;\0")).map(os.fsdecode)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(names.map("/{}".format), min_size=1, max_size=3).map(tuple))
def test_bash_sees_exactly_the_intended_bytes_of_any_path(entries: tuple[str, ...]) -> None:
    if unexportable(PATH, entries):
        return
    body = venv_activate("sh", PATH, entries, Join.PATH)
    line = shell_line(PATH, entries, Join.PATH)
    unset = f"unset {PATH} _ENVDOCTOR_VENV_{PATH}\n"
    script = f"{body}{show(PATH)}{unset}{line}\n{line}\n{show(PATH)}"
    value = os.fsencode(":".join(entries))
    assert run_shell("bash", script, {PATH: b"/old"}) == [value + b":/old", value]


# --- one line ---------------------------------------------------------------------------------------

EVALUATED = {
    "sh": "eval \"$(cat '{file}')\"\n",
    "fish": "cat '{file}' | source\n",
    "csh": "eval \"`cat '{file}'`\"\n",
}


@pytest.mark.parametrize(
    ("variable", "values", "join", "start"),
    [
        (PATH, ("/tmp/a  b'c\"d$HOME`id`!x\\y*[z]?~{q}#w é!", "/end\\"), Join.PATH, None),
        (PATH, ("/tmp/a  b'c\"d$HOME`id`!x\\y*[z]?~{q}#w é!", "/end\\"), Join.PATH, b""),
        (PATH, ("/a*", "/b"), Join.PATH, b"/a:/b:/old"),
        (PATH, ("/a",), Join.PATH, b"/ab:"),
        (FLAGS, NASTY_FLAGS, Join.WORDS, None),
        (FLAGS, NASTY_FLAGS, Join.WORDS, b"--old --x"),
        (FLAGS, NASTY_FLAGS, Join.WORDS, b" --old"),
        (FLAGS, NASTY_FLAGS, Join.WORDS, b"/flags.txt"),
        (THREADS, ("2",), Join.DEFAULT, None),
        (THREADS, ("2",), Join.DEFAULT, b""),
        (THREADS, ("2",), Join.DEFAULT, b"8"),
        ("A_NAME", ("x  y'z\"!$HOME",), Join.DEFAULT, None),
    ],
)
@pytest.mark.parametrize("shell", SHELLS)
def test_a_line_extends_the_variable_and_twice_adds_nothing(
    tmp_path: Path, shell: str, variable: str, values: tuple[str, ...], join: Join, start: bytes | None
) -> None:
    file = tmp_path / "line"
    file.write_bytes(os.fsencode(shell_line(variable, values, join, SHELLS[shell].kind) + "\n"))
    strict = "set -eu\n" if shell in {"bash", "dash"} else ""
    script = strict + EVALUATED[SHELLS[shell].kind].format(file=file) * 2 + show(variable)
    expected = os.fsencode(extended(os.fsdecode(start or b""), values, join))
    assert run_shell(shell, script, {variable: start}) == [expected]


def test_a_newline_is_held_by_every_shell_but_csh() -> None:
    for shell in ("sh", "bash", "zsh", "fish"):
        assert "\n" in shell_line(PATH, ("/a\nb",), Join.PATH, shell)
    with pytest.raises(ValueError, match="csh cannot"):
        shell_line(PATH, ("/a\nb",), Join.PATH, "csh")


# --- as shown ---------------------------------------------------------------------------------------


def test_the_diff_of_an_export_is_unified_and_that_of_a_link_one_line() -> None:
    edits = (
        FileEdit(path="/v/a", before=b"one\r\ntwo", after=b"one\r\ntwo\nthree"),
        FileEdit(path="/v/new", before=None, after=b"x\n"),
    )
    action = Export(
        code="LIB003",
        summary="s",
        variable=PATH,
        values=("/a",),
        destination=Destination.VENV,
        edits=edits,
    )
    assert render_diff(action) == (
        "--- /v/a\n+++ /v/a\n@@ -1,2 +1,3 @@\n one\r\n-two\n\\ No newline at end of file\n"
        "+two\n+three\n\\ No newline at end of file\n"
        "--- /dev/null\n+++ /v/new\n@@ -0,0 +1 @@\n+x\n"
    )
    link = Symlink(code="LIB002", summary="s", path="/v/l", target="../t")
    assert render_diff(link) == "+ /v/l -> ../t\n"


def test_an_action_as_json_names_its_kind_code_summary_and_risk() -> None:
    link = Symlink(code="LIB002", summary="s", path="/v/\udcff", target="../t")
    assert as_json(link) == {
        "kind": "symlink",
        "code": "LIB002",
        "summary": "s",
        "risk": "none",
        "reason": "",
        "path": "/v/\udcff",
        "target": "../t",
    }
