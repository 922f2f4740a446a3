"""Tar archives byte by byte, hostile ones too: nothing here refuses anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

END = bytes(1024)
USTAR = b"ustar\x0000"
GNU = b"ustar  \0"
V7 = bytes(8)
MTIME = 1_700_000_000


def header(
    name: bytes,
    typeflag: bytes = b"0",
    *,
    size: int | bytes = 0,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = MTIME,
    link: bytes = b"",
    magic: bytes = USTAR,
    major: int | bytes = 0,
    minor: int | bytes = 0,
    prefix: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """One header block; a number given as bytes stands as it is."""
    tail = prefix if len(prefix) > 155 else prefix.ljust(155, b"\0") + bytes(12)
    block = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            octal(mode, 8),
            octal(uid, 8),
            octal(gid, 8),
            octal(size, 12),
            octal(mtime, 12),
            b" " * 8,
            typeflag,
            link[:100].ljust(100, b"\0"),
            magic,
            bytes(64),
            octal(major, 8),
            octal(minor, 8),
            tail,
        )
    )
    assert len(block) == 512
    total = b"%06o\0 " % sum(block) if checksum is None else checksum
    return block[:148] + total + block[156:]


def octal(value: int | bytes, width: int) -> bytes:
    """A number as a header holds it: octal digits where they suffice, GNU's binary form elsewhere."""
    if isinstance(value, bytes):
        return value.ljust(width, b"\0")
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    bits = 8 * width - 1
    return ((value & ((1 << bits) - 1)) | (1 << bits)).to_bytes(width)


def padded(data: bytes) -> bytes:
    """Data, filled up to whole blocks."""
    return data + bytes(-len(data) % 512)


def file(name: bytes, data: bytes = b"", **fields: object) -> bytes:
    """A regular file; a long name gets a GNU header."""
    return long_name(name) + header(name, **{"size": len(data), **fields}) + padded(data)  # type: ignore[arg-type]


def directory(name: bytes, **fields: object) -> bytes:
    """A directory."""
    return long_name(name) + header(name, b"5", **{"mode": 0o755, **fields})  # type: ignore[arg-type]


def symlink(name: bytes, target: bytes, **fields: object) -> bytes:
    """A symbolic link."""
    return (
        long_name(name)
        + long_name(target, b"K")
        + header(name, b"2", **{"mode": 0o777, "link": target, **fields})  # type: ignore[arg-type]
    )


def hardlink(name: bytes, target: bytes, **fields: object) -> bytes:
    """A hard link."""
    return long_name(name) + long_name(target, b"K") + header(name, b"1", **{"link": target, **fields})  # type: ignore[arg-type]


def fifo(name: bytes, **fields: object) -> bytes:
    """A FIFO."""
    return header(name, b"6", **fields)  # type: ignore[arg-type]


def device(name: bytes, major: int, minor: int, typeflag: bytes = b"3", **fields: object) -> bytes:
    """A character device, or a block device."""
    return header(name, typeflag, **{"major": major, "minor": minor, **fields})  # type: ignore[arg-type]


def long_name(name: bytes, typeflag: bytes = b"L") -> bytes:
    """GNU's header for a name, or a link's target, that does not fit into a field."""
    return extension(typeflag, name + b"\0") if len(name) > 100 else b""


def extension(typeflag: bytes, data: bytes) -> bytes:
    """A header that describes the next one."""
    return header(b"././@LongLink", typeflag, size=len(data), magic=GNU) + padded(data)


def pax(records: Mapping[bytes, bytes] | list[tuple[bytes, bytes]], typeflag: bytes = b"x") -> bytes:
    """A PAX header; a list may name a key twice."""
    pairs = records if isinstance(records, list) else list(records.items())
    data = b"".join(record(key, value) for key, value in pairs)
    return header(b"PaxHeaders/x", typeflag, size=len(data)) + padded(data)


def record(key: bytes, value: bytes) -> bytes:
    """One PAX record, which starts with its own length."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + len(str(len(body)))
    while len(str(length)) + len(body) != length:
        length += 1
    return str(length).encode() + body


def archive(*entries: bytes) -> bytes:
    """An archive with its end."""
    return b"".join(entries) + END
