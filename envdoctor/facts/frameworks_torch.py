"""PyTorch: torch/version.py and the ELF headers of torch/lib.

Read from the wheels of 1.13 to 2.12 and, for what follows, from 2.10.0 (CUDA 12.8), 2.12.1 (CUDA 13.0) and
2.13.0+cpu: the libraries in torch/lib are linked to CUDA's (DT_NEEDED), so that a miss is an ImportError.
Each carries DT_RPATH (`$ORIGIN/../../nvidia/cudnn/lib` and so on; with CUDA 13 nvidia/cu13/lib beside cudnn,
nvshmem, nccl and cusparselt), which LD_LIBRARY_PATH does not beat. libtorch_cuda_linalg.so (cusolver) and
libcaffe2_nvrtc.so (nvrtc) are opened at first use. The CPU build has DT_RUNPATH `$ORIGIN`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from envdoctor.facts.linked import linked_to
from envdoctor.facts.model import Distribution, Framework, Packages, Unavailable
from envdoctor.facts.root import Root
from envdoctor.knowledge.frameworks import pytorch_built_for
from envdoctor.knowledge.loading import release_key
from envdoctor.versions import cudnn_bound

# In the order in which `import torch` brings them in; older releases split libtorch_cuda.so in two.
_LOADED = (
    "libtorch_global_deps.so",
    "libc10_cuda.so",
    "libtorch_cuda.so",
    "libtorch_cuda_cpp.so",
    "libtorch_cuda_cu.so",
    "libtorch_nvshmem.so",
    "libtorch_cpu.so",
    "libtorch_python.so",
)
_AT_USE = {
    "libtorch_cuda_linalg.so": "torch.linalg on the GPU",
    "libcaffe2_nvrtc.so": "kernels that are compiled at run time",
}
# torch/__init__.py opens these by path after libtorch_global_deps.so, once that has brought in cudart: nvrtc
# and nvjitlink from 2.6 on, all of them from 2.10 on (read: 2.6.0, 2.9.1, 2.10.0, 2.12.1). Where the wheels
# are not beside it and libtorch_global_deps.so cannot be loaded, all of them, in every release since 2.0.
_PRELOADED = (
    ("cublas", "libcublasLt.so."),
    ("cublas", "libcublas.so."),
    ("cudnn", "libcudnn.so."),
    ("cuda_nvrtc", "libnvrtc.so."),
    ("cuda_nvrtc", "libnvrtc-builtins.so."),
    ("cuda_runtime", "libcudart.so."),
    ("cuda_cupti", "libcupti.so."),
    ("cufft", "libcufft.so."),
    ("curand", "libcurand.so."),
    ("nvjitlink", "libnvJitLink.so."),
    ("cusparse", "libcusparse.so."),
    ("cusparselt", "libcusparseLt.so."),
    ("cusolver", "libcusolver.so."),
    ("nccl", "libnccl.so."),
    ("nvshmem", "libnvshmem_host.so."),
    ("cufile", "libcufile.so."),
)
_SOME, _ALL = (2, 6), (2, 10)


def read_torch(sites: Sequence[str], packages: Packages, root: Root) -> Framework | None:
    """The torch that `import` would find; None where there is none."""
    site = next((s for s in sites if root.is_file(f"{s}/torch/__init__.py")), "")
    if not site:
        return None
    package, source = f"{site}/torch", f"{site}/torch/version.py"
    distribution = next((d for d in packages.named("torch") if d.location == site), None)
    try:
        build = parse_version(root.read_text(source))
    except OSError as error:
        return _unreadable(package, source, distribution, f"{source}: {error.strerror}")
    except ValueError as error:
        return _unreadable(package, source, distribution, f"{source}: {error}")
    version, cuda = build["__version__"], build["cuda"]
    library = f"{package}/lib"
    loaded = [f"{library}/{name}" for name in _LOADED if root.is_file(f"{library}/{name}")]
    requirements = linked_to(loaded, root) if cuda else []
    known = {r.soname for r in requirements}
    for name, use in _AT_USE.items() if cuda else ():
        requirements += [r for r in linked_to([f"{library}/{name}"], root, use) if r.soname not in known]
    opener = next((p for p in reversed(loaded) if p.endswith(("_python.so", "_cuda.so"))), "")
    return Framework(
        name="torch",
        distribution=distribution.name if distribution else "",
        version=version,
        location=package,
        cuda_build=bool(cuda),
        cuda_version=cuda,
        cudnn_version=_cudnn(distribution, [r.soname for r in requirements]),
        compute_capabilities=_capabilities(version, cuda, source) if cuda else (),
        opener=opener if cuda else "",
        requirements=tuple(requirements),
        preloads=tuple(_preloads(site, library, release_key(version), sites, root)) if cuda else (),
        source=source,
    )


def parse_version(text: str) -> dict[str, str]:
    """`__version__` and `cuda` ("" for None) of torch/version.py, not imported. ValueError for other texts.

    `cuda: Optional[str] = '12.8'` (2.x), `cuda = '10.2'` (1.x), `cuda: Optional[str] = None` (CPU, ROCm).
    """
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"is not Python source ({error})") from None
    found: dict[str, str] = {}
    for statement in module.body:
        target = (
            statement.target
            if isinstance(statement, ast.AnnAssign)
            else statement.targets[0]
            if isinstance(statement, ast.Assign)
            else None
        )
        if isinstance(target, ast.Name) and isinstance(statement, (ast.Assign, ast.AnnAssign)):
            value = statement.value
            if isinstance(value, ast.Constant) and isinstance(value.value, (str, type(None))):
                found[target.id] = value.value or ""
    if not found.get("__version__") or "cuda" not in found:
        raise ValueError("does not tell __version__ and cuda")
    return found


def _preloads(
    site: str, library: str, release: tuple[int, ...], sites: Sequence[str], root: Root
) -> Iterator[str]:
    """What torch/__init__.py opens by path before the rest: the first match along sys.path, as there."""
    yield f"{library}/libtorch_global_deps.so"
    beside = root.is_dir(f"{site}/nvidia")
    if release[:2] < _SOME and beside:
        return
    for directory, beginning in _PRELOADED:
        if beside and release[:2] < _ALL and directory not in {"cuda_nvrtc", "nvjitlink"}:
            continue
        places = (f"{s}/nvidia/{below}/lib" for s in (site, *sites) for below in (directory, "cu13"))
        path = next((p for place in places for p in _files(place, beginning, root)), "")
        if not path:
            return  # it raises ValueError, and goes on without the rest
        yield path


def _files(place: str, beginning: str, root: Root) -> Iterator[str]:
    try:
        names = sorted(root.listdir(place))
    except OSError:
        return
    yield from (f"{place}/{name}" for name in names if name.startswith(beginning) and name[-1].isdigit())


def _cudnn(distribution: Distribution | None, sonames: Sequence[str]) -> str:
    """What the wheel's METADATA pins; of a build that brings its own copy only the major version is told."""
    pinned = cudnn_bound(distribution.requires) if distribution else ""
    name = next((s for s in sonames if s.startswith("libcudnn.so.")), "")
    return pinned or name.rpartition(".so.")[2]


def _capabilities(version: str, cuda: str, source: str) -> tuple[str, ...] | Unavailable:
    """From the table: only libtorch_cuda.so itself knows, and it tells in the middle of a gigabyte."""
    row = pytorch_built_for(version, cuda)
    if row is None:
        return Unavailable(f"{source} lists no compute capabilities, and no table has PyTorch {version}")
    return tuple(_code(entry) for entry in row.architectures)


def _code(entry: str) -> str:
    """As TensorFlow writes it: "sm_90a" of "9.0a", "compute_120" of "12.0+PTX"."""
    number, plus, _ = entry.partition("+")
    return ("compute_" if plus else "sm_") + number.replace(".", "")


def _unreadable(package: str, source: str, distribution: Distribution | None, reason: str) -> Framework:
    nothing = Unavailable(reason)
    return Framework(
        name="torch",
        distribution=distribution.name if distribution else "",
        version=distribution.version if distribution else "",
        location=package,
        cuda_build=nothing,
        cuda_version="",
        cudnn_version="",
        compute_capabilities=nothing,
        opener="",
        requirements=(),
        source=source,
    )
