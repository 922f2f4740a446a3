"""Compressed streams, told apart by their first bytes and never by their media type.

Media types lie (Docker's plain layer type often holds gzip), first bytes don't.
"""

from __future__ import annotations

import enum
import zlib
from typing import TYPE_CHECKING, Final, Protocol, cast

from ocitool import limits
from ocitool.errors import InvalidContent, UnsafeContent
from ocitool.streams import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    from ocitool.streams import Reader

_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE_TAIL: Final = b"\x2a\x4d\x18"
_GZIP_MAGIC: Final = b"\x1f\x8b"
_MAGIC_BYTES: Final = 4
_FEED: Final = 16 << 10  # the first piece that a gzip member is fed with


class Compression(enum.Enum):
    """How a stream is compressed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


def detect(head: bytes) -> Compression:
    """Tell a stream's compression from its first four bytes (RFC 1952, RFC 8878)."""
    if head[:2] == _GZIP_MAGIC:
        return Compression.GZIP
    if head[:4] == _ZSTD_MAGIC or (
        0x50 <= int.from_bytes(head[:1]) <= 0x5F and head[1:4] == _ZSTD_SKIPPABLE_TAIL
    ):
        return Compression.ZSTD
    return Compression.NONE


def decompressed(reader: Reader, what: str, *, limit: int = limits.DECOMPRESSED_BYTES) -> Reader:
    """What a stream holds once decompressed: all gzip members, all zstd frames, to the very end.

    Args:
        reader: the compressed bytes, or plain ones, which pass unchanged.
        what: how to call the stream in an error ("layer sha256:…").
        limit: the largest size to produce, in bytes.

    Raises (from `read`):
        InvalidContent: the stream is corrupt, truncated, or followed by something else.
        UnsafeContent: it grows past `limit`, or past a sane ratio.
    """
    source = _Pushback(reader)
    kind = detect(source.peek(_MAGIC_BYTES))
    inflating: Reader
    if kind is Compression.GZIP:
        inflating = _GzipReader(source, what)
    elif kind is Compression.ZSTD:
        inflating = _zstd_reader(source, what)
    else:
        inflating = source
    return _Bounded(inflating, source, what, limit)


class _Pushback:
    """A reader whose first bytes can be looked at, and that counts what was taken from it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._head = b""
        self.taken = 0

    def peek(self, n: int) -> bytes:
        while len(self._head) < n and (more := self._reader.read(CHUNK)):
            self._head += more
        return self._head[:n]

    def read(self, n: int = -1, /) -> bytes:
        if self._head:
            data, self._head = (self._head, b"") if n < 0 else (self._head[:n], self._head[n:])
        else:
            data = self._reader.read(n)
        self.taken += len(data)
        return data


class _Bounded:
    """Passes on decompressed bytes until they are too many, in all or for what they came from."""

    def __init__(self, reader: Reader, source: _Pushback, what: str, limit: int) -> None:
        self._reader = reader
        self._source = source
        self._what = what
        self._limit = limit
        self._produced = 0

    def read(self, n: int = -1, /) -> bytes:
        if n < 0:
            parts = []
            while part := self.read(CHUNK):
                parts.append(part)
            return b"".join(parts)
        data = self._reader.read(n) if n else b""
        self._produced += len(data)
        if self._produced > self._limit:
            raise UnsafeContent(f"{self._what} is larger than {self._limit} bytes once decompressed")
        if self._produced > limits.RATIO_GRACE_BYTES and self._produced > self._source.taken * limits.RATIO:
            raise UnsafeContent(
                f"{self._what} grows more than {limits.RATIO} times when decompressed: it looks like a bomb"
            )
        return data


class _Inflate(Protocol):
    """One gzip member's decompressor, as `zlib._ZlibDecompressor` and isal's share it."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes: ...


class _ZlibInflate:
    """The same from what `zlib` makes public."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inflate.unconsumed_tail

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        # All of the tail has to be eaten before new input is asked for, so there is never both.
        return self._inflate.decompress(self._inflate.unconsumed_tail or data, max_length)


def _new_inflate() -> _Inflate:
    try:
        from isal import igzip_lib
    except ImportError:
        return _ZlibInflate()
    inflate: _Inflate = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    return inflate


class _GzipReader:
    """All members of a gzip stream, and the zeros that some tools pad it with."""

    def __init__(self, source: _Pushback, what: str) -> None:
        self._source = source
        self._what = what
        self._inflate: _Inflate | None = _new_inflate()
        self._pending = memoryview(b"")
        self._feed = _FEED
        self._empty_members = 0
        self._member_bytes = 0

    def read(self, n: int = -1, /) -> bytes:
        while self._inflate is not None:
            data = self._step(self._inflate, n)
            if data:
                self._member_bytes += len(data)
                return data
        return b""

    def _step(self, inflate: _Inflate, n: int) -> bytes:
        if inflate.eof:
            self._next_member(inflate)
            return b""
        # A member is fed by growing pieces: what is left of one at its end is copied, and a stream may have
        # a hundred thousand members.
        piece = memoryview(b"")
        if inflate.needs_input:
            if not self._pending:
                self._pending = memoryview(self._source.read(CHUNK))
                if not self._pending:
                    raise InvalidContent(f"{self._what} is truncated: its gzip stream has no end")
            piece, self._pending = self._pending[: self._feed], self._pending[self._feed :]
            self._feed = min(self._feed * 2, CHUNK)
        try:
            return inflate.decompress(piece, n)
        except Exception as error:
            # zlib.error and isal's IsalError share no base but Exception.
            raise InvalidContent(f"{self._what} is corrupt: {error}") from error

    def _next_member(self, inflate: _Inflate) -> None:
        self._empty_members = 0 if self._member_bytes else self._empty_members + 1
        if self._empty_members > limits.EMPTY_MEMBERS:
            raise UnsafeContent(f"{self._what} has more than {limits.EMPTY_MEMBERS} empty gzip members")
        self._member_bytes = 0
        self._feed = _FEED
        rest = _joined(inflate.unused_data, self._pending) or memoryview(self._source.read(CHUNK))
        if rest and not rest[0]:
            rest = self._after_zeros(rest)
        self._pending = rest
        if not rest:
            self._inflate = None
            return
        if rest[0] != _GZIP_MAGIC[0]:
            raise InvalidContent(f"{self._what} has something other than a gzip member after its gzip stream")
        self._inflate = _new_inflate()

    def _after_zeros(self, rest: memoryview) -> memoryview:
        """Pass over padding, which only the end may have."""
        data = bytes(rest)
        while data and not data.strip(b"\0"):
            data = self._source.read(CHUNK)
        if data:
            raise InvalidContent(f"{self._what} has something other than zeros after its gzip stream")
        return memoryview(b"")


def _joined(unused: bytes, pending: memoryview) -> memoryview:
    """What a member left over, and what follows it in the same chunk, without copying the chunk."""
    if not unused:
        return pending
    whole = pending.obj
    if isinstance(whole, bytes) and (start := len(whole) - len(pending) - len(unused)) >= 0:
        return memoryview(whole)[start:]
    return memoryview(unused + pending)


def _zstd_reader(source: _Pushback, what: str) -> Reader:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=limits.ZSTD_WINDOW_BYTES)
    # The library asks for no more of the source than `read`, whatever its annotation says.
    raw = cast("IO[bytes]", _ZstdFrames(source, what))
    return _ZstdReader(decompressor.stream_reader(raw, read_size=CHUNK, read_across_frames=True), what)


class _ZstdReader:
    """Turns the library's errors into ours."""

    def __init__(self, reader: Reader, what: str) -> None:
        self._reader = reader
        self._what = what

    def read(self, n: int = -1, /) -> bytes:
        import zstandard

        try:
            return self._reader.read(n)
        except zstandard.ZstdError as error:
            raise InvalidContent(f"{self._what} is corrupt: {error}") from error


class _ZstdFrames:
    """Passes on compressed bytes and follows the frames in them (RFC 8878, section 3.1).

    The library takes the end of its source for the end of the stream wherever it comes; this knows whether a
    frame was open. It also sees frames that hold nothing, and windows that nobody needs, before they cost.
    """

    def __init__(self, source: _Pushback, what: str) -> None:
        self._source = source
        self._what = what
        self._skip = 0  # bytes until the next header
        self._head = b""  # of a header that is not complete yet
        self._next: Callable[[bytes], None] = self._magic
        self._need = 4
        self._checksum = 0
        self._holds_something = False
        self._empty = 0

    def read(self, n: int = -1, /) -> bytes:
        data = self._source.read(n)
        if data:
            self._follow(data)
        elif self._skip or self._head or self._next != self._magic:
            raise InvalidContent(f"{self._what} is truncated: its zstd stream ends inside a frame")
        return data

    def _follow(self, data: bytes) -> None:
        pos = 0
        while pos < len(data):
            if self._skip:
                step = min(self._skip, len(data) - pos)
                self._skip -= step
                pos += step
                continue
            part = data[pos : pos + self._need - len(self._head)]
            self._head += part
            pos += len(part)
            if len(self._head) == self._need:
                self._next(self._head)

    def _expect(self, header: Callable[[bytes], None], size: int) -> None:
        self._next = header
        self._need = size
        self._head = b""

    def _magic(self, head: bytes) -> None:
        if head == _ZSTD_MAGIC:
            self._holds_something = False
            self._next = self._descriptor
            self._need = 5
        elif detect(head) is Compression.ZSTD:
            self._next = self._skippable
            self._need = 8
        else:
            raise InvalidContent(f"{self._what} has something other than a frame after its zstd stream")

    def _skippable(self, head: bytes) -> None:
        self._skip = int.from_bytes(head[4:], "little")
        self._end_frame()

    def _descriptor(self, head: bytes) -> None:
        descriptor = head[4]
        single = descriptor >> 5 & 1
        size_field = (single, 2, 4, 8)[descriptor >> 6]
        self._checksum = 4 if descriptor & 4 else 0
        self._need = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + size_field
        self._next = self._frame_header
        if self._need == 5:
            self._frame_header(head)

    def _frame_header(self, head: bytes) -> None:
        descriptor = head[4]
        if not descriptor >> 5 & 1:
            base = 1 << 10 + (head[5] >> 3)
            window = base + base // 8 * (head[5] & 7)
            if window > limits.ZSTD_WINDOW_BYTES:
                raise UnsafeContent(
                    f"{self._what} wants {window} bytes to be decompressed in; at most"
                    f" {limits.ZSTD_WINDOW_BYTES} are given"
                )
        self._expect(self._block, 3)

    def _block(self, head: bytes) -> None:
        field = int.from_bytes(head, "little")
        last, kind, size = field & 1, field >> 1 & 3, field >> 3
        self._holds_something |= size > 0
        self._skip = 1 if kind == 1 else size  # a run has one byte, whatever its length
        self._expect(self._block, 3)
        if last:
            self._skip += self._checksum
            self._end_frame()

    def _end_frame(self) -> None:
        self._empty = 0 if self._holds_something else self._empty + 1
        if self._empty > limits.EMPTY_MEMBERS:
            raise UnsafeContent(f"{self._what} has more than {limits.EMPTY_MEMBERS} empty zstd frames")
        self._holds_something = False
        self._expect(self._magic, 4)
