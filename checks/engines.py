"""How each container engine is told to let the GPUs in."""

from __future__ import annotations

from envdoctor.checks.administration import container_name
from envdoctor.checks.distributions import is_jetson
from envdoctor.facts.model import Facts

_CDI = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
_AS_BEFORE = "on the host, with its other options"
_LET_IN = {
    "docker": f"docker run --gpus all IMAGE    # {_AS_BEFORE}; "
    "Compose: deploy.resources.reservations.devices",
    "podman": f"{_CDI} && podman run --device nvidia.com/gpu=all IMAGE    # {_AS_BEFORE}",
    "kubernetes": "put into the container's spec: resources: {limits: {nvidia.com/gpu: 1}}    "
    "# the nodes must offer it: kubectl describe nodes | grep nvidia.com/gpu",
    "singularity": "singularity exec --nv IMAGE COMMAND    # on the host",
    "apptainer": "apptainer exec --nv IMAGE COMMAND    # on the host",
    "lxc": "lxc config device add {name} gpu gpu && lxc config set {name} nvidia.runtime=true && "
    "lxc restart {name}    # on the host",
    "systemd-nspawn": "systemd-nspawn --machine={name} --boot --bind=/dev/nvidia0 --bind=/dev/nvidiactl "
    "--bind=/dev/nvidia-uvm    # on the host; and --bind-ro= of its libcuda.so.1 and libnvidia-ml.so.1",
}
_WITH = {  # an option of the engine, before the image
    "docker": f"docker run --gpus all {{}} IMAGE    # {_AS_BEFORE}",
    "podman": f"podman run --device nvidia.com/gpu=all {{}} IMAGE    # {_AS_BEFORE}",
}


def let_in(facts: Facts) -> str:
    """How this kind of container is given the GPUs."""
    kind = facts.host.container
    if kind == "docker" and is_jetson(facts):  # its toolkit knows the integrated GPU by the runtime alone
        return f"docker run --runtime nvidia IMAGE    # {_AS_BEFORE}"
    if kind not in _LET_IN:
        return f"give the {kind} container the GPU's device nodes and the host's libcuda.so.1"
    return _LET_IN[kind].replace("{name}", container_name(facts))


def started_with(facts: Facts, option: str) -> str:
    """The container, started again with its GPUs and one more option; "" for engines that take none such."""
    return _WITH.get(facts.host.container, "").format(option)


def with_variable(facts: Facts, name: str, value: str) -> str:
    """The container, started again with a variable of its environment."""
    kind = facts.host.container
    if kind in _WITH:
        return started_with(facts, f"-e {name}={value}")
    if kind == "kubernetes":
        return f"put into the container's spec: env: [{{name: {name}, value: '{value}'}}]"
    if kind in {"singularity", "apptainer"}:
        return f"{kind} exec --nv --env {name}={value} IMAGE COMMAND    # on the host"
    return f"set {name}={value} for the {kind} container, and start it again"
