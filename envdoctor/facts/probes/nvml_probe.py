"""Asks NVML about the driver and its GPUs, in a child of envdoctor's own interpreter.

One JSON object on the descriptor named in argv[1]: an answer, {"error", "code"} of a driver that gave
none, or {"unavailable"} where the question could not even be put. Every call is guarded by itself, so
that a lost GPU, or one without a feature, hides nothing else.
"""

import ctypes
import json
import os
import sys

LIBRARY = "libnvidia-ml.so.1"
# What of nvidia-ml-py is called. nvidia-ml-py3 and other packages install a `pynvml` of their own.
CALLS = (
    "nvmlInitWithFlags",
    "nvmlSystemGetDriverVersion",
    "nvmlSystemGetCudaDriverVersion_v2",
    "nvmlErrorString",
    "nvmlDeviceGetCount",
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetName",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetMemoryInfo",
)
REMEDY = "pip uninstall -y pynvml nvidia-ml-py3 nvidia-ml-py; pip install nvidia-ml-py"
PR_SET_PDEATHSIG, SIGKILL = 1, 9


def text(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def reason(nvml, error):
    """In the driver's own words, as nvidia-smi prints them; pynvml has others for some numbers."""
    if not isinstance(error, nvml.NVMLError):
        return "%s: %s" % (type(error).__name__, error)
    try:
        words = text(nvml.nvmlErrorString(error.value))
    except nvml.NVMLError:
        words = error
    return "NVML error %d: %s" % (error.value, words)


def guarded(nvml, call):
    try:
        return call()
    except Exception as error:
        return {"unavailable": reason(nvml, error)}


def describe_gpu(nvml, index):
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    gpu = {
        "index": index,
        "name": text(nvml.nvmlDeviceGetName(handle)),
        "uuid": text(nvml.nvmlDeviceGetUUID(handle)),
        "pci_address": guarded(nvml, lambda: text(nvml.nvmlDeviceGetPciInfo_v3(handle).busId)),
        "compute_capability": guarded(
            nvml, lambda: "%d.%d" % nvml.nvmlDeviceGetCudaComputeCapability(handle)
        ),
    }
    memory = guarded(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    known = not isinstance(memory, dict)
    gpu["memory_bytes"] = memory.total if known else memory
    gpu["memory_used_bytes"] = memory.used if known else memory
    return gpu


def ask():
    try:
        library = ctypes.CDLL(LIBRARY)  # pynvml loads it too, and swallows what dlerror says
    except OSError as error:
        return {"error": str(error), "code": None}
    try:
        import pynvml as nvml
    except ImportError as error:
        return {
            "unavailable": "nvidia-ml-py cannot be imported (%s); repair: pip install nvidia-ml-py" % error
        }
    missing = [name for name in CALLS if not hasattr(nvml, name)]
    if missing:
        return {
            "unavailable": "the module pynvml (%s) is not NVIDIA's nvidia-ml-py: it has no %s; repair: %s"
            % (getattr(nvml, "__file__", "built in"), missing[0], REMEDY)
        }
    try:
        nvml.nvmlInitWithFlags(0)
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
        return {
            "driver_version": text(nvml.nvmlSystemGetDriverVersion()),
            "cuda_version": "%d.%d" % (cuda // 1000, cuda % 1000 // 10),
            "simulated": hasattr(library, "envdoctor_simulated_driver"),
            "gpus": [guarded(nvml, lambda: describe_gpu(nvml, i)) for i in range(nvml.nvmlDeviceGetCount())],
        }
    except nvml.NVMLError as error:
        return {"error": reason(nvml, error), "code": error.value}


def main():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)  # no hung probe outlives an envdoctor that was killed
    answer = json.dumps(ask()).encode()
    with open(int(sys.argv[1]), "wb") as channel:
        channel.write(answer)
    os._exit(0)  # a sick driver's own clean-up is nothing to wait for


main()
