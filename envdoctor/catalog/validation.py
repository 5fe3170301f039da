"""What a training shows (`envdoctor validate`): no check looks for it."""

from __future__ import annotations

from envdoctor.catalog.condition import Condition, Repair, Severity

_SMI = "nvidia-smi --query-gpu=index,name,utilization.gpu,memory.used,memory.total,power.draw --format=csv"
_BATCHES = "envdoctor validate --batch-size 64,512,4096"

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        code="VAL001",
        name="training-died",
        severity=Severity.ERROR,
        title="The training died",
        means=(
            "The process that trained the network raised an exception, was ended by a signal, or ended "
            "without a word before the last epoch."
        ),
        why=(
            "A device that registers need not work. Kernels without code for this GPU, a library of another "
            "version, a driver that resets, a process over its memory limit: all of it shows when work is "
            "done. SIGKILL that nobody sent is the kernel's out-of-memory killer."
        ),
        see=("envdoctor validate --epochs 1", "sudo dmesg | tail -n 30"),
        repairs=(
            Repair(
                "What it said names a cause",
                "The finding above this one is that cause; repair it first.",
            ),
            Repair(
                "It said something that envdoctor does not know",
                "Look at the machine, and read the last lines on stderr.",
                ("envdoctor check",),
            ),
            Repair(
                "SIGKILL",
                "The memory of the machine or of the container ran out: fewer samples, or a higher limit.",
                ("sudo dmesg | grep -i -E 'out of memory|oom-kill'", "envdoctor validate --samples 2000"),
            ),
            Repair(
                "Only on the GPU",
                "Train on the CPU to see whether data and framework are sound.",
                ("envdoctor validate --cpu",),
            ),
        ),
        follows_from=(
            "HST001",
            "HST002",
            "HST003",
            "HST007",
            "HST008",
            "HST011",
            "DRV003",
            "DRV004",
            "DRV010",
            "DRV012",
            "DRV014",
            "GPU003",
            "GPU005",
            "GPU006",
            "GPU007",
            "GPU010",
            "GPU012",
            "GPU015",
            "LIB001",
            "LIB002",
            "LIB003",
            "LIB004",
            "LIB005",
            "LIB007",
            "LIB008",
            "LIB013",
            "CDN001",
            "CDN002",
            "CDN003",
            "CDN004",
            "CDN005",
            "CDN006",
            "XLA001",
            "XLA002",
            "XLA004",
            "XLA005",
            "XLA006",
            "PKG004",
            "PKG005",
            "PKG006",
            "PKG007",
            "PKG009",
            "PLC002",
            "PLC004",
            "PLC005",
            "THR003",
        ),
        sources=("signal(7)", "proc_pid_oom_score_adj(5)", "CUDA C++ programming guide: error checking"),
    ),
    Condition(
        code="VAL002",
        name="training-out-of-memory",
        severity=Severity.ERROR,
        title="The memory does not do for the smallest batch",
        means=(
            "The device ran out of memory, and again with the batch halved as often as that makes sense "
            "(down to 8)."
        ),
        why=(
            "The networks that are trained here take some hundred megabytes. Another process holds the rest, "
            "or took all of it at its start, as TensorFlow and JAX do unless they are told otherwise."
        ),
        see=(_SMI, "free -h"),
        repairs=(
            Repair(
                "Another process holds the memory",
                "End it, or choose another GPU.",
                ("nvidia-smi --query-compute-apps=pid,name,used_memory --format=csv",),
            ),
            Repair(
                "TensorFlow in other programs",
                "Let them take what they need.",
                ("export TF_FORCE_GPU_ALLOW_GROWTH=true",),
            ),
            Repair(
                "JAX in other programs",
                "Let them take what they need.",
                ("export XLA_PYTHON_CLIENT_PREALLOCATE=false",),
            ),
        ),
        follows_from=("GPU006", "GPU015", "CDN005", "CDN006"),
        sources=("tensorflow.org/guide/gpu: limiting GPU memory growth", "JAX: GPU memory allocation"),
    ),
    Condition(
        code="VAL003",
        name="training-hung",
        severity=Severity.ERROR,
        title="The training gave no sign of life",
        means="The process that trained said nothing for as long as --timeout allows, and was killed.",
        why=(
            "A call into the driver that does not return, threads that wait for one another, or a machine "
            "that swaps. The first step may honestly take minutes where kernels are compiled for a GPU that "
            "is newer than the build."
        ),
        see=("sudo dmesg | tail -n 30", "nvidia-smi", "vmstat 1 5"),
        repairs=(
            Repair("In the first step", "Have more patience, once.", ("envdoctor validate --timeout 1200",)),
            Repair(
                "In the middle of the training, on the GPU",
                "Look for Xid messages of the driver in the kernel's log.",
                ("sudo dmesg | grep -i xid", "envdoctor check --gpu"),
            ),
        ),
        follows_from=("GPU004", "GPU007", "DRV014"),
        sources=("CUDA C++ programming guide: just-in-time compilation", "NVIDIA: Xid errors"),
    ),
    Condition(
        code="VAL004",
        name="trained-on-wrong-device",
        severity=Severity.ERROR,
        title="The training ran on another device than the one asked for",
        means="The trained weights, or the output of a layer, were found on another device.",
        why=(
            "Frameworks use the CPU without a word where they cannot use a GPU, and a time measured there "
            "says nothing of the GPU."
        ),
        see=("envdoctor check --gpu -v",),
        repairs=(Repair("", "Look for what keeps the framework from it.", ("envdoctor check --gpu",)),),
        follows_from=("PLC001", "PLC002"),
        sources=("tensorflow.org/guide/gpu: manual device placement",),
    ),
    Condition(
        code="VAL005",
        name="numerics-off",
        severity=Severity.ERROR,
        title="A device computes something else than NumPy",
        means=(
            "A layer's output, the loss or a gradient differs from NumPy's, computed in float64 from the "
            "same weights and images, by more than the precision in force (float32, TF32) explains."
        ),
        why=(
            "A wrong kernel, a faulty library or faulty memory. Networks often still learn with it, only "
            "worse, so that nobody notices."
        ),
        see=("envdoctor validate --json",),
        repairs=(
            Repair("The GPU's memory", "Look for uncorrected ECC errors.", ("nvidia-smi -q -d ECC",)),
            Repair(
                "Another version of a library",
                "Compare the versions with those that the framework asks for.",
                ("envdoctor check",),
            ),
            Repair("On the CPU", "Leave oneDNN's kernels out of it.", ("export TF_ENABLE_ONEDNN_OPTS=0",)),
        ),
        follows_from=("GPU010", "CDN004"),
        sources=(
            "envdoctor/validate/worker/ed_numerics.py: the bounds and what they rest on",
            "NVIDIA A100 white paper: TF32",
        ),
    ),
    Condition(
        code="VAL006",
        name="accuracy-below-bound",
        severity=Severity.ERROR,
        title="The trained network recognises too few of the test digits",
        means=(
            "The accuracy on the test set is below what belongs to this network on these data, or below "
            "--min-accuracy."
        ),
        why="Wrong arithmetic, or data that are not what they seem, show here last of all.",
        see=("envdoctor validate --json",),
        repairs=(
            Repair(
                "The numerics are right",
                "Look at the data: train on others.",
                ("envdoctor validate --data digits",),
            ),
            Repair(
                "The loss still falls in the last epoch", "Train longer.", ("envdoctor validate --epochs 10",)
            ),
        ),
        follows_from=("VAL005", "VAL007"),
        sources=("envdoctor/validate/networks.json: accuracies seen and published",),
    ),
    Condition(
        code="VAL007",
        name="loss-curves-disagree",
        severity=Severity.ERROR,
        title="Two devices learn differently from the same start",
        means=(
            "From the same weights and the same batches in the same order, the losses of two devices differ "
            "by more than rounding explains."
        ),
        why=(
            "Rounding differs from device to device and grows with the steps, to some percent of an epoch's "
            "mean loss. A wrong kernel shows at the first step, or far beyond that."
        ),
        see=("envdoctor validate --json",),
        repairs=(
            Repair(
                "From the first step on",
                "The numerics name the layer.",
                ("envdoctor validate --epochs 1",),
            ),
            Repair(
                "Later",
                "Train again with more samples: a mean over few digits scatters.",
                ("envdoctor validate --samples 20000",),
            ),
        ),
        follows_from=("VAL005",),
        sources=("envdoctor/validate/comparison.py: the band and what was measured for it",),
    ),
    Condition(
        code="VAL008",
        name="speedup-below-gate",
        severity=Severity.ERROR,
        title="The GPU is not as much faster as was asked for",
        means="The GPU's steady images per second over those of the CPU are below --min-speedup.",
        why=(
            "A small network with a small batch waits for kernels to be launched. A GPU that is throttled "
            "or shared, or a slow PCIe link, shows here too."
        ),
        see=(_SMI, "envdoctor check --gpu"),
        repairs=(
            Repair("The GPU was mostly idle", "Compare larger batches.", (_BATCHES,)),
            Repair("The GPU was busy", "Look for others on it, heat, and its power limit.", ("nvidia-smi",)),
        ),
        follows_from=("VAL004", "GPU008", "GPU009"),
        sources=("CUDA C++ best practices guide", "NVIDIA: nvidia-smi documentation"),
    ),
    Condition(
        code="VAL009",
        name="gpu-slower-than-cpu",
        severity=Severity.NOTE,
        title="The GPU is slower than the CPU on this network",
        means="Steady images per second are fewer on the GPU. Nothing is broken by that.",
        why="A network this small does not fill a GPU: launching kernels takes longer than running them.",
        see=(_SMI,),
        repairs=(Repair("", "Compare larger batches.", (_BATCHES,)),),
        sources=("CUDA C++ best practices guide",),
    ),
    Condition(
        code="VAL010",
        name="batch-halved",
        severity=Severity.WARNING,
        title="The memory did not do for the batch, which was halved",
        means=(
            "The device ran out of memory with the batch asked for, and the training went on with a smaller "
            "one: its speed is not that of the batch asked for."
        ),
        why="The batch is too large for this device, or another process holds its memory.",
        see=(_SMI,),
        repairs=(
            Repair(
                "The GPU is yours alone",
                "Ask for a batch that fits.",
                ("envdoctor validate --batch-size 64",),
            ),
            Repair(
                "Another process holds the memory",
                "End it, or choose another GPU.",
                ("nvidia-smi --query-compute-apps=pid,name,used_memory --format=csv",),
            ),
        ),
        follows_from=("GPU006",),
        sources=("seen in the training",),
    ),
)
