"""`explain LOG --check`: real logs joined with simulated machines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_overlay, workstation
from tests.machines.machine import Machine
from tests.machines.overlay import run_inside
from tests.test_cli import doctor, valid

REAL = Path(__file__).resolve().parent / "real"
LINK = "nvidia/cusparse/lib/libcusolver.so.11"

pytestmark = needs_overlay


def joined(machine: Machine, log: str) -> tuple[int, Any]:
    """Exit code and answer for a stored log on a machine."""
    path = str(REAL / f"{log}.log")
    done = run_inside(machine, [sys.executable, "-m", "envdoctor", "explain", path, "--check", "--json"])
    assert done.stdout, done.stderr
    return done.returncode, valid(done.stdout, "explain")


def test_what_the_facts_show_too_is_certain(machine: Machine) -> None:
    machine.user_libraries("550.54.14", cuda=999)
    assert (
        json.loads(doctor("explain", str(REAL / "cuinit-999.log"), "--json").stdout)["findings"][0][
            "confidence"
        ]
        == "likely"
    )
    code, said = joined(machine, "cuinit-999")
    lead = said["findings"][0]
    assert (code, lead["code"], lead["status"]) == (1, "DRV010", "confirmed")
    assert (lead["confidence"], lead["alternatives"]) == ("certain", [])
    assert lead["evidence"][0]["what"] == "line 7"
    assert len(lead["evidence"]) > len(lead["lines"])  # and what the facts saw
    assert said["target"]["python"]


def test_an_alternative_that_the_facts_show_is_the_cause(machine: Machine) -> None:
    """TensorFlow does not name the library; the files of this machine do."""
    machine.path(f"{machine.site_packages}/{LINK}").unlink()
    code, said = joined(machine, "cusolver-not-found")
    lead = said["findings"][0]
    assert (code, lead["code"], lead["status"]) == (1, "LIB002", "confirmed")
    assert (lead["subject"], lead["confidence"]) == ("libcusolver.so.11", "certain")
    assert "Cannot dlopen" in lead["evidence"][0]["value"]


def test_a_mask_that_the_log_does_not_print_is_found_in_the_environment(machine: Machine) -> None:
    machine.export(CUDA_VISIBLE_DEVICES="-1")
    _, said = joined(machine, "hidden")
    assert (said["findings"][0]["code"], said["findings"][0]["status"]) == ("GPU002", "confirmed")


@pytest.mark.parametrize("log", ["cuinit-100", "cuinit-999", "cuinit-803-diagnostics", "hidden-diagnostics"])
def test_what_was_repaired_since_is_past_and_no_error(machine: Machine, log: str) -> None:
    code, said = joined(machine, log)
    assert [f["status"] for f in said["findings"]] == ["past"] * len(said["findings"])
    assert code == 0


def test_what_no_check_looks_for_is_not_judged(machine: Machine) -> None:
    code, said = joined(machine, "cublas-handle")
    assert (code, said["findings"][0]["code"], said["findings"][0]["status"]) == (1, "CDN006", "not judged")


def test_what_could_not_be_read_is_not_judged_and_says_why(tmp_path: Path) -> None:
    """The framework that the log is of was not run here: its fake has no module to import."""
    machine = workstation(tmp_path / "m")
    _, said = joined(machine, "xla-flag-unknown")
    lead = said["findings"][0]
    assert (lead["code"], lead["status"]) == ("XLA004", "not judged")
    assert "XLA_FLAGS is not set" in next(e["value"] for e in lead["evidence"] if e["what"] == "not judged")


def test_a_healthy_log_stays_healthy_beside_a_machine(machine: Machine) -> None:
    code, said = joined(machine, "cusolver-found")
    assert (code, said["healthy"], said["findings"]) == (0, True, [])


def test_the_text_says_what_holds_here(machine: Machine) -> None:
    path = str(REAL / "cuinit-999.log")
    done = run_inside(machine, [sys.executable, "-m", "envdoctor", "explain", path, "--check"])
    assert "the cause in this log does not hold here now" in done.stdout
    assert "not so on this machine now" in done.stdout
