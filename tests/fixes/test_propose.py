"""Plans are proven before they are shown: on simulated machines, read below their root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.machines.machine import Machine
from tests.machines.workstation import old_workstation
from tests.tree import signature

LINK = "nvidia/cusparse/lib/libcusolver.so.11"


def plan(machine: Machine, *options: str) -> Any:
    """What `fix --dry-run --json` proposes."""
    command = [sys.executable, "-m", "envdoctor", "fix", "--dry-run", "--json", "--root", str(machine.root)]
    command += ["--python", machine.python, *options]
    done = subprocess.run(command, env=machine.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_healthy_machine_has_no_plan(machine: Machine) -> None:
    answer = plan(machine)
    assert (answer["plan"], answer["changed"]) == ([], False)


def test_the_missing_link_goes_where_the_librarys_own_needs_still_resolve(machine: Machine) -> None:
    """libcusolver finds libcublas by $ORIGIN/../../cublas/lib: a link at another depth would break that."""
    site = machine.site_packages
    machine.path(f"{site}/{LINK}").unlink()
    machine.path(f"{site}/tensorrt").mkdir()  # in the RUNPATH too, one level higher
    before = signature(machine.root)
    (action,) = plan(machine)["plan"]
    assert (action["kind"], action["code"], action["risk"]) == ("symlink", "LIB002", "none")
    assert action["target"] == "../../cusolver/lib/libcusolver.so.11"
    assert signature(machine.root) == before
    os.symlink(action["target"], machine.path(action["path"]))
    assert machine.check().codes == []


def test_where_no_searched_directory_may_be_written_an_export_is_proposed(machine: Machine) -> None:
    site = machine.site_packages
    machine.path(f"{site}/{LINK}").unlink()
    (action,) = plan(machine, "--prefer", "export")["plan"]
    assert (action["kind"], action["variable"]) == ("export", "LD_LIBRARY_PATH")
    assert action["values"] == [f"{site}/nvidia/cusolver/lib"]
    assert [e["path"] for e in action["edits"]] == ["/opt/venv/bin/activate"]


def test_no_link_is_proposed_into_a_directory_that_is_not_the_environments_own(tmp_path: Path) -> None:
    """Without a RUNPATH only system directories are searched: an export is what is left."""
    machine = Machine(tmp_path / "m").os("ubuntu", "22.04").driver().venv().tensorflow(runpath="")
    machine.nvidia_wheels()
    kinds = {a["kind"] for a in plan(machine)["plan"]}
    assert kinds == {"export"}


def test_libraries_of_two_wheels_are_repaired_together(machine: Machine) -> None:
    site = machine.site_packages
    machine.path(f"{site}/{LINK}").unlink()
    runpath = "$ORIGIN/../nvidia/cublas/lib:$ORIGIN/../nvidia/cuda_runtime/lib:$ORIGIN/../nvidia/cudnn/lib"
    machine.library(f"{site}/tensorflow/libtensorflow_framework.so.2", runpath=runpath)
    answer = plan(machine)
    links = {Path(a["path"]).name for a in answer["plan"]}
    assert links == {"libcufft.so.11", "libcusolver.so.11", "libcusparse.so.12"}
    for action in answer["plan"]:
        os.symlink(action["target"], machine.path(action["path"]))
    assert machine.check().codes == []


def test_a_toolkits_library_is_linked_or_exported(machine: Machine) -> None:
    machine.path(f"{machine.site_packages}/nvidia/cufft/lib/libcufft.so.11").unlink()
    machine.library("/usr/local/cuda-12.5/lib64/libcufft.so.11")
    (link,) = plan(machine)["plan"]
    assert (link["kind"], link["target"].endswith("usr/local/cuda-12.5/lib64/libcufft.so.11")) == (
        "symlink",
        True,
    )
    (export,) = plan(machine, "--prefer", "export")["plan"]
    assert export["values"] == ["/usr/local/cuda-12.5/lib64"]


def test_the_cuda_10_2_machine_gets_the_link_that_is_safe_and_the_others_only_at_the_users_risk(
    tmp_path: Path,
) -> None:
    machine = old_workstation(tmp_path / "m")
    checked = machine.check()
    assert checked.causes == ["LIB005", "LIB010"]
    assert checked.finding("LIB005")["subject"] == "libcudart.so.10.1"
    assert checked.finding("LIB005")["fixable"]
    careful = [a for a in plan(machine)["plan"] if a["kind"] == "symlink"]
    assert [(Path(a["path"]).name, Path(a["target"]).name, a["risk"]) for a in careful] == [
        ("libcudart.so.10.1", "libcudart.so.10.2", "low")
    ]
    bold = [a for a in plan(machine, "--allow-risky")["plan"] if a["kind"] == "symlink"]
    assert {(Path(a["path"]).name, Path(a["target"]).name, a["risk"]) for a in bold} == {
        ("libcudart.so.10.1", "libcudart.so.10.2", "low"),
        ("libnvinfer.so.6", "libnvinfer.so.7", "high"),
        ("libnvinfer_plugin.so.6", "libnvinfer_plugin.so.7", "high"),
    }
    assert all("another major version" in a["reason"] for a in bold if a["risk"] == "high")


def test_only_limits_the_plan_to_what_was_named(machine: Machine) -> None:
    machine.path(f"{machine.site_packages}/{LINK}").unlink()
    assert plan(machine, "--only", "LIB005")["plan"] == []
    assert len(plan(machine, "--only", "pip-cuda-libs-not-on-path")["plan"]) == 1
