"""`envdoctor validate` as a user meets it: bad input, no GPU, Ctrl-C. A fake framework trains here."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_overlay, workstation
from tests.facts.test_child import ends, is_running
from tests.machines.overlay import run_inside
from tests.test_cli import assert_bad_usage, doctor, valid
from tests.test_probe import install
from tests.validate.fake_framework import fake_target, workers_of
from tests.validate.in_target import DIGITS, python

FILES = """
import sys, numpy as np
good = dict(np.load(sys.argv[1]))
small = {k: v[:300] for k, v in good.items()}
def write(name, **changed):
    np.savez(sys.argv[2] + "/" + name, **{k: v for k, v in {**small, **changed}.items() if v is not None})
write("keys", y_test=None)
write("shape", x_train=small["x_train"][:, :14])
write("labels", y_train=small["y_train"].astype("int64") + 7)
write("nan", x_test=np.where(small["x_test"] > 250, np.nan, small["x_test"] / 255))
write("few", **{k: v[:20] for k, v in small.items()})
write("lengths", y_train=small["y_train"][:-1])
write("objects", y_train=np.array([{}] * 300, dtype=object))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("files")
    light = python("light", package="numpy")
    subprocess.run([light, "-c", FILES, DIGITS, place], check=True, timeout=60)
    (place / "text.npz").write_text("no archive")
    (place / "\x1b[31m.npz").write_text("no archive")
    return place


def validate(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return doctor("validate", "--python", str(python("light", package="numpy")), *arguments, **variables)


def fake(tmp_path: Path, wrong: str = "") -> tuple[list[str], dict[str, str]]:
    """The command and the environment of a training by the fake framework."""
    target = fake_target(tmp_path / "fakes", wrong)
    command = [sys.executable, "-m", "envdoctor", "validate", "--cpu", "--python", target.python]
    return [*command, "--data", str(DIGITS), "--samples", "256", "--json"], dict(target.environment)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--network", "mnist-cn"], ["mnist-cn", "did you mean mnist-cnn"]),
        (["--gpu", "--cpu"], ["--gpu", "--cpu", "exclude each other"]),
        (["--cpu", "--min-speedup", "2"], ["--min-speedup", "--cpu"]),
        (["--batch-size", "64,0"], ["64,0", "whole numbers"]),
        (["--batch-size", "many"], ["many", "whole numbers"]),
        (["--epochs", "0"], ["--epochs"]),
        (["--samples", "-1"], ["--samples"]),
        (["--threads", "0"], ["'0'", "or tune"]),
        (["--min-accuracy", "98"], ["98", "--min-accuracy"]),
        (["--timeout", "0"], ["--timeout"]),
        (["--backend", "mxnet"], ["mxnet", "tensorflow"]),
        (["--stand-in", "--gpu"], ["--stand-in"]),
        (["--python", "/nowhere/python"], ["/nowhere/python", "does not exist"]),
    ],
)
def test_bad_options_are_one_clear_line_and_exit_2(arguments: list[str], says: list[str]) -> None:
    assert_bad_usage(doctor("validate", *arguments), *says)


def test_an_interpreter_without_a_framework_is_told_what_to_install(tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    done = doctor("validate", "--python", str(tmp_path / "env"))
    assert_bad_usage(done, "no framework is installed", "-m pip install tensorflow")


@pytest.mark.parametrize(("version", "says"), [(None, "Keras is not installed"), ("2.15.0", "Keras 2.15.0")])
def test_keras_that_is_missing_or_too_old_is_told_with_its_repair(
    tmp_path: Path, version: str | None, says: str
) -> None:
    place = tmp_path / "env"
    venv.create(place, with_pip=False, symlinks=True)
    install(place, "")
    if version is not None:
        (site,) = place.glob("lib/python*/site-packages")
        info = site / f"keras-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: keras\nVersion: {version}\n")
    done = doctor("validate", "--cpu", "--python", str(place))
    assert_bad_usage(done, says, "expected Keras 3", f"{place}/bin/python -m pip install 'keras>=3'")


@pytest.mark.tensorflow
def test_a_backend_that_is_not_installed_is_told_what_is() -> None:
    assert_bad_usage(validate("--backend", "jax"), "--backend jax", "TensorFlow is", "-m pip install jax")


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("keys", "y_test"),
        ("shape", "x_train"),
        ("labels", "y_train"),
        ("nan", "x_test"),
        ("few", "few.npz"),
        ("lengths", "y_train"),
        ("objects", "y_train"),
        ("text", "text.npz"),
        ("missing", "missing.npz"),
        ("\x1b[31m", r"\x1b[31m.npz"),
    ],
)
def test_bad_data_is_one_clear_line_and_exit_2_before_a_framework_is_imported(
    files: Path, name: str, says: str
) -> None:
    done = validate("--cpu", "--data", str(files / f"{name}.npz"))
    assert_bad_usage(done, says)
    assert "\x1b" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.tensorflow
def test_a_required_gpu_that_is_absent_ends_at_once_with_what_check_says() -> None:
    started = time.monotonic()
    done = validate("--gpu")
    assert time.monotonic() - started < 10
    assert done.returncode == 1
    assert "TensorFlow 2.21.0 will NOT use the GPU" in done.stdout
    assert "GPU001  no NVIDIA GPU here, and one is required" in done.stdout
    assert "nothing was trained" in done.stdout
    document = valid(validate("--gpu", "--json").stdout, "validate")
    assert (document["passed"], document["devices"]) == (False, [])
    assert document["findings"][0]["code"] == "GPU001"


@pytest.mark.tensorflow
@needs_overlay
def test_nothing_is_trained_on_a_simulated_driver_on_which_check_finds_no_fault(tmp_path: Path) -> None:
    light = python("light", package="numpy").parent.parent
    machine = workstation(tmp_path / "machine").real_environment(light)
    machine.export(LD_LIBRARY_PATH=f"{machine.site_packages}/nvidia/cusolver/lib")
    done = run_inside(machine, [sys.executable, "-m", "envdoctor", "validate", "--gpu"])
    assert "TensorFlow 2.21.0 should use the GPU on a SIMULATED driver" in done.stdout, done.stderr
    assert "No usable GPU: the driver is SIMULATED: nothing was trained" in done.stdout
    assert done.returncode == 1


@pytest.mark.tensorflow
def test_a_death_is_reported_with_what_was_measured_before(tmp_path: Path) -> None:
    command, environment = fake(tmp_path, "raises")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1, done.stderr
    document = valid(done.stdout, "validate")
    assert document["findings"][0]["code"] == "VAL001"
    assert len(document["devices"][0]["epochs"]) == 2


@pytest.mark.tensorflow
def test_settings_of_threads_are_tried_with_their_spread_and_one_is_chosen(tmp_path: Path) -> None:
    command, environment = fake(tmp_path)
    done = subprocess.run(
        [*command, "--threads", "tune"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    tried = valid(done.stdout, "validate")["threads"]
    assert {"1"} <= {setting["variables"]["TF_NUM_INTRAOP_THREADS"] for setting in tried}
    assert all(setting["images_per_s"] > 0 for setting in tried)
    assert sum(setting["chosen"] for setting in tried) == 1
    assert all(s["images_per_s_min"] <= s["images_per_s"] <= s["images_per_s_max"] for s in tried)


def started(tmp_path: Path, wrong: str = "") -> tuple[subprocess.Popen[str], int]:
    """A doctor, and the worker that trains for it."""
    command, environment = fake(tmp_path, wrong)
    process = subprocess.Popen(
        [*command, "--epochs", "200"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for worker in workers_of(process.pid):
            return process, worker
        time.sleep(0.05)
    raise AssertionError(process.communicate())


@pytest.mark.tensorflow
def test_ctrl_c_leaves_no_child_and_prints_what_was_measured(tmp_path: Path) -> None:
    doctor_process, worker = started(tmp_path)
    time.sleep(4)  # some epochs of 0.1 s
    os.killpg(doctor_process.pid, signal.SIGINT)  # as a terminal does
    out, _ = doctor_process.communicate(timeout=20)
    assert doctor_process.returncode == 130
    assert ends(worker)
    document: Any = valid(out, "validate")
    assert (document["passed"], document["outcome"]) == (False, "interrupted")
    assert 0 < len(document["devices"][0]["epochs"]) < 200


@pytest.mark.tensorflow
def test_a_doctor_that_is_killed_takes_its_silent_worker_with_it(tmp_path: Path) -> None:
    doctor_process, worker = started(tmp_path, "silent")
    time.sleep(3)  # until it hangs: one that speaks ends with its pipe
    assert is_running(worker)
    doctor_process.kill()
    doctor_process.communicate(timeout=20)
    assert ends(worker)


@pytest.mark.tensorflow
def test_progress_is_shown_on_a_terminal_only(tmp_path: Path) -> None:
    command, environment = fake(tmp_path)
    primary, secondary = pty.openpty()
    done = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=secondary)
    os.close(secondary)
    seen = bytearray()
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while chunk := os.read(primary, 4096):
            seen += chunk
    os.close(primary)
    done.wait(20)
    text = seen.decode("utf-8", "replace")
    assert text.endswith("\r\x1b[K")  # wiped
    assert "epoch 3/5" in text
    assert "images/s" in text
    assert "ETA" in text
    quiet = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert quiet.stderr == ""
    assert json.loads(quiet.stdout)
