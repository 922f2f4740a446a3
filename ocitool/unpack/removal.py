"""Removing trees through file descriptors, however deep, whoever renames things meanwhile."""

from __future__ import annotations

import os
import stat

from ocitool.errors import OciError, UnsafeContent

# Every run of a container ends here, so nothing is loaded that costs time.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike
    from typing import Protocol

    from ocitool.unpack.root import Directory

    class Survivors(Protocol):
        """Who decides what a removal spares, and hears what became of the rest."""

        def spares(self, path: bytes, /) -> bool:
            """Whether what is at this path stays."""
            ...

        def removed(self, path: bytes, /) -> None:
            """The directory at this path is gone."""
            ...

        def emptied(self, path: bytes, /) -> None:
            """The directory at this path was to go, and stays for the sake of what is in it."""
            ...


_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Nobody:
    """Spares nothing."""

    def spares(self, _path: bytes, /) -> bool:
        """See `Survivors`."""
        return False

    def removed(self, _path: bytes, /) -> None:
        """See `Survivors`."""

    def emptied(self, _path: bytes, /) -> None:
        """See `Survivors`."""


class _Level:
    """A directory on the way down."""

    __slots__ = ("directories", "identity", "kept", "name", "path")

    def __init__(self, fd: int, name: bytes, path: bytes, survivors: Survivors) -> None:
        self.name = name
        self.path = path
        self.identity = _identity(fd)
        self.directories: list[bytes] = []
        self.kept = False
        with os.scandir(fd) as children:
            for child in children:
                self._sort(fd, os.fsencode(child.name), child.is_dir(follow_symlinks=False), survivors)

    def _sort(self, fd: int, name: bytes, is_directory: bool, survivors: Survivors) -> None:  # noqa: FBT001 - internal
        if is_directory:
            self.directories.append(name)
        elif survivors.spares(self.join(name)):
            self.kept = True
        else:
            os.unlink(name, dir_fd=fd)

    def join(self, name: bytes) -> bytes:
        return self.path + b"/" + name if self.path else name


def clear(directory: int, path: bytes, survivors: Survivors) -> bool:
    """Remove everything that an open directory at some path holds, but for what is spared.

    Goes down and up with one file descriptor, so that no depth is too great; on the way up it makes sure
    to arrive in the directory that it came from.

    Returns:
        Whether the directory is empty now.

    Raises:
        UnsafeContent: directories were moved meanwhile.
    """
    fd = os.open(b".", _OPEN_DIRECTORY, dir_fd=directory)
    try:
        levels = [_Level(fd, b"", path, survivors)]
        while True:
            level = levels[-1]
            if level.directories:
                name = level.directories.pop()
                fd = _move(fd, name)
                levels.append(_Level(fd, name, level.join(name), survivors))
                continue
            levels.pop()
            if not levels:
                return not level.kept
            fd = _move(fd, b"..")
            if _identity(fd) != levels[-1].identity:
                raise UnsafeContent("a directory was moved while it was being removed")
            levels[-1].kept |= _leave(fd, level, survivors)
    finally:
        os.close(fd)


def remove(parent: Directory, name: bytes, survivors: Survivors) -> bool:
    """Remove something of whatever type, but for what is spared.

    Returns:
        Whether it was a directory or a symbolic link, so that paths may lead elsewhere now.

    Raises:
        FileNotFoundError: there is no such thing.
    """
    mode = os.stat(name, dir_fd=parent.fd, follow_symlinks=False).st_mode
    path = parent.join(name)
    if not stat.S_ISDIR(mode):
        if not survivors.spares(path):
            os.unlink(name, dir_fd=parent.fd)
        return stat.S_ISLNK(mode)
    fd = os.open(name, _OPEN_DIRECTORY, dir_fd=parent.fd)
    try:
        empty = clear(fd, path, survivors)
    finally:
        os.close(fd)
    if survivors.spares(path):
        return True
    if empty:
        os.rmdir(name, dir_fd=parent.fd)
        survivors.removed(path)
    else:
        survivors.emptied(path)
    return True


def discard(directory: str | PathLike[str]) -> None:
    """Remove a directory and what it holds, as far as we may."""
    try:
        fd = os.open(directory, _OPEN_DIRECTORY)
        try:
            clear(fd, b"", Nobody())
        finally:
            os.close(fd)
        os.rmdir(directory)
    except (OSError, OciError):
        return


def _leave(fd: int, level: _Level, survivors: Survivors) -> bool:
    """Remove a directory after what it held; whether it stays."""
    if survivors.spares(level.path):
        return True
    if level.kept:
        survivors.emptied(level.path)
        return True
    os.rmdir(level.name, dir_fd=fd)
    survivors.removed(level.path)
    return False


def _move(fd: int, name: bytes) -> int:
    try:
        there = os.open(name, _OPEN_DIRECTORY, dir_fd=fd)
    except PermissionError:
        there = _open_shut(fd, name)
    os.close(fd)
    return there


def _open_shut(fd: int, name: bytes) -> int:
    """Open a directory of ours whose mode shuts us out."""
    held = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        os.chmod(b"/proc/self/fd/%d" % held, 0o700)
        return os.open(name, _OPEN_DIRECTORY, dir_fd=fd)
    finally:
        os.close(held)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
