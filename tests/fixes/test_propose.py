"""Plans are proven before they are shown: on simulated machines, read below their root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.machines import eras
from tests.machines.drivers import GTX_1080
from tests.machines.machine import Machine
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
    assert action["prepend"] == [f"{site}/nvidia/cusolver/lib"]
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
    assert export["prepend"] == ["/usr/local/cuda-12.5/lib64"]


def old_workstation(root: Path) -> Machine:
    """TensorFlow 2.1 of 2020 beside CUDA 10.2, cuDNN 7.6 and TensorRT 7, on openSUSE."""
    machine = Machine(root).os("opensuse-leap", "15.2", like="suse opensuse").cpus(4)
    machine.driver("440.33.01", supports="10.2", gpus=[GTX_1080]).venv(version="3.7.9")
    eras.toolkit(eras.tensorflow(machine, "2.1.4"), "10.2", with_cudnn="7.6.5")
    for soname in ("libnvinfer.so.7", "libnvinfer_plugin.so.7"):
        eras.versioned(machine, "/usr/lib64", soname, "7.0.0")
    return machine.export(LD_LIBRARY_PATH="/usr/local/cuda-10.2/lib64:/usr/lib64")


def test_another_version_is_linked_only_where_risk_is_allowed_and_the_risk_is_said(tmp_path: Path) -> None:
    machine = old_workstation(tmp_path / "m")
    checked = machine.check()
    assert checked.causes == ["LIB005", "LIB010"]
    assert checked.finding("LIB005")["subject"] == "libcudart.so.10.1"
    assert not checked.finding("LIB005")["fixable"]
    careful = plan(machine)
    assert careful["plan"] == []
    assert {r["code"] for r in careful["refused"]} >= {"LIB005"}
    assert "--allow-risky" in careful["refused"][0]["reason"]
    bold = plan(machine, "--allow-risky")["plan"]
    linked = {Path(a["path"]).name: Path(a["target"]).name for a in bold}
    assert linked["libcudart.so.10.1"] == "libcudart.so.10.2"
    assert linked["libnvinfer.so.6"] == "libnvinfer.so.7"
    assert {a["risk"] for a in bold} == {"high"}
    assert all("another version" in a["reason"] for a in bold)


def test_only_limits_the_plan_to_what_was_named(machine: Machine) -> None:
    machine.path(f"{machine.site_packages}/{LINK}").unlink()
    assert plan(machine, "--only", "LIB005")["plan"] == []
    assert len(plan(machine, "--only", "pip-cuda-libs-not-on-path")["plan"]) == 1
