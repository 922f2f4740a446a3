"""Sending a file by the kernel: its bytes never pass through this process."""

from __future__ import annotations

import os
import select
import socket
from typing import TYPE_CHECKING, Final

from ocitool.serve.messages import Disconnected

if TYPE_CHECKING:
    import io

STALLED_SECONDS: Final = 120.0


class Transfer:
    """A part of a file on its way to a socket that is in non-blocking mode; `run` is for a thread."""

    def __init__(self, to: socket.socket, file: io.FileIO, count: int) -> None:
        """Prepare to send `count` bytes from where the file stands."""
        # A descriptor of our own: the socket's may be closed, and be another's, while a thread sends.
        self._socket = socket.socket(to.family, to.type, to.proto, os.dup(to.fileno()))
        self._file = file
        self._count = count

    def run(self) -> int:
        """Send, and say how many bytes there were.

        Raises:
            Disconnected: the client has gone away, or takes nothing any more.
        """
        writable = select.poll()
        writable.register(self._socket, select.POLLOUT)
        start, sent = self._file.tell(), 0
        try:
            while sent < self._count:
                try:
                    piece = os.sendfile(
                        self._socket.fileno(), self._file.fileno(), start + sent, self._count - sent
                    )
                except BlockingIOError:
                    if not writable.poll(STALLED_SECONDS * 1000):
                        raise Disconnected from None
                    continue
                if not piece:
                    break  # the file has become shorter
                sent += piece
        except (BrokenPipeError, ConnectionError, TimeoutError) as error:
            raise Disconnected from error
        finally:
            self._socket.close()
        return sent

    def stop(self) -> None:
        """Make `run` end."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended
