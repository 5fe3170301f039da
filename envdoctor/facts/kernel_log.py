"""What the kernel log of this boot says of the GPUs: the driver's Xid lines and failures to bring one up.

/dev/kmsg is the log itself; where this user may not read it (kernel.dmesg_restrict), the files that a log
daemon keeps. Both are read within bounds of size and time.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable

from envdoctor.facts.model_gpu import GpuEvent, KernelLog
from envdoctor.facts.root import Root
from envdoctor.facts.unavailable import Unavailable

DEVICE = "/dev/kmsg"
FILES = ("/var/log/kern.log", "/var/log/messages", "/var/log/dmesg")
SECONDS = 0.05
TAIL_BYTES = 1 << 20
_RECORD_BYTES = 8192  # a record of /dev/kmsg is never longer (kernel: CONSOLE_EXT_LOG_MAX)
_ADDRESS = r"(?P<address>[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2})(?:\.\d)?"
_XID = re.compile(rf"NVRM: Xid \((?:PCI:)?{_ADDRESS}\): (?P<xid>\d+)")
_FAULT = re.compile(
    rf"NVRM: (?:GPU (?:at )?(?:PCI:)?{_ADDRESS}: )?.*(?:RmInitAdapter failed|fallen off the bus)"
)
_BOOT = "Linux version "  # the first line of every boot


def read_kernel_log(root: Root) -> KernelLog | Unavailable:
    """The GPUs' events of this boot, from the first source that can be read."""
    reasons = []
    if root.is_live:
        try:
            lines, complete = _records()
            return KernelLog(source=DEVICE, events=parse_events(lines), complete=complete)
        except OSError as error:
            reasons.append(f"{DEVICE}: {error.strerror}")
    for path in FILES:
        try:
            lines, complete = _this_boot(root, path)
        except OSError as error:
            reasons.append(f"{path}: {error.strerror}")
            continue
        return KernelLog(source=path, events=parse_events(lines), complete=complete)
    return Unavailable("no kernel log can be read: " + "; ".join(reasons))


def parse_events(lines: Iterable[str]) -> tuple[GpuEvent, ...]:
    """Of every GPU the last line of each kind, in the order of the log."""
    events: dict[tuple[str, int | None], GpuEvent] = {}
    for line in lines:
        at = line.find("NVRM: ")
        if at < 0:
            continue
        found = _XID.search(line) or _FAULT.search(line)
        if found:
            address = f"{found['address'].lower()}.0" if found["address"] else ""
            xid = int(found["xid"]) if "xid" in found.groupdict() else None
            events.pop((address, xid), None)
            events[address, xid] = GpuEvent(address=address, xid=xid, text=line[at:].strip()[:300])
    return tuple(events.values())


def _records() -> tuple[list[str], bool]:
    """The lines of /dev/kmsg: each read(2) gives one record, "level,number,time,flags;text"."""
    device = os.open(DEVICE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    lines: list[str] = []
    until = time.monotonic() + SECONDS
    try:
        while time.monotonic() < until:
            try:
                record = os.read(device, _RECORD_BYTES)
            except BlockingIOError:
                return lines, True
            except BrokenPipeError:  # records were overwritten meanwhile; reading goes on after them
                continue
            if not record:
                return lines, True
            if b"NVRM: " in record:
                lines.append(record.partition(b";")[2].partition(b"\n")[0].decode("utf-8", "replace"))
    finally:
        os.close(device)
    return lines, False


def _this_boot(root: Root, path: str) -> tuple[list[str], bool]:
    """The lines of a log file that come after its last boot; files go back for days."""
    size = root.stat(path).st_size
    with open(root.host(path), "rb") as file:
        file.seek(max(0, size - TAIL_BYTES))
        lines = file.read(TAIL_BYTES).decode("utf-8", "replace").splitlines()
    boots = [number for number, line in enumerate(lines) if _BOOT in line]
    return lines[boots[-1] if boots else 0 :], bool(boots) or size <= TAIL_BYTES
