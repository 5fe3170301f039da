"""TensorFlow of every era, PyTorch, JAX, and the CUDA that came with each, put on a simulated machine.

The ELF headers, build_info.py, version.py and METADATA are those of the real wheels: TensorFlow 1.12.3,
1.15.5, 2.1.4, 2.4.4, 2.16.1; PyTorch 2.10.0 (CUDA 12.8), 2.12.1 (CUDA 13.0), 2.13.0+cpu; JAX 0.10.2; cuDNN
8.6 and 8.9. RUNPATHs of the other releases of TensorFlow are from readelf on their wheels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from envdoctor.knowledge.frameworks import (
    and_cuda_pins,
    jax_plugin,
    pytorch_release,
    tensorflow_release,
)
from envdoctor.knowledge.sonames import toolkit_sonames
from tests.machines.compile import stub_library
from tests.machines.drivers import GTX_1080, RTX_4090, SimulatedGpu
from tests.machines.machine import LIBRARIES, Machine, cuda_compiler, write_wheel
from tests.machines.wheels import FRAMEWORK_RUNPATH, WHEELS, Library, Wheel


def _pairs(*places: str) -> str:
    return ":".join(f"$ORIGIN/../../{p}:$ORIGIN/../{p}" for p in places)


def _wheels(*components: str) -> str:
    return _pairs(*(f"nvidia/{c}/lib" for c in components))


_FOUR = ("cublas", "cudnn", "cufft", "cusolver", "cusparse")
_2_14 = ":".join(("$ORIGIN/", _wheels("cuda_runtime"), _pairs("tensorrt"), _wheels(*_FOUR)))
_2_16 = ":".join(("$ORIGIN/", _pairs("tensorrt"), _wheels(*_FOUR), _wheels("cuda_runtime")))
_2_18 = ":".join(("$ORIGIN/", _wheels(*_FOUR), _pairs("tensorrt"), _wheels("cuda_runtime")))


@dataclass(frozen=True)
class Era:
    """libtensorflow_framework of a TensorFlow release, and what its build_info.py says."""

    runpath: str
    rpath: bool = False
    core: bool = False  # the package is tensorflow_core
    told_cuda: str = ""  # where build_info.py does not say the release's CUDA version as it is
    python: str = "3.11.9"
    distribution: str = "tensorflow"


ERAS = {
    "1.12.3": Era("$ORIGIN/", rpath=True, python="3.6.9", distribution="tensorflow-gpu"),
    "1.15.5": Era("$ORIGIN/", True, True, told_cuda="10", python="3.7.9", distribution="tensorflow-gpu"),
    "2.1.4": Era("$ORIGIN/", rpath=True, core=True, python="3.7.9"),
    "2.4.4": Era("$ORIGIN/", rpath=True, python="3.7.9"),
    "2.10.1": Era("$ORIGIN/", python="3.9.16"),
    "2.13.1": Era("$ORIGIN/", python="3.10.12"),
    "2.14.1": Era(_2_14),
    "2.15.1": Era(_2_14),
    "2.16.1": Era(f"$ORIGIN/:{_pairs('tensorrt')}:{_wheels('cuda_runtime')}"),
    "2.16.2": Era(_2_16),
    "2.17.1": Era(_2_16),
    "2.18.1": Era(_2_18),
    "2.19.1": Era(_2_18),
    "2.20.0": Era(f"{_wheels('cuda_cupti', *_FOUR)}:{_pairs('tensorrt')}:{_wheels('cuda_runtime')}"),
    "2.21.0": Era(FRAMEWORK_RUNPATH),
}


def tensorflow(machine: Machine, version: str) -> Machine:
    """The package of a release, in the environment that there is. Its libraries are not installed with it."""
    era, row = ERAS[version], tensorflow_release(version)
    assert row
    site = machine.site_packages
    package = f"{site}/tensorflow_core" if era.core else f"{site}/tensorflow"
    pins = and_cuda_pins(version)
    machine.distribution(
        era.distribution, version, [f'{r}; extra == "and-cuda"' for r in (pins.requires if pins else ())]
    )
    machine.file(f"{site}/tensorflow/__init__.py", "")
    machine.file(f"{package}/__init__.py", "")
    machine.file(f"{package}/python/platform/build_info.py", _build_info(version, era))
    extension = f"{package}/python/_pywrap_tensorflow_internal.so"
    if row.linked:
        suffix = row.cuda
        machine.library(
            f"{package}/libtensorflow_framework.so",
            needed=["libcuda.so.1", "libcudnn.so.7", *(f"lib{n}.so.{suffix}" for n in _LINKED)],
            runpath=era.runpath,
            rpath=True,
        )
        needed = [f"libcusolver.so.{suffix}", f"libcublas.so.{suffix}", f"libcudart.so.{suffix}"]
        return machine.library(
            extension,
            needed=["libtensorflow_framework.so", *needed],
            runpath="$ORIGIN/:$ORIGIN/..",
            rpath=True,
        )
    name = "libtensorflow_framework.so." + ("1" if version.startswith("1.") else "2")
    machine.library(f"{package}/{name}", runpath=era.runpath, rpath=era.rpath)
    return machine.library(extension, needed=[name], runpath="$ORIGIN/:$ORIGIN/..", rpath=era.rpath)


_LINKED = ("cublas", "cufft", "curand", "cudart")


def _build_info(version: str, era: Era) -> str:
    row = tensorflow_release(version)
    assert row
    key = tuple(map(int, version.split(".")))
    if key < (1, 14):
        return "is_cuda_build = True\n"
    if key < (2, 3):
        told = era.told_cuda or row.cuda
        major = row.cudnn.split(".")[0]
        return (
            "is_rocm_build = False\nis_cuda_build = True\n"
            f"cuda_version_number = '{told}'\ncudnn_version_number = '{major}'\n"
        )
    values = [
        ("cuda_compute_capabilities", list(row.compute_capabilities)),
        ("cuda_version", row.cuda),
        ("cudnn_version", row.cudnn.split(".")[0]),
        ("is_cuda_build", True),
        ("is_rocm_build", False),
    ]
    return f"import collections\n\nbuild_info = collections.OrderedDict({values!r})\n"


def and_cuda(machine: Machine, version: str, *, without: Iterable[str] = ()) -> Machine:
    """The wheels of `pip install 'tensorflow[and-cuda]==version'`, each at the lowest version it takes."""
    pins = and_cuda_pins(version)
    assert pins
    return wheels(machine, pins.requires, without=without)


def requirements(version: str) -> tuple[str, ...]:
    """What the extra of a TensorFlow release asks for."""
    pins = and_cuda_pins(version)
    assert pins
    return pins.requires


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


# --- PyTorch --------------------------------------------------------------------------------------------

_TORCH_12 = (
    "cudnn",
    "nvshmem",
    "nccl",
    "cusparselt",
    "cublas",
    "cuda_cupti",
    "cuda_nvrtc",
    "cuda_runtime",
    "cufft",
    "curand",
    "cusolver",
    "cusparse",
    "nvtx",
    "cufile",
)


def torch(machine: Machine, version: str = "2.10.0", cuda: str = "12.8", *, triton: str = "") -> Machine:
    """The package; `cuda=""` is the CPU build. Its libraries are not installed with it: see torch_wheels."""
    site = machine.site_packages
    row = pytorch_release(version)
    assert row
    machine.distribution("torch", version, row.requires if cuda else ())
    machine.file(f"{site}/torch/__init__.py", "")
    label = f"{version}+cu{cuda.replace('.', '')}" if cuda else f"{version}+cpu"
    machine.file(
        f"{site}/torch/version.py",
        "from typing import Optional\n\n__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip']\n"
        f"__version__ = '{label}'\ndebug = False\n"
        f"cuda: Optional[str] = {cuda or None!r}\ngit_version = '449b1768'\nhip: Optional[str] = None\n",
    )
    if triton:
        machine.distribution("triton", triton)
    if not cuda:
        for name, needed in (("libc10.so", []), ("libtorch_cpu.so", ["libc10.so"])):
            machine.library(f"{site}/torch/lib/{name}", needed=needed, runpath="$ORIGIN")
        return machine.library(
            f"{site}/torch/lib/libtorch_python.so", needed=["libtorch_cpu.so", "libc10.so"], runpath="$ORIGIN"
        )
    sonames = toolkit_sonames(cuda)
    assert sonames
    s = sonames.sonames
    major = cuda.split(".", maxsplit=1)[0]
    places = ["cudnn", "nvshmem", "nccl", "cusparselt", "cu13"] if major == "13" else _TORCH_12
    rpath = ":".join([*(f"$ORIGIN/../../nvidia/{p}/lib" for p in places), "$ORIGIN"])
    dnn = f"libcudnn.so.{row.cudnn.split('.')[0]}"
    late = ["libcufile.so.0", "libcusparseLt.so.0"] if version >= "2.2" or version.startswith("2.1") else []
    late = [] if version.startswith(("1.", "2.0", "2.1.")) else late
    math = [s["cusparse"], s["cufft"], *late, "libnccl.so.2", s["curand"], s["cublas"], s["cublasLt"]]
    needs = {
        "libtorch_global_deps.so": [s["cudart"]],
        "libc10.so": [],
        "libc10_cuda.so": ["libc10.so", s["cudart"]],
        "libtorch_cpu.so": ["libc10.so", s["cupti"], s["cudart"]],
        "libtorch_cuda.so": ["libc10_cuda.so", s["cudart"], *math, dnn, "libc10.so", "libtorch_cpu.so"],
        "libtorch_cuda_linalg.so": ["libtorch_cuda.so", s["cusolver"], s["cudart"], s["cublas"]],
        "libcaffe2_nvrtc.so": [s["nvrtc"], "libcuda.so.1"],
        "libtorch.so": ["libtorch_cpu.so", "libtorch_cuda.so"],
        "libtorch_python.so": ["libtorch.so", "libtorch_cpu.so", "libtorch_cuda.so", s["cudart"], dnn],
    }
    for name, needed in needs.items():
        machine.library(f"{site}/torch/lib/{name}", needed=needed, runpath=rpath, rpath=True)
    return machine


def torch_wheels(machine: Machine, version: str = "2.10.0", *, without: Iterable[str] = ()) -> Machine:
    """What `pip install torch==version` brings of NVIDIA's."""
    row = pytorch_release(version)
    assert row
    requires = list(row.requires)
    bundle = next((r for r in requires if r.startswith("cuda-toolkit[")), "")
    for extra in re.findall(r"\[(.*?)\]", bundle)[:1]:
        names = {"cudart": "cuda-runtime", "cupti": "cuda-cupti", "nvrtc": "cuda-nvrtc", "nvtx": ""}
        requires += [f"nvidia-{names.get(n, n)}==13.0.99" for n in extra.split(",") if names.get(n, n)]
    if row.cuda.startswith("12.") and not any("nvjitlink" in r for r in requires):
        requires.append(f"nvidia-nvjitlink-cu12=={row.cuda}")  # what nvidia-cusolver-cu12 requires itself
    return wheels(machine, requires, without=without)


# --- JAX ------------------------------------------------------------------------------------------------

_VERSIONS_12 = ("cublas", "cuda_runtime", "cudnn", "cufft", "cuda_cupti", "cusolver", "cusparse")


def jax(machine: Machine, version: str = "0.10.2", major: int = 12, *, plugin: str = "") -> Machine:
    """jax and jaxlib; with `major` its CUDA plugin (0: none). Its libraries are not installed with it."""
    site = machine.site_packages
    machine.distribution("jax", version, [f"jaxlib<={version},>={version}"])
    machine.distribution("jaxlib", version)
    machine.file(f"{site}/jax/__init__.py", "").file(f"{site}/jaxlib/__init__.py", "")
    if not major:
        return machine
    row = jax_plugin(f"jax-cuda{major}-plugin", version)
    assert row
    requires = [r if "pjrt" in r else f'{r}; extra == "with-cuda"' for r in row.requires]
    machine.distribution(f"jax-cuda{major}-plugin", plugin or version, requires)
    machine.distribution(f"jax-cuda{major}-pjrt", plugin or version)
    machine.file(f"{site}/jax_cuda{major}_plugin/__init__.py", "")
    machine.file(f"{site}/jax_cuda{major}_plugin/version.py", f"_version = '{plugin or version}'\n")
    rpath = _wheels("cu13", "cudnn") if major == 13 else _wheels(*_VERSIONS_12)
    for name in ("_versions.so", "_solver.so", "cuda_plugin_extension.so"):
        machine.library(f"{site}/jax_cuda{major}_plugin/{name}", runpath=rpath, rpath=True)
    pjrt = f"{site}/jax_plugins/xla_cuda{major}"
    machine.file(f"{pjrt}/__init__.py", "")
    return machine.library(f"{pjrt}/xla_cuda_plugin.so", runpath=rpath, rpath=True)


def jax_wheels(
    machine: Machine, version: str = "0.10.2", major: int = 12, *, without: Iterable[str] = ()
) -> Machine:
    """The libraries that `pip install 'jax[cuda12]'` brings."""
    row = jax_plugin(f"jax-cuda{major}-plugin", version)
    assert row
    return wheels(machine, row.requires, without=without)


# --- whole machines -------------------------------------------------------------------------------------


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
