"""What the worker says: one JSON object a line, on a descriptor of its own. Standard library, Python 3.9+."""

import json
import math
import os
import sys
import threading
import time


class Channel:
    """Events, each with the moment in seconds of CLOCK_MONOTONIC, which all processes of a machine share."""

    def __init__(self, descriptor):
        _end_with_parent()
        self._file = os.fdopen(descriptor, "w")
        self._pid = os.getpid()
        self._lock = threading.Lock()  # Keras calls callbacks from threads
        self.step = "start"

    def say(self, event, **values):
        if os.getpid() != self._pid:  # a framework that forked: its child is not the worker
            return
        line = json.dumps(_finite(dict(values, event=event, at=time.monotonic())), allow_nan=False)
        with self._lock:
            self._file.write(line + "\n")
            self._file.flush()

    def begin(self, step):
        """Before it is tried: a step that never ends is known by this."""
        self.step = step
        self.say("begin", step=step)

    def leave(self, status):
        """End without the framework's own teardown, which takes time and has been seen to crash."""
        if status == 0:
            self.say("done")
        self._file.close()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _finite(value):
    """JSON has no NaN and no infinity: None stands for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, (list, tuple)) else value


def _end_with_parent():
    """End when the doctor ends, also where it is killed: PR_SET_PDEATHSIG (prctl(2)), SIGKILL."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, 9)
    except Exception:  # no ctypes: the doctor kills the group
        pass


def describe(error):
    text = str(error).strip()
    return "%s: %s" % (type(error).__name__, text[:2000]) if text else type(error).__name__
