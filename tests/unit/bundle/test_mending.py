"""Repairing a bundle in place: only what is damaged is fetched, and the bytes are those it had."""

from __future__ import annotations

import os
import tarfile
from typing import TYPE_CHECKING

import pytest
from support.bundle_images import all_of, bundle_of, put_image

from ocitool import limits, tarballs
from ocitool.bundle import BundleFile, BundleSource, FileSink, gather, write
from ocitool.bundle.mending import repair
from ocitool.bundle.verification import verify
from ocitool.digest import Digest
from ocitool.errors import InvalidContent, NotFound, OciError, Unsupported
from ocitool.events import Event, Finished
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = [bytes([n]) * (40_000 + n) for n in range(5)]


@pytest.fixture
def near() -> MemoryStore:
    store = MemoryStore()
    put_image(store, *LAYERS[:3], tag="app:1")
    put_image(store, *LAYERS[3:], tag="app:2")
    return store


@pytest.fixture
def path(near: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    write(gather(all_of(near)), FileSink(tmp_path / "b.tar"))
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    return tmp_path / "b.tar"


def place(path: Path, content: bytes) -> int:
    with BundleSource.open(path) as bundle:
        return bundle.members[f"blobs/sha256/{Digest.of(content).hex}"].offset


def damage(path: Path, at: int, count: int = 100) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * count)


def repaired(path: Path, near: MemoryStore) -> list[Digest]:
    """Repair; which content was fetched."""
    events: list[Event] = []
    assert repair(path, [near], on_event=events.append) == []
    return [event.descriptor.digest for event in events if isinstance(event, Finished)]


def test_a_damaged_layer_alone_is_fetched(path: Path, near: MemoryStore) -> None:
    before = path.read_bytes()
    damage(path, place(path, LAYERS[2]) + 5000)
    assert repaired(path, near) == [Digest.of(LAYERS[2])]
    assert path.read_bytes() == before


def test_a_sound_bundle_is_left_as_it_is(path: Path, near: MemoryStore) -> None:
    before = path.read_bytes()
    assert repaired(path, near) == []
    assert path.read_bytes() == before


def test_what_was_cut_off_is_added(path: Path, near: MemoryStore) -> None:
    before = path.read_bytes()
    for size in (len(before) - 1, len(before) - 1024, len(before) - 50_000, place(path, LAYERS[0]), 6 * 1024):
        os.truncate(path, size)
        repaired(path, near)
        assert path.read_bytes() == before


def test_headers_and_the_end_mark_are_mended_too(path: Path, near: MemoryStore) -> None:
    before = path.read_bytes()
    at = place(path, LAYERS[1])
    damage(path, at - 512)
    damage(path, len(before) - 600)
    assert repaired(path, near) == [Digest.of(LAYERS[1])]
    assert path.read_bytes() == before


def test_parts_are_mended_in_place_and_the_last_ones_made_again(near: MemoryStore, tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    write(gather(all_of(near)), FileSink(path, 64 << 10))
    parts = {part: part.read_bytes() for part in tmp_path.iterdir()}
    assert len(parts) == 4
    damage(tmp_path / "b.tar.002", 1000)
    (tmp_path / "b.tar.004").unlink()
    repaired(path, near)
    assert {part: part.read_bytes() for part in tmp_path.iterdir()} == parts


def test_what_no_origin_has_is_left_and_told(path: Path, near: MemoryStore) -> None:
    for layer in LAYERS[1:3]:
        damage(path, place(path, layer))
    other, empty = MemoryStore(), MemoryStore()
    put_image(other, LAYERS[1], tag="x")
    assert [desc.digest for desc in repair(path, [empty, other])] == [Digest.of(LAYERS[2])]
    with BundleSource.open(path) as bundle:
        assert [problem.where for problem in verify(bundle)] == ["app:1 > layers[2]"]


def test_an_origin_that_has_something_else_is_no_help(path: Path, near: MemoryStore) -> None:
    damage(path, place(path, LAYERS[1]))
    near._content[Digest.of(LAYERS[1])] = bytes(len(LAYERS[1]))
    with pytest.raises(OciError):
        repair(path, [near])


def test_a_bundle_whose_beginning_is_lost_is_made_again(path: Path, near: MemoryStore) -> None:
    before = path.read_bytes()
    for at in (0, 515, 1100, 1600, 3000):
        path.write_bytes(before)
        damage(path, at)
        damaged = path.read_bytes()
        with pytest.raises((InvalidContent, Unsupported)):
            repair(path, [near])
        assert path.read_bytes() == damaged


def test_an_index_with_a_digest_that_is_none_is_called_damaged(path: Path, near: MemoryStore) -> None:
    path.write_bytes(path.read_bytes().replace(b'inventory":"sha256:', b'inventory":"sha25*:'))
    with pytest.raises(InvalidContent, match=r"'sha25.*' is not a digest"):
        repair(path, [near])


def test_a_header_with_a_time_that_is_no_number_is_not_ours(path: Path, near: MemoryStore) -> None:
    raw = path.read_bytes()
    header = raw[:136] + b"99999999999" + raw[147:148] + b" " * 8 + raw[156:512]
    path.write_bytes(header[:148] + b"%06o\0 " % sum(header) + header[156:] + raw[512:])
    with pytest.raises(Unsupported, match="another tool has packed"):
        repair(path, [near])


def test_f_30_a_file_that_is_no_bundle_is_not_read_into_memory(
    near: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read_at, asked = tmp_path / "b.tar", BundleFile.read_at, []

    def noted(file: BundleFile, offset: int, count: int, /) -> bytes:
        asked.append(count)
        return read_at(file, offset, count)

    path.write_bytes(tarballs.header("blobs/sha256/large", 1 << 36))
    os.truncate(path, 512 + (1 << 36) + len(tarballs.END))
    monkeypatch.setattr(BundleFile, "read_at", noted)
    with pytest.raises(InvalidContent, match="its beginning is damaged"):
        repair(path, [near])
    assert max(asked) == limits.INDEX_JSON_BYTES


def test_a_bundle_that_another_tool_packed_is_not_patched(
    path: Path, near: MemoryStore, tmp_path: Path
) -> None:
    with tarfile.open(path) as tar, tarfile.open(tmp_path / "theirs.tar", "w") as theirs:
        for info in tar:
            info.mtime = 5 if info.name == "index.json" else 0
            theirs.addfile(info, tar.extractfile(info))
    before = (tmp_path / "theirs.tar").read_bytes()
    with pytest.raises(Unsupported, match="another tool has packed"):
        repair(tmp_path / "theirs.tar", [near])
    assert (tmp_path / "theirs.tar").read_bytes() == before


def test_there_has_to_be_a_bundle(tmp_path: Path, near: MemoryStore) -> None:
    with pytest.raises(NotFound):
        repair(tmp_path / "b.tar", [near])
    (tmp_path / "b.tar").write_bytes(b"")
    with pytest.raises(InvalidContent, match="its beginning is damaged"):
        repair(tmp_path / "b.tar", [near])
    assert (tmp_path / "b.tar").read_bytes() == b""


def test_an_incremental_bundle_is_mended_without_what_it_presumes(near: MemoryStore, tmp_path: Path) -> None:
    have = gather(all_of(near)[:1]).inventory
    write(gather(all_of(near), have=have), FileSink(tmp_path / "b.tar"))
    raw = (tmp_path / "b.tar").read_bytes()
    assert raw == bundle_of(all_of(near), have=have)
    damage(tmp_path / "b.tar", place(tmp_path / "b.tar", LAYERS[4]))
    assert repaired(tmp_path / "b.tar", near) == [Digest.of(LAYERS[4])]
    assert Descriptor("x", Digest.of(LAYERS[0]), 1).digest in have.content
    assert (tmp_path / "b.tar").read_bytes() == raw
    assert raw.endswith(tarballs.END)
