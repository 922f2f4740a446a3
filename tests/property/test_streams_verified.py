"""A verified reader never tells the end of wrong bytes, however the bytes arrive and are asked for."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocitool.digest import Digest
from ocitool.errors import IntegrityError
from ocitool.streams import Reader, VerifiedReader


class Rationed:
    """Gives at most so many bytes at a time, as a peer pleases, and remembers how many it gave."""

    def __init__(self, content: bytes, rations: list[int]) -> None:
        self._inner = io.BytesIO(content)
        self._rations = rations
        self.given = 0

    def read(self, n: int = -1, /) -> bytes:
        ration = self._rations.pop() if self._rations else 1 << 20
        data = self._inner.read(ration if n < 0 else min(n, ration))
        self.given += len(data)
        return data


rations = st.lists(st.integers(1, 9), max_size=50)
asks = st.lists(st.sampled_from([-1, 0, 1, 2, 7, 100]), max_size=20).map(lambda asks: [*asks, -1, -1])
algorithms = st.sampled_from(["sha256", "sha512"])


def read_as_asked(reader: Reader, asks: list[int]) -> bytes:
    return b"".join([reader.read(ask) for ask in asks])


@given(st.binary(max_size=60), rations, asks, algorithms, st.data())
def test_right_bytes_pass_whatever_the_chunking(
    content: bytes, rations: list[int], asks: list[int], algorithm: str, data: st.DataObject
) -> None:
    held = data.draw(st.integers(0, len(content)))
    digest = Digest.of(content, algorithm)
    source = Rationed(content[held:], rations)
    reader = VerifiedReader(source, digest, len(content), prefix=content[:held])
    assert read_as_asked(reader, asks) == content[held:]


@given(st.binary(max_size=60), st.binary(max_size=60), rations, asks, st.integers(-2, 2))
def test_wrong_bytes_are_never_told_to_end_and_one_past_the_size_is_the_last_one_read(
    promised: bytes, content: bytes, rations: list[int], asks: list[int], lie: int
) -> None:
    size = max(len(promised) + lie, 0)
    if (content, len(content)) == (promised, size):
        content += b"!"
    source = Rationed(content, rations)
    reader = VerifiedReader(source, Digest.of(promised), size)
    with pytest.raises(IntegrityError):
        read_as_asked(reader, asks)
    with pytest.raises(IntegrityError):
        reader.read(1)
    assert source.given <= size + 1
