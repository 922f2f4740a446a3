"""Tar archives: bytes in, validated entries out; nothing here touches a file system.

Reads what layers hold (image-spec, layer.md): v7, ustar, GNU with long names and sparse files, and PAX.
Where two readers of tar would see different trees in the same bytes (a size given twice, a body behind
a directory, something after the end), the archive is refused rather than guessed at: what was scanned
must be what is unpacked.
"""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from ocitool import limits
from ocitool.errors import InvalidContent, UnsafeContent
from ocitool.streams import CHUNK
from ocitool.unpack import pax
from ocitool.unpack.fields import check_sum, device, mtime_of, number, size_of, who
from ocitool.unpack.sparse import MAX_EXTENTS, Sparse, gnu_extents, pax_sparse
from ocitool.unpack.whiteouts import MARK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ocitool.streams import Reader

BLOCK: Final = 512
# name, mode with uid and gid, size, mtime, checksum, typeflag, linkname, magic, version with uname, gname
# and device numbers, prefix
_HEADER: Final = struct.Struct("100s24s12s12s8xc100s6s82x155s12x")
_ZEROS: Final = bytes(BLOCK)
_USTAR: Final = b"ustar\0"
_GNU: Final = b"ustar  \0"
_MAX_GLOBALS: Final = 100
_PAX, _LONG_NAME, _LONG_LINK, _GLOBAL = b"xLKg"
_EXTENSIONS: Final = frozenset(b"xLK")
_NEEDS_NO_CARE: Final = b"0"  # whatever sorts after this starts with neither a dot nor a slash, nor is empty
_NO_PREFIX: Final = b"\0"


class Kind(enum.Enum):
    """What an entry makes."""

    FILE = "file"
    HARDLINK = "hard link"
    SYMLINK = "symbolic link"
    CHARACTER = "character device"
    BLOCK = "block device"
    DIRECTORY = "directory"
    FIFO = "FIFO"


# Names of our own, because a look-up of an enum's member calls back into Python.
FILE: Final = Kind.FILE
_HARDLINK: Final = Kind.HARDLINK
_KINDS: Final = {
    b"0": FILE,
    b"\0": FILE,
    b"7": FILE,
    b"1": _HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
    b"S": FILE,
}
_LINKS: Final = frozenset({b"1", b"2"})
_DEVICES: Final = frozenset({b"3", b"4"})
_NO_DEVICE: Final = (0, 0)


class Entry(NamedTuple):
    """One entry of a layer, with every number in its range and every path inside the root.

    A tuple, because a layer has tens of thousands of them.

    Attributes:
        kind: what it makes.
        path: where, relative to the root: no empty, `.` or `..` component; b"" is the root itself.
        mode: permission bits, 0 to 0o7777.
        uid: the owner, 0 to 2**32 - 2.
        gid: the group, likewise.
        mtime: the time of the last change, in nanoseconds since 1970, within 64 bits.
        size: how many bytes of body there are in the archive.
        link: a symbolic link's target as it stands; a hard link's target, made as `path` is.
        device: a device's major and minor number.
        xattrs: extended attributes by name.
        sparse: where the body's bytes belong, for a file with holes.
    """

    kind: Kind
    path: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    sparse: Sparse | None = None


class Archive:
    """The entries of one tar stream, in order, each with its body.

    Iterate once; during an iteration step `body` gives the bytes of the entry at hand. The end of the
    iteration means that the archive ended as it should and that nothing follows it.

    Raises (from iteration and from `body`):
        InvalidContent: the stream is no tar archive, or one that readers understand differently.
        UnsafeContent: it exceeds a limit.
    """

    def __init__(self, reader: Reader, *, max_entries: int = limits.TAR_ENTRIES) -> None:
        self._reader = reader
        self._max_entries = max_entries
        self._chunk = b""
        self._pos = 0
        self._end = 0
        self._offset = 0  # of the chunk's end in the stream
        self._left = 0  # of the entry's body
        self._padding = 0
        self._globals = 0

    def __iter__(self) -> Iterator[Entry]:
        for _ in range(self._max_entries + 1):
            block = self._take(BLOCK)
            while block[156] == _GLOBAL:
                self._pass_over_remarks(block)
                block = self._take(BLOCK)
            if block == _ZEROS:
                self._finish()
                return
            yield self._extended(block) if block[156] in _EXTENSIONS else self._entry(block)
            after = self._pos + self._left + self._padding
            if after <= self._end:
                self._pos = after
            else:
                self._skip()
        raise UnsafeContent(f"the archive has more than {self._max_entries} entries")

    def body(self) -> Iterable[memoryview]:
        """The bytes of the entry at hand, piece by piece; what is not read of them is skipped."""
        size, start = self._left, self._pos
        end = start + size
        if end <= self._end:  # nearly every file of a layer
            self._left = 0
            self._pos = end
            return (memoryview(self._chunk)[start:end],)
        return self._long_body()

    @property
    def where(self) -> str:
        """The place of the next unread byte, for an error."""
        return f"at byte {self._offset - self._end + self._pos} of the archive"

    # Reading the stream

    def _long_body(self) -> Iterator[memoryview]:
        while self._left:
            if self._pos == self._end:
                self._refill()
            size = min(self._left, self._end - self._pos)
            start = self._pos
            self._pos += size
            self._left -= size
            yield memoryview(self._chunk)[start : start + size]

    def _refill(self) -> None:
        if not self._advance():
            raise InvalidContent(f"the archive is truncated {self.where}")

    def _advance(self) -> bool:
        self._chunk = self._reader.read(CHUNK)
        self._pos = 0
        self._end = len(self._chunk)
        self._offset += self._end
        return bool(self._chunk)

    def _skip(self) -> None:
        left = self._left + self._padding
        while left > self._end - self._pos:
            left -= self._end - self._pos
            self._refill()
        self._pos += left

    def _take(self, size: int) -> bytes:
        start = self._pos
        end = start + size
        if end <= self._end:
            self._pos = end
            return self._chunk[start:end]
        parts = []
        while size:
            if self._pos == self._end:
                self._refill()
            part = self._chunk[self._pos : self._pos + size]
            self._pos += len(part)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    # Headers

    def _pass_over_remarks(self, block: bytes) -> None:
        # A global header changes every later entry for one reader, and nothing for another.
        pax.check_global(self._extension(block))
        self._globals += 1
        if self._globals > _MAX_GLOBALS:
            raise UnsafeContent(f"the archive has more than {_MAX_GLOBALS} global headers")

    def _extended(self, block: bytes) -> Entry:
        """An entry that has headers of its own before it."""
        seen: dict[int, bytes] = {}
        while (typeflag := block[156]) in _EXTENSIONS:
            if typeflag in seen:
                raise InvalidContent(f"an entry has two {chr(typeflag)} headers {self.where}")
            seen[typeflag] = self._extension(block)
            block = self._take(BLOCK)
        extra = pax.parse(seen[_PAX]) if _PAX in seen else pax.NOTHING
        name, link = (seen.get(key, b"").partition(b"\0")[0] for key in (_LONG_NAME, _LONG_LINK))
        if (name and extra.path) or (link and extra.link):
            raise InvalidContent(f"an entry has a GNU and a PAX name, and readers differ {self.where}")
        return self._entry(block, extra, name, link)

    def _extension(self, block: bytes) -> bytes:
        check_sum(block)
        size = number(block[124:136])
        if not 0 <= size <= limits.TAR_HEADER_BYTES:
            raise UnsafeContent(
                f"an extension header is {size} bytes long; at most {limits.TAR_HEADER_BYTES} are read"
                f" {self.where}"
            )
        data = self._take(size)
        self._take(-size % BLOCK)
        return data

    def _finish(self) -> None:
        # POSIX.1-2017, pax: "At the end of the archive file there shall be two 512-octet logical records
        # filled with binary zeros". One alone may be damage that hides what follows.
        if self._take(BLOCK) != _ZEROS:
            raise InvalidContent(f"the archive goes on after a lone block of zeros {self.where}")
        rest = self._chunk[self._pos : self._end]
        while not rest.strip(b"\0"):
            if not self._advance():
                return
            rest = self._chunk
        raise InvalidContent(f"the archive is followed by something else {self.where}")

    def _entry(
        self,
        block: bytes,
        extra: pax.Extra = pax.NOTHING,
        long_name: bytes = b"",
        long_link: bytes = b"",
    ) -> Entry:
        try:
            check_sum(block)
            return self._parse(block, extra, long_name, long_link)
        except InvalidContent as error:
            error.add_note(f"in the header {self.where}")
            raise

    def _parse(self, block: bytes, extra: pax.Extra, long_name: bytes, long_link: bytes) -> Entry:
        name, people, size, mtime, typeflag, link, magic, prefix = _HEADER.unpack(block)
        kind = _KINDS.get(typeflag)
        if kind is None:
            raise InvalidContent(f"the archive holds an entry of the unknown type {typeflag!r}")
        path, link_path, length, uid, gid, time, xattrs, sparse_records = extra
        name = path or long_name or _name(name, prefix if magic == _USTAR else _NO_PREFIX)
        if not name:
            raise InvalidContent("the archive holds an entry without a name")
        if length is None:
            length = size_of(size)
        if kind is FILE:
            if name[-1:] == b"/":
                kind = _directory_by_name(name, typeflag)
        elif length:
            raise InvalidContent(f"{shown(name)} is a {kind.value} with a body, and readers differ")
        self._left = length
        self._padding = -length % BLOCK
        sparse = None
        if typeflag == b"S" or sparse_records:
            sparse, name = self._sparse(kind, block, extra, name)
        mode, owner, group = who(people)
        return Entry(
            kind,
            clean(name),
            mode,
            owner if uid is None else uid,
            group if gid is None else gid,
            mtime_of(mtime) if time is None else time,
            self._left,
            _link(kind, link_path or long_link or _c_string(link), name) if typeflag in _LINKS else b"",
            device(block) if typeflag in _DEVICES else _NO_DEVICE,
            xattrs,
            sparse,
        )

    def _sparse(self, kind: Kind, block: bytes, extra: pax.Extra, name: bytes) -> tuple[Sparse, bytes]:
        if kind is not FILE:
            raise InvalidContent(f"{shown(name)} is a sparse {kind.value}")
        if block[156:157] == b"S":
            sparse = self._gnu_sparse(block)
        else:
            sparse = pax_sparse(extra.sparse, self._take_body)
            name = extra.sparse.get(b"GNU.sparse.name", name)
        sparse.check(self._left)
        return sparse, name

    def _take_body(self, size: int) -> bytes:
        """Part of a body that is really a header (PAX sparse files, version 1.0)."""
        if size > self._left:
            raise InvalidContent("a sparse file's map is longer than the file")
        self._left -= size
        return self._take(size)

    def _gnu_sparse(self, block: bytes) -> Sparse:
        if block[257:265] != _GNU:
            raise InvalidContent("a sparse file of GNU's kind stands in an archive that is not GNU's")
        extents = gnu_extents(block[386:482], number)
        size, more = number(block[483:495]), block[482]
        while more:
            if len(extents) > MAX_EXTENTS:
                raise UnsafeContent(f"a sparse file has more than {MAX_EXTENTS} extents")
            block = self._take(BLOCK)
            extents += gnu_extents(block[:504], number)
            more = block[504]
        return Sparse(size, tuple(extents))


def clean(raw: bytes) -> bytes:
    """A path relative to the root, as other unpackers read it: `..` at the root stays there.

    Raises:
        InvalidContent: it holds a NUL.
        UnsafeContent: it is longer than a file system takes.
    """
    path = raw[2:] if raw[:2] == b"./" else raw
    # `find`, because `in` takes four times as long with bytes: it tries them for a number first.
    if path.find(b"/.") >= 0 or path.find(b"//") >= 0 or path < _NEEDS_NO_CARE:
        path = _normal(path)
    elif path[-1:] == b"/":
        path = path[:-1]
    if 0 in path:
        raise InvalidContent(f"the path {shown(raw)} holds a NUL byte")
    if len(path) > limits.NAME_BYTES:
        # A whiteout's mark is never part of a file's name.
        longest = max(len(part.removeprefix(MARK)) for part in path.split(b"/"))
        if len(path) > limits.PATH_BYTES or longest > limits.NAME_BYTES:
            raise UnsafeContent(
                f"the path {shown(raw)} is too long ({len(path)} bytes, its longest part {longest})"
            )
    return path


def shown(name: bytes) -> str:
    """A name for an error, on one line and not too long."""
    text = repr(name[:200].decode("utf-8", "backslashreplace"))
    return text if len(name) <= 200 else text + "…"


def _normal(path: bytes) -> bytes:
    kept: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            kept[-1:] = []
        elif part not in {b"", b"."}:
            kept.append(part)
    return b"/".join(kept)


def _c_string(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _name(name: bytes, prefix: bytes) -> bytes:
    name = name.partition(b"\0")[0]
    return prefix.partition(b"\0")[0] + b"/" + name if prefix[0] else name


def _directory_by_name(name: bytes, typeflag: bytes) -> Kind:
    # Before POSIX, a directory was a file whose name ends in a slash.
    if typeflag != b"\0":
        raise InvalidContent(f"{shown(name)} is a file to some readers and a directory to others")
    return Kind.DIRECTORY


def _link(kind: Kind, link: bytes, name: bytes) -> bytes:
    if kind is _HARDLINK:
        return clean(link)
    if not link or b"\0" in link or len(link) >= limits.PATH_BYTES:
        raise InvalidContent(f"the symbolic link {shown(name)} has the impossible target {shown(link)}")
    return link
