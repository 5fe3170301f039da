"""Runs in the target's interpreter (Python 3.7+): imports JAX, lists its devices, and uses them.

Each step is one JSON line on the descriptor named in argv[1]. A step that is asked for a device says where
it really ran, read back from the array. JAX has no soft placement: operands are put on the device.
"""

import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import envdoctor_probe as common  # noqa: E402

sys.path[:] = [place for place in sys.path if place != HERE]  # no framework looks here

GPU = ("gpu", "cuda", "rocm")


def preallocates():
    """Whether a process of this environment takes most of the GPU's memory at its start.

    As generate_pjrt_gpu_plugin_options reads the variables (jaxlib/xla_client.py, 0.10.2).
    """
    allocator = os.environ.get("XLA_PYTHON_CLIENT_ALLOCATOR", "").lower()
    wish = os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "")
    return allocator != "platform" and wish not in ("false", "False", "0")


def without_backend(error):
    """JAX asserts, without a word, that one of the platforms that it was told to use is there."""
    said = common.describe(error)
    wish = os.environ.get("JAX_PLATFORMS", "")
    if wish and said == "AssertionError":
        said += ": JAX_PLATFORMS=%s, and none of these platforms could be initialized" % wish
    return said


def short(device):
    return "%s:%d" % ("GPU" if device.platform in GPU else device.platform.upper(), device.id)


def ran_on(array):
    if hasattr(array, "devices"):  # since 0.4
        return "+".join(sorted(short(device) for device in array.devices()))
    return short(array.device())


def operations(jax, numpy, device):
    def put(*values):
        return [jax.device_put(value, device) for value in values]

    def matmul():
        (a,) = put(numpy.ones((64, 64), "float32"))
        return jax.numpy.matmul(a, a)

    def convolution():
        images, kernel = put(numpy.ones((4, 1, 28, 28), "float32"), numpy.ones((8, 1, 3, 3), "float32"))
        return jax.grad(lambda k: jax.lax.conv(images, k, (1, 1), "SAME").sum())(kernel)

    def integer():
        a, b = put(numpy.array([1, 2], "int32"), numpy.array([3, 4], "int32"))
        return jax.numpy.add(a, b)

    return {"matmul": matmul, "conv2d with gradient": convolution, "int32 add": integer}


def place(operation, asked):
    """Run an operation to its end, for errors come late; the device of its result."""
    try:
        return {"asked": asked, "soft": False, "ran": ran_on(operation().block_until_ready())}
    except Exception as error:
        return {"asked": asked, "soft": False, "error": common.describe(error)}


def compiled(jax, numpy, device):
    begun = time.time()
    a = jax.device_put(numpy.ones((32, 32), "float32"), device)
    result = jax.jit(lambda x: (x @ x).sum())(a).block_until_ready()
    return {"ran": ran_on(result), "seconds": time.time() - begun}


def main():
    channel = common.Channel(int(sys.argv[1]))
    growth = not preallocates()
    # The probe itself takes what it needs: others may be using the GPU, and a cache is the patient's
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    channel.begin("import")
    started = time.time()
    try:
        import jax
        import numpy  # which JAX needs too
    except BaseException as error:
        channel.say("import", error=common.describe(error))
        raise
    channel.say(
        "import",
        version=jax.__version__,
        seconds=time.time() - started,
        peak_bytes=common.peak_memory(),
    )
    channel.begin("devices")
    try:
        gpus = [device for device in jax.devices() if device.platform in GPU]
    except BaseException as error:
        channel.say("devices", error=without_backend(error))
        raise
    channel.say("devices", gpus=[short(gpu) for gpu in gpus])
    simulated = bool(gpus) and common.driver_is_simulated()
    channel.attempt("libraries", lambda: {"mapped": common.mapped_libraries()})
    if simulated:
        channel.say("simulated")
    channel.say("memory growth", growth=[growth for _ in gpus])
    try:
        cpus = jax.devices("cpu")[:1]
    except RuntimeError:  # JAX_PLATFORMS=cuda leaves none
        cpus = []
    devices = cpus + ([] if simulated else gpus)
    for device in devices:
        for name, operation in operations(jax, numpy, device).items():
            channel.begin("%s on %s" % (name, short(device)))
            channel.say("placement", operation=name, **place(operation, short(device)))
    for device in devices:
        channel.begin("XLA on %s" % short(device))
        try:
            channel.say("xla", device=short(device), **compiled(jax, numpy, device))
        except Exception as error:
            channel.say("xla", device=short(device), error=common.describe(error))
    if cpus:
        channel.attempt("threads", lambda: threads(jax, numpy, cpus[0]))
    channel.attempt("libraries", lambda: {"mapped": common.mapped_libraries()})
    channel.leave()


def threads(jax, numpy, cpu):
    """How parallel the CPU really works, under whatever limits are in force; JAX does not tell its pools."""
    a, images, kernel = (
        jax.device_put(numpy.ones(shape, "float32"), cpu)
        for shape in ((768, 768), (16, 32, 56, 56), (32, 32, 3, 3))
    )
    matmul = jax.jit(lambda x: x @ x)
    convolution = jax.jit(lambda x, k: jax.lax.conv(x, k, (1, 1), "SAME"))
    return {
        "matmul": common.parallelism(lambda: matmul(a).block_until_ready()),
        "convolution": common.parallelism(lambda: convolution(images, kernel).block_until_ready()),
        "threads": common.thread_count(),
    }


main()
