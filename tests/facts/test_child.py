"""Children that misbehave in every way seen on sick machines; each test starts real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from envdoctor.facts import child
from envdoctor.facts.child import Outcome, start

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def shell(script: str, deadline_s: float = 10.0) -> Outcome:
    """Runs `script`; $0 is the number of the result descriptor."""
    return start(["/bin/sh", "-c", script], ENVIRONMENT).finish(deadline_s)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ends(pid: int) -> bool:
    """Whether a killed process is gone in a moment."""
    for _ in range(100):
        if not is_running(pid):
            return True
        time.sleep(0.01)
    return False


def test_result_travels_apart_from_what_is_printed() -> None:
    outcome = shell("echo noise; echo trouble >&2; echo answer >/dev/fd/$0; exit 3")
    assert (outcome.result, outcome.stdout, outcome.stderr) == (b"answer\n", b"noise\n", b"trouble\n")
    assert (outcome.status, outcome.signal, outcome.hung) == (3, "", False)
    assert outcome.describe() == "exit status 3: trouble"


def test_child_works_while_its_parent_does_something_else() -> None:
    slow = [start(["/bin/sh", "-c", "sleep 2"], ENVIRONMENT) for _ in range(3)]
    started = time.monotonic()
    assert [c.finish(10).status for c in slow] == [0, 0, 0]
    assert time.monotonic() - started < 5  # one after the other: 6


def test_child_that_fills_its_pipes_is_not_blocked_before_it_is_collected(tmp_path: Path) -> None:
    done = tmp_path / "done"
    flood = start(["/bin/sh", "-c", f"head -c 1000000 /dev/zero; touch {done}"], ENVIRONMENT)
    while not done.exists():
        assert time.monotonic() < flood.started + 10
        time.sleep(0.01)
    assert len(flood.finish(10).stdout) == 1_000_000


def test_finished_child_is_collected_with_no_time_left() -> None:
    ended = start(["/bin/true"], ENVIRONMENT)
    time.sleep(0.3)
    assert ended.finish(0).status == 0


def test_finish_answers_the_same_twice() -> None:
    once = start(["/bin/true"], ENVIRONMENT)
    assert once.finish(10) is once.finish(10)


def test_segfault_is_a_signal() -> None:
    outcome = shell("kill -SEGV $$")
    assert (outcome.status, outcome.signal, outcome.describe()) == (None, "SIGSEGV", "SIGSEGV")


def test_crash_leaves_no_core_file() -> None:
    assert shell("sleep 0.1; ulimit -c").stdout == b"0\n"


def test_real_time_signal_has_a_number() -> None:
    assert shell("kill -40 $$").signal == "signal 40"


@pytest.mark.parametrize("script", ["sleep 100", "trap '' TERM INT HUP; sleep 100; sleep 100"])
def test_hanging_child_is_killed_at_its_deadline(script: str) -> None:
    outcome = shell(script, 0.3)
    assert outcome.hung
    assert outcome.describe().startswith("no answer in ")
    assert not outcome.abandoned
    assert 0.3 <= outcome.seconds < 8


def test_what_was_said_before_a_hang_is_kept() -> None:
    outcome = shell("echo step one >/dev/fd/$0; echo warning >&2; sleep 100", 0.3)
    assert (outcome.result, outcome.stderr, outcome.hung) == (b"step one\n", b"warning\n", True)


def test_grandchildren_die_with_a_hanging_child() -> None:
    outcome = shell("sleep 100 & echo $!; wait", 0.3)
    assert ends(int(outcome.stdout))


def test_grandchild_that_keeps_the_pipes_is_neither_waited_for_nor_left_behind() -> None:
    started = time.monotonic()
    outcome = shell("sleep 100 & echo $!")
    assert time.monotonic() - started < 8
    assert outcome.status == 0
    assert ends(int(outcome.stdout))


def test_grandchild_in_a_session_of_its_own_is_not_waited_for() -> None:
    started = time.monotonic()
    outcome = shell("setsid sleep 2 & echo $!")
    assert time.monotonic() - started < 8
    assert outcome.status == 0


def test_grandchild_that_floods_is_not_listened_to_for_ever() -> None:
    started = time.monotonic()
    assert shell("yes & exit 4").status == 4
    assert time.monotonic() - started < 8


def test_flood_is_read_to_its_end_and_cut() -> None:
    outcome = shell("head -c 100000000 /dev/zero; head -c 100000000 /dev/zero >&2; echo last words >&2")
    assert outcome.status == 0
    assert len(outcome.stdout) == child.HEAD_BYTES
    assert len(outcome.stderr) < 2 * child.STDERR_BYTES + 100
    assert outcome.stderr.endswith(b"last words\n")
    assert b"bytes left out" in outcome.stderr
    assert len(outcome.describe()) < 1000


def test_endless_flood_ends_at_the_deadline() -> None:
    outcome = shell("yes", 0.3)
    assert outcome.hung
    assert len(outcome.stdout) == child.HEAD_BYTES


def test_child_that_closes_its_pipes_is_still_waited_for() -> None:
    script = "import os, sys, time; os.closerange(0, 100); time.sleep(0.2); os._exit(7)"
    assert start([sys.executable, "-c", script], ENVIRONMENT).finish(10).status == 7


def test_program_that_does_not_exist_is_an_outcome() -> None:
    outcome = start(["/nowhere/python"], ENVIRONMENT).finish(10)
    assert outcome.describe() == "could not be started: No such file or directory"
    assert outcome.status is None


@pytest.mark.parametrize("environment", [{"A=B": "c"}, {"A": "nul\0"}])
def test_environment_that_cannot_be_passed_is_an_outcome(environment: dict[str, str]) -> None:
    assert start(["/bin/true"], environment).finish(10).error


def test_child_that_no_thread_can_listen_to_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under RLIMIT_NPROC or pids.max, which root does not feel."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    descriptors = sorted(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    outcome = shell("sleep 100")
    assert outcome.describe() == "could not be started: can't start new thread"
    assert sorted(os.listdir("/proc/self/fd")) == descriptors


def test_environment_of_other_bytes_arrives_as_it_was() -> None:
    raw = b"/opt/\xff\xfe caf\xc3\xa9/lib"
    environment = {"LD_LIBRARY_PATH": os.fsdecode(raw), "PATH": "/usr/bin:/bin"}
    outcome = start(["/bin/sh", "-c", 'printf %s "$LD_LIBRARY_PATH"'], environment).finish(10)
    assert outcome.stdout == raw


def test_environment_is_not_the_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONLY_OF_THE_PARENT", "1")
    assert b"ONLY_OF_THE_PARENT" not in shell("env").stdout


def test_standard_input_of_any_size_is_passed() -> None:
    outcome = start(["/bin/sh", "-c", "wc -c"], ENVIRONMENT, b"x" * 1_000_000).finish(10)
    assert outcome.stdout.strip() == b"1000000"


def test_standard_input_is_empty_by_default() -> None:
    assert shell("wc -c").stdout.strip() == b"0"


def test_descriptors_and_zombies_do_not_pile_up() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    for script in ("exit 0", "kill -SEGV $$", "sleep 100", "sleep 100 & exit 0"):
        shell(script, 0.1)
    start(["/nowhere"], ENVIRONMENT).finish(1)
    assert sorted(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_dropped_child_is_killed() -> None:
    forgotten = start(["/bin/sh", "-c", "sleep 100"], ENVIRONMENT)
    pid = forgotten._process.pid
    del forgotten
    assert ends(pid)


@pytest.mark.parametrize("when", ["while it waits", "before it waits"])
def test_interrupted_parent_leaves_no_child(when: str) -> None:
    work = "c.finish(100)" if when == "while it waits" else "time.sleep(100)"
    script = f"""
import time
from envdoctor.facts.child import start
c = start(["/bin/sh", "-c", "sleep 100"], {{}})
print(c._process.pid, flush=True)
{work}
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert parent.stdout
    with parent, parent.stdout as output:
        pid = int(output.readline())
        assert is_running(pid)
        parent.send_signal(signal.SIGINT)
        assert parent.wait(10) != 0
    assert ends(pid)


def test_child_that_cannot_be_killed_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A D state cannot be had on demand: the signal is withheld instead."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", lambda *_: None)
        stuck = start(["/bin/sh", "-c", "sleep 100"], ENVIRONMENT)
        started = time.monotonic()
        outcome = stuck.finish(0.2)
        assert time.monotonic() - started < 8
    os.killpg(stuck._process.pid, signal.SIGKILL)
    stuck._process.wait()
    stuck._pump.join(5)
    assert outcome.hung
    assert outcome.abandoned
    assert "SIGKILL does not end it" in outcome.describe()


def test_what_a_child_writes_just_before_it_ends_is_never_lost() -> None:
    """It may end between two looks at its pipes."""
    script = "import os, sys; os.write(int(sys.argv[-1]), b'last words'); os._exit(0)"
    for _ in range(100):
        outcome = start([sys.executable, "-I", "-S", "-c", script], ENVIRONMENT).finish(10)
        assert outcome.result == b"last words"
