"""Reading a target's file system below a root, with its links resolved as a chroot would resolve them."""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass

MAX_LINKS = 40  # as Linux: more is ELOOP (path_resolution(7))


@dataclass(frozen=True)
class Root:
    """`Root("/")` is this machine; any other directory is the root of a tree to be judged.

    Paths that go in and come out are the target's own ("/usr/lib/libcuda.so.1"). Only `host` gives
    the path on this machine. All methods raise OSError like the os functions they stand for.
    """

    directory: str = "/"

    @property
    def is_live(self) -> bool:
        return self.directory == "/"

    def host(self, path: str, *, follow: bool = True) -> str:
        """The path on this machine for a target's path; links are followed inside the root."""
        if self.is_live:
            return path
        if follow:
            path = self.realpath(path)
        else:
            parent, name = posixpath.split(path)
            path = posixpath.join(self.realpath(parent), name)
        return self.directory.rstrip("/") + path

    def realpath(self, path: str) -> str:
        """`path` with every link followed; a missing tail is kept as it is. OSError(ELOOP) on a loop."""
        if not self.is_live:
            return self._realpath_below(path)
        try:
            return _kernels_path(path)
        except OSError:
            pass
        try:
            return os.path.realpath(path, strict=True)
        except FileNotFoundError:
            return os.path.realpath(path)

    def _realpath_below(self, path: str) -> str:
        todo = [part for part in reversed(path.split("/")) if part]
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part == ".":
                continue
            if part == "..":
                if done:
                    done.pop()
                continue
            here = "/".join([self.directory.rstrip("/"), *done, part])
            try:
                target = os.readlink(here)
            except OSError:
                done.append(part)
                continue
            links += 1
            if links > MAX_LINKS:
                raise OSError(40, os.strerror(40), path)
            if target.startswith("/"):
                done = []
            todo.extend(p for p in reversed(target.split("/")) if p)
        return "/" + "/".join(done)

    def read_bytes(self, path: str, limit: int = 64 << 20) -> bytes:
        with open(self.host(path), "rb") as file:
            return file.read(limit)

    def read_text(self, path: str) -> str:
        return self.read_bytes(path).decode("utf-8", "replace")

    def listdir(self, path: str) -> list[str]:
        return os.listdir(self.host(path))

    def readlink(self, path: str) -> str:
        return os.readlink(self.host(path, follow=False))

    def stat(self, path: str) -> os.stat_result:
        return os.stat(self.host(path))

    def exists(self, path: str) -> bool:
        return os.path.exists(self.host(path))

    def is_dir(self, path: str) -> bool:
        return os.path.isdir(self.host(path))

    def is_file(self, path: str) -> bool:
        return os.path.isfile(self.host(path))


def _kernels_path(path: str) -> str:
    """The path of what stands there, from the kernel: three calls, where realpath needs one for each part."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        real = os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    if not real.startswith("/") or real.endswith(" (deleted)"):
        raise FileNotFoundError(path)
    return real
