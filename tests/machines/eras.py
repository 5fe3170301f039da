"""TensorFlow of every era, PyTorch, JAX, and the CUDA that came with each, put on a simulated machine.

The ELF headers, build_info.py, version.py and METADATA are those of the real wheels: TensorFlow 1.12.3,
1.15.5, 2.1.4, 2.4.4, 2.16.1; PyTorch 2.10.0 (CUDA 12.8), 2.12.1 (CUDA 13.0), 2.13.0+cpu; JAX 0.10.2; cuDNN
8.6 and 8.9. RUNPATHs of the other releases of TensorFlow are from readelf on their wheels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from envdoctor.knowledge.frameworks import (
    and_cuda_pins,
    jax_plugin,
    pytorch_release,
    tensorflow_release,
)
from envdoctor.knowledge.sonames import toolkit_sonames
from tests.machines.cuda import (
    computer,
    conda,
    old_computer,
    system_cudnn,
    toolkit,
    versioned,
    wheel,
    wheels,
)
from tests.machines.machine import Machine
from tests.machines.wheels import FRAMEWORK_RUNPATH

__all__ = [
    "and_cuda",
    "computer",
    "conda",
    "jax",
    "jax_wheels",
    "old_computer",
    "requirements",
    "system_cudnn",
    "tensorflow",
    "toolkit",
    "torch",
    "torch_wheels",
    "versioned",
    "wheel",
    "wheels",
]


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
    if any("nvshmem" in r for r in row.requires):
        needs["libtorch_nvshmem.so"] = ["libtorch_cpu.so", "libnvshmem_host.so.3", "libc10.so"]
        needs["libtorch_cuda.so"].insert(0, "libtorch_nvshmem.so")
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
