"""From a broken TensorFlow install to a registered GPU: check, fix, check, undo.

TensorFlow is real and unmodified; the driver is simulated. `light` has the real TensorFlow and cudart wheels
and stub libraries for the rest, `full` is `tensorflow[and-cuda]` as pip installs it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from envdoctor.facts.gather import gather
from envdoctor.facts.loader import DiskView, Process
from envdoctor.facts.root import Root
from envdoctor.target import Target
from tests import environments
from tests.facts.real_loader import replay
from tests.machines.compile import stub_library
from tests.machines.drivers import driver_libraries
from tests.tree import signature

LIST_GPUS = "import tensorflow as tf; print(tf.config.list_physical_devices('GPU'))"
STUBS = {
    "cublas/lib": ("libcublas.so.12", "libcublasLt.so.12"),
    "cufft/lib": ("libcufft.so.11",),
    "cusolver/lib": ("libcusolver.so.11",),
    "cusparse/lib": ("libcusparse.so.12",),
    "cudnn/lib": (
        "libcudnn.so.9",
        *(f"libcudnn_{part}.so.9" for part in ("graph", "ops", "cnn", "adv")),
    ),
}


@dataclass
class Ill:
    """An environment with TensorFlow that registers no GPU, and a HOME of its own."""

    environment: Path
    home: Path
    driver: Path

    @property
    def variables(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LD_LIBRARY_PATH": str(self.driver),
            "VIRTUAL_ENV": str(self.environment),
        }

    def doctor(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "envdoctor", *arguments],
            env=self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def answer(self, *arguments: str) -> tuple[int, Any]:
        done = self.doctor(*arguments, "--json")
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def tensorflow(self) -> str:
        """What the unmodified TensorFlow prints."""
        done = subprocess.run(
            [self.environment / "bin" / "python", "-B", "-c", LIST_GPUS],
            env=self.variables,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return done.stdout.strip()


def light(place: Path) -> None:
    environments.borrow("light", place)
    stub_wheels(place)


def stub_wheels(place: Path) -> None:
    """The libraries that `light` lacks, as wheels would bring them."""
    (site,) = place.glob("lib/python*/site-packages")
    for directory, names in STUBS.items():
        for name in names:
            stub_library(site / "nvidia" / directory / f"{name}.3.0", soname=name)
            (site / "nvidia" / directory / name).symlink_to(f"{name}.3.0")


def full(place: Path) -> None:
    environments.borrow("full", place)


@pytest.fixture(
    scope="module",  # every test leaves it as it found it: a copy takes seconds
    params=[
        pytest.param(("light", light), marks=pytest.mark.tensorflow, id="light"),
        pytest.param(("full", full), marks=pytest.mark.cuda_wheels, id="full"),
    ],
)
def ill(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ill]:
    name, make = request.param
    if environments.installed(name) is None:
        pytest.skip(f"not installed: python tests/environments.py {name}")
    place = tmp_path_factory.mktemp(name)
    make(place / "env")
    driver_libraries(place / "driver")
    (place / "home").mkdir()
    yield Ill(place / "env", place / "home", place / "driver")
    subprocess.run(["rm", "-rf", place / "env"], check=True)


def test_the_whole_way_from_no_gpu_to_gpu_0_and_back(ill: Ill) -> None:
    before = signature(ill.environment)
    assert ill.tensorflow() == "[]"

    code, report = ill.answer("check")
    assert code == 1
    leading = report["findings"][0]
    assert (leading["code"], leading["subject"], leading["because"]) == ("LIB002", "libcusolver.so.11", [])
    assert leading["fixable"]
    follows = next(f for f in report["findings"] if f["code"] == "PLC001")
    assert follows["because"] == [0]
    assert [f["code"] for f in report["findings"]] == ["LIB002", "PLC001"]
    assert report["verdicts"][0]["gpu"] == "unusable"
    assert report["verdicts"][0]["cause"] == "LIB002"

    home_before = signature(ill.home)
    shown = ill.doctor("fix", "--dry-run")
    assert shown.returncode == 0
    assert shown.stdout.endswith("Nothing was changed.\n")
    assert signature(ill.environment) == before
    assert signature(ill.home) == home_before
    assert ill.doctor("fix", "--dry-run", "--exit-code").returncode == 1

    assert ill.doctor("fix").returncode == 2  # no terminal to ask at, and no --yes
    assert signature(ill.environment) == before

    code, fixed = ill.answer("fix", "--yes")
    assert (code, fixed["changed"], fixed["failed"]) == (0, True, False)
    (link,) = fixed["plan"]
    assert link["kind"] == "symlink"
    assert Path(link["path"]).resolve(strict=True).name.startswith("libcusolver.so.11")
    assert "GPU:0" in ill.tensorflow()

    code, report = ill.answer("check")
    assert (code, report["findings"]) == (0, [])
    assert (report["verdicts"][0]["gpu"], report["verdicts"][0]["tried"]) == ("usable", True)
    again = ill.doctor("fix", "--yes")
    assert "There is nothing to repair." in again.stdout

    assert ill.doctor("undo", "--yes").returncode == 0
    assert signature(ill.environment) == before
    assert ill.tensorflow() == "[]"


def test_the_text_report_leads_with_the_cause_and_calls_the_driver_simulated(ill: Ill) -> None:
    lines = ill.doctor("check").stdout.splitlines()
    assert "SIMULATED driver 550.54.14" in lines[0]
    assert lines[2].startswith("✗ TensorFlow 2.21.0 will NOT use the GPU")
    assert lines[3].startswith("  LIB002  libcusolver.so.11 is installed but TensorFlow cannot find it")
    assert any(
        line.split()[:3] == ["repair", "envdoctor", "fix"] for line in lines
    )  # as $VIRTUAL_ENV names it
    consequence = next(line for line in lines if "PLC001" in line)
    assert consequence.rstrip().endswith("follows from LIB002")


def test_the_loader_model_names_the_files_that_tensorflow_maps(ill: Ill) -> None:
    """Predicted against real: every CUDA library that the process maps is the file that was foretold."""
    assert ill.doctor("fix", "--yes").returncode == 0
    target = Target(str(ill.environment / "bin" / "python"), "--python", Root(), ill.variables)
    (libraries,) = gather(target, quick=True).resolution
    foretold = {n.soname: n.lookup.real for n in libraries.needs if n.requirement.required}
    assert all(foretold.values())
    code = f"{LIST_GPUS}; print(open('/proc/self/maps').read())"
    done = subprocess.run(
        [target.python, "-B", "-c", code], env=ill.variables, capture_output=True, text=True, check=True
    )
    mapped = {line.split()[-1] for line in done.stdout.splitlines() if "/" in line}
    assert {os.path.realpath(path) for path in foretold.values()} <= mapped
    assert libraries.driver.real in mapped
    assert ill.doctor("undo", "--yes").returncode == 0


def test_the_loader_model_agrees_on_every_library_that_tensorflow_opens(ill: Ill, tmp_path: Path) -> None:
    """LD_DEBUG of the whole import and device listing, replayed on the model."""
    python = ill.environment / "bin" / "python"
    done = subprocess.run(
        [python, "-B", "-c", LIST_GPUS],
        env={**ill.variables, "LD_DEBUG": "libs,files", "LD_DEBUG_OUTPUT": str(tmp_path / "log")},
        capture_output=True,
        check=True,
    )
    assert done.stdout
    log = max(tmp_path.glob("log.*"), key=lambda path: path.stat().st_size).read_text(errors="replace")
    process = Process(DiskView(Root(), str(python)), ill.variables, cwd=str(Path.cwd()))
    modelled, real = replay(process, str(python), log)
    assert modelled == real
    assert len(real) > 100
    assert "libcusolver.so.11" not in real
