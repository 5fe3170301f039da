"""What the framework does with the GPU once it runs."""

from __future__ import annotations

from envdoctor.catalog.commands import (
    JAX_DEVICES,
    TF_DEVICES,
    TF_LIBRARIES,
    TF_WITH_CUDA_NEWEST,
    TORCH_DEVICES,
)
from envdoctor.catalog.condition import Condition, Repair, Severity

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        code="PLC001",
        name="no-device-registered",
        severity=Severity.ERROR,
        title="The framework runs and registers no GPU",
        means="The framework was started on this target, and lists no GPU.",
        why=(
            "It is what is seen from outside; the finding that it follows from says why. With none, the "
            "framework's own messages do: TensorFlow hides them at its default log level from 2.12 on. "
            "Programs go on, on the CPU, ten to a hundred times slower, and end with the right result."
        ),
        see=(TF_DEVICES, TF_LIBRARIES, TORCH_DEVICES, "JAX_PLATFORMS=cuda " + JAX_DEVICES),
        repairs=(
            Repair("A finding stands above this one", "Repair that one.", ("envdoctor check --gpu",)),
            Repair(
                "None does",
                (
                    'Keep the framework\'s messages: the first line that says "Could not load", "failed '
                    'call to cuInit" or "Ignoring visible gpu device" is the cause.'
                ),
                ("TF_CPP_MAX_VLOG_LEVEL=1 " + TF_DEVICES + " 2> tensorflow.log",),
            ),
            Repair(
                "Let a program stop rather than go on without",
                'In TensorFlow: `assert tf.config.list_physical_devices("GPU")`; in JAX:',
                ("export JAX_PLATFORMS=cuda",),
            ),
        ),
        follows_from=(
            "HST001",
            "HST002",
            "HST003",
            "HST004",
            "HST005",
            "HST007",
            "HST009",
            "HST010",
            "DRV001",
            "DRV002",
            "DRV003",
            "DRV004",
            "DRV005",
            "DRV006",
            "DRV007",
            "DRV008",
            "DRV009",
            "DRV010",
            "DRV011",
            "DRV012",
            "DRV013",
            "DRV014",
            "GPU001",
            "GPU002",
            "GPU003",
            "GPU005",
            "GPU007",
            "GPU011",
            "GPU012",
            "GPU013",
            "GPU014",
            "LIB001",
            "LIB002",
            "LIB003",
            "LIB004",
            "LIB005",
            "LIB006",
            "LIB007",
            "LIB008",
            "CDN001",
            "CDN002",
            "CDN003",
            "CDN004",
            "XLA007",
            "PKG002",
            "PKG005",
            "PKG006",
            "PKG009",
        ),
        sources=("tensorflow.org/guide/gpu", "tensorflow/tensorflow#50292", "tensorflow/tensorflow#62412"),
        check="placement:check_devices_registered",
        runs_framework=True,
    ),
    Condition(
        code="PLC002",
        name="op-not-on-requested-device",
        severity=Severity.ERROR,
        title="An operation asked for the GPU and ran elsewhere",
        means='An operation inside `tf.device("/GPU:0")` was placed on the CPU.',
        why=(
            "Soft placement is on by default in TensorFlow 2: where the device does not exist, or the "
            "operation has no GPU kernel for these types (strings, most integer matrix products, parts of "
            "tf.data), it runs on the CPU without a word, and its tensors are copied back and forth. A "
            "typing error in the device's name has the same effect."
        ),
        see=(
            (
                "python -c 'import tensorflow as tf; tf.debugging.set_log_device_placement(True); "
                'tf.device("/GPU:0").__enter__(); print((tf.ones([2, 2]) @ tf.ones([2, 2])).device)\''
            ),
        ),
        repairs=(
            Repair(
                "Make it an error",
                (
                    "`tf.config.set_soft_device_placement(False)` at the program's start: the operation that "
                    "cannot be placed is named."
                ),
            ),
            Repair("No GPU is registered", "Repair that first (PLC001).", (TF_DEVICES,)),
            Repair("The type has no GPU kernel", "Cast to float32 or float16."),
        ),
        follows_from=("PLC001",),
        sources=("tensorflow.org/guide/gpu: manual device placement",),
        check="placement:check_operations_placed",
        runs_framework=True,
    ),
    Condition(
        code="PLC003",
        name="cpu-pin-not-honoured",
        severity=Severity.WARNING,
        title="An operation pinned to the CPU ran on the GPU",
        means='An operation inside `tf.device("/CPU:0")` was placed on the GPU (TensorFlow 2.0, 2.1).',
        why=(
            "An operation that reads a variable is placed where the variable lives, and Keras makes its "
            "variables and its training function outside the caller's scope: model.fit runs on the GPU "
            "whatever the scope says. Comparisons of CPU and GPU then measure the GPU twice."
        ),
        see=(
            (
                "python -c 'import tensorflow as tf; tf.debugging.set_log_device_placement(True); "
                'tf.device("/CPU:0").__enter__(); print((tf.ones([2, 2]) @ tf.ones([2, 2])).device)\''
            ),
        ),
        repairs=(
            Repair(
                "Compute on the CPU",
                "Hide the GPU from the process.",
                ("CUDA_VISIBLE_DEVICES=-1 " + TF_DEVICES,),
            ),
            Repair(
                "In the program",
                '`tf.config.set_visible_devices([], "GPU")` before anything else of TensorFlow is used.',
            ),
            Repair("For good", "", (TF_WITH_CUDA_NEWEST,)),
        ),
        sources=("tensorflow/tensorflow#24274", "tensorflow/tensorflow#31135", "tensorflow/tensorflow#33194"),
        check="placement:check_cpu_pin",
        runs_framework=True,
    ),
    Condition(
        code="PLC004",
        name="framework-import-failed",
        severity=Severity.ERROR,
        title="The framework cannot be imported",
        means="Importing the framework ends in an exception, a signal, or no answer within the deadline.",
        why=(
            "The last line of the traceback names the cause: a library (PyTorch and TensorFlow up to 1.13 "
            "link theirs, so that a missing one is an ImportError), a symbol of another version, NumPy's or "
            "protobuf's interface, a file of the user's own called tensorflow.py. Exit by SIGILL is an "
            "instruction that the CPU lacks (HST003), SIGSEGV mostly two builds of one library, SIGABRT a "
            "check such as an unknown flag. A hang is a driver that does not answer, or a file system."
        ),
        see=(
            "python -X faulthandler -c 'import tensorflow'; echo \"exit status $?\"",
            "python -c 'import importlib.util as u; print(u.find_spec(\"tensorflow\").origin)'",
            "LD_DEBUG=libs,files python -c 'import tensorflow' 2>&1 | grep -iE 'error|fatal'",
        ),
        repairs=(
            Repair("A finding stands above this one", "Repair that one.", ("envdoctor check",)),
            Repair(
                "The path printed above is not in site-packages",
                "A file or folder of that name hides the framework: rename it.",
                ("ls -d tensorflow* torch* jax* 2>/dev/null",),
            ),
            Repair(
                "The installation is damaged",
                "",
                (
                    "python -m pip check",
                    "python -m pip install --force-reinstall --no-cache-dir 'tensorflow[and-cuda]'",
                ),
            ),
            Repair(
                "It works in a clean environment",
                "Then the old one is beyond repair.",
                (
                    (
                        "python -m venv ~/venv-tensorflow && ~/venv-tensorflow/bin/pip install "
                        "'tensorflow[and-cuda]' && ~/venv-tensorflow/bin/"
                    )
                    + TF_DEVICES,
                ),
            ),
        ),
        follows_from=(
            "HST001",
            "HST002",
            "HST003",
            "HST008",
            "DRV014",
            "XLA004",
            "XLA005",
            "XLA007",
            "PKG004",
            "PKG005",
            "PKG006",
            "PKG007",
            "PKG012",
            "THR003",
        ),
        sources=("tensorflow.org/install/errors", "Python documentation: faulthandler"),
        check="placement:check_devices_registered",
        runs_framework=True,
    ),
    Condition(
        code="PLC005",
        name="xla-compile-failed",
        severity=Severity.ERROR,
        title="A function compiled by XLA fails on the GPU",
        means=(
            "The GPU is registered and plain operations work; a function with jit_compile=True fails on it."
        ),
        why=(
            "XLA needs more than the libraries: libdevice, ptxas, a driver that takes the PTX, and a build "
            'that knows the architecture. Keras turns XLA on by itself (jit_compile="auto"), so that a model '
            "fails where a matrix product works."
        ),
        see=(
            (
                "python -c 'import tensorflow as tf; print(tf.function(lambda x: tf.exp(x) @ x, "
                "jit_compile=True)(tf.ones([8, 8])))'"
            ),
            "python -c 'import jax.numpy as jnp; print(jnp.exp(jnp.ones(8)).devices())'",
        ),
        repairs=(
            Repair("A finding stands above this one", "Repair that one.", ("envdoctor check",)),
            Repair(
                "Work on without XLA",
                "`model.compile(…, jit_compile=False)`, and no automatic clustering.",
                ("unset TF_XLA_FLAGS",),
            ),
        ),
        follows_from=(
            "DRV004",
            "GPU003",
            "GPU005",
            "GPU015",
            "LIB004",
            "LIB013",
            "CDN002",
            "CDN004",
            "XLA001",
            "XLA002",
            "XLA003",
            "XLA004",
            "XLA005",
            "XLA006",
        ),
        sources=("tensorflow.org/xla", "keras.io: model training APIs, jit_compile"),
        check="placement:check_xla_compiles",
        runs_framework=True,
    ),
    Condition(
        code="PLC006",
        name="gpu-memory-grabbed",
        severity=Severity.NOTE,
        title="The framework takes all GPU memory at start",
        means=(
            "Memory growth is off: nearly all memory of every visible GPU is reserved when the "
            "framework starts."
        ),
        why=(
            "It is the default of TensorFlow (all) and JAX (three quarters), to avoid fragmentation. It is "
            "right for one training job per GPU; a notebook, a desktop, a second process and cuDNN's own "
            "handles get nothing."
        ),
        see=(
            "nvidia-smi --query-compute-apps=pid,process_name,used_memory --format=csv",
            "env | grep -E 'TF_FORCE_GPU_ALLOW_GROWTH|XLA_PYTHON_CLIENT'",
        ),
        repairs=(
            Repair(
                "TensorFlow",
                'Exactly `true`: "1" and "True" are ignored.',
                ("export TF_FORCE_GPU_ALLOW_GROWTH=true",),
            ),
            Repair("JAX", "", ("export XLA_PYTHON_CLIENT_PREALLOCATE=false",)),
            Repair(
                "TensorFlow: a fixed share",
                "`tf.config.set_logical_device_configuration` with a memory_limit, before the GPU is used.",
            ),
        ),
        sources=("tensorflow.org/guide/gpu: limiting GPU memory growth", "JAX: GPU memory allocation"),
        check="placement:check_memory_growth",
        runs_framework=True,
    ),
)
