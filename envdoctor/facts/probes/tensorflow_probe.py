"""Runs in the target's interpreter (Python 3.7+): imports TensorFlow and lists its devices.

Each step is one JSON line on the descriptor named in argv[1], so that a step that never ends is known by
the one before it. What TensorFlow prints goes to stdout and stderr, which the parent keeps.
"""

import json
import os
import sys
import time


def main():
    channel = os.fdopen(int(sys.argv[1]), "w")

    def say(step, **values):
        channel.write(json.dumps(dict(values, step=step)) + "\n")
        channel.flush()

    say("import")
    started = time.time()
    try:
        import tensorflow as tf
    except BaseException as error:
        say("failed", at="import", error="%s: %s" % (type(error).__name__, error))
        raise
    say("devices", version=tf.__version__, seconds=time.time() - started)
    try:
        config = getattr(tf.config, "experimental", tf.config) if tf.__version__ < "2.1" else tf.config
        gpus = [device.name for device in config.list_physical_devices("GPU")]
    except BaseException as error:
        say("failed", at="listing devices", error="%s: %s" % (type(error).__name__, error))
        raise
    say("done", gpus=gpus)
    # TensorFlow's own teardown takes time and has been seen to crash; nothing here needs it.
    channel.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


main()
