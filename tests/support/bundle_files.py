"""Bytes in memory that are read by position, as bundle files are."""

from __future__ import annotations


class InMemory:
    """A file that is not on disk."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @property
    def size(self) -> int:
        return len(self.raw)

    def read_at(self, offset: int, count: int, /) -> bytes:
        return self.raw[offset : offset + count]

    def close(self) -> None:
        """Nothing is open."""
