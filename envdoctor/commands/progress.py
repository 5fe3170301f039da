"""A sign of life on stderr for what takes longer than two seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from envdoctor.report.terminal import Terminal

SILENT_SECONDS = 1.0


@contextmanager
def waiting(what: str, terminal: Terminal) -> Iterator[None]:
    """Count the seconds beside `what` while the body runs; only on a terminal, and wiped afterwards."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    ticker = threading.Thread(target=_tick, args=(what, terminal, done), daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()


def _tick(what: str, terminal: Terminal, done: threading.Event) -> None:
    started = time.monotonic()
    shown = False
    while not done.wait(0.5 if shown else SILENT_SECONDS):
        seconds = time.monotonic() - started
        sys.stderr.write("\r" + terminal.paint(f"{what} … {seconds:.0f} s", "dim"))
        sys.stderr.flush()
        shown = True
    if shown:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
