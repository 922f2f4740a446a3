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
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import BinaryIO, Self

    from ocitool.streams import Reader

_DIGITS: Final = 3
_PART: Final = re.compile(r"\.([0-9]{3,9})")
# Less would make more parts than anyone wants to handle, and it is a mistake in the unit most of the time.
MIN_PART: Final = 64 << 10


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
        stem = path.with_suffix("") if _PART.fullmatch(path.suffix) else path
        paths = [path] if path.is_file() and stem == path else _parts(stem)
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


def _parts(stem: Path) -> list[Path]:
    """The parts of a bundle, in order and without a gap.

    Raises:
        NotFound: there are none, or one is missing.
    """
    found = _numbered(stem)
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
            raise OciError(f"parts of {part_size} bytes are too small; they have at least {MIN_PART}")
        self._path = path
        self._part_size = part_size
        self._files: list[tuple[Path, Path, int]] = []  # temporary name, final name, descriptor

    def __enter__(self) -> Self:
        if self._path.exists() or _numbered(self._path):
            # Older parts beside new ones would be taken for parts of the same bundle.
            raise Conflict(
                f"the bundle {self._path} exists already", hint="choose another name, or remove it"
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            for unfinished, _, fd in self._files:
                os.close(fd)
                unfinished.unlink(missing_ok=True)

    def start(self, size: int, /) -> None:
        """See `Sink`."""
        part = self._part_size or max(size, 1)
        count = -(-size // part)
        width = max(_DIGITS, len(str(count)))
        token = secrets.token_hex(8)
        with translated(str(self._path)):
            self._check_space(size)
            for number in range(1, count + 1):
                suffix = f".{number:0{width}}" if self._part_size else ""
                final = self._path.with_name(self._path.name + suffix)
                temporary = self._path.with_name(f".{self._path.name}.{token}{suffix}")
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                fd = os.open(temporary, flags, 0o666)
                self._files.append((temporary, final, fd))
                os.ftruncate(fd, min(part, size - (number - 1) * part))

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
        view = memoryview(data)
        with translated(str(self._path)):
            while view:
                number, within = divmod(offset, self._part_size) if self._part_size else (0, offset)
                room = self._part_size - within if self._part_size else len(view)
                written = os.pwrite(self._files[number][2], view[:room], within)
                view, offset = view[written:], offset + written

    def _commit(self) -> None:
        with translated(str(self._path)):
            for _, _, fd in self._files:
                os.fsync(fd)
            for temporary, final, _ in self._files:
                # No link, which would not replace what came meanwhile: removable media are often FAT.
                temporary.rename(final)
            parent = os.open(self._path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(parent)
            finally:
                os.close(parent)


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
