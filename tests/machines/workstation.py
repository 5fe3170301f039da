"""A workstation of 2020: TensorFlow 2.1 for CUDA 10.1 beside CUDA 10.2, cuDNN 7.6, TensorRT 7, on openSUSE.

The functions are some of those that the real files name and export: TensorFlow 2.1.4's
libtensorflow_framework.so.2 has a stub and a name for each of cudart's 206, and its
_pywrap_tensorflow_internal.so names those of TensorRT; libcudart.so.10.2.89 exports them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.machines import eras
from tests.machines.compile import stub_library
from tests.machines.drivers import GTX_1080
from tests.machines.machine import Machine

CUDART = (
    "__cudaRegisterFatBinary",
    "cudaBindTexture",
    "cudaFree",
    "cudaGetDeviceCount",
    "cudaLaunchKernel",
    "cudaMalloc",
    "cudaMemcpyAsync",
    "cudaStreamSynchronize",
)
NVINFER = ("createInferBuilder_INTERNAL", "createInferRuntime_INTERNAL", "getPluginRegistry")
NVINFER_PLUGIN = ("initLibNvInferPlugins",)
CUDART_FILE = "/usr/local/cuda-10.2/lib64/libcudart.so.10.2.99"
PACKAGE = "/opt/venv/lib/python3.7/site-packages/tensorflow_core"
OPENER = f"{PACKAGE}/libtensorflow_framework.so.2"
INTERNAL = f"{PACKAGE}/python/_pywrap_tensorflow_internal.so"


def old_workstation(
    root: Path,
    *,
    cudart: Sequence[str] = CUDART,
    nvinfer: Sequence[str] = NVINFER,
    nvinfer_plugin: Sequence[str] = NVINFER_PLUGIN,
    named: Sequence[str] = CUDART,
    called: Sequence[str] = CUDART[2:4],
) -> Machine:
    """What each library exports, what the opener names of cudart, and what of that its own code calls."""
    machine = Machine(root).os("opensuse-leap", "15.2", like="suse opensuse").cpus(4)
    machine.driver("440.33.01", supports="10.2", gpus=[GTX_1080]).venv(version="3.7.9")
    eras.toolkit(eras.tensorflow(machine, "2.1.4"), "10.2", with_cudnn="7.6.5")
    machine.library(CUDART_FILE, "libcudart.so.10.2", symbols=cudart)
    for soname, symbols in (("libnvinfer.so.7", nvinfer), ("libnvinfer_plugin.so.7", nvinfer_plugin)):
        machine.library(f"/usr/lib64/{soname}.0.0", soname, symbols=symbols)
        machine.link(f"/usr/lib64/{soname}", f"{soname}.0.0")
    opener = stubs(named) + names(named) + "".join(f"int use_{n}(void) {{ return {n}(); }}\n" for n in called)
    stub_library(machine.path(OPENER), runpath="$ORIGIN/", rpath=True, source=opener)
    stub_library(
        machine.path(INTERNAL),
        needed=["libtensorflow_framework.so.2"],
        runpath="$ORIGIN/:$ORIGIN/..",
        rpath=True,
        source=names([*NVINFER, *NVINFER_PLUGIN, "cudaD3D10GetDevice"]),
    )
    return machine.export(LD_LIBRARY_PATH="/usr/local/cuda-10.2/lib64:/usr/lib64")


def stubs(functions: Sequence[str]) -> str:
    """C source of functions of these names, as TensorFlow has them for what it takes with dlsym."""
    return "".join(f"int {name}(void) {{ return 0; }}\n" for name in functions)


def names(functions: Sequence[str]) -> str:
    """C source that has these names in its read-only data."""
    return "const char *const names_of_functions[] = {" + ", ".join(f'"{n}"' for n in functions) + "};\n"
