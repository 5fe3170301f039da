"""What a training can show: rows of the catalogue. They are found by training, never by `check`."""

from __future__ import annotations

from envdoctor.catalog import add, find
from envdoctor.catalog.condition import Condition, Repair, Severity

_SEE = ("envdoctor validate --json",)
CONDITIONS: tuple[Condition, ...] = (
    Condition(
        code="VAL001",
        name="training-died",
        severity=Severity.ERROR,
        title="The training ended before its end",
        means=(
            "The process that trained the network raised an exception, was ended by a signal, or just ended."
        ),
        why=(
            "A device that registers need not work: kernels without code for the GPU, a driver that "
            "resets, a "
            "library of another version, or too little memory for the process show only when work is "
            "done."
        ),
        see=(*_SEE, "dmesg | tail -n 30"),
        repairs=(Repair("First", "What the process said on stderr names the cause.", ("envdoctor check",)),),
        sources=("signal(7)",),
    ),
    Condition(
        code="VAL002",
        name="training-out-of-memory",
        severity=Severity.ERROR,
        title="The memory does not do for the smallest batch",
        means=("The device ran out of memory, and again with the batch halved as often as that makes sense."),
        why=(
            "Another process holds the memory, or a framework took it all at its start (TensorFlow and "
            "JAX do "
            "unless they are told otherwise)."
        ),
        see=("nvidia-smi", "free -h"),
        repairs=(
            Repair("Another process", "End it, or choose another GPU.", ("nvidia-smi",)),
            Repair("TensorFlow in other programs", "", ("export TF_FORCE_GPU_ALLOW_GROWTH=true",)),
            Repair("JAX in other programs", "", ("export XLA_PYTHON_CLIENT_PREALLOCATE=false",)),
        ),
        sources=("JAX documentation: GPU memory allocation", "TensorFlow guide: limiting GPU memory growth"),
    ),
    Condition(
        code="VAL003",
        name="training-hung",
        severity=Severity.ERROR,
        title="The training stopped to give a sign of life",
        means="The process that trained said nothing for as long as --timeout allows, and was killed.",
        why=(
            "A call into the driver that never returns, a deadlock of threads, or a machine that swaps. "
            "The first "
            "step may honestly take minutes where kernels are compiled for a new GPU (PTX)."
        ),
        see=("dmesg | tail -n 30", "envdoctor validate --timeout 1200"),
        repairs=(Repair("Once", "Try again with more patience.", ("envdoctor validate --timeout 1200",)),),
        sources=("CUDA C++ programming guide: just-in-time compilation",),
    ),
    Condition(
        code="VAL004",
        name="trained-on-wrong-device",
        severity=Severity.ERROR,
        title="The training ran on another device than the one asked for",
        means="The trained weights, or the output of a layer, were found on another device.",
        why=("Frameworks fall back to the CPU without a word where they cannot use a GPU for an operation."),
        see=("envdoctor check --gpu -v",),
        repairs=(Repair("", "Look for the cause.", ("envdoctor check --gpu",)),),
        sources=("TensorFlow guide: use a GPU (device placement)",),
    ),
    Condition(
        code="VAL005",
        name="numerics-off",
        severity=Severity.ERROR,
        title="A device computes something else than NumPy",
        means=(
            "A layer's output or a gradient differs from NumPy's, computed in float64 from the same "
            "weights and "
            "images, by more than the precision in force explains."
        ),
        why=(
            "A wrong kernel, a faulty library or faulty memory. Networks often still learn with it, "
            "only worse, so "
            "that nobody notices."
        ),
        see=_SEE,
        repairs=(
            Repair("Faulty memory", "Look for uncorrected ECC errors.", ("nvidia-smi -q -d ECC",)),
            Repair(
                "Another library",
                "Compare the versions with those that the framework wants.",
                ("envdoctor check",),
            ),
        ),
        sources=("computed by envdoctor's NumPy reference",),
    ),
    Condition(
        code="VAL006",
        name="accuracy-below-bound",
        severity=Severity.ERROR,
        title="The trained network recognises too few of the test digits",
        means=(
            "The accuracy on the test set is below what belongs to this network on these data, or "
            "--min-accuracy."
        ),
        why="Wrong arithmetic, or data that are not what they seem, show here last of all.",
        see=_SEE,
        repairs=(
            Repair(
                "", "Where the numerics are right, look at the data.", ("envdoctor validate --data digits",)
            ),
        ),
        follows_from=("VAL005",),
        sources=("measured with the reference network",),
    ),
    Condition(
        code="VAL007",
        name="loss-curves-disagree",
        severity=Severity.ERROR,
        title="Two devices learn differently from the same start",
        means=(
            "From the same weights and the same batches in the same order, the losses of two devices "
            "differ by more "
            "than rounding explains."
        ),
        why=(
            "Rounding differs from device to device and grows with the steps; a wrong kernel "
            "shows much earlier."
        ),
        see=_SEE,
        repairs=(Repair("", "The table of the numerics names the layer.", _SEE),),
        follows_from=("VAL005",),
        sources=("measured: the spread of runs on the CPU",),
    ),
    Condition(
        code="VAL008",
        name="speedup-below-gate",
        severity=Severity.ERROR,
        title="The GPU is not as much faster as was asked for",
        means="Steady images per second of the GPU over those of the CPU are below --min-speedup.",
        why=(
            "A small network with a small batch waits for kernels to be launched; a throttled or shared "
            "GPU, or a "
            "slow PCIe link, shows here too."
        ),
        see=("nvidia-smi", "envdoctor check --gpu"),
        repairs=(
            Repair(
                "A small network", "Compare larger batches.", ("envdoctor validate --batch-size 64,512,4096",)
            ),
        ),
        follows_from=("VAL004",),
        sources=("measured",),
    ),
    Condition(
        code="VAL009",
        name="gpu-slower-than-cpu",
        severity=Severity.NOTE,
        title="The GPU is slower than the CPU on this network",
        means="Steady images per second are fewer on the GPU. Nothing is broken by that.",
        why="A network this small does not fill a GPU: launching kernels takes longer than running them.",
        see=("envdoctor validate --batch-size 64,512,4096",),
        repairs=(Repair("", "Compare larger batches.", ("envdoctor validate --batch-size 64,512,4096",)),),
        sources=("CUDA C++ best practices guide",),
    ),
    Condition(
        code="VAL010",
        name="batch-halved",
        severity=Severity.WARNING,
        title="The memory did not do for the batch, which was halved",
        means=(
            "The device ran out of memory with the batch asked for; the training went on with a smaller one."
        ),
        why="The batch is too large for this device, or another process holds its memory.",
        see=("nvidia-smi",),
        repairs=(Repair("", "A smaller batch, or a GPU with nobody else on it.", ("nvidia-smi",)),),
        sources=("seen in the training",),
    ),
)


def make_known() -> None:
    """Let the catalogue find these rows; again and again is no harm."""
    if find(CONDITIONS[0].code) is None:
        add(CONDITIONS)
