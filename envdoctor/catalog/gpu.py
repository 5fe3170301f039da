"""The GPU itself: which one it is, and who sees it."""

from __future__ import annotations

from envdoctor.catalog.commands import TF_BUILD
from envdoctor.catalog.condition import Condition, Repair, Severity

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        code="GPU001",
        name="no-gpu",
        severity=Severity.NOTE,
        title="There is no NVIDIA GPU on this machine",
        means=(
            "No NVIDIA display or 3D controller is on the PCI bus. A note, unless a GPU is required (--gpu)."
        ),
        why=(
            "On a machine without a GPU the frameworks compute on the CPU, and their complaints about "
            "libcudart, cuInit or TensorRT mean nothing. If there should be one: it is not seated or "
            "powered, disabled in the firmware, fallen off the bus (GPU007), not passed through to this "
            "virtual machine, or this is another machine than you think."
        ),
        see=("lspci -nn -d 10de:", "cat /sys/bus/pci/devices/*/vendor | grep -c 0x10de"),
        repairs=(
            Repair(
                "A GPU is expected",
                "Look at the bus again; after a cold start if need be.",
                (
                    "echo 1 | sudo tee /sys/bus/pci/rescan",
                    "lspci -nn -d 10de:",
                    "sudo dmesg | grep -iE 'pcie|nvrm'",
                ),
            ),
            Repair(
                "A cluster", "This may be a login node: ask for a GPU.", ("srun --gres=gpu:1 nvidia-smi -L",)
            ),
            Repair(
                "The messages are a nuisance",
                "Say that the CPU is meant.",
                ("export CUDA_VISIBLE_DEVICES=-1 TF_CPP_MIN_LOG_LEVEL=2",),
            ),
        ),
        follows_from=("GPU007",),
        sources=("lspci(8)",),
        check="gpu:check_no_gpu",
    ),
    Condition(
        code="GPU002",
        name="gpu-hidden-by-env",
        severity=Severity.ERROR,
        title="An environment variable hides the GPU",
        means=(
            "CUDA_VISIBLE_DEVICES (or, in a container, NVIDIA_VISIBLE_DEVICES) leaves no usable GPU, "
            "or fewer than there are."
        ),
        why=(
            "CUDA reads the list from the left and stops at the first entry that it does not take: "
            '"0,2,-1,1" shows GPUs 0 and 2 only; empty, "-1" or "none" shows none; an index that does not '
            "exist, a mistyped UUID, quotes or a space hide themselves and all that follows. It is read when "
            "CUDA starts, so setting it later in the program does nothing. Indices follow CUDA_DEVICE_ORDER "
            "(the fastest first), not nvidia-smi's order. Shells' start files, notebooks, job schedulers and "
            "scripts that wanted the CPU once set it."
        ),
        see=(
            "env | grep -E 'CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|NVIDIA_VISIBLE_DEVICES'",
            "nvidia-smi -L",
            (
                "grep -n CUDA_VISIBLE_DEVICES ~/.bashrc ~/.profile ~/.zshrc /etc/environment "
                "/etc/profile.d/* 2>/dev/null"
            ),
        ),
        repairs=(
            Repair("This shell", "", ("unset CUDA_VISIBLE_DEVICES",)),
            Repair(
                "To name one GPU in nvidia-smi's order",
                "",
                ("export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=0",),
            ),
            Repair(
                "It is set in a program or notebook",
                "Look for os.environ before the first import; restart the kernel after the change.",
                ("grep -rn CUDA_VISIBLE_DEVICES --include='*.py' --include='*.ipynb' .",),
            ),
            Repair(
                "A batch job",
                "The scheduler sets it to what it gave you: ask for a GPU, do not override it.",
                ("srun --gres=gpu:1 env | grep CUDA_VISIBLE_DEVICES",),
            ),
            Repair(
                "A container",
                "NVIDIA_VISIBLE_DEVICES takes effect only when the container starts.",
                ("docker run --rm --gpus all ubuntu nvidia-smi -L",),
            ),
        ),
        sources=("CUDA programming guide: environment variables", "NVIDIA Container Toolkit documentation"),
        check="gpu:check_gpu_hidden_by_env",
    ),
    Condition(
        code="GPU003",
        name="gpu-too-old",
        severity=Severity.ERROR,
        title="The GPU is older than the oldest that this build supports",
        means="The GPU's compute capability is below the lowest that the framework was compiled for.",
        why=(
            "A build carries machine code per architecture, and PTX for its newest only; PTX runs on newer "
            "GPUs, never on older ones. TensorFlow's wheels start at 3.5 up to 2.14, 5.0 in 2.15 and 2.16, "
            "6.0 from 2.17; PyTorch's for CUDA 12.8 and later, and JAX's for CUDA 13, have dropped Pascal "
            'and older. TensorFlow says "Ignoring visible gpu device" and goes on without it.'
        ),
        see=(
            "nvidia-smi --query-gpu=name,compute_cap --format=csv",
            TF_BUILD,
            "python -c 'import torch; print(torch.cuda.get_arch_list())'",
        ),
        repairs=(
            Repair(
                "TensorFlow, capability 5.x",
                "2.16 is the last wheel for it.",
                ("python -m pip install 'tensorflow[and-cuda]==2.16.2'",),
            ),
            Repair(
                "TensorFlow, capability 3.5 or 3.7",
                "2.14 is the last wheel, and R470 the last driver.",
                ("python -m pip install 'tensorflow[and-cuda]==2.14.1'",),
            ),
            Repair(
                "PyTorch, capability 5.0 to 7.0",
                "The builds for CUDA 12.6 (cu126) still have it: pytorch.org/get-started has the command.",
            ),
            Repair("JAX, capability 5.2 to 7.0", "", ("python -m pip install --upgrade 'jax[cuda12]'",)),
            Repair(
                "Several GPUs",
                "Show only the newer one; here the first.",
                ("export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=0",),
            ),
        ),
        sources=(
            "build_info.py of the TensorFlow wheels",
            "NVIDIA CUDA GPU compute capability table",
            "JAX installation guide",
        ),
        check="gpu:check_gpu_architecture",
    ),
    Condition(
        code="GPU004",
        name="gpu-too-new-jit",
        severity=Severity.WARNING,
        title="The GPU is newer than this build: kernels are compiled at first use",
        means=(
            "The build has no machine code for this GPU, only PTX, which the driver compiles when a "
            "kernel is first used."
        ),
        why=(
            "That takes from half a minute to thirty, once; the result is kept in ~/.nv/ComputeCache. It is "
            "repeated at every start when the cache is too small (CUDA_CACHE_MAXSIZE, in bytes), disabled "
            "(CUDA_CACHE_DISABLE=1), or in a home that cannot be written, as in a container. "
            "CUDA_DISABLE_PTX_JIT=1 turns it into a failure."
        ),
        see=(
            "nvidia-smi --query-gpu=name,compute_cap --format=csv",
            "du -sh ~/.nv/ComputeCache",
            "env | grep '^CUDA_CACHE'",
            TF_BUILD,
        ),
        repairs=(
            Repair(
                "",
                "Wait once, with room for the result; or use a build that has the architecture.",
                ("export CUDA_CACHE_MAXSIZE=4294967296",),
            ),
            Repair(
                "A container",
                "Keep the cache on a volume.",
                (
                    (
                        'docker run --rm --gpus all -v "$HOME/.nv:/root/.nv" '
                        "tensorflow/tensorflow:latest-gpu nvidia-smi -L"
                    ),
                ),
            ),
        ),
        sources=("CUDA programming guide: environment variables", "tensorflow.org/install/pip"),
        check="gpu:check_gpu_architecture",
    ),
    Condition(
        code="GPU005",
        name="gpu-too-new-unsupported",
        severity=Severity.ERROR,
        title="The GPU is newer than this build can support",
        means="The build has neither machine code for this GPU nor PTX that the driver can compile for it.",
        why=(
            "Machine code runs within one major architecture only, and PTX of an old toolkit can lack what a "
            "new architecture needs. TensorFlow's wheels up to 2.21 have nothing for Blackwell (10.0, 12.0): "
            'GPU:0 is listed, then kernels end in CUDA_ERROR_INVALID_PTX, CUDA_ERROR_INVALID_HANDLE or "PTX '
            'version 8.5 does not support target sm_120". PyTorch says "no kernel image is available for '
            'execution on the device".'
        ),
        see=(
            "nvidia-smi --query-gpu=name,compute_cap,driver_version --format=csv",
            TF_BUILD,
            "python -c 'import torch; print(torch.cuda.get_arch_list())'",
        ),
        repairs=(
            Repair(
                "TensorFlow",
                "NVIDIA's own container (NGC, tensorflow 25.02 or later), or a nightly build.",
                ("python -m pip install --upgrade 'tf-nightly[and-cuda]'",),
            ),
            Repair(
                "PyTorch",
                "The builds for CUDA 12.8 (cu128) have Blackwell: pytorch.org/get-started has the command.",
            ),
            Repair("JAX", "", ("python -m pip install --upgrade 'jax[cuda13]'",)),
        ),
        follows_from=("DRV004",),
        sources=(
            "tensorflow/tensorflow#89272",
            "tensorflow/tensorflow#90291",
            "tensorflow/tensorflow#101746",
        ),
        check="gpu:check_gpu_architecture",
    ),
)
