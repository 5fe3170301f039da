"""Checks from other packages, found through real entry points; what fails is a finding, never silence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GOOD = """
from envdoctor.catalog import Condition, Severity
from envdoctor.finding import Finding

CONDITIONS = (
    Condition(code="ACM001", name="acme-licence-expired", severity=Severity.ERROR, title="It is over",
              means="It is over.", why="Time.", check="acme_doctor:look"),
)

def look(facts):
    yield Finding(code="ACM001", subject="licence", message="expired " + facts.host.os_id[:0] + "yesterday")
"""
RAISES = GOOD.replace("    yield", "    raise RuntimeError('out of paper')\n    yield")
CLASHES = GOOD.replace("ACM001", "LIB002")
SHAPELESS = "CONDITIONS = 3\n"
RELATIVE = GOOD.replace("acme_doctor:look", "look")


def check(place: Path, source: str, *arguments: str) -> tuple[int, Any]:
    package = place / "acme" / "__init__.py"
    package.parent.mkdir()
    (place / "acme" / "doctor.py").write_text(source.replace("acme_doctor", "acme.doctor"))
    package.touch()
    info = place / "acme_doctor-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-doctor\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[envdoctor.checks]\nacme = acme.doctor\n")
    done = subprocess.run(
        [sys.executable, "-m", "envdoctor", "check", "--quick", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout) if "--json" in arguments else done.stdout


def codes(report: Any) -> list[str]:
    return [f["code"] for f in report["findings"]]


def test_a_plugins_check_is_run_and_its_finding_counts(tmp_path: Path) -> None:
    code, report = check(tmp_path, GOOD, "--json")
    assert code == 1
    assert report["findings"][0]["name"] == "acme-licence-expired"
    assert {"code": "ACM001", "status": "fail"}.items() <= report["checks"][-1].items()


def test_a_plugins_check_is_listed(tmp_path: Path) -> None:
    _, text = check(tmp_path, GOOD, "--list-checks")
    assert "ACM001  plugin       error    acme-licence-expired" in text


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemError('broken')\n", "SystemError: broken"),
        (SHAPELESS, "has no CONDITIONS"),
        (CLASHES, "LIB002 (acme-licence-expired) is taken"),
        (RELATIVE, "expected 'package.module:function'"),
        (RAISES, "RuntimeError: out of paper"),
    ],
)
def test_a_plugin_that_fails_is_a_finding_and_the_rest_of_the_report_stands(
    tmp_path: Path, source: str, says: str
) -> None:
    code, report = check(tmp_path, source, "--json")
    assert code == (3 if source == RAISES else 0)  # a warning; and an error that may hold, unseen
    failed = next(f for f in report["findings"] if f["code"] == "PLG001")
    assert says in failed["message"]
    assert "GPU001" in codes(report)


def test_a_failing_plugin_is_an_error_for_those_who_fail_on_warnings(tmp_path: Path) -> None:
    assert check(tmp_path, RAISES, "--fail-on", "warning")[0] == 1


def test_without_a_plugin_nothing_is_said_of_plugins() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "envdoctor", "check", "--quick"], capture_output=True, text=True, check=False
    )
    assert "PLG001" not in done.stdout
