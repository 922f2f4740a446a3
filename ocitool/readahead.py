"""Streams that are read before they are asked for: inflating and hashing leave Python's lock alone."""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import TYPE_CHECKING

from ocitool.streams import CHUNK, chunks

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Self

    from ocitool.streams import Reader


class ReadAhead:
    """A reader whose content a thread prepares in advance, hashed by whichever side has the time.

    The thread hashes while there is no room to read more, and `read` what the thread has not come to: so
    neither waits for the other while there is work, whichever is the slower one. What the thread meets is
    raised from `read`. Leaving the context ends the thread.
    """

    def __init__(
        self,
        opening: Callable[[], AbstractContextManager[Reader]],
        update: Callable[[bytes], None],
        *,
        depth: int,
    ) -> None:
        """Start to read.

        Args:
            opening: opens the reader; it is entered, read and left in the thread.
            update: hashes the next chunk; called once for each, in order, before `read` has given it.
            depth: how many chunks of `CHUNK` bytes to hold at most.
        """
        self._opening = opening
        self._update = update
        self._free = threading.Semaphore(depth)
        self._ready: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()
        self._unhashed: deque[bytes] = deque()
        self._hashing = threading.Lock()
        self._rest = b""
        self._ended: BaseException | bool = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._free.release()
        self._thread.join()

    def read(self, n: int = -1, /) -> bytes:
        """Read on; up to a whole chunk comes without being copied."""
        if n < 0:
            return b"".join(chunks(self))
        data = self._rest or self._next()
        if len(data) > n:
            data, self._rest = data[:n], data[n:]
        else:
            self._rest = b""
        return data

    def _next(self) -> bytes:
        if self._ended:
            if isinstance(self._ended, BaseException):
                raise self._ended
            return b""
        item = self._ready.get()
        if isinstance(item, BaseException):
            self._ended = item
            raise item
        if self._unhashed and self._unhashed[0] is item:
            self._hash(item)  # also waits where the thread is at it
        self._free.release()
        self._ended = not item
        return item

    def _run(self) -> None:
        try:
            with self._opening() as reader:
                more = True
                while more:
                    self._wait_for_room()
                    if self._closed:
                        return
                    chunk = reader.read(CHUNK)
                    more = bool(chunk)
                    self._unhashed.append(chunk)
                    self._ready.put(chunk)
        except BaseException as error:  # noqa: BLE001 - passed on to whoever reads
            self._ready.put(error)

    def _wait_for_room(self) -> None:
        """Until whoever reads has taken a chunk."""
        while not self._free.acquire(blocking=not self._unhashed):
            self._hash()

    def _hash(self, chunk: bytes | None = None) -> None:
        """Hash the next chunk, if there is one and it is `chunk`, or any where none is named."""
        with self._hashing:
            if self._unhashed and (chunk is None or self._unhashed[0] is chunk):
                self._update(self._unhashed[0])
                self._unhashed.popleft()
