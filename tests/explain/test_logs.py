"""Logs as users met them, and others after the sources: the first cause, and no red herring."""

from __future__ import annotations

import html
import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envdoctor.catalog import CONDITIONS, Severity, find
from envdoctor.checks.gpu_state import FAULTS
from envdoctor.explain.explanation import Explanation, explain
from envdoctor.explain.gpu_rules import XID_FAULTS

HERE = Path(__file__).resolve().parent
CORPUS = HERE.parents[2] / "shared" / "corpus" / "logs.jsonl"
HEALTHY = "healthy-benign-only"
# The cudart line and nothing else is answered by LIB001 as a note (CONDITIONS.md, last paragraph).
ANSWERED_AS = {"cpu-only-host-gpu-build": "missing-cuda-libs"}
RED_HERRINGS = {"LIB010", "GPU016"}
# What no log shows: they are found by looking at the machine or at another finding.
NOT_IN_LOGS = {
    *("LIB002", "LIB009", "LIB010", "LIB012", "LIB014", "THR002", "THR005"),  # files, cache, measurement
    *("ENV001", "ENV003", "PLC003", "PLC004", "PLC006", "PLG001"),  # the environment; consequences
}
needs_corpus = pytest.mark.skipif(not CORPUS.exists(), reason="the corpus of logs is not here")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def first(explanation: Explanation) -> str:
    """The name of the first cause, as the corpus has it."""
    if explanation.findings:
        return explanation.findings[0].finding.condition.name
    return HEALTHY if explanation.healthy else "nothing found"


@needs_corpus
def test_the_first_cause_is_accepted_for_97_of_100_published_logs() -> None:
    cases = rows(CORPUS)
    wrong = {
        case["id"]: first(answer)
        for case in cases
        if first(answer := explain(case["log"].encode()))
        not in {ANSWERED_AS.get(a, a) for a in case["accept"]}
    }
    assert len(cases) >= 137
    assert len(wrong) <= len(cases) * 0.03, wrong


@needs_corpus
@pytest.mark.parametrize(
    "case", [c for c in rows(CORPUS) if c["root_cause"] == HEALTHY], ids=lambda c: c["id"]
)
def test_a_published_healthy_log_has_no_error_and_no_warning(case: dict[str, Any]) -> None:
    answer = explain(case["log"].encode())
    assert answer.healthy
    assert all(e.finding.severity is Severity.NOTE for e in answer.findings)


@needs_corpus
def test_no_red_herring_is_ever_first_in_a_published_log() -> None:
    for case in rows(CORPUS):
        findings = explain(case["log"].encode()).findings
        assert not findings or findings[0].finding.code not in RED_HERRINGS, case["id"]
        assert not any("nvinfer" in e.finding.subject for e in findings), case["id"]


@needs_corpus
def test_noise_of_a_published_log_is_named() -> None:
    known = {"computation-placer-duplicate", "wsl-kernel-driver-version"}  # second names of the same lines
    for case in rows(CORPUS):
        named = {noise.kind for noise in explain(case["log"].encode()).noise}
        assert not set(case["benign"]) - named - known, case["id"]


def found_first(log: str) -> str:
    """The code of the first cause, "healthy", or "none" where nothing is known and nothing claimed."""
    answer = explain(log.encode())
    return answer.findings[0].finding.code if answer.findings else "healthy" if answer.healthy else "none"


@pytest.mark.parametrize("case", rows(HERE / "more_logs.jsonl"), ids=lambda c: c["id"])
def test_another_log_has_its_cause_first(case: dict[str, Any]) -> None:
    answer = explain(case["log"].encode())
    assert found_first(case["log"]) in case["accept"]
    assert set(case["noise"]) <= {noise.kind for noise in answer.noise}


def test_every_condition_that_a_log_can_show_has_a_log() -> None:
    cases = rows(HERE / "more_logs.jsonl")
    covered = {case["accept"][0] for case in cases}
    shown = {row.code for row in CONDITIONS if not row.code.startswith("VAL")}  # measured, not logged
    assert shown - covered - NOT_IN_LOGS == set()


def codes(log: str) -> list[str]:
    return [e.finding.code for e in explain(log.encode()).findings]


CUDNN = "E cuda_dnn.cc:329] Could not create cudnn handle: CUDNN_STATUS_INTERNAL_ERROR\n"
CUINIT = "failed call to cuInit: CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected\n"


def test_a_cudnn_status_alone_is_only_likely_a_lack_of_memory() -> None:
    answer = explain(CUDNN.encode()).findings[0]
    assert (answer.finding.code, answer.confidence.value) == ("CDN005", "likely")
    assert "CDN002" in answer.alternatives


def test_a_cudnn_status_after_out_of_memory_is_certain() -> None:
    oom = "failed to allocate 1.50G (1610612736 bytes) from device: CUDA_ERROR_OUT_OF_MEMORY: out of memory\n"
    answer = explain((oom + CUDNN).encode()).findings[0]
    assert (answer.finding.code, answer.confidence.value) == ("CDN005", "certain")


def test_the_same_cudnn_status_with_a_version_line_is_the_version() -> None:
    versions = "Loaded runtime CuDNN library: 8.5.0 but source was compiled with: 8.6.0.\n"
    assert codes(versions + CUDNN) == ["CDN002"]


def test_a_newer_cudnn_of_the_same_major_is_no_finding() -> None:
    assert codes("Loaded runtime CuDNN library: 8.9.7 but source was compiled with: 8.1.0") == []


def test_the_library_in_the_dlerror_counts_not_the_one_that_is_quoted() -> None:
    log = (
        "Could not load dynamic library 'libcusolver.so.11'; dlerror: libnvJitLink.so.12: "
        "cannot open shared object file: No such file or directory"
    )
    answer = explain(log.encode()).findings[0]
    assert answer.finding.code == "LIB008"
    assert "libnvJitLink.so.12" in answer.finding.message


def missing(*sonames: str, path: str = "") -> str:
    return "".join(
        f"Could not load dynamic library '{s}'; dlerror: {s}: cannot open shared object file: "
        f"No such file or directory{f'; LD_LIBRARY_PATH: {path}' if path else ''}\n"
        for s in sonames
    )


def test_only_cudnn_missing_is_missing_cudnn_and_several_are_missing_libraries() -> None:
    assert codes(missing("libcudnn.so.8")) == ["CDN001"]
    assert codes(missing("libcudnn.so.8", "libcublas.so.11")) == ["LIB001"]


def test_another_toolkit_on_the_path_is_a_version_mismatch() -> None:
    assert codes(missing("libcudart.so.10.1", "libcublas.so.10", path="/usr/local/cuda-9.0/lib64")) == [
        "LIB005"
    ]
    assert codes(missing("libcusolver.so.11", "libcusparse.so.11", path="/usr/local/cuda-11.8/lib64")) == [
        "LIB001"
    ]


def test_a_library_that_was_opened_later_is_not_missing() -> None:
    log = missing("libcudnn.so.8") + "Successfully opened dynamic library libcudnn.so.8\n"
    assert codes(log) == []


def test_the_cudart_line_alone_is_a_note_and_with_a_gpu_an_error() -> None:
    line = missing("libcudart.so.11.0")
    stub = "Ignore above cudart dlerror if you do not have a GPU set up on your machine.\n"
    alone = explain((line + stub).encode()).findings[0]
    assert (alone.finding.code, alone.finding.severity) == ("LIB001", Severity.NOTE)
    assert "GPU001" in alone.alternatives
    found = explain((line + stub + "Found device 0 with properties:\n").encode()).findings[0]
    assert (found.finding.code, found.finding.severity) == ("LIB001", Severity.ERROR)


def test_no_device_is_explained_by_the_variable_or_by_the_absent_module() -> None:
    assert codes(CUINIT) == ["DRV009"]
    assert codes(CUINIT + 'env: CUDA_VISIBLE_DEVICES="-1"')[0] == "GPU002"
    assert codes(CUINIT + 'env: CUDA_VISIBLE_DEVICES="0,1"') == ["DRV009"]
    assert codes(CUINIT + "/proc/driver/nvidia/version does not exist")[0] == "DRV002"


def test_unequal_driver_versions_explain_what_cuinit_says() -> None:
    log = (
        "failed call to cuInit: CUDA_ERROR_UNKNOWN: unknown error\nlibcuda reported version is: 550.90.7\n"
        "kernel reported version is: 550.54.15\n"
    )
    answer = explain(log.encode())
    assert [e.finding.code for e in answer.findings] == ["DRV003", "DRV010"]
    assert answer.findings[1].because == (0,)
    assert codes(log.replace("550.90.7", "550.54.15.0")) == ["DRV010"]


def test_a_capability_tells_a_gpu_that_is_too_new_from_one_that_is_too_old() -> None:
    error = "CUDA error: no kernel image is available for execution on the device\n"
    assert codes(error + "name: RTX 5080, compute capability: 12.0") == ["GPU005"]
    assert codes(error + "name: Tesla K80, compute capability: 3.7") == ["GPU003"]


def test_a_program_s_xid_is_no_hardware_fault() -> None:
    assert codes("NVRM: Xid (PCI:0000:01:00): 79, pid=1") == ["GPU007"]
    assert codes("NVRM: Xid (PCI:0000:01:00): 31, pid=1") == []


def test_a_link_s_xid_is_a_fault_where_it_says_so_and_a_recovery_where_one_is_asked_for() -> None:
    link = "NVRM: Xid (PCI:0018:01:00): 145, RLW_RXPIPE {} XC0 i0 Link 13 (0x0409a0c2 0x00000008)"
    assert codes(link.format("Fatal")) == ["GPU007"]
    assert codes(link.format("Nonfatal")) == []
    action = "NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from {} to {}"
    assert codes(action.format("0x0 (None)", "0x1 (GPU Reset Required)")) == ["GPU007"]
    assert codes(action.format("0x1 (GPU Reset Required)", "0x0 (None)")) == []


def test_the_log_and_the_checks_call_the_same_xids_faults() -> None:
    assert set(FAULTS) <= XID_FAULTS


def test_the_number_of_an_older_runtime_means_what_it_meant_then() -> None:
    assert codes("RuntimeError: cuda runtime error (30) : unknown error at THCGeneral.cpp:50") == ["DRV010"]
    assert codes("RuntimeError: cuda runtime error (38) : at THCGeneral.cpp:51") == ["DRV009"]


def test_a_unique_fault_after_thousands_of_lines_of_its_kind_is_found() -> None:
    flood = "NVRM: Xid (PCI:0000:01:00): 31, pid=1, Ch 00000008\n" * 5000
    answer = explain((flood + "NVRM: Xid (PCI:0000:01:00): 79, pid=1, Ch 00000008\n").encode())
    assert [e.finding.code for e in answer.findings] == ["GPU007"]
    assert answer.findings[0].lines == (5001,)


def test_a_message_is_read_across_wrapped_and_quoted_lines() -> None:
    assert codes("> CUDA_ERROR: forward\n> compatibility was attempted on non supported HW") == ["DRV012"]


def test_an_error_that_is_not_known_is_neither_healthy_nor_a_finding() -> None:
    answer = explain(b"Traceback (most recent call last):\nZeroDivisionError: division by zero\n")
    assert not answer.findings
    assert not answer.healthy
    assert [line for line, _ in answer.unexplained] == [2]


def test_text_without_anything_known_is_not_called_healthy() -> None:
    assert not explain(b"hello\nworld\n").healthy


def test_repair_is_the_one_of_the_framework_that_printed_the_log() -> None:
    log = (
        "torch/lib/libcusparse.so.12: undefined symbol: __nvJitLinkComplete_12_4, version libnvJitLink.so.12"
    )
    finding = explain(log.encode()).findings[0].finding
    assert finding.framework == "torch"
    assert "tensorflow" not in finding.remedy


def test_every_name_in_the_logs_beside_this_is_in_the_catalogue() -> None:
    for case in rows(HERE / "more_logs.jsonl"):
        assert all(code in {"healthy", "none"} or find(code) for code in case["accept"]), case["id"]


def wrapped(log: str, width: int) -> str:
    """Each line broken at spaces, as mail and documentation do it; indents kept."""
    lines = []
    for line in log.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        lines += textwrap.wrap(
            line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        ) or [""]
    return "\n".join(lines)


# How people bring a log: the message stays the same.
QUOTED: dict[str, Callable[[str], str]] = {
    "as a comment": lambda log: "".join(f"# {line}\n" for line in log.split("\n")),
    "as a quotation": lambda log: "".join(f"> {line}\n" for line in log.split("\n")),
    "in a notebook's output": lambda log: "".join(f"    {line}\n" for line in log.split("\n")),
    "in prose": lambda log: f"Since this morning it stops on our node with `{log}` and I tried it twice.",
    "in Chinese prose": lambda log: (
        f"\u8fd0\u884c\u65f6\u62a5\u9519\uff1a`{log}`\uff0c\u5982\u4f55\u89e3\u51b3\uff1f"
    ),
    "in a table": lambda log: "| 3 | " + log.replace("\n", "<br>") + " | open |",
    "by Compose": lambda log: "\n".join(f"trainer-1  | {line}" for line in log.split("\n")),
    "by the kernel's journal": lambda log: "\n".join(
        f"May 03 10:11:12 box run.sh[77]: {line}" for line in log.split("\n")
    ),
    "by a pod with times": lambda log: "\n".join(
        f"2024-05-03T10:11:12.123456789Z stderr F {line}" for line in log.split("\n")
    ),
    "escaped for a page": lambda log: html.escape(log).replace("&#x27;", "&#39;"),
    "with Windows' line ends": lambda log: log.replace("\n", "\r\n"),
    "as a string of JSON": lambda log: json.dumps({"msg": log}, ensure_ascii=False),
    "wrapped": lambda log: wrapped(log, 72),
    "wrapped in a comment": lambda log: "".join(f"# {line}\n" for line in wrapped(log, 76).split("\n")),
    "between other lines": lambda log: "Epoch 1/3\n" + "step 1 loss 0.5\n" * 50 + log + "\nbye\n",
}


@pytest.mark.parametrize("way", QUOTED)
def test_a_log_has_the_same_first_cause_however_it_is_quoted(way: str) -> None:
    cases = rows(HERE / "more_logs.jsonl")[::2]
    wrong = {c["id"]: f for c in cases if (f := found_first(QUOTED[way](c["log"]))) not in c["accept"]}
    assert len(wrong) <= len(cases) * 0.02, wrong
