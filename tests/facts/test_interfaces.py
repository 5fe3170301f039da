"""What is used of a library that is not found, against another version of it: as the program reads it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from envdoctor.facts.elf_symbols import called_symbols, exported_symbols, read_only_strings
from envdoctor.facts.interfaces import PATTERNS
from tests import environments
from tests.machines.compile import stub_library
from tests.machines.machine import Machine
from tests.machines.workstation import (
    CUDART,
    CUDART_FILE,
    INTERNAL,
    NVINFER,
    OPENER,
    names,
    old_workstation,
    stubs,
)

NOTHING = {"by": [], "symbols": 0, "missing": 0, "examples": [], "called": 0}


def interfaces(machine: Machine) -> dict[str, Any]:
    """By the name that is wanted."""
    found = machine.check("--quick").report["facts"]["interfaces"]
    return {interface["soname"]: interface for interface in found}


def test_nothing_is_read_where_every_library_is_there(machine: Machine) -> None:
    machine.library("/usr/local/cuda-11.8/lib64/libcusparse.so.11", symbols=["cusparseCreate"])
    assert interfaces(machine) == {}


def test_nothing_is_read_where_the_very_library_is_there_and_merely_not_found(machine: Machine) -> None:
    machine.path(f"{machine.site_packages}/nvidia/cusparse/lib/libcusolver.so.11").unlink()
    machine.library("/usr/local/cuda-10.2/lib64/libcusolver.so.10", symbols=["cusolverDnCreate"])
    assert interfaces(machine) == {}


def test_the_names_in_the_opener_are_held_against_what_the_other_version_exports(tmp_path: Path) -> None:
    found = interfaces(old_workstation(tmp_path / "m"))
    assert found.keys() == {"libcudart.so.10.1", "libnvinfer.so.6", "libnvinfer_plugin.so.6"}
    cudart = found["libcudart.so.10.1"]
    assert (cudart["candidate"], cudart["candidate_soname"]) == (CUDART_FILE, "libcudart.so.10.2")
    assert cudart["opened"] == {**NOTHING, "by": [OPENER], "symbols": len(CUDART)}
    assert (cudart["linked"], cudart["missing_versions"], cudart["unknown"]) == (NOTHING, [], "")


def test_names_in_other_objects_count_only_where_the_opener_has_none(tmp_path: Path) -> None:
    """_pywrap_tensorflow_internal.so names cudaD3D10GetDevice, which no libcudart for Linux has."""
    found = interfaces(old_workstation(tmp_path / "m"))
    assert found["libcudart.so.10.1"]["opened"]["missing"] == 0
    assert found["libnvinfer.so.6"]["opened"] == {**NOTHING, "by": [INTERNAL], "symbols": len(NVINFER)}


def test_missing_functions_are_told_those_that_are_called_first(tmp_path: Path) -> None:
    kept = [name for name in CUDART if name not in {"cudaBindTexture", "cudaGetDeviceCount", "cudaMalloc"}]
    machine = old_workstation(tmp_path / "m", cudart=kept, called=["cudaMalloc"])
    opened = interfaces(machine)["libcudart.so.10.1"]["opened"]
    assert opened["examples"] == ["cudaMalloc", "cudaBindTexture", "cudaGetDeviceCount"]
    assert (opened["missing"], opened["called"]) == (3, 1)


def test_a_call_from_an_object_that_is_linked_to_the_opener_counts(tmp_path: Path) -> None:
    machine = old_workstation(tmp_path / "m", cudart=CUDART[1:], called=[])
    register = CUDART[0]
    source = f"int {register}(void); int use(void) {{ return {register}(); }}\n" + names(NVINFER)
    stub_library(machine.path(INTERNAL), needed=["libtensorflow_framework.so.2"], source=source)
    opened = interfaces(machine)["libcudart.so.10.1"]["opened"]
    assert (opened["examples"], opened["called"]) == ([register], 1)


def test_an_opener_that_names_nothing_is_no_evidence(tmp_path: Path) -> None:
    machine = old_workstation(tmp_path / "m", named=[], called=[])
    stub_library(machine.path(INTERNAL), needed=["libtensorflow_framework.so.2"])
    cudart = interfaces(machine)["libcudart.so.10.1"]
    assert (cudart["opened"], cudart["unknown"]) == (NOTHING, "")


def test_an_opener_that_cannot_be_looked_into_makes_it_unknown(tmp_path: Path) -> None:
    machine = old_workstation(tmp_path / "m")
    with open(machine.path(OPENER), "r+b") as file:
        file.seek(40)
        file.write(bytes(8))  # e_shoff
    cudart = interfaces(machine)["libcudart.so.10.1"]
    assert cudart["unknown"] == f"{OPENER} could not be read: it has no section headers"


# --- objects that are linked to the library -------------------------------------------------------------

_CLASS = "_ZN8nvinfer14pluginC1Ev"


def with_plugin(machine: Machine, source: str, needed: list[str], directory: str = "/usr/lib64") -> Machine:
    """libnvinfer_plugin.so.6, left behind by TensorRT 6."""
    stub_library(machine.path(f"{directory}/libnvinfer_plugin.so.6"), needed=needed, source=source)
    return machine


def calls(*functions: str) -> str:
    declared = "".join(f"int {name}(void); " for name in functions)
    return f"{declared}int use(void) {{ return {' + '.join(f'{n}()' for n in functions)}; }}\n"


@pytest.mark.parametrize("directory", ["/usr/lib64", "/usr/local/cuda-10.2/extras/CUPTI/lib64"])
def test_undefined_symbols_of_what_is_linked_to_the_library_are_asked_of_it(
    tmp_path: Path, directory: str
) -> None:
    """Also of a file that the loader does not find yet: a repair may bring it into play."""
    machine = old_workstation(tmp_path / "m")
    with_plugin(machine, calls("getPluginRegistry", _CLASS), ["libnvinfer.so.6"], directory)
    linked = interfaces(machine)["libnvinfer.so.6"]["linked"]
    assert linked["by"] == [f"{directory}/libnvinfer_plugin.so.6"]
    assert (linked["symbols"], linked["missing"], linked["examples"]) == (2, 1, [_CLASS])


def test_what_another_of_its_libraries_defines_is_not_asked_of_this_one(tmp_path: Path) -> None:
    machine = old_workstation(tmp_path / "m")
    machine.library("/usr/lib64/libhelper.so.1", symbols=[_CLASS])
    with_plugin(machine, calls("getPluginRegistry", _CLASS), ["libnvinfer.so.6", "libhelper.so.1"])
    linked = interfaces(machine)["libnvinfer.so.6"]["linked"]
    assert (linked["symbols"], linked["missing"]) == (1, 0)


def test_where_another_of_its_libraries_is_missing_it_is_unknown_who_defines_a_symbol(tmp_path: Path) -> None:
    machine = old_workstation(tmp_path / "m")
    with_plugin(machine, calls(_CLASS), ["libnvinfer.so.6", "libhelper.so.1"])
    nvinfer = interfaces(machine)["libnvinfer.so.6"]
    assert nvinfer["linked"]["missing"] == 0
    assert nvinfer["unknown"].startswith("libhelper.so.1 is not found either")
    assert _CLASS in nvinfer["unknown"]


def test_a_name_of_the_librarys_own_interface_is_missing_all_the_same(tmp_path: Path) -> None:
    machine = old_workstation(tmp_path / "m")
    with_plugin(machine, calls("createOther_INTERNAL"), ["libnvinfer.so.6", "libhelper.so.1"])
    linked = interfaces(machine)["libnvinfer.so.6"]["linked"]
    assert (linked["missing"], linked["examples"]) == (1, ["createOther_INTERNAL"])


def test_a_version_of_symbols_that_the_other_file_does_not_define_is_missing(tmp_path: Path) -> None:
    machine = old_workstation(tmp_path / "m")
    with_versions(machine, defined="libnvinfer.so.7", needed="libnvinfer.so.6")
    assert interfaces(machine)["libnvinfer.so.6"]["missing_versions"] == ["libnvinfer.so.6"]
    with_versions(machine, defined="libnvinfer.so.6", needed="libnvinfer.so.6")
    assert interfaces(machine)["libnvinfer.so.6"]["missing_versions"] == []


def test_a_file_without_versions_satisfies_the_loader(tmp_path: Path) -> None:
    machine = old_workstation(tmp_path / "m")
    with_versions(machine, defined="", needed="libnvinfer.so.6")
    nvinfer = interfaces(machine)["libnvinfer.so.6"]
    assert (nvinfer["missing_versions"], nvinfer["linked"]["missing"]) == ([], 0)


def with_versions(machine: Machine, *, defined: str, needed: str) -> None:
    """libnvinfer.so.7 whose symbols have a version, and a plugin that was linked to such a library of 6."""
    other = machine.path("/usr/lib64/libnvinfer.so.7.0.0")
    wanted = machine.path("/build/libnvinfer.so.6")
    build(other, stubs(NVINFER), "-Wl,-soname,libnvinfer.so.7", version=defined)
    build(wanted, stubs(NVINFER), "-Wl,-soname,libnvinfer.so.6", version=needed)
    build(machine.path("/usr/lib64/libnvinfer_plugin.so.6"), calls("getPluginRegistry"), str(wanted))


def build(path: Path, source: str, *options: str, version: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text, script = path.with_suffix(".c"), path.with_suffix(".map")
    text.write_text(source)
    script.write_text(f"{version} {{ global: *; }};")
    versions = [f"-Wl,--version-script,{script}"] if version else []
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-nostdlib", text, *options, *versions, "-o", path], check=True
    )


@pytest.mark.tensorflow
def test_the_real_opener_names_only_functions_that_the_real_library_has() -> None:
    """TensorFlow 2.21.0 and the libcudart.so.12 of NVIDIA's wheel; its own code calls a few of them."""
    environment = environments.installed("light")
    if environment is None:
        pytest.skip("not installed: python tests/environments.py light")
    site = next(environment.glob("lib/python3*/site-packages"))
    opener = str(site / "tensorflow/libtensorflow_framework.so.2")
    patterns = PATTERNS["libcudart"]
    named = read_only_strings(opener, patterns)
    assert len(named) > 300
    assert named <= exported_symbols(str(site / "nvidia/cuda_runtime/lib/libcudart.so.12"))
    assert "cudaGetDeviceCount" in called_symbols(opener, named, patterns)
    assert len(called_symbols(opener, named, patterns)) < 100
