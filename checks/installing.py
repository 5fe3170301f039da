"""Commands that install and remove, in the words of the tool that keeps the target's environment."""

from __future__ import annotations

from envdoctor.checks.machine import gpu_wanted
from envdoctor.dependencies import parse
from envdoctor.facts.model import Facts, Interpreter, Packages, Unavailable, known
from envdoctor.knowledge.tables import newest_tensorflow
from envdoctor.shell import quoted

CONDA_NAMES = {"torch": ("pytorch", "libtorch"), "tensorflow": ("tensorflow", "tensorflow-base")}


def install_command(facts: Facts, *requirements: str) -> str:
    """What installs these in the target's environment, in the words of the tool that keeps it; to be pasted.

    In a conda environment what conda has installed is conda's to change, and the rest is pip's.
    """
    interpreter = known(facts.interpreter)
    packages = Packages(distributions=()) if isinstance(facts.packages, Unavailable) else facts.packages
    listed = [quoted(r) for r in requirements]
    if packages.manager == "uv":
        return " ".join(["uv pip install --python", quoted(interpreter.executable), *listed])
    if packages.manager == "poetry":
        return " ".join(["poetry add", *listed]) + "    (in the project's directory)"
    if packages.externally_managed:
        return f"{_new_environment(interpreter)} install {' '.join(listed)}"
    conda = [r for r in requirements if conda_owns(_name(r), packages)]
    commands = []
    if conda:
        words = [quoted(_conda_requirement(r)) for r in conda]
        prefix = quoted(interpreter.prefix)
        commands.append(" ".join(["conda install -p", prefix, "-c conda-forge", *words]))
    if len(conda) < len(requirements):
        commands.append(pip_install(interpreter, *(r for r in requirements if r not in conda)))
    return " && ".join(commands)


def uninstall_command(facts: Facts, *names: str) -> str:
    """What removes these from the target's environment."""
    interpreter = known(facts.interpreter)
    packages = Packages(distributions=()) if isinstance(facts.packages, Unavailable) else facts.packages
    listed = [quoted(n) for n in names]
    if packages.manager == "uv":
        return " ".join(["uv pip uninstall --python", quoted(interpreter.executable), *listed])
    if packages.manager == "poetry":
        return " ".join(["poetry remove", *listed])
    if all(conda_owns(n, packages) for n in names):
        return " ".join(
            ["conda remove -p", quoted(interpreter.prefix), *(CONDA_NAMES.get(n, (n,))[0] for n in names)]
        )
    return " ".join([quoted(interpreter.executable), "-m pip uninstall -y", *listed])


def pip_install(interpreter: Interpreter, *requirements: str) -> str:
    """A pip command for that very interpreter, to be pasted."""
    return " ".join([f"{quoted(interpreter.executable)} -m pip install", *(quoted(r) for r in requirements)])


def conda_owns(name: str, packages: Packages) -> bool:
    """Whether conda has installed a distribution, and nobody has replaced it since."""
    records = [c for c in packages.conda if c.name in CONDA_NAMES.get(name, (name,))]
    found = packages.named(name)
    if not records:
        return any(d.installer == "conda" for d in found)
    return not found or any(d.installer in {"", "conda"} and d.version == records[0].version for d in found)


def _conda_requirement(requirement: str) -> str:
    """`tensorflow[and-cuda]==2.15.0` -> `tensorflow=2.15.0=cuda*`; ranges are written alike in both."""
    parsed = parse(requirement)
    if parsed is None:
        return requirement
    name = {"torch": "pytorch-gpu"}.get(parsed.name, parsed.name)
    version = parsed.specifier.removeprefix("==") if parsed.specifier.startswith("==") else ""
    if "[" in requirement and version:
        return f"{name}={version}=cuda*"
    return f"{name}={version}" if version else f"{name}{parsed.specifier}"


def _name(requirement: str) -> str:
    parsed = parse(requirement)
    return parsed.name if parsed else requirement


def _new_environment(interpreter: Interpreter) -> str:
    """The distribution keeps this Python (PEP 668): an environment of its own, and its pip."""
    return f"{quoted(interpreter.executable)} -m venv ~/venv-gpu && ~/venv-gpu/bin/python -m pip"


def other_python(facts: Facts) -> str:
    """An environment with a Python that TensorFlow has a wheel for."""
    version = newest_tensorflow().python[-1]
    packages = facts.packages
    manager = "pip" if isinstance(packages, Unavailable) else packages.manager
    extra = "'tensorflow[and-cuda]'" if gpu_wanted(facts) else "tensorflow"
    if manager == "conda":
        return (
            f"conda create -n tf -c conda-forge python={version} pip -y && "
            f"conda run -n tf python -m pip install {extra}"
        )
    if manager == "uv":
        return (
            f"uv venv --python {version} ~/venv-tensorflow && "
            f"uv pip install --python ~/venv-tensorflow/bin/python {extra}"
        )
    return f"python{version} -m venv ~/venv-tensorflow && ~/venv-tensorflow/bin/python -m pip install {extra}"
