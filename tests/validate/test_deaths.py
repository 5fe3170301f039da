"""What a worker said before it died names the cause, with its repair."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from envdoctor.catalog import find
from envdoctor.validate.judge import Gates, Outcome, Result, judge
from envdoctor.validate.protocol import Failed
from envdoctor.validate.recording import Ending, Recording
from tests.validate.in_target import TOP
from tests.validate.test_judge import NETWORK, codes, cpu, evidence, gpu, recorded, text_of, training

CORPUS = TOP.parent / "shared" / "corpus" / "logs.jsonl"
REAL = Path(__file__).parents[1] / "explain" / "real"


def published(name: str) -> str:
    if not CORPUS.exists():
        pytest.skip("the published logs are not beside this checkout")
    with CORPUS.open() as lines:
        log: str = next(case["log"] for case in map(json.loads, lines) if case["id"] == name)
    return log


def dead(label: str, stderr: str, *, error: str = "", kind: str = "error") -> Recording:
    """A training that died in its third epoch; `error`: what it raised."""
    failed = [Failed(at=30.0, step="training", kind=kind, error=error, trace="")] if error else []
    ending = Ending.FAILED if error else Ending.DIED
    return recorded(label, [*training()[:-3], *failed], ending=ending, stderr=stderr, detail="SIGABRT")


@pytest.mark.parametrize(
    ("log", "names"),
    [
        ("gh-59314402148", "gpu-memory-held-by-other-process"),
        ("gh-66828001588", "gpu-out-of-memory"),
        ("gh-23887070641", "libdevice-not-found"),
        ("gh-61394231825", "libdevice-not-found"),
        ("gh-43420751348", "gpu-too-new-unsupported"),
        ("gh-66894695468", "gpu-too-new-unsupported"),
        ("gh-30277912881", "cudnn-version-too-old"),
    ],
)
def test_a_death_on_the_gpu_follows_from_the_cause_in_its_last_words(
    log: str, names: str, tmp_path: Path
) -> None:
    result = judge(NETWORK, [dead("GPU", published(log)), cpu()], Gates())
    named = find(names)
    assert named is not None
    assert codes(result) == [named.code, "VAL001"]
    root, death = result.findings
    assert (root.because, death.because) == ((), (0,))
    assert root.finding.remedy
    assert root.finding.framework == "tensorflow"
    text = text_of(result, tmp_path)
    assert f"TensorFlow 2.21.0: the training died: {root.finding.condition.title} ({named.code})" in text
    assert root.finding.remedy in text
    assert f"VAL001  {death.finding.message}" in text
    assert "after 2 of 3 epochs" in text


def test_what_was_raised_is_read_like_stderr() -> None:
    raised = "InternalError: libdevice not found at ./libdevice.10.bc [Op:__some_op]"
    result = judge(NETWORK, [dead("GPU", "", error=raised), cpu()], Gates())
    assert codes(result) == ["XLA001", "VAL001"]


def test_memory_that_ran_out_follows_from_its_cause_too() -> None:
    oom = dead("GPU", "", error="ResourceExhaustedError: " + OOM, kind="memory")
    result = judge(NETWORK, [oom, cpu()], Gates())
    assert codes(result) == ["GPU015", "VAL002"]
    assert "GPU006" in evidence(result)  # what the log cannot tell from it


OOM = "OOM when allocating tensor with shape[4096,26,26,32] on device:GPU:0 by allocator GPU_0_bfc"


@pytest.mark.parametrize("log", ["hidden.log", "cuinit-100.log", "no-libcuda.log", "libraries-missing.log"])
def test_complaints_of_gpus_explain_no_death_on_the_cpu_from_which_they_were_hidden(log: str) -> None:
    stderr = (REAL / log).read_text()
    assert codes(judge(NETWORK, [dead("CPU", stderr)], Gates())) == ["VAL001"]


def test_what_kills_no_training_is_not_made_the_cause_of_its_death() -> None:
    hidden = dead("GPU", (REAL / "hidden.log").read_text())  # GPU002: nothing could have been trained
    assert codes(judge(NETWORK, [hidden, cpu()], Gates())) == ["VAL001"]


def test_a_death_on_the_cpu_has_causes_of_its_own() -> None:
    stderr = (REAL / "hidden.log").read_text()
    threads = "OpenBLAS blas_thread_init: pthread_create failed: Resource temporarily unavailable"
    assert codes(judge(NETWORK, [dead("CPU", threads)], Gates())) == ["THR003", "VAL001"]
    missing = "ImportError: libcudnn.so.9: cannot open shared object file: No such file or directory"
    assert codes(judge(NETWORK, [dead("CPU", stderr, error=missing)], Gates())) == ["CDN001", "VAL001"]


def test_a_death_that_nothing_explains_shows_its_last_lines_and_where_to_go_on() -> None:
    result = judge(NETWORK, [dead("GPU", "Segmentation fault"), cpu()], Gates())
    assert codes(result) == ["VAL001"]
    assert "Segmentation fault" in evidence(result)
    assert result.findings[0].finding.remedy == "envdoctor check"


def test_a_training_that_lived_is_not_explained() -> None:
    lived = replace(gpu(), stderr=published("gh-23887070641"))
    result: Result = judge(NETWORK, [lived, cpu()], Gates())
    assert (result.outcome, codes(result)) == (Outcome.PASSED, [])
