"""Ctrl-C (and a closed terminal, and a polite kill) waits until the step at hand is whole.

An exception between any two instructions leaves what nobody can clean up; a note looked at
between two steps does not.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from envdoctor.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    def __init__(self) -> None:
        self.pending: int | None = None

    def note(self, number: int, _frame: FrameType | None) -> None:
        self.pending = number

    def check(self) -> None:
        """Raises Interrupted where a signal came; it counts as answered then."""
        if self.pending is not None:
            self.pending = None
            raise Interrupted


@contextmanager
def deferred() -> Iterator[Interrupts]:
    """Signals that came, and were not answered with `check`, have their usual effect at the end."""
    interrupts = Interrupts()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # None: not Python's, it could not be put back
                before[number] = handler
                signal.signal(number, interrupts.note)
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if interrupts.pending is not None:
        signal.raise_signal(interrupts.pending)
