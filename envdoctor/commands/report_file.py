"""The file of `--report`: what stands against it is found before the work; it appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from datetime import datetime

import click

from envdoctor.diagnose import Linked
from envdoctor.errors import UsageError
from envdoctor.facts.model import Facts
from envdoctor.report.terminal import harmless
from envdoctor.shell import quoted
from envdoctor.validate.judge import Outcome, Result
from envdoctor.validate.networks import Network, parameters

INTERRUPTED = 130
NEEDED = 4 << 20  # bytes free; a report with curves of six trainings has less than 2 MiB


class ReportFile:
    """Where a report will be written.

    Raises:
        UsageError: no such directory, no permission, no space, or what stands there is no regular file.

    """

    def __init__(self, path: str) -> None:
        self.shown = path
        self._path = os.path.realpath(path)  # a link goes on pointing to its file
        self._directory, name = os.path.split(self._path)
        self._beside = os.path.join(self._directory, f".{name}.{os.getpid()}")
        try:
            self._check()
            self._put("")  # permission bits do not tell of read-only mounts and quotas
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = getattr(error, "strerror", None) or error
            raise UsageError(
                f"--report {path}: {reason}; expected a file in a directory that can be written"
            ) from None

    def _check(self) -> None:
        if not os.path.isdir(self._directory):
            raise OSError(0, f"there is no directory {self._directory}")
        if os.path.isdir(self._path) or self.shown.endswith("/"):
            raise OSError(0, "this is a directory")
        if os.path.exists(self._path) and not stat.S_ISREG(os.stat(self._path).st_mode):
            raise OSError(0, "this is no regular file")
        if os.path.exists(self._path) and not os.access(self._path, os.W_OK):
            raise OSError(0, "the file that is there is write-protected")
        space = os.statvfs(self._directory)
        free = space.f_bavail * space.f_frsize
        if space.f_blocks and free < NEEDED:
            raise OSError(0, f"{free / 2**20:.1f} MiB are free, {NEEDED >> 20} MiB are needed")

    def write(self, text: str) -> None:
        """Beside its place, then renamed; with the permissions that any new file has.

        Raises:
            OSError: it could not be written; what was there before is still there.

        """
        self._put(text, replace=True)

    def _put(self, text: str, *, replace: bool = False) -> None:
        """Into the file beside, which is gone afterwards."""
        descriptor = os.open(self._beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())  # a full disk may show only now
            if replace:
                os.replace(self._beside, self._path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._beside)


class Report:
    """The report of this call of the program, where one is wanted; before the training begins."""

    def __init__(self, path: str | None) -> None:
        self._began = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
        self._file = None if path is None else ReportFile(path)
        if path is not None:
            _require_matplotlib()

    def write(self, facts: Facts, result: Result, seconds: float, code: int, seed: int | None = None) -> int:
        """The exit code: `code`, or 1 where the report could not be written after all."""
        if self._file is None:
            return code
        from envdoctor.report.html import Conduct, render_html  # noqa: PLC0415

        command = " ".join(map(quoted, ["envdoctor", *sys.argv[1:]]))
        conduct = Conduct(command=command, began=self._began, seconds=seconds, seed=seed)
        try:
            self._file.write(render_html(facts, result, conduct))
        except OSError as error:
            reason = error.strerror or error
            click.echo(
                f"envdoctor: --report {harmless(self._file.shown)}: {reason}; nothing was written", err=True
            )
            return code if code == INTERRUPTED else 1
        click.echo(f"report: {harmless(self._file.shown)}", err=True)
        return code


def untrained(
    network: Network, backend: str, batch_sizes: tuple[int, ...], findings: tuple[Linked, ...]
) -> Result:
    """What a report says where nothing was trained: why not."""
    return Result(
        outcome=Outcome.FAILED,
        backend=backend,
        network=network,
        parameters=parameters(network),
        batch_sizes=batch_sizes,
        epochs=network.epochs,
        data=None,
        bound=None,
        devices=(),
        speedups=(),
        numerics=(),
        curves=(),
        numpy=(),
        threads=(),
        notes=("no usable GPU: nothing was trained",),
        undecided=(),
        findings=findings,
        activations=None,
        stand_in=False,
    )


def _require_matplotlib() -> None:
    """Imported for good: an installation that is broken is known before the training, not after it.

    Raises:
        UsageError: it is missing, or cannot be imported.

    """
    from envdoctor.report.charts import load_matplotlib  # noqa: PLC0415

    try:
        load_matplotlib()
    except Exception as error:  # noqa: BLE001  a NumPy of another ABI raises what it likes
        reason = "is not installed" if isinstance(error, ModuleNotFoundError) else f"fails: {error}"
        first = str(reason).partition("\n")[0]
        raise UsageError(
            f"--report draws with matplotlib, which {first} in envdoctor's own environment ({sys.prefix}); "
            f"expected it there: {quoted(sys.executable)} -m pip install 'matplotlib>=3.7'"
        ) from None
