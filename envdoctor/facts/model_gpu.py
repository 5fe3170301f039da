"""The facts of a GPU: what NVML, libcuda, the PCI bus and the kernel log tell of it."""

from __future__ import annotations

from msgspec import Struct

from envdoctor.facts.unavailable import Unavailable

NOT_ASKED = Unavailable("it was not asked for")


class GpuProcess(Struct, frozen=True, kw_only=True):
    """A process that NVML lists on a GPU, as far as this user may see it."""

    pid: int
    kind: str  # "compute", "graphics"
    memory_bytes: int | None  # None: the driver does not tell
    name: str | Unavailable = NOT_ASKED  # "python train.py"; arguments beyond the program are left out
    user: str | Unavailable = NOT_ASKED
    started: str | Unavailable = NOT_ASKED  # "2026-11-22 03:49", local time


class Link(Struct, frozen=True, tag="link", tag_field="is"):
    """One end of a PCIe link, or what it runs at; 0 where that is not known."""

    width: int  # lanes
    generation: int  # 1 is 2.5 GT/s, 2 is 5, 3 is 8, 4 is 16, 5 is 32, 6 is 64


class PcieLink(Struct, frozen=True, kw_only=True, tag="pcie-link", tag_field="is"):
    """The link of a GPU, from the kernel's view of the bus (/sys/bus/pci/devices)."""

    current: Link
    gpu_maximum: Link
    port_maximum: Link | Unavailable  # of the port it hangs on; behind a virtual machine's there is none


class EccErrors(Struct, frozen=True, tag="ecc", tag_field="is"):
    """Errors that could not be corrected."""

    volatile: int | Unavailable  # since the driver was loaded
    aggregate: int | Unavailable  # in the life of the card


class RemappedRows(Struct, frozen=True, tag="remapped-rows", tag_field="is"):
    """Rows of memory replaced by spare ones (Ampere and later)."""

    uncorrectable: int
    pending: bool
    failed: bool


class RetiredPages(Struct, frozen=True, tag="retired-pages", tag_field="is"):
    """Pages of memory taken out of use (before Ampere)."""

    double_bit: int
    pending: bool


class Mig(Struct, frozen=True, tag="mig", tag_field="is"):
    enabled: bool
    instances: tuple[str, ...]  # UUIDs of the compute instances, "MIG-…"


class Gpu(Struct, frozen=True, kw_only=True, tag="gpu", tag_field="is"):
    """One GPU as NVML describes it."""

    index: int
    uuid: str
    name: str
    pci_address: str | Unavailable
    compute_capability: str | Unavailable  # "8.9"
    memory_bytes: int | Unavailable
    memory_used_bytes: int | Unavailable
    processes: tuple[GpuProcess, ...] | Unavailable = NOT_ASKED
    utilization: int | Unavailable = NOT_ASKED  # percent of the last sampling period
    temperature: int | Unavailable = NOT_ASKED  # degrees Celsius
    slowdown: int | Unavailable = NOT_ASKED  # nvmlClocksEventReason… bits
    ecc: EccErrors | Unavailable = NOT_ASKED
    remapped_rows: RemappedRows | Unavailable = NOT_ASKED
    retired_pages: RetiredPages | Unavailable = NOT_ASKED
    mig: Mig | Unavailable = NOT_ASKED
    compute_mode: int | Unavailable = NOT_ASKED  # NVML_COMPUTEMODE_…
    virtualization: int | Unavailable = NOT_ASKED  # NVML_GPU_VIRTUALIZATION_MODE_…: 0 none, 2 vGPU


class GpuFailure(Struct, frozen=True):
    """A GPU that NVML counts and cannot describe."""

    index: int
    code: int | None  # NVML's error number: 15 is "GPU is lost"
    reason: str


class GpuEvent(Struct, frozen=True, kw_only=True):
    """A line of the kernel log in which the driver tells of a GPU's fault."""

    address: str  # "0000:01:00.0"; "" where the line names none
    xid: int | None  # None: "RmInitAdapter failed", "fallen off the bus"
    text: str


class KernelLog(Struct, frozen=True, kw_only=True, tag="kernel-log", tag_field="is"):
    """What the kernel log of this boot holds of the GPUs."""

    source: str  # "/dev/kmsg", "/var/log/kern.log"
    events: tuple[GpuEvent, ...]
    complete: bool  # False: it was too long to be read to its end


class Profiling(Struct, frozen=True, tag="profiling", tag_field="is"):
    """Who may read the GPU's performance counters."""

    admin_only: bool  # RmProfilingAdminOnly in /proc/driver/nvidia/params
    is_admin: bool  # this process has CAP_SYS_ADMIN
