"""What is to be done, in each situation: the distribution, the engine, the cluster. Exact, and pasteable.

The machines are trees; what only a running driver or a cluster tells is put into the facts that were read.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from envdoctor.checks.other_releases import other_release_command
from envdoctor.diagnose import Diagnosis, diagnose
from envdoctor.facts.gather import gather
from envdoctor.facts.model import (
    CudaDevice,
    CudaDriver,
    Facts,
    Framework,
    Gpu,
    Interpreter,
    Nvml,
    ProbeFailure,
    ProbeFailureKind,
    Unavailable,
)
from envdoctor.facts.model_gpu import GpuEvent, GpuProcess, KernelLog
from envdoctor.facts.root import Root
from envdoctor.target import Target
from tests.conftest import workstation
from tests.machines import eras
from tests.machines.machine import Machine
from tests.pasting import assert_runs_as_printed, is_command

DISTRIBUTIONS = {  # name, version, ID_LIKE
    "ubuntu": ("ubuntu", "24.04", "debian"),
    "debian": ("debian", "12", ""),
    "debian 11": ("debian", "11", ""),
    "fedora": ("fedora", "42", ""),
    "rocky 9": ("rocky", "9.4", "rhel centos fedora"),
    "rocky 10": ("rocky", "10.0", "rhel centos fedora"),
    "amazon": ("amzn", "2023", "fedora"),
    "opensuse": ("opensuse-leap", "15.6", "suse opensuse"),
    "arch": ("arch", "", ""),
    "gentoo": ("gentoo", "2.17", ""),
}
ENGINES = {"docker": "3f2a9c01b7de", "podman": "a1b2c3d4e5f6", "kubernetes": "train-7d9f-x2x"}
SLURM = {"SLURM_JOB_ID": "4711"}
_STARTS = re.compile(
    r"(docker|podman|kubectl|lxc|singularity|apptainer|systemd-nspawn|srun|qsub|bsub|module|env|wsl\.exe) "
)


def read(machine: Machine, *, gpu_required: bool = False) -> Facts:
    target = Target(
        python=machine.python,
        chosen_by="--python",
        root=Root(str(machine.root)),
        environment=machine.environment,
        gpu_required=gpu_required,
    )
    return gather(target, quick=True)


def on(machine: Machine, name: str) -> Machine:
    system, version, like = DISTRIBUTIONS[name]
    return machine.os(system, version, like=like)


def inside(facts: Facts, engine: str, name: str = "") -> Facts:
    host = replace(facts.host, container=engine, hostname=name or ENGINES.get(engine, "box"))
    return replace(facts, host=host)


def on_cluster(facts: Facts, variables: dict[str, str] | None = None) -> Facts:
    environment = {**facts.environment, **(variables or SLURM)}
    return replace(facts, environment=environment, host=replace(facts.host, hostname="gpu07"))


def remedy(facts: Facts, code: str) -> str:
    """Of the first finding with this code; every command among all remedies runs as it is printed."""
    found: Diagnosis = diagnose(facts)
    remedies = [(f.finding.code, f.finding.remedy) for f in found.findings]
    for _, text in remedies:
        assert not re.search(r" {4}(?!# )", text), text
        assert "…" not in text
        if is_command(text) or _STARTS.match(text):
            assert_runs_as_printed(text)
    return next(text for found_code, text in remedies if found_code == code)


def without_driver(root: Path, name: str = "ubuntu") -> Machine:
    return on(Machine(root), name).cpus(8).venv().tensorflow().nvidia_wheels().pci(driver="")


def old_driver(root: Path, name: str = "ubuntu", version: str = "470.256.02") -> Machine:
    return on(workstation(root, version=version), name)


def answering(facts: Facts, version: str, serves: str, **gpu: object) -> Facts:
    """A simulated NVML that answers, with one RTX 4090."""
    described = {
        "index": 0,
        "uuid": "GPU-1",
        "name": "NVIDIA GeForce RTX 4090",
        "pci_address": "0000:01:00.0",
        "compute_capability": "8.9",
        "memory_bytes": 24 << 30,
        "memory_used_bytes": 1 << 30,
    }
    one = Gpu(**(described | gpu))  # type: ignore[arg-type]
    nvml = Nvml(driver_version=version, cuda_version=serves, simulated=True, gpus=(one,))
    return replace(facts, driver=replace(facts.driver, nvml=nvml))


def cuinit(facts: Facts, code: int) -> Facts:
    failure = ProbeFailure(ProbeFailureKind.ERROR, f"cuInit {code}", code)
    return replace(facts, driver=replace(facts.driver, cuda=failure))


# --- a driver is to be installed ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("ubuntu", "sudo ubuntu-drivers install"),
        ("debian", "sudo apt-get install linux-headers-amd64 nvidia-driver"),
        ("fedora", "sudo dnf install akmod-nvidia xorg-x11-drv-nvidia-cuda"),
        ("rocky 9", "sudo dnf module enable nvidia-driver:open-dkms && sudo dnf install nvidia-open"),
        ("rocky 10", "sudo dnf install nvidia-open"),
        ("amazon", "sudo dnf module enable nvidia-driver:open-dkms && sudo dnf install nvidia-open"),
        ("opensuse", "sudo zypper install nvidia-driver-G06-kmp-default nvidia-compute-utils-G06"),
        ("arch", "sudo pacman -S nvidia-open nvidia-utils"),
    ],
)
def test_a_missing_driver_is_installed_by_the_distributions_own_command(
    tmp_path: Path, name: str, command: str
) -> None:
    said = remedy(read(without_driver(tmp_path / "m", name)), "DRV001")
    assert said.partition("    # ")[0] == command
    assert said.endswith("then: sudo reboot")


def test_a_distribution_that_is_not_known_is_named(tmp_path: Path) -> None:
    said = remedy(read(without_driver(tmp_path / "m", "gentoo")), "DRV001")
    assert said == "install NVIDIA's driver for Gentoo 2.17, and reboot"


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("ubuntu", "sudo ubuntu-drivers install nvidia:580"),
        ("debian", "sudo apt-get install linux-headers-amd64 nvidia-driver"),  # bookworm has 535
        ("debian 11", "sudo apt-get install nvidia-open"),  # bullseye ends at 470
        ("rocky 10", "sudo dnf install nvidia-open"),
    ],
)
def test_a_driver_that_is_too_old_is_replaced_by_one_that_is_named_with_its_version(
    tmp_path: Path, name: str, command: str
) -> None:
    said = remedy(read(old_driver(tmp_path / "m", name)), "DRV004")
    assert said.partition("    # ")[0] == command
    assert "525.60.13 or newer" in said


def test_a_gpu_too_old_for_the_open_modules_gets_the_last_branch_that_has_it(tmp_path: Path) -> None:
    facts = read(old_driver(tmp_path / "m", "rocky 9"))
    pascal = answering(facts, "470.256.02", "11.4", name="NVIDIA GeForce GTX 1080", compute_capability="6.1")
    said = remedy(pascal, "DRV004")
    assert said.startswith("sudo dnf module enable nvidia-driver:580-dkms && sudo dnf install cuda-drivers ")


def test_blackwell_gets_the_open_modules_alone(tmp_path: Path) -> None:
    facts = answering(read(old_driver(tmp_path / "m")), "470.256.02", "11.4", compute_capability="12.0")
    assert remedy(facts, "DRV004").startswith("sudo ubuntu-drivers install nvidia:580-open ")


def test_who_cannot_upgrade_the_driver_is_told_which_release_it_runs(tmp_path: Path) -> None:
    said = remedy(answering(read(old_driver(tmp_path / "m")), "470.256.02", "11.4"), "DRV004")
    assert "without it: /opt/venv/bin/python -m pip install 'tensorflow[and-cuda]==2.14.1'" in said


def test_in_wsl2_the_driver_is_windows_own(tmp_path: Path) -> None:
    facts = answering(read(old_driver(tmp_path / "m")), "470.14", "11.4")
    said = remedy(replace(facts, host=replace(facts.host, wsl=True)), "DRV004")
    assert said.startswith(
        "install NVIDIA's newest driver in Windows (WSL2 shows 470.14); then: wsl.exe --shutdown"
    )


def test_in_a_container_the_images_distribution_says_nothing_of_the_hosts_driver(tmp_path: Path) -> None:
    said = remedy(inside(read(old_driver(tmp_path / "m")), "docker"), "DRV004")
    assert said.startswith("on the host of the docker container 3f2a9c01b7de, not in it: driver 470.256.02")
    assert "NVIDIA's driver 525.60.13 or newer, a reboot; then: docker restart 3f2a9c01b7de    # with" in said
    assert "ubuntu-drivers" not in said


@pytest.mark.parametrize("engine", ["", "kubernetes", "singularity"])
def test_a_clusters_administrator_is_told_node_versions_and_command(tmp_path: Path, engine: str) -> None:
    facts = read(old_driver(tmp_path / "m"))
    facts = inside(facts, engine) if engine else facts
    said = remedy(facts if engine == "kubernetes" else on_cluster(facts), "DRV004")
    assert said.startswith("tell the administrator: on ")
    assert ("train-7d9f-x2x" if engine == "kubernetes" else "gpu07") in said
    for number in ("470.256.02", "TensorFlow 2.21.0", "CUDA 12.5.1", "525.60.13"):
        assert number in said


def test_a_jetson_has_its_driver_from_jetpack(tmp_path: Path) -> None:
    machine = without_driver(tmp_path / "m").kernel("5.15.148-tegra")
    assert remedy(read(machine), "DRV001").startswith(
        "sudo apt-get install --reinstall nvidia-l4t-cuda    # of JetPack's"
    )
    docker = inside(read(machine.nodes().kernel_module("540.4.0")), "docker")
    assert remedy(docker, "HST005").startswith("docker run --runtime nvidia IMAGE ")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("debian", "sudo apt-get install --reinstall libcuda1"),
        ("fedora", "sudo dnf reinstall xorg-x11-drv-nvidia-cuda-libs"),
        ("opensuse", "sudo zypper install --force nvidia-compute-G06"),
        ("arch", "sudo pacman -S nvidia-utils"),
    ],
)
def test_the_other_half_of_a_driver_is_its_own_package(tmp_path: Path, name: str, command: str) -> None:
    facts = answering(read(without_driver(tmp_path / "m", name)), "550.54.14", "12.4")
    assert remedy(facts, "DRV001") == command
    podman = remedy(inside(facts, "podman"), "DRV001")
    assert "-e NVIDIA_DRIVER_CAPABILITIES=compute,utility IMAGE" in podman


# --- it is installed, and does not work ---------------------------------------------------------------


def unloaded(root: Path, name: str) -> Machine:
    machine = on(workstation(root), name).pci(driver="")
    shutil.rmtree(machine.path("/proc/driver"))
    shutil.rmtree(machine.path("/sys/module"))
    machine.path("/sys/module").mkdir()
    return machine


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("ubuntu", "sudo apt-get install linux-headers-6.8.0-45-generic && sudo dkms autoinstall"),
        ("fedora", "sudo akmods --force && sudo depmod -a"),
        ("rocky 9", "sudo dnf install kernel-devel-6.8.0-45-generic && sudo dkms autoinstall"),
        ("opensuse", "sudo zypper install --force nvidia-driver-G06-kmp-default"),
    ],
)
def test_a_module_that_is_not_loaded_is_loaded_else_built_for_this_kernel(
    tmp_path: Path, name: str, build: str
) -> None:
    said = remedy(read(unloaded(tmp_path / "m", name)), "DRV002")
    assert said == f"sudo modprobe nvidia    # if that fails: {build} && sudo modprobe nvidia"


def test_who_has_a_pod_has_no_root_on_its_node(tmp_path: Path) -> None:
    said = remedy(inside(read(unloaded(tmp_path / "m", "ubuntu")), "kubernetes"), "DRV002")
    assert said.startswith(
        "tell the administrator: on the node of pod train-7d9f-x2x, the driver's libraries "
    )
    assert "It needs: sudo modprobe nvidia (" in said


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("debian", "sudo update-initramfs -u"),
        ("rocky 9", "sudo dracut --force"),
        ("opensuse", "sudo dracut --force"),
        ("arch", "sudo mkinitcpio -P"),
    ],
)
def test_nouveau_is_kept_out_of_this_distributions_boot_image(tmp_path: Path, name: str, image: str) -> None:
    machine = unloaded(tmp_path / "m", name).file("/sys/module/nouveau/initstate", "live\n")
    said = remedy(read(machine), "DRV005")
    assert said.endswith(f"tee /etc/modprobe.d/blacklist-nouveau.conf && {image} && sudo reboot")


@pytest.mark.parametrize(
    ("engine", "command"),
    [
        ("docker", "docker restart 3f2a9c01b7de"),
        ("podman", "podman restart a1b2c3d4e5f6"),
        ("kubernetes", "kubectl delete pod train-7d9f-x2x"),
        ("lxc", "lxc restart box"),
    ],
)
def test_two_versions_in_a_container_are_cured_by_its_restart(
    tmp_path: Path, engine: str, command: str
) -> None:
    facts = inside(read(workstation(tmp_path / "m").kernel_module("550.54.15")), engine)
    assert remedy(facts, "DRV003").startswith(f"{command}    # outside the container; if it stays: ")


def test_a_container_with_a_host_name_of_its_own_is_not_called_by_it(tmp_path: Path) -> None:
    facts = inside(read(workstation(tmp_path / "m").kernel_module("550.54.15")), "docker", "notebook")
    assert remedy(facts, "DRV003").startswith("docker restart CONTAINER ")


def test_every_missing_node_is_made(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m").nodes(2, without=["nvidia0", "nvidia1", "nvidia-uvm"])
    machine.nodes(2, without=["nvidia1", "nvidia-uvm"])
    assert remedy(read(machine), "DRV007").startswith("sudo nvidia-modprobe -c 0 -u    # at every start: ")
    said = remedy(inside(read(machine), "docker"), "DRV007")
    assert said.startswith(
        "sudo nvidia-modprobe -c 0 -u    # on the host, not in the container; then: docker restart"
    )


def closed(facts: Facts, group: str) -> Facts:
    nodes = facts.driver.nodes
    assert not isinstance(nodes, Unavailable)
    shut = tuple(replace(n, readable=False, writable=False, mode="crw-rw----", group=group) for n in nodes)
    return replace(facts, driver=replace(facts.driver, nodes=shut))


def test_who_may_not_open_the_nodes_joins_their_group_as_the_engine_has_it(tmp_path: Path) -> None:
    facts = closed(read(workstation(tmp_path / "m")), "video")
    assert remedy(facts, "DRV008") == 'sudo usermod -aG video "$USER"    # then log in again'
    assert "--group-add video IMAGE" in remedy(inside(facts, "docker"), "DRV008")
    assert "--group-add keep-groups IMAGE" in remedy(inside(facts, "podman"), "DRV008")
    said = remedy(on_cluster(facts, {**SLURM, "USER": "ada"}), "DRV008")
    assert "on gpu07, this user may not open" in said
    assert "sudo usermod -aG video ada (then log in again)" in said
    assert remedy(closed(facts, "root"), "DRV008").startswith(
        "sudo chmod a+rw /dev/nvidia*    # lasting: echo "
    )


# --- cuInit -------------------------------------------------------------------------------------------


def test_every_error_of_cuinit_has_a_remedy(tmp_path: Path) -> None:
    facts = read(workstation(tmp_path / "m"))
    assert remedy(cuinit(facts, 100), "DRV009").startswith("sudo dmesg | grep ")
    listed = answering(facts, "550.54.14", "12.4")
    assert remedy(cuinit(listed, 100), "DRV009").startswith("env -u CUDA_VISIBLE_DEVICES ")
    reload = "sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm    # "
    assert remedy(cuinit(facts, 999), "DRV010").startswith(reload)
    in_wsl = replace(facts, host=replace(facts.host, wsl=True))
    assert remedy(cuinit(in_wsl, 999), "DRV010").startswith("wsl.exe --shutdown")


def test_the_fabric_manager_is_of_exactly_the_drivers_version(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m")
    said = remedy(cuinit(read(machine), 802), "DRV013")
    assert said == (
        "sudo systemctl enable --now nvidia-fabricmanager    # if it is missing: "
        "sudo apt-get install 'nvidia-fabricmanager-550=550.54.14-*'"
    )
    suse = remedy(cuinit(read(on(machine, "opensuse")), 802), "DRV013")
    assert "nvidia-fabricmanager-550=550.54.14" in suse


def test_a_compat_library_goes_the_way_it_came(tmp_path: Path) -> None:
    compat = "/usr/local/cuda-12.6/compat"
    machine = workstation(tmp_path / "m").user_libraries("560.35.05", directory=compat)
    machine.export(LD_LIBRARY_PATH=f"/opt/x:{compat}")
    assert remedy(cuinit(read(machine), 803), "DRV012") == "export LD_LIBRARY_PATH=/opt/x"
    facts = read(machine.export(LD_LIBRARY_PATH=compat))
    assert remedy(cuinit(facts, 804), "DRV012") == "unset LD_LIBRARY_PATH"
    by_cache = replace(facts, environment={})
    package = "cuda-compat-12-6 && sudo ldconfig"
    assert remedy(cuinit(by_cache, 804), "DRV012") == f"sudo apt-get remove {package}"
    assert remedy(cuinit(inside(by_cache, "docker"), 804), "DRV012") == f"sudo apt-get remove {package}"
    rocky = replace(by_cache, host=replace(by_cache.host, os_id="rocky", os_like=("rhel",)))
    assert remedy(cuinit(rocky, 804), "DRV012") == f"sudo dnf remove {package}"


# --- containers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("docker", "docker run --gpus all IMAGE    # on the host"),
        (
            "podman",
            (
                "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml && "
                "podman run --device nvidia.com/gpu=all IMAGE    # on the host"
            ),
        ),
        ("singularity", "singularity exec --nv IMAGE COMMAND    # on the host"),
        ("apptainer", "apptainer exec --nv IMAGE COMMAND    # on the host"),
        ("kubernetes", "put into the container's spec: resources: {limits: {nvidia.com/gpu: 1}}    # "),
        (
            "lxc",
            "lxc config device add box gpu gpu && lxc config set box nvidia.runtime=true && lxc restart box",
        ),
        ("systemd-nspawn", "systemd-nspawn --machine=box --boot --bind=/dev/nvidia0 "),
    ],
)
def test_each_engine_lets_the_gpu_in_by_a_command_of_its_own(tmp_path: Path, engine: str, said: str) -> None:
    facts = inside(read(without_driver(tmp_path / "m").kernel_module("550.54.14")), engine)
    assert remedy(facts, "HST005").startswith(said)
    assert remedy(facts, "DRV001") == remedy(facts, "HST005")
    withheld = replace(facts, environment={"NVIDIA_VISIBLE_DEVICES": "none"})
    assert remedy(withheld, "GPU002") == remedy(facts, "HST005")


def test_shared_memory_is_given_by_the_engine(tmp_path: Path) -> None:
    facts = read(workstation(tmp_path / "m").nodes(2))
    small = replace(facts, surroundings=replace(facts.surroundings, shm_bytes=64 << 20))
    said = remedy(inside(small, "docker"), "HST011")
    assert said.startswith("docker run --gpus all --shm-size=8g IMAGE    # ")
    assert "emptyDir: {medium: Memory}" in remedy(inside(small, "kubernetes"), "HST011")
    assert remedy(small, "HST011").startswith("sudo mount -o remount,size=50% /dev/shm")


def test_an_old_seccomp_profile_is_for_whoever_runs_the_host(tmp_path: Path) -> None:
    facts = read(workstation(tmp_path / "m"))
    surroundings = replace(facts.surroundings, seccomp=True, clone3="EPERM")
    facts = replace(facts, surroundings=surroundings, host=replace(facts.host, libc="glibc 2.39"))
    said = remedy(inside(facts, "docker"), "HST008")
    assert "It needs: Docker 20.10.10 or newer, and libseccomp 2.5 or newer" in said
    assert "docker run --gpus all --security-opt seccomp=unconfined IMAGE" in said


@pytest.mark.parametrize(
    ("name", "install"),
    [
        ("rocky 9", "sudo dnf install -y nvidia-container-toolkit"),
        ("amazon", "sudo dnf install -y nvidia-container-toolkit"),
        ("opensuse", "sudo zypper install -y nvidia-container-toolkit"),
        ("arch", "sudo pacman -S nvidia-container-toolkit"),
    ],
)
def test_the_container_toolkit_is_installed_by_this_distributions_command(
    tmp_path: Path, name: str, install: str
) -> None:
    machine = on(workstation(tmp_path / "m"), name).file("/usr/bin/dockerd", mode=0o755)
    assert remedy(read(machine), "HST006").startswith(f"{install} && sudo nvidia-ctk runtime configure ")


# --- no GPU, or none given ----------------------------------------------------------------------------


LOGIN = "    # on the login node, not inside a job; in a job's script: "


@pytest.mark.parametrize(
    ("variables", "command"),
    [
        (SLURM, f"srun --gres=gpu:1 --pty bash{LOGIN}#SBATCH --gres=gpu:1"),
        ({"PBS_JOBID": "8"}, f"qsub -I -l select=1:ngpus=1{LOGIN}#PBS -l select=1:ngpus=1"),
        ({"LSB_JOBID": "8"}, f"bsub -gpu num=1 -Is bash{LOGIN}#BSUB -gpu num=1"),
    ],
)
def test_a_scheduler_is_asked_for_a_gpu_in_its_own_words(
    tmp_path: Path, variables: dict[str, str], command: str
) -> None:
    machine = Machine(tmp_path / "m").os("rocky", "9.4", like="rhel").cpus(4).venv().tensorflow()
    facts = on_cluster(read(machine, gpu_required=True), variables)
    assert remedy(facts, "GPU001") == command
    assert remedy(facts, "DRV001") == command
    masked = on_cluster(read(workstation(tmp_path / "w")), {**variables, "CUDA_VISIBLE_DEVICES": ""})
    assert remedy(masked, "GPU002") == f"{command}; do not unset CUDA_VISIBLE_DEVICES"


def test_a_required_gpu_is_asked_of_whoever_gives_machines(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("ubuntu", "24.04").cpus(4).venv().tensorflow()
    facts = read(machine.file("/etc/hostname", "ws-14\n"), gpu_required=True)
    assert remedy(facts, "GPU001").startswith("run on a machine that has one: on ws-14 ")
    assert remedy(inside(facts, "docker"), "GPU001").startswith("docker run --gpus all IMAGE")
    guest = replace(
        facts, surroundings=replace(facts.surroundings, cpu_flags=frozenset({"avx", "hypervisor"}))
    )
    assert remedy(guest, "GPU001").startswith("give the virtual machine ws-14 a GPU (PCI passthrough")
    in_wsl = replace(facts, host=replace(facts.host, wsl=True))
    assert remedy(in_wsl, "GPU001").startswith("install NVIDIA's driver in Windows")


# --- the GPU itself -----------------------------------------------------------------------------------

XID_79 = GpuEvent(
    address="0000:01:00.0", xid=79, text="NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus."
)


def test_a_broken_gpu_of_a_cluster_is_reported_with_address_and_number(tmp_path: Path) -> None:
    facts = read(workstation(tmp_path / "m"))
    log = KernelLog(source="/var/log/kern.log", events=(XID_79,), complete=True)
    broken = replace(facts, driver=replace(facts.driver, kernel_log=log))
    assert remedy(broken, "GPU007").startswith("sudo reboot    # if it comes back: ")
    said = remedy(on_cluster(broken), "GPU007")
    assert said.startswith(
        "tell the administrator: on gpu07, GPU 0000:01:00.0: Xid 79, the GPU has fallen off"
    )


def test_memory_that_another_user_holds_is_asked_of_that_user(tmp_path: Path) -> None:
    holder = GpuProcess(pid=4242, name="python train.py", kind="compute", memory_bytes=20 << 30, user="ada")
    full = answering(
        read(workstation(tmp_path / "m")),
        "550.54.14",
        "12.4",
        memory_used_bytes=22 << 30,
        processes=(holder,),
    )
    assert remedy(full, "GPU006") == "kill 4242    # if it is yours: it is ada's"


def test_a_vgpu_without_unified_memory_is_for_the_hypervisors_administrator(tmp_path: Path) -> None:
    facts = answering(read(workstation(tmp_path / "m")), "550.54.14", "12.4", virtualization=2)
    seen = CudaDevice(
        name="GRID A100-10C", compute_capability="8.0", memory_bytes=10 << 30, virtual_memory=False
    )
    cuda = CudaDriver(version="12.4", simulated=True, devices=(seen,))
    said = remedy(replace(facts, driver=replace(facts.driver, cuda=cuda)), "GPU014")
    for word in ("tell the administrator", "GRID A100-10C", "enable_uvm=1"):
        assert word in said


# --- another release ----------------------------------------------------------------------------------


def of(facts: Facts, name: str) -> Framework:
    assert not isinstance(facts.frameworks, Unavailable)
    return next(f for f in facts.frameworks if f.name == name)


@pytest.mark.parametrize(
    ("capability", "python", "said"),
    [
        ("3.7", "3.11.9", "/opt/venv/bin/python -m pip install 'tensorflow[and-cuda]==2.14.1'    # "),
        ("5.2", "3.11.9", "/opt/venv/bin/python -m pip install 'tensorflow[and-cuda]==2.16.2'    # "),
        (
            "3.7",
            "3.13.1",
            "python3.11 -m venv ~/venv-tensorflow && ~/venv-tensorflow/bin/python -m pip install ",
        ),
        ("8.0", "3.9.18", "/opt/venv/bin/python -m pip install 'tensorflow[and-cuda]==2.20.0'    # "),
        ("12.0", "3.11.9", ""),
    ],
)
def test_the_newest_tensorflow_with_code_for_a_gpu_is_named(
    tmp_path: Path, capability: str, python: str, said: str
) -> None:
    facts = read(workstation(tmp_path / "m"))
    assert isinstance(facts.interpreter, Interpreter)
    facts = replace(facts, interpreter=replace(facts.interpreter, version=python))
    found = other_release_command(facts, of(facts, "tensorflow"), capability=capability)
    assert found.startswith(said)
    assert bool(found) == bool(said)
    if found:
        assert_runs_as_printed(found)


@pytest.mark.parametrize(
    ("capability", "driver", "release"),
    [("6.1", "550.54.14", "2.7.1"), ("12.0", "570.124.06", "2.10.0"), ("3.5", "550.54.14", "")],
)
def test_the_newest_pytorch_that_both_gpu_and_driver_take_is_named(
    tmp_path: Path, capability: str, driver: str, release: str
) -> None:
    machine = Machine(tmp_path / "m").os("ubuntu", "24.04").driver().venv()
    facts = read(eras.torch(machine, "2.12.1", "13.0"))
    found = other_release_command(facts, of(facts, "torch"), capability=capability, driver=driver)
    assert (f"torch=={release} " in found) if release else found == ""


def test_blackwell_without_any_tensorflow_is_sent_to_nvidias_container(tmp_path: Path) -> None:
    facts = answering(read(workstation(tmp_path / "m")), "580.95.05", "13.0", compute_capability="12.0")
    assert remedy(facts, "GPU005").startswith("use NVIDIA's container (NGC, tensorflow, tag 25.02-tf2-py3")


# --- environment modules ------------------------------------------------------------------------------


def of_2020(root: Path) -> Machine:
    machine = on(Machine(root), "opensuse").driver("440.33.01", supports="10.2").venv(version="3.7.9")
    return eras.tensorflow(machine, "2.1.4")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "module avail cuda    # then, by the name that it shows: module load cuda/10.1"),
        (
            {"LMOD_CMD": "/l"},
            "module spider cuda    # then, by the name that it shows: module load cuda/10.1",
        ),
        (
            {"LOADEDMODULES": "gcc/9:cuda/10.2"},
            "module avail cuda    # then, by the name that it shows: module switch cuda/10.2 cuda/10.1",
        ),
    ],
)
def test_where_modules_are_in_use_the_toolkit_is_one(
    tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    machine = of_2020(tmp_path / "m").export(MODULEPATH="/sw/modulefiles", **variables)
    assert remedy(read(machine), "LIB001") == said


def test_without_modules_the_packages_of_nvidias_repository_are_named(tmp_path: Path) -> None:
    said = remedy(read(of_2020(tmp_path / "m")), "LIB001")
    assert said.startswith("sudo zypper install cuda-cudart-10-1 ")
    assert said.endswith("# from NVIDIA's repository, the names follow its convention")


def test_a_module_whose_directory_shadows_the_wheel_is_unloaded(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m")
    machine.library("/sw/cuda/12.0/lib64/libcudart.so.12.0.107", "libcudart.so.12")
    machine.link("/sw/cuda/12.0/lib64/libcudart.so.12", "libcudart.so.12.0.107")
    machine.export(LD_LIBRARY_PATH="/sw/cuda/12.0/lib64", LOADEDMODULES="gcc/12:cuda/12.0")
    assert remedy(read(machine), "LIB004") == "unset LD_LIBRARY_PATH    # for good: module unload cuda/12.0"
