"""How much room a tree takes on its disk."""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike


def occupied(tree: str | PathLike[str]) -> int:
    """What a file or a directory with all that it holds takes, in bytes, as far as this user may look.

    A file with several names in it counts once, one with holes for what is written alone.
    """
    total, left = 0, [os.fspath(tree)]
    linked: set[tuple[int, int]] = set()
    while left:
        path = left.pop()
        try:
            info = os.lstat(path)
            identity = info.st_dev, info.st_ino
            if identity in linked:
                continue
            if info.st_nlink > 1:
                linked.add(identity)
            total += info.st_blocks * 512  # stat(2): "Number of 512 B blocks allocated", whatever the disk's
            if stat.S_ISDIR(info.st_mode):
                with os.scandir(path) as entries:
                    left += [entry.path for entry in entries]
        except OSError:
            continue
    return total
