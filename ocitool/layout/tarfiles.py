"""What an archive holds and where in the file: its members are read in place, and nothing is extracted.

The standard library reads the headers. It is kept from what hostile headers could make it do: reading a
header of a gigabyte into memory, and going backwards for ever.
"""

from __future__ import annotations

import io
import os
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ocitool import limits
from ocitool.errors import InvalidContent, NotFound, UnsafeContent

if TYPE_CHECKING:
    from tarfile import TarInfo

_MAX_LINKS: Final = 8
_MAX_FILES: Final = 100_000


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in an archive: where its bytes are, or the name that it stands for."""

    offset: int
    size: int
    link: str = ""


class TarFile:
    """An open archive. Safe to use from several threads: every read says where."""

    def __init__(self, fd: int, what: str) -> None:
        """Read the headers.

        Args:
            fd: an open file that can be read anywhere; it stays the caller's.
            what: how to call the archive in an error.

        Raises:
            InvalidContent: it is not a tar archive, or ambiguous.
            UnsafeContent: it exceeds a limit, or names something outside itself.
        """
        self._fd = fd
        self._what = what
        self._members = _members(fd, what)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def member(self, name: str) -> Member:
        """A regular file, by its name or by that of a link to it.

        Raises:
            NotFound: it is not there.
            UnsafeContent: a link leaves the archive.
        """
        for _ in range(_MAX_LINKS):
            member = self._members.get(name)
            if member is None:
                raise NotFound(f"{self._what} has no file {name!r}")
            if not member.link:
                return member
            name = _clean(posixpath.join(posixpath.dirname(name), member.link), self._what)
        raise UnsafeContent(f"{self._what} has more than {_MAX_LINKS} links behind {name!r}")

    def open(self, name: str, offset: int = 0) -> Region:
        """Open a member from `offset` bytes on."""
        member = self.member(name)
        return Region(self._fd, member.offset + offset, member.size - offset, self._what)

    def read(self, name: str, limit: int) -> bytes:
        """Read a small member.

        Raises:
            UnsafeContent: it is larger than `limit` bytes.
        """
        size = self.member(name).size
        if size > limit:
            raise UnsafeContent(f"{name} in {self._what} has {size} bytes; at most {limit} are read")
        return self.open(name).read()


class Region:
    """A part of a file as a reader."""

    def __init__(self, fd: int, offset: int, size: int, what: str) -> None:
        self._fd = fd
        self._offset = offset
        self._left = max(0, size)
        self._what = what

    def read(self, n: int = -1, /) -> bytes:
        """See `Reader`.

        Raises:
            InvalidContent: the archive ends too early.
        """
        parts = []
        wanted = self._left if n < 0 else min(n, self._left)
        while wanted:
            data = os.pread(self._fd, wanted, self._offset)
            if not data:
                raise InvalidContent(f"{self._what} is truncated")
            parts.append(data)
            self._offset += len(data)
            self._left -= len(data)
            wanted = wanted - len(data) if n < 0 else 0
        return b"".join(parts)


def _members(fd: int, what: str) -> dict[str, Member]:
    import tarfile

    members: dict[str, Member] = {}
    try:
        archive = tarfile.open(fileobj=_Forward(fd, what), mode="r:", errorlevel=2)  # noqa: SIM115 - owns nothing
        while info := archive.next():
            if len(members) >= _MAX_FILES:
                raise UnsafeContent(f"{what} has more than {_MAX_FILES} files")
            if not info.isdir():
                _add(members, info, what)
    except (tarfile.TarError, ValueError, EOFError, RecursionError) as error:
        raise InvalidContent(f"{what} is not a tar archive: {error}") from error
    if not members:
        raise InvalidContent(f"{what} is not a tar archive, or an empty one")
    return members


def _add(members: dict[str, Member], info: TarInfo, what: str) -> None:
    name = _clean(info.name, what)
    if name in members:
        # Tools differ in which one they take, so one could be checked and the other one used.
        raise InvalidContent(f"{what} has the file {name!r} twice")
    if info.isreg() and not info.issparse():
        members[name] = Member(info.offset_data, info.size)
    elif info.issym():
        members[name] = Member(0, 0, info.linkname or ".")
    else:
        raise UnsafeContent(f"{what} has {name!r}, which is neither a file nor a directory")


def _clean(name: str, what: str) -> str:
    if name.startswith("/") or len(name) > limits.PATH_BYTES or "\0" in name:
        raise UnsafeContent(f"{what} names {name!r:.80}, which is not inside it")
    clean = posixpath.normpath(name)
    if clean == ".." or clean.startswith("../"):
        raise UnsafeContent(f"{what} names {name!r:.80}, which is not inside it")
    return clean


class _Forward(io.RawIOBase):
    """A file that is read only forwards and in small pieces."""

    def __init__(self, fd: int, what: str) -> None:
        self._fd = fd
        self._what = what
        self._position = 0

    def read(self, n: int = -1, /) -> bytes:
        if not 0 <= n <= limits.TAR_HEADER_BYTES + 1024:
            raise UnsafeContent(f"{self._what} has a header of {n} bytes")
        data = os.pread(self._fd, n, self._position)
        self._position += len(data)
        return data

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = os.SEEK_SET, /) -> int:
        # One byte back is how the library makes sure that the byte before the next header is there.
        if whence != os.SEEK_SET or position < self._position - 1:
            raise InvalidContent(f"{self._what} has a header with a negative size")
        self._position = position
        return position
