"""Reading ahead: the same bytes, no more than may be held, errors where they are read, and no thread left."""

from __future__ import annotations

import hashlib
import io
import queue
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from ocitool.errors import InvalidContent
from ocitool.readahead import ReadAhead
from ocitool.streams import CHUNK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocitool.streams import Reader

TEXT = b"".join(b"%d tweet\n" % (n * n) for n in range(200_000))


def unhashed(_chunk: bytes) -> None:
    """For what is not about hashing."""


@contextmanager
def opened(reader: Reader, left: list[str] | None = None) -> Iterator[Reader]:
    yield reader
    if left is not None:
        left.append(threading.current_thread().name)


def test_reading_ahead_changes_nothing() -> None:
    for n in (-1, 1_000, CHUNK, 3 * CHUNK):
        with ReadAhead(lambda: opened(io.BytesIO(TEXT)), unhashed, depth=2) as ahead:
            found = ahead.read() if n < 0 else b"".join(iter(lambda: ahead.read(n), b""))  # noqa: B023
            assert found == TEXT
            assert ahead.read(n) == ahead.read(n) == b""


def test_reading_ahead_holds_no_more_than_it_may() -> None:
    asked: list[int] = []

    class Endless:
        def read(self, n: int = -1, /) -> bytes:
            asked.append(n)
            return bytes(n)

    with ReadAhead(lambda: opened(Endless()), unhashed, depth=3) as ahead:
        ahead.read(CHUNK)
        time.sleep(0.1)
        assert len(asked) <= 4


def test_what_goes_wrong_ahead_is_raised_where_it_is_read() -> None:
    class Broken:
        def read(self, _n: int = -1, /) -> bytes:
            raise InvalidContent("broken")

    with ReadAhead(lambda: opened(Broken()), unhashed, depth=3) as ahead:
        for _ in range(2):
            with pytest.raises(InvalidContent, match="broken"):
                ahead.read(5)


def test_leaving_early_ends_the_thread() -> None:
    with ReadAhead(lambda: opened(io.BytesIO(TEXT * 10)), unhashed, depth=1) as ahead:
        assert ahead.read(10) == TEXT[:10]
    assert not [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


def test_a_stream_is_closed_in_the_thread_that_opened_it() -> None:
    left: list[str] = []
    with ReadAhead(lambda: opened(io.BytesIO(b"x"), left), unhashed, depth=1) as ahead:
        assert ahead.read() == b"x"
    assert left == ["read-ahead"]


def test_every_chunk_is_hashed_once_and_in_order_whoever_is_slower() -> None:
    class Slow:
        def __init__(self, reader: Reader, pause: float) -> None:
            self.reader = reader
            self.pause = pause

        def read(self, n: int = -1, /) -> bytes:
            time.sleep(self.pause)
            return self.reader.read(n)

    for above, below in [(0.0, 0.0), (0.002, 0.0), (0.0, 0.002)]:
        hasher = hashlib.sha256()
        inner = Slow(io.BytesIO(TEXT * 10), below)
        with ReadAhead(lambda: opened(inner), hasher.update, depth=3) as ahead:  # noqa: B023 - entered here
            assert Slow(ahead, above).read() == TEXT * 10
            assert hasher.digest() == hashlib.sha256(TEXT * 10).digest()


def test_the_thread_hashes_while_there_is_no_room() -> None:
    hashed: queue.SimpleQueue[str] = queue.SimpleQueue()

    def update(_chunk: bytes) -> None:
        hashed.put(threading.current_thread().name)

    with ReadAhead(lambda: opened(io.BytesIO(TEXT)), update, depth=1):
        assert hashed.get(timeout=10) == "read-ahead"


def test_whoever_reads_hashes_while_the_thread_has_other_work() -> None:
    hashed: list[str] = []
    busy = threading.Event()

    class Waiting:
        def __init__(self) -> None:
            self.chunks = [b"second", b"first"]

        def read(self, _n: int = -1, /) -> bytes:
            if len(self.chunks) == 1:
                busy.wait(10)
            return self.chunks.pop() if self.chunks else b""

    def update(_chunk: bytes) -> None:
        hashed.append(threading.current_thread().name)

    with ReadAhead(lambda: opened(Waiting()), update, depth=5) as ahead:
        assert ahead.read(CHUNK) == b"first"
        assert hashed == ["MainThread"]
        busy.set()


def test_a_chunk_is_not_given_while_the_thread_is_still_hashing_it() -> None:
    begun, finish, finished = threading.Event(), threading.Event(), threading.Event()

    def update(_chunk: bytes) -> None:
        begun.set()
        finish.wait(10)
        finished.set()

    with ReadAhead(lambda: opened(io.BytesIO(b"x" * CHUNK + b"y")), update, depth=1) as ahead:
        assert begun.wait(10)
        threading.Timer(0.05, finish.set).start()
        assert ahead.read(CHUNK) == b"x" * CHUNK
        assert finished.is_set()
