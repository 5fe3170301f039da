"""What surrounds the target beyond the host's name and size: see model_containers."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from envdoctor.facts.containers import (
    read_engine,
    read_seccomp,
    read_shm,
    read_wsl_libraries,
    try_clone3,
)
from envdoctor.facts.elf import ElfError, SymbolVersions, read_symbol_versions
from envdoctor.facts.model_containers import Binaries, SecureBoot, Surroundings
from envdoctor.facts.unavailable import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envdoctor.facts.loader_model import LibraryWorld
    from envdoctor.facts.model import Framework, Host, Packages
    from envdoctor.facts.root import Root

# As files are named: libc.so.6 is a link to libc-2.31.so where glibc is older than 2.33
_C_LIBRARIES = ("libc.so", "libm.so", "libstdc++.so", "libc-2.", "libm-2.")
# The first that is there is what `import` opens; those that a release does not have are passed over.
_OBJECTS = {
    "tensorflow": (
        "python/_pywrap_tensorflow_internal.so",
        "python/lib_pywrap_tensorflow_common.so",
        "libtensorflow_cc.so.2",
        "libtensorflow_framework.so.2",
        "libtensorflow_framework.so.1",
    ),
    "torch": ("lib/libc10.so", "lib/libtorch_cpu.so", "lib/libtorch_cuda.so"),
    "jax": ("../jaxlib/libjax_common.so", "../jaxlib/xla_extension.so", "../jaxlib/_jax.so"),
}
_EFI = "/sys/firmware/efi/efivars"
_SECURE_BOOT = f"{_EFI}/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"  # UEFI: EFI_GLOBAL_VARIABLE
_ENROLLED = f"{_EFI}/MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23"  # shim's list of machine owner keys
_OWN_KEYS = (
    "/var/lib/shim-signed/mok/MOK.der",  # Ubuntu, Debian
    "/var/lib/dkms/mok.pub",  # DKMS 3
    "/etc/pki/akmods/certs/public_key.der",  # Fedora's akmods
)
_SIGNATURE = b"~Module signature appended~\n"  # Documentation/admin-guide/module-signing.rst
_SUSPENDS = "/sys/power/suspend_stats/success"
_CPUINFO_BYTES = 8 << 10


def main_objects(framework: Framework, root: Root) -> tuple[str, ...]:
    """The framework's own compiled files that are there, the one that `import` opens first."""
    names = (f"{framework.location}/{name}" for name in _OBJECTS.get(framework.name, ()))
    found = [root.realpath(path) for path in (*names, framework.opener) if path and root.is_file(path)]
    return tuple(dict.fromkeys(found))


def gather_surroundings(
    root: Root,
    *,
    host: Host,
    frameworks: tuple[Framework, ...],
    packages: Packages | Unavailable,
    world: LibraryWorld,
    driver_installed: bool,
) -> Surroundings:
    """Nothing here raises for what is missing."""
    binaries = tuple(
        Binaries(framework=f.name, objects=main_objects(f, root), tags=_wheel_tags(root, f, packages))
        for f in frameworks
    )
    seccomp = read_seccomp(root)
    return Surroundings(
        cpu_flags=_cpu_flags(root),
        binaries=binaries,
        symbols=dict(_symbols(root, binaries, world)),
        secure_boot=_secure_boot(root, host) if driver_installed else None,
        suspends=_suspends(root),
        shm_bytes=read_shm(root),
        seccomp=seccomp,
        clone3=try_clone3() if seccomp else "",
        engine=None if host.container or host.wsl else read_engine(root),
        wsl_libraries=read_wsl_libraries(root) if host.wsl else (),
    )


def _cpu_flags(root: Root) -> frozenset[str] | Unavailable | None:
    try:
        text = root.read_bytes("/proc/cpuinfo", _CPUINFO_BYTES).decode("utf-8", "replace")
    except OSError as error:
        return Unavailable(f"/proc/cpuinfo: {error.strerror}") if root.is_live else None
    line = re.search(r"^(?:flags|Features)\s*:(.*)", text, re.MULTILINE)  # x86; ARM
    return frozenset(line[1].split()) if line else Unavailable("/proc/cpuinfo lists no flags")


def _wheel_tags(root: Root, framework: Framework, packages: Packages | Unavailable) -> tuple[str, ...]:
    if isinstance(packages, Unavailable):
        return ()
    for distribution in packages.named(framework.distribution):
        name = distribution.name.replace("-", "_")
        try:
            text = root.read_text(f"{distribution.location}/{name}-{distribution.version}.dist-info/WHEEL")
        except OSError:
            continue
        return tuple(re.findall(r"^Tag:\s*(\S+)", text, re.MULTILINE))
    return ()


def _symbols(
    root: Root, binaries: tuple[Binaries, ...], world: LibraryWorld
) -> Iterator[tuple[str, SymbolVersions]]:
    """Of the binaries, and of every C library that a look-up met: which of them wins is for the check."""
    libraries = [real for real in world.objects if real.rpartition("/")[2].startswith(_C_LIBRARIES)]
    for real in dict.fromkeys([*(o for b in binaries for o in b.objects), *libraries]):
        try:
            yield real, read_symbol_versions(root.host(real))
        except (OSError, ElfError):  # the loader's model says what is wrong with it
            continue


def _suspends(root: Root) -> int | Unavailable:
    """How often the machine woke again. Old kernels show it to root alone, in debugfs: unknown there."""
    try:
        return int(root.read_text(_SUSPENDS))
    except FileNotFoundError:
        return 0 if not root.exists("/sys/power/state") else Unavailable(f"this kernel has no {_SUSPENDS}")
    except (OSError, ValueError) as error:
        return Unavailable(f"{_SUSPENDS}: {error}")


# --- Secure Boot ------------------------------------------------------------------------------------


def _secure_boot(root: Root, host: Host) -> SecureBoot | Unavailable | None:
    """Read only where the driver's module is not loaded: it takes a look through the kernel's modules."""
    if host.container or host.wsl or root.exists("/sys/module/nvidia"):
        return None
    try:
        variable = root.read_bytes(_SECURE_BOOT)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Unavailable(f"{_SECURE_BOOT}: {error.strerror}")
    module = _module_path(root, host.kernel)
    return SecureBoot(
        enabled=variable[-1:] == b"\1",  # four bytes of attributes, then the value (efivarfs)
        lockdown=_lockdown(root),
        module=module,
        signed=_signed(root, module),
        enrolled=_own_key_enrolled(root),
    )


def _lockdown(root: Root) -> str:
    try:
        chosen = re.search(r"\[(\w+)\]", root.read_text("/sys/kernel/security/lockdown"))
    except OSError:
        return ""
    return chosen[1] if chosen else ""


def _module_path(root: Root, kernel: str) -> str:
    """As depmod recorded it; Debian's package calls the module nvidia-current."""
    directory = f"/lib/modules/{kernel}"
    try:
        listed = root.read_text(f"{directory}/modules.dep")
    except OSError:
        return ""
    found = re.search(r"^(\S*/nvidia(?:-current)?\.ko(?:\.(?:gz|xz|zst))?):", listed, re.MULTILINE)
    return f"{directory}/{found[1]}" if found else ""


def _signed(root: Root, module: str) -> bool | Unavailable:
    if not module:
        return Unavailable("the kernel has no nvidia module")
    if not module.endswith(".ko"):
        return Unavailable(f"{module} is compressed")
    try:
        with open(root.host(module), "rb") as file:
            file.seek(-len(_SIGNATURE), os.SEEK_END)
            return file.read() == _SIGNATURE
    except OSError as error:
        return Unavailable(f"{module}: {error.strerror}")


def _own_key_enrolled(root: Root) -> bool | Unavailable | None:
    """Whether the firmware's list holds one of the keys that this machine signs its own modules with."""
    keys = []
    for path in _OWN_KEYS:
        try:
            keys.append(root.read_bytes(path))
        except OSError:
            continue
    keys = [key for key in keys if key]
    if not keys:
        return None
    try:
        enrolled = root.read_bytes(_ENROLLED)
    except FileNotFoundError:
        return False  # shim passes on no list when nothing was enrolled
    except OSError as error:
        return Unavailable(f"{_ENROLLED}: {error.strerror}")
    return any(key in enrolled for key in keys)
