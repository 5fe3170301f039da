"""The NVIDIA driver: what cuInit answers, and whether it answers."""

from __future__ import annotations

from envdoctor.catalog.commands import CUINIT, DRIVER_VERSION, KERNEL_LOG, LIBCUDA_LOADED, REBOOT
from envdoctor.catalog.condition import Condition, Repair, Severity

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        code="DRV009",
        name="cuinit-no-device",
        severity=Severity.ERROR,
        title="The CUDA driver finds no device (cuInit 100)",
        means="cuInit returns CUDA_ERROR_NO_DEVICE, and no better cause is visible.",
        why=(
            "libcuda.so.1 was loaded and spoke to the driver, and nothing is left that it may use. Usual "
            "causes are seen and named by themselves: a mask in CUDA_VISIBLE_DEVICES (GPU002), no kernel "
            "module (DRV002), a job or container without a GPU (HST005), MIG without instances (GPU011), a "
            "failed GPU (GPU007)."
        ),
        see=(
            CUINIT,
            "env | grep -E 'CUDA_VISIBLE|NVIDIA_VISIBLE'",
            "nvidia-smi -L",
            "ls -l /dev/nvidia*",
            KERNEL_LOG,
        ),
        repairs=(
            Repair(
                "nvidia-smi shows the GPU",
                "The difference lies in the environment: compare with an empty one.",
                ("env -u CUDA_VISIBLE_DEVICES -u LD_LIBRARY_PATH " + CUINIT,),
            ),
            Repair(
                "nvidia-smi shows none",
                "The kernel log says why the module did not take the GPU.",
                (KERNEL_LOG,),
            ),
        ),
        follows_from=(
            "GPU001",
            "GPU002",
            "GPU007",
            "GPU011",
            "DRV002",
            "DRV003",
            "DRV007",
            "DRV008",
            "HST005",
            "HST007",
            "HST010",
        ),
        sources=("CUDA driver API: CUresult",),
        check="driver:check_cuinit",
    ),
    Condition(
        code="DRV010",
        name="cuinit-unknown",
        severity=Severity.ERROR,
        title="The CUDA driver fails with an unknown error (cuInit 999)",
        means="cuInit returns CUDA_ERROR_UNKNOWN.",
        why=(
            "The driver found its devices and could not set them up. Nearly always nvidia_uvm is the part "
            "that fails: its node is missing or forbidden (DRV007, DRV008), it did not survive a suspend "
            "(DRV011), or module and libraries are of different versions (DRV003). nvidia-smi does not use "
            "it and looks healthy."
        ),
        see=(CUINIT, "ls -l /dev/nvidia-uvm*", "lsmod | grep nvidia_uvm", KERNEL_LOG),
        repairs=(
            Repair(
                "Reload the module",
                "Stop the programs that use the GPU first; `fuser` shows them.",
                ("sudo fuser -v /dev/nvidia-uvm", "sudo modprobe -r nvidia_uvm", "sudo modprobe nvidia_uvm"),
            ),
            Repair("It does not unload, or does not help", "", (REBOOT,)),
        ),
        follows_from=(
            "DRV002",
            "DRV003",
            "DRV007",
            "DRV008",
            "DRV011",
            "GPU007",
            "HST007",
            "HST010",
        ),
        sources=("pytorch/pytorch#49081", "tensorflow/tensorflow#53341", "CUDA driver API: CUresult"),
        check="driver:check_cuinit",
    ),
    Condition(
        code="DRV011",
        name="cuinit-unknown-after-suspend",
        severity=Severity.ERROR,
        title="The CUDA driver fails with an unknown error since a suspend",
        means="cuInit returns 999, and the machine was suspended since it started.",
        why=(
            "nvidia_uvm loses its state on resume unless the driver saved video memory. Every new CUDA "
            "process fails until the module is loaded again, which cannot be done while an old process still "
            "holds it."
        ),
        see=(
            "journalctl -b -k --no-pager | grep -iE 'PM: suspend (entry|exit)' | tail -n 4",
            CUINIT,
            "systemctl is-enabled nvidia-suspend.service nvidia-resume.service",
        ),
        repairs=(
            Repair(
                "At once",
                "Stop notebooks and containers that used the GPU before the suspend, then:",
                ("sudo fuser -v /dev/nvidia-uvm", "sudo modprobe -r nvidia_uvm", "sudo modprobe nvidia_uvm"),
            ),
            Repair(
                "For good",
                "Let the driver save video memory over a suspend (it needs the space in /var/tmp).",
                (
                    (
                        "echo 'options nvidia NVreg_PreserveVideoMemoryAllocations=1 "
                        "NVreg_TemporaryFilePath=/var/tmp' | sudo tee /etc/modprobe.d/nvidia-suspend.conf"
                    ),
                    (
                        "sudo systemctl enable nvidia-suspend.service nvidia-hibernate.service "
                        "nvidia-resume.service"
                    ),
                    "sudo update-initramfs -u || sudo dracut --force",
                    REBOOT,
                ),
            ),
        ),
        follows_from=("DRV003", "DRV007", "DRV008", "HST007", "HST010"),
        sources=("NVIDIA driver README: configuring power management support", "pytorch/pytorch#49081"),
        check="host:check_cuinit_after_suspend",
    ),
    Condition(
        code="DRV012",
        name="forward-compat-unsupported",
        severity=Severity.ERROR,
        title="A forward-compatibility libcuda does not fit this driver or GPU (cuInit 803 or 804)",
        means=(
            "The libcuda.so.1 that is loaded comes from a cuda-compat package, and this driver or GPU "
            "does not take it."
        ),
        why=(
            "cuda-compat brings a newer libcuda for use with an older kernel module. NVIDIA supports that on "
            "data-centre GPUs, some RTX servers and Jetson. On GeForce it gives 804; with a module that it "
            "was not made for (also one newer than itself) 803. CUDA images carry it in "
            "/usr/local/cuda/compat, and a file in /etc/ld.so.conf.d or LD_LIBRARY_PATH puts it first. 803 "
            "and 804 without any compat directory mean DRV003."
        ),
        see=(
            LIBCUDA_LOADED,
            "ldconfig -p | grep libcuda.so",
            "grep -r compat /etc/ld.so.conf.d",
            'echo "$LD_LIBRARY_PATH"',
            DRIVER_VERSION,
        ),
        repairs=(
            Repair(
                "It is in LD_LIBRARY_PATH",
                "Take it out for this shell.",
                (
                    (
                        'export LD_LIBRARY_PATH="$(printf %s "$LD_LIBRARY_PATH" | tr : \'\\n\' | grep -v '
                        '/compat | paste -sd : -)"'
                    ),
                ),
            ),
            Repair(
                "It is in ld.so.conf.d (a container image)",
                "",
                ("sudo rm -f /etc/ld.so.conf.d/*compat*.conf", "sudo ldconfig"),
            ),
            Repair(
                "The driver is older than the image's CUDA",
                "Upgrade the driver on the host (DRV004), or use an image for an older CUDA.",
            ),
        ),
        follows_from=("DRV003",),
        sources=("NVIDIA CUDA compatibility guide: forward compatibility", "CUDA driver API: CUresult"),
        check="driver:check_cuinit",
    ),
    Condition(
        code="DRV013",
        name="fabric-manager-not-running",
        severity=Severity.ERROR,
        title="The NVSwitch fabric is not initialised: the fabric manager is not running (cuInit 802)",
        means="cuInit returns CUDA_ERROR_SYSTEM_NOT_READY on a machine with NVSwitches.",
        why=(
            "On HGX and DGX machines (A100, H100 and later with NVSwitch) the GPUs refuse CUDA until "
            "nvidia-fabricmanager has configured the fabric. nvidia-smi works all the same. Its version must "
            "equal the driver's: an upgrade of one alone stops it. In a virtual machine the fabric belongs "
            "to the provider."
        ),
        see=(
            "systemctl status nvidia-fabricmanager --no-pager",
            "nvidia-smi -q | grep -A 2 -i fabric",
            DRIVER_VERSION,
            "nv-fabricmanager --version",
        ),
        repairs=(
            Repair(
                "It is installed",
                "",
                (
                    "sudo systemctl enable --now nvidia-fabricmanager",
                    "journalctl -u nvidia-fabricmanager -n 30 --no-pager",
                ),
            ),
            Repair(
                "Ubuntu: it is missing, or of another version",
                "Install the one of the driver's branch.",
                (
                    (
                        'sudo apt-get install -y "nvidia-fabricmanager-$(cut -d. -f1 '
                        '/sys/module/nvidia/version)"'
                    ),
                    "sudo systemctl enable --now nvidia-fabricmanager",
                ),
            ),
            Repair(
                "A rented virtual machine",
                (
                    '"Fabric state: In Progress" in the guest is for the provider to repair: take another '
                    "machine."
                ),
            ),
        ),
        sources=("NVIDIA fabric manager user guide", "CUDA driver API: CUresult"),
        check="driver:check_cuinit",
    ),
    Condition(
        code="DRV014",
        name="driver-unresponsive",
        severity=Severity.ERROR,
        title="The NVIDIA driver does not answer in time",
        means="A call to NVML or cuInit did not return before the deadline.",
        why=(
            "The calling process sleeps in the kernel (state D) and cannot be killed, not even with SIGKILL; "
            "every program that touches the GPU joins it. Behind it is a hung GPU (an Xid in the kernel "
            "log), one that has fallen off the bus, or a driver that is just starting it: without "
            "persistence mode the first call on a large machine may take half a minute."
        ),
        see=(
            'timeout 60 nvidia-smi -L; echo "exit status $? (124 is a timeout)"',
            "ps -eo pid,stat,wchan:32,cmd | awk '$2 ~ /^D/'",
            KERNEL_LOG,
        ),
        repairs=(
            Repair(
                "The log shows an Xid, or nothing answers",
                "Only a restart helps, often with the power off for a moment (GPU007).",
                (REBOOT,),
            ),
            Repair(
                "It is slow, and then works",
                "Keep the driver loaded between programs.",
                ("sudo systemctl enable --now nvidia-persistenced",),
            ),
        ),
        follows_from=("GPU007",),
        sources=("NVIDIA driver persistence guide", "NVIDIA Xid errors guide"),
        check="driver:check_driver_unresponsive",
    ),
    Condition(
        code="DRV015",
        name="driver-older-than-ptxas",
        severity=Severity.NOTE,
        title="The driver is older than ptxas, so XLA compiles without parallelism",
        means="The driver's CUDA version is below the version of the ptxas that XLA uses.",
        why=(
            "XLA then compiles one kernel after another, because the driver could not link what a newer "
            'ptxas compiled apart. Results are right; only compilation is slower. It is the message "XLA is '
            'disabling parallel compilation". Newer releases (TensorFlow 2.21) link without the driver.'
        ),
        see=("nvidia-smi | grep 'CUDA Version'", "ptxas --version | tail -n 2"),
        repairs=(Repair("", "Upgrade the driver when convenient. Nothing else need be done."),),
        follows_from=("DRV004",),
        sources=("jax-ml/jax#19821", "XLA: nvptx_compiler.cc"),
        check="host:check_older_than_ptxas",
    ),
)
