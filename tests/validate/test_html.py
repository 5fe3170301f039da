"""The HTML report: complete, of the same numbers as the JSON, loading nothing, naming nobody."""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from envdoctor.facts.model import Facts
from envdoctor.facts.unavailable import Unavailable
from envdoctor.report.html import Conduct, render_html
from envdoctor.report.validate_json import result_document
from envdoctor.validate.judge import Gates, Result, judge
from envdoctor.validate.protocol import Activations, Built, Failed, Halved, NumpyEpoch
from envdoctor.validate.recording import Ending, GpuSample
from tests.conftest import needs_overlay
from tests.test_cli import assert_bad_usage, doctor, valid
from tests.validate.fake_framework import fake_target, workers_of
from tests.validate.in_target import DIGITS, python
from tests.validate.test_judge import NETWORK, cpu, facts_of, gpu, numerics, recorded, training

pytest.importorskip("matplotlib")

SECTIONS = [
    *("verdict", "machine", "network", "devices", "speed", "curves", "telemetry", "activations"),
    *("numerics", "threads", "numpy", "findings", "conduct"),
]
CONDUCT = Conduct(
    command="envdoctor validate --data /home/alice/digits.npz",
    began="2026-11-22 08:00:00 UTC",
    seconds=61.25,
    seed=20,
)
LOADING = {"src", "href", "srcset", "data", "action", "poster", "background", "ping", "formaction"}
RUNNING = {"script", "iframe", "object", "embed", "link", "base", "form", "audio", "video", "foreignobject"}


class Page(HTMLParser):
    """What a browser would make of it: tags, addresses, the words and the rows of each section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: dict[str, str] = {}
        self.rows: dict[str, list[list[str]]] = {}
        self._section = ""
        self._in_style = self._in_cell = False
        self.feed(text)
        self.close()
        self.raw = text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        self._in_style = tag == "style"
        if tag in {"section", "header"}:
            self._section = found["id"] or ""
        if tag == "tr":
            self.rows.setdefault(self._section, []).append([])
        if tag in {"td", "th"}:
            self._in_cell = True
            self.rows[self._section][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False
        self._in_cell = self._in_cell and tag not in {"td", "th"}

    def handle_data(self, data: str) -> None:
        if self._in_style:
            return
        self.words[self._section] = self.words.get(self._section, "") + data
        if self._in_cell:
            self.rows[self._section][-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(self.words.values())

    def named(self, name: str) -> list[str]:
        """Every value of an attribute."""
        return [value or "" for _, attrs in self.tags for key, value in attrs.items() if key == name]


def maps(**changed: Any) -> Activations:
    one = {"layer": "conv2d_1", "shape": [3, 2, 2], "bytes": base64.b64encode(bytes(range(12))).decode()}
    image = base64.b64encode(bytes(784)).decode()
    return Activations(at=80.0, label=7, image=image, maps=({**one, **changed},))


def samples() -> tuple[GpuSample, ...]:
    return tuple(
        GpuSample(
            at=second / 5,
            index=0,
            utilisation=min(93, second * 3),
            memory_bytes=(1 << 30) + (second << 20),
            power_w=None if second == 3 else 80.5 + second,
            temperature_c=41 + second // 9,
        )
        for second in range(60)
    )


def failing() -> Result:
    """A GPU too slow for its gate, with telemetry; two batch sizes; NumPy timed; digits mapped."""
    sizes = (64, 512)
    on_gpu = recorded(
        "GPU",
        [
            *training(64, (3.0, 0.2, 0.1), accuracy=0.9812),
            *training(512, (3.0, 0.4, 0.1), begins=20.0, accuracy=0.9755),
            numerics(),
        ],
        batch_sizes=sizes,
        telemetry=samples(),
    )
    on_cpu = recorded(
        "CPU",
        [
            *training(64, on="CPU:0", accuracy=0.9809),
            maps(),
            *training(512, begins=20.0, on="CPU:0"),
            numerics(dense_1=3.21e-5),
            NumpyEpoch(at=95.0, dtype="float32", epoch_seconds=12.34, images=640, complete=False),
        ],
        batch_sizes=sizes,
    )
    return judge(NETWORK, [on_gpu, on_cpu], Gates(min_speedup=20))


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """Of a machine whose host and user have names."""
    found = facts_of(tmp_path_factory.mktemp("facts"), cpus=8, quota=4)
    host = replace(found.host, hostname="node17.cluster.example")
    return replace(found, host=host, environment={"HOME": "/data/people/bob", "USER": "carol"})


def page_of(facts: Facts, result: Result) -> Page:
    return Page(render_html(facts, result, CONDUCT))


@pytest.fixture(scope="module")
def page(facts: Facts) -> Page:
    return page_of(facts, failing())


def test_every_section_is_there_once_and_in_order_also_where_nothing_was_measured(
    facts: Facts, page: Page
) -> None:
    died = recorded("CPU", [], ending=Ending.DIED, detail="SIGKILL")
    empty = page_of(facts, judge(NETWORK, [died], Gates()))
    for one in (page, empty):
        assert [name for name in one.named("id") if name in SECTIONS] == SECTIONS
        assert all(one.words[name].strip() for name in SECTIONS)
    assert "Nothing was trained" in empty.words["devices"]


def test_it_loads_nothing_and_runs_nothing(page: Page) -> None:
    assert not {tag for tag, _ in page.tags} & RUNNING
    attributes = {(name, value or "") for _, attrs in page.tags for name, value in attrs.items()}
    assert not [name for name, _ in attributes if name.startswith("on")]
    addresses = {value for name, value in attributes if name in LOADING}
    assert any(value.startswith("data:image/png;base64,") for value in addresses)
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in addresses)
    assert not re.search(r"https?:|//[a-z]|@import", re.sub(r'"data:[^"]*"', "", page.raw))
    assert all(found == "#" for found in re.findall(r"url\((.)", page.raw))
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in attributes


def test_names_within_the_charts_are_unique_and_found(page: Page) -> None:
    names = page.named("id")
    assert len(names) == len(set(names))
    asked = {value[1:] for value in page.named("href")} | set(re.findall(r"url\(#([^)]*)\)", page.raw))
    assert asked
    assert asked <= set(names)


def test_neither_host_nor_user_nor_home_is_named(facts: Facts) -> None:
    failed = Failed(
        at=30.0,
        step="training",
        kind="error",
        error="node17 and node17.cluster.example: /data/people/bob/x, /scratch/carol/y, /root/z, /home/dan/k",
        trace='  File "/home/alice/env/keras.py", line 7, in fit\n',
    )
    words = {"words": "2,000 digits of /home/alice/digits.npz", "tried": ["/data/people/bob: empty"]}
    events = [*training()[:-3], failed]
    result = judge(NETWORK, [recorded("GPU", events, ending=Ending.FAILED)], Gates())
    result = replace(result, data=words, notes=("on node17: /home/alice",))
    page = page_of(facts, result)
    for name in ("node17", "cluster.example", "alice", "bob", "carol", "dan/", "/root", "/home"):
        assert name not in page.raw, name
    assert "(host) and (host): ~/x, /scratch/(user)/y, ~/z, ~/k" in page.text
    assert "2,000 digits of ~/digits.npz" in page.words["network"]
    assert "envdoctor validate --data ~/digits.npz" in page.words["conduct"]


def test_what_a_process_or_a_file_says_is_text_and_nothing_else(facts: Facts) -> None:
    evil = '</style><script>alert("1")</script>\x1b[31m'
    result = failing()
    rows = tuple(
        replace(
            row, device_name=evil, framework=evil, keras=evil, weights_on=evil, complete=False, ended=evil
        )
        for row in result.devices
    )
    page = page_of(
        replace(facts, host=replace(facts.host, os_name=evil)),
        replace(
            result,
            devices=rows,
            data={"words": evil},
            notes=(evil,),
            undecided=(evil,),
            numerics=tuple(
                replace(n, rows=(replace(n.rows[0], tensor=evil, device=evil),)) for n in result.numerics
            ),
        ),
    )
    assert not {tag for tag, _ in page.tags} & RUNNING
    assert "\x1b" not in page.raw
    assert page.text.count('<script>alert("1")</script>\\x1b[31m') >= 10


def test_its_numbers_are_those_of_the_json(page: Page) -> None:
    document = result_document(failing(), 61.25)
    (_, *devices) = page.rows["devices"]
    assert len(devices) == len(document["devices"]) == 4
    for cells, row in zip(devices, document["devices"], strict=True):
        assert cells[0] == row["device"]
        assert cells[1] == str(row["batch_size"])
        speed, low, high = row["images_per_s"], row["images_per_s_min"], row["images_per_s_max"]
        assert cells[2] == f"{speed:,.0f}{low:,.0f} to {high:,.0f}"
        assert cells[5] == f"{row['train_s']:.1f} s{len(row['epochs'])} epochs"
        assert cells[7] == f"{row['test_accuracy']:.2%}"
        assert f"{speed:,.0f}" in page.words["speed"]  # beside its bar
    for cells, speedup in zip(page.rows["speed"][1:], document["speedups"], strict=True):
        assert cells[1:3] == [str(speedup["batch_size"]), f"{speedup['steady']:.2f}"]
        assert cells[3] == f"{speedup['steady_min']:.2f} to {speedup['steady_max']:.2f}"
    first = document["speedup"]["steady"]
    assert f"{first:.2f}\u00d7" in page.words["verdict"]
    shown = {(cells[0], cell) for cells in page.rows["numerics"][1:] for cell in cells[1:]}
    assert len(document["numerics"]) == 6
    for row in document["numerics"]:
        assert (row["tensor"], f"{row['error']:.1e} ≤ {row['bound']:.0e}") in shown
    assert ("dense_1 output", "3.2e-05 ≤ 1e-04") in shown
    assert page.rows["numpy"][1] == ["NumPy float32", "12.3 s", "640, scaled to an epoch"]
    busy = document["devices"][0]["telemetry"]
    sampled = page.rows["telemetry"][1]
    assert sampled[2:] == [
        f"{busy['utilisation']:.0f} %",
        f"{busy['memory_bytes'] / 2**30:.1f} GiB",
        f"{busy['power_w']:.0f} W",
        f"{busy['temperature_c']} °C",
    ]


def test_a_failed_gate_leads_and_brings_its_evidence_and_repairs(page: Page) -> None:
    assert ("header", {"id": "verdict", "class": "verdict failed"}) in page.tags
    assert "VAL008: GPU is 10.00 times as fast as the CPU, expected 20 times" in page.words["verdict"]
    condition = next(one.finding for one in failing().findings if one.finding.code == "VAL008").condition
    assert condition.repairs
    assert all(r.advice in page.words["findings"] for r in condition.repairs)
    assert "from batch 64 to 512" in page.words["findings"]


def test_every_chart_is_drawn_and_described(page: Page) -> None:
    described = [attrs["aria-label"] for tag, attrs in page.tags if tag == "figure" and "role" in attrs]
    assert len(described) == 2 + 3 + 4  # speed, curves, telemetry
    assert all(described)
    drawn = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(drawn) == len(described)
    for title in ("Loss by step", "Loss by epoch", "Accuracy", "GPU busy", "Power (W)", "Temperature"):
        assert title in page.text  # text, not outlines
    assert "bound 97.00%" in page.words["curves"]
    assert page.named("alt") == ["The digit: a 7", "conv2d_1: 3 maps of 2 \u00d7 2"]
    # Its colours are the page's, light or dark; nothing is drawn in those that stand for them.
    assert "var(--series-2)" in page.raw
    assert not re.search(r"#0[0-9a-f]0[0-9a-f]0[0-9a-f]\b", page.raw)


def test_telemetry_that_is_missing_is_told_why(facts: Facts) -> None:
    silent = replace(gpu(), telemetry=Unavailable("NVMLError_LibraryNotFound: NVML Shared Library Not Found"))
    page = page_of(facts, judge(NETWORK, [silent, cpu()], Gates()))
    assert "Not available: NVMLError_LibraryNotFound" in page.words["telemetry"]
    page = page_of(facts, judge(NETWORK, [cpu()], Gates()))
    assert "no training ran on a GPU" in page.words["telemetry"]


def test_what_stands_in_for_an_accelerator_is_said_to(facts: Facts) -> None:
    page = page_of(facts, replace(failing(), stand_in=True))
    assert "stands in for an accelerator" in page.words["verdict"]


@pytest.mark.parametrize(
    "broken",
    [
        {"shape": [3, 2, 3]},
        {"shape": [0, 2, 2], "bytes": ""},
        {"bytes": "?"},
        {"layer": None},
        {"bytes": 3},
    ],
)
def test_maps_that_are_none_do_not_cost_the_report(facts: Facts, broken: dict[str, Any]) -> None:
    page = page_of(facts, replace(failing(), activations=maps(**broken)))
    assert "Maps that cannot be read" in page.words["activations"]
    assert page.named("alt") == ["The digit: a 7"]


def test_losses_that_are_not_finite_and_halved_batches_are_shown(facts: Facts) -> None:
    diverged = training(32, losses=(None, None, None), first_loss=0.0, begins=7.0)
    events = [
        *training()[:1],
        Built(at=5.5, batch_size=64, steps=16, seconds=0.5),
        Halved(at=6.0, batch_size=64, to=32, error="OOM"),
        *diverged,
    ]
    page = page_of(facts, judge(NETWORK, [recorded("GPU", events)], Gates()))
    assert page.rows["devices"][1][1] == "32 of 64"
    assert "Loss by step" not in page.text


def test_what_was_interrupted_is_called_partial(facts: Facts) -> None:
    partial = recorded("CPU", training()[:4], ending=Ending.INTERRUPTED, detail="Ctrl-C")
    page = page_of(facts, judge(NETWORK, [partial], Gates()))
    assert "Partial: interrupted" in page.words["verdict"]
    assert "is not complete: Ctrl-C" in page.words["devices"]


# --- the command ------------------------------------------------------------------------------------


def fake(tmp_path: Path, wrong: str = "") -> tuple[list[str], dict[str, str]]:
    target = fake_target(tmp_path / "fakes", wrong)
    command = [sys.executable, "-m", "envdoctor", "validate", "--cpu", "--python", target.python]
    return [*command, "--data", str(DIGITS), "--samples", "256"], dict(target.environment)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, Any, Path]:
    """A real training: the page, and the JSON that was printed with it."""
    place = tmp_path_factory.mktemp("real")
    report = place / "report.html"
    report.write_text("of last week")
    (place / "latest.html").symlink_to("report.html")
    os.umask(umask := os.umask(0))
    done = doctor(
        *("validate", "--cpu", "--python", str(python("light", package="numpy")), "--data", str(DIGITS)),
        *("--samples", "1000", "--epochs", "2", "--json", "--report", str(place / "latest.html")),
    )
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(report.stat().st_mode) == 0o666 & ~umask
    assert sorted(path.name for path in place.iterdir()) == ["latest.html", "report.html"]
    assert (place / "latest.html").is_symlink()
    return Page(report.read_text()), valid(done.stdout, "validate"), place


@pytest.mark.tensorflow
def test_the_report_of_a_real_training_agrees_with_its_json(real: tuple[Page, Any, Path]) -> None:
    page, document, _ = real
    (row,) = document["devices"]
    assert f"{row['test_accuracy']:.2%}" in page.words["verdict"]
    assert page.rows["devices"][1][2].startswith(f"{row['images_per_s']:,.0f}")
    assert len(page.rows["numerics"]) == 1 + len(document["numerics"])
    assert page.rows["numpy"][1][1] == f"{document['numpy'][0]['epoch_seconds']:.1f} s"
    assert [name for name in page.named("id") if name in SECTIONS] == SECTIONS


@pytest.mark.tensorflow
def test_each_convolution_of_the_reference_network_shows_its_maps(real: tuple[Page, Any, Path]) -> None:
    page, document, _ = real
    assert page.named("alt") == [
        f"The digit: a {document['activations']['label']}",
        "conv2d_1: 32 maps of 26 \u00d7 26",
        "conv2d_2: 64 maps of 11 \u00d7 11",
        "conv2d_3: 64 maps of 3 \u00d7 3",
    ]


@pytest.mark.tensorflow
def test_a_required_gpu_that_is_absent_is_what_the_report_says(tmp_path: Path) -> None:
    light = str(python("light", package="numpy"))
    done = doctor("validate", "--gpu", "--python", light, "--report", str(tmp_path / "r.html"))
    assert done.returncode == 1
    page = Page((tmp_path / "r.html").read_text())
    assert "GPU001" in page.words["verdict"]
    assert "nothing was trained" in page.words["findings"]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nowhere/r.html", "there is no directory"),
        ("", "directory"),
        ("here", "this is a directory"),
        ("pipe", "no regular file"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_line_before_anything_is_trained(
    tmp_path: Path, path: str, says: str
) -> None:
    (tmp_path / "here").mkdir()
    os.mkfifo(tmp_path / "pipe")
    started = time.monotonic()
    done = doctor("validate", "--cpu", "--report", f"{tmp_path}/{path}")
    assert time.monotonic() - started < 5
    assert_bad_usage(done, "--report", says, "expected a file in a directory that can be written")
    assert len(done.stderr.splitlines()) == 1
    assert sorted(found.name for found in tmp_path.iterdir()) == ["here", "pipe"]


@needs_overlay
def test_a_full_disk_is_found_before_anything_is_trained(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=1m tmpfs "$1" && "$2" -m envdoctor validate --report "$1/r.html"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path), sys.executable],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert_bad_usage(done, "--report", "1.0 MiB are free, 4 MiB are needed")


@pytest.mark.parametrize(
    ("makes", "says"),
    [
        ("sys.modules['matplotlib'] = None", "is not installed"),
        ("sys.modules['numpy'] = None", "is not installed"),
    ],
)
def test_without_matplotlib_the_repair_is_told_before_anything_is_trained(
    tmp_path: Path, makes: str, says: str
) -> None:
    script = f"import sys; {makes}; from envdoctor.cli import run; sys.exit(run(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, "validate", "--cpu", "--report", str(tmp_path / "r.html")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert_bad_usage(done, "matplotlib", says, f"{sys.executable} -m pip install 'matplotlib>=3.7'")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A training of some seconds by the fake framework, under way; and where its report is to be."""
    place = tmp_path / "reports"
    place.mkdir()
    command, environment = fake(tmp_path)
    process = subprocess.Popen(
        [*command, "--epochs", "40", "--report", str(place / "r.html")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not workers_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(3)
    yield process, place
    process.kill()
    process.wait(10)


@pytest.mark.tensorflow
def test_ctrl_c_leaves_a_partial_report(slow: tuple[subprocess.Popen[str], Path]) -> None:
    process, place = slow
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    page = Page((place / "r.html").read_text())
    assert "Partial: interrupted" in page.words["verdict"]
    assert [path.name for path in place.iterdir()] == ["r.html"]


@pytest.mark.tensorflow
def test_a_report_that_cannot_be_written_in_the_end_costs_no_result(
    slow: tuple[subprocess.Popen[str], Path],
) -> None:
    process, place = slow
    shutil.rmtree(place)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "40 in" in out  # epochs, in the table
    assert f"--report {place}/r.html: No such file or directory; nothing was written" in err
    assert len(err.splitlines()) == 1
