"""Files with holes, in the four ways that GNU tar has written them ("Storing Sparse Files").

image-spec, layer.md: "Sparse files SHOULD NOT be used because they lack consistent support across tar
implementations." Real layers hold them all the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ocitool import limits
from ocitool.errors import InvalidContent, UnsafeContent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Extents = list[tuple[int, int]]

MAX_EXTENTS: Final = limits.TAR_HEADER_BYTES // 24
_BLOCK: Final = 512
_MAX_SIZE: Final = (1 << 63) - 1
_DIGITS: Final = re.compile(rb"[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Sparse:
    """Where the bytes of a body belong.

    Attributes:
        size: the size of the whole file, holes included, in bytes.
        extents: offset and length of each piece that is not a hole, in the body's order.
    """

    size: int
    extents: tuple[tuple[int, int], ...]

    def check(self, stored: int) -> None:
        """Compare the map with the number of bytes in the archive.

        Raises:
            InvalidContent: the pieces overlap, are out of order or out of the file, or are not what is there.
        """
        end = total = 0
        for offset, length in self.extents:
            if offset < end or length < 0:
                raise InvalidContent("a sparse file's extents overlap or are out of order")
            end = offset + length
            total += length
        if not end <= self.size <= _MAX_SIZE:
            raise InvalidContent(f"a sparse file's extents end at {end}, the file at {self.size}")
        if total != stored:
            raise InvalidContent(f"a sparse file has {stored} bytes; its map promises {total}")


def gnu_extents(table: bytes, number: Callable[[bytes], int]) -> Extents:
    """The extents of a GNU header: pairs of 12 bytes, up to the first empty one."""
    extents = []
    for at in range(0, len(table), 24):
        if not table[at]:
            break
        extents.append((number(table[at : at + 12]), number(table[at + 12 : at + 24])))
    return extents


def pax_sparse(records: Mapping[bytes, bytes], take_body: Callable[[int], bytes]) -> Sparse:
    """The map that a PAX header holds (versions 0.0 and 0.1), or that starts the body (1.0).

    Args:
        records: the header's `GNU.sparse.*` records.
        take_body: takes bytes off the start of the body.

    Raises:
        InvalidContent: there is no map, or it is not one.
        UnsafeContent: it is longer than any real one.
    """
    major, minor = records.get(b"GNU.sparse.major"), records.get(b"GNU.sparse.minor")
    if (major, minor) == (b"1", b"0"):
        size = _integer(records.get(b"GNU.sparse.realsize", b""))
        numbers = _body_numbers(take_body)
    elif major in {None, b"0"}:
        size = _integer(records.get(b"GNU.sparse.size", b""))
        listed = records.get(b"GNU.sparse.map", b"")
        numbers = [_integer(part) for part in listed.split(b",")] if listed else []
        count = records.get(b"GNU.sparse.numblocks")
        if count is not None and _integer(count) != len(numbers) // 2:
            raise InvalidContent("a sparse file's map has not as many extents as it says")
    else:
        raise InvalidContent(f"a sparse file has the unknown format {major!r}.{minor!r}")
    if len(numbers) % 2:
        raise InvalidContent("a sparse file's map has not one length for each offset")
    return Sparse(size, tuple(zip(numbers[::2], numbers[1::2], strict=True)))


def _body_numbers(take_body: Callable[[int], bytes]) -> list[int]:
    """Decimal numbers, one to a line, the first saying how many pairs follow; padded to a whole block."""
    lines = take_body(_BLOCK).split(b"\n")
    count = _integer(lines[0])
    if count > MAX_EXTENTS:
        raise UnsafeContent(f"a sparse file has {count} extents; at most {MAX_EXTENTS} are read")
    parts = lines[1:]
    while len(parts) <= 2 * count:  # the last part is what follows the last newline
        more = take_body(_BLOCK).split(b"\n")
        parts[-1] += more[0]
        parts += more[1:]
    return [_integer(part) for part in parts[: 2 * count]]


def _integer(text: bytes) -> int:
    if not _DIGITS.fullmatch(text):
        raise InvalidContent(f"a sparse file's map holds {text[:40]!r} where a number should be")
    return int(text)
