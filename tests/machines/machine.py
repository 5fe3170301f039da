"""A simulated machine: a directory tree that lacks only the silicon.

    machine = Machine(tmp_path / "machine")
    machine.os("ubuntu", "24.04").driver("550.54.14", supports="12.4", gpus=[RTX_4090])
    machine.venv().tensorflow("2.21.0").nvidia_wheels()
    assert machine.check().codes == ["LIB002"]

Paths are the machine's own. Every method adds to the tree and returns the machine; what a test then breaks,
it breaks with ordinary file operations on `machine.path(...)`.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.machines.compile import stub_library, stub_program
from tests.machines.drivers import RTX_4090, Pcie, SimulatedGpu, driver_libraries
from tests.machines.wheels import AND_CUDA, CAPABILITIES, CC_RUNPATH, FRAMEWORK_RUNPATH, WHEELS, Wheel
from tests.pasting import assert_runs_as_printed, is_command

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
# Major and minor; GPUs count from (195, 0). nvidia-uvm has a major of its own, given at load time.
NODES = {"nvidiactl": (195, 255), "nvidia-modeset": (195, 254), "nvidia-uvm": (511, 0)}
CHECK_SECONDS = 120


@dataclass(frozen=True)
class Checked:
    """What `envdoctor check --json` answered."""

    status: int
    report: dict[str, Any]
    stderr: str

    @property
    def codes(self) -> list[str]:
        return [finding["code"] for finding in self.report["findings"]]

    @property
    def causes(self) -> list[str]:
        """The codes of the findings that follow from no other."""
        return [finding["code"] for finding in self.report["findings"] if not finding["because"]]

    def finding(self, code: str) -> dict[str, Any]:
        return next(finding for finding in self.report["findings"] if finding["code"] == code)


class Machine:
    """A tree below `root`, and the environment of its user's shell."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        self.prefix = "/opt/venv"  # of the environment that venv() made last
        for directory in ("dev", "etc", "proc", "sys/bus/pci/devices", "sys/module", "usr/lib", "usr/bin"):
            (root / directory).mkdir(parents=True, exist_ok=True)

    # --- files --------------------------------------------------------------------------------------

    def path(self, path: str) -> Path:
        """Where the machine's `path` lies on this machine."""
        return self.root / path.lstrip("/")

    def file(self, path: str, content: str | bytes = "", *, mode: int = 0o644) -> Machine:
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        file.chmod(mode)
        return self

    def link(self, path: str, target: str) -> Machine:
        link = self.path(path)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        return self

    def hide(self, path: str) -> Machine:
        """What this machine has there is not there for run_inside: an overlay's whiteout (needs root)."""
        self.path(path).parent.mkdir(parents=True, exist_ok=True)
        os.mknod(self.path(path), stat.S_IFCHR, os.makedev(0, 0))
        return self

    def library(
        self,
        path: str,
        soname: str = "",
        *,
        needed: Sequence[str] = (),
        runpath: str = "",
        rpath: bool = False,
        symbols: Sequence[str] = (),
    ) -> Machine:
        """A library that can really be loaded; its SONAME is the file's name unless given."""
        stub_library(self.path(path), soname, needed=needed, runpath=runpath, rpath=rpath, symbols=symbols)
        return self

    def export(self, **variables: str) -> Machine:
        self.environment.update(variables)
        return self

    # --- the system ---------------------------------------------------------------------------------

    def os(self, name: str, version: str, *, like: str = "debian") -> Machine:
        return self.file(
            "/etc/os-release",
            f'PRETTY_NAME="{name.title()} {version}"\nID={name}\nID_LIKE="{like}"\nVERSION_ID="{version}"\n',
        )

    def kernel(self, release: str) -> Machine:
        self.file("/proc/sys/kernel/osrelease", release + "\n")
        return self.file("/proc/version", f"Linux version {release} (builder@host) (gcc) #1 SMP\n")

    def cpus(
        self,
        cores: int,
        *,
        threads: int = 1,
        model: str = "AMD EPYC 9654",
        quota: float = 0,
        flags: str = "fpu sse sse2 avx avx2",
    ) -> Machine:
        """Processors, and a cgroup v2 that grants `quota` of them (0: no limit)."""
        logical = cores * threads
        self.file(
            "/proc/cpuinfo",
            "".join(
                f"processor\t: {i}\nmodel name\t: {model}\nflags\t\t: {flags}\n\n" for i in range(logical)
            ),
        )
        base = "/sys/devices/system/cpu"
        self.file(f"{base}/online", f"0-{logical - 1}\n")
        for cpu in range(logical):
            siblings = ",".join(str(s) for s in range(cpu % cores, logical, cores))
            self.file(f"{base}/cpu{cpu}/topology/thread_siblings_list", siblings + "\n")
        self.file("/proc/self/cgroup", "0::/user.slice\n")
        self.file("/proc/self/mountinfo", "31 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n")
        limit = str(int(quota * 100_000)) if quota else "max"
        return self.file("/sys/fs/cgroup/user.slice/cpu.max", f"{limit} 100000\n")

    def ldconfig(self) -> Machine:
        """Write /etc/ld.so.cache as the machine's own ldconfig would (needs root: it calls chroot)."""
        subprocess.run(["ldconfig", "-r", self.root], check=True)
        return self

    # --- the driver ---------------------------------------------------------------------------------

    def driver(
        self,
        version: str = "550.54.14",
        *,
        supports: str = "12.4",
        gpus: Sequence[SimulatedGpu] = (RTX_4090,),
        nvml: int | str = 0,
        cuda: int | str = 0,
        directory: str = LIBRARIES,
    ) -> Machine:
        """A whole driver. Its parts can be had alone: user_libraries, kernel_module, pci, nodes."""
        self.user_libraries(version, supports=supports, gpus=gpus, nvml=nvml, cuda=cuda, directory=directory)
        return self.kernel_module(version).pci(gpus).nodes(len(gpus))

    def user_libraries(
        self,
        version: str,
        *,
        supports: str = "12.4",
        gpus: Sequence[SimulatedGpu] = (RTX_4090,),
        nvml: int | str = 0,
        cuda: int | str = 0,
        directory: str = LIBRARIES,
    ) -> Machine:
        """libcuda and libnvidia-ml; see driver_libraries() for `nvml` and `cuda`."""
        driver_libraries(self.path(directory), version, supports=supports, gpus=gpus, nvml=nvml, cuda=cuda)
        return self

    def kernel_module(self, version: str, *, open_module: bool = False) -> Machine:
        kind = "Open Kernel Module for x86_64" if open_module else "x86_64 Kernel Module"
        self.file(
            "/proc/driver/nvidia/version",
            f"NVRM version: NVIDIA UNIX {kind}  {version}  Thu Feb 22 01:44:30 UTC 2024\n"
            "GCC version:  gcc version 13.2.0 (Ubuntu 13.2.0-23ubuntu4)\n",
        )
        for module in ("nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_drm"):
            self.file(f"/sys/module/{module}/initstate", "live\n")
        return self

    def pci(self, gpus: Sequence[SimulatedGpu] = (RTX_4090,), *, driver: str = "nvidia") -> Machine:
        """The GPUs on the bus, bound to `driver` ("" for none), beside a display of another make."""
        self._pci_device("0000:00:02.0", "0x8086", "0x030000", "0x46a6", "i915")
        for index, gpu in enumerate(gpus):
            self._pci_device(gpu.at(index).pci, "0x10de", "0x030000", gpu.device_id, driver)
            self._pcie_link(gpu.at(index).pci, f"0000:00:1c.{index}", gpu.pcie)
        return self

    def _pcie_link(self, address: str, port: str, link: Pcie) -> None:
        """The GPU's directory lies in that of the port that it hangs on, as in /sys/devices."""
        base, speeds = "/sys/bus/pci/devices", ["Unknown", "2.5", "5.0", "8.0", "16.0", "32.0", "64.0"]
        if link.port != (0, 0) and not self.path(f"{base}/{address}").is_symlink():
            self._pci_device(port, "0x8086", "0x060400", "0x460d", "pcieport")
            self.path(f"{base}/{address}").rename(self.path(f"{base}/{port}/{address}"))
            self.link(f"{base}/{address}", f"{port}/{address}")
        rows = [(address, "current", link.now), (address, "max", link.gpu), (port, "max", link.port)]
        for device, which, (width, generation) in rows if link.port != (0, 0) else rows[:2]:
            self.file(f"{base}/{device}/{which}_link_width", f"{width}\n")
            speed = f"{speeds[generation]} GT/s PCIe" if generation else speeds[0]
            self.file(f"{base}/{device}/{which}_link_speed", speed + "\n")

    def kernel_log(self, *lines: str, path: str = "/var/log/kern.log") -> Machine:
        """Lines of the driver's, as the log daemon writes them after a boot."""
        before = "Nov 21 08:00:00 ws-14 kernel: [    0.000000] Linux version 6.8.0-45-generic (gcc) #1 SMP"
        stamped = [f"Nov 22 03:49:01 ws-14 kernel: [ 9876.5] {line}" for line in lines]
        return self.file(path, "\n".join([before, *stamped]) + "\n", mode=0o640)

    def _pci_device(self, address: str, vendor: str, kind: str, device: str, driver: str) -> None:
        base = f"/sys/bus/pci/devices/{address}"
        self.file(f"{base}/vendor", vendor + "\n").file(f"{base}/class", kind + "\n")
        self.file(f"{base}/device", device + "\n")
        if driver:
            self.link(f"{base}/driver", f"../../drivers/{driver}")

    def nodes(
        self, gpus: int = 1, *, mode: int = 0o666, owner: int | None = None, without: Iterable[str] = ()
    ) -> Machine:
        """The device nodes; plain files where this user may make no others. `owner` needs root."""
        numbers = {f"nvidia{index}": (195, index) for index in range(gpus)} | NODES
        for name, number in numbers.items():
            node = self.path(f"/dev/{name}")
            node.unlink(missing_ok=True)
            if name in without:
                continue
            try:
                os.mknod(node, stat.S_IFCHR, os.makedev(*number))
            except PermissionError:
                node.touch()
            node.chmod(mode)
            if owner is not None:
                os.chown(node, owner, owner)
        return self

    # --- Python -------------------------------------------------------------------------------------

    @property
    def python(self) -> str:
        return f"{self.prefix}/bin/python"

    @property
    def site_packages(self) -> str:
        return (
            next(self.path(self.prefix).glob("lib/python3*/site-packages"))
            .as_posix()
            .removeprefix(self.root.as_posix())
        )

    def venv(self, prefix: str = "/opt/venv", *, version: str = "3.11.9") -> Machine:
        """A virtual environment, active in the shell. Its interpreter starts nothing."""
        minor = ".".join(version.split(".")[:2])
        base = f"/usr/bin/python{minor}"
        if not self.path(base).exists():
            stub_program(self.path(base))
        self.prefix = prefix
        self.path(f"{prefix}/lib/python{minor}/site-packages").mkdir(parents=True)
        self.file(
            f"{prefix}/pyvenv.cfg",
            f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}\n",
        )
        self.file(f"{prefix}/bin/activate", "# This file must be used with 'source bin/activate'\n")
        self.link(f"{prefix}/bin/python", base)
        return self.export(VIRTUAL_ENV=prefix)

    def real_environment(self, prefix: Path) -> Machine:
        """A real environment of this machine, for run_inside; stubs stand for the CUDA wheels it lacks."""
        prefix = prefix.resolve()  # a directory laid over a link would hide it
        site_packages = next(prefix.glob("lib/python3*/site-packages"))
        self.prefix = str(prefix)
        self.path(str(site_packages)).mkdir(parents=True)
        for name in WHEELS:
            if not (site_packages / "nvidia" / name).exists():
                self.nvidia_wheel(name)
        return self.export(VIRTUAL_ENV=self.prefix)

    def distribution(self, name: str, version: str, requires: Sequence[str] = ()) -> Machine:
        """A wheel's METADATA, as pip leaves it in site-packages."""
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        directory = f"{self.site_packages}/{name.replace('-', '_')}-{version}.dist-info"
        self.file(f"{directory}/INSTALLER", "pip\n")
        return self.file(f"{directory}/METADATA", "\n".join(lines) + "\n\n# Summary\n")

    def tensorflow(
        self,
        version: str = "2.21.0",
        *,
        distribution: str = "tensorflow",
        cuda: str = "12.5.1",
        cudnn: str = "9",
        capabilities: Sequence[str] = CAPABILITIES,
        runpath: str = FRAMEWORK_RUNPATH,
        requires: Sequence[str] = AND_CUDA,
    ) -> Machine:
        """TensorFlow's package: its metadata, build_info.py and the libraries that load CUDA.

        With `cuda=""` it is a CPU build. The ELF headers and the RUNPATH are those of 2.21's wheel.
        """
        package = f"{self.site_packages}/tensorflow"
        build = [("is_cuda_build", bool(cuda)), ("is_rocm_build", False)]
        values: list[tuple[str, object]] = [("cpu_compiler", "clang"), *build]
        if cuda:
            values[1:1] = [
                ("cuda_compute_capabilities", list(capabilities)),
                ("cuda_version", cuda),
                ("cudnn_version", cudnn),
            ]
        self.distribution(distribution, version, requires if cuda else ())
        self.file(f"{package}/__init__.py", f"__version__ = {version!r}\n")
        self.file(
            f"{package}/python/platform/build_info.py",
            f"import collections\n\nbuild_info = collections.OrderedDict({values!r})\n",
        )
        self.library(f"{package}/libtensorflow_framework.so.2", runpath=runpath if cuda else "")
        return self.library(
            f"{package}/libtensorflow_cc.so.2",
            needed=["libtensorflow_framework.so.2"],
            runpath=CC_RUNPATH if cuda else "$ORIGIN/",
        )

    def nvidia_wheels(self, *, without: Iterable[str] = ()) -> Machine:
        """All that `pip install 'tensorflow[and-cuda]==2.21.0'` installs, but for what is named."""
        for name in sorted(WHEELS.keys() - set(without)):
            self.nvidia_wheel(name)
        return self

    def nvidia_wheel(self, name: str, version: str = "") -> Machine:
        """One of WHEELS ("cusolver"), at its real version unless told otherwise."""
        wheel = WHEELS[name]
        self.distribution(f"nvidia-{name.replace('_', '-')}-cu12", version or wheel.version)
        write_wheel(self.path(self.site_packages), name, wheel)
        return self

    def compiler(self, directory: str, version: str = "") -> Machine:
        """ptxas and libdevice in a toolkit's directory; its version.json, where a version is given."""
        cuda_compiler(self.path(directory))
        if version:
            component = {"name": "CUDA NVCC", "version": version}
            self.file(f"{directory}/version.json", json.dumps({"cuda_nvcc": component}))
        return self

    # --- envdoctor ----------------------------------------------------------------------------------

    def check(self, *options: str) -> Checked:
        """Run `envdoctor check --json --root <this tree>` for the venv, where there is one."""
        python = ["--python", self.python] if os.path.lexists(self.path(self.python)) else []
        command = [
            sys.executable,
            "-m",
            "envdoctor",
            "check",
            "--json",
            "--root",
            str(self.root),
            *python,
            *options,
        ]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=CHECK_SECONDS
        )
        return checked(done)


def checked(done: subprocess.CompletedProcess[str]) -> Checked:
    """A finished `check --json`; AssertionError with what it said, where it gave no report.

    On every machine that any test makes, the remedies can be pasted.
    """
    assert done.stdout, f"no report; exit status {done.returncode}: {done.stderr}"
    report = json.loads(done.stdout)
    for finding in report["findings"]:
        if is_command(finding["remedy"]):
            assert_runs_as_printed(finding["remedy"])
    return Checked(done.returncode, report, done.stderr)


def write_wheel(site_packages: Path, name: str, wheel: Wheel) -> None:
    """The libraries of an NVIDIA wheel, also for a real environment that lacks the big real ones."""
    directory = site_packages / "nvidia" / name / "lib"
    directory.mkdir(parents=True, exist_ok=True)
    for soname, library in wheel.libraries.items():
        stub_library(
            directory / soname,
            needed=library.needed,
            runpath=library.runpath,
            source=library.source,
            rpath=library.rpath,
        )
    if name == "cuda_nvcc":
        cuda_compiler(directory.parent)


def cuda_compiler(directory: Path) -> None:
    """What XLA takes from a toolkit or from the wheel nvidia-cuda-nvcc: ptxas and libdevice."""
    stub_program(directory / "bin" / "ptxas")
    libdevice = directory / "nvvm" / "libdevice" / "libdevice.10.bc"
    libdevice.parent.mkdir(parents=True, exist_ok=True)
    libdevice.write_bytes(b"BC\xc0\xde")  # LLVM bitcode's magic number
