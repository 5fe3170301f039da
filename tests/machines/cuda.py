"""CUDA as it comes onto a machine: NVIDIA's wheels, a toolkit, conda's packages, cuDNN on its own.

The ELF headers are those of the real files: cuDNN 8.6.0 and 8.9.7 besides what is in wheels.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from envdoctor.knowledge.sonames import toolkit_sonames
from tests.machines.compile import stub_library
from tests.machines.drivers import GTX_1080, RTX_4090, SimulatedGpu
from tests.machines.machine import LIBRARIES, Machine, cuda_compiler, write_wheel
from tests.machines.wheels import WHEELS, Library, Wheel

_REQUIREMENT = re.compile(r"(?P<name>nvidia-[a-z0-9-]+?)(?P<cuda>-cu\d\d)?\s*[<>=]")


def wheels(machine: Machine, requires: Sequence[str], *, without: Iterable[str] = ()) -> Machine:
    """NVIDIA's wheels that these requirements name."""
    left_out = set(without)
    for requirement in requires:
        match = _REQUIREMENT.match(requirement)
        lower = re.search(r"[>=]=\s*([\d.]+)", requirement)
        component = match["name"].removeprefix("nvidia-") if match else ""
        if match and lower and component not in left_out:
            wheel(machine, component, lower[1], match["cuda"] or "-cu13", named=match["cuda"] or "")
    return machine


def wheel(
    machine: Machine, component: str, version: str, cuda: str = "-cu12", *, named: str = "?"
) -> Machine:
    """`nvidia-<component><cuda>` of a version: "cudnn", "-cu11". CUDA 13's lie together in nvidia/cu13."""
    suffix = cuda if named == "?" else named
    machine.distribution(f"nvidia-{component}{suffix}", version)
    place = component.replace("-", "_")
    library = _libraries(place, version, cuda)
    if cuda == "-cu13" and place not in {"cudnn", "nccl", "nvshmem", "cusparselt"}:
        place = "cu13"
        if component == "cuda-nvcc":
            cuda_compiler(machine.path(f"{machine.site_packages}/nvidia/cu13"))
    write_wheel(machine.path(machine.site_packages), place, Wheel(version, library))
    return machine


_CUDNN_8 = tuple(f"{part}_{use}" for part in ("ops", "cnn", "adv") for use in ("infer", "train"))
_COMPONENT = {
    "cuda_runtime": ("cudart",),
    "cublas": ("cublas", "cublasLt"),
    "cufft": ("cufft",),
    "curand": ("curand",),
    "cusolver": ("cusolver",),
    "cusparse": ("cusparse",),
    "cuda_cupti": ("cupti",),
    "cuda_nvrtc": ("nvrtc",),
    "nvjitlink": ("nvjitlink",),
}
_ALWAYS = {
    "nccl": "libnccl.so.2",
    "cusparselt": "libcusparseLt.so.0",
    "nvshmem": "libnvshmem_host.so.3",
    "cufile": "libcufile.so.0",
}


def _libraries(component: str, version: str, cuda: str) -> dict[str, Library]:
    if component == "cudnn":
        return cudnn(version, cuda)
    if component in _ALWAYS:
        return {_ALWAYS[component]: Library()}
    release = {"-cu11": "11.8", "-cu12": "12.5", "-cu13": "13.0"}[cuda]
    row = toolkit_sonames("11.7" if version.startswith("11.7.") else release)
    assert row
    if cuda == "-cu12" and component in WHEELS:
        return WHEELS[component].libraries
    runpath = "$ORIGIN" if cuda == "-cu13" else "$ORIGIN:$ORIGIN/../../cublas/lib"
    needs = {
        "cublas": ("cublasLt",),
        "cusolver": ("nvjitlink", "cusparse", "cublas", "cublasLt"),
        "cusparse": ("nvjitlink",),
    }
    found = {}
    for name in _COMPONENT.get(component, ()):
        if name in row.sonames:
            needed = [row.sonames[n] for n in needs.get(name, ()) if n in row.sonames]
            if cuda == "-cu11":
                needed = needed if name == "cublas" else []
            found[row.sonames[name]] = Library(tuple(needed), runpath)
    return found


def cudnn(version: str, cuda: str = "-cu12") -> dict[str, Library]:
    """cuDNN's files. 8 to 8.7 links cuBLAS; 8.9 and 9 open it."""
    major = version.split(".", maxsplit=1)[0]
    if major == "9":
        return WHEELS["cudnn"].libraries
    if major != "8":
        return {f"libcudnn.so.{major}": Library()}
    runpath = "$ORIGIN:$ORIGIN/../../cublas/lib"
    blas = () if cuda == "-cu12" else ("libcublas.so.11", "libcublasLt.so.11")
    needs = {"ops_infer": blas, "cnn_infer": ("libcudnn_ops_infer.so.8", *blas)}
    parts = {
        f"libcudnn_{p}.so.8": Library(needs.get(p, ("libcudnn_ops_infer.so.8",)), runpath) for p in _CUDNN_8
    }
    return {"libcudnn.so.8": Library((), "$ORIGIN"), **parts}


def toolkit(
    machine: Machine,
    cuda: str,
    *,
    directory: str = "",
    with_cudnn: str = "",
    cudnn_for: str = "",
    plain: bool = True,
) -> Machine:
    """A CUDA toolkit as NVIDIA's runfile leaves it (libX.so -> libX.so.N -> libX.so.N.M.P), cuDNN in it.

    Conda's packages have the same names in the environment's lib.
    """
    row = toolkit_sonames(cuda)
    assert row
    home = directory.rpartition("/")[0] or f"/usr/local/cuda-{cuda}"
    directory = directory or f"{home}/lib64"
    machine.compiler(home, f"{cuda}.99")
    if not machine.path("/usr/local/cuda").is_symlink() and home.startswith("/usr/local/"):
        machine.link("/usr/local/cuda", home)
        machine.export(PATH=f"/usr/local/cuda/bin:{machine.environment['PATH']}")
    for name, soname in row.sonames.items():
        needed = [row.sonames["cublasLt"]] if name == "cublas" and "cublasLt" in row.sonames else []
        versioned(machine, directory, soname, f"{cuda}.99", needed=needed, plain=plain)
    if with_cudnn:
        system_cudnn(machine, directory, with_cudnn, cudnn_for or f"-cu{cuda.split('.', maxsplit=1)[0]}")
    return machine


def versioned(
    machine: Machine,
    directory: str,
    soname: str,
    version: str,
    *,
    needed: Sequence[str] = (),
    runpath: str = "",
    plain: bool = True,
) -> Machine:
    """A library as toolkits and distributions install it, with the links that lead to it."""
    stem, _, suffix = soname.partition(".so.")
    extra = version.split(".")[len(suffix.split(".")) :]
    full = ".".join([soname, *extra])
    stub_library(machine.path(f"{directory}/{full}"), soname, needed=needed, runpath=runpath)
    if full != soname:
        machine.link(f"{directory}/{soname}", full)
    return machine.link(f"{directory}/{stem}.so", soname) if plain else machine


def system_cudnn(machine: Machine, directory: str, version: str, cuda: str) -> Machine:
    for soname, library in cudnn(version, cuda).items():
        full = f"{soname.partition('.so.')[0]}.so.{version}"
        stub_library(machine.path(f"{directory}/{full}"), soname, needed=library.needed)
        machine.link(f"{directory}/{soname}", full)
    return machine


def conda(machine: Machine, prefix: str = "/opt/conda/envs/gpu", *, version: str = "3.9.16") -> Machine:
    """A conda environment, active in the shell; its python has DT_RPATH $ORIGIN/../lib, as conda's have."""
    minor = ".".join(version.split(".")[:2])
    machine.venv(prefix, version=version)
    machine.path(f"{prefix}/pyvenv.cfg").unlink()
    machine.path(f"{prefix}/bin/activate").unlink()
    machine.file(f"{prefix}/conda-meta/python-{version}-h_0.json", "{}")
    machine.file(f"{prefix}/conda-meta/history", "")
    machine.link(f"{prefix}/bin/python{minor}", f"/usr/bin/python{minor}")
    del machine.environment["VIRTUAL_ENV"]
    return machine.export(
        CONDA_PREFIX=prefix,
        CONDA_DEFAULT_ENV=prefix.rpartition("/")[2],
        PATH=f"{prefix}/bin:{machine.environment['PATH']}",
    )


def computer(
    machine: Machine, driver: str = "550.54.14", supports: str = "12.4", gpu: SimulatedGpu = RTX_4090
) -> Machine:
    """A driver and a GPU, its libcuda.so.1 with the plain name beside it, as distributions install it."""
    machine.os("ubuntu", "24.04").kernel("6.8.0-45-generic").cpus(8)
    machine.driver(driver, supports=supports, gpus=(gpu,))
    return machine.link(f"{LIBRARIES}/libcuda.so", "libcuda.so.1")


def old_computer(machine: Machine, driver: str = "440.33.01", supports: str = "10.2") -> Machine:
    """A computer of 2020."""
    return computer(machine, driver, supports, GTX_1080)
