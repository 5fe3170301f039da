"""JAX: its version, and the plugin packages that bring CUDA.

Read from the wheels of 0.10.2 (jax, jaxlib, jax-cuda12-plugin, jax-cuda12-pjrt, jax-cuda13-plugin): jaxlib
alone is for the CPU. The plugin's objects link no CUDA library: they dlopen cudart, cublas, cufft, cupti,
cusparse and cudnn, and jax_plugins/xla_cuda12 gives the GPU up where one of them cannot be loaded
(`_check_cuda_versions`). Each object carries DT_RPATH to the wheels; `_versions.so` names all of them. Before
that, jax_plugins opens the libraries of the nvidia wheels by path (`_load_nvidia_libraries`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from envdoctor.facts.model import Distribution, Framework, Packages, Requirement, Unavailable
from envdoctor.facts.root import Root
from envdoctor.knowledge.frameworks import jax_release
from envdoctor.knowledge.loading import release_key
from envdoctor.knowledge.sonames import toolkit_sonames
from envdoctor.versions import cudnn_bound

_MAJORS = (13, 12)  # the order in which jax_plugins asks for their plugin packages
_CHECKED = ("cudart", "cublas", "cublasLt", "cufft", "cupti", "cusparse")
_PRELOADED = (
    "cuda_runtime/lib/libcudart.so.12",
    "cu13/lib/libcudart.so.13",
    "cuda_nvrtc/lib/libnvrtc.so.12",
    "cu13/lib/libnvrtc.so.13",
    "cublas/lib/libcublas.so.12",
    "cublas/lib/libcublasLt.so.12",
    "cu13/lib/libcublas.so.13",
    "cu13/lib/libcublasLt.so.13",
    "nccl/lib/libnccl.so.2",
    "cuda_cupti/lib/libcupti.so.12",
    "cu13/lib/libcupti.so.13",
    "cusparse/lib/libcusparse.so.12",
    "cu13/lib/libcusparse.so.12",
    "cusolver/lib/libcusolver.so.11",
    "cu13/lib/libcusolver.so.12",
    "cufft/lib/libcufft.so.11",
    "cu13/lib/libcufft.so.12",
    "nvshmem/lib/libnvshmem_host.so.3",
    "cudnn/lib/libcudnn.so.9",
)
# jaxlib 0.4.25+cuda12.cudnn89, before 0.4.30: CUDA was in jaxlib itself.
_WHOLE = re.compile(r"\+cuda(?P<cuda>\d\d)(?P<minor>\d*)\.cudnn(?P<major>\d)(?P<cudnn>\d*)")


def read_jax(sites: Sequence[str], packages: Packages, root: Root) -> Framework | None:
    """The jax that `import` would find, with the plugin that it would take; None where there is none."""
    site = next((s for s in sites if root.is_file(f"{s}/jax/__init__.py")), "")
    if not site:
        return None
    jax = next((d for d in packages.named("jax") if d.location == site), None)
    version = jax.version if jax else ""
    for major in _MAJORS:
        plugin = _plugin(major, sites, root)
        if plugin:
            metadata = next(iter(packages.named(f"jax-cuda{major}-plugin")), None)
            return _with_plugin(version, f"{site}/jax", plugin, major, metadata, sites, root)
    jaxlib = next(iter(packages.named("jaxlib")), None)
    whole = _WHOLE.search(jaxlib.version) if jaxlib else None
    if jaxlib and whole:
        return _monolithic(version, f"{site}/jax", jaxlib, whole, root)
    return Framework(
        name="jax",
        distribution="jax",
        version=version,
        location=f"{site}/jax",
        cuda_build=False,
        cuda_version="",
        cudnn_version="",
        compute_capabilities=(),
        opener="",
        requirements=(),
        source=f"{site}/jax_plugins",
    )


def _plugin(major: int, sites: Sequence[str], root: Root) -> str:
    """The plugin's package, where its other half is there too; each is of no use without the other."""
    pjrt = any(root.is_file(f"{s}/jax_plugins/xla_cuda{major}/xla_cuda_plugin.so") for s in sites)
    package = f"jax_cuda{major}_plugin"
    return next((f"{s}/{package}" for s in sites if pjrt and root.is_dir(f"{s}/{package}")), "")


def _with_plugin(
    version: str,
    location: str,
    plugin: str,
    major: int,
    metadata: Distribution | None,
    sites: Sequence[str],
    root: Root,
) -> Framework:
    cudnn = cudnn_bound(metadata.requires) if metadata else ""
    cudnn = cudnn or ("9" if release_key(version) >= (0, 4, 30) else "8")
    versions = f"{plugin}/_versions.so"
    return Framework(
        name="jax",
        distribution="jax",
        version=version,
        location=location,
        cuda_build=True,
        cuda_version=str(major),
        cudnn_version=cudnn,
        compute_capabilities=_capabilities(version, major),
        opener=versions if root.is_file(versions) else f"{plugin}/cuda_plugin_extension.so",
        requirements=tuple(_requirements(f"{major}.0", cudnn)),
        preloads=tuple(_preloads(sites, root)),
        source=f"{plugin}/version.py",
    )


def _monolithic(
    version: str, location: str, jaxlib: Distribution, whole: re.Match[str], root: Root
) -> Framework:
    cuda = f"{whole['cuda']}.{whole['minor']}" if whole["minor"] else whole["cuda"]
    cudnn = f"{whole['major']}.{whole['cudnn']}" if whole["cudnn"] else whole["major"]
    opener = f"{jaxlib.location}/jaxlib/xla_extension.so"
    named = cuda if "." in cuda else {"11": "11.8"}.get(cuda, f"{cuda}.0")
    return Framework(
        name="jax",
        distribution="jaxlib",
        version=version,
        location=location,
        cuda_build=True,
        cuda_version=cuda,
        cudnn_version=cudnn,
        compute_capabilities=_capabilities(version, int(whole["cuda"])),
        opener=opener if root.is_file(opener) else "",
        requirements=tuple(_requirements(named, cudnn)),
        source=f"the version of jaxlib, {jaxlib.version}",
    )


def _requirements(cuda: str, cudnn: str) -> Iterator[Requirement]:
    row = toolkit_sonames(cuda)
    sonames = row.sonames if row else {}
    for component in _CHECKED:
        if component in sonames:
            yield Requirement(soname=sonames[component], required=True)
    yield Requirement(soname=f"libcudnn.so.{cudnn.partition('.')[0]}", required=True)
    if "cusolver" in sonames:
        yield Requirement(
            soname=sonames["cusolver"], required=False, needed_for="jax.numpy.linalg on the GPU"
        )
    yield Requirement(soname="libnccl.so.2", required=False)


def _preloads(sites: Sequence[str], root: Root) -> Iterator[str]:
    for below in _PRELOADED:
        path = next((f"{s}/nvidia/{below}" for s in sites if root.exists(f"{s}/nvidia/{below}")), "")
        if path:
            yield path


def _capabilities(version: str, major: int) -> tuple[str, ...] | Unavailable:
    row = jax_release(version, major)
    if row is None or not row.built_for:
        return Unavailable(f"no table has what JAX {version} for CUDA {major} was compiled for")
    return row.built_for
