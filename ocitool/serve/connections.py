"""Connections that do not wait for ever for a request, and that the kernel can send files through.

uvicorn closes a connection that rests between two requests, but waits without limit for the first one and for
the rest of one that has begun; who opens many such connections keeps everybody else out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ocitool.serve.messages import SENDER
from ocitool.serve.sendfile import Transfer

if TYPE_CHECKING:
    import asyncio
    import io

HEAD_SECONDS: Final = 30.0  # what web servers give a client for its request's head


class _Bytes:
    """So many bytes, for whoever only counts them."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count


class Connection(H11Protocol):
    """A connection whose client has some seconds for the head of each request."""

    _deadline: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Comes to the application as the "state" of each request's scope.
        self.app_state = {**self.app_state, SENDER: self}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._relax()
        super().connection_lost(exc)

    def transfer(self, file: io.FileIO, count: int) -> Transfer | None:
        """See `messages.FileSender`."""
        found = self.transport.get_extra_info("socket")
        if found is None or self.transport.get_write_buffer_size():
            return None  # what waits to be written must come first
        # h11 is told of the bytes that it does not see, or it would miss them at the end of the answer.
        self.conn.send_with_data_passthrough(h11.Data(data=cast("bytes", _Bytes(count))))
        return Transfer(found, file, count)

    def _watch(self) -> None:
        # IDLE: the head of the next request is not whole. No data comes between requests, so none is begun.
        if self.conn.their_state is not h11.IDLE:
            self._relax()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _relax(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
