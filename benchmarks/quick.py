"""Where the time of `check --quick` goes, on a machine with 500 installed distributions.

    python benchmarks/quick.py [-n 9] [-o benchmarks/results/quick.json]

The machine is simulated (tests/machines) and judged below its root. Printed are the whole process, against a
bare `python -c pass`, and the slowest checks in milliseconds (medians). The bound is 20 ms for any check.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.conftest import workstation

DISTRIBUTIONS = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-n", type=int, default=9, help="counted runs")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        machine = workstation(Path(directory) / "machine")
        present = len(list(machine.path(machine.site_packages).glob("*.dist-info")))
        for number in range(DISTRIBUTIONS - present):
            machine.distribution(f"package-{number}", "1.0", ["numpy>=1.20", "requests; extra == 'web'"])
        command = [sys.executable, "-m", "envdoctor", "check", "--quick", "--json"]
        command += ["--root", str(machine.root), "--python", machine.python]
        whole: list[float] = []
        bare: list[float] = []
        checks: dict[str, list[float]] = {}
        for number in range(options.n + 1):
            started = time.perf_counter()
            done = subprocess.run(command, env=machine.environment, capture_output=True, check=True)
            middle = time.perf_counter()
            subprocess.run([sys.executable, "-c", "pass"], check=True)
            if number:
                whole.append(middle - started)
                bare.append(time.perf_counter() - middle)
                for check in json.loads(done.stdout)["checks"]:
                    checks.setdefault(check["code"], []).append(check["ms"])
    slowest = sorted(((statistics.median(ms), code) for code, ms in checks.items()), reverse=True)[:8]
    result = {
        "distributions": DISTRIBUTIONS,
        "runs": options.n,
        "seconds": round(statistics.median(whole), 3),
        "ratio_to_bare_python": round(statistics.median(w / b for w, b in zip(whole, bare, strict=True)), 1),
        "slowest_checks_ms": {code: ms for ms, code in slowest},
        "bound_ms": 20,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
