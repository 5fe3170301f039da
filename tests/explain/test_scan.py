"""Any bytes, in any chunks: the same answer, no exception, no control character shown, bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from envdoctor.explain.explanation import explain
from envdoctor.explain.scan import BLOCK, scan
from envdoctor.report.explain_text import render_explanation
from envdoctor.report.terminal import Terminal

LOGS = [
    json.loads(line)["log"].encode()
    for line in (Path(__file__).resolve().parent / "more_logs.jsonl").read_text().splitlines()
]
MISSING = b"Could not load library libcudnn.so.9 OOM CUDA_ERROR_NO_DEVICE \x1b[31mcuInit\x1b[0m"
pieces = st.lists(
    st.one_of(st.binary(max_size=60), st.sampled_from([*LOGS, MISSING, b"\r", b"\n"])), max_size=8
)


@settings(deadline=None, max_examples=150)
@given(pieces)
def test_any_bytes_are_answered_and_no_control_character_is_shown(parts: list[bytes]) -> None:
    answer = explain(b"".join(parts))
    said = [v.value for e in answer.findings for v in e.finding.evidence]
    said += [e.finding.message for e in answer.findings] + [line for _, line in answer.unexplained]
    assert not [c for line in said for c in line if ord(c) < 32 and c != "\t"]
    text = render_explanation(answer, "a\x1blog", Terminal(colour=False))
    assert not [c for c in text if c not in "\n\t" and (ord(c) < 32 or 127 <= ord(c) < 160)]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from(LOGS), min_size=1, max_size=4), st.data())
def test_where_the_input_is_cut_makes_no_difference(parts: list[bytes], data: st.DataObject) -> None:
    text = b"\n".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert explain(chunks) == explain(text)


def test_cuts_around_the_block_make_no_difference() -> None:
    text = b"step 1 of 9\n" * (BLOCK // 12) + LOGS[0] + b"\n" + b"x\n" * BLOCK + LOGS[30]
    whole = explain(text)
    assert whole.findings
    for size in (4097, BLOCK - 1, BLOCK + 1):
        assert explain(text[i : i + size] for i in range(0, len(text), size)) == whole


def test_a_line_is_found_at_its_number_whatever_ends_the_lines_before() -> None:
    line = b"RuntimeError: No CUDA GPUs are available"
    assert explain(b"a\r\nb\r\n" + line).findings[0].lines == (3,)
    assert explain(b"1/9\r2/9\r3/9\n" + line).findings[0].lines == (2,)


def test_colours_and_titles_do_not_hide_a_message() -> None:
    text = b"\x1b[1;31mRuntimeError\x1b[0m: No \x1b[4mCUDA\x1b[0m GPUs are\x1b]0;title\x07 available"
    assert explain(text).findings[0].finding.code == "DRV009"


def test_a_single_line_of_many_blocks_is_read_in_pieces_also_at_their_edges() -> None:
    message = b" libcudnn.so.8: cannot open shared object file: No such file or directory "
    for start in (BLOCK - 30, BLOCK - 1024 - 30, 8192 - 30, 5 * BLOCK):
        text = b"x" * start + message + b"y" * (2 * BLOCK)
        answer = explain(text)
        assert [e.finding.code for e in answer.findings] == ["CDN001"], start
        assert answer.findings[0].lines == (1,)


def test_many_lines_of_one_kind_are_all_counted() -> None:
    line = b"2024-01-01 00:00:%02d: I cuda_dnn.cc:369] Loaded cuDNN version 8101\n"
    count = 2 * BLOCK // len(line)  # lines wait at the edge of a block, and are counted once
    noise = explain(b"".join(line % (n % 60) for n in range(count))).noise
    assert [(n.kind, n.lines, n.first) for n in noise] == [("cudnn-loaded", count, 1)]


def test_memory_is_bounded_where_no_two_lines_are_alike() -> None:
    words = [bytes([a, b, c]) for a in b"ghijklmn" for b in b"opqrstuv" for c in b"wxyzghij"]

    def lines() -> Iterator[bytes]:
        for a in words[:250]:
            yield b"".join(a + b"-" + b + b" " + b * 20 + b" error gpu\n" for b in words)

    tracemalloc.start()
    try:
        scan(lines())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 * 2**20
