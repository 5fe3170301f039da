"""What the probes share. Runs in the target's interpreter: standard library only, Python 3.7 and later."""

import json
import os
import sys
import time

MEASURE_SECONDS = 0.2
# Of what is mapped, the libraries that matter to a GPU: CUDA's, cuDNN's, NVIDIA's own
MAPPED = ("libcu", "libnv", "libnccl", "libcudnn")


class Channel:
    """One JSON object a line, on a descriptor of its own: what the framework prints is elsewhere."""

    def __init__(self, descriptor):
        with_parent()
        self._file = os.fdopen(descriptor, "w")
        self._pid = os.getpid()

    def say(self, step, **values):
        if os.getpid() != self._pid:  # a framework that forked: its child is not the probe
            return
        self._file.write(json.dumps(dict(values, step=step)) + "\n")
        self._file.flush()

    def begin(self, step):
        """Before it is tried: a step that never ends is known by this."""
        self.say("begin", name=step)

    def attempt(self, step, function):
        """Try a step; what it raises is its result."""
        self.begin(step)
        try:
            self.say(step, **function())
        except Exception as error:
            self.say(step, error=describe(error))

    def leave(self):
        """End without the framework's own teardown, which takes time and has been seen to crash."""
        self.say("done")
        self._file.close()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def with_parent():
    """End when the doctor ends, also where it is killed: PR_SET_PDEATHSIG (prctl(2)), SIGKILL."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, 9)
    except Exception:  # no ctypes: it ends by its deadline
        pass


def describe(error):
    text = str(error).strip()
    return "%s: %s" % (type(error).__name__, text[:2000]) if text else type(error).__name__


def peak_memory():
    """Bytes; Linux counts ru_maxrss in KiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def mapped_libraries():
    """The files that are really mapped, not those that were wished for (proc(5), maps)."""
    found = []
    with open("/proc/self/maps", errors="surrogateescape") as maps:
        for line in maps:
            path = line.rstrip("\n").split(None, 5)[5:]
            if path and path[0] not in found and os.path.basename(path[0]).startswith(MAPPED):
                found.append(path[0])
    return [p.encode("utf-8", "replace").decode() for p in found]


def thread_count():
    return len(os.listdir("/proc/self/task"))


def parallelism(function):
    """CPU seconds per wall second while `function` is called again and again."""
    function()
    calls = 0
    cpu, wall = time.process_time(), time.perf_counter()
    while True:
        function()
        calls += 1
        elapsed = time.perf_counter() - wall
        if elapsed >= MEASURE_SECONDS:
            return {"parallelism": (time.process_time() - cpu) / elapsed, "calls": calls, "seconds": elapsed}


def driver_is_simulated():
    """Whether the libcuda.so.1 in this process is a test's: it registers devices and computes nothing."""
    import ctypes

    try:
        return hasattr(ctypes.CDLL("libcuda.so.1"), "envdoctor_simulated_driver")
    except OSError:
        return False
