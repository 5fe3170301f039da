"""`envdoctor env`: the exports of the plan, as each shell evaluates them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from envdoctor.fixes.exports import venv_edits
from envdoctor.fixes.plan import Join
from tests.conftest import workstation
from tests.fixes.real_shells import SHELLS, run_shell, show
from tests.machines.machine import Machine
from tests.tree import signature

VARIABLE = "LD_LIBRARY_PATH"
LINK = "nvidia/cusparse/lib/libcusolver.so.11"
EVALUATED = {
    "sh": 'eval "$({command})"\n',
    "fish": "{command} --shell fish | source\n",
    "csh": 'eval "`{command} --shell csh`"\n',
}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """TensorFlow 2.21 cannot find libcusolver.so.11, as its own wheels leave it."""
    machine = workstation(tmp_path / "machine")
    machine.path(f"{machine.site_packages}/{LINK}").unlink()
    return machine


def words(machine: Machine, *options: str) -> list[str]:
    command = [sys.executable, "-m", "envdoctor", "env", "--root", str(machine.root)]
    return [*command, "--python", machine.python, *options]


def env(machine: Machine, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words(machine, *options), env=machine.environment, capture_output=True, text=True, check=False
    )


def entry(machine: Machine) -> str:
    return f"{machine.site_packages}/nvidia/cusolver/lib"


@pytest.mark.parametrize("start", [None, b"/old"])
@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_that_evaluates_it_has_the_export_and_a_second_time_adds_nothing(
    machine: Machine, shell: str, start: bytes | None
) -> None:
    machine.path("/old").mkdir()
    before = signature(machine.root)
    evaluate = EVALUATED[SHELLS[shell].kind].format(command=shlex.join(words(machine)))
    seen = run_shell(shell, (evaluate + show(VARIABLE)) * 2, {VARIABLE: start})
    expected = os.fsencode(entry(machine)) + (b":" + start if start else b"")
    assert seen == [expected, expected]
    assert signature(machine.root) == before
    assert machine.export(**{VARIABLE: expected.decode()}).check("--quick").codes == []


def test_where_nothing_is_needed_it_prints_nothing(tmp_path: Path) -> None:
    healthy = workstation(tmp_path / "machine")
    for shell in ("sh", "bash", "zsh", "fish", "csh", "dotenv"):
        done = env(healthy, "--shell", shell)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), shell
    done = env(healthy, "--shell", "json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "{}\n", "")


def test_json_holds_the_whole_value_and_a_dotenv_line_the_addition_alone(machine: Machine) -> None:
    machine.export(**{VARIABLE: "/old"})
    assert json.loads(env(machine, "--shell", "json").stdout) == {VARIABLE: f"{entry(machine)}:/old"}
    done = env(machine, "--shell", "dotenv")
    assert done.stdout == f"{VARIABLE}={entry(machine)}\n"
    assert "replaces" in done.stderr
    assert done.returncode == 0


def test_two_findings_that_need_one_variable_share_one_export(machine: Machine) -> None:
    """LIB002 in the wheels, LIB003 in a toolkit: the second line would replace the first in a dotenv file."""
    machine.path(f"{machine.site_packages}/nvidia/cufft/lib/libcufft.so.11").unlink()
    machine.library("/usr/local/cuda-12.5/lib64/libcufft.so.11")
    value = json.loads(env(machine, "--shell", "json").stdout)[VARIABLE]
    assert set(value.split(":")) == {entry(machine), "/usr/local/cuda-12.5/lib64"}
    assert env(machine, "--shell", "dotenv").stdout == f"{VARIABLE}={value}\n"
    assert len(env(machine).stdout.splitlines()) == 1


def test_what_no_export_cures_is_said_on_stderr(machine: Machine) -> None:
    machine.path(f"{machine.site_packages}/nvidia/cufft/lib/libcufft.so.11").unlink()
    done = env(machine)
    assert entry(machine) in done.stdout
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert "LIB001" in line
    assert "LIB002" not in line
    assert "envdoctor check" in line


def test_an_export_that_the_activation_script_holds_is_needed_while_this_shell_has_not_read_it(
    machine: Machine,
) -> None:
    script = machine.path("/opt/venv/bin/activate")
    found = {"/opt/venv/bin/activate": script.read_bytes()}
    (edit,) = venv_edits("/opt/venv", VARIABLE, (entry(machine),), Join.PATH, found)
    script.write_bytes(edit.after)
    assert entry(machine) in env(machine).stdout
    script.write_bytes(edit.after.replace(b"# <<< envdoctor", b"# <<<"))
    assert entry(machine) in env(machine).stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_a_nasty_path_reaches_the_shell_unharmed(tmp_path: Path, shell: str) -> None:
    """With another's spaces, quotes and dollar signs; csh's backquotes make one blank of several."""
    machine = nasty(tmp_path, "/opt/a  b'c\"d$HOME`id`!x\\y*[z]?~#w é!")
    evaluate = EVALUATED[SHELLS[shell].kind].format(command=quoted(shell, words(machine)))
    assert run_shell(shell, evaluate + show(VARIABLE), {VARIABLE: None}) == [os.fsencode(entry(machine))]


def nasty(root: Path, prefix: str) -> Machine:
    machine = Machine(root / "machine").os("ubuntu", "24.04").kernel("6.8.0-45-generic").cpus(8).driver()
    return machine.venv(prefix).tensorflow().nvidia_wheels()


def quoted(shell: str, command: list[str]) -> str:
    """The command without its nasty words, which a file of its own holds."""
    script = Path(command[command.index("--root") + 1]).parent / "envdoctor"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    script.chmod(0o755)
    return str(script)


def test_a_value_that_a_shell_cannot_hold_is_said_in_one_line_and_fails(tmp_path: Path) -> None:
    machine = nasty(tmp_path, "/opt/a\nb")
    for shell, reason in (("csh", "newline"), ("dotenv", "not read alike")):
        done = env(machine, "--shell", shell)
        assert (done.returncode, done.stdout) == (1, ""), shell
        (line,) = done.stderr.splitlines()
        assert reason in line
    assert run_shell("bash", env(machine).stdout + show(VARIABLE), {VARIABLE: None}) == [
        os.fsencode(entry(machine))
    ]


def test_bad_usage_leaves_nothing_to_be_evaluated(tmp_path: Path) -> None:
    for options in (["--python", str(tmp_path / "none")], ["--shell", "tclsh"], ["--root", "/none"]):
        command = [sys.executable, "-m", "envdoctor", "env", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, ""), options
        assert "Traceback" not in done.stderr
