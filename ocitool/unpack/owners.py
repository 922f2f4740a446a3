"""Owners: what a layer says, what this process may do about it, and how the difference is kept.

Root gives every file its owner, or whoever that is in the user namespace that a bundle is for. An ordinary
user cannot: all files become theirs, which is what root in a user namespace with a single mapped id sees as
its own, and the intended owner is written beside the file in an extended attribute, so that it is not lost.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from ocitool.unpack.idmap import IdMap
    from ocitool.unpack.tally import Tally

RECORD: Final = b"user.rootlesscontainers"
"""Where other rootless tools look for the intended owner: a protocol buffer of two numbers."""

_AS_IT_IS: Final = 0xFFFFFFFF  # the user or the group is root, as it is without a record


class Owners(Protocol):
    """Gives files their owner."""

    def change(self, uid: int, gid: int, /) -> tuple[int, int] | None:
        """The ids to call chown(2) with, or None where a file has the right ones from its birth."""
        ...

    def record(self, uid: int, gid: int, /) -> bytes:
        """What to keep in the attribute `RECORD`, or b"" where nothing is lost."""
        ...

    def inside(self, uid: int, gid: int, /) -> tuple[int, int]:
        """Whose the file will be to a container."""
        ...


class Given:
    """Every file gets the owner that its entry names: this process is root."""

    def __init__(self) -> None:
        self._own = (os.geteuid(), os.getegid())

    def change(self, uid: int, gid: int, /) -> tuple[int, int] | None:
        """See `Owners`."""
        return None if (uid, gid) == self._own else (uid, gid)

    def record(self, _uid: int, _gid: int, /) -> bytes:
        """See `Owners`."""
        return b""

    def inside(self, uid: int, gid: int, /) -> tuple[int, int]:
        """See `Owners`."""
        return uid, gid


class Shifted:
    """Every file gets the owner that its entry names, as a user namespace will see it."""

    def __init__(self, ids: IdMap) -> None:
        self._ids = ids

    def change(self, uid: int, gid: int, /) -> tuple[int, int] | None:
        """See `Owners`.

        Raises:
            Unsupported: who is named does not exist in the namespace.
        """
        return self._ids.outside(uid, gid)

    def record(self, _uid: int, _gid: int, /) -> bytes:
        """See `Owners`."""
        return b""

    def inside(self, uid: int, gid: int, /) -> tuple[int, int]:
        """See `Owners`."""
        return uid, gid


class Single:
    """Every file belongs to whoever runs this; what the entry said is recorded and counted."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def change(self, _uid: int, _gid: int, /) -> tuple[int, int] | None:
        """See `Owners`."""
        return None

    def record(self, uid: int, gid: int, /) -> bytes:
        """See `Owners`."""
        if not (uid or gid):
            return b""
        self._tally.owners += 1
        return encode(uid, gid)

    def inside(self, _uid: int, _gid: int, /) -> tuple[int, int]:
        """See `Owners`: whoever runs this is root there."""
        return 0, 0


def encode(uid: int, gid: int) -> bytes:
    """The record of an owner: `message Resource { uint32 uid = 1; uint32 gid = 2; }`."""
    return b"\x08" + _varint(uid or _AS_IT_IS) + b"\x10" + _varint(gid or _AS_IT_IS)


def decode(record: bytes) -> tuple[int, int] | None:
    """The owner in a record; None where it is none."""
    found = {0x08: 0, 0x10: 0}
    pos = 0
    while pos < len(record):
        tag, number, pos = record[pos], 0, pos + 1
        for shift in range(0, 35, 7):
            if pos >= len(record):
                return None
            number |= (record[pos] & 0x7F) << shift
            pos += 1
            if record[pos - 1] < 0x80:
                break
        if tag not in found:
            return None
        found[tag] = number & 0xFFFFFFFF
    uid, gid = (0 if number == _AS_IT_IS else number for number in found.values())
    return uid, gid


def is_refusal(error: OSError) -> bool:
    """Whether a file system or the kernel will never do what was asked, rather than failing at it."""
    return error.errno in {errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENOSYS}


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
