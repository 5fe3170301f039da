"""Runs in the target's interpreter (Python 3.7+): imports TensorFlow, lists its devices, and uses them.

Each step is one JSON line on the descriptor named in argv[1]. A step that is asked for a device says where
it really ran, read back from the tensor.
"""

import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import envdoctor_probe as common  # noqa: E402

sys.path[:] = [
    place for place in sys.path if place != HERE
]  # what the framework imports is not looked for here


def short(device):
    """`GPU:0` of `/job:localhost/replica:0/task:0/device:GPU:0` or `/physical_device:GPU:0`."""
    return ":".join(device.rsplit(":", 2)[1:])


def place(tf, operation, asked, soft):
    """Run an operation asked for on a device; the device of its result."""
    tf.config.set_soft_device_placement(soft)
    try:
        with tf.device(asked):
            return {"asked": asked, "soft": soft, "ran": short(operation().device)}
    except Exception as error:
        return {"asked": asked, "soft": soft, "error": common.describe(error)}


def operations(tf):
    """Made anew for each device: constants live where they were made."""

    def matmul():
        a = tf.ones((64, 64))
        return tf.matmul(a, a)

    def convolution():
        images, kernel = tf.ones((4, 28, 28, 1)), tf.ones((3, 3, 1, 8))
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            loss = tf.reduce_sum(tf.nn.conv2d(images, kernel, 1, "SAME"))
        return tape.gradient(loss, kernel)

    def integer():
        return tf.add(tf.constant([1, 2]), tf.constant([3, 4]))

    return {"matmul": matmul, "conv2d with gradient": convolution, "int32 add": integer}


def growth(config, gpus):
    """Whether each GPU's memory would be taken as it is needed; from here on it is: others use the GPU too."""
    found = []
    for gpu in gpus:
        found.append(bool(config.get_memory_growth(gpu)))
        config.set_memory_growth(gpu, True)
    return found


def main():
    channel = common.Channel(int(sys.argv[1]))
    channel.begin("import")
    started = time.time()
    try:
        import tensorflow as tf
    except BaseException as error:
        channel.say("import", error=common.describe(error))
        raise
    channel.say(
        "import",
        version=tf.__version__,
        seconds=time.time() - started,
        peak_bytes=common.peak_memory(),
    )
    channel.begin("devices")
    try:
        config = tf.config if hasattr(tf.config, "list_physical_devices") else tf.config.experimental
        gpus = config.list_physical_devices("GPU")
    except BaseException as error:
        channel.say("devices", error=common.describe(error))
        raise
    channel.say("devices", gpus=[short(gpu.name) for gpu in gpus])
    simulated = bool(gpus) and common.driver_is_simulated()
    channel.attempt("libraries", lambda: {"mapped": common.mapped_libraries()})
    if simulated:
        channel.say("simulated")
    if not hasattr(tf, "function"):  # TensorFlow 1: graphs and sessions, another way to say all that follows
        channel.leave()
    channel.attempt("memory growth", lambda: {"growth": growth(config, gpus)})
    if simulated:
        tf.config.set_visible_devices([], "GPU")
    devices = ["CPU:0"] + ([] if simulated else [short(gpu.name) for gpu in gpus])
    for device in devices:
        for name, operation in operations(tf).items():
            channel.begin("%s on %s" % (name, device))
            for soft in (True, False):
                answer = place(tf, operation, device, soft)
                channel.say("placement", operation=name, **answer)
    tf.config.set_soft_device_placement(True)
    for device in devices:

        def compiled():
            begun = time.time()
            with tf.device(device):
                a = tf.ones((32, 32))
                result = tf.function(lambda x: tf.reduce_sum(tf.matmul(x, x)), jit_compile=True)(a)
            return {
                "device": device,
                "ran": short(result.device),
                "value": float(result),
                "seconds": time.time() - begun,
            }

        channel.begin("XLA on %s" % device)
        try:
            channel.say("xla", **compiled())
        except TypeError:  # before 2.5 the option was called experimental_compile
            pass
        except Exception as error:
            channel.say("xla", device=device, error=common.describe(error))
    channel.attempt("threads", lambda: threads(tf))
    channel.attempt("libraries", lambda: {"mapped": common.mapped_libraries()})
    channel.leave()


def threads(tf):
    """How parallel the CPU really works, under whatever limits are in force."""
    with tf.device("CPU:0"):
        a = tf.ones((768, 768))
        images, kernel = tf.ones((16, 56, 56, 32)), tf.ones((3, 3, 32, 32))
        return {
            "intra_op": tf.config.threading.get_intra_op_parallelism_threads(),
            "inter_op": tf.config.threading.get_inter_op_parallelism_threads(),
            "matmul": common.parallelism(lambda: tf.matmul(a, a).numpy()),
            "convolution": common.parallelism(lambda: tf.nn.conv2d(images, kernel, 1, "SAME").numpy()),
            "threads": common.thread_count(),
        }


main()
