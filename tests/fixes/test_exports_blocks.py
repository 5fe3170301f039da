"""Blocks in a text: put in and taken out exactly, merged, and refused where they were tampered with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envdoctor.fixes import blocks, shells
from envdoctor.fixes.exports import file_edits, unexportable, venv_edits
from envdoctor.fixes.joining import extended
from envdoctor.fixes.plan import Join, decode, encode

VARIABLE = "LD_LIBRARY_PATH"

texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\n\r# ")) | st.lists(
    st.sampled_from(["a\n", "b\r\n", "\n", "\r", "last", "# >>> conda initialize >>>\n"])
).map("".join)
shell_kinds = st.sampled_from(["sh", "fish", "csh"])
entries = st.lists(st.text(min_size=1).map("/{}".format), min_size=1, max_size=3).map(tuple)


def block(*values: str, variable: str = VARIABLE, shell: str = "sh") -> str:
    values = values or ("/a",)
    return blocks.block(variable, values, shells.venv_activate(shell, variable, values, Join.PATH))


@given(texts, shell_kinds)
def test_remove_is_the_exact_inverse_of_insert(text: str, shell: str) -> None:
    assert blocks.remove(blocks.insert(text, VARIABLE, block(shell=shell)), VARIABLE) == text


@given(st.binary())
def test_bytes_that_are_not_utf8_survive_insert_and_remove(data: bytes) -> None:
    text = blocks.insert(decode(data), VARIABLE, block())
    assert encode(blocks.remove(decode(encode(text)), VARIABLE)) == data


@given(texts)
def test_insert_replaces_an_earlier_block_in_its_place(text: str) -> None:
    once = blocks.insert(text, VARIABLE, block("/a"))
    assert blocks.insert(once, VARIABLE, block("/a")) == once
    again = blocks.insert(once, VARIABLE, block("/b"))
    assert again == blocks.insert(text, VARIABLE, block("/b"))
    assert blocks.remove(again, VARIABLE) == text


@given(texts, st.permutations([VARIABLE, "XLA_FLAGS", "OMP_NUM_THREADS"]))
def test_blocks_of_several_variables_do_not_touch_each_other(text: str, order: list[str]) -> None:
    every = text
    for variable in (VARIABLE, "XLA_FLAGS", "OMP_NUM_THREADS"):
        every = blocks.insert(every, variable, block(variable=variable))
    for left, variable in enumerate(order):
        every = blocks.remove(every, variable)
        assert every.count(">>> envdoctor ") == 2 - left
    assert every == text


def test_lines_added_after_the_block_stay_when_it_is_removed() -> None:
    text = blocks.insert("first", VARIABLE, block()) + "\nmine\n"
    assert blocks.remove(text, VARIABLE) == "first\nmine\n"


def test_a_block_in_a_file_that_an_editor_gave_crlf_is_still_found_and_read() -> None:
    text = blocks.insert("a\n", VARIABLE, block("/x", "/y")).replace("\n", "\r\n")
    assert blocks.values_in(text, VARIABLE) == ("/x", "/y")
    assert blocks.remove(text, VARIABLE) == "a\r\n"


@given(entries, shell_kinds)
def test_a_block_tells_what_it_holds(values: tuple[str, ...], shell: str) -> None:
    if unexportable(VARIABLE, values):
        return
    text = blocks.insert("before\n", VARIABLE, block(*values, shell=shell))
    assert blocks.values_in(text, VARIABLE) == values


@pytest.mark.parametrize(
    ("cut", "with_"),
    [
        ("# >>> envdoctor LD_LIBRARY_PATH >>>\n", ""),
        ("# <<< envdoctor LD_LIBRARY_PATH <<<\n", ""),
        ("# Holds: ", "# Held: "),
        ('"/a"', '"/a'),
        ('["/a"]', "[1]"),
    ],
)
def test_a_block_that_was_tampered_with_is_not_guessed_at(cut: str, with_: str) -> None:
    text = blocks.insert("a\n", VARIABLE, block()).replace(cut, with_)
    with pytest.raises(ValueError, match=r"^/v/bin/activate: .*envdoctor's block for LD_LIBRARY_PATH w"):
        venv_edits("/v", VARIABLE, ("/b",), Join.PATH, {"/v/bin/activate": text.encode()})


@pytest.mark.parametrize(
    ("variable", "value", "join"),
    [
        (VARIABLE, "/a:b", Join.PATH),
        (VARIABLE, "/a;b", Join.PATH),
        (VARIABLE, "/a/$ORIGIN/b", Join.PATH),
        (VARIABLE, "/a/${LIB}", Join.PATH),
        (VARIABLE, "relative", Join.PATH),
        (VARIABLE, "", Join.PATH),
        (VARIABLE, "/a\0", Join.PATH),
        (VARIABLE, "/a\n# <<< envdoctor LD_LIBRARY_PATH <<<\n", Join.PATH),
        ("PATH; rm -rf /", "/a", Join.PATH),
        ("XLA_FLAGS", "--a=/x y", Join.WORDS),
        ("XLA_FLAGS", "--a=/x\ty", Join.WORDS),
        ("XLA_FLAGS", "--a='x'", Join.WORDS),
        ("XLA_FLAGS", '--a="x"', Join.WORDS),
        ("XLA_FLAGS", "/flags.txt", Join.WORDS),
        ("XLA_FLAGS", "", Join.WORDS),
        ("OMP_NUM_THREADS", "", Join.DEFAULT),
        ("OMP_NUM_THREADS", "2\n", Join.DEFAULT),
        ("omp; id", "2", Join.DEFAULT),
    ],
)
def test_what_a_variable_cannot_hold_is_refused(variable: str, value: str, join: Join) -> None:
    assert unexportable(variable, (value,), join)
    with pytest.raises(ValueError):
        venv_edits("/v", variable, (value,), join, {"/v/bin/activate": b""})
    with pytest.raises(ValueError):
        file_edits("/f.env", variable, (value,), join, {})


def test_a_default_is_one_value() -> None:
    assert unexportable("OMP_NUM_THREADS", ("1", "2"), Join.DEFAULT)
    assert unexportable("OMP_NUM_THREADS", ("1",), Join.DEFAULT) == ""


def test_only_the_activation_scripts_that_are_there_are_edited() -> None:
    found = {"/v/bin/activate": b"", "/v/bin/activate.csh": b""}
    edits = venv_edits("/v", VARIABLE, ("/a",), Join.PATH, found)
    assert [edit.path for edit in edits] == ["/v/bin/activate", "/v/bin/activate.csh"]
    after = {edit.path: edit.after for edit in edits}
    assert venv_edits("/v", VARIABLE, ("/a",), Join.PATH, after) == ()


def test_a_second_repair_keeps_what_the_first_one_put_there() -> None:
    found = {"/v/bin/activate": b"mine\n"}
    for value in ("/first", "/second", "/first"):
        for edit in venv_edits("/v", VARIABLE, (value,), Join.PATH, found):
            found[edit.path] = edit.after
    text = found["/v/bin/activate"].decode()
    assert blocks.values_in(text, VARIABLE) == ("/first", "/second")
    assert blocks.remove(text, VARIABLE) == "mine\n"


@given(st.text(), entries)
def test_extending_twice_is_extending_once(value: str, values: tuple[str, ...]) -> None:
    for join in Join:
        once = extended(value, values, join)
        assert extended(once, values, join) == once


def test_a_variable_is_extended_by_its_own_rule() -> None:
    assert extended("", ("/a", "/b"), Join.PATH) == "/a:/b"
    assert extended("/c", ("/a", "/b"), Join.PATH) == "/a:/b:/c"
    assert extended("/ab", ("/a",), Join.PATH) == "/a:/ab"
    assert extended("--x", ("--a", "--b"), Join.WORDS) == "--a --b --x"
    assert extended("/flags.txt", ("--a",), Join.WORDS) == "/flags.txt"
    assert extended("4", ("2",), Join.DEFAULT) == "4"
    assert extended("", ("2",), Join.DEFAULT) == "2"
