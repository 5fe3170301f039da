"""Runs in the doctor's own interpreter, beside a training: a line for each GPU, five times a second.

A child of its own, because a call into NVML may never return. `argv[1]` is the seconds between samples,
argv[2] the descriptor that the lines go to. It ends with its parent, or when it is killed.
"""

import ctypes
import json
import os
import sys
import time
from typing import Any

PR_SET_PDEATHSIG, SIGKILL = 1, 9


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)
    with os.fdopen(int(sys.argv[2]), "w") as channel:
        try:
            import pynvml as nvml  # noqa: PLC0415

            nvml.nvmlInitWithFlags(0)
            handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        except Exception as error:  # noqa: BLE001  whatever it is, it is the answer
            channel.write(json.dumps({"unavailable": f"{type(error).__name__}: {error}"}) + "\n")
            return
        while True:
            for index, handle in enumerate(handles):
                channel.write(json.dumps(sample(nvml, index, handle)) + "\n")
            channel.flush()
            time.sleep(float(sys.argv[1]))


def sample(nvml: Any, index: int, handle: Any) -> dict[str, Any]:
    """What NVML tells of a GPU now; None for what it does not tell."""

    def asked(name: str, *arguments: int) -> Any:
        try:
            return getattr(nvml, name)(handle, *arguments)
        except (nvml.NVMLError, AttributeError):
            return None

    rates, memory = asked("nvmlDeviceGetUtilizationRates"), asked("nvmlDeviceGetMemoryInfo")
    power = asked("nvmlDeviceGetPowerUsage")  # milliwatts
    return {
        "at": time.monotonic(),
        "index": index,
        "utilisation": rates and rates.gpu,
        "memory_bytes": memory and memory.used,
        "power_w": power and power / 1000,
        "temperature_c": asked("nvmlDeviceGetTemperature", 0),  # NVML_TEMPERATURE_GPU
    }


if __name__ == "__main__":
    main()
