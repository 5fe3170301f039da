"""Which release of a framework runs on a GPU, and on a driver, where the one that is installed does not."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from envdoctor.checks.installing import Remedy, install, tensorflow_requirement
from envdoctor.checks.machine import title
from envdoctor.facts.model import Facts, Framework, known
from envdoctor.knowledge.capabilities import Reach, reach
from envdoctor.knowledge.drivers import driver_floor
from envdoctor.knowledge.frameworks import (
    jax_release,
    pytorch_built_for,
    pytorch_releases,
    tensorflow_releases,
)
from envdoctor.knowledge.loading import matches, release_key


class OtherRelease(Struct, frozen=True):
    requirement: str  # for pip
    cuda: str  # that it is built for
    pythons: tuple[str, ...] = ()  # the minor versions that have a wheel; () where this one has


def other_release(
    facts: Facts, framework: Framework, *, capability: str = "", driver: str = ""
) -> OtherRelease | None:
    """The newest that has machine code for a GPU, and whose CUDA the driver runs; for this Python, if any is.

    None where the tables know of none. `capability` and `driver` are "" where any will do.
    """
    python = ".".join(known(facts.interpreter).version.split(".")[:2])
    listed = {"tensorflow": _tensorflow, "torch": _torch, "jax": _jax}.get(framework.name)
    fitting = [
        release
        for built_for, release in (listed(framework, python) if listed else ())
        if _runs(release.cuda, driver) and (not capability or reach(built_for, capability) is Reach.CUBIN)
    ]
    return next((r for r in fitting if not r.pythons), next(iter(fitting), None))


def other_release_command(
    facts: Facts, framework: Framework, *, capability: str = "", driver: str = ""
) -> str:
    """Its command, with a remark; "" where there is none."""
    found = other_release(facts, framework, capability=capability, driver=driver)
    if found is None:
        return ""
    why = f"built for CUDA {found.cuda}" + (f", with code for {capability}" if capability else "")
    if not found.pythons:
        return install(facts, found.requirement).only_said(why).text
    python = f"python{found.pythons[-1]}"
    words = f"{python} -m venv ~/venv-{framework.name} && ~/venv-{framework.name}/bin/python -m pip install "
    return Remedy(words=f"{words}'{found.requirement}'    # {why}; no wheel for this Python").text


def _tensorflow(_: Framework, python: str) -> Iterator[tuple[tuple[str, ...], OtherRelease]]:
    for row in reversed(tensorflow_releases()):
        if row.compute_capabilities:
            pythons = () if python in row.python else row.python
            yield (
                row.compute_capabilities,
                OtherRelease(tensorflow_requirement(row, cuda=True), row.cuda, pythons),
            )


def _torch(_: Framework, python: str) -> Iterator[tuple[tuple[str, ...], OtherRelease]]:
    for row in reversed(pytorch_releases()):
        built = pytorch_built_for(row.torch, row.cuda)
        if built and matches(python, row.python):
            yield built.architectures, OtherRelease(f"torch=={row.torch}", row.cuda)


def _jax(framework: Framework, _: str) -> Iterator[tuple[tuple[str, ...], OtherRelease]]:
    """The same release in its other variant."""
    for major in (13, 12):
        row = jax_release(framework.version, major)
        if row and row.built_for:
            yield row.built_for, OtherRelease(f"jax[cuda{major}]=={framework.version}", f"{major}.x")


def _runs(cuda: str, driver: str) -> bool:
    floor = driver_floor(cuda.removesuffix(".x")) if driver else None
    return not driver or bool(floor and release_key(driver) >= release_key(floor.floor))


def has_none(framework: Framework, capability: str) -> str:
    """What to use where no release on PyPI has code for a GPU."""
    container = {"tensorflow": "tensorflow, tag 25.02-tf2-py3", "torch": "pytorch, tag 25.02-py3"}
    name = title(framework.name)
    if framework.name in container:
        return (
            f"use NVIDIA's container (NGC, {container[framework.name]} or later): no known release of {name} "
            f"has machine code for compute capability {capability}"
        )
    return f"build {name} from source for compute capability {capability}: no release that is known has it"
