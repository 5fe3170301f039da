"""The journal: what it keeps, what it takes for a crash, and what it refuses to believe."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envdoctor.errors import UsageError
from envdoctor.fixes import journal as log
from envdoctor.fixes.journal import BusyError, DirectoryStep, FileState, FileStep, LinkStep, State

LINK = LinkStep(path="/e/l\udcff\n", target="../t", parent_mtime_ns=2**62)
FILE = FileStep(
    path="/e/f",
    before=FileState(data=bytes(range(256)), mode=0o640, mtime_ns=1, uid=2, gid=3),
    after_sha256="0" * 64,
    after_mode=0o640,
    temporary=".t",
    parent_mtime_ns=4,
)
NEW = FileStep(path="/e/n", before=None, after_sha256="", after_mode=0o644, temporary=".t", parent_mtime_ns=5)
MADE = DirectoryStep(path="/e/d", parent_mtime_ns=6)
STEPS = (LINK, FILE, NEW, MADE)


@pytest.fixture
def state(tmp_path: Path) -> str:
    return str(tmp_path / "home/.local/state/envdoctor")


def write(state: str, *, apply: bool = True) -> log.Journal:
    with log.locked(state):
        writer = log.create(state, ("link libx \udcff",))
        for step in STEPS:
            writer.begin(step)
            writer.done(7)
        if apply:
            writer.applied()
        writer.close()
    return log.load(state, writer.id)


def test_every_step_comes_back_as_it_was_written(state: str) -> None:
    journal = write(state)
    assert tuple(record.step for record in journal.records) == STEPS
    assert {record.parent_mtime_ns for record in journal.records} == {7}
    assert journal.actions == ("link libx \udcff",)
    assert journal.state is State.APPLIED


def test_the_states_are_open_applied_open_while_undoing_and_undone(state: str) -> None:
    journal = write(state, apply=False)
    states = [journal.state]
    for mark in ("applied", "undoing", "undone"):
        writer = log.resume(log.load(state, journal.id))
        getattr(writer, mark)()
        writer.close()
        states.append(log.load(state, journal.id).state)
    assert states == [State.OPEN, State.APPLIED, State.OPEN, State.UNDONE]


def test_a_journal_cut_anywhere_is_a_shorter_one_that_can_be_gone_on_with(state: str) -> None:
    journal = write(state)
    data = Path(journal.path).read_bytes()
    header = data.index(b"\n") + 1
    for size in range(header, len(data)):
        cut = log.parse(data[:size], journal.path)
        assert cut.state is State.OPEN
        assert tuple(record.step for record in cut.records) == STEPS[: len(cut.records)]
    Path(journal.path).write_bytes(data[:-3])
    writer = log.resume(log.load(state, journal.id))
    writer.applied()
    writer.close()
    assert Path(journal.path).read_bytes() == data


def test_a_tail_of_zeros_that_a_power_cut_leaves_is_a_line_that_was_not_written(state: str) -> None:
    journal = write(state)
    data = Path(journal.path).read_bytes()
    assert log.parse(data + bytes(4096), journal.path).state is State.APPLIED


@pytest.mark.parametrize(
    ("line", "replacement", "why"),
    [
        (1, b"{}", "line 1"),
        (1, b"", "line 1"),
        (2, b"nonsense", "line 2"),
        (2, b'{"event": "begin", "step": {"type": "link", "path": 7}}', "line 2"),
        (2, b'{"event": "begin", "step": {"type": "shell", "argv": []}}', "line 2"),
        (3, b'{"event": "applied"}', "line 3.*wrong place"),
        (2, b'{"event": "done", "parent_mtime_ns": 1}', "line 2.*wrong place"),
        (4, b"\xff\xfe", "line 4"),
    ],
)
def test_an_edited_journal_is_refused_with_its_name_and_line(
    state: str, line: int, replacement: bytes, why: str
) -> None:
    journal = write(state)
    lines = Path(journal.path).read_bytes().split(b"\n")
    lines[line - 1] = replacement
    Path(journal.path).write_bytes(b"\n".join(lines))
    with pytest.raises(UsageError, match=why) as caught:
        log.list_journals(state)
    assert journal.path in str(caught.value)


def test_a_journal_of_a_newer_version_or_under_another_name_is_refused(state: str) -> None:
    journal = write(state)
    data = Path(journal.path).read_bytes()
    with pytest.raises(UsageError, match="version 2, this envdoctor knows 1"):
        log.parse(data.replace(b'"version": 1', b'"version": 2'), journal.path)
    with pytest.raises(UsageError, match="another journal"):
        log.parse(data, journal.path.replace("-0001", "-0002"))


@given(st.binary())
def test_arbitrary_bytes_give_a_usage_error_and_nothing_else(data: bytes) -> None:
    with pytest.raises(UsageError):
        log.parse(data, "/s/journals/20250101T000000Z-0001.jsonl")


def test_ids_are_in_the_order_of_the_fixes_even_when_the_clock_is_set_back(
    state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps = iter(["20250102T000000Z", "20250101T000000Z", "20250103T000000Z"])
    monkeypatch.setattr(time, "strftime", lambda *_: next(stamps))
    written = [write(state).id for _ in range(3)]
    assert [journal.id for journal in log.list_journals(state)] == written
    assert [name[-4:] for name in written] == ["0001", "0002", "0003"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "x", "20250101T000000Z-0001/../x"])
def test_an_id_is_never_a_path(state: str, name: str) -> None:
    with pytest.raises(UsageError, match="is no journal id"):
        log.load(state, name)


def test_an_unknown_id_is_named(state: str) -> None:
    with pytest.raises(UsageError, match="there is no journal 20250101T000000Z-0009"):
        log.load(state, "20250101T000000Z-0009")


# --- the state directory ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/envdoctor"),
        ({"XDG_STATE_HOME": "", "HOME": "/h"}, "/h/.local/state/envdoctor"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/envdoctor"),
    ],
)
def test_the_state_directory_is_where_xdg_says(environ: dict[str, str], expected: str) -> None:
    assert log.state_directory(environ) == expected


def test_without_home_the_variable_to_set_is_named() -> None:
    with pytest.raises(UsageError, match="XDG_STATE_HOME"):
        log.state_directory({})


def test_the_state_is_private_whatever_the_umask(state: str) -> None:
    old = os.umask(0)
    try:
        journal = write(state)
    finally:
        os.umask(old)
    assert os.stat(state).st_mode & 0o777 == 0o700
    assert os.stat(os.path.dirname(journal.path)).st_mode & 0o777 == 0o700
    assert os.stat(journal.path).st_mode & 0o777 == 0o600


def test_a_state_directory_that_others_can_write_is_not_trusted(state: str) -> None:
    write(state)
    os.chmod(state, 0o777)
    with pytest.raises(UsageError, match="nobody else can write"):
        log.list_journals(state)
    with pytest.raises(UsageError, match="nobody else can write"), log.locked(state):
        pass


def test_a_state_directory_that_cannot_be_made_is_named_with_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "home").write_bytes(b"")
    state = str(tmp_path / "home/.local/state/envdoctor")
    with pytest.raises(UsageError, match="XDG_STATE_HOME") as caught, log.locked(state):
        pass
    assert str(tmp_path / "home") in str(caught.value)


def test_listing_makes_nothing(state: str, tmp_path: Path) -> None:
    assert log.list_journals(state) == ()
    assert list(tmp_path.iterdir()) == []


def test_the_second_of_two_at_once_is_told(state: str) -> None:
    with log.locked(state), pytest.raises(BusyError, match="at work"), log.locked(state):
        pass
    with log.locked(state):
        pass


def test_a_failed_append_leaves_no_half_line(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with log.locked(state):
        writer = log.create(state, ())
        writer.begin(LINK)
        with monkeypatch.context() as patch:
            patch.setattr(
                os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device"))
            )
            with pytest.raises(OSError, match="No space"):
                writer.done(1)
        writer.done(2)
        writer.close()
    assert log.load(state, writer.id).records == (log.Record(step=LINK, parent_mtime_ns=2),)
