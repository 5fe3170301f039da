"""From recordings to the verdict: gates, proofs, causes; no process is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from msgspec.structs import replace

import envdoctor.report
from envdoctor.facts.gather import gather
from envdoctor.facts.model import Facts
from envdoctor.report.terminal import Terminal
from envdoctor.report.validate_json import result_document
from envdoctor.report.validate_text import render_validation
from envdoctor.target import choose_target
from envdoctor.validate import networks, tune
from envdoctor.validate.comparison import CURVE_BAND, difference
from envdoctor.validate.judge import Gates, Outcome, Result, judge
from envdoctor.validate.measure import device_rows
from envdoctor.validate.protocol import (
    BUILDING,
    AccuracyBound,
    Begin,
    Built,
    Data,
    DataWanted,
    Epoch,
    Evaluated,
    Event,
    Failed,
    FirstStep,
    Halved,
    Job,
    Numerics,
    NumericsRow,
    NumpyEpoch,
    Placed,
    Ready,
    StartValues,
)
from envdoctor.validate.recording import Ending, GpuSample, Recording
from tests.machines.machine import Machine

SCHEMA = json.loads((Path(envdoctor.report.__file__).parent / "schema.json").read_text())
NETWORK = networks.load("mnist-cnn")
LOSSES = (0.5, 0.11, 0.06)
BOUND = AccuracyBound(minimum=0.97, why="seen")


def numerics(**errors: float | None) -> Numerics:
    tensors = ("conv2d_1", "conv2d_2", "dense_1")
    return Numerics(
        at=90.0,
        rows=tuple(
            NumericsRow(
                tensor=f"{name} output",
                layer=name,
                device="GPU:0",
                error=errors.get(name, 1e-7),
                bound=1e-4,
                precision="float32",
            )
            for name in tensors
        ),
        batch_size=16,
        seconds=1.0,
    )


def training(
    batch_size: int = 64,
    seconds: tuple[float, ...] = (3.0, 2.0, 1.0),
    losses: tuple[float | None, ...] = LOSSES,
    *,
    begins: float = 5.0,
    accuracy: float = 0.98,
    on: str = "GPU:0",
    first_loss: float = 2.3,
) -> list[Event]:
    """The events of one batch size: epochs of 1,000 images."""
    at = begins + 1
    events: list[Event] = [
        Begin(at=begins, step=BUILDING),
        Built(at=at, batch_size=batch_size, steps=16, seconds=1.0),
        FirstStep(at=at + 1, seconds=1.0, loss=first_loss),
    ]
    for number, (took, loss) in enumerate(zip(seconds, losses, strict=True)):
        at += took
        curve = ((number * 16 + 1, first_loss if number == 0 else loss), (number * 16 + 16, loss))
        events.append(
            Epoch(at=at, epoch=number, seconds=took, images=1000, loss=loss, accuracy=0.9, curve=curve)
        )
    return [
        *events,
        Evaluated(at=at + 1, loss=0.1, accuracy=accuracy, seconds=1.0),
        Placed(at=at + 1, weights=on, output=on, layer="conv2d_1", peak_bytes=700 << 20, gpu_peak_bytes=None),
    ]


def recorded(
    label: str,
    events: list[Event],
    *,
    batch_sizes: tuple[int, ...] = (64,),
    ending: Ending = Ending.DONE,
    bound: AccuracyBound | None = BOUND,
    weights: str = "aaaa",
    logical_cpus: int = 0,
    **more: Any,
) -> Recording:
    start: list[Event] = [
        Data(at=1.0, description={"words": "8,000 + 2,000 digits"}, bound=bound, seconds=0.1),
        Ready(at=4.0, framework="2.21.0", keras="3.15.1", device_name="", import_seconds=3.0),
        StartValues(at=4.5, parameters=96844, weights=weights, data="dddd"),
    ]
    job = Job(
        backend="tensorflow",
        device=label.lower(),
        description=networks.describe(NETWORK),
        data=DataWanted(spec="auto"),
        batch_sizes=batch_sizes,
        epochs=3,
        logical_cpus=logical_cpus,
    )
    return Recording(
        job=job,
        label=label,
        started=0.0,
        seconds=20.0,
        events=(*start, *events),
        ending=ending,
        **more,
    )


def gpu(**more: Any) -> Recording:
    return recorded("GPU", [*training(seconds=(3.0, 0.2, 0.1), **more), numerics()])


def cpu(**more: Any) -> Recording:
    return recorded("CPU", [*training(seconds=(3.0, 2.0, 1.0), on="CPU:0", **more), numerics()])


def codes(result: Result) -> list[str]:
    return [linked.finding.code for linked in result.findings]


def evidence(result: Result) -> str:
    return " ".join(f"{e.what} {e.value}" for linked in result.findings for e in linked.finding.evidence)


def facts_of(tmp_path: Path, *, cpus: int, quota: float = 0) -> Facts:
    machine = Machine(tmp_path / "machine").os("ubuntu", "24.04").kernel("6.8.0").cpus(cpus, quota=quota)
    return gather(choose_target(None, str(machine.root), {}), quick=True)


def text_of(result: Result, tmp_path: Path) -> str:
    return render_validation(facts_of(tmp_path, cpus=2), result, Terminal(), seconds=1.0)


def test_two_devices_that_agree_pass_with_their_speedup_and_its_spread() -> None:
    result = judge(NETWORK, [gpu(), cpu()], Gates(min_speedup=5))
    assert (result.outcome, codes(result)) == (Outcome.PASSED, [])
    (speedup,) = result.speedups
    # The epochs after the first: 1000/0.2 and 1000/0.1 against 1000/2 and 1000/1 images a second
    assert speedup.steady == pytest.approx(7500 / 750)
    assert speedup.steady_min == pytest.approx(5.0)
    assert speedup.steady_max == pytest.approx(20.0)
    assert speedup.end_to_end == pytest.approx((5 + 1 + 6 + 1) / (5 + 1 + 3.3 + 1))
    assert result.curves[0].agrees


def test_one_epoch_is_judged_by_its_steps_after_the_first() -> None:
    recording = recorded("CPU", training(seconds=(3.0,), losses=(0.5,), on="CPU:0"))
    (row,) = device_rows(recording)
    assert row.images_per_s == pytest.approx((1000 - 64) / (3.0 - 1.0))
    assert any("one epoch" in note for note in judge(NETWORK, [recording], Gates()).notes)


@pytest.mark.parametrize(
    ("gates", "accuracy", "bound", "outcome"),
    [
        (Gates(), 0.98, BOUND, Outcome.PASSED),
        (Gates(), 0.96, BOUND, Outcome.FAILED),
        (Gates(), 0.96, None, Outcome.PASSED),
        (Gates(min_accuracy=0.95), 0.96, BOUND, Outcome.PASSED),
        (Gates(min_accuracy=0.99), 0.98, BOUND, Outcome.FAILED),
        (Gates(min_accuracy=0.97), 0.97, None, Outcome.PASSED),
    ],
)
def test_the_accuracy_is_judged_by_the_gate_else_by_what_belongs_to_the_data(
    gates: Gates, accuracy: float, bound: AccuracyBound | None, outcome: Outcome
) -> None:
    recording = recorded("CPU", training(accuracy=accuracy, on="CPU:0"), bound=bound)
    result = judge(NETWORK, [recording], gates)
    assert result.outcome is outcome
    assert codes(result) == (["VAL006"] if outcome is Outcome.FAILED else [])


def test_another_batch_size_than_the_first_is_not_judged_by_its_accuracy() -> None:
    events = [*training(64), *training(4096, begins=20.0, accuracy=0.5)]
    result = judge(NETWORK, [recorded("CPU", events, batch_sizes=(64, 4096))], Gates())
    assert [row.batch_size for row in result.devices] == [64, 4096]
    assert "VAL006" not in codes(result)


def test_a_speedup_below_the_gate_fails_and_says_why() -> None:
    result = judge(NETWORK, [gpu(), cpu()], Gates(min_speedup=20))
    assert (result.outcome, codes(result)) == (Outcome.FAILED, ["VAL008"])
    assert "10.00 times" in result.findings[0].finding.message


def test_a_speedup_that_was_asked_for_and_not_measured_is_undecided() -> None:
    result = judge(NETWORK, [cpu()], Gates(min_speedup=2))
    assert result.outcome is Outcome.UNDECIDED
    assert "--min-speedup" in result.undecided[0]


def busy(percent: int) -> tuple[GpuSample, ...]:
    """Two GPUs, of which the one whose memory grows trains."""
    return tuple(
        GpuSample(
            at=at,
            index=index,
            utilisation=percent if index else 90,
            memory_bytes=(10 + index * at_number) << 20,
            power_w=60.0,
            temperature_c=40,
        )
        for at_number, at in enumerate((0.0, 9.0, 10.0, 11.0))
        for index in (0, 1)
    )


@pytest.mark.parametrize(
    ("percent", "says"),
    [
        (12, "launch-bound, the GPU was busy 12 % of the time"),
        (93, "not for want of work, the GPU was busy 93 %"),
    ],
)
def test_a_gpu_slower_than_the_cpu_is_not_broken_and_the_reason_is_what_was_seen(
    percent: int, says: str
) -> None:
    slow = recorded("GPU", training(seconds=(3.0, 4.0, 4.0)), telemetry=busy(percent))
    result = judge(NETWORK, [slow, cpu()], Gates())
    assert (result.outcome, codes(result)) == (Outcome.PASSED, ["VAL009"])
    assert says in result.findings[0].finding.message
    assert result.devices[0].telemetry.gpu == 1  # whose memory grew


def test_what_stands_in_for_a_gpu_is_not_called_slow() -> None:
    slow = recorded("CPU:1", training(seconds=(3.0, 4.0, 4.0)), logical_cpus=2)
    result = judge(NETWORK, [slow, cpu()], Gates())
    assert result.stand_in
    assert "VAL009" not in codes(result)


def test_the_growth_with_the_batch_stands_beside_a_failed_speedup() -> None:
    sizes = (64, 512)
    fast = recorded(
        "GPU",
        [*training(64), *training(512, (3.0, 0.2, 0.2), begins=20.0)],
        batch_sizes=sizes,
    )
    slow = recorded(
        "CPU",
        [*training(64, on="CPU:0"), *training(512, begins=20.0, on="CPU:0")],
        batch_sizes=sizes,
    )
    result = judge(NETWORK, [fast, slow], Gates(min_speedup=3))
    assert "VAL008" in codes(result)
    assert "batch 512 6.67 times" in evidence(result)
    assert "from batch 64 to 512 6.7 times the images per second" in evidence(result)
    assert [s.batch_size for s in result.speedups] == [64, 512]


def test_the_first_wrong_layer_is_named_and_a_low_accuracy_follows_from_it() -> None:
    events = [*training(accuracy=0.5), numerics(conv2d_2=0.3, dense_1=None)]
    result = judge(NETWORK, [recorded("GPU", events), cpu()], Gates())
    assert result.outcome is Outcome.FAILED
    by_code = {linked.finding.code: linked for linked in result.findings}
    assert "conv2d_2 is the first that is wrong on GPU:0" in by_code["VAL005"].finding.message
    assert result.findings[0].finding.code == "VAL005"
    assert by_code["VAL005"].because == ()
    assert by_code["VAL006"].because == (0,)


def test_a_tensor_that_is_not_finite_is_wrong() -> None:
    events = [*training(), numerics(conv2d_1=None)]
    result = judge(NETWORK, [recorded("GPU", events), cpu()], Gates())
    assert "conv2d_1 output is not finite" in result.findings[0].finding.message


@pytest.mark.parametrize(
    ("losses", "first", "agrees"),
    [
        (LOSSES, 2.3, True),
        ((0.502, 0.112, 0.064), 2.3, True),  # as far apart as one thread and two
        ((0.5, 0.11, 0.09), 2.3, False),
        ((0.9, 0.5, 0.4), 2.3, False),
        (LOSSES, 2.32, False),
        ((0.5, None, 0.06), 2.3, False),
    ],
)
def test_loss_curves_agree_within_the_band(
    losses: tuple[float | None, ...], first: float, agrees: bool
) -> None:
    events = [*training(losses=losses, first_loss=first), numerics()]
    result = judge(NETWORK, [recorded("GPU", events), cpu()], Gates())
    assert result.curves[0].agrees is agrees
    assert codes(result) == ([] if agrees else ["VAL007"])


def test_small_losses_are_compared_on_a_scale_where_luck_does_not_count() -> None:
    assert difference(0.02682, 0.02256) < 0.05 < CURVE_BAND  # seen: one thread against two
    assert difference(None, None) == 0.0
    assert difference(1.0, None) == 1.0


def test_a_batch_of_more_than_all_samples_is_a_note() -> None:
    result = judge(NETWORK, [sampled(63)], Gates())
    assert result.notes == ("a batch of 64 is more than the 63 training samples: an epoch is one step",)
    assert judge(NETWORK, [sampled(64)], Gates()).notes == ()


def sampled(train: int) -> Recording:
    """The CPU's training on so many samples."""
    start, *rest = cpu().events
    assert isinstance(start, Data)
    return replace(cpu(), events=(replace(start, description={**start.description, "train": train}), *rest))


def test_a_halved_batch_is_said_and_its_curve_is_not_compared() -> None:
    events: list[Event] = [
        Begin(at=5.0, step=BUILDING),
        Built(at=5.5, batch_size=64, steps=16, seconds=0.5),
        Halved(at=6.0, batch_size=64, to=32, error="OOM when allocating"),
        *training(32, losses=(0.9, 0.8, 0.7), begins=7.0),
    ]
    result = judge(NETWORK, [recorded("GPU", events), cpu()], Gates())
    assert (result.outcome, codes(result), result.curves) == (Outcome.PASSED, ["VAL010"], ())
    assert [(r.asked_batch_size, r.batch_size) for r in result.devices] == [(64, 32), (64, 64)]


def died(kind: str = "error") -> Recording:
    failed = Failed(
        at=30.0,
        step="training",
        kind=kind,
        error="RuntimeError: \x1b[31mout of luck\nmore",
        trace='  File "model.py", line 7, in fit\nRuntimeError: out of luck\n',
    )
    return recorded("GPU", [*training()[:-3], failed], ending=Ending.FAILED)


def test_a_death_is_a_finding_with_what_was_measured_before(tmp_path: Path) -> None:
    result = judge(NETWORK, [died(), cpu()], Gates())
    assert (result.outcome, codes(result)) == (Outcome.FAILED, ["VAL001"])
    assert "after 2 of 3 epochs, loss 0.1100" in result.findings[0].finding.message
    assert 'File "model.py", line 7' in evidence(result)
    assert not result.devices[0].complete
    text = text_of(result, tmp_path)
    assert "✗ TensorFlow 2.21.0: the training died (VAL001)" in text
    assert "\x1b" not in text
    assert "2 in 5.0 s" in text


@pytest.mark.parametrize(
    ("ending", "code"), [(Ending.DIED, "VAL001"), (Ending.HUNG, "VAL003"), (Ending.NOT_STARTED, "VAL001")]
)
def test_every_way_to_end_too_early_is_an_error(ending: Ending, code: str) -> None:
    silent = replace(
        recorded("GPU", training()[:-2]), ending=ending, detail="SIGSEGV", stderr="a\nlast words"
    )
    result = judge(NETWORK, [silent, cpu()], Gates())
    assert codes(result) == [code]
    assert "last words" in evidence(result)


def test_memory_that_does_for_nothing_has_a_code_of_its_own() -> None:
    assert codes(judge(NETWORK, [died("memory"), cpu()], Gates())) == ["VAL002"]


def test_weights_on_another_device_are_an_error() -> None:
    result = judge(NETWORK, [recorded("GPU", training(on="CPU:0")), cpu()], Gates())
    assert "VAL004" in codes(result)
    assert result.outcome is Outcome.FAILED


def test_devices_that_started_from_different_weights_prove_nothing() -> None:
    other = recorded("GPU", training(), weights="bbbb")
    assert judge(NETWORK, [other, cpu()], Gates()).outcome is Outcome.UNDECIDED


def test_an_interruption_is_neither_passed_nor_failed(tmp_path: Path) -> None:
    cut = recorded("GPU", training()[:-2], ending=Ending.INTERRUPTED, detail="Ctrl-C")
    result = judge(NETWORK, [cut], Gates(min_speedup=3))
    assert (result.outcome, codes(result), result.undecided) == (Outcome.INTERRUPTED, [], ())
    assert "interrupted; what was measured" in text_of(result, tmp_path)


def document(result: Result) -> Any:
    whole = {
        "format_version": "1.0",
        "tool_version": "0",
        "target": {"python": "p", "chosen_by": "c", "root": "", "pid": None, "gpu_required": False},
        **result_document(result, 1.0),
    }
    import msgspec

    plain = json.loads(msgspec.json.encode(whole))
    jsonschema.validate(plain, {**SCHEMA, "anyOf": [{"$ref": "#/$defs/validate"}]})
    return plain


def test_every_kind_of_result_keeps_to_the_schema() -> None:
    passed = document(judge(NETWORK, [gpu(), cpu()], Gates()))
    assert passed["passed"] is True
    assert passed["speedup"]["steady"] == pytest.approx(10.0)
    assert passed["parameters"] == 96844
    assert passed["devices"][0]["epochs"][1]["seconds"] == 0.2
    assert document(judge(NETWORK, [died(), cpu()], Gates()))["passed"] is False
    assert document(judge(NETWORK, [cpu()], Gates()))["speedup"] is None
    timed = recorded(
        "CPU",
        [*training(), NumpyEpoch(at=50.0, dtype="float32", epoch_seconds=9.0, images=64, complete=False)],
    )
    assert document(judge(NETWORK, [timed], Gates()))["numpy"][0]["scaled"] is True


def test_the_text_has_the_verdict_first_and_every_proof(tmp_path: Path) -> None:
    text = text_of(judge(NETWORK, [gpu(), cpu()], Gates()), tmp_path)
    verdict = text.splitlines()[2]
    assert verdict == (
        "✓ TensorFlow 2.21.0 trains right on the GPU and CPU: 98.00% of the test digits, "
        "10.0 times as fast as the CPU"
    )
    for proof in ("96,844 parameters", "steady (5.00 to 20.00)", "worst conv2d_1 output 1.0e-07", "band 15%"):
        assert proof in text
    assert max(len(line) for line in text.splitlines()[2:]) < 130


def tuned(*epochs: tuple[float, float]) -> Result:
    """1, 2, 4… threads, with the seconds of two steady epochs of 1,000 images each."""
    tried = [
        ({"TF_NUM_INTRAOP_THREADS": str(2**n)}, recorded("CPU", training(seconds=(3.0, *pair))))
        for n, pair in enumerate(epochs)
    ]
    return judge(NETWORK, [cpu()], Gates(), threads=tune.ranked(tried))


def test_of_settings_about_as_fast_the_one_with_fewest_threads_is_chosen_and_none_is_best(
    tmp_path: Path,
) -> None:
    result = tuned((2.0, 2.0), (1.01, 1.01), (1.0, 1.0), (1.2, 1.2))
    assert [setting.chosen for setting in result.threads] == [False, True, False, False]
    assert not any(setting.best for setting in result.threads)
    assert result.threads[2].images_per_s == pytest.approx(1000)
    text = text_of(result, tmp_path)
    assert "none stands out" in text
    assert "export TF_NUM_INTRAOP_THREADS=2\n" in text


def test_a_faster_median_is_chosen_and_not_called_best_where_the_spreads_overlap(tmp_path: Path) -> None:
    result = tuned((2.0, 0.9), (1.25, 0.8))  # medians 806 and 1,025 images/s, spreads that overlap
    assert [(s.chosen, s.best) for s in result.threads] == [(False, False), (True, False)]
    assert "806 images/s (500 to 1,111)" in text_of(result, tmp_path)


def test_a_setting_that_stands_out_is_the_best_and_comes_with_its_export(tmp_path: Path) -> None:
    result = tuned((2.0, 1.9), (1.1, 1.0))
    assert [(s.chosen, s.best) for s in result.threads] == [(False, False), (True, True)]
    text = text_of(result, tmp_path)
    assert "the fastest, by more than epochs differ" in text
    assert "export TF_NUM_INTRAOP_THREADS=2\n" in text


def test_where_no_setting_came_to_an_end_none_is_chosen() -> None:
    dead = replace(recorded("CPU", []), ending=Ending.DIED)
    (setting,) = tune.ranked([({"TF_NUM_INTRAOP_THREADS": "1"}, dead)])
    assert (setting.images_per_s, setting.best, setting.chosen) == (None, False, False)


@pytest.mark.parametrize(("cpus", "quota", "widths"), [(8, 0, "1 2 4 8"), (64, 2, "1 2"), (1, 0, "1")])
def test_settings_are_tried_inside_the_quota(tmp_path: Path, cpus: int, quota: float, widths: str) -> None:
    facts = facts_of(tmp_path, cpus=cpus, quota=quota)
    tried = tune.settings(facts, "tensorflow")
    assert list(dict.fromkeys(s["TF_NUM_INTRAOP_THREADS"] for s in tried)) == widths.split()
    assert {s["TF_NUM_INTEROP_THREADS"] for s in tried} == {"1", "2"}
    assert all("NPROC" in setting for setting in tune.settings(facts, "jax"))
