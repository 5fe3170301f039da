"""`envdoctor explain` as a user meets it: formats of input, answers, bad input, exit codes."""

from __future__ import annotations

import codecs
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from envdoctor.catalog import CONDITIONS
from envdoctor.catalog.page import render_markdown

LOG = (
    "2023-07-01 10:00:00.1: W dso_loader.cc:64] Could not load dynamic library 'libcudnn.so.8'; dlerror: "
    "libcudnn.so.8: cannot open shared object file: No such file or directory\n"
    "W gpu_device.cc:1850] Cannot dlopen some GPU libraries.\nSkipping registering GPU devices...\n"
)
HEALTHY = "W py_utils.cc:38] TF-TRT Warning: Could not find TensorRT\n"


def run(*arguments: str, given: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "envdoctor", "explain", *arguments],
        input=given,
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONPATH": os.getcwd()},
        cwd=cwd,
        capture_output=True,
        check=False,
        timeout=120,
    )


def answer(*arguments: str, given: bytes = b"") -> tuple[int, Any]:
    done = run(*arguments, "--json", given=given)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def refused(done: subprocess.CompletedProcess[bytes], *says: str) -> None:
    """One line on stderr that says so, and exit code 2."""
    assert (done.returncode, done.stdout) == (2, b"")
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1
    assert all(text in lines[0] for text in says), lines


def test_a_log_is_answered_cause_first_with_its_lines_and_exit_1(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text("epoch 1\n" + LOG)
    code, said = answer(str(log))
    assert code == 1
    assert said["healthy"] is False
    lead, effect = said["findings"]
    assert (lead["code"], lead["lines"], lead["confidence"], lead["because"]) == (
        "CDN001",
        [2],
        "certain",
        [],
    )
    assert (effect["code"], effect["because"]) == ("PLC001", [0])
    assert {a["code"] for a in lead["alternatives"]} == {"LIB002", "LIB003"}
    assert lead["remedy"]


def test_the_text_names_the_cause_the_lines_the_repair_and_what_follows() -> None:
    done = run("-", given=LOG.encode())
    text = done.stdout.decode()
    assert done.returncode == 1
    assert text.index("CDN001") < text.index("└ PLC001")
    for part in ("         1: 2023-07-01", "repair", "pip install", "LIB002", "envdoctor check"):
        assert part in text


def test_a_healthy_log_is_called_healthy_with_its_noise_and_exit_0() -> None:
    done = run("-", given=HEALTHY.encode())
    assert done.returncode == 0
    assert "healthy" in done.stdout.decode()
    assert "tensorrt-missing                 1 line" in done.stdout.decode()
    assert answer("-", given=HEALTHY.encode())[1]["noise"] == [
        {"kind": "tensorrt-missing", "lines": 1, "first": 1}
    ]


@pytest.mark.parametrize(
    "given",
    [
        codecs.BOM_UTF16_LE + LOG.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + LOG.encode("utf-16-be"),
        LOG.encode("utf-16-le"),
        codecs.BOM_UTF8 + LOG.encode(),
        gzip.compress(LOG.encode()),
        gzip.compress(LOG.encode()[:50]) + gzip.compress(LOG.encode()[50:]),
        gzip.compress(codecs.BOM_UTF16_LE + LOG.encode("utf-16-le")),
        b"caf\xe9 \xff\xfe\n" + LOG.encode() * 3,
        b"boot\n" + b"\0" * 4096 + b"\n" + LOG.encode(),
        LOG.replace("\n", "\r\n").encode(),
        "".join(f"train_1  | {line}\n" for line in LOG.splitlines()).encode(),
        "".join(f"2024-01-01T10:00:00.123Z \x1b[31m{line}\x1b[0m\n" for line in LOG.splitlines()).encode(),
        "".join(
            json.dumps({"log": line + "\n", "stream": "stderr"}) + "\n" for line in LOG.splitlines()
        ).encode(),
    ],
    ids=[
        *(
            "utf-16-le",
            "utf-16-be",
            "utf-16-without-mark",
            "utf-8-mark",
            "gzip",
            "gzip-members",
            "gzip-utf-16",
        ),
        *("latin-1", "zeros-of-a-crash", "crlf", "compose", "ci-colours", "docker-json"),
    ],
)
def test_the_same_log_in_another_format_has_the_same_cause(given: bytes) -> None:
    code, said = answer("-", given=given)
    assert code == 1
    assert [f["code"] for f in said["findings"]] == ["CDN001", "PLC001"]


def test_a_notebook_is_read_by_its_outputs_and_at_the_lines_of_its_file(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["if `RuntimeError: No CUDA GPUs are available`, ask"]},
        {
            "cell_type": "code",
            "source": ["train()"],
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["epoch 1\n"]},
                {
                    "output_type": "error",
                    "ename": "AssertionError",
                    "evalue": "Torch not compiled with CUDA enabled",
                    "traceback": [
                        "\x1b[0;31mAssertionError\x1b[0m: Torch \x1b[1mnot\x1b[0m compiled\nwith CUDA enabled"
                    ],
                },
            ],
        },
    ]
    text = json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5}, indent=1)
    notebook = tmp_path / "a.ipynb"
    notebook.write_text(text)
    _, said = answer(str(notebook))
    assert [f["code"] for f in said["findings"]] == ["PKG002"]
    wanted = next(
        n for n, line in enumerate(text.splitlines(), 1) if "with CUDA enabled" in line and "[0;31m" in line
    )
    assert said["findings"][0]["lines"][0] == wanted


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\x7fELF\x02\x01\x01" + bytes(100), "ELF"),
        (bytes(range(256)) * 40, "binary file"),
        (b"PK\x03\x04" + bytes(50), "zip archive"),
        (gzip.compress(LOG.encode())[:30] + b"\xff" * 400, "damaged gzip"),
    ],
    ids=["empty", "blank", "elf", "binary", "zip", "damaged-gzip"],
)
def test_what_is_no_log_is_refused_in_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "input"
    path.write_bytes(content)
    refused(run(str(path)), str(path), says, "expected")


def test_a_directory_a_missing_file_and_an_unreadable_one_are_refused(tmp_path: Path) -> None:
    refused(run(str(tmp_path)), "is a directory")
    refused(run(str(tmp_path / "no.log")), "no.log", "no code or name")
    refused(run("LIB001", "--python", "python3"), "--check")


def test_an_unknown_code_is_refused_with_the_nearest() -> None:
    refused(run("LIB999"), "LIB999", "LIB009")
    refused(run("missing-cudn"), "missing-cudnn")


def test_names_with_control_characters_are_not_echoed_raw(tmp_path: Path) -> None:
    done = run("evil\x1b[2Jname")
    assert done.returncode == 2
    assert b"\x1b" not in done.stderr
    path = tmp_path / "evil\x1b[2J.log"
    path.write_bytes(b"RuntimeError: \x1b]0;owned\x07No CUDA GPUs are available \x9b\x07\n")
    done = run(str(path))
    assert done.returncode == 1
    assert b"\x1b" not in done.stdout
    assert b"\x07" not in done.stdout


@pytest.mark.parametrize("row", CONDITIONS[::25], ids=lambda r: r.code)
def test_a_code_and_a_name_show_the_page_with_every_command(row: Any) -> None:
    by_code, by_name = run(row.code.lower()), run(row.name)
    assert by_code.returncode == 0
    assert by_code.stdout == by_name.stdout
    text = by_code.stdout.decode()
    for command in (*row.see, *(c for repair in row.repairs for c in repair.commands)):
        assert all(line in text for line in command.splitlines())


def test_a_page_as_json_is_the_page_of_the_documentation() -> None:
    code, said = answer("LIB002")
    assert code == 0
    row = next(r for r in CONDITIONS if r.code == "LIB002")
    assert said["page"] == render_markdown(row)
    assert said["condition"]["name"] == row.name


def test_a_file_wins_over_a_code_of_the_same_name_and_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "LIB002").write_text(HEALTHY)
    done = run("LIB002", cwd=tmp_path)
    assert done.returncode == 0
    assert b"is a file here" in done.stderr
    assert b"healthy" in done.stdout


def test_with_the_machine_at_hand_what_does_not_hold_is_past(tmp_path: Path) -> None:
    """Hiding is judged by the environment alone, which says the opposite of the log."""
    log = tmp_path / "old.log"
    log.write_text(
        "failed call to cuInit: CUDA_ERROR_NO_DEVICE: no CUDA-capable device\n"
        'env: CUDA_VISIBLE_DEVICES="-1"\n'
    )
    code, said = answer(str(log), "--check")
    lead = said["findings"][0]
    assert lead["code"] == "GPU002"
    assert lead["status"] in {"past", "not judged"}
    assert code == (0 if all(f["status"] == "past" for f in said["findings"]) else 1)
