"""A directory that appears under its name when it is complete, and otherwise not at all."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ocitool.errors import Conflict, OciError
from ocitool.unpack.disposal import dispose
from ocitool.unpack.removal import discard
from ocitool.unpack.root import OPEN_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SUFFIX: Final = ".partial"
_TAKEN: Final = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}  # what rename(2) says of a name that is in use


@contextmanager
def staged(target: Path, *, sync: bool) -> Iterator[Path]:
    """Give a private directory beside `target`, and rename it to that when the block has succeeded.

    Only its owner can enter it, then and later: an image's setuid programs are no other user's to run.

    Raises:
        Conflict: `target` exists.
        OciError: the file system refuses.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100 - not resolved: the last part must not be a link
    _check_free(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging, held = _private(target)
    except OSError as error:
        raise OciError(f"no directory can be made beside {target}: {error.strerror}") from error
    try:
        _make_plain(staging)
        yield staging
        if sync:
            _sync(staging)
        _check_free(target)
        _publish(staging, target)
    except OSError as error:
        discard(staging)
        raise OciError(f"{target} can't be written: {error.strerror}") from error
    except BaseException:
        discard(staging)
        raise
    finally:
        os.close(held)
    if sync:
        _sync_directory(target.parent)


def collect(
    directory: Path, *, really: bool = True, leaving: Callable[[Path], None] | None = None
) -> list[str]:
    """Remove the private directories whose makers were killed, or only list them.

    Args:
        directory: where they are.
        really: remove them.
        leaving: is told of each before it goes.
    """
    found = []
    for staging in filter(is_private, sorted(directory.iterdir())):
        with suppress(OSError):
            fd = os.open(staging, OPEN_DIRECTORY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if leaving:
                    leaving(staging)
                if really:
                    dispose(staging)
                found.append(staging.name)
            finally:
                os.close(fd)
    return found


def is_private(path: Path) -> bool:
    """Whether a path is, by its name, a directory in which something is being made."""
    return path.name.startswith(".") and path.name.endswith(_SUFFIX)


def _private(target: Path) -> tuple[Path, int]:
    """A new directory beside `target`, and a descriptor whose lock says that somebody works in it."""
    while True:
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_SUFFIX, dir=target.parent))
        with suppress(FileNotFoundError):
            fd = os.open(staging, OPEN_DIRECTORY)
            fcntl.flock(fd, fcntl.LOCK_SH)
            if os.fstat(fd).st_nlink:
                return staging, fd
            os.close(fd)  # collected before it was held


def _check_free(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise _exists(target)


def _publish(staging: Path, target: Path) -> None:
    try:
        staging.rename(target)
    except OSError as error:
        if error.errno in _TAKEN:
            raise _exists(target) from error  # somebody was faster since it was found free
        raise


def _exists(target: Path) -> Conflict:
    return Conflict(f"{target} exists", hint="choose another place, or remove it first")


def _make_plain(directory: Path) -> None:
    """Undo what a directory inherits from the one above: its group, and its access control list."""
    for attribute in ("system.posix_acl_default", "system.posix_acl_access"):
        with suppress(OSError):
            os.removexattr(directory, attribute)
    directory.chmod(0o700)
    if directory.stat().st_gid != os.getegid():
        os.chown(directory, -1, os.getegid())


def _sync(directory: Path) -> None:
    """Have a file system's data on the disk: one call, where fsync(2) would be one for each file."""
    fd = os.open(directory, OPEN_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
