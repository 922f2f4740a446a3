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

from ocitool import places
from ocitool.errors import Conflict, NotFound, OciError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike
    from pathlib import Path

_LOCK = "lock"
_STATE = "state"


def place(store: str | PathLike[str]) -> str:
    """Where the containers of a local store are made: beside it, for they may share a file system."""
    return os.path.join(os.path.dirname(os.path.abspath(store)), "containers")


def made(directory: str | PathLike[str]) -> Made:
    """A container's directory, which ends with the block, or after it with the next `collect`.

    The lock passes to the runtime that the block starts: it holds until both have ended.

    Raises:
        Conflict: there is one of that name.
        OciError: it can't be made.
    """
    return Made(os.fspath(directory))


class Made:
    """See `made`."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._lock = -1

    def __enter__(self) -> None:
        from ocitool.run.state import default_root

        self._lock = _taken(self._directory)
        try:
            os.symlink(f"{default_root()}/{os.path.basename(self._directory)}", f"{self._directory}/{_STATE}")
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        _discard(self._directory)
        os.close(self._lock)


def _taken(directory: str) -> int:
    """Make a directory, and hold it."""
    while True:
        try:
            os.makedirs(directory, 0o700)
            fd = os.open(f"{directory}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError as error:
            raise Conflict(f"{directory} exists", hint="choose another name, or remove it first") from error
        except FileNotFoundError:
            continue  # collected before it was held
        except OSError as error:
            raise OciError(f"{directory} can't be made: {error.strerror}", hint=places.STORE_HINT) from error
        fcntl.flock(fd, fcntl.LOCK_SH)
        if os.fstat(fd).st_nlink:
            # The runtime inherits it, and marks it to be closed before the container's program starts.
            os.set_inheritable(fd, True)
            return fd
        os.close(fd)


def collect(
    directory: str | PathLike[str], *, really: bool = True, leaving: Callable[[Path], None] | None = None
) -> list[str]:
    """Remove the directories whose owners were killed, or only list them.

    A container that lives on without its owner stays, and so does all that is another user's.

    Args:
        directory: what has the directories of all containers.
        really: remove them, with what the runtime remembers of the container.
        leaving: is told of each before it goes.

    Returns:
        The containers' IDs.
    """
    try:
        if not os.listdir(directory):
            return []
    except (FileNotFoundError, NotADirectoryError):
        return []
    from pathlib import Path

    from ocitool.unpack import staging

    directory = Path(directory)
    present = sorted(directory.iterdir())
    found = staging.collect(directory, really=really, leaving=leaving)
    for container in present:
        try:
            ours = container.stat(follow_symlinks=False).st_uid == os.geteuid()
            if (
                ours
                and not staging.is_private(container)
                and _collected(container, really=really, leaving=leaving)
            ):
                found.append(container.name)
        except OSError:
            continue
    return found


def _collected(container: Path, *, really: bool, leaving: Callable[[Path], None] | None) -> bool:
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
        if leaving:
            leaving(container)
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
        root, _, container_id = os.readlink(container / _STATE).rpartition("/")
        return State.load(root, container_id).status() != "stopped"
    except (FileNotFoundError, NotFound):
        return False


def _forget(container: Path) -> None:
    """Take away what the runtime has left of the container: cgroups, and its record."""
    from ocitool.run.runtime import Runtime

    try:
        root, _, container_id = os.readlink(container / _STATE).rpartition("/")
        Runtime(root).delete(container_id, force=True)
    except (OSError, OciError):
        return


def _discard(container: str | PathLike[str]) -> None:
    """Remove a directory; its lock goes last, so that what is left after a kill is still collected."""
    from ocitool.unpack.disposal import dispose

    try:
        with os.scandir(container) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    dispose(entry.path)
                elif entry.name != _LOCK:
                    os.unlink(entry.path)
        if os.listdir(container) == [_LOCK]:
            os.unlink(f"{container}/{_LOCK}")
        os.rmdir(container)
    except OSError:
        return
