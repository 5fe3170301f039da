"""Threads: how many are started, how many may run."""

from __future__ import annotations

from envdoctor.catalog.condition import Condition, Repair, Severity

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        code="THR001",
        name="thread-oversubscription",
        severity=Severity.WARNING,
        title="More threads are started than CPUs may be used",
        means=(
            "The thread pools that will be started are larger than the affinity mask or the cgroup's "
            "CPU quota allows."
        ),
        why=(
            "OpenBLAS, OpenMP and TensorFlow count the machine's processors, not the quota: a container with "
            "two CPUs on a 64-core host starts 64 threads in each pool. They are throttled together, wait "
            "for one another while holding locks, and can be far slower than two threads (xgboost#7653 saw "
            "90 times)."
        ),
        see=(
            "nproc; nproc --all",
            "cat /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us",
            "taskset -cp $$",
            "env | grep -E '_NUM_THREADS|TF_NUM_'",
        ),
        repairs=(
            Repair(
                "By the affinity mask",
                "",
                (
                    (
                        'export OMP_NUM_THREADS="$(nproc)" OPENBLAS_NUM_THREADS="$(nproc)" '
                        'MKL_NUM_THREADS="$(nproc)" TF_NUM_INTRAOP_THREADS="$(nproc)" '
                        "TF_NUM_INTEROP_THREADS=2"
                    ),
                ),
            ),
            Repair(
                "By the quota",
                "nproc does not see it.",
                (
                    (
                        'n="$(awk \'$1 != "max" {print int(($1 + $2 - 1) / $2)}\' /sys/fs/cgroup/cpu.max '
                        '2>/dev/null)"; n="${n:-$(nproc)}"; export OMP_NUM_THREADS="$n" '
                        'OPENBLAS_NUM_THREADS="$n" MKL_NUM_THREADS="$n" TF_NUM_INTRAOP_THREADS="$n" '
                        "TF_NUM_INTEROP_THREADS=2"
                    ),
                ),
            ),
            Repair(
                "Docker",
                "A CPU set is seen by every library, a quota by few.",
                ("docker run --rm --cpuset-cpus=0-1 ubuntu nproc",),
            ),
        ),
        follows_from=("THR004",),
        sources=("dmlc/xgboost#7653", "sched_setaffinity(2)", "kernel documentation: cgroup v2, cpu.max"),
        check="threads:check_oversubscription",
    ),
    Condition(
        code="THR002",
        name="thread-limit-ignored",
        severity=Severity.WARNING,
        title="A thread limit is set and is exceeded",
        means="Measured: the process uses more CPU seconds per second than the limit that was set.",
        why=(
            "Each library reads a variable of its own, once, when it is loaded. Measured on TensorFlow 2.21: "
            "TF_NUM_INTRAOP_THREADS=1 limits it to one CPU (compiled functions too), OMP_NUM_THREADS=1 "
            "changes nothing, TF_NUM_INTEROP_THREADS alone neither. NumPy's OpenBLAS obeys "
            "OPENBLAS_NUM_THREADS and OMP_NUM_THREADS. os.environ after the import comes too late."
        ),
        see=(
            "env | grep -E '_NUM_THREADS|TF_NUM_'",
            (
                "OPENBLAS_NUM_THREADS=1 bash -c 'time python -c \"import numpy as np; a = np.ones((3000, "
                "3000)); [a @ a for _ in range(5)]\"'"
            ),
        ),
        repairs=(
            Repair("TensorFlow", "", ("export TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1",)),
            Repair(
                "NumPy, SciPy", "", ("export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1",)
            ),
            Repair(
                "In a program",
                (
                    "`tf.config.threading.set_intra_op_parallelism_threads(1)` before the first operation; "
                    "`threadpoolctl` for NumPy."
                ),
            ),
            Repair(
                "Whatever the library",
                "The kernel enforces an affinity mask.",
                ("taskset -c 0 python --version",),
            ),
        ),
        follows_from=("THR004", "THR005"),
        sources=("measured on tensorflow 2.21.0 and numpy", "OpenBLAS: runtime variables"),
        check="measured_threads:check_limit_kept",
        runs_framework=True,
    ),
    Condition(
        code="THR003",
        name="thread-limit",
        severity=Severity.ERROR,
        title="The limit on threads or processes is reached",
        means=(
            'pthread_create fails with "Resource temporarily unavailable" (EAGAIN): RLIMIT_NPROC or '
            "the cgroup's pids.max is used up."
        ),
        why=(
            "RLIMIT_NPROC counts all threads of the user on the machine, not of one process; login nodes "
            "allow a few hundred. A 64-core machine's OpenBLAS alone starts 63 in every process. \"Operation "
            'not permitted" instead is a seccomp filter (HST008).'
        ),
        see=(
            "ulimit -u",
            'ps -L -u "$USER" --no-headers | wc -l',
            (
                'cat "/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup | tail -n 1)/pids.max" 2>/dev/null || '
                "cat /sys/fs/cgroup/pids/pids.max"
            ),
        ),
        repairs=(
            Repair(
                "Fewer threads (no root, works everywhere)",
                "",
                (
                    (
                        "export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=2 "
                        "TF_NUM_INTEROP_THREADS=2"
                    ),
                ),
            ),
            Repair("A higher limit in this shell", "", ('ulimit -u "$(ulimit -Hu)"',)),
            Repair("Docker", "", ("docker run --rm --pids-limit=-1 ubuntu cat /sys/fs/cgroup/pids.max",)),
            Repair(
                "A service or login under systemd",
                "",
                (
                    'systemctl show "user-$(id -u).slice" -p TasksMax',
                    'sudo systemctl set-property "user-$(id -u).slice" TasksMax=infinity',
                ),
            ),
            Repair("A cluster", "Compute in a job, not on the login node.", ("srun --pty bash",)),
        ),
        follows_from=("THR001",),
        sources=("pthread_create(3)", "getrlimit(2)", "OpenBLAS FAQ"),
        check="threads:check_thread_limit",
    ),
    Condition(
        code="THR004",
        name="thread-variable-invalid",
        severity=Severity.WARNING,
        title="A variable that sets a number of threads has no valid value",
        means=(
            "A variable such as OMP_NUM_THREADS or TF_NUM_INTRAOP_THREADS holds something that its "
            "reader does not take."
        ),
        why=(
            'libgomp complains about 0, negative numbers and text ("Invalid value for environment variable '
            'OMP_NUM_THREADS") and uses its default; TensorFlow ignores what is no integer without a word, '
            "and 0 means the default. So a limit that was thought to hold does not."
        ),
        see=("env | grep -E '_NUM_THREADS|TF_NUM_|KMP_'",),
        repairs=(
            Repair(
                "Clear them",
                "",
                (
                    (
                        "unset OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS TF_NUM_INTRAOP_THREADS "
                        "TF_NUM_INTEROP_THREADS"
                    ),
                ),
            ),
            Repair(
                "Set them",
                "",
                (
                    (
                        'export OMP_NUM_THREADS="$(nproc)" TF_NUM_INTRAOP_THREADS="$(nproc)" '
                        "TF_NUM_INTEROP_THREADS=2"
                    ),
                ),
            ),
        ),
        sources=(
            "GNU libgomp manual: environment variables",
            "tensorflow/core/common_runtime/process_util.cc",
        ),
        check="threads:check_variables_valid",
    ),
    Condition(
        code="THR005",
        name="thread-variables-disagree",
        severity=Severity.WARNING,
        title="Variables that set numbers of threads disagree",
        means=(
            "Several of OMP_NUM_THREADS, OPENBLAS_NUM_THREADS, MKL_NUM_THREADS and TF_NUM_* are set, "
            "to different numbers."
        ),
        why=(
            "The special variable beats the general one (OPENBLAS_NUM_THREADS before OMP_NUM_THREADS, "
            "MKL_NUM_THREADS likewise), and TensorFlow reads only its own. The parts of one program then run "
            "with different widths, and a limit set for one is not one for the process."
        ),
        see=(
            "env | grep -E '_NUM_THREADS|TF_NUM_'",
            (
                "grep -n -E '_NUM_THREADS|TF_NUM_' ~/.bashrc ~/.profile ~/.zshrc /etc/environment "
                "/etc/profile.d/* 2>/dev/null"
            ),
        ),
        repairs=(
            Repair(
                "One number for all",
                "",
                (
                    (
                        'export OMP_NUM_THREADS="$(nproc)" OPENBLAS_NUM_THREADS="$(nproc)" '
                        'MKL_NUM_THREADS="$(nproc)" TF_NUM_INTRAOP_THREADS="$(nproc)"'
                    ),
                ),
            ),
        ),
        sources=("OpenBLAS: runtime variables", "oneMKL developer guide: environment variables"),
        check="threads:check_variables_agree",
    ),
)
