"""Applying a plan and taking it back: exactly, whole or not at all, and after a kill at any point."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from envdoctor.errors import Interrupted, UsageError
from envdoctor.fixes import placing
from envdoctor.fixes.executor import FixError, RefusedError, apply, recover, undo
from envdoctor.fixes.exports import conda_directories, conda_edits, venv_edits
from envdoctor.fixes.journal import BusyError, State, list_journals, locked
from envdoctor.fixes.plan import Command, Destination, Export, FileEdit, Join, Manual, Plan, Symlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIB = "lib/python3.11/site-packages/nvidia"
NOBODY = 65534
VARIABLE = "LD_LIBRARY_PATH"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as another user")


def snapshot(root: Path, *, directory_times: bool = True) -> dict[str, tuple[Any, ...]]:
    """Everything that can be told of a tree: names, types, modes, owners, link targets, contents, mtimes."""
    tree: dict[str, tuple[Any, ...]] = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        content = b""
        if path.is_symlink():
            content = os.fsencode(os.readlink(path))
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).digest()
        time = status.st_mtime_ns if directory_times or not path.is_dir() else 0
        tree[str(path.relative_to(root))] = (status.st_mode, status.st_uid, status.st_gid, content, time)
    return tree


@pytest.fixture
def env(tmp_path: Path) -> Path:
    return make_environment(tmp_path / "env")


@pytest.fixture
def state(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "envdoctor")


@pytest.fixture
def shm() -> Iterator[Path]:
    """Memory where there is some: a kill does not lose what was written, so a disk would prove no more."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
        yield Path(name)


def make_environment(root: Path) -> Path:
    (root / LIB / "cusolver/lib").mkdir(parents=True)
    (root / LIB / "cublas/lib").mkdir(parents=True)
    (root / LIB / "cusolver/lib/libcusolver.so.11").write_bytes(b"ELF")
    (root / "etc").mkdir()
    (root / "bin").mkdir()
    (root / "bin/activate").write_bytes(b"deactivate () { :; }\n")
    (root / "bin/activate").chmod(0o640)
    (root / "bin/activate.fish").write_bytes(b"# no last newline")
    for path in [root, *root.rglob("*")]:
        os.utime(path, ns=(1_600_000_000_000_000_001, 1_600_000_000_000_000_001))
    return root


def link(env: Path, name: str = "libcusolver.so.11") -> Symlink:
    return Symlink(
        code="LIB002",
        summary=f"link {name}",
        path=str(env / LIB / "cublas/lib" / name),
        target=f"../../cusolver/lib/{name}",
    )


def export(env: Path, entry: str = "/opt/cuda/lib64") -> Export:
    """A venv's and a conda environment's files at once, with directories to be made."""
    found = {str(path): path.read_bytes() for path in (env / "bin").iterdir()}
    prefix = str(env)
    return Export(
        code="LIB003",
        summary="extend LD_LIBRARY_PATH",
        variable=VARIABLE,
        values=(entry,),
        destination=Destination.VENV,
        edits=venv_edits(prefix, VARIABLE, (entry,), Join.PATH, found)
        + conda_edits(prefix, VARIABLE, (entry,), Join.PATH, {}),
        directories=conda_directories(prefix),
    )


def whole_plan(env: Path) -> Plan:
    return Plan((link(env), export(env), link(env, "libcusolverMg.so.11")))


# --- there and back ---------------------------------------------------------------------------------


def test_apply_then_undo_restores_the_tree_byte_for_byte_with_all_times(env: Path, state: str) -> None:
    before = snapshot(env)
    applied = apply(whole_plan(env), state)
    made = env / LIB / "cublas/lib/libcusolver.so.11"
    assert made.read_bytes() == b"ELF"
    assert b"LD_LIBRARY_PATH" in (env / "etc/conda/activate.d/envdoctor.sh").read_bytes()
    assert str(env / "etc") not in applied.changed
    assert len(applied.changed) == 13
    undone = undo(state)
    assert snapshot(env) == before
    assert undone.journal == applied.journal
    assert undone.was_applied
    assert set(undone.changed) == set(applied.changed)
    assert undone.kept == ()


def test_files_that_the_plan_does_not_name_are_untouched_by_apply(env: Path, state: str) -> None:
    before = snapshot(env, directory_times=False)
    plan = whole_plan(env)
    applied = apply(plan, state)
    after = snapshot(env, directory_times=False)
    changed = {os.path.relpath(path, env) for path in applied.changed}
    assert {name for name in after if after[name] != before.get(name)} == changed


def test_an_edited_file_keeps_its_mode_and_owner(env: Path, state: str) -> None:
    apply(whole_plan(env), state)
    assert (env / "bin/activate").stat().st_mode & 0o7777 == 0o640


def test_extended_attributes_survive_both_ways(env: Path, state: str) -> None:
    path = env / "bin/activate"
    try:
        os.setxattr(path, "user.note", b"kept")
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")
    apply(whole_plan(env), state)
    assert os.getxattr(path, "user.note") == b"kept"
    undo(state)
    assert os.getxattr(path, "user.note") == b"kept"


def test_two_exports_on_one_file_are_applied_and_undone_in_order(env: Path, state: str) -> None:
    before = snapshot(env)
    activate = str(env / "bin/activate")
    first = venv_edits(
        str(env), VARIABLE, ("/a",), Join.PATH, {activate: (env / "bin/activate").read_bytes()}
    )
    second = venv_edits(str(env), "PATH", ("/b",), Join.PATH, {activate: first[0].after})
    plan = Plan(tuple(_export_of(*edits) for edits in (first, second)))
    apply(plan, state)
    assert (env / "bin/activate").read_bytes() == second[0].after
    undo(state)
    assert snapshot(env) == before


def _export_of(*edits: FileEdit) -> Export:
    return Export(
        code="LIB003",
        summary="export",
        variable=VARIABLE,
        values=("/a",),
        destination=Destination.VENV,
        edits=edits,
    )


def test_undo_takes_the_last_fix_first_and_then_the_one_before(env: Path, state: str) -> None:
    trees = [snapshot(env)]
    ids = []
    for name in ("liba.so", "libb.so"):
        ids.append(apply(Plan((link(env, name),)), state).journal)
        trees.append(snapshot(env))
    assert undo(state).journal == ids[1]
    assert snapshot(env) == trees[1]
    assert undo(state).journal == ids[0]
    assert snapshot(env) == trees[0]
    with pytest.raises(UsageError, match="taken back already"):
        undo(state)
    with pytest.raises(UsageError, match="taken back already"):
        undo(state, ids[0])


def test_an_earlier_fix_can_be_undone_by_its_id(env: Path, state: str) -> None:
    first = apply(Plan((link(env, "liba.so"),)), state)
    apply(Plan((link(env, "libb.so"),)), state)
    undo(state, first.journal)
    assert not os.path.lexists(env / LIB / "cublas/lib/liba.so")
    assert os.path.lexists(env / LIB / "cublas/lib/libb.so")


def test_a_directory_that_others_use_by_now_looks_as_they_left_it(env: Path, state: str) -> None:
    apply(Plan((link(env),)), state)
    other = env / LIB / "cublas/lib/other.so"
    other.write_bytes(b"")
    time = (env / LIB / "cublas/lib").stat().st_mtime_ns
    undo(state)
    assert (env / LIB / "cublas/lib").stat().st_mtime_ns >= time


def test_paths_that_are_not_utf8_or_hold_newlines_and_quotes_go_there_and_back(
    tmp_path: Path, state: str
) -> None:
    env = make_environment(tmp_path / os.fsdecode(b"e\xff n'v\n\"$x"))
    before = snapshot(env)
    apply(whole_plan(env), state)
    assert snapshot(env) != before
    undo(state)
    assert snapshot(env) == before


def test_what_is_left_to_the_user_and_commands_are_none_of_its_business(env: Path, state: str) -> None:
    step = Manual(code="DRV001", summary="install the driver", command="sudo apt install nvidia-driver")
    command = Command(code="CDN001", summary="install cuDNN", argv=("pip", "install", "x"))
    before = snapshot(env.parent)
    assert apply(Plan((step, command)), state).changed == ()
    assert snapshot(env.parent) == before


def refused(plan: Plan, state: str, env: Path) -> dict[str, str]:
    before = snapshot(env)
    with pytest.raises(RefusedError) as caught:
        apply(plan, state)
    assert snapshot(env) == before
    return dict(caught.value.reasons)


def test_what_envdoctor_did_not_make_is_not_overwritten(env: Path, state: str) -> None:
    directory = env / LIB / "cublas/lib"
    (directory / "libcusolver.so.11").write_bytes(b"mine")
    (directory / "libb.so").symlink_to("gone")
    (directory / "libc.so").mkdir()
    os.mkfifo(directory / "libd.so")
    names = ("libcusolver.so.11", "libb.so", "libc.so", "libd.so")
    reasons = refused(Plan(tuple(link(env, name) for name in names)), state, env)
    assert [why.split(" stands")[0] for why in reasons.values()] == [
        "a file",
        "a link to gone",
        "a directory",
        "a device, socket or pipe",
    ]


def test_a_file_that_changed_since_the_plan_is_not_edited(env: Path, state: str) -> None:
    plan = whole_plan(env)
    (env / "bin/activate").write_bytes(b"edited\n")
    (env / "bin/activate.fish").unlink()
    reasons = refused(plan, state, env)
    assert list(reasons.values()) == [
        "has changed since the plan was made",
        "is gone since the plan was made",
    ]


def test_a_new_file_does_not_replace_one_that_appeared(env: Path, state: str) -> None:
    edit = FileEdit(path=str(env / "bin/new"), before=None, after=b"x")
    (env / "bin/new").write_bytes(b"x")
    assert "a file stands there" in next(iter(refused(Plan((_export_of(edit),)), state, env).values()))


def test_a_file_that_is_a_link_or_has_a_second_name_is_not_edited(env: Path, state: str) -> None:
    plan = Plan((export(env),))
    (env / "bin/activate").rename(env / "bin/real")
    (env / "bin/activate").symlink_to("real")
    os.link(env / "bin/activate.fish", env / "bin/second")
    reasons = list(refused(plan, state, env).values())
    assert reasons[0].startswith("a link to real stands there")
    assert reasons[1] == "has further names (hard links)"


def test_a_directory_that_everybody_can_write_is_refused_unless_sticky(env: Path, state: str) -> None:
    directory = env / LIB / "cublas/lib"
    directory.chmod(0o777)
    assert "every user" in next(iter(refused(Plan((link(env),)), state, env).values()))
    directory.chmod(0o1777)
    apply(Plan((link(env),)), state)


def test_a_missing_directory_and_a_link_loop_are_refused(env: Path, state: str) -> None:
    (env / "a").symlink_to("b")
    (env / "b").symlink_to("a")
    plan = Plan(
        tuple(
            Symlink(code="LIB002", summary="", path=str(env / directory / "x"), target="y")
            for directory in ("none", "a", "bin/activate")
        )
    )
    reasons = list(refused(plan, state, env).values())
    assert reasons[0] == "No such file or directory"
    assert reasons[1] == "Too many levels of symbolic links"
    assert reasons[2] == "Not a directory"


def test_the_same_path_twice_in_a_plan_is_refused(env: Path, state: str) -> None:
    assert refused(Plan((link(env), link(env))), state, env)


def test_a_path_that_is_not_plain_is_refused(env: Path, state: str) -> None:
    action = Symlink(code="LIB002", summary="", path=f"{env}/bin/../x", target="y")
    assert refused(Plan((action,)), state, env) == {f"{env}/bin/../x": "is not a plain absolute path"}


def test_a_parent_reached_over_ones_own_link_is_fine(env: Path, state: str) -> None:
    (env / "lib64").symlink_to("lib")
    before = snapshot(env)
    plan = Plan((Symlink(code="LIB002", summary="", path=str(env / "lib64/libx.so"), target="liby.so"),))
    apply(plan, state)
    assert os.readlink(env / "lib/libx.so") == "liby.so"
    undo(state)
    assert snapshot(env) == before


@needs_root
def test_root_does_not_follow_another_users_link_to_a_directory_of_roots(env: Path, state: str) -> None:
    (env / "trap").symlink_to("bin")
    os.lchown(env / "trap", NOBODY, NOBODY)
    plan = Plan((Symlink(code="LIB002", summary="", path=str(env / "trap/libx.so"), target="y"),))
    assert "another user's link" in next(iter(refused(plan, state, env).values()))


@needs_root
def test_what_root_makes_in_a_users_environment_belongs_to_that_user(env: Path, state: str) -> None:
    for path in [env, *env.rglob("*")]:
        os.lchown(path, NOBODY, NOBODY)
    make_times_old(env)
    before = snapshot(env)
    applied = apply(whole_plan(env), state)
    assert {os.lstat(path).st_uid for path in applied.changed} == {NOBODY}
    undo(state)
    assert snapshot(env) == before


def make_times_old(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        os.utime(path, ns=(1, 1), follow_symlinks=False)


@needs_root
def test_a_user_is_refused_in_somebody_elses_directory_and_in_a_read_only_one() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "state").mkdir()
        os.chown(root / "state", NOBODY, NOBODY)
        env = make_environment(root / "env")
        os.chown(env / LIB / "cublas/lib", NOBODY, NOBODY)
        (env / LIB / "cublas/lib").chmod(0o555)
        action = Symlink(code="LIB002", summary="", path=str(env / "bin/libx.so"), target="y")

        def child() -> None:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with pytest.raises(RefusedError) as caught:
                apply(Plan((action, link(env))), str(root / "state/envdoctor"))
            assert [why.partition(" ")[2] for _, why in caught.value.reasons] == [
                "belongs to another user (0)",
                "cannot be written",
            ]

        assert in_child(child) == 0


def undo_refused(env: Path, state: str) -> dict[str, str]:
    before = snapshot(env)
    with pytest.raises(RefusedError) as caught:
        undo(state)
    assert snapshot(env) == before
    assert list_journals(state)[-1].state is State.APPLIED
    return dict(caught.value.reasons)


def test_undo_refuses_with_a_reason_per_path_where_the_world_has_changed(env: Path, state: str) -> None:
    plan = whole_plan(env)
    apply(plan, state)
    lib = env / LIB / "cublas/lib"
    (lib / "libcusolver.so.11").unlink()
    (lib / "libcusolver.so.11").symlink_to("elsewhere")
    (lib / "libcusolverMg.so.11").unlink()
    (lib / "libcusolverMg.so.11").write_bytes(b"real")
    with (env / "bin/activate").open("ab") as file:
        file.write(b"mine\n")
    (env / "bin/activate.fish").unlink()
    (env / "etc/conda/activate.d/envdoctor.sh").chmod(0o755)
    reasons = undo_refused(env, state)
    assert {os.path.relpath(path, env): why for path, why in reasons.items()} == {
        f"{LIB}/cublas/lib/libcusolver.so.11": "the link was changed since: it leads to elsewhere, "
        "not to ../../cusolver/lib/libcusolver.so.11",
        f"{LIB}/cublas/lib/libcusolverMg.so.11": "a file stands there now, which envdoctor did not make",
        "bin/activate": "the file was changed since",
        "bin/activate.fish": "it is gone",
        "etc/conda/activate.d/envdoctor.sh": "the file's permissions were changed since",
    }


def test_undo_leaves_a_directory_that_holds_other_files_and_says_so(env: Path, state: str) -> None:
    apply(whole_plan(env), state)
    other = env / "etc/conda/activate.d/other.sh"
    other.write_bytes(b"")
    undone = undo(state)
    assert other.exists()
    assert not (env / "etc/conda/activate.d/envdoctor.sh").exists()
    assert dict(undone.kept) == {
        str(env / "etc/conda/activate.d"): "holds files that envdoctor did not make",
        str(env / "etc/conda"): "holds files that envdoctor did not make",
    }


def test_undo_after_the_link_was_removed_by_hand_has_nothing_to_do_there(env: Path, state: str) -> None:
    apply(whole_plan(env), state)
    (env / LIB / "cublas/lib/libcusolver.so.11").unlink()
    assert str(env / LIB / "cublas/lib/libcusolver.so.11") not in undo(state).changed


def test_undo_after_the_environment_was_deleted_says_that_it_is_gone(env: Path, state: str) -> None:
    applied = apply(whole_plan(env), state)
    shutil.rmtree(env)
    undone = undo(state)
    assert {path for path, _ in undone.kept} == set(applied.changed)
    assert undone.changed == ()
    assert list_journals(state)[0].state is State.UNDONE


# --- failing in the middle --------------------------------------------------------------------------


def raising(error: BaseException) -> Callable[..., None]:
    def function(*args: object, **kwargs: object) -> None:
        raise error

    return function


@pytest.mark.parametrize("function", ["make_link", "make_directory", "put_file"])
def test_a_failing_step_puts_everything_back(
    env: Path, state: str, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    before = snapshot(env)
    plan = Plan((*whole_plan(env).actions[1:], link(env)))
    monkeypatch.setattr(placing, function, raising(OSError(5, "no luck")))
    with pytest.raises(FixError, match=r"no luck; everything .* put back"):
        apply(plan, state)
    assert snapshot(env) == before
    assert list_journals(state)[0].state is State.UNDONE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_any_call_has_everything_put_back_or_the_whole_applied(
    shm: Path, number: signal.Signals
) -> None:
    ends = {"before": 0, "after": 0}
    before_handler = signal.signal(number, signal.default_int_handler)
    try:
        for point in range(0, 2000, 1 if number is signal.SIGINT else 25):
            env = make_environment(shm / f"env{point}")
            state = str(shm / f"state{point}")
            before = snapshot(env)
            came = profiled(Calls(point, lambda: signal.raise_signal(number)), whole_plan(env), state)
            if came is None:
                break
            if list_journals(state) and list_journals(state)[-1].state is State.APPLIED:
                assert came is KeyboardInterrupt  # what the signal always does, once the work is whole
                ends["after"] += 1
            else:
                assert snapshot(env) == before
                assert came in (Interrupted, KeyboardInterrupt)
                ends["before"] += 1
            assert all(journal.state is not State.OPEN for journal in list_journals(state))
    finally:
        signal.signal(number, before_handler)
    assert ends["before"] > 10
    assert ends["after"] or number is not signal.SIGINT


def profiled(calls: Calls, plan: Plan, state: str) -> type[BaseException] | None:
    sys.setprofile(calls)
    try:
        apply(plan, state)
    except (Interrupted, KeyboardInterrupt) as error:
        return type(error)
    finally:
        sys.setprofile(None)
    return None


def test_a_full_disk_in_the_middle_puts_everything_back(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        env = make_environment(disk / "env")
        plan = whole_plan(env)
        with pytest.raises(OSError, match="No space"):
            (disk / "filler").write_bytes(bytes(1 << 20))
        before = snapshot(env)
        with pytest.raises(FixError, match="No space left on device; everything done so far was put back"):
            apply(plan, str(tmp_path / "state"))
        assert snapshot(env) == before
        with pytest.raises(UsageError, match="XDG_STATE_HOME"):
            apply(plan, str(disk / "state"))
        assert snapshot(env) == before
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_second_fix_at_the_same_time_says_so_and_does_nothing(env: Path, state: str) -> None:
    apply(Plan((link(env),)), state)
    before = snapshot(env.parent)
    with locked(state):
        with pytest.raises(BusyError, match="another envdoctor fix or undo is at work"):
            apply(Plan((link(env, "libb.so"),)), state)
        with pytest.raises(BusyError):
            undo(state)
    assert snapshot(env.parent) == before


# --- killed -----------------------------------------------------------------------------------------


class Calls:
    """A profile function that acts before the n-th call into the operating system."""

    def __init__(self, number: int, act: Callable[[], object], only: frozenset[str] = frozenset()) -> None:
        self.left = number
        self.act = act
        self.only = only

    def __call__(self, frame: object, event: str, function: Any) -> None:
        if event != "c_call" or function.__module__ not in {"posix", "fcntl"}:
            return
        if self.only and function.__name__ not in self.only:
            return
        self.left -= 1
        if self.left == -1:
            self.act()


WRITING = frozenset({"write", "fsync", "unlink", "rmdir", "rename", "fchmod", "ftruncate", "utime", "flock"})


def in_child(
    work: Callable[[], object], kill_at: int | None = None, only: frozenset[str] = frozenset()
) -> int:
    """Runs `work` in a child; its exit status, or minus the signal."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if kill_at is not None:
                sys.setprofile(Calls(kill_at, lambda: os.kill(os.getpid(), signal.SIGKILL), only))
            work()
            status = 0
        finally:
            sys.setprofile(None)
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_sigkill_before_every_system_call_of_apply_leaves_a_state_that_recover_ends(shm: Path) -> None:
    ends = {"before": 0, "after": 0}
    for number in range(2000):
        env = make_environment(shm / f"env{number}")
        state = str(shm / f"state{number}")
        before = snapshot(env)
        plan = whole_plan(env)
        status = in_child(lambda: apply(plan, state), kill_at=number)  # noqa: B023
        if status == 0:
            break
        assert status == -signal.SIGKILL
        journals = list_journals(state)
        if number % 2 and journals:
            undo(state)  # with an interrupted journal it does what recover does
        else:
            recover(state)
        assert not list(env.rglob(".envdoctor*"))
        if list_journals(state) and list_journals(state)[-1].state is State.APPLIED:
            assert all(edit.after == Path(edit.path).read_bytes() for edit in export_of(plan).edits)
            ends["after"] += 1
            undo(state)
        else:
            ends["before"] += 1
        assert snapshot(env, directory_times=False) == {
            name: (*row[:-1], row[-1] if not is_directory(row) else 0) for name, row in before.items()
        }
    assert ends["before"] >= 200
    assert ends["after"] >= 1


def is_directory(row: tuple[Any, ...]) -> bool:
    return bool(row[0] & 0o170000 == 0o040000)


def export_of(plan: Plan) -> Export:
    return next(action for action in plan.actions if isinstance(action, Export))


def test_sigkill_before_every_writing_call_of_undo_leaves_a_state_that_recover_ends(shm: Path) -> None:
    ends = {"before": 0, "after": 0}
    for number in range(2000):
        env = make_environment(shm / f"env{number}")
        state = str(shm / f"state{number}")
        before = snapshot(env, directory_times=False)
        apply(whole_plan(env), state)
        after = snapshot(env, directory_times=False)
        if in_child(lambda: undo(state), number, WRITING) == 0:  # noqa: B023
            break
        recover(state)
        now = snapshot(env, directory_times=False)
        if list_journals(state)[-1].state is State.APPLIED:
            assert now == after
            ends["after"] += 1
        else:
            assert now == before
            ends["before"] += 1
    assert ends["before"] >= 30
    assert ends["after"] >= 1


# Calls that only make sure of what others wrote (fsync, close) leave the disk as the next call finds it.
CALLS = "write,symlinkat,mkdir,mkdirat,linkat,renameat,rename,unlinkat,fchmod,ftruncate,utimensat"

SCRIPT = """
import sys
import msgspec
from envdoctor.fixes.executor import apply
from envdoctor.fixes.plan import Plan
root = sys.argv[1]
with open(root + "/plan.json", "rb") as file:
    apply(msgspec.json.decode(file.read(), type=Plan), root + "/state")
"""


@pytest.fixture
def strace() -> str:
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed")
    probe = [found, "-qq", "-o", os.devnull, "-e", "inject=getpid:signal=KILL", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("ptrace is not allowed here")
    return found


def make_planned(root: Path) -> Path:
    env = make_environment(root / "env")
    (root / "plan.json").write_bytes(msgspec.json.encode(whole_plan(env)))
    return env


def run_traced(strace: str, root: Path, *options: str) -> int:
    command = [strace, "-f", "-y", "-qq", *options, sys.executable, "-B", "-c", SCRIPT, str(root)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    repository = Path(__file__).parents[2]
    return subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, check=False
    ).returncode


def test_a_process_killed_by_the_kernel_at_each_writing_system_call_is_recovered(
    shm: Path, strace: str
) -> None:
    """The same with real processes: strace has the kernel deliver SIGKILL on entry of the n-th call."""
    make_planned(shm / "plain")
    log = shm / "log"
    assert run_traced(strace, shm / "plain", "-o", str(log), "-e", f"trace={CALLS}") == 0
    seen: dict[str, int] = {}
    points: list[tuple[str, int]] = []
    for line in log.read_text(errors="replace").splitlines():
        match = re.match(r"\d+ +(\w+)\(", line)
        if match:
            seen[match[1]] = seen.get(match[1], 0) + 1
            if str(shm) in line:
                points.append((match[1], seen[match[1]]))
    assert len(points) > 30
    for number, (call, count) in enumerate(points):
        root = shm / f"run{number}"
        before = snapshot(make_planned(root), directory_times=False)
        inject = f"inject={call}:signal=KILL:when={count}"
        status = run_traced(strace, root, "-o", os.devnull, "-e", f"trace={call}", "-e", inject)
        assert status in (-signal.SIGKILL, 128 + signal.SIGKILL), (call, count, number)
        state = str(root / "state")
        recover(state)
        if list_journals(state) and list_journals(state)[-1].state is State.APPLIED:
            undo(state)
        assert snapshot(root / "env", directory_times=False) == before


def test_each_change_is_preceded_by_its_journal_entry_on_disk(env: Path, state: str) -> None:
    """Write and fsync of the journal, then the change, then fsync of its directory."""
    calls: list[str] = []

    def note(frame: object, event: str, function: Any) -> None:
        if event == "c_call" and function.__module__ == "posix":
            calls.append(function.__name__)

    plan = whole_plan(env)
    sys.setprofile(note)
    try:
        apply(plan, state)
    finally:
        sys.setprofile(None)
    changes = {"symlink", "mkdir", "rename", "link"}
    order = [call for call in calls if call in changes | {"write", "fsync"}]
    journal_is_there = order.index("rename") + 2  # the header and its directory
    steps = "".join({"write": "w", "fsync": "f"}.get(call, "!") for call in order[journal_is_there:])
    assert re.fullmatch(r"(wf(f?!f)wf)+wf", steps), steps
    assert steps.count("!") == 13


def test_undo_with_nothing_done_ever_says_so_and_makes_no_state_directory(state: str) -> None:
    assert recover(state) == ()
    with pytest.raises(UsageError, match="nothing to undo"):
        undo(state)
    assert not os.path.exists(os.path.dirname(state))
