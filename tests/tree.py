"""What a directory tree looks like, so that two moments can be compared."""

from __future__ import annotations

import os
import stat
from pathlib import Path

Signature = dict[str, tuple[object, ...]]


def signature(top: Path) -> Signature:
    """Every name with its mode and owner; of files the inode, size and both times (a write changes ctime, and
    nothing can set that back); of links the target; of directories the time of the last change of a name.
    """
    found: Signature = {}
    for directory, names, files in os.walk(top):
        for name in [*names, *files, "."]:
            path = os.path.normpath(os.path.join(directory, name))
            status = os.lstat(path)
            common = (status.st_mode, status.st_uid, status.st_gid)
            if stat.S_ISLNK(status.st_mode):
                found[path] = (*common, os.readlink(path))
            elif stat.S_ISDIR(status.st_mode):
                found[path] = (*common, status.st_mtime_ns)
            else:
                found[path] = (*common, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found
