"""The files of a layout: opened one component at a time, never through a link, and written whole.

Every system call of the package that may fail is made here or inside `translated`, so no OSError leaves it.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from ocitool.errors import Conflict, InvalidContent, NotFound, OciError, UnsafeContent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Opening a FIFO would wait for its other end, and opening some devices does something.
_FILE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LAYOUT: Final = "the layout"
_FULL: Final = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN: Final = {errno.EACCES, errno.EPERM, errno.EROFS}
# What O_NOFOLLOW and O_DIRECTORY say of a link, and open of a socket or of a device that is not there.
_WRONG_KIND: Final = {errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.ENODEV}


@contextmanager
def translated(what: str, where: Path, *, needed: int = 0, place: str = _LAYOUT) -> Iterator[None]:
    """Turn an OSError into ours.

    Args:
        what: the thing at hand ("blob sha256:…", "index.json").
        where: the layout's directory.
        needed: how many bytes were about to be written, for the message about a full disk.
        place: what `where` is, for the message.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.EEXIST} and (file := _file_above(where)):
            raise Conflict(
                f"{place} {where} can't be there: {file} is a file",
                hint="choose another place, or remove the file",
            ) from error
        raise _translate(error, what, where, needed, place) from error


def _file_above(path: Path) -> Path | None:
    """What would have to be a directory, and is a file."""
    return next((parent for parent in path.parents if parent.is_file()), None)


def _translate(error: OSError, what: str, where: Path, needed: int, place: str) -> OciError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno == errno.ENOENT:
        return NotFound(f"{what} is not in {place} {where}")
    if error.errno in _WRONG_KIND:
        return UnsafeContent(
            f"{what} in {place} {where} is a link or no regular file",
            hint="a layout is read without following links: replace it with a copy of what it names",
        )
    if error.errno in _FULL:
        return OciError(
            f"no space for {what} in {where}: {reason}",
            hint=_space(where, needed) or "free some space",
        )
    if error.errno in _FORBIDDEN:
        return OciError(f"{what} in {place} {where} can't be used: {reason}", hint="check its owner and mode")
    if error.errno in {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}:
        return OciError(
            f"{what} in {where} can't be used safely: {reason}",
            hint="this file system lacks locks or atomic renames: keep the layout on a local one",
        )
    return OciError(f"{what} in {place} {where}: {reason}")


def _space(where: Path, needed: int) -> str:
    try:
        found = os.statvfs(next(path for path in (where, *where.absolute().parents) if path.exists()))
    except OSError:
        return ""
    free = found.f_bavail * found.f_frsize
    available = f"{free} bytes and {found.f_favail} inodes are free"
    if not needed:
        return available
    return f"{needed} bytes are needed, {available}; the next try goes on where this one stopped"


@contextmanager
def directory(root: Path, *parts: str, create: bool = False) -> Iterator[int]:
    """Open a directory below `root` as a file descriptor; `root` alone may be a link.

    Raises:
        OSError: as `open` and `mkdir` do.
    """
    if create:
        make_root(root)
    fd = os.open(root, _DIRECTORY)
    try:
        for part in parts:
            child = _open_directory(fd, part, create=create)
            close_unwritten(fd)
            fd = child
        yield fd
    finally:
        close_unwritten(fd)


def close_unwritten(fd: int) -> None:
    """Close what nothing was written through, so that nothing is lost if that fails."""
    with suppress(OSError):
        os.close(fd)


def close_unlocked(fd: int) -> None:
    """Let go of a lock, and of the file.

    In two steps, because a lock lives as long as any copy of the descriptor: a process that was forked in
    the meantime may have one.
    """
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)
    close_unwritten(fd)


def make_root(root: Path) -> None:
    """Make a directory and those above it, such that a power cut does not take them back."""
    if root.is_dir():
        return
    make_root(root.parent)
    root.mkdir(exist_ok=True)
    with directory(root.parent) as parent:
        os.fsync(parent)


def _open_directory(parent: int, name: str, *, create: bool) -> int:
    try:
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    except FileNotFoundError:
        if not create:
            raise
    # What is private to ocitool (temporary files, locks) nobody else may plant names in.
    mode = 0o700 if name.startswith(".") else 0o777
    try:
        os.mkdir(name, mode, dir_fd=parent)
        os.fsync(parent)
    except FileExistsError:
        pass  # another process was faster
    return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)


def open_file(parent: int, name: str, how: int = os.O_RDONLY) -> int:
    """Open a regular file.

    Raises:
        OSError: as `open` does, ELOOP for anything but a regular file.
    """
    fd = os.open(name, how | _FILE, dir_fd=parent)
    try:
        must_be_regular(os.fstat(fd), name)
    except OSError:
        os.close(fd)
        raise
    return fd


def must_be_regular(found: os.stat_result, name: str) -> None:
    """Refuse what is no regular file, as O_NOFOLLOW refuses a link.

    Raises:
        OSError: ELOOP.
    """
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)


def read_file(parent: int, name: str, limit: int) -> bytes:
    """Read a small file.

    Raises:
        InvalidContent: it is larger than `limit` bytes.
        OSError: as `open_file`.
    """
    with io.FileIO(open_file(parent, name)) as file:
        content = file.read(limit + 1)
        while len(content) <= limit and (more := file.read(limit + 1 - len(content))):
            content += more
    if len(content) > limit:
        raise InvalidContent(f"{name} is larger than {limit} bytes")
    return content


def write_all(fd: int, data: bytes) -> None:
    """Write all of it; `write` alone may stop short."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def replace_file(private: int, parent: int, name: str, content: bytes) -> None:
    """Put a file in the place of another one, such that readers and power cuts see either, whole.

    Args:
        private: the directory for the temporary file, on the same file system.
        parent: the directory of the file.
        name: the file.
        content: what it shall hold.
    """
    temporary = f"{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o666, dir_fd=private)
    try:
        write_all(fd, content)
        # Before the rename, or a power cut could leave the new name with no content.
        os.fsync(fd)
        os.rename(temporary, name, src_dir_fd=private, dst_dir_fd=parent)
    except BaseException:
        unlink(private, temporary)
        raise
    finally:
        os.close(fd)
    os.fsync(parent)


def names_in(parent: int) -> list[str]:
    """What a directory holds, sorted."""
    return sorted(os.listdir(parent))


def unlink(parent: int, name: str) -> bool:
    """Remove a file; whether it was there."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return False
    return True
