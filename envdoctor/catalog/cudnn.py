"""cuDNN: there, new enough, of one version, with memory to start."""

from __future__ import annotations

from envdoctor.catalog.commands import PIP_CUDA_LIBRARIES, TF_BUILD, TF_DEVICES, TF_LIBRARIES, TF_WITH_CUDA
from envdoctor.catalog.condition import Condition, Repair, Severity

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        code="CDN001",
        name="missing-cudnn",
        severity=Severity.ERROR,
        title="cuDNN is not installed, or not where the framework looks",
        means="Of the libraries that the framework needs, only cuDNN cannot be loaded.",
        why=(
            "cuDNN is not part of the CUDA toolkit: it is its own download, package or wheel, so that it is "
            "what is missing after the toolkit was installed. Its name carries its major version: TensorFlow "
            "up to 2.3 asks for libcudnn.so.7, 2.4 to 2.17 for libcudnn.so.8, from 2.18 on for "
            "libcudnn.so.9."
        ),
        see=(
            TF_LIBRARIES,
            "ldconfig -p | grep libcudnn",
            PIP_CUDA_LIBRARIES + " | grep cudnn",
            "dpkg -l | grep -E 'libcudnn|cudnn[0-9]'",
        ),
        repairs=(
            Repair(
                "It is installed and not looked for",
                "`envdoctor fix` links it where it is searched (LIB002, LIB003).",
                ("envdoctor fix --dry-run --only CDN001",),
            ),
            Repair("TensorFlow 2.14 or later, pip", "", (TF_WITH_CUDA,)),
            Repair("TensorFlow 2.12, 2.13", "", ("python -m pip install 'nvidia-cudnn-cu11==8.6.0.163'",)),
            Repair("conda, TensorFlow 2.5 to 2.11", "", ("conda install -c conda-forge cudnn=8.1.0",)),
            Repair(
                "Ubuntu, Debian (NVIDIA's repository set up), TensorFlow 2.18 or later",
                "",
                ("sudo apt-get install -y libcudnn9-cuda-12", "sudo ldconfig"),
            ),
            Repair("A container", "An image whose tag has cudnn."),
        ),
        follows_from=("LIB006", "LIB007", "PKG009"),
        sources=("NVIDIA cuDNN support matrix", "tensorflow.org/install/source: tested build configurations"),
        check="libraries:check_required_libraries",
    ),
    Condition(
        code="CDN002",
        name="cudnn-version-too-old",
        severity=Severity.ERROR,
        title="The cuDNN that is loaded is older than the framework was built with",
        means="The copy of cuDNN that the loader takes is older than the build asks for.",
        why=(
            "Within a major version the file name is the same, so the older copy loads, and the GPU is "
            'listed. TensorFlow then fails at the first convolution: "Loaded runtime CuDNN library: 8.6.0 '
            'but source was compiled with: 8.9.4"; JAX refuses the GPU at start. cuDNN must be of the same '
            "major version and not of an older minor one. The older copy comes from another framework's "
            "requirement, an old package, or LD_LIBRARY_PATH (LIB004)."
        ),
        see=(
            TF_BUILD,
            "python -m pip list | grep -i cudnn",
            "LD_DEBUG=libs " + TF_DEVICES + " 2>&1 | grep 'calling init.*libcudnn.so'",
            "ldconfig -p | grep libcudnn.so",
        ),
        repairs=(
            Repair("TensorFlow 2.14 or later, pip", "The version that it asks for.", (TF_WITH_CUDA,)),
            Repair("JAX", "", ("python -m pip install --upgrade 'jax[cuda12]'",)),
            Repair(
                "Ubuntu, Debian (NVIDIA's repository set up)",
                "",
                ("sudo apt-get install --only-upgrade -y libcudnn9-cuda-12 libcudnn8", "sudo ldconfig"),
            ),
            Repair(
                "An older copy is found first",
                "Take it out of the path (LIB004).",
                ("env -u LD_LIBRARY_PATH " + TF_DEVICES,),
            ),
            Repair(
                "PyTorch pins another version in the same environment",
                "One environment for each (PKG010).",
                (
                    (
                        "python -m venv ~/venv-tensorflow && ~/venv-tensorflow/bin/pip install "
                        "'tensorflow[and-cuda]'"
                    ),
                ),
            ),
        ),
        follows_from=("LIB004", "PKG009"),
        sources=("NVIDIA cuDNN documentation: API compatibility", "jax-ml/jax#15268"),
        check="cudnn:check_cudnn_version",
    ),
    Condition(
        code="CDN003",
        name="cudnn-cuda-major-mismatch",
        severity=Severity.ERROR,
        title="cuDNN is built for another CUDA major version",
        means=(
            "The cuDNN that is found was built for another major version of CUDA than the framework uses."
        ),
        why=(
            "The file name does not show it: libcudnn.so.8 exists for CUDA 11 and for CUDA 12. An unpinned "
            "`apt-get install libcudnn8` takes the newest, which is for CUDA 12; it then needs "
            "libcublas.so.12, which a CUDA 11 machine does not have, and fails with that name."
        ),
        see=(
            "dpkg -l | grep -E 'libcudnn|cudnn[0-9]'",
            "apt-cache policy libcudnn8",
            "readelf -d \"$(ldconfig -p | awk '/libcudnn.so/ {print $NF; exit}')\" | grep NEEDED",
            "python -m pip list | grep -iE 'nvidia|cuda'",
        ),
        repairs=(
            Repair(
                "Ubuntu, Debian: CUDA 11",
                "The newest build for CUDA 11, held so that an upgrade does not undo it.",
                (
                    (
                        "v=\"$(apt-cache madison libcudnn8 | awk '/cuda11/ {print $3; exit}')\" && sudo "
                        'apt-get install -y --allow-downgrades --allow-change-held-packages "libcudnn8=$v" '
                        "&& sudo apt-mark hold libcudnn8"
                    ),
                ),
            ),
            Repair(
                "Ubuntu, Debian: cuDNN 9",
                "The package's name says the CUDA version.",
                ("sudo apt-get install -y libcudnn9-cuda-12",),
            ),
            Repair(
                "pip",
                "One of nvidia-cudnn-cu11, -cu12, -cu13: the framework's requirement says which.",
                (
                    "python -m pip uninstall -y nvidia-cudnn-cu11 nvidia-cudnn-cu12 nvidia-cudnn-cu13",
                    TF_WITH_CUDA,
                ),
            ),
        ),
        follows_from=("LIB004", "PKG009"),
        sources=("NVIDIA cuDNN support matrix", "SONAMEs and DT_NEEDED of the cuDNN packages"),
        check="cudnn:check_cuda_major",
    ),
    Condition(
        code="CDN004",
        name="cudnn-sublibrary-mismatch",
        severity=Severity.ERROR,
        title="The parts of cuDNN come from different versions",
        means=(
            "libcudnn.so and its parts (libcudnn_ops, _cnn, _adv, _graph, _engines…) are of different "
            "versions, or from different directories."
        ),
        why=(
            "Since version 8 libcudnn.so is a shim that opens its parts by name, and each part is searched "
            "like any other library. One directory with an older part that comes first is enough: "
            'CUDNN_STATUS_SUBLIBRARY_VERSION_MISMATCH, "undefined symbol" in libcudnn_*, or '
            "CUDNN_STATUS_NOT_INITIALIZED. It comes from a second copy in LD_LIBRARY_PATH, or from a new "
            "archive unpacked over an old one."
        ),
        see=(
            "ldconfig -p | grep libcudnn",
            PIP_CUDA_LIBRARIES + " | grep cudnn",
            (
                "echo \"$LD_LIBRARY_PATH\" | tr : '\\n' | xargs -I '{}' find '{}' -maxdepth 1 -name "
                "'libcudnn*' 2>/dev/null"
            ),
        ),
        repairs=(
            Repair("A second copy in LD_LIBRARY_PATH", "", ("env -u LD_LIBRARY_PATH " + TF_DEVICES,)),
            Repair(
                "pip",
                "Install it again, after removing what is left of the old one.",
                ("python -m pip uninstall -y nvidia-cudnn-cu12", TF_WITH_CUDA),
            ),
            Repair(
                "Ubuntu, Debian",
                "",
                ("sudo apt-get install --reinstall -y libcudnn9-cuda-12", "sudo ldconfig"),
            ),
            Repair(
                "Unpacked into the toolkit",
                "Remove all of cuDNN there, then unpack one version.",
                ("ls -l /usr/local/cuda/lib64/libcudnn*",),
            ),
        ),
        follows_from=("LIB004", "PKG009", "PKG011"),
        sources=("NVIDIA cuDNN documentation: library structure", "cuDNN release notes"),
        check="cudnn:check_parts",
    ),
    Condition(
        code="CDN005",
        name="cudnn-init-failed-oom",
        severity=Severity.ERROR,
        title="cuDNN cannot start because GPU memory ran out",
        means="cuDNN could not make its handle, for want of GPU memory.",
        why=(
            "cuDNN takes its workspace beside the framework's allocator. TensorFlow reserves nearly all "
            "memory at start; on a card that also drives a desktop, or that a second process uses, too "
            'little is left: "Could not create cudnn handle: CUDNN_STATUS_INTERNAL_ERROR", "Failed to get '
            'convolution algorithm", "DNN library is not found". People reinstall cuDNN for it, in vain.'
        ),
        see=(
            "nvidia-smi --query-compute-apps=pid,process_name,used_memory --format=csv",
            "nvidia-smi --query-gpu=memory.total,memory.used,memory.free --format=csv",
        ),
        repairs=(
            Repair(
                "TensorFlow",
                (
                    'Take memory as it is needed, so that some is left for the handle. Exactly `true`: "1" '
                    'or "True" are ignored.'
                ),
                ("export TF_FORCE_GPU_ALLOW_GROWTH=true",),
            ),
            Repair(
                "TensorFlow, in the program",
                (
                    "`tf.config.experimental.set_memory_growth(gpu, True)` for each GPU, before anything "
                    "runs on it."
                ),
            ),
            Repair("JAX", "", ("export XLA_PYTHON_CLIENT_MEM_FRACTION=.60",)),
            Repair(
                "Another process holds the memory",
                "See GPU006.",
                ("nvidia-smi --query-compute-apps=pid,process_name,used_memory --format=csv",),
            ),
        ),
        follows_from=("GPU006", "GPU015", "PLC006"),
        sources=("tensorflow/tensorflow#24496", "tensorflow.org/guide/gpu: limiting GPU memory growth"),
    ),
    Condition(
        code="CDN006",
        name="cublas-init-failed-oom",
        severity=Severity.ERROR,
        title="cuBLAS cannot start because GPU memory ran out",
        means="cuBLAS could not make its handle, for want of GPU memory.",
        why=(
            "The handle is made at the first matrix product, after the framework has reserved the card: "
            '"failed to create cublas handle: CUBLAS_STATUS_NOT_INITIALIZED" (or ALLOC_FAILED), then '
            '"Attempting to perform BLAS operation using StreamExecutor without BLAS support". All libraries '
            "were loaded; nothing need be installed."
        ),
        see=(
            "nvidia-smi --query-compute-apps=pid,process_name,used_memory --format=csv",
            "nvidia-smi --query-gpu=memory.total,memory.used,memory.free --format=csv",
        ),
        repairs=(
            Repair(
                "TensorFlow",
                (
                    'Take memory as it is needed, so that some is left for the handle. Exactly `true`: "1" '
                    'or "True" are ignored.'
                ),
                ("export TF_FORCE_GPU_ALLOW_GROWTH=true",),
            ),
            Repair(
                "TensorFlow, in the program",
                (
                    "`tf.config.experimental.set_memory_growth(gpu, True)` for each GPU, before anything "
                    "runs on it."
                ),
            ),
            Repair("JAX", "", ("export XLA_PYTHON_CLIENT_MEM_FRACTION=.60",)),
            Repair(
                "Another process holds the memory",
                "See GPU006.",
                ("nvidia-smi --query-compute-apps=pid,process_name,used_memory --format=csv",),
            ),
        ),
        follows_from=("GPU006", "GPU015", "PLC006"),
        sources=("tensorflow.org/guide/gpu: limiting GPU memory growth",),
    ),
)
