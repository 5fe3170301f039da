"""Jupyter kernels that run something else than this shell does, and the many that are in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import workstation
from tests.machines.compile import stub_program
from tests.machines.machine import Machine
from tests.machines.pythons import bare, conda, kernel

OWN = "/opt/venv/share/jupyter/kernels"
NAMED = "/srv/vision"  # an environment whose name says something


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A healthy workstation whose environment has Jupyter, and another environment beside it."""
    machine = workstation(tmp_path / "m")
    for name, version in (("jupyter-core", "5.7.2"), ("jupyter-client", "8.6.3"), ("ipykernel", "6.29.5")):
        bare(machine, name, version)
    machine.file("/home/other/venv/pyvenv.cfg", "home = /usr/bin\nversion = 3.11.9\n")
    machine.link("/home/other/venv/bin/python", "/usr/bin/python3.11")
    return kernel(machine, "python3", ["python"], directory=OWN, display="Python 3 (ipykernel)")


def found(machine: Machine) -> dict[str, str]:
    """The one finding, which is ENV003."""
    report = machine.check().report
    assert [(f["code"], f["severity"]) for f in report["findings"]] == [("ENV003", "warning")]
    one: dict[str, str] = report["findings"][0]
    return one


def status(machine: Machine) -> str:
    checks = machine.check().report["checks"]
    return next(str(c["status"]) for c in checks if c["code"] == "ENV003")


# --- in order ---------------------------------------------------------------------------------------


def test_many_kernels_for_many_environments_and_languages_are_silent(machine: Machine) -> None:
    for name in ("venv", "old-project", "keras", "py38"):
        kernel(machine, name, ["/home/other/venv/bin/python"], display=f"Python ({name})")
    kernel(machine, "gone", ["/home/ada/deleted/bin/python"])
    kernel(machine, "ir", ["R", "--slave"], language="R")
    kernel(
        machine, "julia-1.10", ["/usr/bin/julia"], language="julia", directory="/usr/share/jupyter/kernels"
    )
    kernel(machine, "remote", ["/usr/bin/ssh", "gpu01"], directory="/usr/local/share/jupyter/kernels")
    kernel(machine, "wrapped", ["bash", "-c", "source /opt/venv/bin/activate"])
    kernel(machine, "here", ["/opt/venv/bin/python"])
    assert machine.check().codes == []


def test_no_kernel_at_all_is_nothing_to_judge(tmp_path: Path) -> None:
    assert status(workstation(tmp_path / "m")) == "skip"


def test_the_environments_own_python_3_wins_over_the_users_in_jupyter_of_today(machine: Machine) -> None:
    kernel(machine, "python3", ["/home/other/venv/bin/python"])
    assert machine.check().codes == []


def test_a_system_python_beside_kernels_of_environments_is_silent(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("debian", "12").cpus(2)
    stub_program(machine.path("/usr/bin/python3.11"))
    machine.link("/usr/bin/python3", "python3.11")
    machine.file("/home/other/venv/pyvenv.cfg", "home = /usr/bin\nversion = 3.11.9\n")
    machine.link("/home/other/venv/bin/python", "/usr/bin/python3.11")
    kernel(machine, "python3", ["/home/other/venv/bin/python"])
    kernel(machine, "python3", ["/usr/bin/python3"], directory="/usr/share/jupyter/kernels")
    assert "ENV003" not in machine.check("--python", "/usr/bin/python3").codes


def test_a_link_to_the_environment_is_the_environment(machine: Machine) -> None:
    machine.link("/home/ada/env", "/opt/venv")
    kernel(machine, "linked", ["/home/ada/env/bin/python"])
    kernel(machine, "python3", ["/home/ada/env/bin/python"], directory=OWN)
    assert machine.check().codes == []


# --- another interpreter ----------------------------------------------------------------------------


def test_a_kernel_in_the_environment_that_starts_another_python_is_named(machine: Machine) -> None:
    """The environment was copied, and its kernel still starts the original."""
    kernel(machine, "python3", ["/home/other/venv/bin/python"], directory=OWN, display="Python 3 (ipykernel)")
    one = found(machine)
    assert "lies in this environment, and starts /home/other/venv/bin/python" in one["message"]
    assert one["remedy"] == "/opt/venv/bin/python -m ipykernel install --sys-prefix --name python3"


def test_a_kernel_in_the_environment_whose_python_is_gone_says_so(machine: Machine) -> None:
    kernel(machine, "python3", ["/home/ada/deleted/bin/python"], directory=OWN)
    assert "which does not exist" in found(machine)["message"]


def test_a_kernel_of_this_environments_name_that_starts_another_is_named(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("debian", "12").cpus(2).driver().venv(NAMED)
    machine.tensorflow().nvidia_wheels()
    machine.link(
        f"{machine.site_packages}/nvidia/cusparse/lib/libcusolver.so.11",
        "../../cusolver/lib/libcusolver.so.11",
    )
    machine.file("/home/other/venv/pyvenv.cfg", "home = /usr/bin\nversion = 3.11.9\n")
    machine.link("/home/other/venv/bin/python", "/usr/bin/python3.11")
    kernel(machine, "vision", [f"{NAMED}/bin/python"])
    assert machine.check().codes == []
    kernel(machine, "vision", ["/home/other/venv/bin/python"])
    one = found(machine)
    assert "bears this environment's name" in one["message"]
    assert one["remedy"] == "/srv/vision/bin/python -m ipykernel install --user --name vision"


def test_the_users_python_3_that_jupyter_here_starts_is_named(machine: Machine) -> None:
    """Without a kernel of the environment's own, and where Jupyter is told to prefer the user's."""
    kernel(machine, "python3", ["/home/other/venv/bin/python"])
    machine.export(JUPYTER_PREFER_ENV_PATH="0")
    assert "is the one that Jupyter here starts as Python 3" in found(machine)["message"]
    machine.environment.pop("JUPYTER_PREFER_ENV_PATH")
    machine.path(f"{OWN}/python3/kernel.json").unlink()
    assert "Python 3" in found(machine)["message"]


@pytest.mark.parametrize("variable", ["JUPYTER_PATH", "JUPYTER_DATA_DIR", "XDG_DATA_HOME"])
def test_kernels_are_looked_for_where_the_variables_say(machine: Machine, variable: str) -> None:
    machine.path(f"{OWN}/python3/kernel.json").unlink()
    place = "/srv/data/jupyter" if variable == "XDG_DATA_HOME" else "/srv/data"
    kernel(machine, "python3", ["/home/other/venv/bin/python"], directory=f"{place}/kernels")
    machine.export(**{variable: "/srv/data"})
    assert found(machine)["subject"] == "python3"


def test_a_conda_environment_whose_kernel_starts_the_base_installation_is_named(tmp_path: Path) -> None:
    machine = conda(Machine(tmp_path / "m").os("debian", "12").cpus(2), {}, prefix="/opt/conda/envs/tf-gpu")
    stub_program(machine.path("/opt/conda/bin/python"))
    machine.file("/opt/conda/conda-meta/python-3.12.1-h0_1.json", "{}")
    kernel(machine, "tf-gpu", ["/opt/conda/bin/python"], display="Python (tf-gpu)")
    checked = machine.check()
    assert "starts /opt/conda/bin/python" in checked.finding("ENV003")["message"]


# --- without this shell's exports -------------------------------------------------------------------


@pytest.fixture
def exported(tmp_path: Path) -> Machine:
    """A workstation where only LD_LIBRARY_PATH leads to cusolver."""
    machine = workstation(tmp_path / "m")
    machine.path(f"{machine.site_packages}/nvidia/cusparse/lib/libcusolver.so.11").unlink()
    return machine.export(LD_LIBRARY_PATH=f"{machine.site_packages}/nvidia/cusolver/lib")


def test_a_registered_kernel_without_this_shells_library_path_finds_less(exported: Machine) -> None:
    assert exported.check().codes == []
    kernel(exported, "gpu", ["/opt/venv/bin/python"], display="GPU")
    one = found(exported)
    assert "finds libcusolver.so.11 here and not there" in one["message"]
    value = exported.environment["LD_LIBRARY_PATH"]
    assert one["remedy"] == (
        f"/opt/venv/bin/python -m ipykernel install --user --name gpu --env LD_LIBRARY_PATH {value}"
    )


def test_a_kernel_that_sets_it_for_itself_is_silent(exported: Machine) -> None:
    path = exported.environment["LD_LIBRARY_PATH"]
    kernel(exported, "gpu", ["/opt/venv/bin/python"], environment={"LD_LIBRARY_PATH": path})
    kernel(exported, "kept", ["/opt/venv/bin/python"], environment={"LD_LIBRARY_PATH": "${LD_LIBRARY_PATH}"})
    assert exported.check().codes == []


def test_the_environments_own_kernel_inherits_this_shell_and_is_silent(exported: Machine) -> None:
    kernel(exported, "python3", ["python"], directory=OWN)
    assert exported.check().codes == []


def test_the_environments_own_kernel_that_sets_another_path_is_named(exported: Machine) -> None:
    kernel(exported, "python3", ["python"], directory=OWN, environment={"LD_LIBRARY_PATH": "/opt/none"})
    assert "sets LD_LIBRARY_PATH=/opt/none" in found(exported)["message"]


def test_an_export_that_nothing_needs_is_no_difference(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m").export(LD_LIBRARY_PATH="/usr/local/lib")
    machine.path("/usr/local/lib").mkdir(parents=True)
    kernel(machine, "gpu", ["/opt/venv/bin/python"])
    assert machine.check().codes == []


# --- bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"not json", b"[]", b'{"argv": "python"}', b'{"display_name": "x"}', b"\xff\xfe", b'{"argv": ["a"'],
)
def test_a_kernelspec_that_is_none_is_unknown_and_the_rest_is_judged(
    machine: Machine, content: bytes
) -> None:
    machine.file("/root/.local/share/jupyter/kernels/broken/kernel.json", content)
    checked = machine.check()
    judged = next(c for c in checked.report["checks"] if c["code"] == "ENV003")
    assert (checked.status, checked.codes, judged["status"]) == (0, [], "unknown")
    assert "broken/kernel.json" in judged["reason"]
    kernel(machine, "python3", ["/home/other/venv/bin/python"], directory=OWN)
    assert found(machine)["subject"] == "python3"


def test_odd_kernelspecs_are_no_crash(machine: Machine) -> None:
    base = "/root/.local/share/jupyter/kernels"
    machine.file(f"{base}/empty/kernel.json", '{"argv": []}')
    machine.file(f"{base}/null/kernel.json", '{"argv": ["/opt/venv/bin/python"], "env": null}')
    machine.link(f"{base}/loop", "loop")
    machine.file(f"{base}/file", "no directory")
    checked = machine.check()
    assert (checked.status, checked.codes) == (0, [])
