"""Readers that check what passes through them."""

from __future__ import annotations

import io

import pytest

from ocitool.digest import Digest
from ocitool.errors import IntegrityError
from ocitool.streams import CountingReader, VerifiedReader, chunks


class Greedy:
    """Counts what is asked of it and has no end."""

    def __init__(self) -> None:
        self.given = 0

    def read(self, n: int = -1, /) -> bytes:
        assert n >= 0, "an endless stream was asked for all of it"
        self.given += n
        return b"x" * n


class Dribble:
    """Gives one byte at a time, as a socket may."""

    def __init__(self, content: bytes) -> None:
        self._inner = io.BytesIO(content)

    def read(self, n: int = -1, /) -> bytes:
        return self._inner.read(min(n, 1) if n >= 0 else 1)


def verified(content: bytes, *, promised: bytes | None = None, prefix: bytes = b"") -> VerifiedReader:
    promised = content if promised is None else promised
    return VerifiedReader(io.BytesIO(content), Digest.of(promised), len(promised), prefix=prefix)


def test_passes_on_what_is_right() -> None:
    assert verified(b"hello").read() == b"hello"
    assert b"".join(chunks(verified(b"hello"), 2)) == b"hello"


def test_nothing_at_all_can_be_right() -> None:
    assert verified(b"").read() == b""


def test_sha512_is_verified_too() -> None:
    right = Digest.of(b"hello", "sha512")
    assert VerifiedReader(io.BytesIO(b"hello"), right, 5).read() == b"hello"
    with pytest.raises(IntegrityError) as caught:
        VerifiedReader(io.BytesIO(b"jello"), right, 5).read()
    assert (caught.value.expected, caught.value.actual) == (str(right), str(Digest.of(b"jello", "sha512")))


@pytest.mark.parametrize(
    ("content", "says", "expected", "actual"),
    [
        pytest.param(b"hell", "ended after 4 of 5 bytes", "5", "4", id="rc_12_one_byte_less"),
        pytest.param(b"", "ended after 0 of 5 bytes", "5", "0", id="rc_12_nothing"),
        pytest.param(b"hello!", "longer than the 5 bytes", "5", "", id="rc_12_one_byte_more"),
        pytest.param(
            b"jello", "has the digest", str(Digest.of(b"hello")), str(Digest.of(b"jello")), id="wrong_bytes"
        ),
    ],
)
def test_refuses_what_is_wrong(content: bytes, says: str, expected: str, actual: str) -> None:
    with pytest.raises(IntegrityError, match=says) as caught:
        verified(content, promised=b"hello").read()
    assert (caught.value.expected, caught.value.actual) == (expected, actual)


def test_rc_12_an_endless_stream_is_read_one_byte_past_its_size() -> None:
    endless = Greedy()
    with pytest.raises(IntegrityError):
        VerifiedReader(endless, Digest.of(b"hello"), 5).read()
    assert endless.given == 6


def test_rc_12_a_huge_promise_allocates_nothing() -> None:
    with pytest.raises(IntegrityError, match="ended after 5"):
        VerifiedReader(io.BytesIO(b"hello"), Digest.of(b"hello"), (1 << 63) - 1).read()


@pytest.mark.parametrize("content", [b"hell", b"hello!", b"jello"])
def test_raises_again_when_asked_again_and_reads_no_further(content: bytes) -> None:
    stream = io.BytesIO(content + b"more" * (len(content) > 5))
    reader = VerifiedReader(stream, Digest.of(b"hello"), 5)
    for _ in range(3):
        with pytest.raises(IntegrityError):
            reader.read()
        assert stream.tell() <= 6


def test_the_end_is_told_again_and_again_without_asking_for_more() -> None:
    stream = io.BytesIO(b"hello")
    reader = VerifiedReader(stream, Digest.of(b"hello"), 5)
    assert reader.read() == b"hello"
    stream.close()
    assert reader.read() == b""
    assert reader.read(3) == b""


def test_reading_no_bytes_tells_nothing() -> None:
    reader = verified(b"jello", promised=b"hello")
    assert reader.read(0) == b""
    with pytest.raises(IntegrityError):
        reader.read()


def test_a_prefix_counts_but_is_not_passed_on() -> None:
    assert verified(b"lo", promised=b"hello", prefix=b"hel").read() == b"lo"
    with pytest.raises(IntegrityError, match="digest"):
        verified(b"lo", promised=b"hello", prefix=b"jel").read()
    with pytest.raises(IntegrityError, match="longer"):
        verified(b"more", promised=b"hello", prefix=b"hello there").read()


def test_counts_what_passes() -> None:
    counts: list[int] = []
    reader = CountingReader(io.BytesIO(b"hello"), counts.append)
    assert reader.read(2) + reader.read() + reader.read() == b"hello"
    assert counts == [2, 3]
