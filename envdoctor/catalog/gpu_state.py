"""The GPU in use: memory, faults, clocks, modes, permissions."""

from __future__ import annotations

from envdoctor.catalog.commands import JAX_DEVICES, REBOOT, TF_DEVICES
from envdoctor.catalog.condition import Condition, Repair, Severity

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        code="GPU006",
        name="gpu-memory-held-by-other-process",
        severity=Severity.WARNING,
        title="Another process holds the memory of the GPU",
        means="Most of the GPU's memory is taken by processes other than this one.",
        why=(
            "TensorFlow and JAX reserve nearly all memory at start and keep it as long as the process lives: "
            "a notebook kernel left open, a crashed job's worker, a second training run. What comes later "
            "gets CUDA_ERROR_OUT_OF_MEMORY, or cuDNN and cuBLAS cannot make their handles. Processes of "
            "other users or containers may be invisible to you in nvidia-smi."
        ),
        see=(
            "nvidia-smi --query-compute-apps=pid,process_name,used_memory --format=csv",
            (
                'ps -o pid,user,lstart,stat,cmd -p "$(nvidia-smi --query-compute-apps=pid '
                '--format=csv,noheader | paste -sd, -)"'
            ),
            "sudo fuser -v /dev/nvidia*",
        ),
        repairs=(
            Repair(
                "A notebook of yours",
                "Shut its kernel down; closing the tab leaves it running.",
                ("jupyter server list",),
            ),
            Repair(
                "Sharing is meant",
                "Let each process take what it needs.",
                ("export TF_FORCE_GPU_ALLOW_GROWTH=true", "export XLA_PYTHON_CLIENT_PREALLOCATE=false"),
            ),
            Repair(
                "Several GPUs",
                "Take the one with the most free memory.",
                (
                    (
                        'export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES="$(nvidia-smi '
                        "--query-gpu=memory.free,index --format=csv,noheader,nounits | sort -rn | head -n 1 "
                        "| cut -d, -f2 | tr -d ' ')\""
                    ),
                ),
            ),
        ),
        sources=("tensorflow.org/guide/gpu: limiting GPU memory growth", "JAX: GPU memory allocation"),
        check="gpu_state:check_memory_held",
    ),
    Condition(
        code="GPU007",
        name="gpu-hardware-fault",
        severity=Severity.ERROR,
        title="The GPU has a hardware fault or has fallen off the bus",
        means=(
            "The kernel log has a serious Xid or RmInitAdapter failure, or a GPU on the bus no longer "
            "answers."
        ),
        why=(
            "Xid 79 is a GPU that has fallen off the bus: power, seating, riser, PCIe power management, "
            "heat. 48 is a double-bit memory error, 62 an internal micro-controller halt, 74 NVLink, 119 and "
            '120 the GPU\'s system processor not answering. "RmInitAdapter failed" means that the card '
            "cannot be brought up. No software setting in the environment repairs these. Xid 13, 31 and 43 "
            "mostly are the program's own faults, and not this."
        ),
        see=(
            "sudo dmesg -T | grep -E 'Xid|RmInitAdapter|fallen off'",
            "nvidia-smi -q -d ECC,ROW_REMAPPER,TEMPERATURE",
            "lspci -nn -d 10de:",
        ),
        repairs=(
            Repair(
                "First",
                (
                    "Power the machine off, not only restart; seat the card and its power plugs; try another "
                    "slot."
                ),
                ("sudo poweroff",),
            ),
            Repair(
                "Xid 79 comes back (Ubuntu, Debian)",
                "Rule out the link's power saving; check the power supply under load.",
                (
                    (
                        "sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&pcie_aspm=off /' /etc/default/grub && sudo "
                        "update-grub"
                    ),
                    REBOOT,
                ),
            ),
            Repair(
                "Xid 79 comes back (Fedora, RHEL)",
                "",
                ("sudo grubby --update-kernel=ALL --args=pcie_aspm=off", REBOOT),
            ),
            Repair(
                "It stays", "Run NVIDIA's diagnostics, and have the card replaced.", ("sudo dcgmi diag -r 3",)
            ),
            Repair("A cloud machine", "Stop and start the instance, so that it moves to other hardware."),
        ),
        sources=("NVIDIA Xid errors guide", "NVIDIA GPU debug guidelines"),
        check="gpu_state:check_hardware_fault",
    ),
    Condition(
        code="GPU008",
        name="gpu-throttled",
        severity=Severity.WARNING,
        title="The GPU is slowed down by heat or power now",
        means="A thermal or power slowdown is active: the clocks are below what the GPU could do.",
        why=(
            "Software power cap is normal at full load. Hardware slowdown, hardware thermal slowdown and the "
            "power brake are not: dust, a stopped fan, a card without air, too weak a supply or a loose "
            "power plug halve the speed or worse."
        ),
        see=(
            "nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER,CLOCK",
            (
                "nvidia-smi --query-gpu=index,temperature.gpu,power.draw,power.limit,clocks.sm,clocks.max.sm "
                "--format=csv"
            ),
        ),
        repairs=(
            Repair(
                "Heat",
                (
                    "Clean it, give it air, check the fan; until then a lower power limit costs little "
                    "speed. 250 W here is an example."
                ),
                ("nvidia-smi -q -d POWER | grep -i limit", "sudo nvidia-smi -pl 250"),
            ),
            Repair("Power brake or hardware slowdown when cool", "Check the plugs and the supply."),
        ),
        sources=("nvidia-smi(1): clocks event reasons",),
        check="gpu_state:check_throttled",
    ),
    Condition(
        code="GPU009",
        name="pcie-link-degraded",
        severity=Severity.WARNING,
        title="The PCIe link of the GPU runs below what both ends can do",
        means=(
            "Under load the link has fewer lanes or a lower generation than both the GPU and its slot "
            "support."
        ),
        why=(
            "Width falls to x8, x4 or x1 through a wrong slot, slots that share lanes, a riser, or dirty "
            "contacts. Feeding data to the GPU becomes the bottleneck. At idle the generation drops to 1 to "
            "save power, which is normal: measure under load."
        ),
        see=(
            "nvidia-smi --format=csv --query-gpu=index,pcie.link.gen.current,pcie.link.gen.max",
            "nvidia-smi --format=csv --query-gpu=index,pcie.link.width.current,pcie.link.width.max",
            "sudo lspci -vv -d 10de: | grep -E 'LnkCap:|LnkSta:'",
        ),
        repairs=(
            Repair(
                "",
                (
                    "Use the slot nearest the CPU (x16), seat the card, leave the riser out, and look in the "
                    "firmware for slot bifurcation and a fixed link speed. Then measure under load again."
                ),
            ),
        ),
        sources=("nvidia-smi(1)", "PCI Express base specification: link status"),
        check="gpu_state:check_pcie_link",
    ),
    Condition(
        code="GPU010",
        name="gpu-memory-errors",
        severity=Severity.WARNING,
        title="The GPU reports memory errors that cannot be corrected",
        means="There are uncorrectable ECC errors, or a row remapping is pending or failed.",
        why=(
            "A cell of the memory has failed. Ampere and later replace the row at the next reset (pending "
            "until then); a failed remapping means that no spare row is left. Results computed since the "
            "error may be wrong, and the running program was stopped by Xid 48, 63, 64, 94 or 95."
        ),
        see=("nvidia-smi -q -d ECC,ROW_REMAPPER,PAGE_RETIREMENT", "sudo dmesg -T | grep Xid"),
        repairs=(
            Repair("Pending", "A reset applies it. Stop everything on the GPU first, or restart.", (REBOOT,)),
            Repair(
                "Failed, or errors keep coming",
                "Have the card replaced; the vendor asks for this report.",
                ("sudo nvidia-bug-report.sh",),
            ),
        ),
        sources=("NVIDIA GPU memory error management guide", "NVIDIA Xid errors guide"),
        check="gpu_state:check_memory_errors",
    ),
    Condition(
        code="GPU011",
        name="mig-without-instances",
        severity=Severity.ERROR,
        title="MIG mode is on, and there is no instance to compute on",
        means="MIG is enabled on the GPU, and it has no GPU instance with a compute instance.",
        why=(
            "With MIG on, the whole GPU is no longer a CUDA device: only compute instances are. Instances do "
            "not survive a restart, the mode does (on A100): after a restart nvidia-smi shows the GPU, and "
            "cuInit finds no device."
        ),
        see=(
            "nvidia-smi -L",
            "nvidia-smi --query-gpu=index,mig.mode.current --format=csv",
            "sudo nvidia-smi mig -lgi",
        ),
        repairs=(
            Repair("The whole GPU is wanted", "", ("sudo nvidia-smi -mig 0", "nvidia-smi -L")),
            Repair(
                "Instances are wanted",
                "List the profiles; profile 0 takes the whole GPU in one instance.",
                ("sudo nvidia-smi mig -lgip", "sudo nvidia-smi mig -cgi 0 -C", "nvidia-smi -L"),
            ),
        ),
        sources=("NVIDIA multi-instance GPU user guide",),
        check="gpu_modes:check_mig_instances",
    ),
    Condition(
        code="GPU012",
        name="compute-mode-restricted",
        severity=Severity.WARNING,
        title="The compute mode of the GPU keeps processes out",
        means="The compute mode is Exclusive_Process or Prohibited.",
        why=(
            'In exclusive mode one process may have a context; a second gets "all CUDA-capable devices are '
            'busy or unavailable". In prohibited mode nobody may. Clusters set it on purpose; a workstation '
            "seldom wants it."
        ),
        see=(
            "nvidia-smi --query-gpu=index,compute_mode --format=csv",
            "nvidia-smi --query-compute-apps=pid,process_name,used_memory --format=csv",
        ),
        repairs=(
            Repair("Your machine", "", ("sudo nvidia-smi -c DEFAULT",)),
            Repair("A cluster", "Another job has this GPU: ask the scheduler for one of your own."),
        ),
        sources=("nvidia-smi(1): compute mode",),
        check="gpu_modes:check_compute_mode",
    ),
    Condition(
        code="GPU013",
        name="gpu-ignored-low-sm-count",
        severity=Severity.WARNING,
        title="TensorFlow ignores this GPU because it has few multiprocessors",
        means=(
            "The GPU has fewer multiprocessors than TF_MIN_GPU_MULTIPROCESSOR_COUNT; unset, that is 8, or "
            "what the largest visible GPU has where that is less."
        ),
        why=(
            'TensorFlow leaves small display cards alone, so that they do not hold up training: "Ignoring '
            'visible gpu device … with core count: 3. The minimum required count is 8." Beside a larger '
            "GPU that is a note. A variable that asks for more than every GPU has leaves none: an error."
        ),
        see=(TF_DEVICES, "nvidia-smi --query-gpu=index,name --format=csv"),
        repairs=(Repair("It is to be used all the same", "", ("export TF_MIN_GPU_MULTIPROCESSOR_COUNT=1",)),),
        sources=(
            "strings of libtensorflow_framework.so.2",
            "tensorflow/core/common_runtime/gpu/gpu_device.cc",
        ),
        check="gpu_modes:check_multiprocessors",
    ),
    Condition(
        code="GPU014",
        name="vgpu-unsupported-feature",
        severity=Severity.ERROR,
        title="The vGPU profile lacks a feature that the framework uses",
        means=(
            "The GPU is a vGPU whose profile or licence leaves out a CUDA feature, such as virtual "
            "memory management."
        ),
        why=(
            "Fractional vGPU profiles may report no virtual memory management or unified memory. XLA after "
            'jaxlib 0.10.0 refuses such a device ("VMM is required for device memory allocation in XLA"); '
            "others fail with CUDA_ERROR_NOT_SUPPORTED. PyTorch may work on the same machine. An unlicensed "
            "vGPU is slowed down, then disabled."
        ),
        see=("nvidia-smi -q | grep -A 3 -iE 'virtualization mode|vgpu software'", JAX_DEVICES),
        repairs=(
            Repair(
                "JAX",
                "The last release that works without it.",
                ("python -m pip install 'jax[cuda12]==0.10.0'",),
            ),
            Repair(
                "The hypervisor is yours",
                (
                    "Give the machine a profile with the whole GPU, pass the GPU through, or allow unified "
                    "memory (`enable_uvm=1`, where the profile supports it)."
                ),
            ),
            Repair("The licence", "", ("sudo systemctl status nvidia-gridd --no-pager",)),
        ),
        sources=("openxla/xla#49252", "NVIDIA vGPU software user guide"),
        check="gpu_modes:check_vgpu",
    ),
    Condition(
        code="GPU015",
        name="gpu-out-of-memory",
        severity=Severity.ERROR,
        title="The model does not fit into the memory of the GPU",
        means="This process alone needs more memory than the GPU has.",
        why=(
            "Activations grow with the batch and with the square of the image's side; optimizers keep two "
            "more copies of the weights; fragmentation takes a share. JAX's preallocation leaves too little "
            "for NCCL and cuDNN. On GPUs that share the host's memory, the page cache counts too."
        ),
        see=(
            "nvidia-smi --query-gpu=memory.total,memory.used,memory.free --format=csv",
            "nvidia-smi --query-compute-apps=pid,process_name,used_memory --format=csv",
        ),
        repairs=(
            Repair(
                "First",
                (
                    "Halve the batch until it fits; then mixed precision, gradient accumulation, a smaller "
                    "input."
                ),
            ),
            Repair(
                "TensorFlow: fragmentation",
                "",
                ("export TF_FORCE_GPU_ALLOW_GROWTH=true", "export TF_GPU_ALLOCATOR=cuda_malloc_async"),
            ),
            Repair(
                "PyTorch: fragmentation", "", ("export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True",)
            ),
            Repair(
                "JAX",
                "Preallocate less, or nothing.",
                ("export XLA_PYTHON_CLIENT_MEM_FRACTION=.60", "export XLA_PYTHON_CLIENT_PREALLOCATE=false"),
            ),
            Repair(
                "Memory shared with the host (GB10, Jetson)",
                "Give the page cache back.",
                ("sync && echo 3 | sudo tee /proc/sys/vm/drop_caches",),
            ),
        ),
        follows_from=("GPU006",),
        sources=(
            "tensorflow.org/guide/gpu: limiting GPU memory growth",
            "JAX: GPU memory allocation",
            "PyTorch: CUDA semantics",
        ),
    ),
    Condition(
        code="GPU016",
        name="cupti-not-permitted",
        severity=Severity.NOTE,
        title="Profiling counters need privileges that this user lacks",
        means="CUPTI may not read the GPU's performance counters. It concerns profiling only.",
        why=(
            "Since 2019 the driver gives the counters to root alone (CVE-2018-6260). TensorBoard's profiler "
            "then lacks GPU events and TensorFlow prints CUPTI_ERROR_INSUFFICIENT_PRIVILEGES. Training is "
            "not affected."
        ),
        see=("grep RmProfilingAdminOnly /proc/driver/nvidia/params",),
        repairs=(
            Repair(
                "Profiling for all users",
                "",
                (
                    (
                        "echo 'options nvidia NVreg_RestrictProfilingToAdminUsers=0' | sudo tee "
                        "/etc/modprobe.d/nvidia-profiling.conf"
                    ),
                    "sudo update-initramfs -u || sudo dracut --force",
                    REBOOT,
                ),
            ),
            Repair("A container", "", ("docker run --rm --gpus all --cap-add=SYS_ADMIN ubuntu nvidia-smi",)),
        ),
        sources=("NVIDIA: ERR_NVGPUCTRPERM", "NVIDIA: CUPTI_ERROR_INSUFFICIENT_PRIVILEGES"),
        check="gpu_modes:check_profiling_permitted",
    ),
)
