"""Package commands: printed as they are run, proven where metadata can prove them, and true of real pip."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from envdoctor.catalog import CONDITIONS
from envdoctor.diagnose import Diagnosis, diagnose
from envdoctor.facts.gather import gather
from envdoctor.facts.model import Facts
from envdoctor.facts.root import Root
from envdoctor.finding import Finding
from envdoctor.fixes.packages import commands
from envdoctor.fixes.plan import Command, Risk
from envdoctor.fixes.repair import Repair, Wishes
from envdoctor.target import Target
from tests.conftest import workstation
from tests.machines import eras
from tests.machines.machine import Machine
from tests.machines.pythons import (
    bare,
    conda,
    installed_by,
    pip_tensorflow,
    pip_torch,
    poetry_venv,
    system_python,
    uv_venv,
    wheel,
)
from tests.pasting import assert_runs_as_printed, called, stub

PROVEN = ("PKG003", "PKG004", "PKG005", "PKG006", "PKG007", "PKG009")
Make = Callable[[Machine], Machine]


def facts_of(machine: Machine) -> Facts:
    root = Root(str(machine.root))
    return gather(Target(machine.python, "--python", root, machine.environment), quick=True)


def with_commands(facts: Facts) -> list[Finding]:
    return [linked.finding for linked in diagnose(facts).findings if linked.finding.commands]


def the(code: str, facts: Facts) -> Finding:
    return next(f for f in (linked.finding for linked in diagnose(facts).findings) if f.code == code)


def repair_of(code: str, facts: Facts) -> Repair:
    (repair,) = commands(facts, the(code, facts), Wishes())
    return repair


def actions_of(code: str, facts: Facts) -> list[Command]:
    return [action for action in repair_of(code, facts).actions if isinstance(action, Command)]


def keys(diagnosis: Diagnosis) -> set[tuple[str, str, str]]:
    return {(f.code, f.subject, f.framework) for f in (linked.finding for linked in diagnosis.findings)}


# --- machines that have them ------------------------------------------------------------------------


def jax_without_its_plugins_version(machine: Machine) -> Machine:
    machine.distribution("jax", "0.4.35", ['jax-cuda12-plugin<=0.4.35,>=0.4.35; extra == "cuda12"'])
    machine.distribution("jaxlib", "0.4.35").distribution("jax-cuda12-plugin", "0.4.31")
    site = machine.site_packages
    machine.file(f"{site}/jax/__init__.py").file(f"{site}/jax_cuda12_plugin/__init__.py")
    return machine.file(f"{site}/jax_plugins/xla_cuda12/xla_cuda_plugin.so")


def two_records_of_torch(machine: Machine) -> Machine:
    return wheel(pip_torch(machine, "2.9.1", "12.8", requires=()), "torch", "2.5.1")


def two_owners_of_one_cudnn(machine: Machine) -> Machine:
    pip_tensorflow(machine)
    return wheel(wheel(machine, "nvidia-cudnn-cu12", "9.10.2.21"), "nvidia-cudnn-cu13", "9.19.0.56")


def torch_with_an_old_nvjitlink(machine: Machine) -> Machine:
    asked = ("nvidia-cusparse-cu12==12.3.1.170", "nvidia-nvjitlink-cu12==12.4.127")
    pip_torch(machine, "2.5.1", "12.4", requires=asked)
    return wheel(wheel(machine, "nvidia-cusparse-cu12", "12.3.1.170"), "nvidia-nvjitlink-cu12", "12.1.105")


METADATA: dict[str, tuple[str, Make, tuple[str, ...]]] = {
    # the condition, a machine that has it, and what its last command asks for
    "the stub": (
        "PKG003",
        lambda m: m.distribution("tensorflow-gpu", "2.12.0"),
        ("tensorflow[and-cuda]==2.21.0",),
    ),
    "two owners": (
        "PKG004",
        lambda m: pip_tensorflow(m, "2.18.1").distribution("tf-nightly", "2.18.0"),
        ("tensorflow==2.18.1",),
    ),
    "NumPy 2": ("PKG005", lambda m: pip_tensorflow(m, "2.15.1", numpy="2.0.2"), ("numpy==1.26.4",)),
    "NumPy 2 and torch": (
        "PKG005",
        lambda m: bare(pip_torch(m, "2.2.2", "12.1", requires=()), "numpy", "2.0.2"),
        ("numpy==1.26.4",),
    ),
    "NumPy's range": (
        "PKG005",
        lambda m: pip_tensorflow(m, "2.18.1", numpy="2.3.5"),
        ("numpy<2.1.0,>=1.26.0",),
    ),
    "h5py": ("PKG005", lambda m: pip_tensorflow(m, h5py="3.10.0"), ("h5py<3.15.0,>=3.11.0",)),
    "protobuf 4": ("PKG006", lambda m: pip_tensorflow(m, "2.8.0", protobuf="4.21.12"), ("protobuf==3.20.3",)),
    "protobuf 4, 2.10": (
        "PKG006",
        lambda m: pip_tensorflow(m, "2.10.1", protobuf="4.21.12"),
        ("protobuf==3.19.6",),  # its METADATA excludes 3.20
    ),
    "old protobuf": ("PKG006", lambda m: pip_tensorflow(m, protobuf="5.29.5"), ("protobuf<8.0.0,>=6.31.1",)),
    "Keras 3": ("PKG007", lambda m: pip_tensorflow(m, "2.14.1", keras="3.15.1"), ("keras<2.15,>=2.14.0",)),
    "no tf-keras": (
        "PKG007",
        lambda m: pip_tensorflow(m).export(TF_USE_LEGACY_KERAS="1"),
        ("tf-keras~=2.21.0",),
    ),
    "old nvJitLink": ("PKG009", torch_with_an_old_nvjitlink, ("nvidia-nvjitlink-cu12==12.4.127",)),
    "two cuDNN wheels": ("PKG009", two_owners_of_one_cudnn, ("nvidia-cudnn-cu12==9.10.2.21",)),
}
FILES: dict[str, tuple[str, Make]] = {
    "nothing": ("PKG001", lambda m: m),
    "two records": ("PKG004", two_records_of_torch),
    "the CPU's TensorFlow": (
        "PKG002",
        lambda m: m.driver().tensorflow("2.18.1", distribution="tensorflow-cpu", cuda=""),
    ),
    "the CPU's torch": ("PKG002", lambda m: pip_torch(m.driver(), "2.9.1", "")),
    "no library": ("LIB001", lambda m: pip_tensorflow(m.driver())),
    "another JAX plugin": ("PKG009", jax_without_its_plugins_version),
}
EVERY_METADATA = pytest.mark.parametrize(("code", "make", "asked"), METADATA.values(), ids=METADATA)
EVERY_FILES = pytest.mark.parametrize(("code", "make"), FILES.values(), ids=FILES)


def pip_venv(machine: Machine, place: Path) -> Machine:
    return machine.venv(str(place / "it's my venv"))


def project(machine: Machine, place: Path) -> Machine:
    """A Poetry project with its environment in itself."""
    return machine.venv(str(place / "my project" / ".venv"))


TOOLS: dict[str, Callable[[Machine, Path], Machine]] = {
    "pip": pip_venv,
    "uv": lambda m, place: uv_venv(m, str(place / "it's my venv"), version="3.11.9"),
    "conda": lambda m, place: conda(m, {}, prefix=str(place / "my env")),
    "poetry": project,
}


# --- as printed, so run -----------------------------------------------------------------------------


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("case", [*METADATA, *FILES])
def test_a_remedy_pasted_into_bash_runs_exactly_the_findings_commands(
    tmp_path: Path, case: str, tool: str
) -> None:
    """Also where the environment's path has spaces and a quote in it."""
    code, make = (METADATA.get(case) or FILES[case])[:2]
    machine = make(TOOLS[tool](Machine(tmp_path / "m").os("debian", "12").cpus(2), tmp_path))
    if tool == "poetry":
        installed_by(machine, "poetry 2.0.1", "*")
    stub(Path(machine.python))
    found = [f for f in with_commands(facts_of(machine)) if f.code == code]
    assert found
    for finding in found:
        assert called(finding.remedy) == list(finding.commands)
    own_tool = tool in {"uv", "poetry"} and case not in {"nothing", "two cuDNN wheels"}
    assert {c[0] for c in found[0].commands} <= ({tool} if own_tool else {machine.python, tool})


@pytest.mark.parametrize(
    "command", sorted({c for row in CONDITIONS for r in row.repairs for c in r.commands})
)
def test_a_repair_of_the_catalogue_pasted_into_bash_runs_as_printed(command: str) -> None:
    assert_runs_as_printed(command)


@pytest.mark.parametrize(
    "line",
    [
        "python -m pip install numpy<2",
        "sudo ubuntu-drivers install    then reboot",
        "sudo poweroff    (a cold start)",
        "uv pip install 'torch",
    ],
)
def test_a_line_that_would_not_run_as_printed_is_noticed(line: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        assert_runs_as_printed(line)


# --- who runs what ----------------------------------------------------------------------------------


def test_where_the_command_is_not_all_of_it_there_is_nothing_to_run(tmp_path: Path) -> None:
    """PEP 668 needs an environment of its own; Poetry's cache does not tell the project."""
    for number, make in enumerate((system_python, poetry_venv)):
        machine = pip_tensorflow(
            make(Machine(tmp_path / str(number)).os("debian", "12").cpus(2)), keras="2.15.0"
        )
        finding = the("PKG007", facts_of(machine))
        assert (finding.commands, bool(finding.remedy)) == ((), True)
        assert list(commands(facts_of(machine), finding, Wishes())) == []
        assert_runs_as_printed(finding.remedy)


def test_poetry_is_told_which_project_is_meant(tmp_path: Path) -> None:
    machine = pip_tensorflow(
        project(Machine(tmp_path / "m").os("debian", "12").cpus(2), tmp_path), keras="2.15.0"
    )
    installed_by(machine, "poetry 2.0.1", "tensorflow")
    poetry = ("poetry", "--directory", str(tmp_path / "my project"))
    assert the("PKG007", facts_of(machine)).commands == ((*poetry, "add", "keras>=3.12.0"),)


def test_a_range_that_takes_in_what_is_broken_is_narrowed(tmp_path: Path) -> None:
    """h5py 3.10 is what was asked for, and was compiled for NumPy 1: pip would find nothing to do."""
    machine = pip_tensorflow(
        Machine(tmp_path / "m").os("debian", "12").cpus(2).venv(), "2.18.1", h5py="3.10.0"
    )
    metadata = machine.path(f"{machine.site_packages}/tensorflow-2.18.1.dist-info/METADATA")
    metadata.write_text(metadata.read_text().replace("h5py >=3.11.0", "h5py >=3.10.0"))
    facts = facts_of(machine)
    assert the("PKG005", facts).commands[0][-1] == "h5py>=3.10.0,>=3.11"
    assert "PKG005" not in diagnose(repair_of("PKG005", facts).after).codes()


def test_pip_over_conda_puts_back_what_condas_removal_takes(tmp_path: Path) -> None:
    machine = conda(Machine(tmp_path / "m").os("debian", "12").cpus(2), {"tensorflow": "2.15.0"})
    facts = facts_of(pip_tensorflow(machine, "2.18.1"))
    remove, install = the("PKG004", facts).commands
    assert remove == ("conda", "remove", "-y", "-p", "/opt/conda/envs/tf", "--force", "tensorflow")
    assert install[1:] == ("-m", "pip", "install", "--force-reinstall", "--no-deps", "tensorflow==2.18.1")
    assert [a.risk for a in actions_of("PKG004", facts)] == [Risk.HIGH, Risk.HIGH]


@pytest.mark.parametrize(("by_conda", "tool"), [(True, "pip"), (False, "conda")])
def test_the_mixed_cuda_goes_that_is_not_the_frameworks(tmp_path: Path, *, by_conda: bool, tool: str) -> None:
    records = {"cudatoolkit": "11.8.0"} | (
        {"tensorflow": "2.15.0", "tensorflow-base": "2.15.0"} if by_conda else {}
    )
    machine = conda(Machine(tmp_path / "m").os("debian", "12").cpus(2), records)
    pip_tensorflow(machine, "2.18.1")
    if by_conda:
        for record in machine.path(machine.site_packages).glob("tensorflow-*.dist-info"):
            (record / "METADATA").write_text("Name: tensorflow\nVersion: 2.15.0\n\n")
            (record / "INSTALLER").write_text("conda\n")
    facts = facts_of(wheel(machine, "nvidia-cuda-runtime-cu12", "12.9.79"))
    (command,) = the("PKG011", facts).commands
    assert (tool in command[:3], command[-1]) == (
        True,
        "nvidia-cuda-runtime-cu12" if by_conda else "cudatoolkit",
    )


# --- proven, or said not to be ----------------------------------------------------------------------


@EVERY_METADATA
def test_a_command_is_proven_where_metadata_alone_judges(
    tmp_path: Path, code: str, make: Make, asked: Sequence[str]
) -> None:
    """Its finding is gone and none has come, on the facts as they would be; versions are the metadata's."""
    facts = facts_of(make(Machine(tmp_path / "m").os("debian", "12").cpus(2).venv()))
    repair = repair_of(code, facts)
    actions = actions_of(code, facts)
    assert actions[-1].argv[-len(asked) :] == tuple(asked)
    assert {a.proven for a in actions} == {True}
    after = diagnose(repair.after)
    assert code not in after.codes()
    assert keys(after) <= keys(diagnose(facts))


@EVERY_FILES
def test_what_brings_files_is_proven_only_afterwards_and_says_so(
    tmp_path: Path, code: str, make: Make
) -> None:
    facts = facts_of(make(Machine(tmp_path / "m").os("debian", "12").cpus(2).venv()))
    repair = repair_of(code, facts)
    assert {a.proven for a in actions_of(code, facts)} == {False}
    assert all("proven by checking again" in a.reason for a in actions_of(code, facts))
    assert repair.after == facts


@pytest.mark.parametrize(
    ("case", "risk"),
    [
        ("protobuf 4", Risk.LOW),
        ("old nvJitLink", Risk.LOW),
        ("no library", Risk.LOW),
        ("two owners", Risk.HIGH),
        ("the CPU's TensorFlow", Risk.HIGH),
        ("the CPU's torch", Risk.HIGH),
    ],
)
def test_replacing_the_framework_itself_is_the_risk(tmp_path: Path, case: str, risk: Risk) -> None:
    code, make = (METADATA.get(case) or FILES[case])[:2]
    facts = facts_of(make(Machine(tmp_path / "m").os("debian", "12").cpus(2).venv()))
    actions = actions_of(code, facts)
    assert {a.risk for a in actions} == {risk}
    assert ("itself" in actions[0].reason) is (risk is Risk.HIGH)


def test_many_packages_at_once_are_a_risk(tmp_path: Path) -> None:
    machine = pip_tensorflow(Machine(tmp_path / "m").os("debian", "12").cpus(2).venv())
    for name in ("cublas", "cufft", "cusparse", "nccl"):
        wheel(machine, f"nvidia-{name}-cu12", "1.0.0")
    (action,) = actions_of("PKG009", facts_of(machine))
    assert (action.risk, action.reason) == (Risk.HIGH, "it replaces 4 packages")


def test_what_another_directory_hides_is_not_cured_by_an_installation(tmp_path: Path) -> None:
    machine = pip_tensorflow(Machine(tmp_path / "m").os("debian", "12").cpus(2).venv(), "2.15.1")
    facts = facts_of(bare(machine, "numpy", "2.0.2", site="/srv/shared").export(PYTHONPATH="/srv/shared"))
    after = diagnose(repair_of("PKG005", facts).after)
    assert "PKG005" in after.codes()


def test_exports_alone_are_asked_for(tmp_path: Path) -> None:
    machine = pip_tensorflow(Machine(tmp_path / "m").os("debian", "12").cpus(2).venv(), keras="2.15.0")
    facts = facts_of(machine)
    assert list(commands(facts, the("PKG007", facts), Wishes(exports_only=True))) == []


def test_a_shadowed_wheel_is_not_installed_once_more(tmp_path: Path) -> None:
    """An old cuDNN on LD_LIBRARY_PATH, and the right wheel behind it: pip would do nothing."""
    machine = workstation(tmp_path / "m").library("/opt/cudnn/lib/libcudnn.so.9.1.0", "libcudnn.so.9")
    machine.link("/opt/cudnn/lib/libcudnn.so.9", "libcudnn.so.9.1.0")
    finding = the("CDN002", facts_of(machine.export(LD_LIBRARY_PATH="/opt/cudnn/lib")))
    assert (finding.commands, finding.remedy) == ((), "unset LD_LIBRARY_PATH")


def test_a_compiler_that_xla_refuses_is_replaced_and_a_lost_one_restored(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m")
    site = machine.path(machine.site_packages)
    (site / "nvidia" / "cuda_nvcc" / "nvvm" / "libdevice" / "libdevice.10.bc").unlink()
    (command,) = the("XLA001", facts_of(machine)).commands
    assert command[3:] == ("install", "--force-reinstall", "--no-deps", "nvidia-cuda-nvcc-cu12==12.9.86")
    (site / "nvidia_cuda_nvcc_cu12-12.9.86.dist-info" / "METADATA").write_text(
        "Name: nvidia-cuda-nvcc-cu12\nVersion: 12.3.103\n\n"
    )
    (command,) = the("XLA003", facts_of(machine)).commands
    assert command[3:] == ("install", "nvidia-cuda-nvcc-cu12<13.0,>=12.5.82")


def test_a_cudnn_wheel_for_another_cuda_is_exchanged_for_the_one_of_the_metadata(tmp_path: Path) -> None:
    machine = eras.tensorflow(eras.computer(Machine(tmp_path / "m")).venv(), "2.14.1")
    eras.wheel(eras.and_cuda(machine, "2.14.1", without=["cudnn"]), "cudnn", "8.9.7.29", "-cu12")
    remove, install = the("CDN003", facts_of(machine)).commands
    assert (remove[-1], install[-1]) == ("nvidia-cudnn-cu12", "nvidia-cudnn-cu11==8.7.0.84")


def test_the_plan_shows_a_proven_command_and_counts_what_needs_allowing(tmp_path: Path) -> None:
    machine = pip_tensorflow(Machine(tmp_path / "m").os("debian", "12").cpus(2).venv(), keras="2.15.0")
    (action,) = [a for a in plan(machine) if a["kind"] == "command"]
    assert action["argv"] == [machine.python, "-m", "pip", "install", "keras>=3.12.0"]
    assert (action["code"], action["risk"], action["proven"]) == ("PKG007", "low", True)
    doubled = Machine(tmp_path / "d").os("debian", "12").cpus(2).venv()
    pip_tensorflow(doubled, "2.18.1").distribution("tf-nightly", "2.18.0")
    assert {a["kind"] for a in plan(doubled)} == {"manual"}
    assert [a["argv"][-1] for a in plan(doubled, "--allow-risky")] == ["tf-nightly", "tensorflow==2.18.1"]


def plan(machine: Machine, *options: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "envdoctor", "fix", "--dry-run", "--json", "--root", str(machine.root)]
    command += ["--python", machine.python, *options]
    done = subprocess.run(command, env=machine.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["plan"]
    return found
