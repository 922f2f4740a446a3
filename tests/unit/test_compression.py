"""Compressed streams: told by their bytes, read to their very end, bounded, and the same without isal."""

from __future__ import annotations

import gzip
import io
import platform
import random
import subprocess
import sys
import time
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import pytest
import zstandard

from ocitool import compression, limits
from ocitool.compression import Compression, decompressed, detect
from ocitool.errors import InvalidContent, UnsafeContent
from ocitool.streams import CHUNK

if TYPE_CHECKING:
    from ocitool.streams import Reader

_RANDOM = random.Random(1)
TEXT = b"".join(b"%d tweet\n" % _RANDOM.randrange(1 << 20) for _ in range(200_000))


@pytest.fixture(params=["isal", "zlib"])
def inflater(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to inflate; isal is a dependency only where it has a wheel."""
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
        assert isinstance(compression._new_inflate(), compression._ZlibInflate)
    else:
        if platform.machine() not in {"x86_64", "aarch64", "arm64"}:
            pytest.skip("no isal wheel for this machine: zlib alone is tested")
        assert not isinstance(compression._new_inflate(), compression._ZlibInflate)
    return str(request.param)


class Dribble(io.BytesIO):
    """Gives a few bytes at a time, as a socket may."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self._size = size

    def read(self, n: int | None = -1, /) -> bytes:
        return super().read(self._size if n is None or n < 0 else min(n, self._size))


def everything(data: bytes, *, step: int = CHUNK, limit: int = limits.DECOMPRESSED_BYTES) -> bytes:
    return decompressed(Dribble(data, step), "it", limit=limit).read()


def skippable(data: bytes) -> bytes:
    return b"\x5a\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


def zstd(data: bytes, *, write_checksum: bool = False) -> bytes:
    return zstandard.ZstdCompressor(level=3, write_checksum=write_checksum).compress(data)


def drain(reader: Reader) -> None:
    while reader.read(CHUNK):
        pass


def test_compression_is_told_by_the_first_bytes() -> None:
    assert detect(gzip.compress(b"")[:4]) is Compression.GZIP
    assert detect(zstd(b"")[:4]) is Compression.ZSTD
    assert detect(skippable(b"")[:4]) is Compression.ZSTD
    assert detect(b"\x60\x2a\x4d\x18") is Compression.NONE
    for head in (b"", b"\x1f", b"ustar", bytes(4)):
        assert detect(head) is Compression.NONE


@pytest.mark.parametrize("step", [1, 7, 4096, CHUNK])
@pytest.mark.parametrize("data", [b"", b"x", TEXT[:70_000]])
def test_what_was_compressed_comes_out(inflater: str, data: bytes, step: int) -> None:
    for packed in (gzip.compress(data), zstd(data), zstd(data, write_checksum=True)):
        assert everything(packed, step=step) == data
    assert everything(b"plain" + data, step=step) == b"plain" + data


def test_a_long_stream_comes_out_in_pieces_that_were_asked_for(inflater: str) -> None:
    for packed in (gzip.compress(TEXT), zstd(TEXT), TEXT):
        reader = decompressed(io.BytesIO(packed), "it")
        pieces = list(iter(lambda: reader.read(100_000), b""))  # noqa: B023 - used at once
        assert b"".join(pieces) == TEXT
        assert max(map(len, pieces)) <= 100_000
        assert reader.read(5) == b""
        assert decompressed(io.BytesIO(packed), "it").read(0) == b""


@pytest.mark.parametrize("step", [1, 1000, CHUNK])
def test_all_members_and_all_frames_are_read(inflater: str, step: int) -> None:
    parts = [TEXT[n : n + 3000] for n in range(0, 60_000, 3000)] + [b"", b"x"]
    assert everything(b"".join(map(gzip.compress, parts)), step=step) == b"".join(parts)
    frames = b"".join(skippable(b"s" * n) + zstd(part) for n, part in enumerate(parts))
    assert everything(frames + skippable(b"footer"), step=step) == b"".join(parts)


@pytest.mark.parametrize("zeros", [1, 511, 5_000_000])
def test_lu_19_zeros_after_a_gzip_stream_are_padding(inflater: str, zeros: int) -> None:
    assert everything(gzip.compress(b"x") + bytes(zeros)) == b"x"


@pytest.mark.parametrize(
    "junk", [b"junk", bytes(512) + b"x", bytes(512) + gzip.compress(b"y"), b"\x1f", b"\x1f\x8b"]
)
def test_lu_19_anything_else_after_a_gzip_stream_is_refused(inflater: str, junk: bytes) -> None:
    with pytest.raises(InvalidContent):
        everything(gzip.compress(b"x") + junk)


@pytest.mark.parametrize(
    "junk", [b"junk", b"\0", bytes(512), gzip.compress(b"y"), b"\x28", b"\x28\xb5\x2f\xfd"]
)
def test_lu_19_anything_after_a_zstd_stream_is_refused(junk: bytes) -> None:
    with pytest.raises(InvalidContent):
        everything(zstd(b"x") + junk)


def test_every_truncation_is_noticed(inflater: str) -> None:
    data = TEXT[:5000]
    frames = skippable(b"toc") + zstd(data, write_checksum=True) + zstd(bytes(300_000))
    boundaries = {0, len(skippable(b"toc")), len(skippable(b"toc") + zstd(data, write_checksum=True))}
    for packed, ends in ((gzip.compress(data), {0}), (frames, boundaries)):
        for end in set(range(4, len(packed))) - ends:
            with pytest.raises(InvalidContent):
                everything(packed[:end], step=999)


@pytest.mark.parametrize("at", [9, 100, -5, -1])
def test_a_flipped_bit_is_noticed(inflater: str, at: int) -> None:
    for packed in (bytearray(gzip.compress(TEXT[:9000])), bytearray(zstd(TEXT[:9000], write_checksum=True))):
        packed[at] ^= 0x10
        try:
            assert everything(bytes(packed)) == TEXT[:9000]  # a byte that says nothing about the content
        except InvalidContent:
            continue


def test_a_wrong_checksum_is_noticed(inflater: str) -> None:
    packed = bytearray(gzip.compress(TEXT))
    packed[-8] ^= 1
    with pytest.raises(InvalidContent, match="corrupt"):
        everything(bytes(packed))


# LU-18: bombs


def gzip_bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]) + packer.flush()


def test_lu_18_output_beyond_the_limit_is_refused_in_little_memory(inflater: str) -> None:
    bombs = [gzip_bomb(64 << 20), zstd(bytes(64 << 20)), bytes(8) * (8 << 20)]
    for bomb in bombs:
        reader = decompressed(io.BytesIO(bomb), "it", limit=20 << 20)
        tracemalloc.start()
        with pytest.raises(UnsafeContent, match="larger than"):
            drain(reader)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        tracemalloc.stop()


def test_lu_18_a_ratio_that_no_layer_has_is_refused() -> None:
    bomb = zstd(bytes(256 << 20))
    with pytest.raises(UnsafeContent, match="bomb"):
        drain(decompressed(io.BytesIO(bomb), "it"))


@pytest.mark.parametrize("empty", [gzip.compress(b""), zstd(b""), skippable(b""), skippable(b"x")])
def test_lu_18_a_chain_of_nothing_is_refused_in_time(inflater: str, empty: bytes) -> None:
    start = time.process_time()
    with pytest.raises(UnsafeContent, match="empty"):
        everything(empty * 1_000_000)
    assert time.process_time() - start < 10


def test_lu_18_many_small_members_cost_what_they_hold(inflater: str) -> None:
    members = 20_000
    start = time.process_time()
    assert everything(gzip.compress(b"x", mtime=0) * members) == b"x" * members
    assert time.process_time() - start < 10


def test_lu_18_a_window_that_nobody_needs_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=28)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj().compress(b"x" * 100)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = packer.compress(TEXT) + packer.flush()
    with pytest.raises(UnsafeContent, match="wants 268435456 bytes"):
        everything(packed)


@pytest.mark.parametrize("window_log", [10, 20, 27])
def test_windows_that_real_layers_have_are_read(window_log: int) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=window_log)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    assert everything(packer.compress(TEXT) + packer.flush()) == TEXT


def test_lu_26_no_other_program_is_started(inflater: str) -> None:
    # In a process of its own, because an audit hook stays for as long as its process lives.
    script = """
import gzip, io, sys
if sys.argv[1] == "zlib":
    sys.modules["isal"] = None
from ocitool.compression import decompressed
from ocitool.streams import chunks

started = []
watched = {"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
sys.addaudithook(lambda event, _: started.append(event) if event in watched else None)
text = b"text " * 1_000_000
assert b"".join(chunks(decompressed(io.BytesIO(gzip.compress(text)), "the test", limit=1 << 30))) == text
print(started)
"""
    command = [sys.executable, "-c", script, inflater]
    done = subprocess.run(command, env={"PATH": "/nonexistent"}, check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
