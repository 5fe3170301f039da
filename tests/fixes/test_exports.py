"""Export blocks: put in and taken out exactly, and what real shells make of them."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envdoctor.fixes import exports
from envdoctor.fixes.plan import Destination, Export, FileEdit, Symlink, as_json, decode, encode, render_diff

VARIABLE = "LD_LIBRARY_PATH"
NASTY = ("/tmp/a b'c\"d$HOME`id`!x\\y*[z]?~\n#w é!", "/end\\")
SHOW = f"{sys.executable} -c 'import os; print(ascii(os.environb.get(b\"{VARIABLE}\")))'"

# --- in a text --------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\n\r# ")) | st.lists(
    st.sampled_from(["a\n", "b\r\n", "\n", "\r", "last", "# >>> conda initialize >>>\n"])
).map("".join)


def block(*entries: str) -> str:
    return exports.block(VARIABLE, exports.venv_posix(VARIABLE, entries or ("/a",)))


@given(texts)
def test_remove_is_the_exact_inverse_of_insert(text: str) -> None:
    assert exports.remove(exports.insert(text, VARIABLE, block()), VARIABLE) == text


@given(st.binary())
def test_bytes_that_are_not_utf8_survive_insert_and_remove(data: bytes) -> None:
    text = exports.insert(decode(data), VARIABLE, block())
    assert encode(exports.remove(decode(encode(text)), VARIABLE)) == data


@given(texts)
def test_insert_replaces_an_earlier_block_in_its_place(text: str) -> None:
    once = exports.insert(text, VARIABLE, block("/a"))
    assert exports.insert(once, VARIABLE, block("/a")) == once
    again = exports.insert(once, VARIABLE, block("/b"))
    assert again == exports.insert(text, VARIABLE, block("/b"))
    assert exports.remove(again, VARIABLE) == text


@given(texts)
def test_blocks_of_two_variables_do_not_touch_each_other(text: str) -> None:
    other = exports.block("PYTHONPATH", exports.venv_posix("PYTHONPATH", ("/p",)))
    both = exports.insert(exports.insert(text, VARIABLE, block()), "PYTHONPATH", other)
    assert exports.remove(exports.remove(both, "PYTHONPATH"), VARIABLE) == text
    assert exports.remove(both, VARIABLE).count(other.removesuffix("\n")) == 1


def test_lines_added_after_the_block_stay_when_it_is_removed() -> None:
    text = exports.insert("first", VARIABLE, block()) + "\nmine\n"
    assert exports.remove(text, VARIABLE) == "first\nmine\n"


def test_a_block_in_a_file_that_an_editor_gave_crlf_is_still_found() -> None:
    text = exports.insert("a\n", VARIABLE, block()).replace("\n", "\r\n")
    assert exports.remove(text, VARIABLE) == "a\r\n"


@pytest.mark.parametrize(
    "cut", ["# >>> envdoctor LD_LIBRARY_PATH >>>\n", "# <<< envdoctor LD_LIBRARY_PATH <<<\n"]
)
def test_a_block_with_a_mark_missing_is_not_guessed_at(cut: str) -> None:
    text = exports.insert("a\n", VARIABLE, block()).replace(cut, "")
    with pytest.raises(ValueError, match=r"marks .* were edited"):
        exports.insert(text, VARIABLE, block())


@pytest.mark.parametrize(
    ("variable", "entry"),
    [
        (VARIABLE, "/a:b"),
        (VARIABLE, "/a;b"),
        (VARIABLE, "/a/$ORIGIN/b"),
        (VARIABLE, "/a/${LIB}"),
        (VARIABLE, "relative"),
        (VARIABLE, ""),
        (VARIABLE, "/a\0"),
        (VARIABLE, "/a\n# <<< envdoctor LD_LIBRARY_PATH <<<\n"),
        ("PATH; rm -rf /", "/a"),
    ],
)
def test_what_a_search_path_cannot_hold_is_refused(variable: str, entry: str) -> None:
    assert exports.unexportable(variable, (entry,))
    with pytest.raises(ValueError):
        exports.venv_edits("/v", variable, (entry,), {"/v/bin/activate": b""})


def test_only_the_activation_scripts_that_are_there_are_edited() -> None:
    edits = exports.venv_edits("/v", VARIABLE, ("/a",), {"/v/bin/activate": b"", "/v/bin/activate.csh": b""})
    assert [edit.path for edit in edits] == ["/v/bin/activate", "/v/bin/activate.csh"]
    again = exports.venv_edits("/v", VARIABLE, ("/a",), {edit.path: edit.after for edit in edits})
    assert again == ()


# --- in real shells ---------------------------------------------------------------------------------

SHELLS = {
    "bash": ("activate", ["--norc"], True),
    "zsh": ("activate", ["-f"], True),
    "dash": ("activate", [], False),
    "fish": ("activate.fish", ["--no-config"], True),
    "tcsh": ("activate.csh", ["-f"], False),
}


def run_shell(shell: str, script: str, start: bytes | None) -> list[bytes | None]:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    environment = {k: v for k, v in os.environb.items() if k != VARIABLE.encode()}
    environment |= {b"LC_ALL": b"C.UTF-8"} | ({VARIABLE.encode(): start} if start is not None else {})
    done = subprocess.run(
        [found, *SHELLS[shell][1]],
        input=os.fsencode(script),
        env=environment,
        capture_output=True,
        check=False,
    )
    assert done.stderr == b""
    assert done.returncode == 0
    return [ast.literal_eval(line.decode()) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The activation scripts of a real venv."""
    prefix = tmp_path_factory.mktemp("venv")
    venv.create(prefix, with_pip=False)
    return {name: (prefix / "bin" / name).read_bytes() for name, *_ in SHELLS.values()}


def write_scripts(at: Path, scripts: dict[str, bytes], entries: tuple[str, ...]) -> None:
    found = {str(at / "bin" / name): data for name, data in scripts.items()}
    (at / "bin").mkdir(parents=True)
    for edit in exports.venv_edits(str(at), VARIABLE, entries, found):
        Path(edit.path).write_bytes(edit.after)


def source(shell: str, at: Path) -> str:
    return f"{'.' if shell == 'dash' else 'source'} {at / 'bin' / SHELLS[shell][0]}\n"


@pytest.mark.parametrize("start", [None, b"", b"/old", b"/old:/o2:", b":", b"/x y\xff"])
@pytest.mark.parametrize("shell", SHELLS)
def test_activation_puts_the_entries_in_front_once_and_deactivation_takes_them_out(
    tmp_path: Path, scripts: dict[str, bytes], shell: str, start: bytes | None
) -> None:
    write_scripts(tmp_path, scripts, NASTY)
    strict = "set -eu\n" if shell in {"bash", "dash"} else ""
    seen = run_shell(
        shell, strict + (source(shell, tmp_path) + f"{SHOW}\n") * 2 + f"deactivate\n{SHOW}\n", start
    )
    added = os.fsencode(":".join(NASTY))
    inside = added + (b":" + start if start else b"")
    after = (start or None) if SHELLS[shell][2] else inside
    assert seen == [inside, inside, after]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_the_user_added_since_activation_survives_deactivation(
    tmp_path: Path, scripts: dict[str, bytes], shell: str
) -> None:
    write_scripts(tmp_path, scripts, ("/ours/1", "/ours/2"))
    if shell == "fish":
        mine = f"set -gx {VARIABLE} /mine ${VARIABLE}\n"
    else:
        mine = f'export {VARIABLE}="/mine:${VARIABLE}"\n'
    seen = run_shell(shell, source(shell, tmp_path) + mine + f"{SHOW}\ndeactivate\n{SHOW}\n", b"/old")
    assert seen == [b"/mine:/ours/1:/ours/2:/old", b"/mine:/old"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_going_from_one_environment_to_another_leaves_nothing_of_the_first(
    tmp_path: Path, scripts: dict[str, bytes], shell: str
) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    write_scripts(first, scripts, ("/ours/1",))
    write_scripts(second, scripts, ("/ours/2",))
    script = source(shell, first) + source(shell, second) + f"{SHOW}\ndeactivate\n{SHOW}\n"
    assert run_shell(shell, script, b"/old") == [b"/ours/2:/old", b"/old"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_deactivate_still_does_what_it_did(tmp_path: Path, scripts: dict[str, bytes], shell: str) -> None:
    write_scripts(tmp_path, scripts, ("/a",))
    script = (
        f"before=$PATH\n{source(shell, tmp_path)}deactivate\n"
        '[ "$before" = "$PATH" ] && [ -z "${VIRTUAL_ENV+x}" ] && echo b\\"same\\"\n'
        "typeset -f | grep -e deactivate -e envdoctor\ntrue\n"
    )
    assert run_shell(shell, script, None) == [b"same"]


def test_an_entry_that_is_in_front_already_is_neither_added_nor_taken_out(
    tmp_path: Path, scripts: dict[str, bytes]
) -> None:
    write_scripts(tmp_path, scripts, ("/a",))
    script = source("bash", tmp_path) + f"{SHOW}\ndeactivate\n{SHOW}\n"
    assert run_shell("bash", script, b"/a:/b") == [b"/a:/b", b"/a:/b"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "dash"])
def test_condas_scripts_add_and_take_out(tmp_path: Path, shell: str) -> None:
    script = ""
    for edit in exports.conda_edits(str(tmp_path), VARIABLE, NASTY, {}):
        Path(edit.path).parent.mkdir(parents=True)
        Path(edit.path).write_bytes(edit.after)
        script += f". {edit.path}\n{SHOW}\n"
    assert run_shell(shell, script, b"/old") == [os.fsencode(":".join(NASTY)) + b":/old", b"/old"]


def test_a_venv_inside_an_active_conda_environment_leaves_that_ones_entries(
    tmp_path: Path, scripts: dict[str, bytes]
) -> None:
    write_scripts(tmp_path, scripts, ("/venv",))
    conda = exports.conda_activate(VARIABLE, ("/conda",))
    script = (
        conda
        + source("bash", tmp_path)
        + f"{SHOW}\ndeactivate\n{SHOW}\n{exports.conda_deactivate(VARIABLE, ())}{SHOW}\n"
    )
    assert run_shell("bash", script, None) == [b"/venv:/conda", b"/conda", None]


names = st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & set(b"/:;\0")).map(os.fsdecode)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(names.map("/{}".format), min_size=1, max_size=3).map(tuple))
def test_bash_sees_exactly_the_intended_bytes_of_any_path(tmp_path: Path, entries: tuple[str, ...]) -> None:
    if exports.unexportable(VARIABLE, entries):
        return
    body = exports.venv_posix(VARIABLE, entries)
    line = exports.shell_line(VARIABLE, entries)
    unset = f"unset {VARIABLE} _ENVDOCTOR_VENV_{VARIABLE}\n"
    seen = run_shell("bash", f"{body}{SHOW}\n{unset}{line}\n{SHOW}\n", b"/old")
    value = os.fsencode(":".join(entries))
    assert seen == [value + b":/old", value]


# --- as shown ---------------------------------------------------------------------------------------


def test_the_diff_of_an_export_is_unified_and_that_of_a_link_one_line() -> None:
    edits = (
        FileEdit(path="/v/a", before=b"one\r\ntwo", after=b"one\r\ntwo\nthree"),
        FileEdit(path="/v/new", before=None, after=b"x\n"),
    )
    action = Export(
        code="LIB003",
        summary="s",
        variable=VARIABLE,
        prepend=("/a",),
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
