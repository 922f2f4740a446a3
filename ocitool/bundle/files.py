"""Where a bundle's bytes are read: from one file, from parts of it for removable media, or from a stream.

Parts are the bundle cut at every so many bytes: `cat bundle.tar.* > bundle.tar` gives it back.
"""

from __future__ import annotations

import os
import re
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from ocitool.errors import Conflict, IntegrityError, InvalidContent, NotFound, OciError
from ocitool.scratch import Scratch
from ocitool.streams import chunks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Self

    from ocitool.streams import Reader

_PART: Final = re.compile(r"\.([0-9]{3})")


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
        stem, paths = found(path)
        with ExitStack() as stack:
            files = [(str(one), _open(one, stack)) for one in paths]
            bundle = cls(str(stem), files)
            bundle.check_parts()
            stack.pop_all()
        return bundle

    @classmethod
    def spooled(cls, stream: Reader, name: str = "standard input") -> BundleFile:
        """Keep a stream in a temporary file without a name: all of it is verified before any is used."""
        with Scratch(f"a copy of the bundle on {name}") as scratch:
            for chunk in chunks(stream):
                scratch.write(chunk)
            return cls(name, [(name, os.dup(scratch.file.fileno()))])

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


def found(path: Path) -> tuple[Path, list[Path]]:
    """A bundle's name without a number, and its files."""
    stem = path.with_suffix("") if _PART.fullmatch(path.suffix) else path
    return stem, [path] if path.is_file() and stem == path else _parts(stem)


def _parts(stem: Path) -> list[Path]:
    """The parts of a bundle, in order and without a gap.

    Raises:
        NotFound: there are none, or one is missing.
    """
    parts = numbered(stem)
    if not parts and stem.is_dir():
        raise Conflict(f"{stem} is a directory, and a bundle is a file", hint=f"a layout is named oci:{stem}")
    if not parts:
        raise NotFound(f"there is no bundle {stem}, and no part of it ({stem.name}.001)")
    for number in range(1, max(parts) + 1):
        if number not in parts:
            raise NotFound(
                f"part {number} of the bundle {stem} is missing",
                hint=f"the parts {min(parts)} to {max(parts)} are needed, in one directory",
            )
    return [parts[number] for number in sorted(parts)]


def numbered(stem: Path) -> dict[int, Path]:
    """The parts that lie beside a bundle's name, by their numbers."""
    with translated(str(stem.parent)):
        beside = [path for path in stem.parent.iterdir() if path.stem == stem.name]
    return {int(match[1]): path for path in beside if (match := _PART.fullmatch(path.suffix))}
