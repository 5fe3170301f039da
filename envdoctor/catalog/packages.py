"""Python packages: builds, versions, duplicates."""

from __future__ import annotations

from envdoctor.catalog.commands import PIP_CUDA_LIBRARIES, TF_WITH_CUDA, TORCH_DEVICES
from envdoctor.catalog.condition import Condition, Repair, Severity

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        code="PKG001",
        name="framework-not-installed",
        severity=Severity.NOTE,
        title="The framework is not installed in this interpreter",
        means="The interpreter that was examined has no distribution of the framework.",
        why=(
            "Each interpreter has its own packages. Usually the framework is in another one: `pip` belongs "
            "to another Python than `python`, a virtual environment is not active, or a notebook kernel "
            "starts elsewhere (ENV003)."
        ),
        see=(
            "python -c 'import sys; print(sys.executable)'",
            "python -m pip --version",
            "type -a python pip",
        ),
        repairs=(
            Repair(
                "TensorFlow with CUDA",
                "`python -m pip` installs for that very python.",
                ("python -m pip install 'tensorflow[and-cuda]'",),
            ),
            Repair(
                "PyTorch, JAX", "", ("python -m pip install torch", "python -m pip install 'jax[cuda12]'")
            ),
            Repair(
                "It is in another environment",
                "Let envdoctor look there.",
                ('envdoctor check --python "$(command -v python3)"',),
            ),
        ),
        follows_from=("PKG003", "PKG008"),
        sources=("packaging.python.org",),
        check="packages:check_framework_not_installed",
    ),
    Condition(
        code="PKG002",
        name="cpu-only-build",
        severity=Severity.ERROR,
        title="The installed build of the framework has no GPU support",
        means=(
            "The framework is installed as a build for the CPU: no driver, library or variable can "
            "make it use a GPU."
        ),
        why=(
            "It is chosen by the package's name or index: tensorflow-cpu, tensorflow-intel, PyTorch's +cpu "
            "wheels and index, jax without an extra, conda's builds named cpu (chosen where no driver was "
            "visible at install, as on a login node). Another package's requirements can replace a GPU build "
            "with it, without a word. tensorflow 1.15.5 from PyPI is for the CPU only; 1.x for GPUs is "
            "tensorflow-gpu. No GPU build exists for macOS, and none for native Windows from 2.11."
        ),
        see=(
            "python -c 'import tensorflow as tf; print(tf.__version__, tf.test.is_built_with_cuda())'",
            TORCH_DEVICES,
            "python -m pip list | grep -iE 'tensorflow|torch|jax'",
            "conda list | grep -iE 'tensorflow|pytorch|jaxlib'",
        ),
        repairs=(
            Repair(
                "TensorFlow, pip",
                "",
                (
                    "python -m pip uninstall -y tensorflow-cpu tensorflow-intel tensorflow",
                    "python -m pip install 'tensorflow[and-cuda]'",
                ),
            ),
            Repair(
                "PyTorch, pip",
                "",
                ("python -m pip uninstall -y torch", "python -m pip install --no-cache-dir torch"),
            ),
            Repair("JAX, pip", "", ("python -m pip install --upgrade 'jax[cuda12]'",)),
            Repair(
                "conda",
                "Where no driver is visible, say that there will be one.",
                (
                    "CONDA_OVERRIDE_CUDA=12.5 conda install -c conda-forge 'tensorflow=*=cuda*'",
                    "CONDA_OVERRIDE_CUDA=12.5 conda install -c conda-forge pytorch-gpu",
                ),
            ),
        ),
        follows_from=("HST004", "PKG004"),
        sources=(
            "tensorflow.org/install/pip",
            "pytorch.org/get-started",
            "JAX installation guide",
            "conda documentation: virtual packages",
        ),
        check="packages:check_cpu_only_build",
    ),
    Condition(
        code="PKG003",
        name="tensorflow-gpu-stub-package",
        severity=Severity.ERROR,
        title="tensorflow-gpu is an empty package that only fails",
        means="tensorflow-gpu 2.12 or later was asked for: its setup raises an error and installs nothing.",
        why=(
            "Since TensorFlow 2.1 `tensorflow` and `tensorflow-gpu` were the same; from December 2022 on the "
            "latter is an empty package that says so. On newer Pythons pip finds only that version, also "
            "when another package requires it."
        ),
        see=("python -m pip index versions tensorflow-gpu", "python -m pip list | grep -i tensorflow"),
        repairs=(
            Repair(
                "",
                "Install `tensorflow`, with the CUDA libraries.",
                ("python -m pip install 'tensorflow[and-cuda]'",),
            ),
            Repair(
                "Another package requires tensorflow-gpu",
                (
                    "Install that one without its requirements, or a newer release of it; look for the "
                    "requirement here."
                ),
                (
                    (
                        "grep -rn tensorflow-gpu requirements*.txt setup.py pyproject.toml environment*.yml "
                        "2>/dev/null"
                    ),
                ),
            ),
        ),
        sources=("setup.py of tensorflow-gpu 2.12", "tensorflow/serving#2096"),
        check="packages:check_stub_package",
    ),
    Condition(
        code="PKG004",
        name="duplicate-framework-distributions",
        severity=Severity.ERROR,
        title="Two distributions of one framework overwrite each other's files",
        means=(
            "Several distributions that own the same import package are installed, for instance "
            "tensorflow and tensorflow-cpu."
        ),
        why=(
            "They write the same files under site-packages/tensorflow; what was installed last wins, file by "
            "file. Uninstalling one removes files of the other, so that a GPU build can silently be half a "
            "CPU build, or fail at import."
        ),
        see=("python -m pip list | grep -iE '^(tensorflow|tf[-_]nightly|torch|jaxlib|keras)'",),
        repairs=(
            Repair(
                "TensorFlow",
                "Remove all of them, then install one.",
                (
                    (
                        "python -m pip uninstall -y tensorflow tensorflow-cpu tensorflow-gpu "
                        "tensorflow-intel tf-nightly tf-nightly-cpu intel-tensorflow"
                    ),
                    "python -m pip install 'tensorflow[and-cuda]'",
                ),
            ),
            Repair(
                "conda and pip",
                "One of the two should own it (PKG011).",
                ("conda list | grep -i tensorflow",),
            ),
        ),
        sources=("packaging.python.org: recording installed projects",),
        check="packages:check_duplicates",
    ),
    Condition(
        code="PKG005",
        name="numpy-abi-mismatch",
        severity=Severity.ERROR,
        title="NumPy's ABI is not the one that a package was compiled for",
        means="A compiled package was built against another NumPy than the one that is imported.",
        why=(
            "NumPy's binary interface is compatible upwards only within a major version: what was compiled "
            'for a newer one fails on an older, and what was compiled for 1.x fails on 2.x. "module compiled '
            'against API version …", "numpy.dtype size changed", "A module that was compiled using NumPy 1.x '
            'cannot be run in NumPy 2", "_ARRAY_API not found". Two NumPys, in the user\'s site and the '
            "environment's, give the same."
        ),
        see=(
            "python -c 'import numpy; print(numpy.__version__, numpy.__file__)'",
            "python -m pip list | grep -iE 'numpy|scipy|tensorflow|torch|pandas|h5py'",
            "python -m pip check",
        ),
        repairs=(
            Repair(
                "A package was built for NumPy 1.x",
                "TensorFlow takes NumPy 2 from 2.18 on, PyTorch from 2.3 on.",
                ("python -m pip install 'numpy<2'",),
            ),
            Repair("A package was built for a newer NumPy", "", ("python -m pip install --upgrade numpy",)),
            Repair(
                "One package is left over from before",
                "Build or fetch it again.",
                ("python -m pip install --force-reinstall --no-cache-dir scipy h5py pandas",),
            ),
            Repair("The user's site interferes (HPC)", "", ("export PYTHONNOUSERSITE=1",)),
        ),
        sources=("NumPy 2.0 migration guide", "NumPy: for downstream package authors"),
        check="package_versions:check_numpy",
    ),
    Condition(
        code="PKG006",
        name="protobuf-mismatch",
        severity=Severity.ERROR,
        title="protobuf is of a version that the framework does not take",
        means="The installed protobuf is outside the range that the framework's metadata asks for.",
        why=(
            "Generated code and protobuf's runtime must fit. TensorFlow up to 2.11 or so needs protobuf "
            'below 3.20 or 4 ("Descriptors cannot be created directly"); 2.20 needs 5.28 or later ("cannot '
            "import name 'runtime_version'\"). Another package's pin moves it up or down."
        ),
        see=(
            "python -m pip list | grep -i protobuf",
            "python -m pip check",
            (
                "python -c 'from importlib.metadata import requires; print([r for r in "
                'requires("tensorflow") if "protobuf" in r])\''
            ),
        ),
        repairs=(
            Repair(
                "",
                "Let pip resolve both together.",
                (
                    (
                        "python -m pip install \"tensorflow==$(python -c 'from importlib.metadata import "
                        'version; print(version("tensorflow"))\')" "$(python -c \'from importlib.metadata '
                        'import requires; print(next(r for r in requires("tensorflow") if '
                        'r.startswith("protobuf")))\')"'
                    ),
                ),
            ),
            Repair(
                '"Descriptors cannot be created directly"', "", ("python -m pip install 'protobuf<3.21'",)
            ),
            Repair(
                "Two packages want different ones",
                "Slow, and without the check; set before the first import.",
                ("export PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python",),
            ),
        ),
        sources=("protobuf.dev: cross-version runtime guarantee", "Requires-Dist of the TensorFlow wheels"),
        check="package_versions:check_protobuf",
    ),
    Condition(
        code="PKG007",
        name="keras-version-mismatch",
        severity=Severity.ERROR,
        title="Keras and TensorFlow do not belong together",
        means="The installed Keras is of another generation or version than this TensorFlow uses.",
        why=(
            "Up to 2.15 TensorFlow needs the Keras of its own number; from 2.16 on tf.keras is Keras 3. Code "
            "for Keras 2 (Transformers among it) then wants tf-keras. Whoever upgrades one and not the other "
            'gets an ImportError, or "Your currently installed version of Keras is Keras 3". '
            "keras.backend.set_session is gone in Keras 3."
        ),
        see=("python -m pip list | grep -iE '^(keras|tf.keras|tensorflow) '", "python -m pip check"),
        repairs=(
            Repair(
                "TensorFlow 2.16 or later, code for Keras 2",
                "",
                (
                    (
                        "python -m pip install \"tf-keras~=$(python -c 'from importlib.metadata import "
                        'version; print(version("tensorflow").rpartition(".")[0])\').0"'
                    ),
                    "export TF_USE_LEGACY_KERAS=1",
                ),
            ),
            Repair(
                "TensorFlow up to 2.15",
                "",
                (
                    (
                        "python -m pip install \"keras==$(python -c 'from importlib.metadata import version; "
                        'print(version("tensorflow").rpartition(".")[0])\').*"'
                    ),
                ),
            ),
            Repair("Transformers with PyTorch only", "", ("export USE_TF=0",)),
        ),
        sources=("keras.io: getting started, Keras 3 and TensorFlow", "TensorFlow 2.16 release notes"),
        check="package_versions:check_keras",
    ),
    Condition(
        code="PKG008",
        name="python-version-no-wheel",
        severity=Severity.ERROR,
        title="No wheel exists for this Python version",
        means="The framework publishes no wheel for this Python version (or platform).",
        why=(
            'pip then says "No matching distribution found", lists what exists for this Python, or takes an '
            "old release. TensorFlow 2.21 is for Python 3.10 to 3.13, 2.16 to 2.19 for 3.9 to 3.12, 2.12 and "
            "2.13 for 3.8 to 3.11. A new Python has none for some months."
        ),
        see=(
            "python --version",
            "python -m pip index versions tensorflow",
            'python -c \'import struct; print(struct.calcsize("P") * 8, "bits")\'',
        ),
        repairs=(
            Repair(
                "conda",
                "",
                (
                    (
                        "conda create -n tf -c conda-forge python=3.12 pip -y && conda run -n tf python -m "
                        "pip install 'tensorflow[and-cuda]'"
                    ),
                ),
            ),
            Repair(
                "uv",
                "It fetches the interpreter too.",
                (
                    (
                        "uv venv --python 3.12 ~/venv-tensorflow && uv pip install --python "
                        "~/venv-tensorflow/bin/python 'tensorflow[and-cuda]'"
                    ),
                ),
            ),
            Repair(
                "Ubuntu (deadsnakes)",
                "",
                (
                    (
                        "sudo add-apt-repository -y ppa:deadsnakes/ppa && sudo apt-get install -y "
                        "python3.12-venv"
                    ),
                    (
                        "python3.12 -m venv ~/venv-tensorflow && ~/venv-tensorflow/bin/pip install "
                        "'tensorflow[and-cuda]'"
                    ),
                ),
            ),
        ),
        sources=(
            "Requires-Python of the TensorFlow wheels",
            "tensorflow.org/install/source: tested build configurations",
        ),
        check="packages:check_python_version",
    ),
    Condition(
        code="PKG009",
        name="nvidia-wheel-version-mismatch",
        severity=Severity.ERROR,
        title="An nvidia-* wheel is outside the range that the framework asks for",
        means=(
            "The installed version of an nvidia-* wheel does not satisfy the framework's own metadata, "
            "or wheels for several CUDA majors are side by side."
        ),
        why=(
            "All frameworks of an environment share site-packages/nvidia: the last `pip install` decides, "
            "and pip warns in a line that scrolls by. A newer minor version is mostly harmless, an older one "
            "is not: cuDNN (CDN002), nvJitLink. cu11, cu12 and cu13 wheels can lie in the same directory and "
            "overwrite one another; removing one then removes files of the other."
        ),
        see=("python -m pip check", "python -m pip list | grep -iE '^nvidia|^tensorflow|^torch|^jax'"),
        repairs=(
            Repair("TensorFlow 2.14 or later", "The versions that it asks for.", (TF_WITH_CUDA,)),
            Repair(
                "Wheels of another CUDA major are left over",
                "See which ones, remove them (here those for CUDA 11), install the right ones again.",
                (
                    "python -m pip freeze | grep -oE '^nvidia-[a-z-]+-cu1[0-9]' | sort -t- -k4",
                    (
                        "python -m pip freeze | grep -oE '^nvidia-[a-z-]+-cu11' | xargs -r python -m pip "
                        "uninstall -y"
                    ),
                    TF_WITH_CUDA,
                ),
            ),
            Repair(
                "Two frameworks want different ones",
                "One environment for each (PKG010).",
                (
                    (
                        "python -m venv ~/venv-tensorflow && ~/venv-tensorflow/bin/pip install "
                        "'tensorflow[and-cuda]'"
                    ),
                ),
            ),
        ),
        follows_from=("PKG010",),
        sources=("Requires-Dist of the TensorFlow and PyTorch wheels", "tensorflow/tensorflow#70845"),
        check="nvidia_wheels:check_wheel_versions",
    ),
    Condition(
        code="PKG010",
        name="framework-conflict-same-process",
        severity=Severity.WARNING,
        title="Two frameworks in one environment ask for conflicting CUDA libraries",
        means=(
            "No set of nvidia-* wheels satisfies the metadata of all frameworks installed here, or "
            "they use different CUDA majors."
        ),
        why=(
            "PyTorch pins its wheels exactly, TensorFlow and JAX by range; PyTorch for CUDA 13 and "
            "TensorFlow for CUDA 12 share sonames such as libcusparse.so.12. Within one process the library "
            "that is loaded first serves both, so that the order of imports decides. Each also reserves GPU "
            "memory for itself."
        ),
        see=("python -m pip check", "python -m pip list | grep -iE '^nvidia|^tensorflow |^torch |^jax'"),
        repairs=(
            Repair(
                "The safe way",
                "One environment for each.",
                (
                    (
                        "python -m venv ~/venv-tensorflow && ~/venv-tensorflow/bin/pip install "
                        "'tensorflow[and-cuda]'"
                    ),
                    "python -m venv ~/venv-torch && ~/venv-torch/bin/pip install torch",
                ),
            ),
            Repair(
                "Only one needs the GPU",
                "Take the CPU build of the other (of PyTorch: pytorch.org/get-started has the command).",
                ("python -m pip uninstall -y tensorflow && python -m pip install tensorflow-cpu",),
            ),
            Repair(
                "Both in one process",
                (
                    'Hide the GPU from TensorFlow: `tf.config.set_visible_devices([], "GPU")` right after '
                    "its import, and import PyTorch first."
                ),
            ),
        ),
        sources=("Requires-Dist of the TensorFlow, PyTorch and JAX wheels", "tensorflow/tensorflow#70845"),
        check="nvidia_wheels:check_frameworks_agree",
    ),
    Condition(
        code="PKG011",
        name="pip-conda-cuda-mix",
        severity=Severity.WARNING,
        title="CUDA libraries from pip and from conda are mixed in one environment",
        means=(
            "A conda environment has CUDA libraries both in its lib directory and in site-packages/nvidia."
        ),
        why=(
            "conda's Python finds its own lib directory by RPATH, and programs with "
            "LD_LIBRARY_PATH=$CONDA_PREFIX/lib load conda's copy before the wheels'. Neither installer knows "
            "the other's files; an update of one changes which copy is taken."
        ),
        see=(
            "conda list | grep -iE 'cuda|cudnn|cublas|pypi'",
            'ls "$CONDA_PREFIX"/lib/libcudart.so* "$CONDA_PREFIX"/lib/libcudnn.so* 2>/dev/null',
            PIP_CUDA_LIBRARIES,
        ),
        repairs=(
            Repair(
                "The framework is from pip",
                "Remove conda's CUDA.",
                ("conda remove --force cudatoolkit cudnn", "conda env config vars unset LD_LIBRARY_PATH"),
            ),
            Repair(
                "The framework is from conda",
                "Remove the wheels.",
                (
                    (
                        "python -m pip freeze | grep -oE '^nvidia-[a-z0-9-]+' | xargs -r python -m pip "
                        "uninstall -y"
                    ),
                ),
            ),
        ),
        sources=("conda documentation: using pip in a conda environment",),
        check="nvidia_wheels:check_pip_conda_mix",
    ),
    Condition(
        code="PKG012",
        name="windows-dll-load-failed",
        severity=Severity.ERROR,
        title="Windows: a DLL of the framework cannot be loaded",
        means='On Windows the import ends in "DLL load failed".',
        why=(
            "The DLL that is named was found; one that it needs was not, or failed to start. Mostly the "
            "Microsoft Visual C++ redistributable is missing or old; otherwise CUDA's DLLs are not on PATH "
            "(TensorFlow up to 2.10), the CPU lacks AVX, or another package (Qt) has loaded an older runtime "
            "first."
        ),
        see=("python -c 'import tensorflow'", "where msvcp140_1.dll", "where cudart64_110.dll"),
        repairs=(
            Repair("First", "", ("winget install Microsoft.VCRedist.2015+.x64",)),
            Repair("The same program imports Qt", "Import TensorFlow before it."),
            Repair("A GPU is wanted, TensorFlow 2.11 or later", "Use WSL2 (HST004).", ("wsl --install",)),
        ),
        sources=("tensorflow.org/install/errors", "tensorflow.org/install/pip"),
    ),
)
