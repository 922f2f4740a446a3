"""The blobs of a layout, by digest: opened without following links, listed, measured, verified, removed."""

from __future__ import annotations

import io
import os
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from ocitool.digest import Digest
from ocitool.errors import IntegrityError, InvalidDigest, NotFound, UnsafeContent
from ocitool.layout import files
from ocitool.layout.partials import BLOBS, PartialFile, held
from ocitool.streams import VerifiedReader, chunks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ocitool.model import Descriptor

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
            with files.directory(self.root, BLOBS, digest.algorithm) as parent:
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
            with files.translated(f"{BLOBS}/{algorithm}", self.root):
                found = list(self._list(algorithm))
            yield from found

    def _list(self, algorithm: str) -> Iterator[tuple[Digest, os.stat_result]]:
        with suppress(FileNotFoundError), files.directory(self.root, BLOBS, algorithm) as parent:
            for name in files.names_in(parent):
                with suppress(InvalidDigest):
                    digest = Digest.parse(f"{algorithm}:{name}")
                    yield digest, os.stat(name, dir_fd=parent, follow_symlinks=False)

    def strays(self) -> list[str]:
        """What lies among the blobs and is not named by a digest, as paths in the layout."""
        found = []
        for algorithm in _ALGORITHMS:
            named = {digest.hex for digest, _ in self._list(algorithm)}
            with suppress(FileNotFoundError), files.directory(self.root, BLOBS, algorithm) as parent:
                found += [
                    f"{BLOBS}/{algorithm}/{name}" for name in files.names_in(parent) if name not in named
                ]
        return found

    def remove(self, digest: Digest) -> bool:
        """Remove a blob; whether it was there."""
        try:
            with files.directory(self.root, BLOBS, digest.algorithm) as parent:
                return files.unlink(parent, digest.hex)
        except FileNotFoundError:
            return False

    def sync(self) -> None:
        """Put the names of all blobs on the disk, those too that another process has just given."""
        for algorithm in _ALGORITHMS:
            with suppress(FileNotFoundError), files.directory(self.root, BLOBS, algorithm) as parent:
                os.fsync(parent)

    def share(self, desc: Descriptor, other: Blobs) -> bool:
        """Take a blob over from another layout without copying it, where the file system can share blocks.

        A hard link would be shared too, but so would be whatever happens to one of the two later.

        Returns:
            Whether that could be done, and the bytes were right.
        """
        try:
            with other.open(desc.digest) as blob, self.partial(desc) as partial:
                return partial.clone(blob.fileno())
        except (NotFound, UnsafeContent):
            return False

    def partial(self, desc: Descriptor) -> AbstractContextManager[PartialFile]:
        """Take hold of a blob's partial; waits for the process that holds it."""
        return held(self.root, desc)
