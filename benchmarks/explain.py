"""How fast `explain` reads a long log, against `grep -E -c` with the same patterns, in one run.

    python benchmarks/explain.py [-n 3] [--megabytes 300] [-o benchmarks/results/explain.json]

The log is made once: a healthy start of TensorFlow, then progress lines of training, steps with hashes and
times, data-loader messages, warnings, and here and there a line that some signature knows. grep gets every
pattern of every signature, translated to POSIX (groups without names, [0-9] for \\d …), in the C locale and
ignoring case as `explain` does. Peak memory is of the reading child. The bounds: 100 MB/s, 3 times grep.
A second log has no two lines of one shape, which is the worst case: made-up words, a tenth of the size.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from envdoctor.explain.cuda_errors import error_texts
from envdoctor.explain.signatures import all_signatures

START = """\
2024-04-17 18:08:39.647720: E external/local_xla/xla/stream_executor/cuda/cuda_dnn.cc:9261] Unable to \
register cuDNN factory: Attempting to register factory for plugin cuDNN when one has already been registered
2024-04-17 18:08:39.652923: I tensorflow/core/platform/cpu_feature_guard.cc:182] This TensorFlow binary is \
optimized to use available CPU instructions in performance-critical operations.
"""
RARE = """\
W tensorflow/core/common_runtime/bfc_allocator.cc:485] Allocator (GPU_0_bfc) ran out of memory trying to \
allocate 2.20GiB (rounded to 2362232064) requested by op
I0000 00:00:1775118342.960447  222489 cuda_dnn.cc:529] Loaded cuDNN version 90300
""".splitlines()
READ = "import sys; from envdoctor.__main__ import main; sys.argv = ['envdoctor', 'explain', {0!r}]; main()"


def make_log(path: Path, size: int) -> None:
    """A log of about this many bytes, the same at every call."""
    chance = random.Random(7)
    with path.open("w") as file:
        file.write(START)
        step = 0
        while file.tell() < size:
            lines = []
            for _ in range(2000):
                step += 1
                bar = f"{'=' * (step % 30)}>{'.' * (29 - step % 30)}"
                loss, accuracy = chance.random(), chance.random()
                lines.append(
                    f"{step % 1875}/1875 [{bar}] - ETA: {step % 60}s - loss: {loss:.4f} - {accuracy:.4f}"
                )
                if step % 10 == 0:
                    at = f"2024-04-17 18:{step % 60:02}:12,{step % 1000:03} INFO trainer.py:{step % 300}"
                    lines.append(f"{at} step={step} lr={loss:.3e} sample={chance.getrandbits(64):016x}")
                if step % 50 == 0:
                    shard = f"shard-{step:07}.tar in {step % 90} ms"
                    lines.append(f"[rank{step % 8}] INFO dataloader: worker {step % 16} {shard}")
                if step % 20000 == 0:
                    lines.append(RARE[step // 20000 % len(RARE)])
            file.write("\n".join(lines) + "\n")


def make_unlike(path: Path, size: int) -> None:
    """Lines of which no two are alike, the same at every call."""
    chance = random.Random(7)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 10))) for _ in range(20000)]
    with path.open("w") as file:
        while file.tell() < size:
            lines = (" ".join(chance.choices(words, k=chance.randint(4, 20))) for _ in range(2000))
            file.write("\n".join(lines) + "\n")


def posix_patterns() -> list[str]:
    """The signatures' patterns as grep -E takes them."""
    texts = "|".join(re.escape(text).replace("\\ ", " ") for text in error_texts())
    found = []
    for signature in all_signatures():
        for pattern in signature.patterns:
            text = pattern.replace("@texts", texts)
            text = re.sub(r"\(\?P<\w+>", "(", text)
            text = re.sub(r"\(\?P=\w+\)", "[0-9]+", text)
            text = re.sub(r"\(\?(?:-i)?:", "(", text)
            text = re.sub(r"\(\?<?[!=](?:[^()]|\([^()]*\))*\)", "", text)  # no look-around
            text = re.sub(r"([*+?}])\?", r"\1", text)  # no lazy repetition
            text = text.replace(r"[^\n]", ".").replace(r"\d", "[0-9]").replace(r"\t", " ")
            text = re.sub(r"\[([^\]]*)\]", _class, text)
            found.append(text.replace("(|", "(").replace("()", ""))
    return [text for text in found if _accepted(text)]


def _class(match: re.Match[str]) -> str:
    inside = (
        match[1].replace(r"\w", "A-Za-z0-9_").replace(r"\s", " ").replace(r"\n", "").replace("[0-9", "0-9")
    )
    inside = inside.replace("\\", "")
    if "-" in inside[1:-1] and not re.search(r"\w-\w", inside):
        inside = inside.replace("-", "") + "-"
    return f"[{inside}]"


def _accepted(pattern: str) -> bool:
    done = subprocess.run(["grep", "-E", "-c", pattern], input=b"x\n", capture_output=True, check=False)
    return done.returncode < 2


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-n", type=int, default=3, help="counted runs")
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="envdoctor-explain-")
    try:
        result = measure(Path(directory), options.megabytes, options.n)
    finally:
        shutil.rmtree(directory)
    text = json.dumps(result, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def measure(directory: Path, megabytes: int, runs: int) -> dict[str, object]:
    log, unlike, patterns = directory / "long.log", directory / "unlike.log", directory / "patterns"
    make_log(log, megabytes * 10**6)
    make_unlike(unlike, megabytes * 10**5)
    accepted = posix_patterns()
    patterns.write_text("\n".join(accepted) + "\n")
    used = _children_seconds()
    _read(unlike)
    worst = unlike.stat().st_size / 1e6 / (_children_seconds() - used)
    size = log.stat().st_size / 1e6
    ours: list[float] = []
    greps: list[float] = []
    our_cpu: list[float] = []
    grep_cpu: list[float] = []
    for number in range(runs + 1):
        started, used = time.perf_counter(), _children_seconds()
        _read(log)
        middle, used_middle = time.perf_counter(), _children_seconds()
        subprocess.run(
            ["grep", "-E", "-i", "-c", "-f", str(patterns), str(log)],
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            capture_output=True,  # grep stops at the first match where its output goes to /dev/null
            check=True,
        )
        if number:
            ours.append(middle - started)
            greps.append(time.perf_counter() - middle)
            our_cpu.append(used_middle - used)
            grep_cpu.append(_children_seconds() - used_middle)
    return {
        "megabytes": round(size),
        "runs": runs,
        "patterns": sum(len(s.patterns) for s in all_signatures()),
        "patterns_that_grep_takes": len(accepted),
        "explain_mb_per_s": round(size / statistics.median(ours)),
        "grep_mb_per_s": round(size / statistics.median(greps)),
        "times_grep": round(statistics.median(o / g for o, g in zip(ours, greps, strict=True)), 2),
        "explain_mb_per_cpu_s": round(size / statistics.median(our_cpu)),
        "grep_mb_per_cpu_s": round(size / statistics.median(grep_cpu)),
        "explain_mb_per_cpu_s_where_no_lines_are_alike": round(worst, 1),
        "times_grep_cpu": round(statistics.median(o / g for o, g in zip(our_cpu, grep_cpu, strict=True)), 2),
        "peak_mebibytes_of_children": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        "load_average_at_the_end": os.getloadavg()[0],
        "bounds": {"explain_mb_per_s": 100, "times_grep": 3},
    }


def _read(log: Path) -> None:
    subprocess.run([sys.executable, "-c", READ.format(str(log))], stdout=subprocess.DEVNULL, check=False)


def _children_seconds() -> float:
    """CPU time, which a busy machine distorts less than time."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
