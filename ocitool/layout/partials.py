"""Blobs on their way into a layout.

Each is a file in the private directory, locked by the process that brings it. It gets its name among the
blobs only once all of it has been verified and is on the disk. What an interrupted process left is kept under
the digest's name, and the next one goes on from there.
"""

from __future__ import annotations

import fcntl
import io
import os
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Final

from ocitool.errors import IntegrityError
from ocitool.layout import files
from ocitool.layout.locks import PRIVATE
from ocitool.streams import CHUNK, Reader, VerifiedReader, chunks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ocitool.model import Descriptor

BLOBS: Final = "blobs"
PARTIAL: Final = "partial"
_FICLONE: Final = 0x40049409  # linux/fs.h


@contextmanager
def held(root: Path, desc: Descriptor) -> Iterator[PartialFile]:
    """Take hold of a blob's partial; waits for the process that holds it."""
    name = f"{desc.digest.algorithm}-{desc.digest.hex}"
    with (
        files.translated(f"blob {desc.digest}", root, needed=desc.size),
        files.directory(root, PRIVATE, PARTIAL, create=True) as private,
    ):
        fd = _hold(private, name)
    partial = PartialFile(root, fd, name, desc)
    try:
        yield partial
    finally:
        partial.close()


def _hold(parent: int, name: str) -> int:
    """Open and lock a partial; a loop, because its holder may give it its final name meanwhile."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        fd = os.open(name, flags, 0o666, dir_fd=parent)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            found = os.fstat(fd)
            files.must_be_regular(found, name)
            if found.st_nlink == 1 and _is(found, parent, name):
                return fd
            if found.st_nlink > 1:
                # A name of some other file: writing here would change that one.
                files.unlink(parent, name)
        except BaseException:
            files.close_unlocked(fd)
            raise
        files.close_unlocked(fd)


def _is(found: os.stat_result, parent: int, name: str) -> bool:
    try:
        named = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, named)


class PartialFile:
    """One blob on its way in, held by this process alone; see `content.Partial`."""

    def __init__(self, root: Path, fd: int, name: str, desc: Descriptor) -> None:
        self._root = root
        self._fd = fd
        self._name = name
        self._desc = desc
        self.committed = False

    @property
    def offset(self) -> int:
        """How many bytes there are already."""
        return os.fstat(self._fd).st_size

    def discard(self) -> None:
        """Forget what there is."""
        with self._translated():
            os.ftruncate(self._fd, 0)

    def push(self, rest: Reader, /) -> None:
        """Add what follows `offset`, verify the whole, and make it visible; see `content.Partial`."""
        start = self.offset
        with self._translated():
            os.lseek(self._fd, 0, os.SEEK_SET)
        reader = VerifiedReader(_Then(self._fd, start, rest), self._desc.digest, self._desc.size)
        seen = 0
        try:
            for chunk in chunks(reader, CHUNK):
                # What was there already is read to be verified, and passes without being written again.
                if seen >= start:
                    with self._translated():
                        files.write_all(self._fd, chunk)
                seen += len(chunk)
        except IntegrityError:
            self.discard()
            raise
        self._commit()

    def complete(self) -> bool:
        """Make visible what an earlier process had got all of; whether it had."""
        if self.offset < self._desc.size:
            return False
        try:
            self.push(io.BytesIO())
        except IntegrityError:
            return False
        return True

    def clone(self, fd: int) -> bool:
        """Share the blocks of another file, verify them, and make them visible; whether that was possible."""
        try:
            fcntl.ioctl(self._fd, _FICLONE, fd)
        except OSError:
            return False
        return self.complete()

    def close(self) -> None:
        """Let go; what there is stays for the next process, unless it is nothing."""
        try:
            if not self.committed and not self.offset:
                with self._translated(), files.directory(self._root, PRIVATE, PARTIAL) as private:
                    files.unlink(private, self._name)
        finally:
            # What was written has been synced, or does not count.
            files.close_unlocked(self._fd)

    def _commit(self) -> None:
        digest = self._desc.digest
        with (
            self._translated(),
            files.directory(self._root, PRIVATE, PARTIAL) as private,
            files.directory(self._root, BLOBS, digest.algorithm, create=True) as parent,
        ):
            try:
                # Before the rename, or a power cut could leave the final name with other content.
                os.fsync(self._fd)
            except OSError:
                # The kernel has dropped the pages that it could not write: asking again would be answered
                # with success, so these bytes are lost even though they can be read.
                files.unlink(private, self._name)
                raise
            os.rename(self._name, digest.hex, src_dir_fd=private, dst_dir_fd=parent)
            self.committed = True
            os.fsync(parent)

    def _translated(self) -> AbstractContextManager[None]:
        return files.translated(f"blob {self._desc.digest}", self._root, needed=self._desc.size)


class _Then:
    """The first bytes of a file, then a reader; one read never crosses from one to the other."""

    def __init__(self, fd: int, length: int, rest: Reader) -> None:
        self._fd = fd
        self._left = length
        self._rest = rest

    def read(self, n: int = -1, /) -> bytes:
        if not self._left:
            return self._rest.read(n)
        data = os.read(self._fd, min(self._left, n) if n >= 0 else self._left)
        self._left -= len(data)
        return data
