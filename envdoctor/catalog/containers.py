"""Containers and WSL2: how the GPU gets in."""

from __future__ import annotations

from envdoctor.catalog.commands import DRIVER_VERSION, LIBCUDA_LOADED
from envdoctor.catalog.condition import Condition, Repair, Severity

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        code="HST005",
        name="docker-no-gpu",
        severity=Severity.ERROR,
        title="The container was started without access to the GPU",
        means="This runs in a container that has no NVIDIA device nodes and no libcuda.so.1 from the host.",
        why=(
            "The driver is never part of an image: its kernel module is the host's, and the matching "
            "libcuda.so.1 and device nodes are put into the container by NVIDIA's runtime, only when the "
            "container is started with a request for GPUs. Without it the image runs, and finds no GPU. "
            "NVIDIA_VISIBLE_DEVICES unset, `void` or `none`, and NVIDIA_DRIVER_CAPABILITIES without "
            "`compute`, have the same effect."
        ),
        see=("ls -l /dev/nvidia*", "ldconfig -p | grep libcuda.so", "env | grep '^NVIDIA_'", DRIVER_VERSION),
        repairs=(
            Repair(
                "Docker", "Start it again with the GPUs.", ("docker run --rm --gpus all ubuntu nvidia-smi",)
            ),
            Repair(
                "Docker Compose",
                (
                    "Under the service: `deploy.resources.reservations.devices` with `driver: nvidia`, "
                    "`count: all`, `capabilities: [gpu]`."
                ),
            ),
            Repair(
                "Podman",
                "Through a CDI description of the devices.",
                (
                    "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
                    "podman run --rm --device nvidia.com/gpu=all ubuntu nvidia-smi",
                ),
            ),
            Repair(
                "Apptainer, Singularity",
                "With --nv, which binds the host's driver libraries.",
                ("apptainer exec --nv docker://ubuntu nvidia-smi",),
            ),
            Repair(
                "Kubernetes",
                (
                    "Ask for `nvidia.com/gpu: 1` in the container's resource limits; the device plugin must "
                    "run on the node."
                ),
                ("kubectl describe nodes | grep nvidia.com/gpu",),
            ),
        ),
        sources=("NVIDIA Container Toolkit installation guide", "docs.docker.com: GPU support in Compose"),
        check="containers:check_container_without_gpu",
    ),
    Condition(
        code="HST006",
        name="docker-toolkit-missing",
        severity=Severity.ERROR,
        title="The container engine has no NVIDIA runtime",
        means='The engine refuses --gpus: no device driver with the capability "gpu" is registered.',
        why=(
            "Docker delegates --gpus to the NVIDIA Container Toolkit on the host. Without the package, or "
            "after installing it without configuring and restarting the engine, it answers `could not select "
            'device driver "" with capabilities: [[gpu]]` or `unknown runtime: nvidia`.'
        ),
        see=(
            "docker info --format '{{json .Runtimes}}'",
            "nvidia-ctk --version",
            "docker run --rm --gpus all ubuntu nvidia-smi",
        ),
        repairs=(
            Repair(
                "Docker on Ubuntu, Debian (NVIDIA's repository set up)",
                "On the host, not in the container:",
                (
                    "sudo apt-get install -y nvidia-container-toolkit",
                    "sudo nvidia-ctk runtime configure --runtime=docker",
                    "sudo systemctl restart docker",
                ),
            ),
            Repair(
                "Docker on Fedora, RHEL",
                "",
                (
                    "sudo dnf install -y nvidia-container-toolkit",
                    "sudo nvidia-ctk runtime configure --runtime=docker",
                    "sudo systemctl restart docker",
                ),
            ),
            Repair(
                "Docker Desktop on WSL2",
                "It brings the runtime with it: update Docker Desktop and use its WSL2 engine.",
            ),
        ),
        sources=("NVIDIA Container Toolkit installation guide",),
        check="containers:check_toolkit",
    ),
    Condition(
        code="HST007",
        name="docker-cgroup-lost-gpu",
        severity=Severity.ERROR,
        title="The container has lost its access to the GPU devices",
        means=(
            'The host works; in the container NVML answers "Unknown Error" and the device nodes cannot '
            "be opened."
        ),
        why=(
            "The devices were granted through the container's device cgroup. When systemd manages that "
            "cgroup and reloads its units (`systemctl daemon-reload`, which any package upgrade may do), it "
            "writes the rules anew, without the devices that NVIDIA's hook had added. A container that "
            "worked for days loses its GPUs from one moment to the next. A container given the nodes without "
            "a cgroup rule never has access at all."
        ),
        see=(
            "nvidia-smi -L",
            'python3 -c \'open("/dev/nvidiactl", "rb")\'',
            "docker info --format '{{.CgroupDriver}} {{.CgroupVersion}}'",
        ),
        repairs=(
            Repair(
                "At once",
                "Restart the container: it gets its devices again. Nothing inside it can repair this.",
                ("docker ps --format '{{.Names}}'",),
            ),
            Repair(
                "For good, Docker",
                "Give the nodes to the engine explicitly, so that systemd knows them too.",
                (
                    (
                        "docker run --rm --gpus all --device=/dev/nvidiactl --device=/dev/nvidia-uvm "
                        "--device=/dev/nvidia0 ubuntu nvidia-smi"
                    ),
                ),
            ),
            Repair(
                "For good, on the host",
                (
                    "Links in /dev/char let runc and systemd resolve the devices; a CDI description (Podman, "
                    "Docker 25 and later) avoids the hook altogether."
                ),
                (
                    "sudo nvidia-ctk system create-dev-char-symlinks --create-all",
                    "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
                ),
            ),
        ),
        sources=(
            "NVIDIA/nvidia-docker#1730",
            "NVIDIA/nvidia-container-toolkit#48",
            "NVIDIA/nvidia-container-toolkit#1227",
        ),
        check="containers:check_lost_gpu",
    ),
    Condition(
        code="HST008",
        name="docker-seccomp-clone3",
        severity=Severity.ERROR,
        title="An old seccomp profile of the container engine forbids clone3, so threads cannot start",
        means=(
            'pthread_create fails with "Operation not permitted" (EPERM) in a container, although no '
            "limit is reached."
        ),
        why=(
            "From 2.34 on glibc starts threads with clone3 and falls back to clone only on ENOSYS. Docker "
            "before 20.10.10, or an old libseccomp, answers EPERM instead, which glibc takes as final. It "
            'looks like a thread limit, but that would be EAGAIN, "Resource temporarily unavailable" '
            "(THR003)."
        ),
        see=(
            "docker version --format '{{.Server.Version}}'",
            "ldd --version | head -n 1",
            "grep Seccomp /proc/self/status",
        ),
        repairs=(
            Repair(
                "Upgrade the engine on the host (the cure)",
                "",
                (
                    "sudo apt-get update",
                    "sudo apt-get install --only-upgrade docker-ce docker-ce-cli containerd.io libseccomp2",
                    "sudo systemctl restart docker",
                ),
            ),
            Repair(
                "To see whether this is it",
                "Run once without the filter; not for daily use.",
                ("docker run --rm --security-opt seccomp=unconfined ubuntu true",),
            ),
        ),
        sources=("moby/moby#42680", "moby/moby#42681", "actions/runner-images#3812"),
        check="containers:check_seccomp_clone3",
    ),
    Condition(
        code="HST009",
        name="wsl-libcuda-not-on-path",
        severity=Severity.ERROR,
        title="WSL2: the directory of Windows' libcuda is not searched",
        means="libcuda.so.1 lies in /usr/lib/wsl/lib, and the loader does not look there.",
        why=(
            "In WSL2 the driver is Windows' own; its Linux libraries are mounted at /usr/lib/wsl/lib and "
            "entered into ld.so.cache when the distribution starts. A distribution with `ldconfig = false` "
            "in wsl.conf, a chroot, a container, or an LD_LIBRARY_PATH-less sudo can miss it. Programs that "
            "open the plain name libcuda.so (Triton) need the development link as well (LIB013)."
        ),
        see=(
            "ls -l /usr/lib/wsl/lib/libcuda.so*",
            "ldconfig -p | grep libcuda.so",
            "/usr/lib/wsl/lib/nvidia-smi",
        ),
        repairs=(
            Repair(
                "For every process",
                "",
                ("echo /usr/lib/wsl/lib | sudo tee /etc/ld.so.conf.d/ld.wsl.conf", "sudo ldconfig"),
            ),
            Repair(
                "For this shell, without root",
                "",
                ('export LD_LIBRARY_PATH="/usr/lib/wsl/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"',),
            ),
        ),
        sources=("NVIDIA CUDA on WSL user guide",),
        check="containers:check_wsl_library_path",
    ),
    Condition(
        code="HST010",
        name="wsl-linux-driver-installed",
        severity=Severity.ERROR,
        title="WSL2: a Linux NVIDIA driver hides the one that Windows provides",
        means="A libcuda.so.1 from a Linux driver package is found before the one in /usr/lib/wsl/lib.",
        why=(
            "WSL2 has no NVIDIA kernel module for a Linux driver to talk to; only the library that Windows "
            "mounts can reach the GPU. The package `cuda` (rather than `cuda-toolkit`), `cuda-drivers` and "
            "`nvidia-driver-*` install one all the same. cuInit then fails (100 or 999), or versions "
            "disagree."
        ),
        see=(
            "ldconfig -p | grep libcuda.so",
            "dpkg -l | grep -E 'nvidia-driver|libnvidia-compute|cuda-drivers'",
            LIBCUDA_LOADED,
        ),
        repairs=(
            Repair(
                "Ubuntu, Debian in WSL2",
                (
                    "Remove the driver, keep the toolkit. Read apt's list before you agree: "
                    "nvidia-container-toolkit may stay."
                ),
                (
                    (
                        "sudo apt-get purge '^nvidia-driver-.*' '^libnvidia-compute-.*' '^nvidia-utils-.*' "
                        "'^nvidia-dkms-.*' '^cuda-drivers.*'"
                    ),
                    "sudo ldconfig",
                ),
            ),
            Repair(
                "Then, from Windows",
                "Restart WSL, so that it mounts its libraries anew.",
                ("wsl --shutdown",),
            ),
        ),
        sources=("NVIDIA CUDA on WSL user guide",),
        check="containers:check_wsl_linux_driver",
    ),
    Condition(
        code="HST011",
        name="shm-too-small",
        severity=Severity.WARNING,
        title="Shared memory (/dev/shm) is too small for several GPUs or data workers",
        means=(
            "The shared memory of /dev/shm has 64 MiB or little more, and the work shares tensors "
            "between processes."
        ),
        why=(
            "Docker gives a container 64 MiB unless told otherwise. NCCL puts its buffers between ranks of "
            "one machine there, and PyTorch's DataLoader workers pass every batch through it. When it is "
            'full, a worker dies with "Bus error" (SIGBUS), or NCCL reports an unhandled system error.'
        ),
        see=("df -h /dev/shm",),
        repairs=(
            Repair(
                "Docker",
                "",
                (
                    "docker run --rm --gpus all --shm-size=8g ubuntu df -h /dev/shm",
                    "docker run --rm --gpus all --ipc=host ubuntu df -h /dev/shm",
                ),
            ),
            Repair("Docker Compose", "`shm_size: 8gb` under the service."),
            Repair("Kubernetes", "Mount an `emptyDir` with `medium: Memory` at /dev/shm."),
            Repair("A host", "", ("sudo mount -o remount,size=50% /dev/shm",)),
        ),
        sources=("NCCL troubleshooting: shared memory", "PyTorch README: Docker image"),
        check="containers:check_shared_memory",
    ),
)
