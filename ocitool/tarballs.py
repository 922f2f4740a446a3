"""Tar files that hold files: written with the same bytes every time, read by position.

Image layouts travel in tar files (oci-archive, bundles). This is what both need and no more: regular files,
found by their offset so that none has to be unpacked. Layers, with all that tar can say about a file, are
read by `ocitool.unpack`.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from ocitool import limits
from ocitool.errors import IntegrityError, InvalidContent, InvalidReference, UnsafeContent

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
"""What ends an archive."""

# name mode uid gid size mtime chksum typeflag linkname magic+version uname gname devmajor devminor prefix
_HEADER: Final = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_MAGICS: Final = (b"ustar\x0000", b"ustar  \0")
_MAX_OCTAL: Final = 8**11 - 1
_MAX_SIZE: Final = (1 << 63) - 1
_FILES: Final = frozenset({b"0", b"\0"})
_LINKS: Final = frozenset({b"1", b"2"})
# Writers pad the end to their record size; the largest that GNU tar's manual speaks of is far below this.
_MAX_TRAILER: Final = 16 * limits.MIB


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar file.

    Attributes:
        name: its path, without `./` in front.
        offset: where its content starts, in bytes from the start of the tar file.
        size: how long its content is, in bytes.
        link: what it is a link to, or "" for a regular file; hard links and symbolic ones alike.
    """

    name: str
    offset: int
    size: int
    link: str = ""


class Positioned(Protocol):
    """Bytes that can be read anywhere."""

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def read_at(self, offset: int, count: int, /) -> bytes:
        """`count` bytes from `offset` on; fewer only at the end."""
        ...


def header(name: str, size: int, mtime: int = 0) -> bytes:
    """What stands before a regular file's content: ustar, with a PAX record only for what ustar can't say.

    Args:
        name: its path.
        size: its size in bytes.
        mtime: its time of change, in seconds since 1970.
    """
    path = name.encode()
    records = b""
    if len(path) > 100:
        records += _record("path", name)
    if size > _MAX_OCTAL:
        records += _record("size", str(size))
    plain = _block(path[:100], size if size <= _MAX_OCTAL else 0, mtime, b"0")
    if not records:
        return plain
    extended = _block(b"PaxHeaders/" + path[-80:].replace(b"/", b"-"), len(records), mtime, b"x")
    return extended + records + bytes(padding(len(records))) + plain


def source_date_epoch() -> int:
    """The time that all members get; see https://reproducible-builds.org/specs/source-date-epoch/.

    Raises:
        InvalidReference: the environment variable is no number of seconds.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", "0")
    # Eleven octal digits is what a tar header has room for.
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        raise InvalidReference(f"SOURCE_DATE_EPOCH is {text!r:.40}, which is no number of seconds")
    return int(text)


def padding(size: int) -> int:
    """How many zeros follow a content of this size."""
    return -size % BLOCK


def _record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode()
    # The length counts its own digits.
    length = len(body) + len(str(len(body)))
    length = len(body) + len(str(length))
    return str(length).encode() + body


def _block(name: bytes, size: int, mtime: int, kind: bytes) -> bytes:
    fields = (
        name, b"0000644\0", b"0000000\0", b"0000000\0", b"%011o\0" % size, b"%011o\0" % mtime, b" " * 8, kind,
        b"", b"ustar\x0000", b"", b"", b"0000000\0", b"0000000\0", b"",
    )  # fmt: skip
    total = sum(_HEADER.pack(*fields))
    return _HEADER.pack(*fields[:6], b"%06o\0 " % total, *fields[7:])


def members(file: Positioned, what: str) -> Iterator[Member]:
    """The files and links of a tar file, in order, without reading their content.

    Directories are passed over. Two members of one name are refused, because readers differ in which
    of them they take.

    Args:
        file: the tar file.
        what: how to call it in an error.

    Raises:
        IntegrityError: the file ends early.
        InvalidContent: it is no tar file, or holds what no image layout does.
        UnsafeContent: a path leaves the archive, or a limit is exceeded.
    """
    seen: set[str] = set()
    for member in _Scan(file, what):
        if member.name in seen:
            raise InvalidContent(f"{what} holds {member.name} twice")
        seen.add(member.name)
        yield member


class _Scan:
    """One pass over the headers."""

    def __init__(self, file: Positioned, what: str) -> None:
        self._file = file
        self._what = what
        self._at = 0

    def __iter__(self) -> Iterator[Member]:
        records: dict[str, str] = {}
        for _ in range(limits.TAR_ENTRIES):
            block = self._take(BLOCK)
            if block == bytes(BLOCK):
                self._end()
                return
            fields = self._fields(block)
            kind, size = fields[7], self._number(fields[4])
            if kind in {b"x", b"L", b"g"}:
                # A global header says something about every file; nothing that it may say matters here.
                more = self._extension(kind, size)
                records |= {} if kind == b"g" else more
                continue
            yield from self._member(fields, kind, size, records)
            records = {}
        raise UnsafeContent(f"{self._what} has more than {limits.TAR_ENTRIES} entries")

    def _member(
        self, fields: tuple[bytes, ...], kind: bytes, size: int, records: dict[str, str]
    ) -> Iterator[Member]:
        size = self._declared(records["size"]) if "size" in records else size
        name = records.get("path") or self._name(fields)
        if kind == b"5":
            if size:
                raise InvalidContent(f"{self._what}: the directory {name!r:.80} has a content")
            return
        if kind in _LINKS:
            yield Member(self._inside(name), self._at, 0, records.get("linkpath") or self._text(fields[8]))
            return
        if kind not in _FILES:
            raise InvalidContent(f"{self._what}: {name!r:.80} is neither a file nor a directory")
        member = Member(self._inside(name), self._at, size)
        if self._at + size + padding(size) > self._file.size:
            raise self._truncated(f"in the middle of {member.name}")
        self._at += size + padding(size)
        yield member

    def _take(self, count: int) -> bytes:
        data = self._file.read_at(self._at, count)
        if len(data) < count:
            raise self._truncated("without an end mark")
        self._at += count
        return data

    def _truncated(self, how: str) -> IntegrityError:
        return IntegrityError(
            f"{self._what} is truncated: it ends after {self._file.size} bytes, {how}",
            actual=str(self._file.size),
        )

    def _fields(self, block: bytes) -> tuple[bytes, ...]:
        fields: tuple[bytes, ...] = _HEADER.unpack(block)
        total = sum(block) - sum(fields[6]) + 8 * ord(" ")
        if fields[9] not in _MAGICS or self._number(fields[6]) != total:
            raise InvalidContent(
                f"{self._what} is no tar file: its header at byte {self._at - BLOCK} is broken"
            )
        return fields

    def _number(self, field: bytes) -> int:
        text = field.strip(b" \0")
        if field[0] & 0x80:  # GNU's base 256, for sizes that octal digits can't hold
            text = b"%o" % int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if text and not text.isdigit():
            raise InvalidContent(f"{self._what} holds {field!r} where a number should stand")
        try:
            value = int(text or b"0", 8)
        except ValueError as error:
            raise InvalidContent(f"{self._what} holds {field!r} where a number should stand") from error
        if value > _MAX_SIZE:
            raise InvalidContent(f"{self._what} holds a size of {value} bytes")
        return value

    def _declared(self, text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= _MAX_SIZE):
            raise InvalidContent(f"{self._what} declares the size {text!r:.40}")
        return int(text)

    def _extension(self, kind: bytes, size: int) -> dict[str, str]:
        if size > limits.TAR_HEADER_BYTES:
            raise UnsafeContent(f"{self._what} has a header of {size} bytes")
        data = self._take(size + padding(size))[:size]
        if kind == b"L":
            return {"path": self._text(data)}
        records = {}
        while data:
            length, _, rest = data.partition(b" ")
            end = int(length) if length.isdigit() and len(length) < 10 else 0
            record, data = data[len(length) + 1 : end], data[end:]
            key, equals, value = record.partition(b"=")
            if not rest or not equals or not record.endswith(b"\n"):
                raise InvalidContent(f"{self._what} has a broken PAX header")
            if key.startswith(b"GNU.sparse"):
                raise InvalidContent(
                    f"{self._what} has a file with holes, whose bytes are not those of its content"
                )
            records[self._text(key)] = self._text(value[:-1])
        return records

    def _name(self, fields: tuple[bytes, ...]) -> str:
        name, prefix = self._text(fields[0]), fields[14]
        # GNU's old format keeps times where ustar has the prefix.
        if fields[9] == _MAGICS[0] and prefix.strip(b"\0"):
            return f"{self._text(prefix)}/{name}"
        return name

    def _text(self, field: bytes) -> str:
        try:
            return field.partition(b"\0")[0].decode()
        except UnicodeDecodeError as error:
            raise InvalidContent(f"{self._what} has a name that is not UTF-8: {field!r:.80}") from error

    def _inside(self, name: str) -> str:
        plain = name.removeprefix("./")
        if len(plain.encode()) > limits.PATH_BYTES or any(
            part in {"", ".", ".."} for part in plain.split("/")
        ):
            raise UnsafeContent(f"{self._what} has a member named {name!r:.80}")
        return plain

    def _end(self) -> None:
        """Make sure that nothing follows that another reader would see."""
        left = self._file.size - self._at
        if left < BLOCK:
            raise self._truncated("without an end mark")
        if left > _MAX_TRAILER:
            raise UnsafeContent(f"{self._what} has {left} bytes after its end mark")
        if self._file.read_at(self._at, left).strip(b"\0"):
            raise InvalidContent(f"{self._what} goes on after its end mark")
