"""A stream between two processes that also talk: pieces with their length before them, the last one empty."""

from __future__ import annotations

import struct
from typing import IO, Final

from ocitool.errors import OciError
from ocitool.streams import CHUNK

_LENGTH: Final = struct.Struct(">I")


def send(pipe: IO[bytes], data: bytes) -> None:
    """Send a part of a stream, in one piece or more."""
    for at in range(0, len(data), CHUNK):
        piece = data[at : at + CHUNK]
        pipe.write(_LENGTH.pack(len(piece)) + piece)


def end(pipe: IO[bytes]) -> None:
    """Say that the stream is at its end."""
    pipe.write(_LENGTH.pack(0))
    pipe.flush()


class Pieces:
    """Reads the stream that the other process sends."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._left = -1

    def read(self, n: int = -1, /) -> bytes:
        """Read on, at most to the end of a piece.

        Raises:
            OciError: the other process went away.
        """
        if self._left < 0:
            head = self._pipe.read(_LENGTH.size)
            if len(head) != _LENGTH.size:
                raise OciError("a stream between two processes was cut off")
            (self._left,) = _LENGTH.unpack(head)
        if not self._left:
            return b""
        data = self._pipe.read(self._left if n < 0 else min(n, self._left))
        if not data:
            raise OciError("a stream between two processes was cut off")
        self._left = (self._left - len(data)) or -1
        return data
