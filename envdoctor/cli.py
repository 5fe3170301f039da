"""The command line: parse, call, print. No judgement here."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from envdoctor import __version__
from envdoctor.errors import Interrupted, UsageError
from envdoctor.options import COLOR, JSON, BatchSizes, Codes, Threads, target_options

if TYPE_CHECKING:
    from envdoctor.diagnose import Diagnosis
    from envdoctor.facts.model import Facts
    from envdoctor.report.terminal import Terminal
    from envdoctor.target import Target

OK, FINDINGS, USAGE, UNDECIDED, DEFECT, INTERRUPTED = 0, 1, 2, 3, 4, 130


def run(arguments: Sequence[str]) -> int:
    """The whole command; the exit code (DESIGN: 0 clean … 130 interrupted)."""
    try:
        result = main.main(args=list(arguments), prog_name="envdoctor", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return USAGE
    except UsageError as error:
        _say(f"envdoctor: {error}")
        return USAGE
    except (Interrupted, KeyboardInterrupt, click.Abort) as stopped:
        _say(f"envdoctor: interrupted{f'; {stopped}' if str(stopped) else ''}")
        return INTERRUPTED
    except BrokenPipeError:  # `envdoctor check | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:
        if os.environ.get("ENVDOCTOR_TRACEBACK"):
            raise
        _say(
            f"envdoctor: internal error: {type(error).__name__}: {error} "
            "(ENVDOCTOR_TRACEBACK=1 shows where; please report it)"
        )
        return DEFECT
    return result if isinstance(result, int) else OK


def _say(text: str) -> None:
    from envdoctor.report.terminal import harmless  # noqa: PLC0415

    click.echo(harmless(text), err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="envdoctor %(version)s")
def main() -> None:
    """Why does TensorFlow not use the GPU? The one cause, and what repairs it."""


@main.command()
@target_options
@click.option(
    "--pid",
    type=click.IntRange(min=1),
    metavar="PID",
    help="Examine this running Python process; nothing is started in it.",
)
@click.option("--quick", is_flag=True, help="Facts only: no framework is imported.")
@click.option("--select", multiple=True, type=Codes(), help="Look for these conditions only.")
@click.option("--ignore", multiple=True, type=Codes(), help="Do not look for these conditions.")
@click.option("--list-checks", is_flag=True, help="List what is looked for, and stop.")
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning"]),
    default="error",
    show_default=True,
    help="Exit 1 for findings at or above this.",
)
@click.option("--format", "output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("-v", "--verbose", is_flag=True, help="Show every check, with its reason and its time.")
@click.option("-q", "--quiet", is_flag=True, help="Show the verdicts only.")
def check(
    python: str | None,
    root: str | None,
    gpu: bool,
    timeout: float,
    as_json: bool,
    color: str,
    pid: int | None,
    quick: bool,
    select: tuple[frozenset[str], ...],
    ignore: tuple[frozenset[str], ...],
    list_checks: bool,
    fail_on: str,
    output: str,
    verbose: bool,
    quiet: bool,
) -> int:
    """Say what is wrong, root cause first.

    Exit code: 0 nothing is wrong; 1 a finding at or above --fail-on; 2 bad usage; 3 nothing failed, but
    something that matters could not be judged; 4 a defect of envdoctor.
    """
    if list_checks:
        _list_checks()
        return OK
    started = time.perf_counter()
    target = _target(python, root, gpu=gpu, timeout=timeout, pid=pid)
    facts = _gather(target, quick=quick, color=color)
    from envdoctor.diagnose import diagnose, plugin_failed  # noqa: PLC0415
    from envdoctor.fixes.propose import propose  # noqa: PLC0415
    from envdoctor.plugins import load_plugins  # noqa: PLC0415

    failures = tuple(plugin_failed(f.plugin, f.reason) for f in load_plugins())
    diagnosis = diagnose(facts, _union(select), _union(ignore), failures)
    proposal = propose(facts, diagnosis)
    if as_json or output == "json":
        from envdoctor.report.envelope import check_document, encode  # noqa: PLC0415

        click.echo(encode(check_document(facts, diagnosis, proposal.cures)), nl=False)
    else:
        from envdoctor.report.text import render  # noqa: PLC0415

        seconds = time.perf_counter() - started
        click.echo(
            render(
                facts,
                diagnosis,
                proposal,
                _terminal(color),
                seconds=seconds,
                verbosity=verbose - quiet,
            ),
            nl=False,
            color=True,
        )
    for defect in diagnosis.defects:
        _say(f"envdoctor: internal error in {defect}")
    return _exit_code(diagnosis, fail_on)


@main.command()
@target_options
@click.option("--only", multiple=True, type=Codes(), help="Repair these findings only.")
@click.option(
    "--prefer",
    type=click.Choice(["symlink", "export"]),
    default="symlink",
    show_default=True,
    help="Which kind of repair to try first.",
)
@click.option(
    "--allow-risky", is_flag=True, help="Also what may fail later, such as a link to another version."
)
@click.option(
    "--to",
    metavar="FILE",
    type=click.Path(),
    help="Write exports to this file: direnv's .envrc, else NAME=value lines (systemd, docker --env-file).",
)
@click.option(
    "--run",
    "run_commands",
    multiple=True,
    type=Codes(),
    help="Also run the package command for this finding, without asking.",
)
@click.option("--diff", is_flag=True, help="Show every line that would be written.")
@click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")
@click.option("--exit-code", is_flag=True, help="With --dry-run: exit 1 where changes are pending.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def fix(
    python: str | None,
    root: str | None,
    gpu: bool,
    timeout: float,
    as_json: bool,
    color: str,
    only: tuple[frozenset[str], ...],
    prefer: str,
    allow_risky: bool,
    to: str | None,
    run_commands: tuple[frozenset[str], ...],
    diff: bool,
    dry_run: bool,
    exit_code: bool,
    yes: bool,
) -> int:
    """Show the plan, ask, apply it, check again, and say how to undo it.

    Every repair is proven first: it is applied to the facts in memory and judged again. No root is needed,
    and nothing that envdoctor did not make is overwritten. A package command is run only on a yes of its own.
    """
    from envdoctor.commands.fix import Options, run_fix  # noqa: PLC0415
    from envdoctor.fixes.repair import Prefer, Wishes  # noqa: PLC0415

    if root is not None and not dry_run:
        raise UsageError(
            "--root examines a tree and changes nothing in it; add --dry-run, or run fix inside it"
        )
    return run_fix(
        _target(python, root, gpu=gpu, timeout=timeout),
        Options(
            wishes=Wishes(
                prefer=Prefer(prefer),
                allow_risky=allow_risky,
                only=_union(only),
                to=os.path.abspath(to) if to else "",
            ),
            run=_union(run_commands),
            dry_run=dry_run,
            exit_code=exit_code,
            diff=diff,
            yes=yes,
            as_json=as_json,
        ),
        _terminal(color),
    )


@main.command()
@click.option("--python", metavar="PY", help="Interpreter to examine, as in `check`.")
@click.option("--root", metavar="DIR", help="Judge the file tree below DIR; nothing in it is executed.")
@click.option(
    "--shell",
    type=click.Choice(["sh", "bash", "zsh", "fish", "csh", "dotenv", "json"]),
    default="sh",
    show_default=True,
    help="What is to read it.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Seconds that a child may take.",
)
def env(python: str | None, root: str | None, shell: str, timeout: float) -> int:
    """Print the exports that the plan would make, and nothing where none is needed.

    \b
    eval "$(envdoctor env)"              bash, zsh, dash
    envdoctor env --shell fish | source
    eval "`envdoctor env --shell csh`"

    What exports cannot cure is said on stderr. Exit code: 0; 1 where this shell cannot hold a value.
    """  # noqa: D301  click reads that character
    from envdoctor.commands.env import run_env  # noqa: PLC0415

    facts = _gather(_target(python, root, gpu=False, timeout=timeout), quick=True, color="never")
    return run_env(facts, shell)


@main.command()
@click.argument("journal", metavar="[ID]", required=False)
@click.option("--list", "list_them", is_flag=True, help="List what was fixed, and stop.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@JSON
@COLOR
def undo(journal: str | None, list_them: bool, yes: bool, as_json: bool, color: str) -> int:
    """Take back the last fix, or the one named, exactly."""
    from envdoctor.commands.undo import run_list, run_undo  # noqa: PLC0415

    if list_them:
        return run_list(as_json=as_json)
    return run_undo(journal, _terminal(color), yes=yes, as_json=as_json)


@main.command()
@click.option("--gpu", is_flag=True, help="A GPU is required; without a usable one nothing is trained.")
@click.option("--cpu", is_flag=True, help="Train on the CPU alone.")
@click.option(
    "--python",
    metavar="PY",
    help="Interpreter to train with: a path, an environment or a command. Default: as for check.",
)
@click.option(
    "--backend",
    type=click.Choice(["tensorflow", "jax", "torch"]),
    help="What Keras runs on. Default: TensorFlow where it is installed, else what is.",
)
@click.option("--network", default="mnist-cnn", show_default=True, metavar="NAME", help="What to train.")
@click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="Default: the network's own.")
@click.option(
    "--batch-size",
    "batch_sizes",
    type=BatchSizes(),
    help="Several: a row each; the first is judged. Default: the network's own.",
)
@click.option(
    "--data",
    default="auto",
    show_default=True,
    metavar="auto|mnist|digits|FILE.npz",
    help="MNIST, scikit-learn's digits, or a file with x_train, y_train, x_test, y_test.",
)
@click.option("--samples", type=click.IntRange(min=1), metavar="N", help="Training samples an epoch.")
@click.option(
    "--min-speedup", type=click.FloatRange(min=0, min_open=True), metavar="X", help="Fail below it."
)
@click.option(
    "--min-accuracy",
    type=click.FloatRange(min=0, max=1),
    metavar="A",
    help="Fail below it (0 to 1). Default: what belongs to the network and the data.",
)
@click.option(
    "--threads", type=Threads(), metavar="N|tune", help="Limit the CPU's threads, or find the best limit."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="S",
    help="Seconds without a sign of life after which a training is ended.",
)
@click.option(
    "--report",
    metavar="FILE.html",
    help="Write a report with charts, one file to be kept or sent (needs matplotlib).",
)
@JSON
@COLOR
@click.option("--stand-in", is_flag=True, hidden=True, help="A second logical CPU device instead of a GPU.")
def validate(
    gpu: bool,
    cpu: bool,
    python: str | None,
    backend: str | None,
    network: str,
    epochs: int | None,
    batch_sizes: tuple[int, ...] | None,
    data: str,
    samples: int | None,
    min_speedup: float | None,
    min_accuracy: float | None,
    threads: str | None,
    timeout: float,
    report: str | None,
    as_json: bool,
    color: str,
    stand_in: bool,
) -> int:
    """Train a small network on the CPU, and on the GPU if it is usable: as right, and how much faster.

    Exit code: 0 passed; 1 wrong, too slow, too inaccurate, or it died; 2 bad usage or bad data; 3 what was
    asked for could not be judged; 130 interrupted, with what was measured until then.
    """
    from envdoctor.commands.validate import Options, run_validate  # noqa: PLC0415
    from envdoctor.validate.judge import Gates  # noqa: PLC0415

    if gpu and cpu:
        raise UsageError("--gpu and --cpu exclude each other: a GPU is required, or not wanted")
    if cpu and min_speedup is not None:
        raise UsageError("--min-speedup compares a GPU with the CPU; expected it without --cpu")
    if stand_in and (gpu or cpu or backend not in {None, "tensorflow"}):
        raise UsageError(
            "--stand-in is a second CPU device of TensorFlow's; expected no other device with it"
        )
    return run_validate(
        _target(python, None, gpu=gpu, timeout=min(timeout, 60.0)),
        Options(
            gpu=gpu,
            cpu=cpu,
            backend="tensorflow" if stand_in else backend,
            network=network,
            epochs=epochs,
            batch_sizes=batch_sizes or (),
            data=data,
            samples=samples,
            gates=Gates(min_accuracy=min_accuracy, min_speedup=min_speedup),
            threads=threads,
            timeout=timeout,
            as_json=as_json,
            stand_in=stand_in,
            report=report,
        ),
        _terminal(color),
        _terminal(color, err=True),
    )


@main.command()
@click.argument("what", metavar="FILE|-|CODE|NAME")
@click.option("--check", "with_check", is_flag=True, help="Join the log and the facts of this machine.")
@click.option("--python", metavar="PY", help="With --check: the interpreter to examine.")
@JSON
@COLOR
def explain(what: str, with_check: bool, python: str | None, as_json: bool, color: str) -> int:
    """Name the causes in a log (a file, or - for standard input), or show the page of a condition.

    Exit code: 0 no error was found in the log; 1 an error was; 2 bad input.
    """
    from envdoctor.commands.explain import run_explain  # noqa: PLC0415

    if python is not None and not with_check:
        raise UsageError("--python says what --check examines; add --check")

    def gather() -> Facts:
        return _gather(_target(python, None, gpu=False, timeout=60.0), quick=False, color=color)

    return run_explain(what, _terminal(color), as_json=as_json, gather=gather if with_check else None)


def _target(
    python: str | None, root: str | None, *, gpu: bool, timeout: float, pid: int | None = None
) -> Target:
    from envdoctor.target import choose_target, process_target  # noqa: PLC0415

    if pid is not None:
        return process_target(pid, python, root, gpu_required=gpu, timeout=timeout)
    return choose_target(python, root, dict(os.environ), gpu_required=gpu, timeout=timeout)


def _gather(target: Target, *, quick: bool, color: str) -> Facts:
    from envdoctor.facts.driver import ask_driver  # noqa: PLC0415

    probes = ask_driver(target)  # first of all: the rest is imported while the driver answers
    import envdoctor.diagnose  # noqa: PLC0415  likewise
    from envdoctor.commands.progress import waiting  # noqa: PLC0415
    from envdoctor.facts.gather import gather  # noqa: PLC0415

    if quick or target.process:  # nothing is started for a running process
        envdoctor.diagnose.load_all()
        return gather(target, quick=True, driver_probes=probes)
    with waiting("importing the framework", _terminal(color, err=True)):
        return gather(target, quick=False, driver_probes=probes)


def _terminal(color: str, *, err: bool = False) -> Terminal:
    from envdoctor.report.terminal import terminal_for  # noqa: PLC0415

    return terminal_for(sys.stderr if err else sys.stdout, os.environ, color)


def _union(sets: tuple[frozenset[str], ...]) -> frozenset[str]:
    return frozenset().union(*sets)


def _exit_code(diagnosis: Diagnosis, fail_on: str) -> int:
    from envdoctor.catalog import Severity  # noqa: PLC0415

    limit = Severity(fail_on).rank
    if any(linked.finding.severity.rank <= limit for linked in diagnosis.findings):
        return FINDINGS
    if diagnosis.defects:
        return DEFECT
    return UNDECIDED if diagnosis.undecided else OK


def _list_checks() -> None:
    from envdoctor.catalog import rows  # noqa: PLC0415
    from envdoctor.plugins import load_plugins  # noqa: PLC0415

    load_plugins()
    for row in rows():
        how = "logs only"
        if row.check:
            how = "runs the framework" if row.runs_framework else "facts"
        elif row.area == "validation":
            how = "validate"
        click.echo(f"{row.code}  {row.area:<12} {row.severity.value:<8} {row.name:<34} {how}")
