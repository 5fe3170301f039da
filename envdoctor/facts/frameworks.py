"""The frameworks installed for the target's interpreter: what their own files say, nothing imported."""

from __future__ import annotations

from envdoctor.facts.frameworks_jax import read_jax
from envdoctor.facts.frameworks_tensorflow import parse_build_info, read_tensorflow
from envdoctor.facts.frameworks_torch import read_torch
from envdoctor.facts.model import Framework, Interpreter, Packages
from envdoctor.facts.root import Root

__all__ = ["parse_build_info", "read_frameworks"]


def read_frameworks(interpreter: Interpreter, packages: Packages, root: Root) -> tuple[Framework, ...]:
    """Every framework that `import` would find."""
    sites = interpreter.site_packages
    found = [read(sites, packages, root) for read in (read_tensorflow, read_torch, read_jax)]
    return tuple(framework for framework in found if framework)
