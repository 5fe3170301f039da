"""A line on stderr for a training under way: epoch, loss, images per second, how long it will take."""

from __future__ import annotations

import sys
import time

from envdoctor.report.terminal import Terminal
from envdoctor.validate.protocol import BUILDING, Begin, Epoch, Event, Halved, Job, Step

_BAR = 20


class TrainingProgress:
    """Takes a worker's events; prints only on a terminal, and wipes its line at the end."""

    def __init__(self, label: str, job: Job, terminal: Terminal) -> None:
        self._label = label
        self._terminal = terminal
        self._live = sys.stderr.isatty()
        self._epochs = job.epochs
        self._started = time.monotonic()
        self._doing = "starting"
        self._first_seen: float | None = None  # when the steady epochs began
        self._done = 0  # epochs
        self._batches = len(job.batch_sizes)
        self._steps = 0
        self._text = ""

    def close(self) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def __call__(self, event: Event | None) -> None:
        if not self._live:
            return
        if isinstance(event, Begin):
            self._doing, self._text = event.step, ""
            if event.step == BUILDING:
                self._done, self._first_seen = 0, None
        elif isinstance(event, Halved):
            self._doing = f"out of memory, once more with batches of {event.to}"
        elif isinstance(event, Epoch):
            self._done = event.epoch + 1
            self._first_seen = self._first_seen or event.at
        elif isinstance(event, Step):
            loss = f"loss {event.loss:.4f}" if event.loss is not None else "loss not finite"
            self._text = (
                f"{self._bar()} epoch {event.epoch + 1}/{self._epochs}  {loss}  "
                f"{event.images_per_s:,.0f} images/s  {self._left(event)}"
            )
        seconds = time.monotonic() - self._started
        line = f"{self._label}  {self._text or f'{self._doing} … {seconds:.0f} s'}"
        sys.stderr.write("\r\x1b[K" + self._terminal.paint(line, "dim"))
        sys.stderr.flush()

    def _bar(self) -> str:
        filled = round(_BAR * self._done / self._epochs)
        full, empty = ("█", "░") if self._terminal.unicode else ("#", ".")
        return full * filled + empty * (_BAR - filled)

    def _left(self, event: Step) -> str:
        """By the epochs after the first, which compiles; "" before there is one."""
        if self._first_seen is None or self._done < 2:
            return ""
        an_epoch = (event.at - self._first_seen) / max(1, self._done - 1)
        return f"ETA {max(0, (self._epochs - self._done) * an_epoch):.0f} s"
