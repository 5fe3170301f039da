"""The NVIDIA driver: kernel module, device nodes, libcuda."""

from __future__ import annotations

from envdoctor.catalog.commands import DRIVER_VERSION, KERNEL_LOG, REBOOT, TF_BUILD, TORCH_DEVICES
from envdoctor.catalog.condition import Condition, Repair, Severity

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        code="DRV001",
        name="driver-not-installed",
        severity=Severity.ERROR,
        title="The NVIDIA driver is not installed",
        means="There is an NVIDIA GPU (or one is required), and no libcuda.so.1 on this system.",
        why=(
            "libcuda.so.1 belongs to the driver, not to the CUDA toolkit and not to pip's wheels; it must "
            "fit the kernel module exactly. TensorFlow then reports cuInit error 303 and computes on the "
            'CPU. TensorFlow\'s line "Could not find cuda drivers on your machine" does not mean this: it '
            "means that libcudart was not found."
        ),
        see=("lspci -nn | grep -i nvidia", "ldconfig -p | grep libcuda.so", "nvidia-smi"),
        repairs=(
            Repair("Ubuntu", "", ("sudo ubuntu-drivers install", REBOOT)),
            Repair(
                "Debian (contrib, non-free and non-free-firmware enabled)",
                "",
                ("sudo apt-get install -y linux-headers-amd64 nvidia-driver", REBOOT),
            ),
            Repair(
                "Fedora (RPM Fusion nonfree enabled)",
                "Wait until the module is built before restarting.",
                ("sudo dnf install -y akmod-nvidia xorg-x11-drv-nvidia-cuda", "sudo akmods --force", REBOOT),
            ),
            Repair(
                "RHEL and kin (NVIDIA's repository set up)", "", ("sudo dnf install -y nvidia-open", REBOOT)
            ),
            Repair(
                "A container",
                "Install nothing in it: start it with the GPUs (HST005).",
                ("docker run --rm --gpus all ubuntu nvidia-smi",),
            ),
            Repair("WSL2", "Install the driver in Windows; in WSL2, none (HST009, HST010)."),
            Repair(
                "A cluster",
                "Login nodes have no driver: ask for a GPU node.",
                ("srun --gres=gpu:1 nvidia-smi",),
            ),
        ),
        follows_from=("HST005", "HST009", "GPU001"),
        sources=("NVIDIA driver installation guide", "tensorflow.org/install/pip"),
        check="driver:check_driver_not_installed",
    ),
    Condition(
        code="DRV002",
        name="driver-not-loaded",
        severity=Severity.ERROR,
        title="The NVIDIA driver is installed, and its kernel module is not loaded",
        means="libcuda.so.1 is there; /proc/driver/nvidia/version is not.",
        why=(
            "The module is built for one kernel. After a kernel upgrade it is missing until DKMS or akmods "
            "has built it again, which fails silently when the kernel's headers are not installed. Other "
            "reasons: nouveau holds the GPU (DRV005), Secure Boot refuses the module (DRV006), the open "
            "module does not support the GPU, or there is no GPU in this machine."
        ),
        see=(
            DRIVER_VERSION,
            "lsmod | grep -E 'nvidia|nouveau'",
            "sudo modprobe nvidia",
            "dkms status",
            KERNEL_LOG,
        ),
        repairs=(
            Repair(
                "Ubuntu, Debian (DKMS)",
                "Headers for the running kernel, then build and load.",
                (
                    'sudo apt-get install -y "linux-headers-$(uname -r)"',
                    "sudo dkms autoinstall",
                    "sudo modprobe nvidia",
                ),
            ),
            Repair("Fedora (akmods)", "", ("sudo akmods --force", "sudo depmod -a", "sudo modprobe nvidia")),
            Repair(
                'modprobe says "No such device"',
                (
                    "No GPU that this driver supports: the kernel log names it. A GPU older than the "
                    "driver's branch needs a legacy driver (Kepler R470; Maxwell, Pascal, Volta R580)."
                ),
                (KERNEL_LOG,),
            ),
        ),
        follows_from=("DRV005", "DRV006", "HST010", "GPU001"),
        sources=(
            "NVIDIA driver installation guide",
            "NVIDIA CUDA toolkit, driver and architecture matrix",
            "dkms(8)",
        ),
        check="driver:check_driver_not_loaded",
    ),
    Condition(
        code="DRV003",
        name="driver-library-mismatch",
        severity=Severity.ERROR,
        title="The NVIDIA kernel module and the driver's libraries are of different versions",
        means=(
            "The loaded kernel module is of one driver version, libcuda.so.1 or libnvidia-ml.so.1 of another."
        ),
        why=(
            "The driver's libraries talk only to a module of exactly their own version. A package upgrade "
            "(often unattended) replaces the libraries at once; the old module stays in the kernel until it "
            'is unloaded. nvidia-smi says "Driver/library version mismatch", TensorFlow "kernel version … '
            'does not match DSO version …", PyTorch error 803 or 804. In a container it means that the image '
            "brings a libcuda of its own. Nothing need be installed."
        ),
        see=(
            DRIVER_VERSION,
            "nvidia-smi",
            "ldconfig -p | grep -E 'libcuda.so.1|libnvidia-ml.so.1'",
            "modinfo -F version nvidia",
        ),
        repairs=(
            Repair("Restart (always works)", "", (REBOOT,)),
            Repair(
                "Without a restart",
                "Stop everything that uses the GPU (the desktop too), then exchange the module.",
                (
                    "sudo systemctl isolate multi-user.target",
                    "sudo modprobe -r nvidia_drm nvidia_modeset nvidia_uvm nvidia",
                    "sudo modprobe nvidia",
                    "nvidia-smi",
                ),
            ),
            Repair(
                "It is the same after a restart",
                "The module on the disk is old: rebuild it. modinfo shows its version.",
                ("sudo dkms autoinstall", "sudo update-initramfs -u", REBOOT),
            ),
            Repair("Fedora", "", ("sudo akmods --force", "sudo dracut --force", REBOOT)),
            Repair(
                "A container",
                "Remove the driver's libraries from the image; the runtime mounts the host's.",
                ("dpkg -S \"$(ldconfig -p | awk '/libcuda.so.1/ {print $NF; exit}')\"",),
            ),
        ),
        sources=(
            "NVIDIA/open-gpu-kernel-modules README",
            "NVIDIA driver README: the kernel module and libraries must match",
        ),
        check="driver:check_driver_library_mismatch",
    ),
    Condition(
        code="DRV004",
        name="driver-too-old",
        severity=Severity.ERROR,
        title="The NVIDIA driver is too old for the CUDA that the framework was built with",
        means=(
            "The driver is below the lowest that can run this build's CUDA, minor-version "
            "compatibility counted."
        ),
        why=(
            "From CUDA 11 on, a driver runs every toolkit of its major version: CUDA 11 needs driver "
            "450.80.02, CUDA 12 525.60.13, CUDA 13 580.65.06. Below that, nothing runs. CUDA 10 and older "
            "have no such rule (10.2 needs 440.33, 10.1 418.39, 10.0 410.48). The caveat: minor-version "
            "compatibility does not cover PTX. Code that is compiled from PTX at run time (by XLA, or on a "
            'GPU without a kernel in the build) still needs a driver as new as the toolkit, else "the '
            'provided PTX was compiled with an unsupported toolchain". The "CUDA Version" in nvidia-smi is '
            "the highest that the driver supports, not one that is installed."
        ),
        see=(
            DRIVER_VERSION,
            "nvidia-smi --query-gpu=driver_version --format=csv,noheader",
            TF_BUILD,
            TORCH_DEVICES,
        ),
        repairs=(
            Repair("Upgrade the driver: Ubuntu", "", ("sudo ubuntu-drivers install", REBOOT)),
            Repair(
                "Upgrade the driver: Fedora",
                "",
                ("sudo dnf upgrade -y akmod-nvidia xorg-x11-drv-nvidia-cuda", "sudo akmods --force", REBOOT),
            ),
            Repair(
                "The driver cannot be upgraded: PyTorch",
                "Install the build for an older CUDA, cu126: pytorch.org/get-started has its command.",
            ),
            Repair(
                "The driver cannot be upgraded: JAX", "", ("python -m pip install --upgrade 'jax[cuda12]'",)
            ),
            Repair(
                "The driver cannot be upgraded: TensorFlow",
                "2.14 is the last for CUDA 11 (driver 450.80.02); 2.15 and later need 525.60.13.",
                ("python -m pip install 'tensorflow[and-cuda]==2.14.1'",),
            ),
            Repair(
                "A data-centre GPU",
                (
                    "NVIDIA's forward-compatibility package brings a newer libcuda beside the old module; on "
                    "GeForce it fails with error 804 (DRV012)."
                ),
                ("sudo apt-get install -y cuda-compat-12-5",),
            ),
        ),
        sources=(
            "NVIDIA CUDA compatibility guide",
            "CUDA toolkit release notes: toolkit and corresponding driver versions",
        ),
        check="driver:check_driver_too_old",
    ),
    Condition(
        code="DRV005",
        name="nouveau-loaded",
        severity=Severity.ERROR,
        title="The nouveau driver holds the GPU",
        means="The kernel module nouveau is loaded and bound to the NVIDIA GPU.",
        why=(
            "nouveau is the kernel's own driver for NVIDIA cards: it draws a desktop and has no CUDA. A card "
            "has one driver; while nouveau holds it, NVIDIA's module cannot load. NVIDIA's packages "
            "blacklist nouveau, but a stale initramfs may still load it early, and without NVIDIA's driver "
            "installed it is simply the default."
        ),
        see=(
            "lspci -nnk -d 10de: | grep -A 3 -E 'VGA|3D'",
            "lsmod | grep nouveau",
            "grep -r nouveau /etc/modprobe.d /lib/modprobe.d /usr/lib/modprobe.d 2>/dev/null",
        ),
        repairs=(
            Repair(
                "NVIDIA's driver is not installed either",
                "Install it (DRV001): its packages blacklist nouveau.",
                ("sudo ubuntu-drivers install", REBOOT),
            ),
            Repair(
                "Ubuntu, Debian",
                "",
                (
                    (
                        "printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' | sudo tee "
                        "/etc/modprobe.d/blacklist-nouveau.conf"
                    ),
                    "sudo update-initramfs -u",
                    REBOOT,
                ),
            ),
            Repair(
                "Fedora, RHEL",
                "",
                (
                    (
                        "printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' | sudo tee "
                        "/etc/modprobe.d/blacklist-nouveau.conf"
                    ),
                    "sudo dracut --force",
                    REBOOT,
                ),
            ),
        ),
        follows_from=("DRV001",),
        sources=("NVIDIA driver installation guide",),
        check="driver:check_nouveau_loaded",
    ),
    Condition(
        code="DRV006",
        name="secure-boot-blocks-driver",
        severity=Severity.ERROR,
        title="Secure Boot refuses the unsigned NVIDIA kernel module",
        means="Secure Boot is on, and the module is not signed with a key that this machine has enrolled.",
        why=(
            "With Secure Boot the kernel loads only modules signed by a known key. A module that DKMS or "
            "akmods built here is signed with a local key (MOK), which must be enrolled once at the console, "
            'in the blue MOK manager that appears at the next start; it is easily missed. modprobe says "Key '
            'was rejected by service" or "Required key not available".'
        ),
        see=(
            "mokutil --sb-state",
            "sudo modprobe nvidia",
            "modinfo -F signer nvidia",
            "sudo dmesg | grep -iE 'rejected|loading of.*module|lockdown'",
        ),
        repairs=(
            Repair(
                "Ubuntu",
                "The prebuilt modules are signed by Canonical and need no key of yours.",
                ("sudo ubuntu-drivers install", REBOOT),
            ),
            Repair(
                "Ubuntu, Debian with DKMS",
                (
                    "Enrol the local key: choose a password here, and enter it in the MOK manager at the "
                    "next start."
                ),
                (
                    (
                        "sudo mokutil --import /var/lib/shim-signed/mok/MOK.der || sudo mokutil --import "
                        "/var/lib/dkms/mok.pub"
                    ),
                    REBOOT,
                ),
            ),
            Repair(
                "Fedora",
                "The same with the key of akmods.",
                ("sudo kmodgenca -a", "sudo mokutil --import /etc/pki/akmods/certs/public_key.der", REBOOT),
            ),
            Repair("Otherwise", "Turn Secure Boot off in the firmware's settings, where policy allows it."),
        ),
        sources=("Ubuntu wiki: UEFI/SecureBoot", "RPM Fusion: Howto/Secure Boot", "mokutil(1)"),
        check="host:check_secure_boot",
    ),
    Condition(
        code="DRV007",
        name="device-node-missing",
        severity=Severity.ERROR,
        title="NVIDIA device nodes are missing from /dev",
        means=(
            "The kernel module is loaded, and /dev/nvidiactl, /dev/nvidia0 or /dev/nvidia-uvm does not exist."
        ),
        why=(
            "NVIDIA's module does not make its nodes through udev; the setuid program nvidia-modprobe or the "
            "persistence daemon makes them when something first asks. On a server without a desktop, in a "
            "chroot or in a container nothing may have asked. CUDA needs /dev/nvidia-uvm too, which "
            "nvidia-smi does not: nvidia-smi works, and cuInit gives 999."
        ),
        see=("ls -l /dev/nvidia*", "grep nvidia /proc/devices", "command -v nvidia-modprobe"),
        repairs=(
            Repair(
                "At once",
                "",
                ("sudo modprobe nvidia_uvm", "sudo nvidia-modprobe -c 0 -u", "ls -l /dev/nvidia*"),
            ),
            Repair("At every start", "", ("sudo systemctl enable --now nvidia-persistenced",)),
            Repair(
                "A container",
                "Make them on the host, then start the container again with --gpus (HST005).",
                ("docker run --rm --gpus all ubuntu ls -l /dev/nvidiactl /dev/nvidia-uvm",),
            ),
        ),
        follows_from=("DRV002", "HST005"),
        sources=("nvidia-modprobe(1)", "NVIDIA driver README: device nodes", "pytorch/pytorch#49081"),
        check="driver:check_device_nodes",
    ),
    Condition(
        code="DRV008",
        name="device-node-permission",
        severity=Severity.ERROR,
        title="This user may not open the NVIDIA device nodes",
        means="The nodes exist, and opening one gives EACCES or EPERM.",
        why=(
            "EACCES: their mode or group excludes this user; the module option NVreg_DeviceFileMode, "
            "NVreg_DeviceFileGID or a udev rule can restrict them to a group (often video). EPERM: the mode "
            "allows it, and a device cgroup forbids it, as in a container (HST007) or a batch job that asked "
            "for no GPU."
        ),
        see=(
            "ls -l /dev/nvidia*",
            "id",
            "grep -i DeviceFile /proc/driver/nvidia/params",
            'python3 -c \'open("/dev/nvidiactl", "rb")\'',
        ),
        repairs=(
            Repair(
                "The group excludes you",
                "Join the group that ls shows, log out, and log in again.",
                ('sudo usermod -aG "$(stat -c %G /dev/nvidiactl)" "$USER"',),
            ),
            Repair(
                "The group is root, mode 0600",
                "The module's default is 0666: look for the option that changes it, remove it, restart.",
                ("grep -r NVreg_DeviceFile /etc/modprobe.d /usr/lib/modprobe.d",),
            ),
            Repair("A batch job", "Ask for the GPU.", ("srun --gres=gpu:1 nvidia-smi -L",)),
        ),
        follows_from=("HST007",),
        sources=("NVIDIA driver README: device file permissions", "slurm.conf: ConstrainDevices"),
        check="driver:check_device_nodes",
    ),
)
