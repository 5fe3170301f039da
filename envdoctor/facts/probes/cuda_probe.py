"""Asks libcuda.so.1 what CUDA would find, in a child of envdoctor's own interpreter.

It runs under the target's environment: LD_LIBRARY_PATH chooses the library, CUDA_VISIBLE_DEVICES the
devices. One JSON object on the descriptor named in argv[1], in the form of the facts
(envdoctor.facts.model): a `cuda-driver`, or the `probe-failure` of one that gave no answer.
"""

import ctypes
import json
import os
import sys

LIBRARY = "libcuda.so.1"
# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*, _MULTIPROCESSOR_COUNT, _VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED
MAJOR, MINOR, MULTIPROCESSORS, VIRTUAL_MEMORY = 75, 76, 16, 102
PR_SET_PDEATHSIG, SIGKILL = 1, 9


class CudaError(Exception):
    def __init__(self, library, code):
        name = spelled(library, "cuGetErrorName", code) or "unknown to this driver"
        meaning = spelled(library, "cuGetErrorString", code)
        super().__init__("CUDA error %d: %s%s" % (code, name, " (%s)" % meaning if meaning else ""))
        self.code = code


def spelled(library, function, code):
    text = ctypes.c_char_p()
    if (
        not hasattr(library, function)
        or getattr(library, function)(code, ctypes.byref(text))
        or not text.value
    ):
        return ""
    return text.value.decode("utf-8", "replace")


def ask():
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        return failure(error, None)

    def call(function, *arguments):
        code = getattr(library, function)(*arguments)
        if code:
            raise CudaError(library, code)

    def number(function, *arguments):
        result = ctypes.c_int()
        call(function, ctypes.byref(result), *arguments)
        return result.value

    def attribute(wanted, handle, otherwise):
        """`otherwise` where this driver does not know it: VIRTUAL_MEMORY came with CUDA 10.2."""
        try:
            return number("cuDeviceGetAttribute", wanted, handle)
        except CudaError:
            return otherwise

    def device(index):
        handle = number("cuDeviceGet", index)
        name = ctypes.create_string_buffer(256)
        memory = ctypes.c_size_t()
        call("cuDeviceGetName", name, len(name), handle)
        call("cuDeviceTotalMem_v2", ctypes.byref(memory), handle)
        capability = [number("cuDeviceGetAttribute", wanted, handle) for wanted in (MAJOR, MINOR)]
        return {
            "name": name.value.decode("utf-8", "replace"),
            "compute_capability": "%d.%d" % tuple(capability),
            "memory_bytes": memory.value,
            "multiprocessors": attribute(MULTIPROCESSORS, handle, 0),
            "virtual_memory": bool(attribute(VIRTUAL_MEMORY, handle, 1)),
        }

    try:
        version = number("cuDriverGetVersion")
        call("cuInit", 0)
        return {
            "is": "cuda-driver",
            "version": "%d.%d" % (version // 1000, version % 1000 // 10),
            "simulated": hasattr(library, "envdoctor_simulated_driver"),
            "devices": [device(index) for index in range(number("cuDeviceGetCount"))],
        }
    except CudaError as error:
        return failure(error, error.code)
    except AttributeError as error:  # a file of that name that is not CUDA's
        return failure(error, None)


def failure(error, code):
    return {"is": "probe-failure", "kind": "error", "detail": str(error), "code": code}


def main():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)  # no hung probe outlives an envdoctor that was killed
    answer = json.dumps(ask()).encode()
    with open(int(sys.argv[1]), "wb") as channel:
        channel.write(answer)
    os._exit(0)  # a sick driver's own clean-up is nothing to wait for


main()
