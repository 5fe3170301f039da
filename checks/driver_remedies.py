"""What cures the driver: for this distribution, this engine, and who has root here."""

from __future__ import annotations

import re

from envdoctor.catalog.commands import CUINIT, KERNEL_LOG
from envdoctor.checks.administration import as_root, ask_for_gpu, privileged, restart_container, told
from envdoctor.checks.distributions import (
    build_module,
    driver_command,
    fabric_manager,
    missing_libcuda,
)
from envdoctor.checks.engines import let_in, started_with, with_variable
from envdoctor.checks.lookups import directory
from envdoctor.checks.machine import driver_answers, driver_libraries, driver_version, gpu_traces, gpus
from envdoctor.checks.other_releases import other_release_command
from envdoctor.facts.model import DriverLibrary, Facts, Framework, Nvml, Unavailable
from envdoctor.knowledge.providers import system_manager
from envdoctor.shell import quoted

RESTART_WSL = "wsl.exe --shutdown    # ends all of WSL2; then open it again"
_COMPAT = re.compile(r"/cuda-(\d+)\.(\d+)/compat(?:/|$)")  # NVIDIA's packages cuda-compat-12-4
_REMOVE = {"apt": "apt-get remove", "dnf": "dnf remove", "zypper": "zypper remove"}


def host_driver_loaded(facts: Facts) -> bool | None:
    """Whether the kernel, which a container shares with its host, runs NVIDIA's module; None: not known."""
    driver = facts.driver
    if driver_answers(facts) or (isinstance(driver.kernel_module, str) and driver.kernel_module):
        return True
    if not isinstance(driver.modules, Unavailable):
        return "nvidia" in driver.modules
    return None


def install_driver(facts: Facts, says: str) -> str:
    if not gpu_traces(facts) and ask_for_gpu(facts):
        return ask_for_gpu(facts)
    if facts.host.wsl:
        return "install NVIDIA's driver in Windows, and none in WSL2; then: " + RESTART_WSL
    if facts.host.container and host_driver_loaded(facts) is not False:
        return let_in(facts)
    if facts.host.container:  # whose distribution is the image's, not the host's
        wish = f"NVIDIA's driver installed on the host, not in the container; then: {let_in(facts)}"
        return told(facts, says, wish)
    return _privileged_driver(facts, says)


def _privileged_driver(facts: Facts, says: str, least: str = "") -> str:
    """The command that installs the driver, `least` or newer; a sentence where there is none to tell."""
    command, remark = driver_command(facts, least)
    return privileged(facts, says, command, remark) if command else remark


def newer_driver_or_release(facts: Facts, framework: Framework, says: str, least: str) -> str:
    """And what the user can do alone: a release that the driver runs."""
    capability = next((g.compute_capability for g in gpus(facts)), "")
    other = other_release_command(
        facts,
        framework,
        capability=capability if isinstance(capability, str) else "",
        driver=driver_version(facts),
    )
    return newer_driver(facts, says, least) + (
        f"    # without it: {other.replace('    # ', ', ')}" if other else ""
    )


def newer_driver(facts: Facts, says: str, least: str) -> str:
    if facts.host.wsl:
        shown = driver_version(facts)
        return f"install NVIDIA's newest driver in Windows (WSL2 shows {shown}); then: {RESTART_WSL}"
    if facts.host.container:
        wish = f"NVIDIA's driver {least} or newer, a reboot; then: {restart_container(facts)}"
        return told(facts, says, wish)
    return _privileged_driver(facts, says, least)


def other_half(facts: Facts, says: str) -> str:
    if facts.host.container:
        return with_variable(facts, "NVIDIA_DRIVER_CAPABILITIES", "compute,utility")
    command = missing_libcuda(facts, quoted(_nvml_library(facts)))
    return privileged(facts, says, command) if command else _privileged_driver(facts, says)


def load_module(facts: Facts, says: str) -> str:
    build = build_module(facts) if not facts.host.container else ""
    boot = facts.surroundings.secure_boot
    if build and not isinstance(boot, Unavailable) and boot is not None and not boot.module:
        kernel = facts.host.kernel or "this kernel"
        return privileged(facts, says, f"{build} && sudo modprobe nvidia", f"{kernel} has no nvidia module")
    otherwise = f"if that fails: {build} && sudo modprobe nvidia" if build else f"if that fails: {KERNEL_LOG}"
    return privileged(facts, says, "sudo modprobe nvidia", otherwise)


def one_version(facts: Facts, says: str) -> str:
    if not facts.host.container:
        return privileged(facts, says, "sudo reboot")
    own = "if it stays: a libcuda.so.1 in the image is in the way, take its package out"
    return f"{restart_container(facts)}    # outside the container; {own}"


def make_nodes(facts: Facts, says: str, missing: list[str]) -> str:
    if facts.host.container and "/dev/nvidia-uvm" not in missing:
        return let_in(facts)
    minors = [p.removeprefix("/dev/nvidia") for p in missing if p.removeprefix("/dev/nvidia").isdigit()]
    wanted = "".join(f" -c {minor}" for minor in minors or ["0"])
    lasting = "at every start: sudo systemctl enable --now nvidia-persistenced"
    then = f"then: {restart_container(facts).partition('    # ')[0]}" if facts.host.container else lasting
    return privileged(facts, says, f"sudo nvidia-modprobe{wanted} -u", then)


def let_user_in(facts: Facts, says: str, groups: list[str]) -> str:
    if facts.host.container == "podman":
        return started_with(facts, "--group-add keep-groups")
    if facts.host.container == "docker" and groups != ["root"]:
        return started_with(facts, f"--group-add {groups[0]}")
    if groups != ["root"]:
        name = facts.environment.get("USER", "") if ask_for_gpu(facts) else ""
        user = quoted(name) if name else '"$USER"'
        return privileged(facts, says, f"sudo usermod -aG {groups[0]} {user}", "then log in again")
    lasting = "echo 'options nvidia NVreg_DeviceFileMode=0666' | sudo tee /etc/modprobe.d/nvidia-nodes.conf"
    return privileged(facts, says, "sudo chmod a+rw /dev/nvidia*", f"lasting: {lasting}")


def after_cuinit(facts: Facts, code: str, says: str) -> str:
    if code == "DRV012":
        return _without_compat(facts, says)
    if facts.host.wsl:
        return RESTART_WSL
    if code == "DRV010":
        return reload_uvm(facts, says)
    if code == "DRV013":
        install = fabric_manager(facts) if not facts.host.container else ""
        remark = f"of exactly the driver's version: {driver_version(facts)}"
        start = "sudo systemctl enable --now nvidia-fabricmanager"
        return privileged(facts, says, start, f"if it is missing: {install}" if install else remark)
    if isinstance(facts.driver.nvml, Nvml) and facts.driver.nvml.gpus:
        return (
            f"env -u CUDA_VISIBLE_DEVICES -u LD_LIBRARY_PATH {CUINIT}    # 0: the environment hides the GPU"
        )
    return privileged(facts, says, KERNEL_LOG, "says why the kernel module took no GPU")


def reload_uvm(facts: Facts, says: str) -> str:
    reload = "sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm"
    stop = "stop what uses the GPU first: sudo fuser -v /dev/nvidia-uvm; if it does not unload: sudo reboot"
    return privileged(facts, says, reload, stop)


def _without_compat(facts: Facts, says: str) -> str:
    compat = next((v for v in driver_libraries(facts) if "/compat" in f"{v.path} {v.real}"), None)
    if compat is None:
        return one_version(facts, says)
    value = facts.environment.get("LD_LIBRARY_PATH", "")
    entries = [e for e in value.replace(";", ":").split(":") if e]
    rest = [e for e in entries if e.rstrip("/") not in {directory(compat.path), directory(compat.real)}]
    if rest != entries:
        return f"export LD_LIBRARY_PATH={quoted(':'.join(rest))}" if rest else "unset LD_LIBRARY_PATH"
    return _remove_compat(facts, says, compat)


def _remove_compat(facts: Facts, says: str, compat: DriverLibrary) -> str:
    """In a container it is the image's own package, and the image's own root."""
    found = _COMPAT.search(compat.real)
    remove = _REMOVE.get(system_manager(facts.host.os_id, facts.host.os_like))
    if found and remove:
        return as_root(facts, says, f"sudo {remove} cuda-compat-{found[1]}-{found[2]} && sudo ldconfig")
    listed = f"grep -rl {quoted(directory(compat.path))} /etc/ld.so.conf.d"
    return f"{listed}    # remove the file that it names, then: sudo ldconfig"


def _nvml_library(facts: Facts) -> str:
    return next(
        (v.real for v in driver_libraries(facts) if v.soname == "libnvidia-ml.so.1"), "libnvidia-ml.so.1"
    )
