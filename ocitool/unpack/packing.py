"""Writing layers: the same tree gives the same bytes, and any tar reads them.

ustar headers, with a PAX header before those that need one.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from ocitool.errors import OciError, Unsupported
from ocitool.streams import CHUNK
from ocitool.unpack.entries import BLOCK, shown
from ocitool.unpack.owners import RECORD
from ocitool.unpack.whiteouts import MARK

if TYPE_CHECKING:
    from collections.abc import Callable

    from ocitool.unpack.changes import Changes, Found
    from ocitool.unpack.ownership import Open, OwnerOf

    Write = Callable[[bytes], object]

END: Final = bytes(2 * BLOCK)
_TYPES: Final = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BILLION: Final = 1_000_000_000


def pack(changes: Changes, root: Open, write: Write, *, owner_of: OwnerOf, latest: int | None) -> None:
    """Write a layer's tar stream.

    Args:
        changes: what it has to hold.
        root: opens the directory at a path, for whoever calls to close.
        write: takes the bytes.
        owner_of: tells whose a file is.
        latest: no file's time is after this, in nanoseconds, so that a build can be repeated.

    Raises:
        Unsupported: something has an owner that does not exist in the container, or a name that would be
            read as a whiteout.
    """
    # layer.md: "Implementations SHOULD generate layers such that the whiteout files appear before sibling
    # directory entries."
    for path in changes.removed:
        directory, _, name = path.rpartition(b"/")
        whiteout = (directory + b"/" if directory else b"") + MARK + name
        write(_pax(_records(whiteout, b"", {})) + _header(whiteout, b"0", {}))
    seen: dict[tuple[int, int], bytes] = {}
    for found in changes.changed:
        kind = stat.S_IFMT(found.status.st_mode)
        if kind == stat.S_IFSOCK:
            continue  # tar has no type for one, and it is of no use without its process
        if found.path.rpartition(b"/")[2].startswith(MARK):
            # layer.md: "it is not possible to create a filesystem which has a file or directory with a name
            # beginning with `.wh.`."
            raise Unsupported(
                f"{shown(found.path)} can't be in a layer, where such a name removes a file",
                hint="give it another name, or remove it",
            )
        inode = found.status.st_dev, found.status.st_ino
        first = (
            seen.setdefault(inode, found.path) if found.status.st_nlink > 1 and kind != stat.S_IFDIR else b""
        )
        if first and first != found.path:
            write(_entry(found, b"1", first, 0, owner_of(found, root), latest))
            continue
        size = found.status.st_size if kind == stat.S_IFREG else 0
        write(_entry(found, _TYPES[kind], found.link, size, owner_of(found, root), latest))
        if size:
            _body(found, root, write)
    write(END)


def _entry(
    found: Found, typeflag: bytes, link: bytes, size: int, owner: tuple[int, int], latest: int | None
) -> bytes:
    time = found.status.st_mtime_ns if latest is None else min(found.status.st_mtime_ns, latest)
    fields: dict[str, int] = {
        "mode": stat.S_IMODE(found.status.st_mode),
        "uid": owner[0],
        "gid": owner[1],
        "size": size,
        "mtime": time // _BILLION,
        "major": os.major(found.status.st_rdev) if typeflag in b"34" else 0,
        "minor": os.minor(found.status.st_rdev) if typeflag in b"34" else 0,
    }
    name = (found.path or b".") + (b"/" if typeflag == b"5" else b"")
    records = _records(name, link, fields)
    if time % _BILLION or time < 0:
        records[b"mtime"] = _decimal(time)
    for key, value in found.xattrs:
        if key != RECORD and not key.startswith((b"trusted.overlay.", b"user.overlay.")):
            records[b"SCHILY.xattr." + key] = value
    return _pax(records) + _header(name, typeflag, fields, link)


def _records(name: bytes, link: bytes, fields: dict[str, int]) -> dict[bytes, bytes]:
    """What does not fit into a header, which then holds what does."""
    records = {}
    if len(name) > 100 or not name.isascii():
        records[b"path"] = name
    if len(link) > 100 or not link.isascii():
        records[b"linkpath"] = link
    for key, digits in (("uid", 7), ("gid", 7), ("size", 11), ("mtime", 11)):
        if not 0 <= fields.get(key, 0) < 8**digits:
            records[key.encode()] = b"%d" % fields[key]
            fields[key] = 0
    return records


def _body(found: Found, root: Open, write: Write) -> None:
    directory, _, name = found.path.rpartition(b"/")
    parent = root(directory)
    try:
        fd = os.open(name, _READ, dir_fd=parent)
    finally:
        os.close(parent)
    left = found.status.st_size
    try:
        while left and (piece := os.read(fd, min(left, CHUNK))):
            write(piece)
            left -= len(piece)
    finally:
        os.close(fd)
    if left:
        raise OciError(f"{shown(found.path)} became shorter while it was being packed")
    write(bytes(-found.status.st_size % BLOCK))


def _header(name: bytes, typeflag: bytes, fields: dict[str, int], link: bytes = b"") -> bytes:
    def octal(key: str, width: int) -> bytes:
        return b"%0*o\0" % (width - 1, fields.get(key, 0))

    block = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            b"%07o\0" % fields.get("mode", 0o644),
            octal("uid", 8),
            octal("gid", 8),
            octal("size", 12),
            octal("mtime", 12),
            b" " * 8,
            typeflag,
            link[:100].ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),
            octal("major", 8),
            octal("minor", 8),
            bytes(167),
        )
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _pax(records: dict[bytes, bytes]) -> bytes:
    if not records:
        return b""
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    return _header(b"PaxHeaders/x", b"x", {"size": len(data)}) + data + bytes(-len(data) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return b"%d" % length + body


def _decimal(time: int) -> bytes:
    sign, time = (b"-", -time) if time < 0 else (b"", time)
    return sign + b"%d.%09d" % divmod(time, _BILLION)
