"""Sending content: read by threads, one piece ahead of the socket."""

from __future__ import annotations

import asyncio
import io
import threading
from typing import TYPE_CHECKING, Final

from ocitool.serve.messages import Disconnected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ocitool.serve.messages import Content, FileTransfer, Request
    from ocitool.serve.service import Service

# Pieces of 2 MiB are sent about twice as fast as pieces of 256 KiB (measured on loopback): each costs a hop
# to a thread and back. A stream may hold three of them, so with many clients they get smaller.
_PIECE_BYTES: Final = 2 << 20
_SMALLEST_PIECE_BYTES: Final = 64 << 10
_ALL_PIECES_BYTES: Final = 32 << 20
# The kernel sends files with a third of the processor's time and none of our memory (measured), but each
# keeps a thread until its client has all of it; so many threads at most.
FILES: Final = 192


class Stream:
    """Content on its way to one client."""

    def __init__(self, service: Service, content: Content) -> None:
        self._service = service
        self._left = content.stop - content.start
        self._content = content
        # A thread may still read when the client has gone and another one closes.
        self._lock = threading.Lock()
        self._closed = False

    async def open(self) -> None:
        """Open the content, before its status is sent: what is lost is a 404 then, and no broken 200.

        Raises:
            OciError: whatever the source raises.
        """
        await self._service.run(self._open)

    def transfer(self, request: Request, length: int) -> FileTransfer | None:
        """The content as a file that the kernel sends; None where it is none, or must pass through here."""
        if not (request.sender and isinstance(self._reader, io.FileIO) and self._service.streams <= FILES):
            return None
        return request.sender.transfer(self._reader, length)

    async def pieces(self, request: Request) -> AsyncIterator[bytes]:
        """The content; it may end early.

        Raises:
            Disconnected: the client has gone away.
        """
        gone = asyncio.ensure_future(request.gone())
        reading = self._ahead()
        try:
            while self._left:
                piece = await reading
                if not piece:
                    return
                self._left -= len(piece)
                reading = self._ahead()
                if gone.done():
                    raise Disconnected
                yield piece
        finally:
            reading.cancel()
            gone.cancel()

    def close(self) -> None:
        """Let go, in a thread: it may have to wait for one that reads."""
        self._service.start(self._close)

    def _ahead(self) -> asyncio.Future[bytes]:
        share = _ALL_PIECES_BYTES // self._service.streams
        size = min(self._left, max(_SMALLEST_PIECE_BYTES, min(_PIECE_BYTES, share)))
        return self._service.start(lambda: self._read(size))

    def _open(self) -> None:
        self._context = self._content.source.fetch(self._content.descriptor, offset=self._content.start)
        self._reader = self._context.__enter__()

    def _read(self, size: int) -> bytes:
        with self._lock:
            return b"" if self._closed or not size else self._reader.read(size)

    def _close(self) -> None:
        with self._lock:
            self._closed = True
            self._context.__exit__(None, None, None)
