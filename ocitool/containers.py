"""The directories of containers: each is held while its run lasts, and collected when its owner was killed.

A directory that is to end with its container has a file `lock`, locked by whoever runs the container, and a
link `state` to where the runtime remembers it::

    lock           held until the runtime has ended, too
    state          /run/ocitool/<id>, or the user's own
    config.json    with rootfs/, upper/ and work/: the container's bundle

One without `lock` was kept on purpose, and is nobody's to remove.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from ocitool.errors import Conflict, NotFound, OciError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCK: Final = "lock"
_STATE: Final = "state"


def place(store: Path) -> Path:
    """Where the containers of a local store are made: beside it, for they may share a file system."""
    return store.absolute().parent / "containers"


@contextmanager
def made(directory: Path) -> Iterator[None]:
    """A container's directory, which ends with the block, or after it with the next `collect`.

    The lock passes to the runtime that the block starts: it holds until both have ended.

    Raises:
        Conflict: there is one of that name.
        OciError: it can't be made.
    """
    from ocitool.run.state import default_root

    fd = _taken(directory)
    try:
        (directory / _STATE).symlink_to(f"{default_root()}/{directory.name}")
        yield
    finally:
        _discard(directory)
        os.close(fd)


def _taken(directory: Path) -> int:
    """Make a directory, and hold it."""
    while True:
        try:
            directory.mkdir(mode=0o700, parents=True)
            fd = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError as error:
            raise Conflict(f"{directory} exists", hint="choose another name, or remove it first") from error
        except FileNotFoundError:
            continue  # collected before it was held
        except OSError as error:
            raise OciError(f"{directory} can't be made: {error.strerror}") from error
        fcntl.flock(fd, fcntl.LOCK_SH)
        if os.fstat(fd).st_nlink:
            # The runtime inherits it, and marks it to be closed before the container's program starts.
            os.set_inheritable(fd, True)
            return fd
        os.close(fd)


def collect(directory: Path, *, really: bool = True) -> list[str]:
    """Remove the directories whose owners were killed, or only list them.

    A container that lives on without its owner stays, and so does all that is another user's.

    Args:
        directory: what has the directories of all containers.
        really: remove them, with what the runtime remembers of the container.

    Returns:
        The containers' IDs.
    """
    if not directory.is_dir() or not (present := sorted(directory.iterdir())):
        return []
    from ocitool.unpack import staging

    found = staging.collect(directory, really=really)
    for container in present:
        with suppress(OSError):
            ours = container.stat(follow_symlinks=False).st_uid == os.geteuid()
            if ours and not staging.is_private(container) and _collected(container, really=really):
                found.append(container.name)
    return found


def _collected(container: Path, *, really: bool) -> bool:
    try:
        fd = os.open(container / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        if really:
            container.rmdir()  # whoever made it was killed before holding it; a kept one is not empty
            return True
        return not any(container.iterdir())
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another one may have collected it, and its name may be in use again.
        if not os.path.samestat(os.fstat(fd), (container / _LOCK).stat()) or _lives(container):
            return False
        if really:
            _forget(container)
            _discard(container)
        return True
    finally:
        os.close(fd)


def _lives(container: Path) -> bool:
    """Whether the container's program runs, although whoever waited for it was killed."""
    from ocitool.run.state import State

    try:
        root, _, container_id = os.readlink(container / _STATE).rpartition("/")  # noqa: PTH115 - a str
        return State.load(root, container_id).status() != "stopped"
    except (FileNotFoundError, NotFound):
        return False


def _forget(container: Path) -> None:
    """Take away what the runtime has left of the container: cgroups, and its record."""
    from ocitool.run.runtime import Runtime

    with suppress(OSError, OciError):
        root, _, container_id = os.readlink(container / _STATE).rpartition("/")  # noqa: PTH115 - a str
        Runtime(root).delete(container_id, force=True)


def _discard(container: Path) -> None:
    """Remove a directory; its lock goes last, so that what is left after a kill is still collected."""
    from ocitool.unpack.disposal import dispose

    with suppress(OSError):
        for path in container.iterdir():
            if path.is_dir() and not path.is_symlink():
                dispose(path)
            elif path.name != _LOCK:
                path.unlink()
        if [path.name for path in container.iterdir()] == [_LOCK]:
            (container / _LOCK).unlink()
        container.rmdir()
