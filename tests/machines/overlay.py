"""Lay a simulated machine over this one: the program then reads ordinary paths and needs no --root.

In a private mount namespace an overlay joins this machine (below) with the machine's tree (above). Its
/proc, /sys and /dev entries are mounted over the kernel's own. Needs root; what is written inside stays in
the machine's tree. The driver inside is simulated, the C library, Python and TensorFlow are this machine's.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

from tests.machines.machine import CHECK_SECONDS, Checked, Machine, checked

# What of the kernel's own files a machine may have in its tree
_MOUNTED = (
    "proc/driver",
    "proc/modules",
    "proc/version",
    "proc/cpuinfo",
    "proc/sys/kernel/osrelease",
    "sys/bus/pci/devices",
    "sys/module",
    "sys/power",
    "sys/devices/system/cpu",
)
_SCRIPT = """
set -e
tree=$1 place=$2; shift 2
mkdir "$place/work" "$place/root" "$place/hidden"
mount -t tmpfs tmpfs "$place/hidden"  # layers of one file system may not lie within each other
mknod "$place/hidden/.dockerenv" c 0 0  # where this machine is a container, the simulated one is none
mount -t overlay overlay -o "lowerdir=$place/hidden:/,upperdir=$tree,workdir=$place/work" "$place/root"
cd "$place/root"
mount --rbind /proc proc
mount --rbind /sys sys
for entry in $MOUNTED; do
    [ ! -e "$tree/$entry" ] || [ ! -e "$entry" ] || mount --bind "$tree/$entry" "$entry"
done
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do cp -a "/dev/$node" dev/; done
mkdir dev/shm; mount -t tmpfs tmpfs dev/shm
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr
[ ! -d "$tree/dev" ] || cp -a "$tree/dev/." dev/
[ "$LDCONFIG" = no ] || chroot . "$(command -v ldconfig)"
drop=
[ "$CAPABILITIES" = yes ] || drop="setpriv --bounding-set=-all --inh-caps=-all"
exec chroot . $drop /usr/bin/env -i "$@"
"""


@functools.cache
def why_not() -> str:
    """Why no machine can be laid over this one; "" where it can. For pytest.mark.skipif."""
    if os.getuid() != 0:
        return "laying a machine over this one needs root"
    with tempfile.TemporaryDirectory() as directory:
        for name in ("up", "work", "root"):
            os.mkdir(f"{directory}/{name}")
        options = f"lowerdir=/,upperdir={directory}/up,workdir={directory}/work"
        command = ["unshare", "-m", "mount", "-t", "overlay", "overlay", "-o", options, f"{directory}/root"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"no overlay can be mounted here: {done.stderr.strip()}"


def run_inside(
    machine: Machine,
    argv: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    capabilities: bool = True,
    ldconfig: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run `argv` on the machine, after its ldconfig; `environment` adds to the machine's.

    Without `capabilities` it is run by a root who may only do what file modes let an owner do: other
    users can often not reach the Python that runs the tests.
    """
    variables = {**machine.environment, **(environment or {})}
    with tempfile.TemporaryDirectory(dir=machine.root.parent) as place:  # on the tree's own file system
        return subprocess.run(
            [
                *("unshare", "--mount", "sh", "-c", _SCRIPT, "overlay"),
                *(str(machine.root), place),
                *(f"{name}={value}" for name, value in variables.items()),
                *argv,
            ],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "MOUNTED": " ".join(_MOUNTED),
                "CAPABILITIES": "yes" if capabilities else "no",
                "LDCONFIG": "yes" if ldconfig else "no",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=CHECK_SECONDS,
        )


def check_inside(
    machine: Machine, *options: str, capabilities: bool = True, ldconfig: bool = True
) -> Checked:
    """`envdoctor check --json` run on the machine itself, its driver probed for real."""
    command = [sys.executable, "-m", "envdoctor", "check", "--json", *options]
    return checked(run_inside(machine, command, capabilities=capabilities, ldconfig=ldconfig))
