"""Package commands: a real pip in a real virtual environment, with wheels from a directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from envdoctor.errors import Interrupted, UsageError
from envdoctor.facts.gather import installed_versions
from envdoctor.fixes import running
from envdoctor.fixes.executor import recover
from envdoctor.fixes.journal import State, list_journals, load
from envdoctor.fixes.placing import FixError
from envdoctor.fixes.plan import Command
from envdoctor.target import choose_target


def wheel(directory: Path, name: str, version: str, requires: str = "") -> None:
    info = f"{name}-{version}.dist-info"
    directory.mkdir(exist_ok=True)
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        needs = f"Requires-Dist: {requires}\n" if requires else ""
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


class Environment:
    def __init__(self, place: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", place / "env"], check=True)
        self.python = str(place / "env" / "bin" / "python")
        self.state = str(place / "state")
        for version in ("1.0", "2.0"):
            wheel(place / "wheels", "sick", version, requires="helper" if version == "2.0" else "")
        wheel(place / "wheels", "helper", "1.0")
        self.variables = {
            **os.environ,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(place / "wheels"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "HOME": str(place),
        }
        self.pip("install", "sick==1.0")

    def pip(self, *arguments: str) -> None:
        subprocess.run([self.python, "-m", "pip", "--quiet", *arguments], env=self.variables, check=True)

    def versions(self) -> dict[str, str]:
        found = installed_versions(choose_target(self.python, None, self.variables))
        return {name: version for name, version in found.items() if name in {"sick", "helper"}}

    def command(self, *arguments: str) -> Command:
        return Command(code="PKG009", summary="repair", argv=(self.python, "-m", "pip", *arguments))

    def run(self, command: Command) -> running.Ran:
        return running.run(command, self.state, self.python, self.variables, self.versions)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("pip"))


@pytest.fixture
def environment(made: Environment) -> Environment:
    if made.versions() != {"sick": "1.0"}:
        made.pip("uninstall", "-y", "sick", "helper")
        made.pip("install", "sick==1.0")
    return made


def test_a_command_is_run_and_what_it_changed_is_known(environment: Environment) -> None:
    ran = environment.run(environment.command("install", "sick==2.0"))
    assert (ran.status, environment.versions()) == (0, {"sick": "2.0", "helper": "1.0"})
    assert ran.changed == {"sick": ("1.0", "2.0"), "helper": ("", "1.0")}


def test_the_way_back_brings_exactly_the_former_versions(environment: Environment) -> None:
    ran = environment.run(environment.command("install", "sick==2.0"))
    journal = load(environment.state, ran.journal)
    way = running.way_back(journal, environment.versions())
    assert [argv[3:] for argv in way.commands] == [
        ("uninstall", "-y", "helper"),
        ("install", "--no-deps", "sick==1.0"),
    ]
    running.take_back(journal, environment.state, way, environment.variables)
    assert environment.versions() == {"sick": "1.0"}
    assert load(environment.state, ran.journal).state is State.UNDONE


def test_what_was_changed_again_since_is_left_and_said(environment: Environment) -> None:
    ran = environment.run(environment.command("install", "sick==2.0"))
    environment.pip("uninstall", "-y", "helper")
    way = running.way_back(load(environment.state, ran.journal), environment.versions())
    assert way.kept == ("helper is gone now",)
    assert [argv[3:] for argv in way.commands] == [("install", "--no-deps", "sick==1.0")]


def test_a_command_that_fails_and_changes_nothing_leaves_nothing_to_undo(environment: Environment) -> None:
    ran = environment.run(environment.command("install", "sick==9.9"))
    assert ran.status != 0
    assert (ran.journal, ran.changed, environment.versions()) == ("", {}, {"sick": "1.0"})
    assert all(j.state is not State.OPEN for j in list_journals(environment.state))


def test_a_way_back_that_fails_can_be_tried_again(environment: Environment) -> None:
    ran = environment.run(environment.command("install", "sick==2.0"))
    journal = load(environment.state, ran.journal)
    way = running.way_back(journal, environment.versions())
    with pytest.raises(FixError, match="uninstall"):
        running.take_back(
            journal, environment.state, way, {**environment.variables, "PIP_REQUIRE_VIRTUALENV": "maybe"}
        )
    assert load(environment.state, ran.journal).state is State.APPLIED


def test_a_tool_that_is_not_there_is_said_and_leaves_nothing_open(environment: Environment) -> None:
    missing = Command(code="PKG009", summary="repair", argv=("/nowhere/conda", "install", "x"))
    with pytest.raises(FixError, match="/nowhere/conda: No such file"):
        environment.run(missing)
    assert all(j.state is not State.OPEN for j in list_journals(environment.state))


def test_a_conda_command_is_taken_back_by_conda(environment: Environment) -> None:
    fake = Command(
        code="PKG009",
        summary="repair",
        argv=("env", environment.python, "-c", "import sick; open(sick.__file__, 'a').write('#')"),
    )
    versions = iter([{"sick": "1.0"}, {"sick": "2.0"}])
    ran = running.run(
        fake, environment.state, environment.python, environment.variables, lambda: next(versions)
    )
    with pytest.raises(UsageError, match=r"conda list -p .* --revisions"):
        running.way_back(load(environment.state, ran.journal), {})


def test_ctrl_c_ends_the_command_and_what_it_did_can_be_taken_back(environment: Environment) -> None:
    """pip ends its work or not; either way the journal is closed and says what changed."""
    slow = Command(
        code="PKG009",
        summary="repair",
        argv=(environment.python, "-c", "import time; time.sleep(60)"),
    )
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import os, signal, time; time.sleep(1); os.kill({os.getpid()}, signal.SIGTERM)",
        ]
    )
    started = time.monotonic()
    old = signal.signal(signal.SIGTERM, _interrupted)
    try:
        with pytest.raises(Interrupted):
            environment.run(slow)
    finally:
        signal.signal(signal.SIGTERM, old)
        child.wait()
    assert time.monotonic() - started < 30
    assert all(j.state is not State.OPEN for j in list_journals(environment.state))


def _interrupted(number: int, frame: object) -> None:
    raise Interrupted


def test_a_run_that_was_killed_is_named_and_closed_by_the_next_one(environment: Environment) -> None:
    """A SIGKILL leaves an open journal: nobody can say what the command did."""
    script = (
        "from envdoctor.fixes import running; from envdoctor.fixes.plan import Command; import os, sys\n"
        "c = Command(code='PKG009', summary='r', argv=('kill', '-9', str(os.getpid())))\n"
        f"state, python = {environment.state!r}, {environment.python!r}\n"
        "running.run(c, state, python, os.environ, lambda: {'sick': '1.0'})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment.variables, check=False)
    assert done.returncode == -signal.SIGKILL
    (undone,) = recover(environment.state)
    assert "interrupted" in undone.kept[0][1]
    assert recover(environment.state) == ()
