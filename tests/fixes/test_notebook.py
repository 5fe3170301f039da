"""A notebook without the GPU that the terminal has: ENV003, repaired in the kernelspec.

TensorFlow, the Jupyter kernel and jupyter-client are real; the driver is simulated.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import environments
from tests.machines.drivers import driver_libraries
from tests.test_flow import stub_wheels
from tests.tree import signature

pytestmark = pytest.mark.tensorflow
LIST_GPUS = "import tensorflow as tf; print(tf.config.list_physical_devices('GPU'))"
# What a Jupyter server does: start a kernel by name in its own environment, and run a cell.
RUN_CELL = """
import sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name=sys.argv[1], startup_timeout=60)
try:
    def show(message):
        if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
            print(message["content"]["text"], end="")
    client.execute_interactive(sys.argv[2], timeout=90, output_hook=show)
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
"""


class Desk:
    """A user whose shell exports what TensorFlow needs, and whose notebooks are started without it."""

    def __init__(self, place: Path) -> None:
        self.environment = place / "env"
        self.python = str(self.environment / "bin" / "python")
        environments.borrow("notebook", self.environment)
        stub_wheels(self.environment)
        driver_libraries(place / "driver")
        self.home = place / "home"
        self.home.mkdir()
        (site,) = self.environment.glob("lib/python*/site-packages")
        self.server = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        self.shell = {
            **self.server,
            "VIRTUAL_ENV": str(self.environment),
            "LD_LIBRARY_PATH": f"/nowhere:{place / 'driver'}:{site / 'nvidia/cusolver/lib'}",
        }
        self._run([self.python, "-m", "ipykernel", "install", "--user", "--name", "gpu"], self.server)

    @property
    def kernelspec(self) -> Path:
        return self.home / ".local/share/jupyter/kernels/gpu/kernel.json"

    def seen(self) -> tuple[bytes, int, int]:
        status = self.kernelspec.stat()
        return self.kernelspec.read_bytes(), status.st_mode, status.st_mtime_ns

    def terminal(self) -> str:
        return self._run([self.python, "-B", "-c", LIST_GPUS], self.shell)

    def notebook(self) -> str:
        return self._run([self.python, "-B", "-c", RUN_CELL, "gpu", LIST_GPUS], self.server)

    def doctor(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "envdoctor", *arguments],
            env=self.shell,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def _run(self, command: list[str], environment: dict[str, str]) -> str:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=150
        )
        return done.stdout.strip()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    if environments.installed("notebook") is None:
        pytest.skip("not installed: python tests/environments.py notebook")
    place = tmp_path_factory.mktemp("desk")
    yield Desk(place)
    subprocess.run(["rm", "-rf", place / "env"], check=True)


def test_the_notebook_gets_the_gpu_that_the_terminal_has_and_undo_takes_it_back(desk: Desk) -> None:
    assert "GPU:0" in desk.terminal()
    assert desk.notebook() == "[]"
    report = json.loads(desk.doctor("check", "--quick", "--json").stdout)
    assert [f["code"] for f in report["findings"] if f["severity"] != "note"] == ["ENV003"]
    before, kernelspec = signature(desk.home), desk.seen()
    dry = desk.doctor("fix", "--dry-run")
    assert "LD_LIBRARY_PATH" in dry.stdout
    assert signature(desk.home) == before

    fixed = desk.doctor("fix", "--yes")
    assert fixed.returncode == 0, fixed.stdout + fixed.stderr
    assert "Restart the notebooks that run the kernel 'gpu'" in fixed.stdout
    spec = json.loads(desk.kernelspec.read_text())
    assert "/nowhere" not in spec["env"]["LD_LIBRARY_PATH"]
    assert "GPU:0" in desk.notebook()
    again = json.loads(desk.doctor("fix", "--dry-run", "--json").stdout)
    assert [a["kind"] for a in again["plan"] if a["kind"] != "manual"] == []

    assert desk.doctor("undo", "--yes").returncode == 0
    assert desk.seen() == kernelspec
    assert desk.notebook() == "[]"
