"""Libraries that are found in the wrong place or not at all: what the plan does, and that it cures.

Each repair is made as it was planned (links, and exports into the environment of a shell that has entered the
target's), and the machine is judged again; `applied` does the same with `fix --yes` and the real scripts.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from envdoctor.diagnose import diagnose
from envdoctor.facts.gather import gather
from envdoctor.fixes.joining import extended
from envdoctor.fixes.plan import Action, Join
from envdoctor.fixes.propose import propose
from envdoctor.fixes.repair import Prefer, Wishes
from envdoctor.target import choose_target
from tests.checks.test_containers import WSL, wsl
from tests.checks.test_cudnn import older_parts
from tests.checks.test_frameworks import (
    complaints,
    tensorflow_2_10,
    tensorflow_2_13,
    torch_2_1,
    torch_cuda_12,
    with_extra,
)
from tests.checks.test_host import CXX_4_8, CXX_13, GLIBC_239, NEEDS_221, built_with, c_libraries
from tests.conftest import needs_overlay, needs_root, workstation
from tests.fixes.test_propose import plan
from tests.machines import eras
from tests.machines.machine import LIBRARIES, Checked, Machine, checked
from tests.machines.overlay import run_inside
from tests.machines.versioned import c_library

LINK = "nvidia/cusparse/lib/libcusolver.so.11"


def repairs(machine: Machine, *options: str) -> list[Any]:
    """What the plan does by itself."""
    return [a for a in plan(machine, *options)["plan"] if a["kind"] in {"symlink", "export"}]


def only_exports(machine: Machine) -> list[Action]:
    """The plan of `envdoctor env`."""
    target = choose_target(machine.python, str(machine.root), machine.environment)
    facts = gather(target, quick=True)
    wishes = Wishes(prefer=Prefer.EXPORT, exports_only=True)
    return list(propose(facts, diagnose(facts), wishes).plan.actions)


def carried_out(machine: Machine, actions: list[Any]) -> Machine:
    for action in actions:
        if action["kind"] == "symlink":
            os.symlink(action["target"], machine.path(action["path"]))
        else:
            held = machine.environment.get(action["variable"], "")
            value = extended(held, tuple(action["values"]), Join(action["join"]))
            machine.environment[action["variable"]] = value
    return machine


def applied(machine: Machine, *options: str, through: Sequence[str] = ()) -> Any:
    """What `fix --yes` answers on the machine itself, started by the command `through`."""
    command = [sys.executable, "-m", "envdoctor", "fix", "--yes", "--json", "--python", machine.python]
    done = run_inside(machine, [*through, *command, *options])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def entered(machine: Machine, *options: str, through: Sequence[str] = ()) -> Checked:
    """What `check` says in a shell that has activated the environment."""
    activate = ["bash", "-c", '. "$0" && exec "$@"', f"{machine.prefix}/bin/activate"]
    command = [sys.executable, "-m", "envdoctor", "check", "--json", "--quick", *options]
    return checked(run_inside(machine, [*through, *activate, *command]))


def cached(machine: Machine, *directories: str) -> Machine:
    """With these directories in ld.so.conf (needs root)."""
    machine.file("/etc/ld.so.conf", "".join(f"{d}\n" for d in (*directories, LIBRARIES)))
    return machine.ldconfig()


# --- LIB004: another copy is found first ------------------------------------------------------------


def test_an_old_toolkit_from_bashrc_is_put_behind_the_conda_environments_own(tmp_path: Path) -> None:
    machine = tensorflow_2_10(Machine(tmp_path / "m"))
    eras.toolkit(machine, "11.0", with_cudnn="8.0.5")
    machine.export(LD_LIBRARY_PATH=f"/usr/local/cuda-11.0/lib64:{machine.prefix}/lib")
    (export,) = repairs(machine, "--only", "LIB004")
    assert (export["code"], export["variable"], export["values"], export["destination"]) == (
        "LIB004",
        "LD_LIBRARY_PATH",
        [f"{machine.prefix}/lib"],
        "conda",
    )
    codes = carried_out(machine, [export]).check().codes
    assert not {"LIB004", "CDN002"} & set(codes)


def test_every_wheel_that_is_shadowed_gets_its_directory_in_front(tmp_path: Path) -> None:
    machine = with_extra("2.15.1")(Machine(tmp_path / "m"))
    eras.toolkit(machine, "12.0").export(LD_LIBRARY_PATH="/usr/local/cuda-12.0/lib64")
    (export,) = repairs(machine)
    assert all("/site-packages/nvidia/" in value for value in export["values"])
    assert export["destination"] == "venv"
    assert complaints(carried_out(machine, [export]).check()) == []


def cache_shadows(root: Path) -> Machine:
    """TensorFlow 2.21 does not look into its cusolver wheel; an old toolkit in ld.so.cache answers."""
    machine = workstation(root)
    machine.path(f"{machine.site_packages}/{LINK}").unlink()
    eras.versioned(machine, "/usr/local/cuda-12.2/lib64", "libcusolver.so.11", "11.5.2.141")
    return cached(machine, "/usr/local/cuda-12.2/lib64")


@needs_root
def test_a_link_in_the_runpath_goes_before_the_cache(tmp_path: Path) -> None:
    machine = cache_shadows(tmp_path / "m")
    (link,) = repairs(machine)
    assert (link["kind"], link["code"]) == ("symlink", "LIB004")
    assert link["target"] == "../../cusolver/lib/libcusolver.so.11"
    assert carried_out(machine, [link]).check().codes == []


@needs_root
def test_no_link_is_planned_where_something_stands_already(tmp_path: Path) -> None:
    machine = cache_shadows(tmp_path / "m")
    (first,) = repairs(machine)
    machine.link(first["path"], "gone")
    (link,) = repairs(machine)
    assert link["path"] != first["path"]
    assert carried_out(machine, [link]).check().codes == []


@needs_root
def test_an_export_does_it_too_where_exports_are_preferred(tmp_path: Path) -> None:
    machine = cache_shadows(tmp_path / "m")
    (export,) = repairs(machine, "--prefer", "export")
    assert export["values"] == [f"{machine.site_packages}/nvidia/cusolver/lib"]
    assert carried_out(machine, [export]).check().codes == []


def test_a_link_is_not_taken_for_a_cure_where_the_library_path_comes_first(machine: Machine) -> None:
    machine.path(f"{machine.site_packages}/{LINK}").unlink()
    eras.versioned(machine, "/usr/local/cuda-12.2/lib64", "libcusolver.so.11", "11.5.2.141")
    machine.export(LD_LIBRARY_PATH="/usr/local/cuda-12.2/lib64")
    assert [a["kind"] for a in repairs(machine)] == ["export"]


def test_the_wheels_own_directories_on_the_library_path_need_no_repair(machine: Machine) -> None:
    machine.export(LD_LIBRARY_PATH=f"{machine.site_packages}/nvidia/cudnn/lib:/opt/x")
    assert repairs(machine) == []


@needs_overlay
def test_the_export_is_written_where_the_shell_reads_it_and_cures(machine: Machine) -> None:
    directory = "/usr/local/cuda-12.9/lib64"
    machine.library(f"{directory}/libcudnn.so.9.1.0", soname="libcudnn.so.9")
    machine.link(f"{directory}/libcudnn.so.9", "libcudnn.so.9.1.0").export(LD_LIBRARY_PATH=directory)
    answer = applied(machine)
    assert (answer["changed"], answer["failed"]) == (True, False)
    assert {"LIB004", "CDN002"} & {f["code"] for f in answer["findings"]} == set()
    assert {"LIB004", "CDN002"} <= set(machine.check("--quick").codes)  # a shell that did not enter again
    assert complaints(entered(machine)) == []


# --- CDN002, CDN003, CDN004 -------------------------------------------------------------------------


def old_cudnn_first(root: Path) -> Machine:
    machine = tensorflow_2_10(Machine(root))
    for file in machine.path(f"{machine.prefix}/lib").glob("libcudnn*"):
        file.unlink()
    eras.system_cudnn(machine, "/opt/cuda-old/lib64", "8.0.5", "-cu11")
    return machine.export(LD_LIBRARY_PATH=f"/opt/cuda-old/lib64:{machine.prefix}/lib")


def test_a_newer_cudnn_of_a_toolkit_goes_before_the_old_one(tmp_path: Path) -> None:
    machine = old_cudnn_first(tmp_path / "m")
    eras.system_cudnn(machine, "/usr/local/cuda-11.2/lib64", "8.1.0", "-cu11")
    (export,) = repairs(machine)
    assert (export["code"], export["values"]) == ("CDN002", ["/usr/local/cuda-11.2/lib64"])
    assert complaints(carried_out(machine, [export]).check()) == []


@pytest.mark.parametrize("other", ["", "8.0.2"])
def test_no_cudnn_that_is_too_old_as_well_is_put_first(tmp_path: Path, other: str) -> None:
    machine = old_cudnn_first(tmp_path / "m")
    if other:
        eras.system_cudnn(machine, "/usr/local/cuda-11.2/lib64", other, "-cu11")
    assert "CDN002" in machine.check().codes
    assert repairs(machine) == []


def test_a_cudnn_for_the_right_cuda_goes_before_the_one_for_another(tmp_path: Path) -> None:
    machine = eras.computer(Machine(tmp_path / "m")).venv()
    eras.toolkit(eras.tensorflow(machine, "2.15.1"), "12.2", with_cudnn="8.9.7")
    eras.system_cudnn(machine, "/opt/cuda-8/lib64", "8.9.7", "-cu11")
    machine.export(LD_LIBRARY_PATH="/opt/cuda-8/lib64:/usr/local/cuda-12.2/lib64")
    (export,) = repairs(machine)
    assert (export["code"], export["values"]) == ("CDN003", ["/usr/local/cuda-12.2/lib64"])
    assert complaints(carried_out(machine, [export]).check()) == []


def test_cudnns_parts_are_taken_from_where_cudnn_itself_lies(tmp_path: Path) -> None:
    machine = torch_cuda_12(Machine(tmp_path / "m"))
    own = f"{machine.site_packages}/nvidia/cudnn/lib"
    machine.library(f"{own}/libcudnn.so.9", runpath="$ORIGIN")
    older_parts(machine, "/opt/cudnn/lib").export(LD_LIBRARY_PATH="/opt/cudnn/lib")
    (export,) = repairs(machine)
    assert (export["code"], export["values"]) == ("CDN004", [own])
    assert complaints(carried_out(machine, [export]).check()) == []


def test_parts_of_another_version_beside_cudnn_are_not_cured_by_any_search_path(tmp_path: Path) -> None:
    machine = tensorflow_2_10(Machine(tmp_path / "m"))
    soname = "libcudnn_cnn_infer.so.8"
    file = f"{machine.prefix}/lib/{soname}.9.7"
    machine.library(file, soname=soname, needed=["libcudnn_ops_infer.so.8"])
    machine.link(f"{machine.prefix}/lib/{soname}", f"{soname}.9.7")
    assert "CDN004" in machine.check().codes
    assert repairs(machine) == []


# --- LIB006, LIB007, LIB008, LIB010 -----------------------------------------------------------------


@pytest.mark.parametrize("broken", ["LIB006", "LIB007"])
def test_a_broken_file_is_passed_by_where_a_whole_one_is_installed(machine: Machine, broken: str) -> None:
    path = f"{machine.site_packages}/nvidia/cufft/lib/libcufft.so.11"
    machine.path(path).unlink()
    if broken == "LIB006":
        machine.link(path, "libcufft.so.11.4.1")
    else:
        machine.file(path, "not a library")
    assert machine.check().causes == [broken]
    assert repairs(machine) == []
    machine.library("/usr/local/cuda-12.5/lib64/libcufft.so.11")
    (export,) = repairs(machine)
    assert (export["code"], export["values"]) == (broken, ["/usr/local/cuda-12.5/lib64"])
    assert carried_out(machine, [export]).check().codes == []


@pytest.mark.parametrize(("prefer", "kind"), [("symlink", "symlink"), ("export", "export")])
def test_what_a_library_needs_itself_is_linked_or_exported(machine: Machine, prefer: str, kind: str) -> None:
    machine.path(f"{machine.site_packages}/nvidia/nvjitlink/lib/libnvJitLink.so.12").unlink()
    assert repairs(machine, "--prefer", prefer) == []
    machine.library("/usr/local/cuda-12.5/lib64/libnvJitLink.so.12")
    (action,) = repairs(machine, "--prefer", prefer)
    assert (action["code"], action["kind"]) == ("LIB008", kind)
    assert carried_out(machine, [action]).check().codes == []


def test_a_part_of_cudnn_that_lies_elsewhere_is_linked_where_cudnn_looks(tmp_path: Path) -> None:
    machine = with_extra("2.20.0")(Machine(tmp_path / "m"))
    lost = min(machine.path(f"{machine.site_packages}/nvidia/cudnn/lib").glob("libcudnn_adv*"))
    lost.unlink()
    machine.library(f"/usr/local/cuda-12.5/lib64/{lost.name}.3.0", soname=lost.name)
    machine.link(f"/usr/local/cuda-12.5/lib64/{lost.name}", f"{lost.name}.3.0")
    (action,) = [a for a in repairs(machine) if a["code"] == "LIB008"]
    assert "LIB008" not in carried_out(machine, [action]).check().codes


def test_tensorrts_wheel_is_linked_or_exported_where_its_version_is_the_one_asked_for(tmp_path: Path) -> None:
    machine = with_extra("2.16.2")(Machine(tmp_path / "m"))
    (asked, plugin) = machine.check().finding("LIB010")["subject"].split(", ")
    for soname in (asked, plugin):
        machine.library(f"{machine.site_packages}/tensorrt_libs/{soname}")
    (export,) = repairs(machine, "--prefer", "export")
    assert export["values"] == [f"{machine.site_packages}/tensorrt_libs"]
    assert "LIB010" not in carried_out(machine, [export]).check().codes


# --- LIB013: the plain name -------------------------------------------------------------------------


def test_the_plain_name_is_linked_beside_the_versioned_file_and_its_directory_searched(
    tmp_path: Path,
) -> None:
    machine = eras.torch(eras.computer(Machine(tmp_path / "m")).venv(), "2.0.1", "11.7")
    eras.torch_wheels(machine, "2.0.1")
    assert only_exports(machine) == []  # without the link they cure nothing
    link, export = repairs(machine)
    directory = f"{machine.site_packages}/nvidia/cuda_nvrtc/lib"
    assert (link["path"], link["target"]) == (f"{directory}/libnvrtc.so", "libnvrtc.so.11.2")
    assert (export["code"], export["values"]) == ("LIB013", [directory])
    assert complaints(carried_out(machine, [link]).check()) == ["LIB013"]
    assert repairs(machine) == [export]
    assert complaints(carried_out(machine, [export]).check()) == []


def test_a_link_is_enough_where_the_directory_is_searched_already(tmp_path: Path) -> None:
    machine = tensorflow_2_13(Machine(tmp_path / "m"))
    machine.path(f"{machine.prefix}/lib/libnvrtc.so").unlink()
    (link,) = repairs(machine)
    assert (link["kind"], link["path"]) == ("symlink", f"{machine.prefix}/lib/libnvrtc.so")
    assert complaints(carried_out(machine, [link]).check()) == []


def test_nothing_is_linked_into_the_systems_own_directories(tmp_path: Path) -> None:
    machine = torch_2_1(Machine(tmp_path / "m"))
    machine.path(f"{LIBRARIES}/libcuda.so").unlink()
    assert machine.check().causes == ["LIB013"]
    assert repairs(machine) == []


# --- HST009, DRV001, HST005: the driver's own directory ---------------------------------------------


def test_windows_libraries_are_put_on_the_library_path(tmp_path: Path) -> None:
    machine = wsl(tmp_path / "m", searched=False)
    (export,) = repairs(machine)
    assert (export["code"], export["values"]) == ("HST009", [WSL])
    assert carried_out(machine, [export]).check().codes == []
    assert repairs(machine) == []


@needs_overlay
def test_windows_driver_answers_after_the_fix(tmp_path: Path) -> None:
    """The simulated libcuda is loaded and asked, in a shell that has activated the environment."""
    machine = wsl(tmp_path / "m", searched=False)
    answer = applied(machine)
    assert (answer["changed"], answer["failed"]) == (True, False)
    after = entered(machine)
    assert after.codes == []
    assert after.report["facts"]["driver"]["cuda"]["is"] == "cuda-driver"


@pytest.mark.parametrize(("container", "code"), [("", "DRV001"), ("/.dockerenv", "HST005")])
def test_a_driver_that_was_mounted_where_nobody_looks_is_exported(
    tmp_path: Path, container: str, code: str
) -> None:
    """/usr/local/nvidia/lib64, where Kubernetes on Google's machines mounts it."""
    machine = Machine(tmp_path / "m").os("ubuntu", "22.04").cpus(8)
    machine.driver(directory="/usr/local/nvidia/lib64").venv().tensorflow().nvidia_wheels()
    machine.link(f"{machine.site_packages}/{LINK}", "../../cusolver/lib/libcusolver.so.11")
    if container:
        machine.file(container)
    (export,) = repairs(machine)
    assert (export["code"], export["values"]) == (code, ["/usr/local/nvidia/lib64"])
    assert carried_out(machine, [export]).check().codes == []


def test_a_driver_that_is_nowhere_is_left_to_the_administrator(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m")
    for name in ("libcuda.so.1", "libcuda.so.550.54.14"):
        machine.path(f"{LIBRARIES}/{name}").unlink()
    assert "DRV001" in machine.check().codes
    assert repairs(machine) == []


def test_a_stub_in_a_toolkit_is_not_taken_for_a_driver(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m").library("/usr/local/cuda-12.5/lib64/libcuda.so.1")
    for name in ("libcuda.so.1", "libcuda.so.550.54.14"):
        machine.path(f"{LIBRARIES}/{name}").unlink()
    assert "DRV001" in machine.check().codes
    assert repairs(machine) == []


# --- HST002: libstdc++ ------------------------------------------------------------------------------


def on_an_old_system(root: Path) -> Machine:
    """TensorFlow's wheel in a conda environment on a system with the libstdc++ of GCC 4.8."""
    machine = eras.conda(eras.computer(Machine(root)), version="3.11.9").tensorflow().nvidia_wheels()
    machine.link(f"{machine.site_packages}/{LINK}", "../../cusolver/lib/libcusolver.so.11")
    return built_with(c_libraries(machine, GLIBC_239, CXX_4_8), NEEDS_221)


def test_condas_newer_libstdcxx_goes_before_the_systems(tmp_path: Path) -> None:
    machine = on_an_old_system(tmp_path / "m")
    c_library(machine.path(f"{machine.prefix}/lib/libstdc++.so.6"), "libstdc++.so.6", CXX_13)
    (export,) = repairs(machine)
    assert (export["code"], export["values"]) == ("HST002", [f"{machine.prefix}/lib"])
    assert "the other libraries of that directory" in export["reason"]
    assert complaints(carried_out(machine, [export]).check()) == []


@pytest.mark.parametrize("own", [None, CXX_4_8])
def test_an_environment_without_a_newer_libstdcxx_offers_none(
    tmp_path: Path, own: tuple[str, ...] | None
) -> None:
    machine = on_an_old_system(tmp_path / "m")
    if own:
        c_library(machine.path(f"{machine.prefix}/lib/libstdc++.so.6"), "libstdc++.so.6", own)
    assert machine.check().causes == ["HST002"]
    assert repairs(machine) == []


def test_the_systems_libstdcxx_is_never_put_first(machine: Machine) -> None:
    """It would bring all of the system's libraries before those of whoever set LD_LIBRARY_PATH."""
    built_with(c_libraries(machine, GLIBC_239, CXX_13), NEEDS_221)
    c_library(machine.path("/opt/gcc-4.8/lib64/libstdc++.so.6"), "libstdc++.so.6", CXX_4_8)
    machine.export(LD_LIBRARY_PATH="/opt/gcc-4.8/lib64")
    assert machine.check().causes == ["HST002"]
    assert repairs(machine) == []
