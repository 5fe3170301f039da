"""The risk of a link to another version of a library is told from what is used of it and what it has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.facts.test_interfaces import with_versions
from tests.fixes.test_propose import plan
from tests.machines.compile import stub_library
from tests.machines.machine import Machine
from tests.machines.workstation import (
    CUDART,
    CUDART_FILE,
    INTERNAL,
    NVINFER,
    NVINFER_PLUGIN,
    OPENER,
    PACKAGE,
    old_workstation,
)


def link_of(answer: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        a for a in answer["plan"] if a["kind"] == "symlink" and Path(a["path"]).name == name
    )
    return found


def links(answer: Any) -> list[str]:
    return [Path(a["path"]).name for a in answer["plan"] if a["kind"] == "symlink"]


def refusal(answer: Any, code: str) -> str:
    return next(str(r["reason"]) for r in answer["refused"] if r["code"] == code)


# --- functions that are taken by name -------------------------------------------------------------------


def test_a_minor_version_with_every_function_is_linked_at_low_risk(tmp_path: Path) -> None:
    machine = old_workstation(tmp_path / "m")
    answer = plan(machine)
    assert links(answer) == ["libcudart.so.10.1"]
    link = link_of(answer, "libcudart.so.10.1")
    assert (link["code"], link["risk"]) == ("LIB005", "low")
    assert (
        f"all {len(CUDART)} functions that libtensorflow_framework.so.2 asks for are in it" in link["reason"]
    )
    os.symlink(link["target"], machine.path(link["path"]))
    assert machine.check("--quick").causes == ["LIB010"]


def test_a_function_that_it_lacks_makes_the_link_risky_and_is_named(tmp_path: Path) -> None:
    machine = old_workstation(tmp_path / "m", cudart=[n for n in CUDART if n != "cudaBindTexture"])
    careful = plan(machine)
    assert links(careful) == []
    assert "lacks 1 of the 8 functions" in refusal(careful, "LIB005")
    assert "cudaBindTexture" in refusal(careful, "LIB005")
    assert "--allow-risky" in refusal(careful, "LIB005")
    link = link_of(plan(machine, "--allow-risky"), "libcudart.so.10.1")
    assert link["risk"] == "high"
    assert "only when one is called" in link["reason"]


def test_a_library_with_none_of_the_functions_is_refused_whatever_risk_is_allowed(tmp_path: Path) -> None:
    """A stub, or a simulated library."""
    answer = plan(old_workstation(tmp_path / "m", cudart=["unrelated"]), "--allow-risky")
    assert "libcudart.so.10.1" not in links(answer)
    assert "has none of the 8 functions" in refusal(answer, "LIB005")


def test_without_evidence_the_link_is_risky(tmp_path: Path) -> None:
    machine = old_workstation(tmp_path / "m", cudart=[], named=[], called=[])
    stub_library(machine.path(INTERNAL), needed=["libtensorflow_framework.so.2"])
    assert links(plan(machine)) == []
    link = link_of(plan(machine, "--allow-risky"), "libcudart.so.10.1")
    assert (link["risk"], "nothing tells which of its functions are used" in link["reason"]) == ("high", True)


def test_what_cannot_be_looked_into_is_risky_and_said_to_be_unknown(tmp_path: Path) -> None:
    machine = old_workstation(tmp_path / "m")
    with open(machine.path(OPENER), "r+b") as file:
        file.seek(40)
        file.write(bytes(8))  # e_shoff
    assert links(plan(machine)) == []
    link = link_of(plan(machine, "--allow-risky"), "libcudart.so.10.1")
    assert (link["risk"], "is unknown" in link["reason"]) == ("high", True)


def test_another_major_version_is_risky_though_every_function_is_there(tmp_path: Path) -> None:
    machine = old_workstation(tmp_path / "m")
    assert not {"libnvinfer.so.6", "libnvinfer_plugin.so.6"} & set(links(plan(machine, "--only", "LIB010")))
    answer = plan(machine, "--allow-risky", "--only", "LIB010")
    assert set(links(answer)) == {"libnvinfer.so.6", "libnvinfer_plugin.so.6"}
    link = link_of(answer, "libnvinfer.so.6")
    assert (link["risk"], "another major version" in link["reason"]) == ("high", True)
    assert "all 3 functions that _pywrap_tensorflow_internal.so asks for are in it" in link["reason"]


def test_a_file_that_is_another_library_by_its_own_name_is_refused(tmp_path: Path) -> None:
    machine = old_workstation(tmp_path / "m")
    machine.library(CUDART_FILE, "libother.so.10", symbols=CUDART)
    answer = plan(machine, "--allow-risky")
    assert "libcudart.so.10.1" not in links(answer)
    assert "libother.so.10, another library" in refusal(answer, "LIB005")


def test_the_safer_of_two_candidates_is_taken_and_of_equals_the_newer(tmp_path: Path) -> None:
    machine = old_workstation(tmp_path / "m")
    machine.library("/usr/local/cuda-11.0/lib64/libcudart.so.11.0", symbols=CUDART)
    link = link_of(plan(machine), "libcudart.so.10.1")
    assert (link["risk"], Path(link["target"]).name) == ("low", "libcudart.so.10.2")
    machine.library(CUDART_FILE, "libcudart.so.10.2", symbols=CUDART[1:])
    link = link_of(plan(machine, "--allow-risky"), "libcudart.so.10.1")
    assert (link["risk"], Path(link["target"]).name) == ("high", "libcudart.so.11.0")


# --- objects that are linked to it ----------------------------------------------------------------------

_CLASS = "_ZN8nvinfer14pluginC1Ev"


def with_plugin(machine: Machine) -> Machine:
    """libnvinfer_plugin.so.6, left behind by TensorRT 6, needs a class of libnvinfer.so.6."""
    stub_library(
        machine.path("/usr/lib64/libnvinfer_plugin.so.6"),
        needed=["libnvinfer.so.6"],
        source=f"int {_CLASS}(void); int {NVINFER_PLUGIN[0]}(void) {{ return {_CLASS}(); }}\n",
    )
    return machine


def test_a_symbol_that_a_dependent_needs_rules_the_link_out_and_is_named(tmp_path: Path) -> None:
    answer = plan(with_plugin(old_workstation(tmp_path / "m")), "--allow-risky", "--only", "LIB010")
    assert links(answer) == []
    reason = refusal(answer, "LIB010")
    assert "libnvinfer.so.7.0.0 lacks 1 of the 1 functions that libnvinfer_plugin.so.6 is linked to" in reason
    assert _CLASS in reason


def test_a_symbol_version_that_a_dependent_needs_rules_the_link_out(tmp_path: Path) -> None:
    machine = old_workstation(tmp_path / "m")
    with_versions(machine, defined="libnvinfer.so.7", needed="libnvinfer.so.6")
    answer = plan(machine, "--allow-risky", "--only", "LIB010")
    assert links(answer) == []
    assert "needs the symbol version libnvinfer.so.6, which libnvinfer.so.7.0.0 does not" in refusal(
        answer, "LIB010"
    )


def test_with_that_symbol_the_dependent_loads_through_the_link(tmp_path: Path) -> None:
    machine = with_plugin(old_workstation(tmp_path / "m", nvinfer=[*NVINFER, _CLASS]))
    answer = plan(machine, "--allow-risky", "--only", "LIB010")
    assert links(answer) == ["libnvinfer.so.6"]
    link = link_of(answer, "libnvinfer.so.6")
    assert link["path"] == f"{PACKAGE}/libnvinfer.so.6"
    assert "all 1 functions that libnvinfer_plugin.so.6 is linked to are in it" in link["reason"]
