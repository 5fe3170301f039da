"""Commands of root in the words of the target's distribution: the driver and its parts, the boot image.

Sources. Ubuntu: packages.ubuntu.com (22.04 and 24.04 have the branches 535 to 590), ubuntu-drivers(1).
Debian: its archive, asked with apt-cache. Fedora: RPM Fusion, Howto/NVIDIA. RHEL and kin: NVIDIA driver
installation guide, "Kernel Modules"; the streams XXX-dkms, NVIDIA/yum-packaging-nvidia-driver. SUSE:
openSUSE/nvidia-driver-G06, SUSE's "Installing NVIDIA drivers". Arch: its news of December 2025. Jetson:
JetPack's packages of L4T, which bring libcuda with them.
"""

from __future__ import annotations

from envdoctor.checks.machine import driver_version, gpus
from envdoctor.facts.model import Facts, Unavailable
from envdoctor.knowledge.loading import release_key

LASTING = "580"  # the last branch for GPUs before Turing; it runs CUDA 13 and all before (cuda_drivers)
TURING, BLACKWELL = (7, 5), (10, 0)  # from the one on the open modules work, from the other only they
_DEBIAN_DRIVERS = {"11": "470.256.02", "12": "535.261.03", "13": "550.163.01"}  # of its own archive
_FAMILIES = {
    "ubuntu": {"ubuntu"},
    "debian": {"debian"},
    "suse": {"suse", "opensuse", "opensuse-leap", "opensuse-tumbleweed", "sles", "sled"},
    "rhel": {"rhel", "centos", "rocky", "almalinux", "ol", "amzn", "fedora"},
    "arch": {"arch"},
}
_BOOT_IMAGE = {
    "ubuntu": "sudo update-initramfs -u",
    "debian": "sudo update-initramfs -u",
    "fedora": "sudo dracut --force",
    "rhel": "sudo dracut --force",
    "suse": "sudo dracut --force",
    "arch": "sudo mkinitcpio -P",
}


def family(facts: Facts) -> str:
    """A key of the tables here; "" for a distribution that is not known."""
    if facts.host.os_id == "fedora":
        return "fedora"
    names = {facts.host.os_id, *facts.host.os_like}
    return next((name for name, words in _FAMILIES.items() if names & words), "")


def is_jetson(facts: Facts) -> bool:
    """Whether its kernel is that of L4T ("5.15.148-tegra"): an integrated GPU, whose driver is JetPack's."""
    return facts.host.kernel.endswith("-tegra")


def then_boot(facts: Facts, command: str) -> str:
    """The command, and what makes a setting of modprobe.d count from the next start on."""
    image = _BOOT_IMAGE.get(family(facts))
    return (
        f"{command} && {image} && sudo reboot" if image else f"{command}    # rebuild the initramfs, reboot"
    )


def driver_command(facts: Facts, least: str = "") -> tuple[str, str]:
    """What installs the driver, `least` ("525.60.13") or newer, and a remark; ("", what to do) where
    nothing is known for the distribution.
    """
    if is_jetson(facts):
        if least:
            return "", f"flash the JetPack whose driver is {least} or newer: only a new L4T brings another"
        return (
            "sudo apt-get install --reinstall nvidia-l4t-cuda",
            "of JetPack's own repository; then: sudo reboot",
        )
    known = _commands(facts, least).get(family(facts))
    if known is None:
        name = facts.host.os_name or "this distribution"
        return "", f"install NVIDIA's driver{f' {least} or newer' if least else ''} for {name}, and reboot"
    command, origin = known
    return command, "; ".join(
        word for word in (least and f"{least} or newer", origin, "then: sudo reboot") if word
    )


def _commands(facts: Facts, least: str) -> dict[str, tuple[str, str]]:
    return {
        "ubuntu": _ubuntu(facts, least),
        "debian": _debian(facts, least),
        "fedora": (
            "sudo dnf install akmod-nvidia xorg-x11-drv-nvidia-cuda",
            "from RPM Fusion nonfree; wait until the module is built (modinfo -F version nvidia)",
        ),
        "rhel": _rhel(facts),
        "suse": (
            "sudo zypper install nvidia-driver-G06-kmp-default nvidia-compute-utils-G06",
            "from NVIDIA's repository for openSUSE and SLE",
        ),
        "arch": (
            "sudo pacman -S nvidia-open nvidia-utils",
            "Turing and newer; before: AUR, nvidia-580xx-dkms",
        ),
    }


def _ubuntu(facts: Facts, least: str) -> tuple[str, str]:
    if not least or release_key(LASTING) < release_key(least)[:1]:
        return "sudo ubuntu-drivers install", ""
    branch = f"{LASTING}-open" if _lowest(facts) >= BLACKWELL else LASTING
    return f"sudo ubuntu-drivers install nvidia:{branch}", "others: ubuntu-drivers list"


def _debian(facts: Facts, least: str) -> tuple[str, str]:
    own = _DEBIAN_DRIVERS.get(facts.host.os_version, "")
    if least and release_key(own) < release_key(least):
        told = f"Debian {facts.host.os_version}'s own is {own}" if own else "Debian's own may be older"
        return f"sudo apt-get install {_of_nvidia(facts)}", f"from NVIDIA's repository ({told})"
    machine = "arm64" if facts.host.machine == "aarch64" else "amd64"
    version = f": {own}" if own else ""
    return f"sudo apt-get install linux-headers-{machine} nvidia-driver", f"from non-free{version}"


def _rhel(facts: Facts) -> tuple[str, str]:
    """RHEL 10 has no module streams any more."""
    package = _of_nvidia(facts)
    stream = "open-dkms" if package == "nvidia-open" else f"{LASTING}-dkms"
    origin = "from NVIDIA's repository"
    if facts.host.os_id != "amzn" and release_key(facts.host.os_version) >= (10,):
        return f"sudo dnf install {package}", origin
    install = "cuda-drivers" if package != "nvidia-open" else package
    return f"sudo dnf module enable nvidia-driver:{stream} && sudo dnf install {install}", origin


def _of_nvidia(facts: Facts) -> str:
    """NVIDIA's own package: with the open modules, unless a GPU is known to be too old for them."""
    return "nvidia-open" if _lowest(facts) >= TURING else f"cuda-drivers-{LASTING}"


def _lowest(facts: Facts) -> tuple[int, ...]:
    """The lowest compute capability here; (9, 0), between all limits, where none is known."""
    told = [g.compute_capability for g in gpus(facts) if not isinstance(g.compute_capability, Unavailable)]
    return min((release_key(c)[:2] for c in told), default=(9, 0))


def enrol_key(facts: Facts) -> str:
    """What has the firmware asked for the key that this machine signs its modules with; "" where unknown.

    The keys lie where their makers leave them: shim-signed, DKMS 3, akmods, nvidia-driver-G06 (kmp-post.sh).
    """
    command = {
        "ubuntu": "sudo update-secureboot-policy --enroll-key",
        "debian": "sudo mokutil --import /var/lib/dkms/mok.pub",
        "rhel": "sudo mokutil --import /var/lib/dkms/mok.pub",
        "fedora": "sudo mokutil --import /etc/pki/akmods/certs/public_key.der",
        "suse": "sudo mokutil --import /var/lib/nvidia-pubkeys/MOK-*.der --root-pw",
    }.get(family(facts))
    return f"{command} && sudo reboot" if command else ""


def build_module(facts: Facts) -> str:
    """What builds the module for the kernel that runs; "" where nothing is known for the distribution."""
    headers = f"linux-headers-{facts.host.kernel}" if facts.host.kernel else '"linux-headers-$(uname -r)"'
    packages = f"sudo apt-get install {headers} && sudo dkms autoinstall"
    devel = f"kernel-devel-{facts.host.kernel}" if facts.host.kernel else '"kernel-devel-$(uname -r)"'
    return {
        "ubuntu": packages,
        "debian": packages,
        "fedora": "sudo akmods --force && sudo depmod -a",
        "rhel": f"sudo dnf install {devel} && sudo dkms autoinstall",
        "suse": "sudo zypper install --force nvidia-driver-G06-kmp-default",
    }.get(family(facts), "")


def missing_libcuda(facts: Facts, nvml: str) -> str:
    """What brings libcuda.so.1 to a driver that is otherwise here; `nvml` is the path of its libnvidia-ml."""
    installed = f'"$(dpkg -S {nvml} | cut -d: -f1)"'
    return {
        "ubuntu": f"sudo apt-get install --reinstall {installed}",  # one package has both libraries
        "debian": "sudo apt-get install --reinstall libcuda1",
        "fedora": "sudo dnf reinstall xorg-x11-drv-nvidia-cuda-libs",
        "suse": "sudo zypper install --force nvidia-compute-G06",
        "arch": "sudo pacman -S nvidia-utils",
    }.get(family(facts), "")


def fabric_manager(facts: Facts) -> str:
    """What installs the fabric manager of the driver that runs; "" where nothing is known.

    Source: canonical/apt-packaging-fabric-manager, NVIDIA/yum-packaging-fabric-manager.
    """
    version = driver_version(facts)
    branch = version.partition(".")[0]
    if not branch:
        return ""
    exactly = f"sudo apt-get install 'nvidia-fabricmanager-{branch}={version}-*'"
    return {
        "ubuntu": exactly,
        "debian": exactly,
        "rhel": f"sudo dnf install nvidia-fabricmanager-{branch}-{version}",
        "suse": f"sudo zypper install nvidia-fabricmanager-{branch}={version}",
    }.get(family(facts), "")
