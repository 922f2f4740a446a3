"""What differs between two directory trees (image-spec, layer.md, "Determining Changes").

Exact: two files are the same only if their bytes are; times and sizes are merely looked at first.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from ocitool.streams import CHUNK
from ocitool.unpack.root import OPEN_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterator

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Found(NamedTuple):
    """Something in a tree."""

    path: bytes
    status: os.stat_result
    link: bytes  # a symbolic link's target
    xattrs: tuple[tuple[bytes, bytes], ...]


@dataclass(slots=True)
class Changes:
    """The difference that a layer has to hold.

    Attributes:
        removed: paths that are gone; nothing below one of them is named.
        changed: what is new or different, each directory before what it holds.
    """

    removed: list[bytes] = field(default_factory=list)
    changed: list[Found] = field(default_factory=list)


def between(before: int, after: int, *, without: frozenset[bytes] = frozenset()) -> Changes:
    """Compare two open directories, whose names stand for the same root.

    Args:
        before: a file descriptor.
        after: another one.
        without: paths that are not looked at, nor what is below them.
    """
    changes = Changes()
    if b"" in without:
        return changes
    root = _look(after, b".", b"")
    if not _alike(_look(before, b".", b""), root):
        changes.changed.append(root)
    _compare(before, after, b"", changes, without)
    _complete_links(after, changes, without)
    return changes


def _compare(
    before: int | None, after: int, path: bytes, changes: Changes, without: frozenset[bytes]
) -> None:
    old = {} if before is None else dict(_children(before, path, without))
    new = dict(_children(after, path, without))
    changes.removed += [found.path for name, found in sorted(old.items()) if name not in new]
    for name, found in sorted(new.items()):
        was = old.get(name)
        if was is None or not _same(before, was, after, found, name):
            changes.changed.append(found)
        if stat.S_ISDIR(found.status.st_mode):
            was_directory = was is not None and stat.S_ISDIR(was.status.st_mode)
            _descend(before if was_directory else None, after, name, found.path, changes, without)


def _descend(
    before: int | None, after: int, name: bytes, path: bytes, changes: Changes, without: frozenset[bytes]
) -> None:
    new = os.open(name, OPEN_DIRECTORY, dir_fd=after)
    old = None if before is None else os.open(name, OPEN_DIRECTORY, dir_fd=before)
    try:
        _compare(old, new, path, changes, without)
    finally:
        os.close(new)
        if old is not None:
            os.close(old)


def _children(fd: int, path: bytes, without: frozenset[bytes]) -> Iterator[tuple[bytes, Found]]:
    with os.scandir(fd) as children:
        names = [os.fsencode(child.name) for child in children]
    for name in names:
        where = path + b"/" + name if path else name
        if where not in without:
            yield name, _look(fd, name, where)


def _look(fd: int, name: bytes, path: bytes) -> Found:
    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    link = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else b""
    where = b"/proc/self/fd/%d/%s" % (fd, name)
    keys = sorted(os.fsencode(key) for key in os.listxattr(where, follow_symlinks=False))
    return Found(
        path, status, link, tuple((key, os.getxattr(where, key, follow_symlinks=False)) for key in keys)
    )


def _alike(was: Found, found: Found) -> bool:
    """Whether everything but the content is the same."""
    one, other = was.status, found.status
    size = (0, 0) if stat.S_ISDIR(one.st_mode) else (one.st_size, other.st_size)
    return (
        (one.st_mode, one.st_uid, one.st_gid, one.st_mtime_ns, one.st_rdev, size[0])
        == (other.st_mode, other.st_uid, other.st_gid, other.st_mtime_ns, other.st_rdev, size[1])
        and was.link == found.link
        and was.xattrs == found.xattrs
    )


def _same(before: int | None, was: Found, after: int, found: Found, name: bytes) -> bool:
    if before is None or not _alike(was, found):
        return False
    if not stat.S_ISREG(found.status.st_mode):
        return True
    one, other = (os.open(name, _READ, dir_fd=fd) for fd in (before, after))
    try:
        while (piece := os.read(one, CHUNK)) == os.read(other, CHUNK):
            if not piece:
                return True
        return False
    finally:
        os.close(one)
        os.close(other)


def _complete_links(after: int, changes: Changes, without: frozenset[bytes]) -> None:
    """Add the other names of files that changed: a layer can't link to a file that it does not hold."""
    changed = {found.path for found in changes.changed}
    inodes = {
        (found.status.st_dev, found.status.st_ino)
        for found in changes.changed
        if found.status.st_nlink > 1 and not stat.S_ISDIR(found.status.st_mode)
    }
    if not inodes:
        return
    for found in _everything(after, b"", without):
        if (found.status.st_dev, found.status.st_ino) in inodes and found.path not in changed:
            changes.changed.append(found)
    changes.changed.sort(key=lambda found: found.path.split(b"/"))


def _everything(fd: int, path: bytes, without: frozenset[bytes]) -> Iterator[Found]:
    for name, found in sorted(_children(fd, path, without)):
        yield found
        if stat.S_ISDIR(found.status.st_mode):
            below = os.open(name, OPEN_DIRECTORY, dir_fd=fd)
            try:
                yield from _everything(below, found.path, without)
            finally:
                os.close(below)
