"""Connections that do not wait for ever for a request, and that the kernel can send files through.

uvicorn closes a connection that rests between two requests, but waits without limit for the first one and for
the rest of one that has begun; who opens many such connections keeps everybody else out. So each has a
deadline, and whoever rests makes room for others.
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
    resting_since = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Comes to the application as the "state" of each request's scope.
        self.app_state = {**self.app_state, SENDER: self}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self.resting_since = self.loop.time()
        self._watch()
        # uvicorn answers 503 to everybody from so many connections on.
        if self.limit_concurrency and len(self.connections) >= self.limit_concurrency:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """See `H11Protocol`."""
        self.resting_since = self.loop.time()
        super().on_response_complete()

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

    @property
    def is_resting(self) -> bool:
        """Whether the head of the next request is not whole, and no other request is under way."""
        return self.conn.their_state is h11.IDLE

    def _make_room(self) -> None:
        """Let the client go that has asked for nothing for the longest time; one that asks soon is spared."""
        others = [one for one in self.connections if isinstance(one, Connection) and one is not self]
        if resting := [one for one in others if one.is_resting]:
            longest = min(resting, key=lambda one: one.resting_since)
            self.connections.discard(longest)  # now, and not only once the loop has closed it
            longest.transport.close()

    def _watch(self) -> None:
        # No data comes between requests, so no deadline begins there.
        if not self.is_resting:
            self._relax()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _relax(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
