"""CUDA libraries on disk: broken files, missing dependencies, stale search paths."""

from __future__ import annotations

from envdoctor.catalog.commands import PIP_CUDA_LIBRARIES, TF_LIBRARIES, TF_WITH_CUDA
from envdoctor.catalog.condition import Condition, Repair, Severity

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        code="LIB006",
        name="dangling-library-link",
        severity=Severity.ERROR,
        title="A symbolic link to a CUDA library leads nowhere",
        means="A link in a directory that is searched points to a file that is gone, or round in a circle.",
        why=(
            "The loader sees the name, cannot open it, and goes on to the next directory; often there is "
            "none. Links break when a toolkit is removed or upgraded beneath them, when an archive is copied "
            "without -d (cp -P), or when an environment is moved. Hand-made links from a forum's answer are "
            "the usual find."
        ),
        see=(
            (
                "find /usr/lib /usr/local/lib /usr/local/cuda*/lib64 \"$(python -c 'import sysconfig; "
                "print(sysconfig.get_path(\"purelib\"))')\" -xtype l -name 'lib*.so*' 2>/dev/null"
            ),
            "sudo ldconfig -v 2>&1 | grep -iE 'no such file|not a symbolic'",
        ),
        repairs=(
            Repair(
                "In pip's packages",
                "Install them again; pip writes every file anew.",
                (
                    (
                        "python -m pip install --force-reinstall \"tensorflow[and-cuda]==$(python -c 'from "
                        'importlib.metadata import version; print(version("tensorflow"))\')"'
                    ),
                ),
            ),
            Repair(
                "In a system directory",
                "Remove what the list above shows; ldconfig makes the regular links itself.",
                ("sudo ldconfig",),
            ),
        ),
        sources=("ldconfig(8)", "path_resolution(7)"),
        check="libraries:check_required_libraries",
    ),
    Condition(
        code="LIB007",
        name="unusable-library-file",
        severity=Severity.ERROR,
        title="A file with the name of a CUDA library cannot be loaded",
        means=(
            "The file that the loader finds is of another architecture or word size, truncated, no ELF "
            "file, or not readable."
        ),
        why=(
            "Another architecture or 32 bits: the loader passes over it and searches on. A truncated or "
            "foreign file (a broken download, a linker script, a Git LFS pointer, Windows' link as text) "
            'stops the search with "file too short" or "invalid ELF header", although a good copy may '
            "follow."
        ),
        see=(
            TF_LIBRARIES,
            PIP_CUDA_LIBRARIES + " -type f -size -4k",
            "file -L \"$(ldconfig -p | awk '/libcudart.so/ {print $NF; exit}')\"",
        ),
        repairs=(
            Repair(
                "In pip's packages",
                "Install them again without the cache, which may hold the broken file.",
                (
                    (
                        "python -m pip install --force-reinstall --no-cache-dir "
                        "\"tensorflow[and-cuda]==$(python -c 'from importlib.metadata import version; "
                        'print(version("tensorflow"))\')"'
                    ),
                ),
            ),
            Repair(
                "cuDNN copied on Windows or through a share",
                "Unpack the archive on Linux; it has links, which such copies lose.",
            ),
            Repair(
                "Not readable",
                "Look at the mode of the file and of every directory above it.",
                ("namei -l \"$(ldconfig -p | awk '/libcudart.so/ {print $NF; exit}')\"",),
            ),
        ),
        sources=("ld.so(8)", "elf(5)"),
        check="libraries:check_required_libraries",
    ),
    Condition(
        code="LIB008",
        name="missing-transitive-library",
        severity=Severity.ERROR,
        title="A CUDA library is found, and a library that it needs is not",
        means="The library itself is found; one of its own DT_NEEDED entries is not.",
        why=(
            "dlerror names the missing dependency, and TensorFlow's message quotes the library that it asked "
            'for: read the part after "dlerror:". The dependency is searched with the RUNPATH of the library '
            "that needs it, not of TensorFlow. cuSOLVER and cuSPARSE need libnvJitLink.so.12, cuDNN needs "
            "cuBLAS of its own CUDA version, cuBLAS needs cuBLASLt. Wheels find each other by $ORIGIN, which "
            "breaks when one is missing or a library was linked or copied to another depth."
        ),
        see=(
            TF_LIBRARIES,
            PIP_CUDA_LIBRARIES + " -exec ldd {} \\; 2>/dev/null | grep 'not found' | sort -u",
            "ldconfig -p | grep -i nvjitlink",
        ),
        repairs=(
            Repair("TensorFlow 2.14 or later, pip", "Install what is missing.", (TF_WITH_CUDA,)),
            Repair(
                "cuDNN for another CUDA version than the toolkit (apt)",
                "See CDN003: install the cuDNN package that names the toolkit's version.",
                ("apt-cache policy libcudnn9-cuda-12 libcudnn8",),
            ),
            Repair(
                "A link or copy made by hand",
                (
                    "Point LD_LIBRARY_PATH at the real directory instead, or link relatively, at the same "
                    "depth."
                ),
            ),
        ),
        follows_from=("LIB004", "CDN003"),
        sources=("ld.so(8)", "ELF facts of the nvidia-* wheels"),
        check="libraries:check_required_libraries",
    ),
    Condition(
        code="LIB009",
        name="ld-cache-stale",
        severity=Severity.WARNING,
        title="The loader's cache disagrees with the libraries on disk",
        means="ld.so.cache lists a file that is gone, or misses one in a directory that ld.so.conf names.",
        why=(
            "The cache is written by ldconfig, not by the loader. After a toolkit was installed by hand, or "
            "moved, libraries in configured directories stay invisible until ldconfig runs; package managers "
            "run it themselves."
        ),
        see=(
            "ldconfig -p | awk '/libcu/ {print $NF}' | xargs -r ls -lL >/dev/null",
            "stat -c '%y %n' /etc/ld.so.cache /etc/ld.so.conf.d/*",
            "cat /etc/ld.so.conf.d/*",
        ),
        repairs=(
            Repair("", "", ("sudo ldconfig",)),
            Repair("Without root", "Set LD_LIBRARY_PATH to the directory (LIB003)."),
        ),
        sources=("ldconfig(8)", "ld.so(8)"),
        check="library_paths:check_ld_cache",
    ),
    Condition(
        code="LIB010",
        name="missing-tensorrt",
        severity=Severity.NOTE,
        title="TensorRT is not installed, which matters only to TF-TRT",
        means="libnvinfer is not found. TensorFlow uses it only when TF-TRT is called.",
        why=(
            '"Could not find TensorRT" is among the most searched-for of TensorFlow\'s messages and has no '
            "part in whether the GPU is used. 2.15 to 2.17 ask for libnvinfer.so.8.6.1, a name that no "
            "normal installation has; from 2.18 on the wheels are built without TensorRT."
        ),
        see=("ldconfig -p | grep libnvinfer", "python -m pip list | grep -i tensorrt"),
        repairs=(
            Repair("TF-TRT is not used", "Nothing to do."),
            Repair(
                "TF-TRT is used",
                "NVIDIA's own container has a TensorFlow with it (NGC, tensorflow 25.02 and earlier).",
            ),
        ),
        sources=("TensorFlow 2.18 release notes", "dlopen names of the TensorFlow 2.15 to 2.17 wheels"),
        check="libraries:check_tensorrt",
    ),
    Condition(
        code="LIB011",
        name="mixed-cuda-toolkits-on-path",
        severity=Severity.WARNING,
        title="Several CUDA toolkits are on the search paths, or /usr/local/cuda leads nowhere",
        means=(
            "PATH or LD_LIBRARY_PATH names toolkits of several versions, or /usr/local/cuda is a "
            "dangling link."
        ),
        why=(
            "The first that has the file wins, file by file, so that ptxas may come from one toolkit and "
            "cuDNN from another. Start files that append at every login make it grow. When a toolkit is "
            "removed, /usr/local/cuda can stay behind, and everything that names it fails."
        ),
        see=(
            "ls -ld /usr/local/cuda*",
            "echo \"$PATH:$LD_LIBRARY_PATH\" | tr : '\\n' | grep -i cuda",
            "command -v nvcc ptxas",
        ),
        repairs=(
            Repair(
                "Point /usr/local/cuda at one toolkit (Ubuntu, Debian)",
                "",
                ("update-alternatives --display cuda", "sudo update-alternatives --config cuda"),
            ),
            Repair(
                "Point it at the newest that is there",
                "",
                ('sudo ln -sfn "$(ls -d /usr/local/cuda-* | sort -V | tail -n 1)" /usr/local/cuda',),
            ),
            Repair(
                "Start files",
                "Keep one toolkit; wheels need none.",
                (
                    (
                        "grep -n -i cuda ~/.bashrc ~/.profile ~/.zshrc /etc/environment /etc/profile.d/* "
                        "2>/dev/null"
                    ),
                ),
            ),
        ),
        sources=("NVIDIA CUDA installation guide",),
        check="library_paths:check_mixed_toolkits",
    ),
    Condition(
        code="LIB012",
        name="ld-library-path-missing-dir",
        severity=Severity.NOTE,
        title="LD_LIBRARY_PATH names a directory that does not exist",
        means="An entry of LD_LIBRARY_PATH is not a directory.",
        why=(
            "The loader passes over it, so that it does no harm by itself; it is often the trace of a "
            "toolkit that was moved or removed, or of a typing error. An empty entry (a leading, trailing or "
            "double colon) is worse: it means the current directory."
        ),
        see=(
            (
                'echo "$LD_LIBRARY_PATH" | tr : \'\\n\' | while read -r d; do [ -d "$d" ] || echo '
                "\"missing: '$d'\"; done"
            ),
        ),
        repairs=(
            Repair(
                "This shell",
                "Keep the entries that exist.",
                (
                    (
                        'export LD_LIBRARY_PATH="$(echo "$LD_LIBRARY_PATH" | tr : \'\\n\' | while read -r '
                        'd; do [ -d "$d" ] && echo "$d"; done | paste -sd : -)"'
                    ),
                ),
            ),
            Repair(
                "For good",
                "",
                (
                    (
                        "grep -n LD_LIBRARY_PATH ~/.bashrc ~/.profile ~/.zshrc /etc/environment "
                        "/etc/profile.d/* 2>/dev/null"
                    ),
                ),
            ),
        ),
        sources=("ld.so(8)",),
        check="library_paths:check_search_path",
    ),
    Condition(
        code="LIB013",
        name="missing-unversioned-library",
        severity=Severity.WARNING,
        title="Only the versioned name of a library exists, and something opens the plain one",
        means=(
            "A program opens libnvrtc.so or libcuda.so, and only libnvrtc.so.12 or libcuda.so.1 is there."
        ),
        why=(
            "The plain name is the development link, which runtime packages and wheels leave out. cuDNN 8 "
            'to 8.7 opens libnvrtc.so by that name for its fused kernels ("Could not load library '
            'libcudnn_cnn_infer.so.8 … libnvrtc.so"; 8.9 and 9 try libnvrtc.so.12 first), and Triton to 3.1 '
            "links with -lcuda. Everything else works, until such a kernel is used."
        ),
        see=("ldconfig -p | grep -E 'libnvrtc|libcuda\\.so'", PIP_CUDA_LIBRARIES + " | grep nvrtc"),
        repairs=(
            Repair(
                "libnvrtc from a wheel",
                "Make the link, and let the loader see it.",
                (
                    (
                        "cd \"$(python -c 'import sysconfig; "
                        'print(sysconfig.get_path("purelib"))\')/nvidia/cuda_nvrtc/lib" && ln -s "$(ls -d '
                        'libnvrtc.so.[0-9]* | head -n 1)" libnvrtc.so && export '
                        'LD_LIBRARY_PATH="$PWD${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"'
                    ),
                ),
            ),
            Repair(
                "libcuda for Triton on WSL2",
                "",
                (
                    (
                        "sudo ln -s libcuda.so.1 /usr/lib/wsl/lib/libcuda.so || export "
                        "TRITON_LIBCUDA_PATH=/usr/lib/wsl/lib"
                    ),
                ),
            ),
            Repair(
                "libcuda for Triton elsewhere (Ubuntu)",
                "",
                ("sudo ln -s libcuda.so.1 /usr/lib/x86_64-linux-gnu/libcuda.so",),
            ),
            Repair("conda", "", ("conda install -c nvidia cuda-nvrtc-dev",)),
        ),
        sources=(
            "file names in libcudnn_*.so of cuDNN 8.6.0, 8.7.0, 8.9.2, 8.9.7 and 9.1.0",
            "triton 2.1.0, 3.1.0 and 3.6.0: build.py, driver.py",
        ),
        check="library_paths:check_plain_names",
    ),
    Condition(
        code="LIB014",
        name="loaded-library-not-foretold",
        severity=Severity.NOTE,
        title="Another file was loaded than the loader's rules foretell",
        means=(
            "The running framework has mapped a CUDA library from another place than envdoctor's model of "
            "the dynamic loader expected. Or, with --pid: a running process still has a file that was "
            "deleted or replaced since, or another one than a new process would take."
        ),
        why=(
            "Something loaded it before the framework asked: a package that preloads libraries, a "
            "sitecustomize, LD_PRELOAD in a wrapper. Or the model is wrong: a defect to report. In a process "
            "that runs for long, an upgrade or a repair came after it had loaded its libraries: it sees "
            "nothing of that until it is restarted, and what it loads later may not fit what it has."
        ),
        see=(
            "LD_DEBUG=libs python -c 'import tensorflow' 2>&1 | grep -E 'libcu(dnn|dart|blas)' | head",
            "grep -E 'lib(cu|nv|nccl)' /proc/PID/maps",
        ),
        repairs=(
            Repair(
                "A process that was examined with --pid",
                "Restart it (of a notebook: its kernel) to take what is installed now.",
            ),
            Repair(
                "A framework that was run by envdoctor",
                "None is needed while it works; tell envdoctor's maintainers what was loaded.",
            ),
        ),
        sources=("ld.so(8)", "proc(5), maps"),
        check="process:check_loaded_libraries",
        runs_framework=True,
    ),
)
