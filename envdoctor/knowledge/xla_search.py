"""Where XLA looks for libdevice and ptxas, in order, and which ptxas it takes.

The rules are `libdevice-choice` and `ptxas-choice` of the table of rules.
"""

from __future__ import annotations

from functools import cache

from msgspec import Struct

from envdoctor.knowledge.capabilities import toolkit_compiles_for
from envdoctor.knowledge.loading import load_rows, release_key

DEFAULT_DATA_DIR = "./cuda_sdk_lib"  # of --xla_gpu_cuda_data_dir
LIBDEVICE_DIRECTORY = "nvvm/libdevice"  # the first root that has this directory wins …
LIBDEVICE_FILE = "nvvm/libdevice/libdevice.10.bc"  # … and this must be in it
PTXAS_FILE = "bin/ptxas"


class SearchRow(Struct, frozen=True):
    path: str  # {data_dir}, {package} and {cuda} stand for the target's own
    since: str  # TensorFlow release
    until: str  # not included; "" for no bound
    what: str
    source: str
    verified: bool


class CudaRoot(Struct, frozen=True):
    """A directory that XLA asks."""

    path: str  # as XLA has it: may be relative, may hold ".."
    what: str
    source: str


@cache
def search_rows() -> tuple[SearchRow, ...]:
    return load_rows("xla_search", SearchRow)


def cuda_roots(
    tensorflow: str, package: str, cuda: str, data_dir: str = DEFAULT_DATA_DIR
) -> tuple[CudaRoot, ...]:
    """The roots in the order in which a TensorFlow release asks them for libdevice.

    `package` is its site-packages/tensorflow, `cuda` the CUDA version that it was built for.
    """
    key = release_key(tensorflow)[:2]
    minor = ".".join(cuda.split(".")[:2])
    return tuple(
        CudaRoot(
            path=row.path.format(data_dir=data_dir, package=package, cuda=minor),
            what=row.what,
            source=row.source,
        )
        for row in search_rows()
        if release_key(row.since) <= key and (not row.until or key < release_key(row.until))
    )


def ptxas_candidates(
    tensorflow: str, package: str, cuda: str, path: str, data_dir: str = DEFAULT_DATA_DIR
) -> tuple[CudaRoot, ...]:
    """The files in the order in which XLA tries them: data_dir/bin, then $PATH, then the roots."""
    roots = cuda_roots(tensorflow, package, cuda, data_dir)
    on_path = [
        CudaRoot(path=f"{directory or '.'}/ptxas", what="$PATH", source="rule ptxas-choice")
        for directory in (path.split(":") if path else [])
    ]
    tools = [CudaRoot(path=f"{r.path}/{PTXAS_FILE}", what=r.what, source=r.source) for r in roots]
    return (*tools[:1], *on_path, *tools[1:])


def ptxas_problem(version: str, capability: str = "") -> str:
    """Why XLA refuses a ptxas of this version ("12.3.103"), or why it cannot compile for a GPU; "" for fine.

    The bounds are those of XLA in TensorFlow 2.21; older releases ask for less.
    """
    key = release_key(version)
    if key < (11, 8):
        return f"ptxas {version} is older than 11.8"
    if key[:3] == (12, 3, 103):
        return f"ptxas {version} miscompiles, XLA refuses it"
    if capability and toolkit_compiles_for(version, capability) is False:
        return f"ptxas {version} does not know GPUs of compute capability {capability}"
    return ""
