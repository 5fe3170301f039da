"""How long `check` takes and how much memory, against the bare TensorFlow line, as ratios within one run.

    python benchmarks/check.py --python ENV/bin/python [-n 7] [-o benchmarks/results/check.json]

The commands run in turn, A B C A B C …, so that a machine whose speed drifts drifts for all of them; the
ratios are of runs next to each other, and the median is what to quote. Peak memory is the kernel's
ru_maxrss of the largest single process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

BARE = "import tensorflow; tensorflow.config.list_physical_devices()"


def once(argv: list[str]) -> tuple[float, float]:
    """Wall seconds, and peak memory in MB of the largest process of the command."""
    started = time.perf_counter()
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(child.pid, 0)
    child.returncode = 0
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--python", required=True, help="interpreter of an environment with tensorflow[and-cuda]"
    )
    parser.add_argument("-n", type=int, default=7, help="counted runs of each command")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    doctor = [sys.executable, "-m", "envdoctor", "check", "--python", options.python]
    commands = {
        "bare": [options.python, "-c", BARE],
        "quick": [*doctor, "--quick"],
        "full": doctor,
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    memory: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(options.n + 1):
        for name, argv in commands.items():
            wall, peak = once(argv)
            if number:  # the first round warms the page cache
                seconds[name].append(wall)
                memory[name].append(peak)
    ratios = {
        name: [a / b for a, b in zip(seconds[name], seconds["bare"], strict=True)]
        for name in ("quick", "full")
    }
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
        "runs": options.n,
        "seconds": {name: _spread(values) for name, values in seconds.items()},
        "peak_mb_of_the_largest_process": {name: _spread(values) for name, values in memory.items()},
        "ratio_to_bare": {name: _spread(values) for name, values in ratios.items()},
        "bounds": {"quick_seconds": 0.30, "quick_ratio": 0.1, "full_ratio": 1.15, "quick_mb": 80},
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "min": round(min(values), 3),
        "median": round(statistics.median(values), 3),
        "max": round(max(values), 3),
    }


if __name__ == "__main__":
    main()
