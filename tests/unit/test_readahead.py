"""Reading ahead: the same bytes, no more than may be held, errors where they are read, and no thread left."""

from __future__ import annotations

import io
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


@contextmanager
def opened(reader: Reader, left: list[str] | None = None) -> Iterator[Reader]:
    yield reader
    if left is not None:
        left.append(threading.current_thread().name)


def test_reading_ahead_changes_nothing() -> None:
    for n in (-1, 1_000, CHUNK, 3 * CHUNK):
        with ReadAhead(lambda: opened(io.BytesIO(TEXT)), depth=2) as ahead:
            found = ahead.read() if n < 0 else b"".join(iter(lambda: ahead.read(n), b""))  # noqa: B023
            assert found == TEXT
            assert ahead.read(n) == ahead.read(n) == b""


def test_reading_ahead_holds_no_more_than_it_may() -> None:
    asked: list[int] = []

    class Endless:
        def read(self, n: int = -1, /) -> bytes:
            asked.append(n)
            return bytes(n)

    with ReadAhead(lambda: opened(Endless()), depth=3) as ahead:
        ahead.read(CHUNK)
        time.sleep(0.1)
        assert len(asked) <= 4


def test_what_goes_wrong_ahead_is_raised_where_it_is_read() -> None:
    class Broken:
        def read(self, _n: int = -1, /) -> bytes:
            raise InvalidContent("broken")

    with ReadAhead(lambda: opened(Broken()), depth=3) as ahead:
        for _ in range(2):
            with pytest.raises(InvalidContent, match="broken"):
                ahead.read(5)


def test_leaving_early_ends_the_thread() -> None:
    with ReadAhead(lambda: opened(io.BytesIO(TEXT * 10)), depth=1) as ahead:
        assert ahead.read(10) == TEXT[:10]
    assert not [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


def test_a_stream_is_closed_in_the_thread_that_opened_it() -> None:
    left: list[str] = []
    with ReadAhead(lambda: opened(io.BytesIO(b"x"), left), depth=1) as ahead:
        assert ahead.read() == b"x"
    assert left == ["read-ahead"]
