"""The host's facts, on fixture trees as distributions, containers and kernels leave them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from envdoctor.facts.host import cgroup_directories, cpu_model, gather_host
from envdoctor.facts.model import Host, Unavailable
from envdoctor.facts.root import Root
from tests.machines.machine import Machine

V2_MOUNT = "31 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")


def seen(machine: Machine) -> Host:
    return gather_host(Root(str(machine.root)))


# --- the operating system ---------------------------------------------------------------------------


def test_os_release_is_read_as_a_shell_would(machine: Machine) -> None:
    host = seen(
        machine.file(
            "/etc/os-release",
            '# a comment\nPRETTY_NAME="openSUSE \\"Leap\\" 15.6"\nID=opensuse-leap\n'
            "ID_LIKE='suse opensuse'\nVERSION_ID=\"15.6\"\n\nnonsense\n",
        )
    )
    assert (host.os_name, host.os_id, host.os_version) == ('openSUSE "Leap" 15.6', "opensuse-leap", "15.6")
    assert host.os_like == ("suse", "opensuse")


def test_os_release_of_the_vendor_serves_where_etc_has_none(machine: Machine) -> None:
    assert seen(machine.file("/usr/lib/os-release", "NAME=Arch\nID=arch\n")).os_name == "Arch"


def test_os_release_that_is_a_link_stays_inside_the_root(machine: Machine) -> None:
    machine.file("/usr/lib/os-release", "ID=debian\n").link("/etc/os-release", "/usr/lib/os-release")
    assert seen(machine).os_id == "debian"


def test_empty_tree_says_nothing_and_raises_nothing(tmp_path: Path) -> None:
    host = gather_host(Root(str(tmp_path)))
    assert (host.os_name, host.os_id, host.kernel, host.container, host.wsl) == ("", "", "", "", False)
    for fact in (host.libc, host.cpu.logical, host.cpu.physical, host.cpu.affinity, host.cpu.quota):
        assert isinstance(fact, Unavailable)
        assert fact.reason


def test_directories_in_place_of_files_raise_nothing(machine: Machine) -> None:
    for path in ("/etc/os-release", "/proc/cpuinfo", "/proc/self/cgroup", "/proc/version"):
        machine.path(path).mkdir(parents=True)
    machine.link("/.dockerenv", ".dockerenv").link("/run/WSL", "/run/WSL")
    host = seen(machine)
    assert (host.container, host.wsl) == ("", False)
    assert isinstance(host.cpu.quota, Unavailable)


def test_live_host_is_complete() -> None:
    host = gather_host(Root())
    assert host.hostname == os.uname().nodename
    assert host.machine == os.uname().machine
    assert host.os_id
    assert host.kernel
    assert not isinstance(host.libc, Unavailable)
    assert host.cpu.affinity == len(os.sched_getaffinity(0))
    assert isinstance(host.cpu.logical, int)
    assert isinstance(host.cpu.physical, int)
    assert 1 <= host.cpu.physical <= host.cpu.logical
    assert not isinstance(host.cpu.quota, Unavailable)


@pytest.mark.parametrize(
    ("loader", "machine_name"),
    [
        ("/lib64/ld-linux-x86-64.so.2", "x86_64"),
        ("/lib/ld-linux-aarch64.so.1", "aarch64"),
        ("/lib64/ld64.so.2", "ppc64le"),
        ("/lib/ld-musl-x86_64.so.1", "x86_64"),
    ],
)
def test_machine_is_told_by_its_loader(machine: Machine, loader: str, machine_name: str) -> None:
    assert seen(machine.file(loader)).machine == machine_name


@pytest.mark.parametrize("directory", ["/lib64", "/usr/lib", "/lib/x86_64-linux-gnu"])
def test_glibc_is_read_from_its_banner(machine: Machine, directory: str) -> None:
    banner = b"\x7fELF...\0GNU C Library (Ubuntu GLIBC 2.39-0ubuntu8) stable release version 2.39.\n\0"
    assert seen(machine.file(f"{directory}/libc.so.6", banner)).libc == "glibc 2.39"


def test_musl_is_told_by_its_loader(machine: Machine) -> None:
    assert seen(machine.file("/lib/ld-musl-x86_64.so.1")).libc == "musl"


# --- containers and WSL -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "content", "container"),
    [
        ("/.dockerenv", "", "docker"),
        ("/run/.containerenv", 'engine="podman-4.9.3"\n', "podman"),
        ("/.singularity.d/runscript", "", "singularity"),
        ("/run/systemd/container", "lxc\n", "lxc"),
        ("/proc/1/environ", "TERM=linux\0container=systemd-nspawn\0", "systemd-nspawn"),
        ("/proc/self/cgroup", "12:cpu,cpuacct:/docker/0123456789abcdef\n", "docker"),
        ("/proc/self/cgroup", "0::/kubepods.slice/kubepods-pod1.slice/cri-1.scope\n", "kubernetes"),
        ("/proc/self/cgroup", "0::/machine.slice/libpod-0123456789abcdef.scope\n", "podman"),
        ("/proc/self/cgroup", "0::/lxc.payload.web/init.scope\n", "lxc"),
        ("/proc/self/cgroup", "0::/system.slice/docker.service\n", ""),
        ("/proc/self/cgroup", "0::/user.slice/user-1000.slice/session-2.scope\n", ""),
    ],
)
def test_container_is_told_by_what_its_engine_leaves_inside(
    machine: Machine, path: str, content: str, container: str
) -> None:
    assert seen(machine.file(path, content)).container == container


@pytest.mark.parametrize(
    ("kernel", "wsl"),
    [
        ("5.15.153.1-microsoft-standard-WSL2", True),
        ("4.4.0-19041-Microsoft", True),
        ("6.8.0-45-generic", False),
        ("6.5.0-1018-azure", False),
    ],
)
def test_wsl_is_told_by_its_kernel(machine: Machine, kernel: str, wsl: bool) -> None:
    host = seen(machine.kernel(kernel))
    assert (host.kernel, host.wsl) == (kernel, wsl)


def test_kernel_built_by_microsofts_linux_is_not_wsl(machine: Machine) -> None:
    text = "Linux version 5.15.158.2 (builder@microsoft.com) (gcc 11) #1 SMP\n"
    assert not seen(machine.file("/proc/version", text)).wsl


def test_wsl_with_a_kernel_of_ones_own_is_told_by_interop(machine: Machine) -> None:
    machine.kernel("6.6.36-mine").file("/proc/sys/fs/binfmt_misc/WSLInterop")
    assert seen(machine).wsl


# --- processors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "model"),
    [
        (
            "processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC 9654\nmodel name\t: other\n",
            "AMD EPYC 9654",
        ),
        ("processor\t: 0\ncpu\t\t: POWER9, altivec supported\n", "POWER9, altivec supported"),
        ("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n", "ARM implementer 0x41 part 0xd40"),
        ("processor\t: 0\nCPU part\t: 0xd08\nModel\t\t: Raspberry Pi 4 Model B\n", "Raspberry Pi 4 Model B"),
        ("", ""),
    ],
)
def test_processor_is_named_by_what_is_there(text: str, model: str) -> None:
    assert cpu_model(text) == model


def test_threads_of_a_core_are_counted_once(machine: Machine) -> None:
    cpu = seen(machine.cpus(4, threads=2)).cpu
    assert (cpu.logical, cpu.physical, cpu.quota) == (8, 4, None)
    assert cpu.model == "AMD EPYC 9654"


def test_processors_that_are_off_line_do_not_count(machine: Machine) -> None:
    assert seen(machine.file("/sys/devices/system/cpu/online", "0-3,8,10-11\n")).cpu.logical == 7


# --- the cgroup's quota -----------------------------------------------------------------------------


def quota(machine: Machine, cgroup: str, mountinfo: str, files: dict[str, str]) -> float | Unavailable | None:
    machine.file("/proc/self/cgroup", cgroup).file("/proc/self/mountinfo", mountinfo)
    for path, content in files.items():
        machine.file(path, content)
    return seen(machine).cpu.quota


def test_cgroup_v2_in_a_container_has_its_limit_at_the_mount(machine: Machine) -> None:
    assert quota(machine, "0::/\n", V2_MOUNT, {"/sys/fs/cgroup/cpu.max": "150000 100000\n"}) == 1.5


def test_tightest_limit_of_the_ancestors_counts(machine: Machine) -> None:
    files = {
        "/sys/fs/cgroup/a.slice/cpu.max": "200000 100000\n",
        "/sys/fs/cgroup/a.slice/b.slice/cpu.max": "max 100000\n",
        "/sys/fs/cgroup/a.slice/b.slice/c.scope/cpu.max": "400000 100000\n",
        "/sys/fs/cgroup/other.slice/cpu.max": "10000 100000\n",
    }
    assert quota(machine, "0::/a.slice/b.slice/c.scope\n", V2_MOUNT, files) == 2.0


def test_cgroup_without_a_limit_has_none(machine: Machine) -> None:
    files = {"/sys/fs/cgroup/user.slice/cpu.max": "max 100000\n"}
    assert quota(machine, "0::/user.slice\n", V2_MOUNT, files) is None


def test_cgroup_v1_is_read_from_its_own_hierarchy(machine: Machine) -> None:
    mountinfo = (
        "34 31 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
        "35 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    )
    files = {
        "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "50000\n",
        "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
        "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    assert quota(machine, "4:cpuset:/\n3:cpu,cpuacct:/job\n", mountinfo, files) == 0.5


def test_container_that_sees_only_its_part_of_the_hierarchy() -> None:
    mountinfo = "40 31 0:30 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n"
    assert cgroup_directories("3:cpu:/docker/abc\n", mountinfo, "cpu") == [("/sys/fs/cgroup/cpu", 1)]
    assert cgroup_directories("3:cpu:/docker/abc/job\n", mountinfo, "cpu") == [
        ("/sys/fs/cgroup/cpu/job", 1),
        ("/sys/fs/cgroup/cpu", 1),
    ]
    assert cgroup_directories("3:cpu:/docker/abcdef\n", mountinfo, "cpu") == [("/sys/fs/cgroup/cpu", 1)]


def test_cgroup_outside_the_namespace_is_read_at_the_mount() -> None:
    assert cgroup_directories("0::/../../other\n", V2_MOUNT, "cpu")[-1] == ("/sys/fs/cgroup", 2)


def test_hybrid_hierarchy_is_read_in_both_versions() -> None:
    mountinfo = (
        "35 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    )
    assert cgroup_directories("1:cpu:/\n0::/\n", mountinfo, "cpu") == [
        ("/sys/fs/cgroup/cpu", 1),
        ("/sys/fs/cgroup/unified", 2),
    ]


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "limit"),
    [
        ("nonsense\n", V2_MOUNT, "max 100000"),
        ("0::/\n", V2_MOUNT, "much 100000"),
        ("0::/\n", V2_MOUNT, "100000 0"),
    ],
)
def test_limit_that_makes_no_sense_is_unavailable(
    machine: Machine, cgroup: str, mountinfo: str, limit: str
) -> None:
    assert isinstance(quota(machine, cgroup, mountinfo, {"/sys/fs/cgroup/cpu.max": limit}), Unavailable)


def test_mountinfo_that_makes_no_sense_gives_no_directory() -> None:
    assert cgroup_directories("0::/\n", "x - cgroup2\n\n - \nab cd\n", "cpu") == []


@pytest.mark.skipif(
    os.getuid() != 0 or not os.access("/sys/fs/cgroup/cpu", os.W_OK), reason="needs a writable cgroup v1"
)
def test_real_cgroup_limits_a_process() -> None:
    group = Path("/sys/fs/cgroup/cpu/envdoctor-test")
    script = """
from envdoctor.facts.host import gather_host
from envdoctor.facts.root import Root
print(gather_host(Root()).cpu.quota)
"""
    group.mkdir(exist_ok=True)
    try:
        (group / "cpu.cfs_quota_us").write_text("150000")
        inside = f'echo $$ > {group}/cgroup.procs; exec "$@"'
        done = subprocess.run(
            ["/bin/sh", "-c", inside, "sh", sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "1.5\n"
    finally:
        group.rmdir()
