"""Where a bundle's bytes are: one file, parts of it for removable media, or a stream.

Parts are the bundle cut at every so many bytes: `cat bundle.tar.* > bundle.tar` gives it back.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from ocitool.errors import Conflict, IntegrityError, InvalidContent, NotFound, OciError
from ocitool.streams import chunks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import BinaryIO, Self

    from ocitool.streams import Reader

_PART: Final = re.compile(r"\.([0-9]{3})")
# Less would make more parts than anyone wants to handle, and it is a mistake in the unit most of the time.
MIN_PART: Final = 64 << 10
# All of them are open at once, and 1024 is how many files most systems let a process have.
MAX_PARTS: Final = 900


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn an OSError into ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{what} is not there") from error
    except FileExistsError as error:
        raise Conflict(f"{what} exists already", hint="choose another name, or remove it") from error
    except OSError as error:
        raise OciError(f"{what}: {error.strerror or error}") from error


class BundleFile:
    """A bundle's bytes, read anywhere; parts look like one file. Safe to use from several threads."""

    def __init__(self, name: str, files: Sequence[tuple[str, int]]) -> None:
        """Take over open files, in order, each with what to call it; `close` closes them."""
        self.name = name
        self._files = []
        self.size = 0
        for called, fd in files:
            size = os.fstat(fd).st_size
            self._files.append((self.size, self.size + size, fd, called))
            self.size += size

    @classmethod
    def open(cls, path: Path) -> BundleFile:
        """Open a file, or the parts that lie beside it.

        Args:
            path: the bundle's name, or that of any of its parts.

        Raises:
            NotFound: neither is there, or a part is missing.
            IntegrityError: a part is shorter than the others.
        """
        stem, paths = _found(path)
        with ExitStack() as stack:
            files = [(str(one), _open(one, stack)) for one in paths]
            bundle = cls(str(stem), files)
            stack.pop_all()
        bundle.check_parts()
        return bundle

    @classmethod
    def spooled(cls, stream: Reader, name: str = "standard input") -> BundleFile:
        """Keep a stream in a temporary file without a name: all of it is verified before any is used."""
        with (
            translated("the temporary copy of the bundle"),
            tempfile.TemporaryFile(prefix="ocitool-") as file,
        ):
            for chunk in chunks(stream):
                file.write(chunk)
            file.flush()
            return cls(name, [(name, os.dup(file.fileno()))])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for _, _, fd, _ in self._files:
            os.close(fd)
        self._files = []

    @property
    def parts(self) -> int:
        """How many files there are."""
        return len(self._files)

    def read_at(self, offset: int, count: int, /) -> bytes:
        """`count` bytes from `offset` on; fewer only at the end."""
        pieces = []
        for start, end, fd, called in self._files:
            if count and start <= offset < end:
                with translated(called):
                    data = _pread(fd, min(count, end - offset), offset - start)
                pieces.append(data)
                offset += len(data)
                count -= len(data)
        return b"".join(pieces)

    def region(self, start: int, end: int) -> Reader:
        """The bytes between two places as a reader."""
        return _Region(self, start, end)

    def check_parts(self) -> None:
        """Make sure that all parts but the last are of one size.

        Raises:
            IntegrityError: one is not.
        """
        whole = self._files[0][1]
        for i, (start, end, _, called) in enumerate(self._files):
            size, last = end - start, i == len(self._files) - 1
            if size > whole or (size < whole and not last):
                raise IntegrityError(
                    f"{called} has {size} bytes, not the {whole} of the other parts",
                    expected=str(whole),
                    actual=str(size),
                    hint="copy it again",
                )


class _Region:
    """A part of a file as a reader."""

    def __init__(self, file: BundleFile, start: int, end: int) -> None:
        self._file = file
        self._at = start
        self._end = end

    def read(self, n: int = -1, /) -> bytes:
        left = self._end - self._at
        data = self._file.read_at(self._at, left if n < 0 else min(n, left))
        self._at += len(data)
        return data


def _pread(fd: int, count: int, offset: int) -> bytes:
    data = os.pread(fd, count, offset)
    while len(data) < count and (more := os.pread(fd, count - len(data), offset + len(data))):
        data += more
    return data


def _open(path: Path, stack: ExitStack) -> int:
    with translated(str(path)):
        if not path.is_file():
            raise InvalidContent(f"{path} is no regular file")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _found(path: Path) -> tuple[Path, list[Path]]:
    """A bundle's name without a number, and its files."""
    stem = path.with_suffix("") if _PART.fullmatch(path.suffix) else path
    return stem, [path] if path.is_file() and stem == path else _parts(stem)


def _parts(stem: Path) -> list[Path]:
    """The parts of a bundle, in order and without a gap.

    Raises:
        NotFound: there are none, or one is missing.
    """
    found = _numbered(stem)
    if not found and stem.is_dir():
        raise Conflict(f"{stem} is a directory, and a bundle is a file", hint=f"a layout is named oci:{stem}")
    if not found:
        raise NotFound(f"there is no bundle {stem}, and no part of it ({stem.name}.001)")
    for number in range(1, max(found) + 1):
        if number not in found:
            raise NotFound(
                f"part {number} of the bundle {stem} is missing",
                hint=f"the parts {min(found)} to {max(found)} are needed, in one directory",
            )
    return [found[number] for number in sorted(found)]


def _numbered(stem: Path) -> dict[int, Path]:
    with translated(str(stem.parent)):
        beside = [path for path in stem.parent.iterdir() if path.stem == stem.name]
    return {int(match[1]): path for path in beside if (match := _PART.fullmatch(path.suffix))}


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
        if self._path.exists() or _numbered(self._path):
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
        found = os.statvfs(self._path.parent)
        free = found.f_bavail * found.f_frsize
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
        self._path, files = _found(path)
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
