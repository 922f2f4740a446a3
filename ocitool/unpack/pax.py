"""PAX extended headers: what one says about the entry after it (POSIX.1-2017, pax, "Extended Header")."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from ocitool.errors import InvalidContent

if TYPE_CHECKING:
    from collections.abc import Mapping

# chown(2) reads 2**32 - 1 as "leave it": the file would stay root's.
_MAX_ID: Final = (1 << 32) - 2
_MAX_TIME: Final = (1 << 63) - 1
_MIN_TIME: Final = -(1 << 63)
_DIGITS: Final = re.compile(rb"[0-9]{1,20}")
_TIME: Final = re.compile(rb"(-?)([0-9]{1,20})(?:\.([0-9]*))?")
_XATTR: Final = b"SCHILY.xattr."
_SPARSE: Final = b"GNU.sparse."
_MAX_LENGTH_DIGITS: Final = 8
_MEANINGFUL: Final = (b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", _XATTR, _SPARSE)


class Extra(NamedTuple):
    """The part of a header that matters here; None and b"" where it is silent."""

    path: bytes = b""
    link: bytes = b""
    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime: int | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    sparse: Mapping[bytes, bytes] = {}


NOTHING: Final = Extra()


def parse(data: bytes) -> Extra:
    """Read an extended header.

    Raises:
        InvalidContent: it does not follow the grammar, or a number is out of its range.
    """
    pairs = _pairs(data)
    # "If two or more extended header records have the same keyword, the last one takes precedence", and
    # an empty value gives the field of the entry's own header back; attributes and extents may be empty.
    found = {key: value for key, value in pairs if value or key.startswith((_XATTR, _SPARSE))}
    for key, value in pairs:
        if not value and key in found and not key.startswith((_XATTR, _SPARSE)):
            raise InvalidContent(f"a PAX header says {key!r} and takes it back")
    size, uid, gid, mtime = (found.get(key) for key in (b"size", b"uid", b"gid", b"mtime"))
    return Extra(
        path=found.get(b"path", b""),
        link=found.get(b"linkpath", b""),
        size=None if size is None else _integer("size", size),
        uid=None if uid is None else check_identity(_integer("uid", uid)),
        gid=None if gid is None else check_identity(_integer("gid", gid)),
        mtime=None if mtime is None else _time(mtime),
        xattrs=tuple((_xattr(key), value) for key, value in found.items() if key.startswith(_XATTR)),
        sparse=_sparse(pairs, found),
    )


def check_global(data: bytes) -> None:
    """Accept a global header that holds only remarks.

    Raises:
        InvalidContent: it would change the entries after it, which half of all readers ignore.
    """
    for key, _ in _pairs(data):
        if key.startswith(_MEANINGFUL):
            raise InvalidContent(
                f"a global PAX header sets {key.decode('utf-8', 'replace')!r} for all entries"
            )


def check_identity(number: int) -> int:
    """A user's or group's number, unless no file can have it.

    Raises:
        InvalidContent: it is out of range.
    """
    if not 0 <= number <= _MAX_ID:
        raise InvalidContent(f"{number} is no user or group: they go from 0 to {_MAX_ID}")
    return number


def clamp(time: int) -> int:
    """A time in nanoseconds, brought into 64 bits (the years 1677 to 2262)."""
    return max(_MIN_TIME, min(_MAX_TIME, time))


def _pairs(data: bytes) -> list[tuple[bytes, bytes]]:
    """The records: a length, a space, `key=value` and a newline; the length counts all of that."""
    pairs = []
    pos = 0
    while pos < len(data):
        space = data.find(b" ", pos, pos + _MAX_LENGTH_DIGITS + 1)
        if space < 0 or not _DIGITS.fullmatch(data, pos, space):
            raise InvalidContent("a PAX header's record does not start with its length")
        end = pos + int(data[pos:space])
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or end > len(data) or data[end - 1] != ord("\n") or not key or not equals:
            raise InvalidContent("a PAX header's record has the wrong length")
        pairs.append((key, value))
        pos = end
    return pairs


def _sparse(pairs: list[tuple[bytes, bytes]], found: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    sparse = {key: value for key, value in found.items() if key.startswith(_SPARSE)}
    offsets = [value for key, value in pairs if key == b"GNU.sparse.offset"]
    if offsets:
        # Version 0.0 repeats a pair of records per extent, and their order is what ties them together.
        lengths = [value for key, value in pairs if key == b"GNU.sparse.numbytes"]
        if len(offsets) != len(lengths) or b"GNU.sparse.map" in sparse:
            raise InvalidContent("a sparse file's map has not one length for each offset")
        sparse[b"GNU.sparse.map"] = b",".join(
            part for pair in zip(offsets, lengths, strict=True) for part in pair
        )
    return sparse


def _xattr(key: bytes) -> bytes:
    name = key[len(_XATTR) :]
    if not name or b"\0" in name:
        raise InvalidContent(f"a PAX header gives {name[:40]!r} as the name of an attribute")
    return name


def _integer(key: str, value: bytes) -> int:
    if not _DIGITS.fullmatch(value):
        raise InvalidContent(f"a PAX header gives {value[:40]!r} as {key}")
    return int(value)


def _time(value: bytes) -> int:
    match = _TIME.fullmatch(value)
    if match is None:
        raise InvalidContent(f"a PAX header gives {value[:40]!r} as a time")
    fraction = int((match[3] or b"")[:9].ljust(9, b"0"))
    time = int(match[2]) * 1_000_000_000 + fraction
    return clamp(-time if match[1] else time)
