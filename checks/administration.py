"""Who can do it: the user's own sudo, whoever runs the host of a container, or a cluster's administrator."""

from __future__ import annotations

import re

from envdoctor.facts.model import Facts

_CONTAINER_ID = re.compile(r"[0-9a-f]{12}")  # what Docker and Podman call the host of a container
# How a scheduler tells that it is there, and how it is asked for a GPU: here, and in a job's script.
# Sources: srun(1), PBS Professional user's guide, IBM Spectrum LSF reference (bsub -gpu).
_SCHEDULERS = {
    "SLURM_": ("srun --gres=gpu:1 --pty bash", "#SBATCH --gres=gpu:1"),
    "PBS_": ("qsub -I -l select=1:ngpus=1", "#PBS -l select=1:ngpus=1"),
    "LSB_": ("bsub -gpu num=1 -Is bash", "#BSUB -gpu num=1"),
}
_RESTARTS = {
    "docker": "docker restart {}",
    "podman": "podman restart {}",
    "kubernetes": "kubectl delete pod {}",
    "lxc": "lxc restart {}",
    "systemd-nspawn": "machinectl reboot {}",
}


def ask_for_gpu(facts: Facts) -> str:
    """How this job's scheduler is asked for a GPU; "" where there is none."""
    name = _scheduler(facts)
    if not name:
        return ""
    here, script = _SCHEDULERS[name]
    return f"{here}    # on the login node, not inside a job; in a job's script: {script}"


def _scheduler(facts: Facts) -> str:
    return next((p for p in _SCHEDULERS if any(v.startswith(p) for v in facts.environment)), "")


def privileged(facts: Facts, says: str, command: str, remark: str = "") -> str:
    """A command for the root of the machine: to be pasted, or, on a cluster, to be asked for.

    `says` is what is wrong, with its versions and numbers: a cluster's administrator reads nothing else.
    """
    if _scheduler(facts) or facts.host.container == "kubernetes":
        how = f"{command} ({remark})" if remark else command
        return f"tell the administrator: on {_where(facts)}, {says}. It needs: {how}"
    remarks = ["on the host, not in the container"] if facts.host.container else []
    remarks += [remark] if remark else []
    return command + (f"    # {'; '.join(remarks)}" if remarks else "")


def as_root(facts: Facts, says: str, command: str, remark: str = "") -> str:
    """The same for files that a container has of its own: its user is root there, or builds the image."""
    if facts.host.container:
        return f"{command}    # {remark}" if remark else command
    return privileged(facts, says, command, remark)


def told(facts: Facts, says: str, wish: str) -> str:
    """What nobody but a host's or a cluster's administrator can do, as a sentence for a mail."""
    if facts.host.container and facts.host.container != "kubernetes" and not _scheduler(facts):
        return f"on {_where(facts)}, not in it: {says}. It needs: {wish}"
    return f"tell the administrator: on {_where(facts)}, {says}. It needs: {wish}"


def _where(facts: Facts) -> str:
    name, kind = facts.host.hostname, facts.host.container
    if kind == "kubernetes":
        return f"the node of pod {name}"
    if kind in {"", "singularity", "apptainer"}:  # these leave the host its name
        return name or "this machine"
    return f"the host of the {kind} container {name}".rstrip()


def container_name(facts: Facts) -> str:
    """By which its engine knows this container; CONTAINER where it was given a host name of its own."""
    name, kind = facts.host.hostname, facts.host.container
    if kind in {"docker", "podman"}:
        return name if _CONTAINER_ID.fullmatch(name) else "CONTAINER"
    return name or "NAME"


def restart_container(facts: Facts) -> str:
    """The engine's command, for where the engine is; a sentence for what has none."""
    command = _RESTARTS.get(facts.host.container, "").format(container_name(facts))
    return command or "leave the container and start it again"


def modules(facts: Facts, wanted: str) -> str:
    """The command that finds a module like `wanted` ("cuda/12.5"); "" where environment modules are not used.

    Which there are is not among the facts: `module` itself tells, and only Lmod has `spider`.
    """
    environment = facts.environment
    if not environment.get("MODULEPATH"):
        return ""
    name = wanted.partition("/")[0]
    look = f"module spider {name}" if environment.get("LMOD_CMD") else f"module avail {name}"
    loaded = [m for m in environment.get("LOADEDMODULES", "").split(":") if m.lower().startswith(name)]
    change = f"module switch {loaded[0]} {wanted}" if loaded else f"module load {wanted}"
    return f"{look}    # then, by the name that it shows: {change}"


def module_of(facts: Facts, directory: str) -> str:
    """The loaded module ("cuda/10.2") that a directory of the search path belongs to; "" where none tells."""
    for module in facts.environment.get("LOADEDMODULES", "").split(":"):
        name, _, version = module.rpartition("/")
        place = rf"/{re.escape(name.rpartition('/')[2])}[-_/]{re.escape(version)}(?:/|$)"
        if name and re.search(place, directory, re.IGNORECASE):
            return module
    return ""
