"""XLA: libdevice, ptxas, flags."""

from __future__ import annotations

from envdoctor.catalog.commands import JAX_DEVICES, TF_DEVICES, TF_WITH_CUDA
from envdoctor.catalog.condition import Condition, Repair, Severity

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        code="XLA001",
        name="libdevice-not-found",
        severity=Severity.ERROR,
        title="XLA does not find libdevice",
        means="nvvm/libdevice/libdevice.10.bc is in none of the directories where XLA looks.",
        why=(
            "libdevice is NVIDIA's mathematical library as LLVM bitcode; XLA links it into every kernel that "
            "calls exp, pow and the like. It comes with nvcc, not with the CUDA runtime. TensorFlow looks "
            "under --xla_gpu_cuda_data_dir, /usr/local/cuda, /opt/cuda, the wheel nvidia-cuda-nvcc (2.14 and "
            "later), the conda prefix (2.21) and the current directory; the first that has nvvm/libdevice "
            'wins. The GPU is registered, and the first compiled function fails: "libdevice not found at '
            './libdevice.10.bc". Keras compiles with XLA by default, so that model.fit may be the first.'
        ),
        see=(
            (
                'find "$(python -c \'import sysconfig; print(sysconfig.get_path("purelib"))\')" '
                '/usr/local/cuda*/ /opt/cuda "${CONDA_PREFIX:-/nonexistent}" -name libdevice.10.bc '
                "2>/dev/null"
            ),
            'echo "$XLA_FLAGS"',
            (
                "python -c 'import tensorflow as tf; print(tf.function(lambda x: tf.exp(x) ** 2.5, "
                "jit_compile=True)(tf.ones([2])))'"
            ),
        ),
        repairs=(
            Repair(
                "TensorFlow 2.14 or later, pip",
                "The wheel nvidia-cuda-nvcc of the version that it asks for.",
                (TF_WITH_CUDA,),
            ),
            Repair(
                "conda, TensorFlow up to 2.13",
                "Put it into the layout that XLA expects, and name the root.",
                (
                    "conda install -c nvidia cuda-nvcc=11.8",
                    (
                        'mkdir -p "$CONDA_PREFIX/lib/nvvm/libdevice" && cp "$(find "$CONDA_PREFIX" -name '
                        'libdevice.10.bc | head -n 1)" "$CONDA_PREFIX/lib/nvvm/libdevice/"'
                    ),
                    'export XLA_FLAGS="--xla_gpu_cuda_data_dir=$CONDA_PREFIX/lib"',
                ),
            ),
            Repair(
                "Ubuntu, Debian: the package nvidia-cuda-toolkit",
                "It has libdevice under a path of its own.",
                ("export XLA_FLAGS=--xla_gpu_cuda_data_dir=/usr/lib/cuda",),
            ),
            Repair(
                "A toolkit elsewhere, HPC modules",
                "",
                (
                    (
                        'export XLA_FLAGS="--xla_gpu_cuda_data_dir=$(dirname "$(dirname "$(command -v '
                        'nvcc)")")"'
                    ),
                ),
            ),
            Repair(
                "JAX",
                "It no longer carries libdevice itself since 0.4.31.",
                ("python -m pip install --upgrade 'jax[cuda12]'",),
            ),
        ),
        follows_from=("XLA006", "LIB001"),
        sources=(
            "tensorflow/tensorflow#56927",
            "tensorflow/tensorflow#58681",
            "openxla/xla: CUDA root path search",
        ),
        check="xla:check_libdevice",
    ),
    Condition(
        code="XLA002",
        name="ptxas-missing",
        severity=Severity.WARNING,
        title="XLA does not find an executable ptxas",
        means=(
            "ptxas is neither in the data directory, nor on PATH, nor under a CUDA root, or it is not "
            "executable."
        ),
        why=(
            "ptxas turns PTX into machine code. XLA takes the first usable one of "
            "--xla_gpu_cuda_data_dir/bin, PATH and its CUDA roots. Without it older releases let the driver "
            'compile, which is slower and works; newer ones stop with "No PTX compilation provider is '
            'available". Wheels unpacked on a file system mounted noexec, or copied without modes, have a '
            "ptxas that cannot be run."
        ),
        see=(
            "command -v ptxas && ptxas --version | tail -n 2",
            (
                'find "$(python -c \'import sysconfig; print(sysconfig.get_path("purelib"))\')" -name '
                "ptxas -exec ls -l {} +"
            ),
        ),
        repairs=(
            Repair("TensorFlow 2.14 or later, pip", "", (TF_WITH_CUDA,)),
            Repair("conda", "", ("conda install -c nvidia cuda-nvcc",)),
            Repair(
                "It is there and not executable",
                "",
                (
                    (
                        "find \"$(python -c 'import sysconfig; "
                        "print(sysconfig.get_path(\"purelib\"))')/nvidia\" -path '*/bin/*' -type f -exec "
                        "chmod u+x {} +"
                    ),
                ),
            ),
            Repair(
                "Let the driver compile",
                "",
                ("export XLA_FLAGS=--xla_gpu_unsafe_fallback_to_driver_on_ptxas_not_found",),
            ),
        ),
        follows_from=("XLA006", "LIB001"),
        sources=("tensorflow/tensorflow#45590", "openxla/xla: PTX compilation providers"),
        check="xla:check_ptxas",
    ),
    Condition(
        code="XLA003",
        name="ptxas-too-old",
        severity=Severity.ERROR,
        title="The ptxas that XLA finds is too old",
        means="The first ptxas found is below 11.8, is the faulty 12.3.103, or does not know this GPU.",
        why=(
            "TensorFlow prefers PATH to its own wheel, so that a distribution's /usr/bin/ptxas (package "
            "nvidia-cuda-toolkit) or an old module's is taken. ptxas before 11.1 is known to compile XLA's "
            'code wrongly; one older than the GPU does not know its architecture. "ptxas too old. Falling '
            'back to the driver to compile" is the mild form.'
        ),
        see=(
            "type -a ptxas",
            "ptxas --version | tail -n 2",
            (
                "\"$(python -c 'import sysconfig; "
                'print(sysconfig.get_path("purelib"))\')/nvidia/cuda_nvcc/bin/ptxas" --version | tail -n 2'
            ),
        ),
        repairs=(
            Repair(
                "The wheel's ptxas first",
                "",
                (
                    (
                        "export PATH=\"$(python -c 'import sysconfig; "
                        'print(sysconfig.get_path("purelib"))\')/nvidia/cuda_nvcc/bin:$PATH"'
                    ),
                ),
            ),
            Repair("conda", "", ("conda install -c nvidia cuda-nvcc",)),
            Repair(
                "Ubuntu, Debian: the distribution's is not needed",
                "",
                ("sudo apt-get remove nvidia-cuda-toolkit",),
            ),
            Repair("HPC modules", "", ("module unload cuda",)),
        ),
        sources=("openxla/xla#5932", "openxla/xla#7344", "google/flax#2249"),
        check="xla:check_ptxas_version",
    ),
    Condition(
        code="XLA004",
        name="xla-flag-unknown",
        severity=Severity.ERROR,
        title="XLA_FLAGS names a flag that this build does not have",
        means="XLA_FLAGS holds a flag that the installed build does not know.",
        why=(
            'XLA ends the process over it ("Unknown flags in XLA_FLAGS"), at the first compiled function, '
            "not at import. Flags come and go with every release: eight that TensorFlow 2.21 knows are "
            "unknown to jaxlib 0.10.2, and some fifty the other way round; a variable exported for one "
            'framework kills the other. A single dash, --noflag, dashes for underscores and "--flag value" '
            "are unknown flags too. Names that begin with tf_ belong in TF_XLA_FLAGS."
        ),
        see=(
            "echo \"$XLA_FLAGS\" | tr -s '[:space:]' '\\n'",
            (
                "python -c 'import tensorflow as tf; tf.function(lambda x: x + 1, jit_compile=True)(1)' 2>&1 "
                "| grep -i 'unknown flag'"
            ),
            JAX_DEVICES,
        ),
        repairs=(
            Repair("This shell", "", ("unset XLA_FLAGS",)),
            Repair(
                "Where it is set",
                "",
                (
                    (
                        "grep -n XLA_FLAGS ~/.bashrc ~/.profile ~/.zshrc /etc/environment /etc/profile.d/* "
                        "2>/dev/null"
                    ),
                    "grep -rn XLA_FLAGS --include='*.py' --include='*.ipynb' --include='*.sh' .",
                ),
            ),
        ),
        sources=("openxla/xla: parse_flags_from_env", "behaviour of tensorflow 2.21.0 and jaxlib 0.10.2"),
        check="xla_flags:check_xla_flags",
    ),
    Condition(
        code="XLA005",
        name="xla-flag-invalid-value",
        severity=Severity.ERROR,
        title="A flag in XLA_FLAGS has a value of the wrong type",
        means="A flag in XLA_FLAGS is known, and its value cannot be read as the flag's type.",
        why=(
            'The process ends with "Couldn\'t interpret value … for flag …". Booleans are true, false, 1 or '
            "0, not yes, no, on or off; integers are decimal; the separator is white space, and a comma "
            "becomes part of the value. A variable that does not begin with -- is taken as the name of a "
            'file with flags: "Could not open file". A quotation mark at its start does that as well.'
        ),
        see=("printf '[%s]\\n' \"$XLA_FLAGS\"",),
        repairs=(
            Repair("This shell", "", ("unset XLA_FLAGS",)),
            Repair(
                "The form",
                "One variable, white space between, no quotation marks inside.",
                ("export XLA_FLAGS='--xla_gpu_autotune_level=2 --xla_dump_to=/tmp/xla'",),
            ),
        ),
        sources=("openxla/xla: parse_flags_from_env", "behaviour of tensorflow 2.21.0"),
        check="xla_flags:check_xla_flags",
    ),
    Condition(
        code="XLA006",
        name="xla-data-dir-invalid",
        severity=Severity.ERROR,
        title="--xla_gpu_cuda_data_dir does not point at a CUDA toolkit",
        means=(
            "The directory named by --xla_gpu_cuda_data_dir does not exist, or has neither "
            "nvvm/libdevice nor bin."
        ),
        why=(
            "It must be the root of a toolkit: nvvm/libdevice/libdevice.10.bc and bin/ptxas below it. People "
            "name the bin or lib directory, or the file itself; a toolkit was removed; or conda was meant, "
            "where libdevice lies elsewhere. XLA then goes on to its other roots, and often finds nothing."
        ),
        see=(
            "echo \"$XLA_FLAGS\" | grep -o -- '--xla_gpu_cuda_data_dir=[^ ]*'",
            "find / -xdev -name libdevice.10.bc 2>/dev/null",
        ),
        repairs=(
            Repair(
                "The wheel nvidia-cuda-nvcc is installed",
                "TensorFlow from 2.14 on finds it by itself.",
                ("unset XLA_FLAGS",),
            ),
            Repair(
                "A toolkit in /usr/local", "", ("export XLA_FLAGS=--xla_gpu_cuda_data_dir=/usr/local/cuda",)
            ),
            Repair(
                "Ubuntu, Debian: the package nvidia-cuda-toolkit",
                "",
                ("export XLA_FLAGS=--xla_gpu_cuda_data_dir=/usr/lib/cuda",),
            ),
            Repair(
                "conda",
                "After the copy that XLA001 describes.",
                ('export XLA_FLAGS="--xla_gpu_cuda_data_dir=$CONDA_PREFIX/lib"',),
            ),
        ),
        sources=("openxla/xla: CUDA root path search",),
        check="xla:check_data_dir",
    ),
    Condition(
        code="XLA007",
        name="tf-xla-flag-unknown",
        severity=Severity.WARNING,
        title="A flag in TF_XLA_FLAGS is unknown, or has no effect alone",
        means=(
            "TF_XLA_FLAGS holds a flag that this TensorFlow does not know, or one that does nothing "
            "without another."
        ),
        why=(
            "An unknown flag ends the process as soon as TensorFlow lists its devices, not at import. Flags "
            "that begin with xla_ belong in XLA_FLAGS. --tf_xla_cpu_global_jit is accepted and does nothing "
            "without --tf_xla_auto_jit; --tf_xla_enable_xla_devices is a remnant."
        ),
        see=('echo "$TF_XLA_FLAGS"', TF_DEVICES + '; echo "exit status $?"'),
        repairs=(
            Repair("This shell", "", ("unset TF_XLA_FLAGS",)),
            Repair(
                "Automatic clustering is wanted",
                "",
                (
                    "export TF_XLA_FLAGS=--tf_xla_auto_jit=2",
                    "export TF_XLA_FLAGS='--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit'",
                ),
            ),
        ),
        sources=("tensorflow.org/xla", "behaviour of tensorflow 2.21.0"),
        check="xla_flags:check_tf_xla_flags",
    ),
)
