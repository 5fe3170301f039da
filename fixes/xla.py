"""Repairs for XLA's tools: its flag for a directory that has them, and PATH."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from msgspec.structs import replace

from envdoctor.catalog import Severity
from envdoctor.checks.xla import DATA_DIR
from envdoctor.facts.model import Facts, Interpreter, known
from envdoctor.facts.model_xla import Toolkit, Xla, XlaRoot
from envdoctor.finding import Finding
from envdoctor.fixes.exporting import export
from envdoctor.fixes.plan import Join
from envdoctor.fixes.repair import Repair, Wishes
from envdoctor.knowledge.loading import release_key


def named_data_dir(facts: Facts, finding: Finding, wishes: Wishes) -> Iterator[Repair]:
    """XLA001, XLA002, XLA003: `--xla_gpu_cuda_data_dir` names a toolkit that has what is missing.

    Of two such flags the last counts (measured in TensorFlow 2.21), and ours stands in front: a directory
    that the user names stays. In front of the name of a file of flags it would do harm: the proof finds that.
    """
    if finding.severity is Severity.NOTE and finding.code not in wishes.only:
        return  # XLA is not used here unless somebody asks for it
    if any(search.data_dir for search in facts.xla.searches):
        return
    for toolkit in _toolkits(facts, finding):
        repair = export(
            facts,
            finding.code,
            wishes,
            "XLA_FLAGS",
            (f"{DATA_DIR}={toolkit.path}",),
            Join.WORDS,
            summary=f"name {toolkit.path} to XLA",
            reason=f"{toolkit.path} has {finding.subject}",
        )
        if repair is not None:
            yield Repair(repair.actions, replace(repair.after, xla=_with_data_dir(facts.xla, toolkit)))


def on_path(facts: Facts, finding: Finding, wishes: Wishes) -> Iterator[Repair]:
    """XLA002, XLA003: a toolkit's bin in front of PATH.

    Only of a directory that is CUDA's alone: another's bin may have a `python` that would hide this one.
    And not into a file of NAME=value lines, where nothing of the reader's own PATH would be left.
    """
    if wishes.to and posixpath.basename(wishes.to) != ".envrc":
        return
    for toolkit in _toolkits(facts, finding):
        if toolkit.ptxas is None or not _is_cuda_alone(toolkit.path, facts):
            continue
        repair = export(
            facts,
            finding.code,
            wishes,
            "PATH",
            (f"{toolkit.path}/bin",),
            summary=f"put {toolkit.path}/bin on PATH",
            reason="XLA looks for ptxas there",
        )
        if repair is not None:
            searches = tuple(replace(s, on_path=(toolkit.ptxas, *s.on_path)) for s in facts.xla.searches)
            yield Repair(repair.actions, replace(repair.after, xla=replace(facts.xla, searches=searches)))


def _is_cuda_alone(directory: str, facts: Facts) -> bool:
    """/usr/local/cuda-12.5, nvidia/cuda_nvcc, nvidia/cu13; not /usr, and no environment of that name."""
    prefix = facts.interpreter.prefix if isinstance(facts.interpreter, Interpreter) else ""
    environments = {prefix, facts.environment.get("CONDA_PREFIX", "")}
    return posixpath.basename(directory).startswith("cu") and directory not in environments


def _toolkits(facts: Facts, finding: Finding) -> list[Toolkit]:
    """Of the build's CUDA version first; which of them has what is missing, the proof tells."""
    framework = next(f for f in known(facts.frameworks) if f.name == finding.framework)
    built = release_key(framework.cuda_version)

    def distance(toolkit: Toolkit) -> tuple[bool, bool]:
        version = toolkit.ptxas.version if toolkit.ptxas else ""
        key = release_key(version) if isinstance(version, str) else ()
        return key[:2] != built[:2], key[:1] != built[:1]

    return sorted(facts.xla.toolkits, key=distance)


def _with_data_dir(xla: Xla, toolkit: Toolkit) -> Xla:
    """Every framework's XLA asks the named directory first."""
    searches = tuple(
        replace(
            search,
            data_dir=toolkit.path,
            roots=(XlaRoot(path=toolkit.path, what=search.roots[0].what, found=toolkit), *search.roots[1:]),
        )
        if search.roots
        else search
        for search in xla.searches
    )
    return replace(xla, searches=searches)
