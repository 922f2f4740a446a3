"""Where a bundle is written to: a file, parts of one, a stream, or a damaged bundle to be mended in place."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Final, Protocol

from ocitool.bundle.files import found, numbered, translated
from ocitool.errors import Conflict, OciError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType
    from typing import BinaryIO, Self

# Less would make more parts than anyone wants to handle, and it is a mistake in the unit most of the time.
MIN_PART: Final = 64 << 10
# All of them are open at once, and 1024 is how many files most systems let a process have.
MAX_PARTS: Final = 900


class Sink(Protocol):
    """Where a bundle is written to; a context manager that makes it visible only if all went well."""

    @property
    def in_order(self) -> bool:
        """Whether bytes have to come in order."""
        ...

    def start(self, size: int, /) -> None:
        """Make room for so many bytes; what is not written of them is zero."""
        ...

    def write_at(self, offset: int, data: bytes, /) -> None:
        """Write bytes."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class _Pieces:
    """Open files that a bundle's bytes are spread over."""

    def __init__(self, path: Path, part_size: int | None, size: int) -> None:
        self.path = path
        self._part_size = part_size or max(size, 1)
        self._fds: list[int] = []
        self.names = [path]
        if part_size is not None:
            count = -(-size // part_size)
            if count > MAX_PARTS:
                raise OciError(f"parts of {part_size} bytes would be {count} files; {MAX_PARTS} are the most")
            self.names = [path.with_name(f"{path.name}.{number + 1:03}") for number in range(count)]
        self.sizes = [min(self._part_size, size - i * self._part_size) for i in range(len(self.names))]

    def open(self, names: Iterable[Path], flags: int) -> None:
        """Open a file for each piece, and give it its size."""
        for name, size in zip(names, self.sizes, strict=True):
            self._fds.append(
                os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o666)
            )
            os.ftruncate(self._fds[-1], size)

    def write_at(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        with translated(str(self.path)):
            while view:
                number, within = divmod(offset, self._part_size)
                written = os.pwrite(self._fds[number], view[: self._part_size - within], within)
                view, offset = view[written:], offset + written

    def sync(self) -> None:
        for fd in self._fds:
            os.fsync(fd)

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []


class FileSink:
    """One file, or parts. They get their names at the end, so that none is ever seen half."""

    in_order = False

    def __init__(self, path: Path, part_size: int | None = None) -> None:
        """Name the file; nothing is written yet.

        Args:
            path: its name; parts get `.001` and so on after it.
            part_size: the size of a part, in bytes; None for one file.
        """
        if part_size is not None and part_size < MIN_PART:
            raise OciError(
                f"parts of {part_size} bytes are too small; they have at least {MIN_PART}",
                hint="64K, 700M and 4G are sizes",
            )
        self._path = path
        self._part_size = part_size
        self._pieces: _Pieces | None = None
        self._temporary: list[Path] = []

    def __enter__(self) -> Self:
        if self._path.exists() or numbered(self._path):
            # Older parts beside new ones would be taken for parts of the same bundle.
            raise Conflict(
                f"the bundle {self._path} exists already", hint="choose another name, or remove it"
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        try:
            if kind is None and self._pieces:
                self._commit(self._pieces)
        finally:
            if self._pieces:
                self._pieces.close()
            for unfinished in self._temporary:
                unfinished.unlink(missing_ok=True)

    def start(self, size: int, /) -> None:
        """See `Sink`."""
        self._pieces = _Pieces(self._path, self._part_size, size)
        token = secrets.token_hex(8)
        self._temporary = [name.with_name(f".{name.name}.{token}") for name in self._pieces.names]
        with translated(str(self._path)):
            self._check_space(size)
            self._pieces.open(self._temporary, os.O_EXCL)

    def _check_space(self, size: int) -> None:
        """Better to say so now than after an hour."""
        there = os.statvfs(self._path.parent)
        free = there.f_bavail * there.f_frsize
        if free < size:
            raise OciError(
                f"no space for the bundle {self._path}: it needs {size} bytes, and {free} are free",
                hint="write it elsewhere, or leave out with --have what the far side has",
            )

    def write_at(self, offset: int, data: bytes, /) -> None:
        """See `Sink`; may be called from several threads, for different bytes."""
        assert self._pieces  # noqa: S101 - `start` has been called
        self._pieces.write_at(offset, data)

    def _commit(self, pieces: _Pieces) -> None:
        with translated(str(self._path)):
            pieces.sync()
            for temporary, final in zip(self._temporary, pieces.names, strict=True):
                # No link, which would not replace what came meanwhile: removable media are often FAT.
                temporary.rename(final)
            parent = os.open(self._path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(parent)
            finally:
                os.close(parent)


class PatchSink:
    """A bundle that is there and damaged, written to in place; what is cut off at its end is added."""

    in_order = False

    def __init__(self, path: Path) -> None:
        """Name the bundle, or any of its parts; nothing is opened yet."""
        self._path, files = found(path)
        self._part_size = None if files == [self._path] else files[0].stat().st_size
        self._pieces: _Pieces | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pieces:
            with translated(str(self._path)):
                self._pieces.sync()
            self._pieces.close()

    def start(self, size: int, /) -> None:
        """See `Sink`."""
        self._pieces = _Pieces(self._path, self._part_size, size)
        with translated(str(self._path)):
            self._pieces.open(self._pieces.names, 0)

    def write_at(self, offset: int, data: bytes, /) -> None:
        """See `Sink`; may be called from several threads, for different bytes."""
        assert self._pieces  # noqa: S101 - `start` has been called
        self._pieces.write_at(offset, data)


class StreamSink:
    """A stream, such as standard output. One that ends early has no end mark, which readers notice."""

    in_order = True

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._size = 0
        self._at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            # An error too if the reader has gone: unlike with text, what it has is of no use.
            with translated("the stream of the bundle"):
                self._fill(self._size)
                self._stream.flush()

    def start(self, size: int, /) -> None:
        """See `Sink`."""
        self._size = size

    def write_at(self, offset: int, data: bytes, /) -> None:
        """See `Sink`."""
        with translated("the stream of the bundle"):
            self._fill(offset)
            self._stream.write(data)
        self._at += len(data)

    def _fill(self, offset: int) -> None:
        assert offset >= self._at  # noqa: S101 - whoever writes to a stream has asked `in_order`
        self._stream.write(bytes(offset - self._at))
        self._at = offset
