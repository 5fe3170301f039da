"""Compute capabilities, toolkits, and whether a build has code for a GPU.

The rules are `binary-compatibility`, `ptx-compatibility` and `architecture-specific` of the table of rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from functools import cache

from msgspec import Struct

from envdoctor.knowledge.loading import load_rows, release_key

_SM = re.compile(r"(?P<kind>sm|compute)_(?P<major>\d+)(?P<minor>\d)(?P<suffix>[af]?)")
_DOTTED = re.compile(r"(?P<major>\d+)\.(?P<minor>\d)(?P<suffix>[af]?)(?P<ptx>\+PTX)?", re.IGNORECASE)


class ComputeCapability(Struct, frozen=True):
    capability: str  # "8.9"
    architecture: str  # "Ada"
    first_cuda: str
    last_cuda: str  # "" for still compiled for
    last_driver_branch: str  # "580"; "" for still supported
    examples: tuple[str, ...]
    source: str
    verified: bool


class CudaToolkit(Struct, frozen=True):
    cuda: str  # "12.5"
    minimum: str  # "sm_50"
    maximum: str
    targets: tuple[str, ...]  # all of them, where they were read from ptxas; else ()
    source: str
    verified: bool


class Reach(Enum):
    """How a build's code gets onto a GPU."""

    CUBIN = "cubin"  # a binary for it is there
    PTX_JIT = "ptx-jit"  # the driver compiles PTX at first use
    TOO_OLD = "too-old"  # the GPU is below everything in the build
    UNSUPPORTED = "unsupported"  # newer than, or between, what is there, and no PTX that reaches it


class Code(Struct, frozen=True):
    """One entry of a build's list: code for a capability."""

    major: int
    minor: int
    suffix: str  # "a" this capability alone, "f" its family, "" everything later
    binary: bool
    ptx: bool

    @property
    def capability(self) -> tuple[int, int]:
        return self.major, self.minor

    def binary_runs_on(self, gpu: tuple[int, int]) -> bool:
        return self.binary and (gpu == self.capability if self.suffix == "a" else self._same_family(gpu))

    def ptx_runs_on(self, gpu: tuple[int, int]) -> bool:
        if not self.ptx:
            return False
        if self.suffix == "a":
            return gpu == self.capability
        return self._same_family(gpu) if self.suffix == "f" else gpu >= self.capability

    def _same_family(self, gpu: tuple[int, int]) -> bool:
        return gpu[0] == self.major and gpu[1] >= self.minor


@cache
def compute_capabilities() -> tuple[ComputeCapability, ...]:
    return load_rows("compute_capabilities", ComputeCapability)


@cache
def cuda_toolkits() -> tuple[CudaToolkit, ...]:
    return load_rows("cuda_toolkits", CudaToolkit)


def compute_capability(capability: str) -> ComputeCapability | None:
    return next((r for r in compute_capabilities() if r.capability == capability), None)


def architecture_name(capability: str) -> str:
    """The name ("Ada") of a capability ("8.9"); "" for a capability that the table does not know."""
    row = compute_capability(capability)
    return row.architecture if row else ""


def cuda_toolkit(cuda: str) -> CudaToolkit | None:
    key = release_key(cuda)[:2]
    return next((r for r in cuda_toolkits() if release_key(r.cuda) == key), None)


def toolkit_compiles_for(cuda: str, capability: str) -> bool | None:
    """Whether a toolkit's ptxas makes binaries for a GPU; None where the table does not know the toolkit."""
    toolkit, gpu = cuda_toolkit(cuda), release_key(capability)[:2]
    if toolkit is None or len(gpu) < 2:
        return None
    if toolkit.targets:
        return f"sm_{gpu[0]}{gpu[1]}" in toolkit.targets
    lowest, highest = parse_code(toolkit.minimum), parse_code(toolkit.maximum)
    if lowest is None or highest is None:
        return None
    row = compute_capability(capability)
    if row and release_key(row.first_cuda) > release_key(toolkit.cuda):
        return False
    return lowest.capability <= gpu <= highest.capability


def parse_code(entry: str) -> Code | None:
    """An entry of a build's list: "sm_80", "compute_90", "sm_90a"; "8.0", "12.0+PTX". None for others.

    In XLA's and TensorFlow's lists compute_90 stands for a binary and PTX, sm_80 for a binary alone
    (build_info.py, configure.py of TensorFlow). In PyTorch's, 8.0 is a binary, 12.0+PTX a binary and PTX;
    what torch.cuda.get_arch_list() calls compute_120 comes there beside an sm_120.
    """
    text = entry.strip()
    match = _SM.fullmatch(text)
    if match:
        ptx = match["kind"] == "compute"
    else:
        match = _DOTTED.fullmatch(text)
        if match is None:
            return None
        ptx = match["ptx"] is not None
    return Code(
        major=int(match["major"]), minor=int(match["minor"]), suffix=match["suffix"], binary=True, ptx=ptx
    )


def reach(built_for: Iterable[str], capability: str) -> Reach | None:
    """How a build whose list is `built_for` runs on a GPU of this capability ("8.9").

    None where the list has no entry that can be read, or the capability is none.
    """
    codes = [code for code in map(parse_code, built_for) if code]
    key = release_key(capability)
    if not codes or len(key) < 2:
        return None
    gpu = key[0], key[1]
    if any(code.binary_runs_on(gpu) for code in codes):
        return Reach.CUBIN
    if any(code.ptx_runs_on(gpu) for code in codes):
        return Reach.PTX_JIT
    return Reach.TOO_OLD if gpu < min(code.capability for code in codes) else Reach.UNSUPPORTED
