"""The fields of a tar header: numbers, and the checksum over all of them."""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Final

from ocitool.errors import InvalidContent
from ocitool.unpack import pax

_MAX_MAJOR: Final = (1 << 12) - 1
_MAX_MINOR: Final = (1 << 20) - 1
_MAX_MODE: Final = (1 << 32) - 1
_MAX_SIZE: Final = (1 << 63) - 1


def device(block: bytes) -> tuple[int, int]:
    """A device's major and minor number.

    Raises:
        InvalidContent: the kernel has no such device.
    """
    major, minor = number(block[329:337]), number(block[337:345])
    if not (0 <= major <= _MAX_MAJOR and 0 <= minor <= _MAX_MINOR):
        raise InvalidContent(f"a device has the impossible numbers {major}:{minor}")
    return major, minor


def number(field: bytes) -> int:
    """A header's number: octal digits, or GNU's binary form where they don't suffice.

    Raises:
        InvalidContent: it is neither.
    """
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field) & ((1 << bits) - 1)
        return value - (1 << bits) if field[0] & 0x40 else value
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        raise InvalidContent(f"{field!r} stands where a number should")
    return int(digits, 8) if digits else 0


@lru_cache(maxsize=4096)
def size_of(field: bytes) -> int:
    """A size in bytes.

    Raises:
        InvalidContent: it is negative, or larger than any file.
    """
    size = number(field)
    if not 0 <= size <= _MAX_SIZE:
        raise InvalidContent(f"an entry has the size {size}")
    return size


@lru_cache(maxsize=1024)
def who(fields: bytes) -> tuple[int, int, int]:
    """Mode, user and group: a layer has few different ones, so they are read together and kept.

    Raises:
        InvalidContent: one of them is out of range.
    """
    mode, uid, gid = (number(fields[at : at + 8]) for at in (0, 8, 16))
    if not 0 <= mode <= _MAX_MODE:
        raise InvalidContent(f"an entry has the mode {mode}")
    return mode & 0o7777, pax.check_identity(uid), pax.check_identity(gid)


@lru_cache(maxsize=4096)
def mtime_of(field: bytes) -> int:
    """A time in nanoseconds."""
    return pax.clamp(number(field) * 1_000_000_000)


@lru_cache(maxsize=4096)
def _stored_sum(field: bytes) -> int:
    """What a header's bytes, the checksum's own among them, add up to if it is right, plus one."""
    try:
        return number(field) - 8 * ord(" ") + sum(field) + 1
    except InvalidContent:
        return -1


def check_sum(block: bytes) -> None:
    """Compare a header with its checksum: the sum of its bytes, the checksum's own taken as spaces.

    Raises:
        InvalidContent: they differ.
    """
    field = block[148:156]
    stored = _stored_sum(field)
    if block.isascii():
        # The low half of Adler-32 is one more than the sum, modulo 65521: more than 512 times 127.
        if (zlib.adler32(block) & 0xFFFF) == stored:
            return
    else:
        # Some old writers summed signed bytes.
        total = sum(block) + 1
        if stored in {total, total - 256 * sum(byte > 127 for byte in block)}:
            return
    raise InvalidContent("the layer is corrupt: a header's checksum is wrong")
