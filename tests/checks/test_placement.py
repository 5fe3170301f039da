"""A framework that fails says why: what its messages show is named, and noise is not evidence.

The packages are fakes that print what the real TensorFlow 2.21 prints (tests/explain/real).
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from tests.machines.drivers import driver_libraries
from tests.test_probe import check as check_as_cpu_build
from tests.test_probe import install
from tests.test_running import check

REAL = Path(__file__).resolve().parent.parent / "explain" / "real"
LISTS_NOTHING = """
__version__ = "2.21.0"
class config:
    list_physical_devices = staticmethod(lambda kind: [])
"""


def prints(log: str) -> str:
    return f"import os\nos.write(2, {(REAL / log).read_bytes()!r})\n"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("placement") / "env"
    venv.create(place, with_pip=False, symlinks=True)
    return place


def finding(report: Any, code: str) -> Any:
    return next(f for f in report["findings"] if f["code"] == code)


def evidence(found: Any, what: str) -> list[str]:
    return [e["value"] for e in found["evidence"] if e["what"] == what]


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (
            "raise ImportError('libcudnn.so.9: cannot open shared object file: No such file or directory')",
            "CDN001",
        ),
        ("raise ImportError('numpy.core.multiarray failed to import')", "PKG005"),
        ("import os; os.kill(os.getpid(), 4)", "HST003"),
        (
            (
                "raise TypeError('Descriptors cannot be created directly. "
                "If this call came from a _pb2.py file, your generated code is out of date')"
            ),
            "PKG006",
        ),
        (prints("xla-flag-unknown.log") + "os._exit(1)", "XLA004"),
    ],
    ids=["cudnn", "numpy", "sigill", "protobuf", "xla-flag"],
)
def test_an_import_that_fails_names_the_condition_that_it_shows(
    environment: Path, body: str, names: str
) -> None:
    _, report = check_as_cpu_build(environment, body)
    failed = finding(report, "PLC004")
    assert f"({names}: " in failed["message"]
    assert evidence(failed, "which shows")[0].startswith(names)
    assert failed["remedy"]
    shown = evidence(failed, "stderr")
    assert len(shown) == len(set(shown)) > 0


def test_of_a_failure_that_nothing_explains_the_last_words_are_shown_without_noise(environment: Path) -> None:
    body = prints("cusolver-found.log") + "os.write(2, b'the dog ate it\\n' + b'\\n')\nos._exit(3)"
    _, report = check_as_cpu_build(environment, body)
    failed = finding(report, "PLC004")
    assert "(" not in failed["message"].partition("the dog ate it")[2]
    assert evidence(failed, "stderr") == [
        "[PhysicalDevice(name='/physical_device:GPU:0', device_type='GPU')]",
        "the dog ate it",
    ]
    assert evidence(failed, "which shows") == []


def test_no_device_registered_has_the_lines_that_say_why(environment: Path, tmp_path: Path) -> None:
    driver_libraries(tmp_path)
    install(environment, prints("cuinit-999.log") + LISTS_NOTHING)
    nothing = finding(check(environment, LD_LIBRARY_PATH=str(tmp_path)), "PLC001")
    assert "CUDA_ERROR_UNKNOWN" in evidence(nothing, "stderr")[0]
    assert evidence(nothing, "which shows")[0].startswith("DRV010 cuinit-unknown")


def test_what_ended_the_process_later_is_not_why_no_device_is_registered(
    environment: Path, tmp_path: Path
) -> None:
    driver_libraries(tmp_path)
    install(environment, prints("xla-flag-unknown.log") + LISTS_NOTHING)
    nothing = finding(check(environment, LD_LIBRARY_PATH=str(tmp_path)), "PLC001")
    assert not [said for said in evidence(nothing, "which shows") if "XLA004" in said]


def test_a_run_that_failed_nowhere_costs_no_reading_of_logs() -> None:
    """The check is imported with all others by `check --quick`, which has tenths of a second."""
    program = (
        "import sys; from envdoctor.diagnose import load_all; load_all(); "
        "print([m for m in sys.modules if m.startswith('envdoctor.explain')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
