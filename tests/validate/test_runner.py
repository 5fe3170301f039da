"""Trainings that end in every way; each test starts the real worker, with a framework that misbehaves."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from envdoctor.facts.unavailable import Unavailable
from envdoctor.target import Target, choose_target
from envdoctor.validate import networks
from envdoctor.validate.measure import device_rows
from envdoctor.validate.protocol import (
    BUILDING,
    Begin,
    Built,
    DataWanted,
    Epoch,
    Evaluated,
    Event,
    FirstStep,
    Halved,
    Job,
    Placed,
    only,
)
from envdoctor.validate.recording import Ending, Recording
from envdoctor.validate.runner import run
from tests.facts.test_child import ends
from tests.machines.drivers import HANG, RTX_4090, driver_libraries
from tests.validate.fake_framework import fake_target, workers_of
from tests.validate.in_target import DIGITS

pytestmark = pytest.mark.tensorflow  # its NumPy


def job(device: str = "cpu", **options: object) -> Job:
    network = networks.load("mnist-cnn")
    given = {"batch_sizes": (64,), "epochs": 5, "numerics": False} | options
    return Job(
        backend="tensorflow",
        device=device,
        description=networks.describe(network),
        data=DataWanted(spec=str(DIGITS), samples=256),
        **given,  # type: ignore[arg-type]
    )


def train(target: Target, wanted: Job | None = None, silence_s: float = 60.0) -> Recording:
    return run(wanted or job(), "CPU", target, silence_s, lambda _: None)


def test_a_training_is_heard_from_its_first_step_to_its_test(tmp_path: Path) -> None:
    heard: list[Event | None] = []
    recording = run(job(), "CPU", fake_target(tmp_path), 60, heard.append)
    assert (recording.ending, recording.failure) == (Ending.DONE, None)
    assert [event for event in heard if event] == list(recording.events)
    assert [epoch.epoch for epoch in only(Epoch, recording.events)] == [0, 1, 2, 3, 4]
    assert len(only(FirstStep, recording.events)) == 1
    assert only(Evaluated, recording.events)[0].accuracy == 0.985
    (row,) = device_rows(recording)
    assert row.complete
    assert row.test_accuracy == 0.985
    assert 256 / 1.0 < (row.images_per_s or 0) <= 256 / 0.1
    assert [step for step, _ in row.curve] == list(range(1, 21))
    assert recording.started < recording.events[0].at < recording.events[-1].at


def test_gpus_are_hidden_from_a_training_on_the_cpu_and_from_no_other(tmp_path: Path) -> None:
    cpu = train(fake_target(tmp_path, gpus=1, CUDA_VISIBLE_DEVICES="0"))
    assert "CUDA_VISIBLE_DEVICES=-1" in cpu.stderr
    gpu = train(fake_target(tmp_path, gpus=1, CUDA_VISIBLE_DEVICES="0"), job("gpu"))
    assert "CUDA_VISIBLE_DEVICES=0" in gpu.stderr
    (row,) = device_rows(gpu)
    assert (row.device_name, row.weights_on, row.output_on) == ("Fake GPU", "GPU:0", "GPU:0")
    assert row.gpu_peak_memory_bytes == 123 << 20


def test_a_framework_that_raises_in_epoch_3_leaves_two_epochs_and_its_reason(tmp_path: Path) -> None:
    recording = train(fake_target(tmp_path, "raises"))
    assert recording.ending is Ending.FAILED
    assert recording.failure is not None
    assert recording.failure.error.startswith("RuntimeError: CUDA_ERROR_ILLEGAL_ADDRESS")
    assert "go_wrong" in recording.failure.trace
    (row,) = device_rows(recording)
    assert len(row.epochs) == 2
    assert row.images_per_s is not None
    assert (row.complete, row.test_accuracy) == (False, None)
    assert row.ended == recording.failure.error


def test_a_worker_that_is_killed_is_known_by_its_signal_and_its_last_words(tmp_path: Path) -> None:
    recording = train(fake_target(tmp_path, "killed"))
    assert (recording.ending, recording.detail) == (Ending.DIED, "SIGKILL")
    assert "NVRM: Xid 79" in recording.stderr
    assert len(only(Epoch, recording.events)) == 2


@pytest.mark.parametrize("wrong", ["stopped", "hangs"])
def test_a_worker_that_says_nothing_any_more_is_killed_with_all_its_children(
    tmp_path: Path, wrong: str
) -> None:
    started = time.monotonic()
    recording = train(fake_target(tmp_path, wrong), silence_s=3.0)
    assert recording.ending is Ending.HUNG
    assert recording.detail == "no sign of life for 3 s"
    assert time.monotonic() - started < 30
    assert len(only(Epoch, recording.events)) == 2
    if wrong == "hangs":
        found = re.search(r"grandchild (\d+)", recording.stderr)
        assert found is not None
        assert ends(int(found[1]))


def test_a_batch_that_does_not_fit_is_halved_until_it_does(tmp_path: Path) -> None:
    recording = train(fake_target(tmp_path, "memory"), job(batch_sizes=(64, 16)))
    assert [(h.batch_size, h.to) for h in only(Halved, recording.events)] == [(64, 32), (32, 16)]
    assert recording.ending is Ending.DONE
    rows = device_rows(recording)
    assert [(row.asked_batch_size, row.batch_size, row.complete) for row in rows] == [
        (64, 16, True),
        (16, 16, True),
    ]


def test_memory_that_does_for_no_batch_is_a_clear_end(tmp_path: Path) -> None:
    recording = train(fake_target(tmp_path, "no memory"))
    assert [h.to for h in only(Halved, recording.events)] == [32, 16, 8]
    assert recording.failure is not None
    assert recording.failure.kind == "memory"


def test_what_a_framework_floods_is_drained_and_its_end_is_kept(tmp_path: Path) -> None:
    recording = train(fake_target(tmp_path, "floods"))
    assert recording.ending is Ending.DONE
    assert 10_000 < len(recording.stderr) < 200_000
    assert recording.stderr.startswith("CUDA_VISIBLE_DEVICES")


def test_a_loss_that_is_no_number_is_none_and_the_training_goes_on(tmp_path: Path) -> None:
    recording = train(fake_target(tmp_path, "diverges"))
    assert recording.ending is Ending.DONE
    (row,) = device_rows(recording)
    assert {loss for _, loss in row.curve} == {None}


def test_a_gpu_that_the_framework_does_not_register_is_said_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    recording = train(fake_target(tmp_path), job("gpu"))
    assert recording.failure is not None
    assert recording.failure.kind == "no-device"
    assert only(Built, recording.events) == []


def test_weights_that_lie_elsewhere_than_asked_for_are_seen_there(tmp_path: Path) -> None:
    recording = train(fake_target(tmp_path, "elsewhere", gpus=1), job("gpu"))
    assert only(Placed, recording.events)[0].weights == "CPU:0"


def test_ctrl_c_ends_the_worker_and_keeps_what_was_heard(tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupt(event: Event | None) -> None:
        if isinstance(event, Epoch) and event.epoch == 1:
            pids.extend(workers_of(os.getpid()))
            raise KeyboardInterrupt

    recording = run(job(), "CPU", fake_target(tmp_path), 60, interrupt)
    assert recording.ending is Ending.INTERRUPTED
    assert len(only(Epoch, recording.events)) >= 2
    assert pids
    assert all(ends(pid) for pid in pids)


def test_an_interpreter_that_cannot_be_started_is_an_ending_too(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/nowhere/interpreter\n")
    broken.chmod(0o755)
    recording = train(choose_target(str(broken), None, {"PATH": "/usr/bin"}))
    assert recording.ending is Ending.NOT_STARTED
    assert "No such file" in recording.detail


def test_a_simulated_gpu_is_sampled_beside_the_training(tmp_path: Path) -> None:
    driver_libraries(tmp_path / "driver", gpus=(RTX_4090,))
    target = fake_target(tmp_path / "fakes", gpus=1, LD_LIBRARY_PATH=str(tmp_path / "driver"))
    recording = train(target, job("gpu"))
    assert not isinstance(recording.telemetry, Unavailable)
    assert len(recording.telemetry) >= 2
    (row,) = device_rows(recording)
    assert (row.telemetry.gpu, row.telemetry.temperature_c) == (0, 41)
    assert row.telemetry.memory_bytes == 512 << 20
    assert row.telemetry.power_w is None  # the simulated driver has no such function
    assert all(sample["s"] >= -0.1 for sample in row.telemetry.samples)


@pytest.mark.parametrize(
    ("nvml", "says"), [(HANG, "NVML gave no answer"), (999, "NVMLError"), ("none", "NVML")]
)
def test_a_silent_nvml_stalls_no_training_and_its_reason_is_kept(
    tmp_path: Path, nvml: str | int, says: str
) -> None:
    variables = {}
    if nvml != "none":
        driver_libraries(tmp_path / "driver", nvml=nvml)
        variables = {"LD_LIBRARY_PATH": str(tmp_path / "driver")}
    recording = train(fake_target(tmp_path / "fakes", gpus=1, **variables), job("gpu"))
    assert recording.ending is Ending.DONE
    assert isinstance(recording.telemetry, Unavailable)
    assert says in recording.telemetry.reason


def test_steps_are_named_before_they_are_tried(tmp_path: Path) -> None:
    recording = train(fake_target(tmp_path))
    named = [event.step for event in only(Begin, recording.events)]
    assert named[:3] == ["reading the data", "importing tensorflow", "looking for the device"]
    assert BUILDING in named
