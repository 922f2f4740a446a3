"""Layers that some tools read in parts, eStargz and zstd:chunked, are ordinary layers to everybody else."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import TYPE_CHECKING

import pytest
import zstandard
from support.unpack_images import Image, image
from support.unpack_tars import END, directory, file, symlink
from support.unpack_trees import differences, tree

from ocitool import mediatypes
from ocitool.errors import InvalidContent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES = [directory(b"d/"), file(b"d/a", b"a" * 5000), file(b"d/b", b"b"), symlink(b"l", b"d/a")]
TOC = json.dumps({"version": 1, "entries": [{"name": "d/a", "type": "reg", "size": 5000}]}).encode()
LANDMARK = file(b".no.prefetch.landmark", b"\x0f")


def estargz(parts: list[bytes]) -> bytes:
    """A gzip member for each file, one for the table of contents, an empty one that says where that is."""
    members = [gzip.compress(part, mtime=0) for part in parts]
    offset = sum(map(len, members))
    table = gzip.compress(file(b"stargz.index.json", TOC) + END, mtime=0)
    payload = b"%016xSTARGZ" % offset
    extra = b"SG" + struct.pack("<H", len(payload)) + payload
    head = b"\x1f\x8b\x08\x04" + bytes(4) + b"\x00\xff" + struct.pack("<H", len(extra)) + extra
    footer = head + b"\x01\x00\x00\xff\xff" + bytes(8)
    assert len(footer) == 51
    assert zlib.decompress(footer, 31) == b""
    return b"".join(members) + table + footer


def skippable(content: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A50, len(content)) + content


def zstd_chunked(parts: list[bytes]) -> bytes:
    """A frame for each piece; in skippable frames, the table of contents, headers, and where they are."""
    compress = zstandard.ZstdCompressor().compress
    frames = b"".join(compress(part) for part in [*parts, END])
    manifest, split = compress(TOC), compress(b"tar-split")
    numbers = (len(frames) + 8, len(manifest), len(TOC), 1, len(frames) + 16 + len(manifest), len(split), 9)
    footer = struct.pack("<7Q", *numbers) + b"GNUlInUx"
    assert len(footer) == 64
    return frames + skippable(manifest) + skippable(split) + skippable(footer)


def lazily(parts: list[bytes], tar: bytes, pack: Callable[[list[bytes]], bytes], media_type: str) -> Image:
    def compress(_tar: bytes) -> bytes:
        return pack(parts)

    return image(tar, compress=compress, media_type=media_type)


KINDS = {
    "eStargz": (estargz, mediatypes.OCI_LAYER_GZIP, [LANDMARK, *FILES], file(b"stargz.index.json", TOC)),
    "zstd:chunked": (zstd_chunked, mediatypes.OCI_LAYER_ZSTD, FILES, b""),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_such_a_layer_unpacks_to_what_its_tar_stream_says(tmp_path: Path, kind: str) -> None:
    pack, media_type, parts, table = KINDS[kind]
    tar = b"".join(parts) + table + END
    lazily(parts, tar, pack, media_type).unpack(tmp_path / "lazy")
    image(tar).unpack(tmp_path / "plain")
    lazy, plain = (tree(tmp_path / name / "rootfs") for name in ("lazy", "plain"))
    assert {"d/a", "d/b", "l"} <= lazy.keys()
    assert differences(lazy, plain) == []


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("damage", ["cut", "junk"])
def test_such_a_layer_is_read_to_its_end(tmp_path: Path, kind: str, damage: str) -> None:
    pack, media_type, parts, table = KINDS[kind]
    tar = b"".join(parts) + table + END

    def damaged(parts: list[bytes]) -> bytes:
        return pack(parts)[:-3] if damage == "cut" else pack(parts) + b"junk"

    with pytest.raises(InvalidContent):
        lazily(parts, tar, damaged, media_type).unpack(tmp_path / "lazy")
    assert list(tmp_path.iterdir()) == []
