"""`envdoctor validate`: train on the CPU and on the GPU, and judge both."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from dataclasses import dataclass, replace

import click
from msgspec.structs import replace as with_

from envdoctor.checks.machine import simulated, title
from envdoctor.commands.report_file import Report, untrained
from envdoctor.commands.training_progress import TrainingProgress
from envdoctor.diagnose import Diagnosis, Gpu, Verdict, diagnose, load_all
from envdoctor.errors import UsageError
from envdoctor.facts.driver import ask_driver
from envdoctor.facts.gather import gather
from envdoctor.facts.model import Facts, Packages, Unavailable
from envdoctor.fixes.propose import propose
from envdoctor.report.envelope import encode, envelope, finding_rows
from envdoctor.report.terminal import Terminal
from envdoctor.report.text import render
from envdoctor.report.validate_json import result_document
from envdoctor.report.validate_text import render_validation
from envdoctor.shell import quoted
from envdoctor.target import Target
from envdoctor.validate import tune
from envdoctor.validate.judge import Gates, Outcome, Result, Tuning, judge
from envdoctor.validate.networks import Network, describe, load, parameters
from envdoctor.validate.protocol import DataWanted, Job
from envdoctor.validate.recording import Ending, Recording
from envdoctor.validate.runner import run

BACKENDS = ("tensorflow", "torch", "jax")  # the first that is installed is the default
EXIT = {Outcome.PASSED: 0, Outcome.FAILED: 1, Outcome.UNDECIDED: 3, Outcome.INTERRUPTED: 130}
NUMPY_SECONDS = 0.25  # for each of float32 and float64
QUESTIONS = {"data", "missing", "old-keras"}  # why a worker ends that the user can repair: exit 2


@dataclass(frozen=True)
class Options:
    gpu: bool  # one is required
    cpu: bool  # nothing else is wanted
    backend: str | None
    network: str
    epochs: int | None
    batch_sizes: tuple[int, ...]
    data: str
    samples: int | None
    gates: Gates
    threads: str | None  # a number, or "tune"
    timeout: float  # seconds of silence
    as_json: bool
    stand_in: bool = False  # a second logical CPU device instead of a GPU
    report: str | None = None  # an HTML file


def run_validate(target: Target, options: Options, terminal: Terminal, progress: Terminal) -> int:
    """0 passed; 1 failed; 3 could not be judged; 130 interrupted.

    Raises:
        UsageError: no such network, no framework or Keras in the target, bad data, options that exclude
            each other.

    """
    started = time.perf_counter()
    report = Report(options.report)
    network = load(options.network, epochs=options.epochs, batch_size=(*options.batch_sizes, None)[0])
    target = replace(target, gpu_required=options.gpu)
    probes = ask_driver(target)
    load_all()
    facts = gather(target, quick=True, driver_probes=probes)
    backend = _backend(facts, options.backend)
    _check_keras(facts, backend)
    diagnosis = diagnose(facts)
    verdict = next((v for v in diagnosis.verdicts if v.framework == backend), None)
    usable, notes = _gpu(facts, verdict, backend, options)
    if options.gpu and not usable:
        return _no_gpu(facts, diagnosis, backend, network, options, report, terminal, started)
    job = Job(
        backend=backend,
        device="cpu",
        description=describe(network),
        data=DataWanted(spec=options.data, samples=options.samples),
        batch_sizes=options.batch_sizes or (network.batch_size,),
        epochs=network.epochs,
        numpy_seconds=NUMPY_SECONDS,
        activations=options.report is not None,
    )
    devices = _devices(job, options, gpu=usable)
    recordings, tuning = _Session(target, options, facts, progress).train(devices)
    failure = recordings[0].failure
    if failure is not None and failure.kind in QUESTIONS:
        raise UsageError(_question(failure.kind, failure.error, target, backend, options.data))
    if failure is not None and failure.kind == "no-device":
        return _not_registered(target, failure.error, network, recordings, options, report, terminal, started)
    result = judge(network, recordings, options.gates, threads=tuning, notes=notes)
    seconds = time.perf_counter() - started
    _print(facts, result, options, terminal, seconds)
    return report.write(facts, result, seconds, EXIT[result.outcome], job.seed)


class _Session:
    """The trainings of one call, one after another: never two at once."""

    def __init__(self, target: Target, options: Options, facts: Facts, terminal: Terminal) -> None:
        self._target = target
        self._options = options
        self._facts = facts
        self._terminal = terminal

    def train(self, devices: list[tuple[str, Job]]) -> tuple[list[Recording], tuple[Tuning, ...]]:
        """The GPU first, where there is one: what is asked about is known first. Ctrl-C ends all."""
        tuning: tuple[Tuning, ...] = ()
        if self._options.threads == "tune":
            tuning, ended = self._tune(devices[-1][1])
            if ended is not None:
                return [ended], tuning
            chosen = next((t for t in tuning if t.chosen), None)
            self._set(chosen.variables if chosen else {})
        elif self._options.threads is not None:
            self._set(tune.variables(devices[-1][1].backend, int(self._options.threads), None))
        recordings = []
        for label, job in devices:
            recordings.append(self._run(label, job))
            if _ends_all(recordings[-1]):
                break
        return recordings, tuning

    def _tune(self, job: Job) -> tuple[tuple[Tuning, ...], Recording | None]:
        short = tune.short_job(job)
        tried: list[tuple[dict[str, str], Recording]] = []
        for setting in tune.settings(self._facts, job.backend):
            before = self._target
            self._set(setting)
            recording = self._run(f"CPU, {tune.line(setting)}", short)
            self._target = before
            if _ends_all(recording):
                return tune.ranked(tried), recording
            tried.append((setting, recording))
        return tune.ranked(tried), None

    def _set(self, variables: dict[str, str]) -> None:
        self._target = replace(self._target, environment={**self._target.environment, **variables})

    def _run(self, label: str, job: Job) -> Recording:
        with closing(TrainingProgress(label, job, self._terminal)) as progress:
            return run(job, label, self._target, self._options.timeout, progress)


def _ends_all(recording: Recording) -> bool:
    """Whether no other training makes sense after this one."""
    failure = recording.failure
    return recording.ending is Ending.INTERRUPTED or (
        failure is not None and failure.kind in {*QUESTIONS, "no-device"}
    )


def _devices(job: Job, options: Options, *, gpu: bool) -> list[tuple[str, Job]]:
    """Label and job of each training; the CPU, which others are compared with, comes last."""
    if options.stand_in:
        split = with_(job, logical_cpus=2)
        accelerator = with_(split, device="cpu:1", numpy_seconds=0.0, activations=False)
        return [("CPU:1", accelerator), ("CPU:0", with_(split, device="cpu:0"))]
    accelerators = [("GPU", with_(job, device="gpu", numpy_seconds=0.0))] if gpu else []
    return [*accelerators, ("CPU", job)]


def _backend(facts: Facts, wanted: str | None) -> str:
    installed = () if isinstance(facts.frameworks, Unavailable) else facts.frameworks
    names = [framework.name for framework in installed]
    python = quoted(facts.target.python)
    if wanted is None:
        found = next((name for name in BACKENDS if name in names), None)
        if found is None:
            raise UsageError(
                f"no framework is installed for {facts.target.python}; expected TensorFlow, PyTorch or JAX, "
                f"with Keras 3: {python} -m pip install tensorflow"
            )
        return found
    if wanted not in names:
        others = f" ({', '.join(map(title, names))} is)" if names else ""
        raise UsageError(
            f"--backend {wanted}: {title(wanted)} is not installed for {facts.target.python}{others}; "
            f"expected it there: {python} -m pip install {wanted}"
        )
    return wanted


def _check_keras(facts: Facts, backend: str) -> None:
    """Before anything is started; what the list of packages does not tell, the worker will."""
    if not isinstance(facts.packages, Packages):
        return
    found = facts.packages.named("keras")
    install = f"{quoted(facts.target.python)} -m pip install 'keras>=3'"
    if not found:
        raise UsageError(
            f"Keras is not installed for {facts.target.python}; expected Keras 3 or later to train with: "
            f"{install}"
        )
    if found[0].version.split(".")[0] in {"1", "2"}:
        raise UsageError(
            f"Keras {found[0].version} cannot train with {title(backend)} here; expected Keras 3 or later: "
            f"{install}"
        )


def _gpu(
    facts: Facts, verdict: Verdict | None, backend: str, options: Options
) -> tuple[bool, tuple[str, ...]]:
    """Whether to train on a GPU, and what to say where not. The training itself is the proof."""
    if options.cpu or options.stand_in:
        return False, ()
    if simulated(facts):
        return False, ("the driver is SIMULATED: nothing can be trained on its GPUs",)
    if verdict is None or verdict.gpu in {Gpu.UNUSABLE, Gpu.ABSENT}:
        cause = f" ({verdict.cause})" if verdict and verdict.cause else ""
        why = "there is no GPU here" if verdict and verdict.gpu is Gpu.ABSENT else f"check says no{cause}"
        return False, (f"only the CPU was trained on: {title(backend)} uses no GPU, {why}",)
    if verdict.gpu is Gpu.UNKNOWN and not options.gpu:
        return False, (f"only the CPU was trained on: whether a GPU is usable is unknown ({verdict.reason})",)
    return True, ()


def _no_gpu(
    facts: Facts,
    diagnosis: Diagnosis,
    backend: str,
    network: Network,
    options: Options,
    report: Report,
    terminal: Terminal,
    started: float,
) -> int:
    """What `check` says of it, and no training."""
    proposal = propose(facts, diagnosis)
    if options.as_json:
        document = {
            **envelope(facts),
            "passed": False,
            "reason": "no usable GPU: nothing was trained",
            "network": network.name,
            "parameters": parameters(network),
            "data": None,
            "devices": [],
            "speedup": None,
            "numerics": [],
            "findings": finding_rows(diagnosis.findings, proposal.cures),
        }
        click.echo(encode(document), nl=False)
    else:
        seconds = time.perf_counter() - started
        click.echo(render(facts, diagnosis, proposal, terminal, seconds=seconds), nl=False, color=True)
        simulates = ": the driver is SIMULATED" if simulated(facts) else ""
        click.echo(
            f"No usable GPU{simulates}: nothing was trained (envdoctor validate --cpu trains without)."
        )
    result = untrained(network, backend, options.batch_sizes or (network.batch_size,), diagnosis.findings)
    return report.write(facts, result, time.perf_counter() - started, 1)


def _not_registered(
    target: Target,
    error: str,
    network: Network,
    recordings: list[Recording],
    options: Options,
    report: Report,
    terminal: Terminal,
    started: float,
) -> int:
    """By its files the GPU should be used, and the framework does not: now the framework is asked why."""
    facts = gather(target, quick=False)
    diagnosis = diagnose(facts)
    if options.gpu or any(v.gpu is Gpu.UNUSABLE for v in diagnosis.verdicts):
        backend = recordings[0].job.backend
        return _no_gpu(facts, diagnosis, backend, network, options, report, terminal, started)
    result = judge(network, recordings, options.gates, notes=(error,))
    seconds = time.perf_counter() - started
    _print(facts, result, options, terminal, seconds)
    return report.write(facts, result, seconds, 1)


def _question(kind: str, error: str, target: Target, backend: str, data: str) -> str:
    if kind == "data":
        return error if data in error or error.startswith("--") else f"--data {data}: {error}"
    install = f"{quoted(target.python)} -m pip install"
    if kind == "missing":
        expected = f"expected NumPy, Keras 3 and {title(backend)}: {install} 'keras>=3' numpy"
        return f"{target.python} cannot train: {error}; {expected}"
    return f"{error} for {target.python}; expected Keras 3 or later: {install} 'keras>=3'"


def _print(facts: Facts, result: Result, options: Options, terminal: Terminal, seconds: float) -> None:
    if options.as_json:
        click.echo(encode({**envelope(facts), **result_document(result, seconds)}), nl=False)
    else:
        click.echo(render_validation(facts, result, terminal, seconds=seconds), nl=False, color=True)
    sys.stdout.flush()
