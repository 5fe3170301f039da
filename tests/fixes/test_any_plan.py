"""Whatever is wrong with a machine and whatever is asked of `fix`: it is done wholly and undone exactly.

The machines lie below a root; a plan is made for the tree as it is seen from inside, and applied to it from
outside, by the executor itself.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from envdoctor.commands.fix import Outcome, repaired_findings
from envdoctor.diagnose import diagnose
from envdoctor.facts.editable import with_file
from envdoctor.facts.gather import gather
from envdoctor.facts.model import Facts
from envdoctor.facts.root import Root
from envdoctor.fixes.executor import apply, undo
from envdoctor.fixes.exports import extended
from envdoctor.fixes.plan import Action, Automatic, Export, Kernelspec, Plan, Symlink
from envdoctor.fixes.propose import keys, propose
from envdoctor.fixes.repair import Prefer, Wishes
from envdoctor.target import Target
from tests.conftest import workstation
from tests.fixes.test_executor import snapshot
from tests.machines import eras
from tests.machines.machine import Machine
from tests.machines.pythons import bare, kernel

SITE = "/opt/venv/lib/python3.11/site-packages"


def cusolver_not_on_path(machine: Machine) -> None:
    machine.path(f"{SITE}/nvidia/cusparse/lib/libcusolver.so.11").unlink()


def cufft_in_a_toolkit(machine: Machine) -> None:
    machine.path(f"{SITE}/nvidia/cufft/lib/libcufft.so.11").unlink()
    machine.library("/usr/local/cuda-12.5/lib64/libcufft.so.11")


def cufft_of_another_version(machine: Machine) -> None:
    machine.path(f"{SITE}/nvidia/cufft/lib/libcufft.so.11").unlink()
    machine.library("/usr/local/cuda-12.5/lib64/libcufft.so.12")


def an_old_cudnn_before_it(machine: Machine) -> None:
    eras.versioned(machine, "/opt/old/lib", "libcudnn.so.9", "9.0.0")
    machine.export(LD_LIBRARY_PATH="/opt/old/lib")


def a_quota(machine: Machine) -> None:
    machine.cpus(8, quota=2)


def a_kernel_of_the_users(machine: Machine) -> None:
    kernel(machine, "gpu", ["/opt/venv/bin/python"], environment={"TF_CPP_MIN_LOG_LEVEL": "1"})


def a_kernel_without_the_exports(machine: Machine) -> None:
    a_kernel_of_the_users(machine)
    cufft_in_a_toolkit(machine)
    machine.export(LD_LIBRARY_PATH="/usr/local/cuda-12.5/lib64")


def a_moved_environments_kernel(machine: Machine) -> None:
    kernel(machine, "python3", ["/home/ada/old/bin/python"], directory="/opt/venv/share/jupyter/kernels")


def no_libdevice(machine: Machine) -> None:
    shutil.rmtree(machine.path(f"{SITE}/nvidia/cuda_nvcc"), ignore_errors=True)
    machine.compiler("/usr/local/cuda-12.5", "12.5.82")


def an_env_file(machine: Machine) -> None:
    machine.file("/srv/gpu.env", 'A=1\nLD_LIBRARY_PATH=/srv/lib\nB="x y"')


ILLS: list[Callable[[Machine], None]] = [
    cusolver_not_on_path,
    cufft_in_a_toolkit,
    cufft_of_another_version,
    an_old_cudnn_before_it,
    a_quota,
    a_kernel_of_the_users,
    a_kernel_without_the_exports,
    a_moved_environments_kernel,
    no_libdevice,
    an_env_file,
]


def facts_of(machine: Machine, wishes: Wishes) -> Facts:
    root = Root(str(machine.root))
    environment = {**machine.environment, "HOME": "/root"}
    facts = gather(Target(machine.python, "--python", root, environment), quick=True)
    return with_file(facts, root, wishes.to) if wishes.to else facts


def seen_from_outside(plan: Plan, root: str) -> Plan:
    """The plan with every path below the root; what is written stays as it is."""
    actions: list[Action] = []
    for action in plan.actions:
        match action:
            case Symlink(path=path):
                actions.append(replace(action, path=root + path))
            case Export(edits=edits, directories=made):
                moved = tuple(replace(e, path=root + e.path) for e in edits)
                actions.append(replace(action, edits=moved, directories=tuple(root + d for d in made)))
            case Kernelspec(edits=edits):
                actions.append(replace(action, edits=tuple(replace(e, path=root + e.path) for e in edits)))
            case _:
                actions.append(action)
    return Plan(tuple(actions))


def test_a_finding_of_the_same_code_that_was_not_repaired_is_not_counted_as_a_failure(tmp_path: Path) -> None:
    """ENV003 three times: two kernels lack the exports, and one starts another environment's Python."""
    machine = workstation(tmp_path / "m")
    for name, version in (("jupyter-core", "5.7.2"), ("jupyter-client", "8.6.3")):
        bare(machine, name, version)
    a_kernel_without_the_exports(machine)
    kernel(machine, "venv-gpu", ["/opt/venv/bin/python"])
    machine.file("/home/other/venv/pyvenv.cfg", "home = /usr/bin\nversion = 3.11.9\n")
    machine.link("/home/other/venv/bin/python", "/usr/bin/python3.11")
    kernel(machine, "python3", ["/home/other/venv/bin/python"])
    facts = facts_of(machine, Wishes())
    before = diagnose(facts)
    proposal = propose(facts, before)
    assert {f.finding.code for f in before.findings} == {"ENV003"}
    assert 0 < len(proposal.cures) < len(before.findings)
    done = Outcome(journal="20261122T000000Z-0001")
    repaired = repaired_findings(before, proposal, done)
    assert {subject for _, subject, _ in repaired} == {"gpu", "venv-gpu"}
    assert not repaired & keys(proposal.after)
    assert "ENV003" in {code for code, *_ in keys(proposal.after)}


wishes = st.builds(
    Wishes,
    prefer=st.sampled_from(Prefer),
    allow_risky=st.booleans(),
    to=st.sampled_from(["", "", "/srv/gpu.env", "/srv/.envrc"]),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(ills=st.sets(st.sampled_from(ILLS), max_size=4), wishes=wishes)
def test_any_plan_is_applied_wholly_undone_exactly_and_not_proposed_twice(
    ills: set[Callable[[Machine], None]], wishes: Wishes
) -> None:
    with tempfile.TemporaryDirectory() as place:
        machine = workstation(Path(place) / "m")
        machine.path("/srv").mkdir(exist_ok=True)
        machine.file("/opt/venv/bin/activate", "deactivate () { :; }\nVIRTUAL_ENV=/opt/venv\n# no newline")
        for ill in sorted(ills, key=ILLS.index):
            try:
                ill(machine)
            except FileNotFoundError:  # another ill has taken that file
                continue
        before = snapshot(machine.root)
        facts = facts_of(machine, wishes)
        diagnosis = diagnose(facts)
        proposal = propose(facts, diagnosis, wishes)
        assert snapshot(machine.root) == before, "looking and planning write nothing"

        state = f"{place}/state"
        applied = apply(seen_from_outside(proposal.plan, str(machine.root)), state)
        plan = proposal.plan.actions
        edits = [e for a in plan if isinstance(a, Export | Kernelspec) for e in a.edits]
        links = [a for a in plan if isinstance(a, Symlink)]
        assert bool(applied.changed) == bool(edits or links)
        if applied.changed:
            for action in plan:  # the shell is entered anew, as an activation would
                if isinstance(action, Export):
                    held = machine.environment.get(action.variable, "")
                    machine.export(**{action.variable: extended(held, action.values, action.join)})
            again_facts = facts_of(machine, wishes)
            again = propose(again_facts, diagnose(again_facts), wishes)
            assert [a for a in again.plan.actions if isinstance(a, Automatic)] == []
            cured = {diagnosis.findings[i].finding.code for i in proposal.cures}
            left = {f.finding.code for f in diagnose(again_facts).findings}
            assert cured - left == cured
            undo(state)
        assert snapshot(machine.root) == before
