"""What `envdoctor fix` says and does around its plan: commands of their own, files to export to, JSON."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import workstation
from tests.fixes.test_running import wheel
from tests.machines.machine import Machine
from tests.test_cli import valid
from tests.tree import signature

RIGHT, WRONG = "11.4.1.4", "10.0.0.1"
SITE = "/opt/venv/lib/python3.11/site-packages"


def fix(machine: Machine, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "envdoctor", "fix", "--root", str(machine.root)]
    return subprocess.run(
        [*command, "--python", machine.python, *options],
        env=machine.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def without_cufft(root: Path) -> Machine:
    """The wheel's metadata is there, its library is not: pip puts it back, and nothing else can."""
    machine = workstation(root)
    machine.path(f"{SITE}/nvidia/cufft/lib/libcufft.so.11").unlink()
    return machine


def test_what_only_a_command_repairs_is_offered_as_one_and_is_no_pending_change(tmp_path: Path) -> None:
    done = fix(without_cufft(tmp_path / "m"), "--dry-run", "--json", "--exit-code")
    answer = valid(done.stdout, "fix")
    (action,) = answer["plan"]
    assert (action["kind"], action["code"]) == ("command", "LIB001")
    assert action["argv"][-1].startswith("nvidia-cufft-cu12==")
    assert (answer["changed"], done.returncode) == (False, 0)


def test_a_command_that_is_named_with_run_is_a_pending_change(tmp_path: Path) -> None:
    done = fix(without_cufft(tmp_path / "m"), "--dry-run", "--json", "--exit-code", "--run", "LIB001")
    assert (json.loads(done.stdout)["changed"], done.returncode) == (True, 1)


def test_what_needs_root_is_left_to_the_user_with_its_command(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m").export(CUDA_VISIBLE_DEVICES="-1")
    answer = valid(fix(machine, "--dry-run", "--json").stdout, "fix")
    (action,) = answer["plan"]
    assert (action["kind"], action["code"]) == ("manual", "GPU002")
    assert "unset CUDA_VISIBLE_DEVICES" in action["command"]
    assert not answer["changed"]


def test_a_dry_run_with_everything_in_it_writes_nothing(tmp_path: Path) -> None:
    machine = without_cufft(tmp_path / "m").cpus(8, quota=2)
    machine.file("/opt/venv/bin/activate", "x\n")
    before = signature(tmp_path)
    done = fix(machine, "--dry-run", "--diff", "--run", "LIB001", "--to", "/srv-not-there/x.env")
    assert done.returncode == 2
    assert "/srv-not-there" in done.stderr
    assert fix(machine, "--dry-run", "--diff", "--run", "LIB001").returncode == 0
    assert signature(tmp_path) == before


@pytest.mark.parametrize(("name", "line"), [("gpu.env", "TF_NUM_INTRAOP_THREADS=2"), (".envrc", "export ")])
def test_exports_go_to_the_file_that_is_named(tmp_path: Path, name: str, line: str) -> None:
    machine = workstation(tmp_path / "m").cpus(8, quota=2)
    machine.file("/opt/venv/bin/activate", "x\n")
    answer = valid(fix(machine, "--dry-run", "--json", "--to", f"/opt/{name}").stdout, "fix")
    assert {a["destination"] for a in answer["plan"]} == {"file"}
    assert {e["path"] for a in answer["plan"] for e in a["edits"]} == {f"/opt/{name}"}
    assert line in answer["diff"]


# --- with a real pip --------------------------------------------------------------------------------


class Patient:
    """A real environment where pip has installed a wheel that TensorFlow's metadata does not ask for."""

    def __init__(self, place: Path) -> None:
        self.place = place
        wheels = place / "wheels"
        for version in (RIGHT, WRONG):
            wheel(wheels, "nvidia_cufft_cu12", version)
        subprocess.run([sys.executable, "-m", "venv", place / "env"], check=True)
        machine = Machine(place)
        machine.prefix = "/env"
        machine.tensorflow().nvidia_wheels(without=["cufft"])
        self.python = str(place / "env/bin/python")
        self.variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(place),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheels),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_CACHE_DIR": "1",
        }
        subprocess.run(
            [self.python, "-m", "pip", "-q", "install", f"nvidia-cufft-cu12=={WRONG}"],
            env=self.variables,
            check=True,
        )

    def installed(self) -> str:
        (info,) = self.place.glob("env/lib/python*/site-packages/nvidia_cufft_cu12-*.dist-info")
        return info.name.split("-")[1].removesuffix(".dist")

    def doctor(self, *arguments: str, answer: str = "") -> tuple[int, str]:
        """Run at a terminal where something is answered, else with no terminal at all."""
        command = [sys.executable, "-m", "envdoctor", *arguments]
        if not answer:
            done = subprocess.run(
                command, env=self.variables, stdin=subprocess.DEVNULL, capture_output=True, check=False
            )
            return done.returncode, (done.stdout + done.stderr).decode()
        master, slave = pty.openpty()
        os.write(master, answer.encode())
        done = subprocess.run(command, env=self.variables, stdin=slave, capture_output=True, check=False)
        os.close(master)
        os.close(slave)
        return done.returncode, (done.stdout + done.stderr).decode()


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Patient:
    return Patient(tmp_path_factory.mktemp("patient"))


def plan(patient: Patient) -> list[dict[str, Any]]:
    _, text = patient.doctor("fix", "--dry-run", "--json", "--python", patient.python)
    return [a for a in json.loads(text)["plan"] if a["kind"] == "command"]


def test_a_command_runs_only_on_a_yes_of_its_own_and_is_taken_back_by_undo(patient: Patient) -> None:
    (action,) = plan(patient)
    assert action["code"] == "PKG009"
    assert action["argv"][-1] == "nvidia-cufft-cu12<12.0,>=11.2.3.61"

    code, text = patient.doctor("fix", "--yes", "--python", patient.python)
    assert "needs a yes of its own (--run PKG009)" in text
    assert patient.installed() == WRONG
    code, text = patient.doctor("fix", "--python", patient.python, answer="n\n")
    assert patient.installed() == WRONG

    code, text = patient.doctor("fix", "--python", patient.python, answer="y\n")
    assert f"nvidia-cufft-cu12 {WRONG} → {RIGHT}" in text
    assert patient.installed() == RIGHT
    assert plan(patient) == []
    assert code == 0, text

    code, text = patient.doctor("undo", "--yes")
    assert code == 0, text
    assert patient.installed() == WRONG

    code, text = patient.doctor("fix", "--yes", "--run", "PKG009", "--json", "--python", patient.python)
    assert patient.installed() == RIGHT
    code, text = patient.doctor("undo", answer="y\ny\n")
    assert (code, patient.installed()) == (0, WRONG), text
