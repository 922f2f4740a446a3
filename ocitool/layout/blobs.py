"""The blobs of a layout: opened by digest, and added so that none is ever seen half.

A blob on its way in is a file in the private directory, locked by the process that brings it. It gets its
name only once all of it has been verified and is on the disk. What an interrupted process left is kept
under the digest's name, and the next one goes on from there.
"""

from __future__ import annotations

import fcntl
import io
import os
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from ocitool.digest import Digest
from ocitool.errors import IntegrityError, InvalidDigest, NotFound, UnsafeContent
from ocitool.layout import files
from ocitool.layout.locks import PRIVATE
from ocitool.streams import CHUNK, Reader, VerifiedReader, chunks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ocitool.model import Descriptor

_BLOBS: Final = "blobs"
PARTIAL: Final = "partial"
_FICLONE: Final = 0x40049409  # linux/fs.h
_ALGORITHMS: Final = ("sha256", "sha512")


class BlobFile(io.FileIO):
    """An open blob: a real file, whose errors are ours."""

    def __init__(self, fd: int, what: str, root: Path) -> None:
        self._what = what
        self._root = root
        super().__init__(fd)

    def read(self, n: int | None = -1, /) -> bytes:
        """See `Reader`."""
        with files.translated(self._what, self._root):
            return super().read(-1 if n is None else n) or b""

    def close(self) -> None:
        """Close the file."""
        with files.translated(self._what, self._root):
            super().close()


class Blobs:
    """The directory `blobs` of a layout."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def open(self, digest: Digest, offset: int = 0) -> Iterator[BlobFile]:
        """Open a blob for reading.

        Raises:
            NotFound: it is not there.
            UnsafeContent: it is no regular file.
        """
        what = f"blob {digest}"
        with files.translated(what, self.root):
            with files.directory(self.root, _BLOBS, digest.algorithm) as parent:
                blob = BlobFile(files.open_file(parent, digest.hex), what, self.root)
            blob.seek(offset)
        with blob:
            yield blob

    def size(self, digest: Digest) -> int | None:
        """A blob's size in bytes, or None where there is none.

        Raises:
            UnsafeContent: it is no regular file.
        """
        try:
            with self.open(digest) as blob:
                return os.fstat(blob.fileno()).st_size
        except NotFound:
            return None

    def is_sound(self, desc: Descriptor) -> bool:
        """Read a blob and say whether it is what its name says."""
        try:
            with self.open(desc.digest) as blob:
                for _ in chunks(VerifiedReader(blob, desc.digest, desc.size)):
                    pass
        except (NotFound, IntegrityError, UnsafeContent):
            return False
        return True

    def __iter__(self) -> Iterator[tuple[Digest, os.stat_result]]:
        """Everything that is named like a blob, sorted; what else lies there is not ours to judge."""
        for algorithm in _ALGORITHMS:
            with files.translated(f"{_BLOBS}/{algorithm}", self.root):
                found = list(self._list(algorithm))
            yield from found

    def _list(self, algorithm: str) -> Iterator[tuple[Digest, os.stat_result]]:
        with suppress(FileNotFoundError), files.directory(self.root, _BLOBS, algorithm) as parent:
            for name in files.names_in(parent):
                with suppress(InvalidDigest):
                    digest = Digest.parse(f"{algorithm}:{name}")
                    yield digest, os.stat(name, dir_fd=parent, follow_symlinks=False)

    def strays(self) -> list[str]:
        """What lies among the blobs and is not named by a digest, as paths in the layout."""
        found = []
        for algorithm in _ALGORITHMS:
            named = {digest.hex for digest, _ in self._list(algorithm)}
            with suppress(FileNotFoundError), files.directory(self.root, _BLOBS, algorithm) as parent:
                found += [
                    f"{_BLOBS}/{algorithm}/{name}" for name in files.names_in(parent) if name not in named
                ]
        return found

    def remove(self, digest: Digest) -> bool:
        """Remove a blob; whether it was there."""
        try:
            with files.directory(self.root, _BLOBS, digest.algorithm) as parent:
                return files.unlink(parent, digest.hex)
        except FileNotFoundError:
            return False

    def sync(self) -> None:
        """Put the names of all blobs on the disk, those too that another process has just given."""
        for algorithm in _ALGORITHMS:
            with suppress(FileNotFoundError), files.directory(self.root, _BLOBS, algorithm) as parent:
                os.fsync(parent)

    def share(self, desc: Descriptor, other: Blobs) -> bool:
        """Take a blob over from another layout without copying it, where the file system can share blocks.

        A hard link would be shared too, but so would be whatever happens to one of the two later.

        Returns:
            Whether that could be done, and the bytes were right.
        """
        try:
            with other.open(desc.digest) as blob, self.partial(desc) as partial:
                return partial.clone(blob)
        except (NotFound, UnsafeContent):
            return False

    @contextmanager
    def partial(self, desc: Descriptor) -> Iterator[PartialFile]:
        """Take hold of a blob's partial; waits for the process that holds it."""
        what = f"blob {desc.digest}"
        name = f"{desc.digest.algorithm}-{desc.digest.hex}"
        with (
            files.translated(what, self.root, needed=desc.size),
            files.directory(self.root, PRIVATE, PARTIAL, create=True) as private,
        ):
            fd = _hold(private, name)
        partial = PartialFile(self.root, fd, name, desc)
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
            held = os.fstat(fd)
            files.must_be_regular(held, name)
            if held.st_nlink == 1 and _is(held, parent, name):
                return fd
            if held.st_nlink > 1:
                # A name of some other file: writing here would change that one.
                files.unlink(parent, name)
        except BaseException:
            files.close_unlocked(fd)
            raise
        files.close_unlocked(fd)


def _is(held: os.stat_result, parent: int, name: str) -> bool:
    try:
        named = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(held, named)


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

    def clone(self, blob: BlobFile) -> bool:
        """Share the blocks of another file, verify them, and make them visible; whether that was possible."""
        try:
            fcntl.ioctl(self._fd, _FICLONE, blob.fileno())
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
            files.directory(self._root, _BLOBS, digest.algorithm, create=True) as parent,
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
