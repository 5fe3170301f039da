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
from envdoctor.explain.scan import BLOCK
from envdoctor.report.explain_text import render_page
from envdoctor.report.terminal import Terminal
from tests.test_cli import valid

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


def answer(*arguments: str, given: bytes = b"", kind: str = "explain") -> tuple[int, Any]:
    done = run(*arguments, "--json", given=given)
    assert done.stdout, done.stderr
    return done.returncode, valid(done.stdout.decode(), kind)


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


@pytest.mark.parametrize(
    ("what", "nearest"),
    [
        ("LIB999", "LIB009"),
        ("lib2", "LIB002"),
        ("missing-cudn", "missing-cudnn"),
        ("cudnn", "missing-cudnn"),
        ("train.log", "envdoctor check --list-checks"),
    ],
)
def test_what_is_unknown_is_refused_with_the_nearest(what: str, nearest: str) -> None:
    refused(run(what), f"{what} is no file", nearest)


def test_of_a_gzip_file_that_was_cut_what_is_there_is_read_and_the_cut_is_said() -> None:
    rest = os.urandom(4096).hex().encode()
    done = run("-", "--json", given=gzip.compress(LOG.encode() + rest)[:-1000])
    assert done.returncode == 1
    assert json.loads(done.stdout)["findings"][0]["code"] == "CDN001"
    assert done.stderr.decode().splitlines() == [
        "envdoctor: standard input is a truncated gzip file; what there is of it was read"
    ]
    assert run("-", given=gzip.compress(LOG.encode())).stderr == b""


def test_a_single_line_of_200_megabytes_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "line.log"
    with path.open("wb") as file:
        for number in range(150):
            file.write((b'{"loss": %d, "note": "all is well"}, ' % number * 30000)[: 1 << 20])
        file.write(b"RuntimeError: No CUDA GPUs are available")
        for _ in range(50):
            file.write(b"abcdefgh" * (1 << 17))
    # VmHWM counts since the program began; ru_maxrss also what the test runner held before it was replaced
    script = (
        "import sys; from envdoctor.cli import run; run(sys.argv[1:]); "
        "print(next(x for x in open('/proc/self/status') if x.startswith('VmHWM')), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "explain", str(path), "--json"], capture_output=True, check=True
    )
    (finding,) = json.loads(done.stdout)["findings"]
    assert finding["code"] == "DRV009"
    assert "No CUDA GPUs are available" in finding["evidence"][0]["value"]  # what is shown of the line
    assert int(done.stderr.split()[1]) < 120 * 1024  # KiB; 44 MiB were seen


@pytest.mark.parametrize(
    ("first", "second"),
    [(b"RuntimeError: No CUDA", b"GPUs are available"), (b"RuntimeError: No CUDA GPUs are", b"available")],
    ids=["its word after the edge", "its word before the edge"],
)
def test_a_message_that_wraps_over_the_edge_of_a_block_is_found_at_its_line(
    first: bytes, second: bytes
) -> None:
    filler = b"epoch: all is well so far\n"
    before = filler * (BLOCK // len(filler) - 9)
    before = b"." * (BLOCK - len(before) - len(first) - 2) + b"\n" + before  # the edge is after `first`
    text = before + first + b"\n" + second + b"\n" + filler * 9
    assert len(before + first) + 1 == BLOCK
    _, said = answer("-", given=text)
    assert [f["code"] for f in said["findings"]] == ["DRV009"]
    assert said["findings"][0]["lines"] == [before.count(b"\n") + 1]


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
    lines = by_code.stdout.decode().splitlines()
    for command in (*row.see, *(c for repair in row.repairs for c in repair.commands)):
        assert f"    {command}" in lines  # whole, and alone: it can be copied


@pytest.mark.parametrize("row", CONDITIONS, ids=lambda r: r.code)
def test_a_page_has_no_prose_wider_than_the_terminal_and_no_markdown(
    row: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    prose = [
        line
        for line in render_page(row, Terminal(colour=False)).splitlines()[1:]
        if not line.startswith("    ")
    ]
    assert max(map(len, prose)) <= 72
    assert not [line for line in prose if line.startswith(("#", "- ", "```")) or "**" in line or "](" in line]
    painted = render_page(row, Terminal(colour=True))
    assert not [line for line in painted.splitlines() if "`" in line and not line.startswith("    ")]


def test_a_page_as_json_is_the_page_of_the_documentation() -> None:
    code, said = answer("LIB002", kind="explain_page")
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
