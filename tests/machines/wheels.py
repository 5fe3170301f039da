"""NVIDIA's CUDA 12 wheels and TensorFlow 2.21, as they are: read with readelf from the real ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Library:
    """An ELF file's needs, C library and compiler runtimes left out."""

    needed: tuple[str, ...] = ()
    runpath: str = ""
    rpath: bool = False  # DT_RPATH instead of DT_RUNPATH
    source: str = ""  # C, for the few functions that TensorFlow calls while it lists devices


@dataclass(frozen=True)
class Wheel:
    """nvidia-<name>-cu12, whose libraries lie in site-packages/nvidia/<directory>/lib."""

    version: str
    libraries: dict[str, Library]


def _cudnn(part: str, *needed: str) -> dict[str, Library]:
    runpath = "$ORIGIN:$ORIGIN/../../cublas/lib:$ORIGIN/../../cuda_nvrtc/lib"
    return {f"libcudnn_{part}.so.9": Library(needed, runpath)}


_JITLINK = "$ORIGIN/../../nvjitlink/lib:$ORIGIN"
_CUDNN_VERSION = """
unsigned long cudnnGetVersion(void) { return 92800; }
int cudnnGetProperty(int part, int *value) { *value = part == 0 ? 9 : part == 1 ? 28 : 0; return 0; }
"""
WHEELS = {
    "cublas": Wheel(
        "12.9.3.13",
        {
            "libcublas.so.12": Library(("libcublasLt.so.12",), "$ORIGIN", rpath=True),
            "libcublasLt.so.12": Library((), "$ORIGIN", rpath=True),
        },
    ),
    "cuda_cupti": Wheel("12.9.79", {"libcupti.so.12": Library()}),
    "cuda_nvcc": Wheel("12.9.86", {}),
    "cuda_nvrtc": Wheel(
        "12.9.86",
        {"libnvrtc.so.12": Library((), "$ORIGIN:"), "libnvrtc-builtins.so.12.9": Library()},
    ),
    "cuda_runtime": Wheel(
        "12.9.79",
        {
            "libcudart.so.12": Library(
                source="int cudaRuntimeGetVersion(int *version) { *version = 12090; return 0; }\n"
            )
        },
    ),
    "cudnn": Wheel(
        "9.28.0.42",
        {
            "libcudnn.so.9": Library((), "$ORIGIN", rpath=True, source=_CUDNN_VERSION),
            **_cudnn("graph"),
            **_cudnn("ops", "libcudnn_graph.so.9"),
            **_cudnn("adv", "libcudnn_ops.so.9", "libcudnn_graph.so.9"),
            **_cudnn("cnn", "libcudnn_ops.so.9", "libcudnn_graph.so.9"),
            **_cudnn("heuristic", "libcudnn_graph.so.9"),
            **_cudnn("engines_precompiled", "libcudnn_graph.so.9"),
            **_cudnn("engines_runtime_compiled", "libcudnn_graph.so.9", "libcuda.so.1"),
        },
    ),
    "cufft": Wheel("11.4.1.4", {"libcufft.so.11": Library((), _JITLINK)}),
    "curand": Wheel("10.3.10.19", {"libcurand.so.10": Library((), "$ORIGIN")}),
    "cusolver": Wheel(
        "11.7.5.82",
        {
            "libcusolver.so.11": Library(
                ("libnvJitLink.so.12", "libcusparse.so.12", "libcublas.so.12", "libcublasLt.so.12"),
                "$ORIGIN:$ORIGIN/../../cublas/lib:$ORIGIN/../../nvjitlink/lib:$ORIGIN/../../cusparse/lib",
            )
        },
    ),
    "cusparse": Wheel("12.5.10.65", {"libcusparse.so.12": Library(("libnvJitLink.so.12",), _JITLINK)}),
    "nccl": Wheel("2.32.3", {"libnccl.so.2": Library()}),
    "nvjitlink": Wheel("12.9.86", {"libnvJitLink.so.12": Library()}),
}

# libtensorflow_framework.so.2, which calls dlopen, has all of them but cusolver; libtensorflow_cc.so.2 has
# cusolver alone.
FRAMEWORK_RUNPATH = ":".join(
    f"$ORIGIN/../../{place}:$ORIGIN/../{place}"
    for place in (
        "nvidia/nccl/lib",
        "nvidia/cuda_cupti/lib",
        "nvidia/cublas/lib",
        "nvidia/cudnn/lib",
        "nvidia/cufft/lib",
        "nvidia/cusparse/lib",
        "tensorrt",
        "nvidia/cuda_runtime/lib",
        "nvidia/nvshmem/lib",
    )
)
CC_RUNPATH = "$ORIGIN/:$ORIGIN/../../nvidia/cusolver/lib:$ORIGIN/../nvidia/cusolver/lib"
CAPABILITIES = ("sm_60", "sm_70", "sm_80", "sm_89", "compute_90")
AND_CUDA = tuple(
    f'{requirement}; extra == "and-cuda"'
    for requirement in (
        "nvidia-cublas-cu12<13.0,>=12.5.3.2",
        "nvidia-cuda-cupti-cu12<13.0,>=12.5.82",
        "nvidia-cuda-nvcc-cu12<13.0,>=12.5.82",
        "nvidia-cuda-nvrtc-cu12<13.0,>=12.5.82",
        "nvidia-cuda-runtime-cu12<13.0,>=12.5.82",
        "nvidia-cudnn-cu12<10.0,>=9.3.0.75",
        "nvidia-cufft-cu12<12.0,>=11.2.3.61",
        "nvidia-curand-cu12<11.0,>=10.3.6.82",
        "nvidia-cusolver-cu12<12.0,>=11.6.3.83",
        "nvidia-cusparse-cu12<13.0,>=12.5.1.3",
        "nvidia-nccl-cu12<3.0,>=2.27.7",
        "nvidia-nvjitlink-cu12<13.0,>=12.5.82",
    )
)
