"""CUDA libraries: whether one is found, from where, which copy."""

from __future__ import annotations

from envdoctor.catalog.commands import (
    JAX_DEVICES,
    PIP_CUDA_LIBRARIES,
    TF_BUILD,
    TF_DEVICES,
    TF_LIBRARIES,
    TF_RUNPATH,
    TF_WITH_CUDA,
)
from envdoctor.catalog.condition import Condition, Repair, Severity

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        code="LIB001",
        name="missing-cuda-libs",
        severity=Severity.ERROR,
        title="A CUDA library that the framework needs is not installed",
        means=(
            "A library that must load before a GPU is registered is nowhere on this target: not in the "
            "wheels, not in a toolkit, not in the loader's directories."
        ),
        why=(
            "TensorFlow opens cudart, cublas, cublasLt, cufft, cusolver, cusparse and cudnn (curand up to "
            "2.13) with dlopen; if one fails it skips every GPU and computes on the CPU without an error. "
            "From 2.12 on it names the library only with TF_CPP_MAX_VLOG_LEVEL=1. `pip install tensorflow` "
            "brings none of them: the extra [and-cuda] does (from 2.14). PyTorch links them, so that `import "
            "torch` itself fails."
        ),
        see=(
            TF_LIBRARIES,
            PIP_CUDA_LIBRARIES,
            "ldconfig -p | grep -E 'libcu(dart|blas|fft|solver|sparse|dnn)'",
        ),
        repairs=(
            Repair(
                "TensorFlow 2.14 or later, pip",
                (
                    "The CUDA wheels of the installed version, nothing else changed. (2.15.0 cannot be "
                    "installed so: take 2.15.1.)"
                ),
                (TF_WITH_CUDA,),
            ),
            Repair(
                "TensorFlow 2.12, 2.13, conda",
                "CUDA 11.8 and cuDNN 8.6.",
                (
                    "conda install -c conda-forge cudatoolkit=11.8.0",
                    "python -m pip install 'nvidia-cudnn-cu11==8.6.0.163'",
                ),
            ),
            Repair(
                "TensorFlow 2.5 to 2.11, conda",
                "CUDA 11.2 and cuDNN 8.1.",
                ("conda install -c conda-forge cudatoolkit=11.2 cudnn=8.1.0",),
            ),
            Repair(
                "Ubuntu, Debian, without pip (NVIDIA's repository set up)",
                "For TensorFlow 2.18 to 2.21.",
                ("sudo apt-get install -y cuda-libraries-12-5 libcudnn9-cuda-12", "sudo ldconfig"),
            ),
            Repair(
                "PyTorch, JAX",
                "",
                (
                    "python -m pip install --force-reinstall torch",
                    "python -m pip install --upgrade 'jax[cuda12]'",
                ),
            ),
            Repair(
                "A container",
                (
                    "An image with the libraries: of TensorFlow's, those whose tag ends in -gpu; of "
                    "NVIDIA's, -runtime or -devel, not -base."
                ),
                ("docker run --rm --gpus all tensorflow/tensorflow:latest-gpu " + TF_DEVICES,),
            ),
            Repair(
                "HPC modules",
                "Load the CUDA that the build asks for; `module spider` shows how they are called.",
                ("module spider cuda", "module load cuda cudnn"),
            ),
        ),
        follows_from=("LIB006", "LIB007"),
        sources=(
            "tensorflow.org/install/pip",
            "tensorflow/tensorflow#66987",
            "tensorflow.org/install/source: tested build configurations",
        ),
        check="libraries:check_required_libraries",
    ),
    Condition(
        code="LIB002",
        name="pip-cuda-libs-not-on-path",
        severity=Severity.ERROR,
        title="A CUDA library is installed by pip where the framework does not look",
        means=(
            "The library is in site-packages/nvidia/*/lib, and no directory that the loader searches "
            "for the object that opens it is that one."
        ),
        why=(
            "dlopen searches DT_RPATH of the object that calls it (only if that has no RUNPATH), "
            "LD_LIBRARY_PATH, that object's RUNPATH, ld.so.cache and the default directories. RUNPATH is not "
            "inherited: what another library lists does not count. TensorFlow opens its libraries from "
            "libtensorflow_framework.so.2. In 2.21.0 that one's RUNPATH lacks nvidia/cusolver/lib (only "
            "libtensorflow_cc.so.2 has it); in 2.16.1 it lacks all but cudart's and TensorRT's; up to 2.13 "
            "there is none. So `pip install 'tensorflow[and-cuda]'` succeeds, every file is there, and no "
            "GPU is registered."
        ),
        see=(TF_LIBRARIES, TF_RUNPATH, PIP_CUDA_LIBRARIES),
        repairs=(
            Repair(
                "First",
                (
                    "`envdoctor fix` links the library into a directory that is searched, inside this "
                    "environment, without root; `envdoctor undo` takes it back. See it first:"
                ),
                ("envdoctor fix --dry-run --only LIB002", "envdoctor fix --only LIB002"),
            ),
            Repair(
                "TensorFlow 2.21.0, by hand",
                "A relative link, deep enough that the library still finds its own neighbours.",
                (
                    (
                        "cd \"$(python -c 'import sysconfig; "
                        'print(sysconfig.get_path("purelib"))\')/nvidia/cusparse/lib" && ln -s '
                        "../../cusolver/lib/libcusolver.so.11 libcusolver.so.11"
                    ),
                ),
            ),
            Repair(
                "TensorFlow 2.16.1",
                "Repaired in 2.16.2.",
                ("python -m pip install 'tensorflow[and-cuda]==2.16.2'",),
            ),
            Repair(
                "TensorFlow up to 2.13, or for one shell",
                "All of the wheels' directories. It must be set before Python starts.",
                (
                    (
                        "export LD_LIBRARY_PATH=\"$(python -c 'import glob, sysconfig; "
                        'print(*glob.glob(sysconfig.get_path("purelib") + "/nvidia/*/lib"), '
                        'sep=":")\')${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"'
                    ),
                ),
            ),
            Repair(
                "conda",
                "The same, kept by the environment; takes effect at the next activation.",
                (
                    (
                        "conda env config vars set LD_LIBRARY_PATH=\"$(python -c 'import glob, sysconfig; "
                        'print(*glob.glob(sysconfig.get_path("purelib") + "/nvidia/*/lib"), '
                        'sep=":")\')"'
                    ),
                ),
            ),
        ),
        sources=(
            "ld.so(8)",
            "dlopen(3)",
            "tensorflow/tensorflow#63362",
            "tensorflow/tensorflow#65842",
            "tensorflow/tensorflow#85311",
            "RUNPATH of the TensorFlow 2.1 to 2.21 wheels",
        ),
        check="libraries:check_required_libraries",
    ),
    Condition(
        code="LIB003",
        name="ld-library-path-wrong",
        severity=Severity.ERROR,
        title="A CUDA library is installed in a directory that is not searched",
        means=(
            "The library is in a toolkit, a conda environment or under /opt, and the loader does not "
            "search that directory for the object that opens it."
        ),
        why=(
            "NVIDIA's runfile and cuDNN's archive install without telling the loader; an entry in "
            "/etc/ld.so.conf.d takes effect only after ldconfig; LD_LIBRARY_PATH set in ~/.bashrc does not "
            "reach notebooks, services or cron, and sudo removes it. A container's `-e LD_LIBRARY_PATH=…` "
            "replaces the image's value instead of adding to it."
        ),
        see=(
            TF_LIBRARIES,
            "ldconfig -p | grep -E 'libcudart|libcudnn'",
            'echo "$LD_LIBRARY_PATH"',
            (
                "find /usr/local/cuda*/ /opt \"${CONDA_PREFIX:-/nonexistent}\" -name 'libcudart.so*' "
                "2>/dev/null"
            ),
        ),
        repairs=(
            Repair(
                "First",
                (
                    "`envdoctor fix` makes the links or writes the export for this environment alone, and "
                    "takes it back with `envdoctor undo`."
                ),
                ("envdoctor fix --dry-run --only LIB003", "envdoctor fix --only LIB003"),
            ),
            Repair(
                "A toolkit in /usr/local/cuda, for this shell",
                "",
                ('export LD_LIBRARY_PATH="/usr/local/cuda/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"',),
            ),
            Repair(
                "A toolkit in /usr/local/cuda, for the machine",
                "It then holds for every program here.",
                ("echo /usr/local/cuda/lib64 | sudo tee /etc/ld.so.conf.d/cuda.conf", "sudo ldconfig"),
            ),
            Repair(
                "conda",
                "Python from the same environment finds its lib directory; another interpreter does not.",
                ('conda env config vars set LD_LIBRARY_PATH="$CONDA_PREFIX/lib"',),
            ),
            Repair("HPC modules", "", ("module load cuda cudnn",)),
        ),
        follows_from=("LIB009",),
        sources=("ld.so(8)", "ldconfig(8)", "NVIDIA CUDA installation guide: post-installation actions"),
        check="libraries:check_required_libraries",
    ),
    Condition(
        code="LIB004",
        name="ld-library-path-shadowing",
        severity=Severity.ERROR,
        title="Another copy of a CUDA library is found before the right one",
        means=(
            "The loader finds a copy of another version than the one that came with the framework, and "
            "loads that."
        ),
        why=(
            "LD_LIBRARY_PATH comes before RUNPATH, so an old /usr/local/cuda-*/lib64 there beats "
            "TensorFlow's wheels. JAX and PyTorch carry RPATH, which comes before LD_LIBRARY_PATH, but what "
            "they or their libraries open later by plain name does not. A library already loaded under the "
            "same SONAME, by another framework in the process, wins over everything. libcusparse.so.12 and "
            "libcurand.so.10 have the same name in CUDA 12 and 13 and are taken in silence. A stubs "
            "directory in the path makes libcuda.so.1 a stub, and cuInit gives 34. Symptoms: undefined "
            'symbol __nvJitLink…, "Loaded runtime CuDNN library", CUBLAS_STATUS_NOT_INITIALIZED.'
        ),
        see=(
            "echo \"$LD_LIBRARY_PATH\" | tr : '\\n'",
            "LD_DEBUG=libs " + TF_DEVICES + " 2>&1 | grep -E 'calling init.*/lib(cu|nv)'",
            TF_RUNPATH,
        ),
        repairs=(
            Repair(
                "To see whether this is it",
                "Without the variable:",
                ("env -u LD_LIBRARY_PATH " + TF_DEVICES, "env -u LD_LIBRARY_PATH " + JAX_DEVICES),
            ),
            Repair(
                "Wheels (TensorFlow 2.14 or later, PyTorch, JAX)",
                (
                    "They need no toolkit: take its directories out of the path, here and in the start file "
                    "that sets them."
                ),
                (
                    (
                        'export LD_LIBRARY_PATH="$(printf %s "$LD_LIBRARY_PATH" | tr : \'\\n\' | grep -vE '
                        "'/cuda(-[0-9.]+)?/' | paste -sd : -)\""
                    ),
                    (
                        "grep -n LD_LIBRARY_PATH ~/.bashrc ~/.profile ~/.zshrc /etc/environment "
                        "/etc/profile.d/* 2>/dev/null"
                    ),
                ),
            ),
            Repair("HPC modules", "", ("module unload cuda cudnn",)),
            Repair(
                "A container",
                (
                    "An image for another CUDA has its own copies: use one without a toolkit, or the "
                    "framework's build for that CUDA."
                ),
            ),
        ),
        sources=("ld.so(8)", "jax-ml/jax#17497", "pytorch/pytorch#78489", "SONAMEs of CUDA 12.5 and 13.0"),
        check="library_paths:check_shadowing",
    ),
    Condition(
        code="LIB005",
        name="cuda-version-mismatch-libs",
        severity=Severity.ERROR,
        title="A CUDA library of another version is installed than the framework asks for",
        means="The file name that is asked for does not exist; one of another major or minor version does.",
        why=(
            "The name carries the version: below CUDA 10.1 `x.y`; in 10.1 and 10.2 `x.y` for cudart and "
            "cupti, `10` for the rest; in CUDA 11 always `11.0` for cudart; from 12 on the major version "
            "alone. A toolkit of another version does not have the file, however new it is. A link from the "
            "old name to the new file works where the interface is the same (10.1 and 10.2), and fails late "
            "or computes wrongly where it is not (another major version of cuDNN or cuSOLVER)."
        ),
        see=(TF_LIBRARIES, TF_BUILD, "ldconfig -p | grep -E 'libcudart|libcublas|libcudnn|libcusolver'"),
        repairs=(
            Repair(
                "First",
                (
                    "`envdoctor fix` shows which link could serve and how risky it is; it makes a risky one "
                    "only with --allow-risky, and takes it back with `envdoctor undo`."
                ),
                ("envdoctor fix --dry-run --only LIB005",),
            ),
            Repair("TensorFlow 2.14 or later", "Right libraries instead of a link.", (TF_WITH_CUDA,)),
            Repair(
                "The installed CUDA is what you want to keep",
                (
                    "Take the TensorFlow that was built for it: CUDA 10.1 2.1 to 2.3, 11.0 2.4, 11.2 2.5 to "
                    "2.11, 11.8 2.12 to 2.14, 12.2 2.15, 12.3 2.16 and 2.17, 12.5 from 2.18 on."
                ),
            ),
            Repair(
                "TensorFlow 2.4",
                "It asks for libcusolver.so.10, which CUDA 11.0 alone has: CUDA 11.0, or TensorFlow 2.5.",
                ("python -m pip install 'tensorflow>=2.5,<2.6'",),
            ),
            Repair(
                "Beside the installed toolkit (NVIDIA's repository set up)",
                "Toolkits of several versions live side by side.",
                ("sudo apt-get install -y cuda-libraries-11-2",),
            ),
        ),
        follows_from=("LIB004", "PKG009"),
        sources=(
            "tensorflow.org/install/source: tested build configurations",
            "tensorflow/tensorflow#45263",
            "tensorflow/tensorflow#38578",
        ),
        check="libraries:check_required_libraries",
    ),
)
