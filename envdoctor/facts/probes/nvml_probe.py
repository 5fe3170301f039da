"""Asks NVML about the driver and its GPUs, in a child of envdoctor's own interpreter.

One JSON object on the descriptor named in argv[1], in the form of the facts (envdoctor.facts.model): an
`nvml`, the `probe-failure` of a driver that gave no answer, or `unavailable` where the question could not
even be put. Every call is guarded by itself, so that a lost GPU, or one without a feature, hides nothing
else.
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


def unavailable(why):
    return {"is": "unavailable", "reason": why}


def guarded(nvml, call):
    try:
        return call()
    except Exception as error:
        return unavailable(reason(nvml, error))


def describe_gpu(nvml, index):
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def asked(call, *arguments):
        return guarded(nvml, lambda: getattr(nvml, call)(handle, *arguments))

    gpu = {
        "is": "gpu",
        "index": index,
        "name": text(nvml.nvmlDeviceGetName(handle)),
        "uuid": text(nvml.nvmlDeviceGetUUID(handle)),
        "pci_address": guarded(nvml, lambda: sysfs_address(text(nvml.nvmlDeviceGetPciInfo_v3(handle).busId))),
        "compute_capability": guarded(
            nvml, lambda: "%d.%d" % tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle))
        ),
        "processes": guarded(nvml, lambda: processes(nvml, handle)),
        "utilization": guarded(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        "temperature": asked("nvmlDeviceGetTemperature", 0),  # NVML_TEMPERATURE_GPU
        "slowdown": asked("nvmlDeviceGetCurrentClocksThrottleReasons"),  # its name of all drivers
        "ecc": guarded(nvml, lambda: ecc_errors(nvml, handle)),
        "remapped_rows": guarded(nvml, lambda: remapped_rows(nvml, handle)),
        "retired_pages": guarded(nvml, lambda: retired_pages(nvml, handle)),
        "mig": guarded(nvml, lambda: mig(nvml, handle)),
        "compute_mode": asked("nvmlDeviceGetComputeMode"),
        "virtualization": asked("nvmlDeviceGetVirtualizationMode"),
    }
    memory = guarded(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    known = not isinstance(memory, dict)
    gpu["memory_bytes"] = memory.total if known else memory
    gpu["memory_used_bytes"] = memory.used if known else memory
    return gpu


def sysfs_address(address):
    """NVML writes the PCI domain with eight digits, in capitals; the kernel "0000:01:00.0"."""
    domain, _, rest = address.lower().partition(":")
    return "%s:%s" % (domain.lstrip("0").rjust(4, "0"), rest)


def processes(nvml, handle):
    """Those with a CUDA context first; one that also draws is listed twice by NVML, once here."""
    computing = [described(process, "compute") for process in running(nvml, handle, "Compute")]
    pids = [process["pid"] for process in computing]
    drawing = [described(process, "graphics") for process in running(nvml, handle, "Graphics")]
    return computing + [process for process in drawing if process["pid"] not in pids]


def described(process, kind):
    return {"pid": process.pid, "kind": kind, "memory_bytes": process.usedGpuMemory}


def running(nvml, handle, kind):
    name = "nvmlDeviceGet%sRunningProcesses" % kind
    try:
        return getattr(nvml, name + "_v3")(handle)
    except (AttributeError, nvml.NVMLError_FunctionNotFound):  # a driver before 510
        return getattr(nvml, name + "_v2")(handle)


def ecc_errors(nvml, handle):
    """Uncorrected ones. With ECC off, or a GPU without it, NVML says "Not Supported"."""
    counts = [
        guarded(nvml, lambda: nvml.nvmlDeviceGetTotalEccErrors(handle, 1, counter)) for counter in (0, 1)
    ]
    return {"is": "ecc", "volatile": counts[0], "aggregate": counts[1]}


def remapped_rows(nvml, handle):
    _, uncorrectable, pending, failed = nvml.nvmlDeviceGetRemappedRows(handle)
    return {
        "is": "remapped-rows",
        "uncorrectable": uncorrectable,
        "pending": bool(pending),
        "failed": bool(failed),
    }


def retired_pages(nvml, handle):
    pages = nvml.nvmlDeviceGetRetiredPages(handle, 1)  # NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR
    pending = nvml.nvmlDeviceGetRetiredPagesPendingStatus(handle)
    return {"is": "retired-pages", "double_bit": len(pages), "pending": bool(pending)}


def mig(nvml, handle):
    current = nvml.nvmlDeviceGetMigMode(handle)[0]
    instances = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle) if current else 0):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            instances.append(text(nvml.nvmlDeviceGetUUID(instance)))
        except nvml.NVMLError_NotFound:
            pass
    return {"is": "mig", "enabled": bool(current), "instances": instances}


def ask():
    try:
        library = ctypes.CDLL(LIBRARY)  # pynvml loads it too, and swallows what dlerror says
    except OSError as error:
        return failure(str(error), None)
    try:
        import pynvml as nvml
    except ImportError as error:
        return unavailable("nvidia-ml-py cannot be imported (%s); repair: pip install nvidia-ml-py" % error)
    missing = [name for name in CALLS if not hasattr(nvml, name)]
    if missing:
        return unavailable(
            "the module pynvml (%s) is not NVIDIA's nvidia-ml-py: it has no %s; repair: %s"
            % (getattr(nvml, "__file__", "built in"), missing[0], REMEDY)
        )
    try:
        nvml.nvmlInitWithFlags(0)
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
        answer = {
            "is": "nvml",
            "driver_version": text(nvml.nvmlSystemGetDriverVersion()),
            "cuda_version": "%d.%d" % (cuda // 1000, cuda % 1000 // 10),
            "simulated": hasattr(library, "envdoctor_simulated_driver"),
            "gpus": [],
            "failures": [],
        }
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                answer["gpus"].append(describe_gpu(nvml, index))
            except Exception as error:
                why = reason(nvml, error)
                answer["gpus"].append(unavailable(why))
                answer["failures"].append(
                    {"index": index, "code": getattr(error, "value", None), "reason": why}
                )
        return answer
    except nvml.NVMLError as error:
        return failure(reason(nvml, error), error.value)


def failure(detail, code):
    return {"is": "probe-failure", "kind": "error", "detail": detail, "code": code}


def main():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)  # no hung probe outlives an envdoctor that was killed
    answer = json.dumps(ask()).encode()
    with open(int(sys.argv[1]), "wb") as channel:
        channel.write(answer)
    os._exit(0)  # a sick driver's own clean-up is nothing to wait for


main()
