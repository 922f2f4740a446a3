"""From two root file systems to a layer: what one has and the other has not."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ocitool.errors import OciError
from ocitool.unpack import changes, packing
from ocitool.unpack.root import OPEN_DIRECTORY, Root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from ocitool.unpack.ownership import OwnerOf


def layer_between(
    before: Path,
    after: Path,
    write: Callable[[bytes], object],
    *,
    owner_of: OwnerOf,
    without: frozenset[bytes],
    latest: int | None,
) -> bool:
    """Write the tar stream of a layer that makes one root file system of another.

    Args:
        before: what there was.
        after: what there is now.
        write: takes the bytes.
        owner_of: tells whose a file is.
        without: paths that are left out, with what is below them.
        latest: no file's time is after this, in nanoseconds; None for no limit.

    Returns:
        Whether there was anything to write.

    Raises:
        Unsupported: something has an owner that does not exist in the container.
        OciError: something can't be read.
    """
    try:
        with _opened(before) as old, _opened(after) as new:
            found = changes.between(old, new, without=_where_they_lead(new, without))
            if not (found.removed or found.changed):
                return False
            packing.pack(found, lambda path: _below(new, path), write, owner_of=owner_of, latest=latest)
    except OSError as error:
        raise OciError(f"{after} can't be packed: {error.strerror} ({error.filename!r})") from error
    return True


def _where_they_lead(root: int, paths: Iterable[bytes]) -> frozenset[bytes]:
    """Paths with their symbolic links resolved, as whoever mounts something there would."""
    tree = Root(os.dup(root))
    try:
        found = set()
        for path in paths:
            directory = tree.directory(path)
            above, _, name = path.rpartition(b"/")
            parent = directory or tree.directory(above)
            found |= {directory.path if directory else parent.join(name) if parent else path}
        return frozenset(found)
    finally:
        tree.close()


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, OPEN_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def _below(root: int, path: bytes) -> int:
    fd = os.dup(root)
    for name in path.split(b"/") if path else ():
        above = fd
        try:
            fd = os.open(name, OPEN_DIRECTORY, dir_fd=above)
        finally:
            os.close(above)
    return fd
