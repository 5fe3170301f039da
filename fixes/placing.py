"""Single operations on the disk, each relative to an open directory that was reached without trust.

Nobody can lead such an operation elsewhere between the check and the act: links on the way must belong to
root, to this user, or to the owner of the directory where they end (the rule of protected_symlinks, proc(5)).
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from envdoctor.fixes.journal import FileState

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINKS = 40  # as Linux: more is ELOOP (path_resolution(7))


class FixError(Exception):
    """A fix or undo that did not take place: nothing is changed, or everything was put back."""


class Link(Struct, frozen=True):
    target: str


class Directory(Struct, frozen=True):
    pass


class Other(Struct, frozen=True):
    """A device, a socket, a pipe."""


Seen = FileState | Link | Directory | Other | None  # what stands at a path; None: nothing


class Place(Struct, frozen=True, kw_only=True):
    """A name in an open directory that this user may change; the times are those before any change."""

    path: str
    fd: int
    name: str
    uid: int
    gid: int
    mtime_ns: int
    atime_ns: int


def describe(seen: Seen) -> str:
    match seen:
        case Link(target=target):
            return f"a link to {target}"
        case Directory():
            return "a directory"
        case FileState():
            return "a file"
        case _:
            return "a device, socket or pipe"


@contextmanager
def parent(path: str) -> Iterator[Place]:
    """The directory of `path`, held open. OSError where it cannot be reached, FixError where it is not ours.

    Root may change any user's directory, and what it makes there is given to that user.
    """
    directory, name = posixpath.split(path)
    fd, link_owners = _walk(directory)
    try:
        status = os.fstat(fd)
        me = os.geteuid()
        if me not in (status.st_uid, 0):
            raise FixError(f"{directory} belongs to another user ({status.st_uid})")
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            raise FixError(f"{directory} can be written by every user")
        if link_owners - {0, me, status.st_uid}:
            raise FixError(f"the way to {directory} leads over another user's link")
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=fd, effective_ids=True):
            raise FixError(f"{directory} cannot be written")
        yield Place(
            path=path,
            fd=fd,
            name=name,
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            atime_ns=status.st_atime_ns,
        )
    finally:
        os.close(fd)


def _walk(directory: str) -> tuple[int, set[int]]:
    """The directory, open, and the owners of the links on the way; one component at a time."""
    todo = directory.split("/")[::-1]
    owners: set[int] = set()
    links = 0
    fd = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            try:
                step = os.open(part, os.O_PATH | os.O_NOFOLLOW, dir_fd=fd)
            except OSError as error:
                raise OSError(error.errno, error.strerror, directory) from error
            status = os.fstat(step)
            if not stat.S_ISLNK(status.st_mode):
                os.close(fd)
                fd = step
                continue
            try:
                target = os.readlink("", dir_fd=step)
            finally:
                os.close(step)
            owners.add(status.st_uid)
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), directory)
            todo += target.split("/")[::-1]
            if target.startswith("/"):
                os.close(fd)
                fd = os.open("/", os.O_PATH | os.O_DIRECTORY)
        try:
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd), owners
        except OSError as error:
            raise OSError(error.errno, error.strerror, directory) from error
    finally:
        os.close(fd)


def look(place: Place) -> Seen:
    try:
        status = os.stat(place.name, dir_fd=place.fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(status.st_mode):
        return Link(os.readlink(place.name, dir_fd=place.fd))
    if stat.S_ISDIR(status.st_mode):
        return Directory()
    if not stat.S_ISREG(status.st_mode):
        return Other()
    with os.fdopen(_open_file(place), "rb") as file:
        status = os.fstat(file.fileno())
        return FileState(
            data=file.read(),
            mode=stat.S_IMODE(status.st_mode),
            mtime_ns=status.st_mtime_ns,
            uid=status.st_uid,
            gid=status.st_gid,
        )


def check_replaceable(place: Place, seen: FileState) -> None:
    """A file is replaced by a new one of the same name: another name of it would keep the old contents."""
    if seen.uid not in (os.geteuid(), place.uid):
        raise FixError(f"belongs to another user ({seen.uid})")
    if os.stat(place.name, dir_fd=place.fd, follow_symlinks=False).st_nlink > 1:
        raise FixError("has further names (hard links)")


def _open_file(place: Place) -> int:
    return os.open(place.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place.fd)


def make_link(place: Place, target: str) -> None:
    os.symlink(target, place.name, dir_fd=place.fd)
    _give(place)


def make_directory(place: Place) -> None:
    os.mkdir(place.name, 0o755, dir_fd=place.fd)
    _give(place)


def _give(place: Place) -> None:
    if place.uid != os.geteuid():
        os.chown(place.name, place.uid, place.gid, dir_fd=place.fd, follow_symlinks=False)


def remove_file(place: Place, name: str) -> bool:
    try:
        os.unlink(name, dir_fd=place.fd)
    except FileNotFoundError:
        return False
    return True


def put_file(
    place: Place,
    temporary: str,
    data: bytes,
    *,
    mode: int,
    replaced: FileState | None,
    mtime_ns: int | None = None,
) -> None:
    """The file with these bytes at once or not at all; owner and extended attributes are the replaced one's.

    A new file is linked into place, not renamed: that fails where something stands there by now. After a
    failure `temporary` may be left; whoever takes the step back removes it.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    fd = os.open(temporary, flags, 0o600, dir_fd=place.fd)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        status = os.fstat(fd)
        owner = (replaced.uid, replaced.gid) if replaced else (place.uid, status.st_gid)
        if owner != (status.st_uid, status.st_gid):
            os.fchown(fd, *owner)
        if replaced:
            _copy_attributes(place, fd)
        os.fchmod(fd, mode)
        if mtime_ns is not None:
            os.utime(fd, ns=(mtime_ns, mtime_ns))
        os.fsync(fd)
    if replaced:
        os.rename(temporary, place.name, src_dir_fd=place.fd, dst_dir_fd=place.fd)
    else:
        os.link(temporary, place.name, src_dir_fd=place.fd, dst_dir_fd=place.fd, follow_symlinks=False)
        os.unlink(temporary, dir_fd=place.fd)


def _copy_attributes(place: Place, fd: int) -> None:
    source = _open_file(place)
    try:
        for name in os.listxattr(source):
            with suppress(OSError):  # labels of the system's own, which it sets itself
                os.setxattr(fd, name, os.getxattr(source, name))
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
    finally:
        os.close(source)
