"""What an archive holds and where in the file: its members are read in place, and nothing is extracted."""

from __future__ import annotations

import os
import posixpath
from typing import Final

from ocitool import tarballs
from ocitool.errors import InvalidContent, NotFound, UnsafeContent
from ocitool.streams import chunks

_MAX_LINKS: Final = 8
_MAX_FILES: Final = 100_000


class TarFile:
    """An open archive. Safe to use from several threads: every read says where."""

    def __init__(self, fd: int, what: str) -> None:
        """Read the headers.

        Args:
            fd: an open file that can be read anywhere; it stays the caller's.
            what: how to call the archive in an error.

        Raises:
            IntegrityError: it ends early.
            InvalidContent: it is not a tar archive, or ambiguous.
            UnsafeContent: it exceeds a limit, or names something outside itself.
        """
        self._fd = fd
        self._what = what
        self._members: dict[str, tarballs.Member] = {}
        self.size = os.fstat(fd).st_size
        for member in tarballs.members(self, what):
            if len(self._members) >= _MAX_FILES:
                raise UnsafeContent(f"{what} has more than {_MAX_FILES} files")
            self._members[member.name] = member
        if not self._members:
            raise InvalidContent(f"{what} is an empty tar file")

    def read_at(self, offset: int, count: int, /) -> bytes:
        """See `tarballs.Positioned`."""
        return os.pread(self._fd, count, offset)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def member(self, name: str) -> tarballs.Member:
        """A regular file, by its name or by that of a link to it.

        Docker wrote a layer that two images share once, and a link for the second one.

        Raises:
            NotFound: it is not there.
            UnsafeContent: a link leaves the archive.
        """
        for _ in range(_MAX_LINKS):
            member = self._members.get(name)
            if member is None:
                raise NotFound(f"{self._what} has no file {name!r:.80}")
            if not member.link:
                return member
            name = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.link))
            if name.startswith(("/", "../")):
                raise UnsafeContent(f"{self._what} has a link to {member.link!r:.80}, which is not inside it")
        raise UnsafeContent(f"{self._what} has more than {_MAX_LINKS} links behind {name!r:.80}")

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
            InvalidContent: the archive has become shorter since it was opened.
        """
        if n < 0:
            return b"".join(chunks(self))
        data = os.pread(self._fd, min(n, self._left), self._offset)
        if not data and self._left and n:
            raise InvalidContent(f"{self._what} has become shorter")
        self._offset += len(data)
        self._left -= len(data)
        return data
