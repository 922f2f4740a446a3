"""A directory tree that nothing leaves: every operation names one component under an open directory.

A path is never given to the kernel as a whole, so that no symbolic link in it, and nobody who swaps
directories meanwhile, can lead out. Links that an image puts on the way to its own directories
(`lib -> usr/lib`) are followed inside the root, by openat2(2) where the kernel has it and by walking one
component at a time elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

from ocitool import limits
from ocitool.errors import UnsafeContent
from ocitool.unpack import openat2

if TYPE_CHECKING:
    from collections.abc import Callable

OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_RESOLVED: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_DIRECTORY: Final = frozenset({errno.ENOTDIR, errno.ELOOP})
_CACHED: Final = 128  # directories held open; many hosts allow a process 1024 files
_MAX_LINKS: Final = 40  # as path_resolution(7)
_MAX_STEPS: Final = 10_000


class Directory(NamedTuple):
    """An open directory of the tree.

    Attributes:
        fd: its file descriptor, owned by the Root.
        path: where it is, relative to the root, free of symbolic links.
    """

    fd: int
    path: bytes

    def join(self, name: bytes) -> bytes:
        """The path of something in it."""
        return self.path + b"/" + name if self.path else name


class Root:
    """The directories of a tree, opened by path and kept open while they are in use.

    A `Directory` that `directory` returned stays open until the second call after that one.
    """

    def __init__(
        self, fd: int, *, made: Callable[[bytes], None] = lambda _: None, kernel: bool | None = None
    ) -> None:
        """Take over an open directory as the root.

        Args:
            fd: the directory's file descriptor; `close` closes it.
            made: called with the path of each directory that had to be made on the way to another.
            kernel: whether openat2(2) resolves links; None for "where there is one".
        """
        self._top = Directory(fd, b"")
        self._made = made
        self._kernel = openat2.available() if kernel is None else kernel
        self.known: dict[bytes, Directory] = {}
        self._stale: list[Directory] = []

    def close(self) -> None:
        """Close every directory, the root too."""
        self.forget()
        self._close_stale()
        os.close(self._top.fd)

    def forget(self) -> None:
        """Look every path up anew: a directory or a symbolic link has been removed."""
        self._stale += self.known.values()
        self.known.clear()

    def directory(self, path: bytes, *, make: bool = False) -> Directory | None:
        """Open the directory at a path, following symbolic links inside the root.

        Args:
            path: relative, without empty, `.` and `..` components.
            make: make it, and those above it, where it is missing or a file is in the way.

        Returns:
            None where there is none and none is to be made.

        Raises:
            UnsafeContent: the path has too many links, or leads too deep.
        """
        known = self.known.get(path)
        if known is not None or not path:
            return known or self._top
        self._close_stale()
        names = []
        while known is None:
            path, _, name = path.rpartition(b"/")
            names.append(name)
            known = self.known.get(path) if path else self._top
        while names:
            name = names.pop()
            known = self._step(known, name, make=make)
            if known is None:
                return None
            path = path + b"/" + name if path else name
            self._remember(path, known)
        return known

    def made(self, path: bytes) -> Directory:
        """Open the directory at a path, and make it where it is missing."""
        known = self.known.get(path) or self.directory(path, make=True)
        if known is None:  # pragma: no cover - `directory` makes or raises
            raise UnsafeContent(f"the directory {path!r} can't be made")
        return known

    def read(self, path: bytes, *, limit: int) -> bytes | None:
        """The content of a file; None where there is none, and of a larger or other one nothing either."""
        for _ in range(_MAX_LINKS):
            above, _, name = path.rpartition(b"/")
            directory = self._walk(above, make=False)
            if directory is None:
                return None
            try:
                target = read_link(directory.fd, name)
                if target is None:
                    return read_regular(directory.fd, name, limit)
            finally:
                os.close(directory.fd)
            path = target if target.startswith(b"/") else directory.join(target)
        return None

    def _remember(self, path: bytes, directory: Directory) -> None:
        self.known[path] = directory
        if len(self.known) > _CACHED:
            self._stale.append(self.known.pop(next(iter(self.known))))

    def _close_stale(self) -> None:
        while self._stale:
            os.close(self._stale.pop().fd)

    def _step(self, parent: Directory, name: bytes, *, make: bool) -> Directory | None:
        path = parent.join(name)
        if len(path) > limits.PATH_BYTES:
            raise UnsafeContent(f"a directory lies more than {limits.PATH_BYTES} bytes of path deep")
        try:
            return Directory(os.open(name, OPEN_DIRECTORY, dir_fd=parent.fd), path)
        except FileNotFoundError:
            if not make:
                return None
        except OSError as error:
            if error.errno not in _NO_DIRECTORY:
                raise
            if read_link(parent.fd, name) is not None:
                return self._resolve(path, make=make)
            if not make:
                return None
            os.unlink(name, dir_fd=parent.fd)  # layer.md: what is in the way is removed and recreated
        return self._make(parent, name)

    def _make(self, parent: Directory, name: bytes) -> Directory:
        os.mkdir(name, 0o700, dir_fd=parent.fd)
        path = parent.join(name)
        self._made(path)
        return Directory(os.open(name, OPEN_DIRECTORY, dir_fd=parent.fd), path)

    # Symbolic links on the way

    def _resolve(self, path: bytes, *, make: bool) -> Directory | None:
        if self._kernel:
            fd = openat2.in_root(self._top.fd, path, _OPEN_RESOLVED)
            if fd is not None:
                where = self._path_of(fd)
                if where is not None:
                    return Directory(fd, where)
                os.close(fd)
        return self._walk(path, make=make)

    def _path_of(self, fd: int) -> bytes | None:
        """Where an open directory is, as far as /proc tells."""
        try:
            top, path = (os.readlink(b"/proc/self/fd/%d" % n) for n in (self._top.fd, fd))  # noqa: PTH115 - bytes
        except OSError:
            return None
        if path == top:
            return b""
        return path[len(top) + 1 :] if path.startswith(top + b"/") else None

    def _walk(self, path: bytes, *, make: bool) -> Directory | None:
        """Resolve a path as the kernel does, with the root as `/`."""
        todo = path.split(b"/")[::-1]
        here = Directory(os.dup(self._top.fd), b"")
        links = steps = 0
        try:
            while todo:
                name = todo.pop()
                steps += 1 + here.path.count(b"/") * (name == b"..")
                if steps > _MAX_STEPS or links > _MAX_LINKS or len(here.path) > limits.PATH_BYTES:
                    raise UnsafeContent(f"the path {path[:200]!r} has too many symbolic links")  # noqa: TRY301 - `here` is closed
                if name in {b"", b"."}:
                    continue
                if name == b"..":
                    here = self._move(here, self._plain(here.path.rpartition(b"/")[0]))
                    continue
                target = read_link(here.fd, name)
                if target is None:
                    below = self._step(here, name, make=make)
                    if below is None:
                        os.close(here.fd)
                        return None
                    here = self._move(here, below)
                    continue
                links += 1
                todo += target.split(b"/")[::-1]
                if target.startswith(b"/"):
                    here = self._move(here, self._plain(b""))
        except BaseException:
            os.close(here.fd)
            raise
        return here

    def _move(self, here: Directory, there: Directory) -> Directory:
        os.close(here.fd)
        return there

    def _plain(self, path: bytes) -> Directory:
        """Open a path that has no links; it fails if somebody has put one there meanwhile."""
        fd = os.dup(self._top.fd)
        for name in path.split(b"/") if path else ():
            above = fd
            try:
                fd = os.open(name, OPEN_DIRECTORY, dir_fd=above)
            finally:
                os.close(above)
        return Directory(fd, path)


def read_regular(directory: int, name: bytes, limit: int) -> bytes | None:
    """The content of a regular file in an open directory; None where there is none, or a larger one."""
    try:
        # Without O_NONBLOCK a FIFO would keep us waiting for a writer.
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            return None
        return os.read(fd, limit)
    finally:
        os.close(fd)


def read_link(fd: int, name: bytes) -> bytes | None:
    """A symbolic link's target; None where it is none, or is not there."""
    try:
        return os.readlink(name, dir_fd=fd)
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.ENOENT}:
            return None
        raise
