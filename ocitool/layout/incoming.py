"""A blob on its way into a layout whose digest is told at its end: what a registry's upload is.

It is a file beside the partials, locked like one: if this process dies, it is collected as one of them.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from typing import TYPE_CHECKING, Final

from ocitool.digest import Digest, new_hasher
from ocitool.errors import IntegrityError
from ocitool.layout import files
from ocitool.layout.locks import PRIVATE
from ocitool.layout.partials import PARTIAL, PartialFile
from ocitool.streams import VerifiedReader, chunks

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ocitool.layout.store import LayoutStore
    from ocitool.model import Descriptor

_ALGORITHM: Final = "sha256"  # what nearly every digest turns out to be
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class IncomingBlob:
    """See `content.Incoming`; hashed while it is written, so that it is never read again.

    Attributes:
        begun: when it was made, in seconds of the monotonic clock.
    """

    def __init__(self, store: LayoutStore, committed: Callable[[Descriptor], None]) -> None:
        """Make the file.

        Args:
            store: where the blob will be.
            committed: is told once it is there.
        """
        self._store = store
        self._committed = committed
        self.begun = time.monotonic()
        self._hasher = new_hasher(_ALGORITHM)
        self._name = f"upload-{secrets.token_hex(8)}"
        self.size = 0
        with (
            self._translated(),
            files.directory(store.path, PRIVATE, PARTIAL, create=True) as private,
        ):
            self._fd = os.open(self._name, _FLAGS, 0o666, dir_fd=private)
            fcntl.flock(self._fd, fcntl.LOCK_EX)

    def write(self, data: bytes, /) -> None:
        """Add bytes.

        Raises:
            OciError: they can't be kept; what came before them is.
        """
        with self._translated():
            try:
                files.write_all(self._fd, data)
            except OSError:
                os.lseek(self._fd, self.size, os.SEEK_SET)
                os.ftruncate(self._fd, self.size)
                raise
        self._hasher.update(data)
        self.size += len(data)

    def commit(self, desc: Descriptor, /) -> None:
        """Verify, and make visible.

        Raises:
            IntegrityError: the bytes are not what the descriptor names.
        """
        self._verify(desc)
        with self._store.resume(desc) as partial:
            # None: another upload of the same blob was faster.
            if partial is not None:
                _Whole(self._store.path, self._fd, self._name, desc).commit()
        self._committed(desc)

    def close(self) -> None:
        """Remove the file, unless it is a blob now."""
        if self._fd < 0:
            return
        with self._translated(), files.directory(self._store.path, PRIVATE, PARTIAL) as private:
            files.unlink(private, self._name)
        files.close_unwritten(self._fd)
        self._fd = -1

    @property
    def is_open(self) -> bool:
        """Whether more may come."""
        return self._fd >= 0

    def _verify(self, desc: Descriptor) -> None:
        if desc.digest.algorithm != _ALGORITHM:
            with open(self._fd, "rb", buffering=0, closefd=False) as written:
                written.seek(0)
                for _ in chunks(VerifiedReader(written, desc.digest, desc.size)):
                    pass
            return
        actual = Digest(_ALGORITHM, self._hasher.hexdigest())
        if (actual, self.size) != (desc.digest, desc.size):
            raise IntegrityError(
                f"what was uploaded has the digest {actual} and {self.size} bytes, not {desc.digest}"
                f" and {desc.size}",
                expected=str(desc.digest),
                actual=str(actual),
            )

    def _translated(self) -> AbstractContextManager[None]:
        return files.translated("an upload", self._store.path)


class _Whole(PartialFile):
    """A file that has all of a blob's bytes, verified."""

    def commit(self) -> None:
        """Give it the blob's name."""
        self._commit()
