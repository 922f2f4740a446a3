"""Whose a file of a bundle is, in the numbers that its image has.

Where the bundle is for a user namespace, the host sees others, and where only one user was mapped, the owner
that was meant is recorded beside the file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ocitool.errors import Unsupported
from ocitool.unpack.entries import shown
from ocitool.unpack.owners import RECORD, decode

if TYPE_CHECKING:
    from collections.abc import Callable

    from ocitool.unpack.changes import Found
    from ocitool.unpack.idmap import IdMap

    Open = Callable[[bytes], int]
    OwnerOf = Callable[[Found, Open], tuple[int, int]]
    """Tells the owner of something; the second argument opens the directory at a path."""


def as_they_are(found: Found, _open: Open) -> tuple[int, int]:
    """The owner's numbers on this host."""
    return found.status.st_uid, found.status.st_gid


def mapped(ids: IdMap) -> OwnerOf:
    """The owner's numbers in a user namespace, looked at from outside."""

    def owner_of(found: Found, _open: Open) -> tuple[int, int]:
        owner = found.status.st_uid, found.status.st_gid
        there = ids.inside(*owner)
        if there is None:
            raise Unsupported(
                f"{shown(found.path)} belongs to {owner[0]}:{owner[1]}, who does not exist in the container"
            )
        return there

    return owner_of


def in_namespace() -> OwnerOf:
    """The owner's numbers in the user namespace that this process is in."""
    nobodies = tuple(_overflow(kind) for kind in "ug")

    def owner_of(found: Found, open_directory: Open) -> tuple[int, int]:
        owner = found.status.st_uid, found.status.st_gid
        if any(number == nobody for number, nobody in zip(owner, nobodies, strict=True)):
            _check_mapped(found, open_directory)
        return owner

    return owner_of


def recorded(otherwise: OwnerOf) -> OwnerOf:
    """The owner that is recorded beside a file, or else what the other one says."""

    def owner_of(found: Found, open_directory: Open) -> tuple[int, int]:
        record = dict(found.xattrs).get(RECORD)
        owner = decode(record) if record else None
        return otherwise(found, open_directory) if owner is None else owner

    return owner_of


def _overflow(kind: str) -> int:
    """What the kernel shows in place of an id that is not mapped (proc_sys_kernel(5))."""
    return int(Path(f"/proc/sys/kernel/overflow{kind}id").read_bytes())


def _check_mapped(found: Found, open_directory: Open) -> None:
    """Tell `nobody`, whom an image may have, from somebody not mapped, whose files root may not touch."""
    above, _, name = found.path.rpartition(b"/")
    times = (found.status.st_atime_ns, found.status.st_mtime_ns)
    fd = open_directory(above)
    try:
        os.utime(name or b".", ns=times, dir_fd=fd, follow_symlinks=False)
    except PermissionError as error:
        raise Unsupported(
            f"{shown(found.path)} belongs to somebody who does not exist in the container",
            hint="give it to somebody who does, or remove it",
        ) from error
    finally:
        os.close(fd)
