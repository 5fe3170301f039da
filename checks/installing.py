"""Commands that install and remove, in the words of the tool that keeps the target's environment."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from msgspec import Struct

from envdoctor.checks.machine import gpu_wanted
from envdoctor.dependencies import bounds, parse
from envdoctor.facts.model import Distribution, Facts, Interpreter, Packages, Unavailable, known
from envdoctor.knowledge.frameworks import tensorflow_pins
from envdoctor.knowledge.tables import TensorFlowRelease, newest_tensorflow, release_key
from envdoctor.shell import quoted

CONDA_NAMES = {"torch": ("pytorch", "libtorch"), "tensorflow": ("tensorflow", "tensorflow-base")}
AGAIN = ("--force-reinstall", "--no-deps")  # pip, uv and conda spell both alike


class Remedy(Struct, frozen=True):
    """What cures a finding: commands of the package's tool in their order; words where they are not all.

    What is printed is made of what may be run, so that the two cannot differ.
    """

    commands: tuple[tuple[str, ...], ...] = ()
    words: str = ""  # without commands: what to do; behind them: what to know besides

    @property
    def text(self) -> str:
        """To be pasted as it stands: what is no command is a comment."""
        if not self.commands:
            return self.words
        return pasted(self.commands) + (f"    # {self.words}" if self.words else "")

    def remarked(self, words: str) -> Remedy:
        return Remedy(self.commands, words) if self.commands else Remedy(words=f"{self.words}    # {words}")

    def only_said(self, words: str = "") -> Remedy:
        """The same for the user alone: it is not certain to cure, or is not all that is needed."""
        return Remedy(words=(self.remarked(words) if words else self).text)


def pasted(commands: Sequence[Sequence[str]]) -> str:
    """Commands as one line for a shell."""
    return " && ".join(shlex.join(command) for command in commands)


def install(facts: Facts, *requirements: str, again: bool = False) -> Remedy:
    """What installs these in the target's environment, in the words of the tool that keeps it.

    In a conda environment what conda has installed is conda's to change, and the rest is pip's. `again` puts
    the files of what is installed back, and touches nothing else.
    """
    return exchange(facts, (), *requirements, again=again)


def exchange(facts: Facts, removed: Sequence[str], *requirements: str, again: bool = False) -> Remedy:
    """What removes these distributions from the target's environment, and then installs the others."""
    interpreter = known(facts.interpreter)
    packages = Packages(distributions=()) if isinstance(facts.packages, Unavailable) else facts.packages
    if packages.externally_managed:
        return Remedy(words=_new_environment(interpreter, requirements))
    if packages.manager == "poetry" and not again:
        return _poetry(interpreter, removed, requirements)
    return Remedy(
        (
            *_removals(interpreter, packages, removed),
            *_installations(interpreter, packages, requirements, AGAIN if again else ()),
        )
    )


def conda_install(interpreter: Interpreter, *specifications: str, channel: str = "conda-forge") -> Remedy:
    return Remedy((("conda", "install", "-y", "-p", interpreter.prefix, "-c", channel, *specifications),))


def conda_forget(interpreter: Interpreter, *names: str) -> tuple[str, ...]:
    """What removes conda's packages and leaves alone what requires them."""
    return ("conda", "remove", "-y", "-p", interpreter.prefix, "--force", *names)


def pip_install(interpreter: Interpreter, *requirements: str) -> tuple[str, ...]:
    """A pip command for that very interpreter."""
    return (interpreter.executable, "-m", "pip", "install", *requirements)


def _removals(
    interpreter: Interpreter, packages: Packages, names: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    if packages.manager == "uv":
        if names:
            yield ("uv", "pip", "uninstall", "--python", interpreter.executable, *names)
        return
    conda = [n for n in names if conda_owns(n, packages)]
    if conda:
        listed = (CONDA_NAMES.get(n, (n,))[0] for n in conda)
        yield ("conda", "remove", "-y", "-p", interpreter.prefix, *listed)
    # Seen with pip 23.2: of two records of one name in a directory it removes one. uv removes both.
    left = {n: _records(packages.named(n)) for n in names if n not in conda}
    while left:
        yield (interpreter.executable, "-m", "pip", "uninstall", "-y", *left)
        left = {n: records - 1 for n, records in left.items() if records > 1}


def _records(found: Sequence[Distribution]) -> int:
    """In the directory that comes first: pip removes nothing that is hidden behind it."""
    return sum(d.location == found[0].location for d in found)


def _installations(
    interpreter: Interpreter, packages: Packages, requirements: Sequence[str], options: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    if packages.manager == "uv":
        if requirements:
            yield ("uv", "pip", "install", "--python", interpreter.executable, *options, *requirements)
        return
    conda = [r for r in requirements if conda_owns(_name(r), packages)]
    if conda:
        yield from conda_install(interpreter, *options, *map(_conda_requirement, conda)).commands
    rest = [r for r in requirements if r not in conda]
    if rest:
        yield pip_install(interpreter, *options, *rest)


def _poetry(interpreter: Interpreter, removed: Sequence[str], requirements: Sequence[str]) -> Remedy:
    """Only an environment in the project itself (.venv) tells which project it belongs to."""
    project, _, directory = interpreter.prefix.rstrip("/").rpartition("/")
    poetry = ("poetry", "--directory", project) if directory == ".venv" else ("poetry",)
    commands = [
        (*poetry, verb, *words) for verb, words in (("remove", removed), ("add", requirements)) if words
    ]
    remedy = Remedy(tuple(commands))
    return remedy if directory == ".venv" else remedy.only_said("in the project's directory")


def requirement(name: str, specifier: str) -> str:
    """The requirement in one version, where a specifier leaves no choice: "<=0.4.35,>=0.4.35"."""
    clauses = {clause.strip().replace(" ", "") for clause in specifier.split(",")}
    only = (v for v in bounds(specifier) if f"=={v}" in clauses or {f">={v}", f"<={v}"} <= clauses)
    return f"{name}=={version}" if (version := next(only, "")) else f"{name}{specifier}"


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


def _new_environment(interpreter: Interpreter, requirements: Sequence[str]) -> str:
    """The distribution keeps this Python (PEP 668): an environment of its own, and its pip."""
    words = shlex.join(requirements)
    return (
        f"{quoted(interpreter.executable)} -m venv ~/venv-gpu && ~/venv-gpu/bin/python -m pip install {words}"
    )


def tensorflow_requirement(release: TensorFlowRelease, *, cuda: bool) -> str:
    """The newest patch of a release that the tables know of; the extra exists from 2.14 on."""
    minor = release.tensorflow
    patches = [p.tensorflow for p in tensorflow_pins() if p.tensorflow.startswith(f"{minor}.")]
    extra = "[and-cuda]" if cuda and release_key(minor) >= (2, 14) else ""
    return f"tensorflow{extra}=={patches[-1] if patches else f'{minor}.*'}"


def other_python(facts: Facts) -> str:
    """An environment with a Python that TensorFlow has a wheel for."""
    newest = newest_tensorflow()
    version = newest.python[-1]
    packages = facts.packages
    manager = "pip" if isinstance(packages, Unavailable) else packages.manager
    wanted = quoted(tensorflow_requirement(newest, cuda=gpu_wanted(facts)))
    if manager == "conda":
        return (
            f"conda create -n tf -c conda-forge python={version} pip -y && "
            f"conda run -n tf python -m pip install {wanted}"
        )
    if manager == "uv":
        return (
            f"uv venv --python {version} ~/venv-tensorflow && "
            f"uv pip install --python ~/venv-tensorflow/bin/python {wanted}"
        )
    return (
        f"python{version} -m venv ~/venv-tensorflow && ~/venv-tensorflow/bin/python -m pip install {wanted}"
    )
