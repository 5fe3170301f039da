"""Frameworks that do not come to the end of their import: named in bounded time, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

import pytest

BUILD_INFO = "build_info = {'is_cuda_build': False}\n"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("probe") / "env"
    venv.create(place, with_pip=False, symlinks=True)
    return place


def install(environment: Path, body: str) -> None:
    """A package `tensorflow` whose import runs `body`."""
    (site,) = environment.glob("lib/python*/site-packages")
    package = site / "tensorflow" / "python" / "platform"
    package.mkdir(parents=True, exist_ok=True)
    (site / "tensorflow" / "__init__.py").write_text(body)
    (package / "build_info.py").write_text(BUILD_INFO)
    info = site / "tensorflow-2.21.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tensorflow\nVersion: 2.21.0\n")


def command(environment: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "envdoctor", "check", "--json", "--python", str(environment), *arguments]


def check(environment: Path, body: str, *arguments: str) -> tuple[int, Any]:
    install(environment, body)
    done = subprocess.run(
        command(environment, *arguments),
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise ImportError('libcudnn.so.9: cannot open shared object file')", "libcudnn.so.9: cannot open"),
        ("import os; os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("import os; os.kill(os.getpid(), 4)", "SIGILL"),
        ("import os; os._exit(0)", "exit status 0"),
        ("import os; os._exit(3)", "exit status 3"),
        ("import os\nos.write(1, b'x' * 100_000_000)\nos._exit(5)", "exit status 5"),
        ("raise SystemExit", "SystemExit"),
        ("__version__ = '2.21.0'", "AttributeError"),  # imports, and is not TensorFlow
    ],
)
def test_a_framework_that_fails_is_import_failed_with_its_own_words(
    environment: Path, body: str, says: str
) -> None:
    code, report = check(environment, body)
    assert code == 1
    finding = next(f for f in report["findings"] if f["code"] == "PLC004")
    assert says in finding["message"]
    assert report["verdicts"][0]["tried"]


def test_an_import_that_hangs_is_a_finding_at_its_deadline(environment: Path) -> None:
    started = time.monotonic()
    code, report = check(environment, "import time; time.sleep(600)", "--timeout", "1")
    assert time.monotonic() - started < 20
    assert code == 1
    finding = next(f for f in report["findings"] if f["code"] == "PLC004")
    assert "no answer in" in finding["message"]


def test_a_framework_that_imports_and_lists_nothing_on_a_machine_without_gpu_is_no_finding(
    environment: Path,
) -> None:
    body = """
__version__ = '2.21.0'
class config:
    list_physical_devices = staticmethod(lambda kind: [])
"""
    code, report = check(environment, body)
    assert code == 0
    assert [f["code"] for f in report["findings"]] == ["GPU001"]


def test_an_interrupt_ends_the_probe_and_says_so(environment: Path, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    body = f"import os, time\nopen({str(pid_file)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    install(environment, body)
    doctor = subprocess.Popen(
        command(environment),
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 20
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    doctor.send_signal(signal.SIGINT)
    stdout, stderr = doctor.communicate(timeout=10)
    assert (doctor.returncode, stdout) == (130, "")
    assert stderr.strip() == "envdoctor: interrupted"
    pid = int(pid_file.read_text())
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_the_probe_writes_nothing_into_the_environment(environment: Path) -> None:
    install(environment, "import json, decimal\nraise ImportError('x')")
    check(environment, "raise ImportError('x')")
    assert list(environment.rglob("__pycache__")) == []
