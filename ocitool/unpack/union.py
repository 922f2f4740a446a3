"""What layers show when an overlay stacks them, read without mounting them.

The rules are the kernel's (filesystems/overlayfs): the highest layer that has a name wins, directories of
the same name are one, a whiteout ends the search, and an opaque directory hides those below it. Every
step opens one component under an open directory, so that no link leads out.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from ocitool.unpack.root import OPEN_DIRECTORY, Root, read_link, read_regular
from ocitool.unpack.stacks import Stack
from ocitool.unpack.volumes import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_MAX_LINKS: Final = 40  # as path_resolution(7)
_Directories: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Other:
    """Something that is no directory: where it lies, and under which name."""

    directory: int
    name: bytes


class Union:
    """The directory tree of layers on top of each other; close it."""

    def __init__(self, lowers: Sequence[str], *, userxattr: bool) -> None:
        """Open the layers.

        Args:
            lowers: their directories, the highest first.
            userxattr: whether opaque directories are marked as for an overlay without privilege.
        """
        self._opaque = "user.overlay.opaque" if userxattr else "trusted.overlay.opaque"
        with ExitStack() as opened:
            self._top = tuple(_open(path, opened) for path in lowers)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the layers."""
        self._opened.close()

    def read(self, path: bytes, *, limit: int) -> bytes | None:
        """See `volumes.Tree`."""
        with ExitStack() as opened:
            found = self._find(path, opened)
            return read_regular(found.directory, found.name, limit) if isinstance(found, _Other) else None

    def folder(self, path: bytes) -> Folder | None:
        """See `volumes.Tree`."""
        with ExitStack() as opened:
            found = self._find(path, opened)
            if found is None or isinstance(found, _Other):
                return None
            status = os.fstat(found[0])
            # What an ordinary user has unpacked is for a container whose root owns everything.
            uid, gid = (0, 0) if os.geteuid() else (status.st_uid, status.st_gid)
            return Folder(stat.S_IMODE(status.st_mode), uid, gid, empty=_is_empty(found))

    def _find(self, path: bytes, opened: ExitStack) -> _Directories | _Other | None:
        trail = [self._top]
        todo = path.split(b"/")[::-1]
        links = 0
        while todo:
            name = todo.pop()
            if name == b"..":
                del trail[1 if len(trail) == 1 else -1 :]
            if name in {b"", b".", b".."}:
                continue
            found = self._step(trail[-1], name, opened)
            target = read_link(found.directory, found.name) if isinstance(found, _Other) else None
            if target is not None:
                links += 1
                if links > _MAX_LINKS:
                    return None
                todo += target.split(b"/")[::-1]
                if target.startswith(b"/"):
                    del trail[1:]
            elif isinstance(found, tuple):
                trail.append(found)
            else:
                return found if not todo else None
        return trail[-1]

    def _step(self, above: _Directories, name: bytes, opened: ExitStack) -> _Directories | _Other | None:
        found: list[int] = []
        for directory in above:
            try:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(status.st_mode):
                if found or _is_whiteout(status):
                    break
                return _Other(directory, name)
            found.append(_open(name, opened, directory))
            if self._is_opaque(found[-1]):
                break
        return tuple(found) or None

    def _is_opaque(self, directory: int) -> bool:
        try:
            return os.getxattr(directory, self._opaque) == b"y"
        except OSError:
            return False


@contextmanager
def opened(bundle: Path) -> Iterator[Root | Union]:
    """The root file system of a bundle, to be looked at, wherever it is."""
    stack = Stack.load(bundle)
    tree: Root | Union
    if stack:
        stack.check()
        tree = Union(stack.lowers, userxattr=stack.userxattr)
    else:
        tree = Root(os.open(bundle / "rootfs", OPEN_DIRECTORY))
    with closing(tree):
        yield tree


def _open(path: str | bytes, opened: ExitStack, above: int | None = None) -> int:
    fd = os.open(path, OPEN_DIRECTORY, dir_fd=above)
    opened.callback(os.close, fd)
    return fd


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_empty(directories: _Directories) -> bool:
    hidden: set[str] = set()
    for directory in directories:
        with os.scandir(directory) as children:
            for child in children:
                if child.name in hidden:
                    continue
                if not _is_whiteout(child.stat(follow_symlinks=False)):
                    return False
                hidden.add(child.name)
    return True
