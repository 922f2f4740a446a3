"""A layout with a limit to its size: what was not used for the longest time goes first.

When a blob was used last is the access time of its file, which is set by hand: many file systems are mounted
so that reading alone does not change it. So a cache that starts anew knows what its predecessor knew.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ocitool.errors import NotFound
from ocitool.layout import files
from ocitool.layout.partials import BLOBS
from ocitool.model import Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocitool.digest import Digest
    from ocitool.layout.store import LayoutStore


class Room:
    """The room that a layout may take. Safe to use from several threads."""

    def __init__(self, store: LayoutStore, limit: int) -> None:
        """Limit a layout.

        Args:
            store: the layout.
            limit: how many bytes its blobs may have; what is being read or brought comes on top.
        """
        self._store = store
        self._limit = limit
        self._lock = threading.Lock()
        self._reading: Counter[Digest] = Counter()
        self._grown = True

    @contextmanager
    def reading(self, digest: Digest) -> Iterator[None]:
        """Content is read, and so not removed meanwhile, and last of all afterwards."""
        with self._lock:
            self._reading[digest] += 1
        try:
            yield
        finally:
            self._touch(digest)
            with self._lock:
                self._reading[digest] -= 1
                if not self._reading[digest]:
                    del self._reading[digest]

    def grown(self) -> None:
        """Content has been added."""
        self._grown = True

    def trim(self) -> None:
        """Remove what was not used for the longest time, until what is left fits."""
        if not self._grown:
            return
        self._grown = False
        blobs = list(self._store.blobs)
        left = sum(stat.st_size for _, stat in blobs)
        for digest, stat in sorted(blobs, key=lambda blob: blob[1].st_atime_ns):
            if left <= self._limit:
                return
            with self._lock:
                if digest in self._reading:
                    self._grown = True  # so that it is looked at again
                    continue
            with suppress(NotFound):  # somebody else was faster
                self._store.delete(Descriptor("application/octet-stream", digest, stat.st_size))
            if self._store.blobs.size(digest) is None:  # and not on another process's lease
                left -= stat.st_size

    def _touch(self, digest: Digest) -> None:
        with suppress(OSError), files.directory(self._store.path, BLOBS, digest.algorithm) as parent:
            modified = os.stat(digest.hex, dir_fd=parent, follow_symlinks=False).st_mtime_ns
            os.utime(digest.hex, ns=(time.time_ns(), modified), dir_fd=parent, follow_symlinks=False)
