"""Environment variables, notebook kernels, NCCL."""

from __future__ import annotations

from envdoctor.catalog.commands import TF_DEVICES
from envdoctor.catalog.condition import Condition, Repair, Severity

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        code="ENV001",
        name="env-var-conflict",
        severity=Severity.WARNING,
        title="Environment variables contradict each other",
        means="Two variables, or a variable and this machine, ask for things that exclude each other.",
        why=(
            "Examples: XLA_CLIENT_MEM_FRACTION beside XLA_PYTHON_CLIENT_MEM_FRACTION makes JAX's CUDA "
            "plug-in fail, and JAX then says that no CUDA build is installed. CUDA_FORCE_PTX_JIT=1 breaks "
            "TensorFlow's wheels on every GPU but the newest they carry PTX for; CUDA_DISABLE_PTX_JIT=1 "
            "breaks GPUs that need PTX. JAX_PLATFORMS=cpu hides every GPU from JAX."
        ),
        see=("env | grep -E '^(CUDA|NVIDIA|TF_|XLA_|JAX_|PYTORCH_|LD_)' | sort",),
        repairs=(
            Repair(
                "See whether the environment is to blame",
                "Run with an empty one.",
                ('env -i HOME="$HOME" PATH="$PATH" ' + TF_DEVICES,),
            ),
            Repair(
                "Clear the usual ones",
                "",
                (
                    (
                        "unset CUDA_FORCE_PTX_JIT CUDA_DISABLE_PTX_JIT XLA_CLIENT_MEM_FRACTION JAX_PLATFORMS "
                        "JAX_PLATFORM_NAME"
                    ),
                ),
            ),
            Repair(
                "Where they are set",
                "",
                (
                    (
                        "grep -n -E 'CUDA_|XLA_|JAX_|TF_' ~/.bashrc ~/.profile ~/.zshrc /etc/environment "
                        "/etc/profile.d/* 2>/dev/null"
                    ),
                ),
            ),
        ),
        sources=("CUDA programming guide: environment variables", "JAX: GPU memory allocation"),
        check="environment:check_env_var_conflict",
    ),
    Condition(
        code="ENV002",
        name="env-var-invalid",
        severity=Severity.WARNING,
        title="An environment variable has a value that its reader does not take",
        means=(
            "The value is none of those that the program compares it with, and is ignored or replaced "
            "by the default."
        ),
        why=(
            "TF_FORCE_GPU_ALLOW_GROWTH takes only true and false in lower case, TF_GPU_ALLOCATOR only "
            "cuda_malloc_async, cuda_malloc and memory_guard, CUDA_DEVICE_ORDER only FASTEST_FIRST and "
            "PCI_BUS_ID, TF_ENABLE_ONEDNN_OPTS only 0, 1, true and false; TF_CPP_MIN_LOG_LEVEL is a number, "
            "and ERROR means 0; CUDA_CACHE_MAXSIZE is in bytes, without a unit."
        ),
        see=("env | grep -E '^(CUDA_|NVIDIA_|TF_|XLA_|JAX_)' | sort",),
        repairs=(
            Repair(
                "Correct the usual ones",
                "",
                (
                    "export TF_FORCE_GPU_ALLOW_GROWTH=true",
                    "export CUDA_DEVICE_ORDER=PCI_BUS_ID",
                    "export TF_CPP_MIN_LOG_LEVEL=2",
                    "export CUDA_CACHE_MAXSIZE=4294967296",
                ),
            ),
            Repair(
                "Where they are set",
                "",
                (
                    (
                        "grep -n -E 'CUDA_|TF_' ~/.bashrc ~/.profile ~/.zshrc /etc/environment "
                        "/etc/profile.d/* 2>/dev/null"
                    ),
                ),
            ),
        ),
        sources=(
            "tensorflow/core/common_runtime/gpu/gpu_bfc_allocator.cc",
            "tensorflow/core/common_runtime/gpu/gpu_process_state.cc",
            "CUDA programming guide: environment variables",
        ),
        check="environment:check_env_var_invalid",
    ),
    Condition(
        code="ENV003",
        name="kernel-environment-differs",
        severity=Severity.WARNING,
        title="A Jupyter kernel runs in another environment than this shell",
        means=(
            "A kernel's specification starts another interpreter than the one examined, or without "
            "variables that this shell has."
        ),
        why=(
            "A kernel runs the interpreter written in its kernel.json, whatever environment Jupyter was "
            "started from, and inherits the variables of the Jupyter server, not of your shell: of "
            "JupyterHub, VS Code or a desktop icon, which never read ~/.bashrc. So TensorFlow finds the GPU "
            "in the terminal and not in the notebook."
        ),
        see=(
            "jupyter kernelspec list",
            (
                "for d in $(jupyter kernelspec list --json | python -c 'import json, sys; "
                'print(*(k["resource_dir"] for k in json.load(sys.stdin)["kernelspecs"].values()))\'); do '
                'cat "$d/kernel.json"; done'
            ),
        ),
        repairs=(
            Repair(
                "A kernel of this environment",
                "",
                (
                    (
                        "python -m pip install ipykernel && python -m ipykernel install --user --name "
                        '"$(basename "${VIRTUAL_ENV:-${CONDA_DEFAULT_ENV:-python3}}")"'
                    ),
                ),
            ),
            Repair(
                "The same, with this shell's LD_LIBRARY_PATH",
                "",
                (
                    (
                        'python -m ipykernel install --user --name "$(basename '
                        '"${VIRTUAL_ENV:-${CONDA_DEFAULT_ENV:-python3}}")" --env LD_LIBRARY_PATH '
                        '"$LD_LIBRARY_PATH"'
                    ),
                ),
            ),
            Repair(
                "In a notebook",
                (
                    "See what it runs: `import sys, os; print(sys.executable, "
                    'os.environ.get("LD_LIBRARY_PATH"))`.'
                ),
            ),
        ),
        sources=(
            "jupyter_client documentation: kernel specs",
            "IPython documentation: kernels for different environments",
        ),
        check="jupyter:check_kernels",
    ),
    Condition(
        code="NCC001",
        name="nccl-network",
        severity=Severity.ERROR,
        title="NCCL cannot connect over the network interfaces it chose",
        means=(
            "NCCL's ranks cannot reach one another: connection refused, timed out, or no usable interface."
        ),
        why=(
            "NCCL takes the first interface that is up and not lo or docker; that may be a bridge, a VPN or "
            "a management network that the peers cannot reach. Between nodes it uses ephemeral ports, which "
            'firewalls close. "unhandled system error" says no more; NCCL_DEBUG=INFO names interface and '
            "address."
        ),
        see=("ip -br addr", "env | grep '^NCCL_'", "cat /proc/sys/net/ipv4/ip_local_port_range"),
        repairs=(
            Repair(
                "First",
                "Run the program again with its messages.",
                ("export NCCL_DEBUG=INFO NCCL_DEBUG_SUBSYS=INIT,NET",),
            ),
            Repair(
                "The wrong interface",
                "The one of the default route is mostly right.",
                ("export NCCL_SOCKET_IFNAME=\"$(ip route show default | awk '{print $5; exit}')\"",),
            ),
            Repair("InfiniBand is there and does not work", "", ("ibstat", "export NCCL_IB_DISABLE=1")),
            Repair(
                "A firewall",
                "Open the range of ephemeral ports between the nodes.",
                (
                    (
                        "sudo firewall-cmd --add-port=\"$(tr '\\t' - < "
                        '/proc/sys/net/ipv4/ip_local_port_range)/tcp"'
                    ),
                ),
            ),
        ),
        sources=("NCCL documentation: environment variables, troubleshooting",),
    ),
    Condition(
        code="NCC002",
        name="nccl-gpu-isolation",
        severity=Severity.ERROR,
        title="NCCL cannot reach a peer GPU that is isolated from this process",
        means="A rank cannot see its peers' GPUs, or peer-to-peer access between them is blocked.",
        why=(
            "NCCL looks the peers' GPUs up through NVML and maps their memory. A scheduler or container that "
            'gives each task one GPU (a device cgroup per task) hides them: "nvmlDeviceGetHandleByPciBusId() '
            'failed: Not Found". In virtual machines, or with the IOMMU or PCIe access control on, '
            "peer-to-peer hangs or returns wrong data."
        ),
        see=(
            "nvidia-smi -L",
            "nvidia-smi topo -p2p r",
            "env | grep -E 'CUDA_VISIBLE_DEVICES|SLURM_.*GPU'",
            "sudo lspci -vvv | grep -c 'ACSCtl: SrcValid+'",
        ),
        repairs=(
            Repair(
                "Slurm",
                "Give the step all GPUs, and let each rank choose one.",
                ("srun --gres=gpu:4 --ntasks-per-node=4 --gpu-bind=none nvidia-smi -L",),
            ),
            Repair(
                "Containers",
                "One container per node with all GPUs, or containers that share them.",
                ("docker run --rm --gpus all --ipc=host ubuntu nvidia-smi -L",),
            ),
            Repair(
                "Peer-to-peer hangs",
                "Without it NCCL goes through host memory: slower, and safe.",
                ("export NCCL_P2P_DISABLE=1",),
            ),
        ),
        sources=("NCCL documentation: troubleshooting", "slurm srun(1): --gpu-bind"),
    ),
)
