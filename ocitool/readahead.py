"""Streams that are read before they are asked for: inflating and hashing leave Python's lock alone."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from ocitool.streams import CHUNK, chunks

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Self

    from ocitool.streams import Reader


class ReadAhead:
    """A reader whose content a thread prepares in advance.

    What the thread meets is raised from `read`. Leaving the context ends the thread.
    """

    def __init__(self, opening: Callable[[], AbstractContextManager[Reader]], *, depth: int) -> None:
        """Start to read.

        Args:
            opening: opens the reader; it is entered, read and left in the thread.
            depth: how many chunks of `CHUNK` bytes to hold at most.
        """
        self._opening = opening
        self._free = threading.Semaphore(depth)
        self._ready: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()
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
        self._free.release()
        self._ended = not item
        return item

    def _run(self) -> None:
        try:
            with self._opening() as reader:
                more = True
                while more:
                    self._free.acquire()  # released by whoever takes the chunk
                    if self._closed:
                        return
                    chunk = reader.read(CHUNK)
                    more = bool(chunk)
                    self._ready.put(chunk)
        except BaseException as error:  # noqa: BLE001 - passed on to whoever reads
            self._ready.put(error)
