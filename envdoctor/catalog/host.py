"""The host: C libraries, CPU, platform."""

from __future__ import annotations

from envdoctor.catalog.commands import TF_DEVICES
from envdoctor.catalog.condition import Condition, Repair, Severity

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        code="HST001",
        name="glibc-too-old",
        severity=Severity.ERROR,
        title="An installed package needs a newer glibc than this system has",
        means=(
            "A compiled file of an installed package asks for a GLIBC_ symbol version that this "
            "system's libc.so.6 does not define."
        ),
        why=(
            "glibc is backward compatible only: what was built on a newer distribution does not load on an "
            "older one, and glibc cannot be upgraded apart from the distribution. pip chooses wheels by "
            "their manylinux tag, so this comes from wheels installed with --no-deps or by hand, from files "
            "copied between machines, from builds from source, and from containers that mount the host's "
            "packages. The loader refuses the file, and the import or the dlopen that asked for it fails."
        ),
        see=(
            "ldd --version | head -n 1",
            "python -c 'import platform; print(platform.libc_ver())'",
            (
                'find "$(python -c \'import sysconfig; print(sysconfig.get_path("purelib"))\')" -name '
                "'*.so*' -type f -exec grep -oah 'GLIBC_2\\.[0-9]*' {} + | sort -Vu | tail -n 1"
            ),
        ),
        repairs=(
            Repair(
                "pip",
                (
                    "Reinstall, so that pip chooses a wheel for this glibc; where none exists, an older "
                    "release of the package has one."
                ),
                ("python -m pip install --force-reinstall --only-binary :all: tensorflow",),
            ),
            Repair(
                "The system is too old for every wheel",
                (
                    "Upgrade the distribution, or run in a container: a container brings its own glibc, and "
                    "needs only the driver from the host."
                ),
                ("docker run --rm --gpus all tensorflow/tensorflow:latest-gpu " + TF_DEVICES,),
            ),
        ),
        sources=("PEP 600 (manylinux)", "ld.so(8)"),
        check="host:check_c_libraries",
    ),
    Condition(
        code="HST002",
        name="libstdcxx-too-old",
        severity=Severity.ERROR,
        title="The libstdc++ that is found first is older than a library needs",
        means=(
            "A library asks for a GLIBCXX_ or CXXABI_ symbol version that the libstdc++.so.6 found "
            "first does not define."
        ),
        why=(
            "A process loads one libstdc++.so.6: whichever the first object that needs it finds. conda's own "
            "copy comes first in a conda interpreter (its RPATH), so an old environment hides a newer system "
            "library; the other way round, a module or LD_LIBRARY_PATH puts an old system's copy before "
            "conda's. Every later library that was built with a newer compiler then fails."
        ),
        see=(
            (
                "LD_DEBUG=libs python -c 'import ctypes; ctypes.CDLL(\"libstdc++.so.6\")' 2>&1 | grep "
                "'calling init.*libstdc'"
            ),
            (
                "strings \"$(ldconfig -p | awk '/libstdc\\+\\+\\.so\\.6 .*x86-64/ {print $NF; exit}')\" | "
                "grep -E '^GLIBCXX_[0-9.]+$' | sort -V | tail -n 1"
            ),
        ),
        repairs=(
            Repair(
                "conda",
                "Bring the environment's own libstdc++ up to date.",
                ("conda install -c conda-forge libstdcxx-ng",),
            ),
            Repair(
                "LD_LIBRARY_PATH puts another copy first",
                "Start without it and see whether that is the cause.",
                ("env -u LD_LIBRARY_PATH python -c 'import tensorflow'",),
            ),
            Repair(
                "HPC modules",
                "An old gcc module may be loaded: purge the modules, or load a newer gcc.",
                ("module purge",),
            ),
        ),
        sources=("ld.so(8)", "GCC manual: ABI policy and guidelines"),
        check="host:check_c_libraries",
    ),
    Condition(
        code="HST003",
        name="cpu-no-avx",
        severity=Severity.ERROR,
        title="The CPU lacks instructions that this build was compiled for",
        means=(
            "The framework's build uses CPU instructions (AVX and the like) that this CPU, or this "
            "virtual machine's CPU model, does not have."
        ),
        why=(
            "TensorFlow's wheels have required AVX since 1.6. Without it the process dies at import with "
            '"Illegal instruction" (SIGILL), or says that the library was compiled to use AVX instructions '
            "that are not available. Virtual machines often show a generic CPU (qemu64, kvm64) without AVX "
            "although the host has it."
        ),
        see=(
            "grep -o -m 1 -w -E 'avx|avx2|avx512f' /proc/cpuinfo | sort -u",
            "grep -m 1 'model name' /proc/cpuinfo",
            "python -c 'import tensorflow'; echo \"exit status $? (132 is SIGILL)\"",
        ),
        repairs=(
            Repair(
                "A virtual machine",
                (
                    "Give the guest the host's CPU model: `-cpu host` in QEMU, `host-passthrough` in "
                    "libvirt, type `host` in Proxmox; then restart the guest."
                ),
            ),
            Repair(
                "The CPU itself has no AVX",
                "Use a build without AVX: conda-forge's, one from source, or TensorFlow 1.5.",
                ("conda install -c conda-forge tensorflow",),
            ),
        ),
        sources=("tensorflow/tensorflow#17411", "tensorflow/tensorflow#19104"),
        check="host:check_cpu_instructions",
    ),
    Condition(
        code="HST004",
        name="unsupported-platform",
        severity=Severity.ERROR,
        title="No GPU build of this framework exists for this platform",
        means="For this operating system and architecture the framework is published for the CPU only.",
        why=(
            "TensorFlow has had no GPU support on native Windows since 2.11 (2.10 was the last), and none "
            "with CUDA on macOS. A plain pip install succeeds all the same and computes on the CPU."
        ),
        see=(
            (
                "python -c 'import platform; print(platform.system(), platform.machine(), "
                "platform.python_version())'"
            ),
        ),
        repairs=(
            Repair(
                "Windows",
                "Install in WSL2, which uses the Windows driver; install no Linux driver in it.",
                ("wsl --install",),
            ),
            Repair(
                "Windows, natively",
                "TensorFlow 2.10 with CUDA 11.2 and cuDNN 8.1, on Python 3.7 to 3.10.",
                (
                    "conda install -c conda-forge cudatoolkit=11.2 cudnn=8.1.0",
                    "python -m pip install 'tensorflow<2.11'",
                ),
            ),
            Repair(
                "macOS",
                "Apple's Metal plug-in gives TensorFlow a GPU device; no CUDA is involved.",
                ("python -m pip install tensorflow tensorflow-metal",),
            ),
        ),
        sources=("tensorflow.org/install/pip", "TensorFlow 2.10 and 2.11 release notes"),
        check="host:check_platform",
    ),
)
