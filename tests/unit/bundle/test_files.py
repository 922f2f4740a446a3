"""Files, parts, sinks and streams: nothing is seen half, and a missing part is named."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path

import pytest
from support.bundle_images import all_of, bundle_of, put_image
from support.disks import files_end_at
from support.layout_content import held_below

from ocitool.bundle import BundleFile, BundleSource, FileSink, StreamSink, gather, write
from ocitool.bundle.sinks import PatchSink
from ocitool.bundle.verification import verify
from ocitool.errors import Conflict, IntegrityError, InvalidContent, NotFound, OciError
from ocitool.memory import MemoryStore

PART = 64 << 10


@pytest.fixture
def store() -> MemoryStore:
    """An image of about four parts."""
    store = MemoryStore()
    put_image(store, os.urandom(150_000), os.urandom(60_000), b"", tag="x")
    return store


@pytest.fixture
def parts(store: MemoryStore, tmp_path: Path) -> Path:
    path = tmp_path / "b.tar"
    write(gather(all_of(store)), FileSink(path, PART))
    return path


def part(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number:03}")


def test_parts_are_the_bundle_cut_into_pieces(store: MemoryStore, parts: Path) -> None:
    pieces = [path.read_bytes() for path in sorted(parts.parent.iterdir())]
    assert b"".join(pieces) == bundle_of(all_of(store))
    assert {len(piece) for piece in pieces[:-1]} == {PART}
    assert len(pieces) == 4


def test_parts_are_read_in_place_by_any_of_their_names(parts: Path) -> None:
    for path in (parts, part(parts, 1), part(parts, 3)):
        with BundleSource.open(path) as bundle:
            assert bundle.file.parts == 4
            assert verify(bundle) == []


def test_every_read_gives_the_same_bytes_whatever_it_crosses(store: MemoryStore, parts: Path) -> None:
    raw = bundle_of(all_of(store))
    with BundleFile.open(parts) as file:
        assert file.size == len(raw)
        for offset, count in [
            (0, 10),
            (PART - 3, 6),
            (PART - 1, 2 * PART + 2),
            (len(raw) - 5, 100),
            (len(raw), 1),
        ]:
            assert file.read_at(offset, count) == raw[offset : offset + count]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_part_that_is_missing_is_named(parts: Path, number: int) -> None:
    part(parts, number).unlink()
    with pytest.raises(NotFound, match=f"part {number} of the bundle"):
        BundleSource.open(parts)


def test_missing_last_parts_are_a_truncated_bundle(parts: Path) -> None:
    part(parts, 4).unlink()
    with pytest.raises(IntegrityError, match="truncated") as caught:
        BundleSource.open(parts)
    assert caught.value.hint == "the parts after number 3 are missing"


def test_a_part_that_was_not_copied_whole_is_named(parts: Path) -> None:
    os.truncate(part(parts, 2), 1000)
    with pytest.raises(IntegrityError, match=r"b\.tar\.002 has 1000 bytes, not the 65536"):
        BundleSource.open(parts)
    os.truncate(part(parts, 2), PART + 1)
    with pytest.raises(IntegrityError, match=r"b\.tar\.002 has 65537 bytes, not the 65536"):
        BundleSource.open(parts)
    os.truncate(part(parts, 2), PART)
    os.truncate(part(parts, 4), PART + 1)
    with pytest.raises(IntegrityError, match=r"b\.tar\.004 has 65537 bytes, not the 65536"):
        BundleSource.open(parts)


def test_f_30_no_file_stays_open(parts: Path) -> None:
    with BundleSource.open(parts):
        assert len(held_below(parts.parent)) == 4
    assert held_below(parts.parent) == []
    os.truncate(part(parts, 2), 1000)
    with pytest.raises(IntegrityError):
        BundleSource.open(parts)
    part(parts, 2).unlink()
    os.mkfifo(part(parts, 2))
    with pytest.raises(InvalidContent):
        BundleSource.open(parts)
    assert held_below(parts.parent) == []


def test_what_is_read_in_pieces_is_read_whole(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As network file systems may do."""
    whole = b"".join(path.read_bytes() for path in sorted(parts.parent.iterdir()))
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, offset: real(fd, min(count, 7000), offset))
    with BundleFile.open(parts) as file:
        assert file.read_at(0, len(whole)) == whole


def test_parts_in_the_wrong_order_are_no_bundle(parts: Path) -> None:
    part(parts, 2).rename(parts.with_name("spare"))
    part(parts, 3).rename(part(parts, 2))
    parts.with_name("spare").rename(part(parts, 3))
    try:
        with BundleSource.open(parts) as bundle:
            assert verify(bundle)
    except InvalidContent:
        pass  # where a header stood at the seam


def test_there_has_to_be_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no bundle"):
        BundleSource.open(tmp_path / "b.tar")
    with pytest.raises(NotFound, match="is not there"):
        BundleSource.open(tmp_path / "nowhere" / "b.tar")
    (tmp_path / "b.tar").mkdir()
    with pytest.raises(Conflict, match=r"b\.tar is a directory, and a bundle is a file"):
        BundleSource.open(tmp_path / "b.tar")


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "b.tar.001")
    with pytest.raises(InvalidContent, match="no regular file"):
        BundleSource.open(tmp_path / "b.tar")


def test_a_bundle_does_not_replace_another_one(store: MemoryStore, parts: Path) -> None:
    before = {path.name: path.read_bytes() for path in parts.parent.iterdir()}
    for size in (None, PART):
        with pytest.raises(Conflict, match="exists already"):
            write(gather(all_of(store)), FileSink(parts, size))
    assert {path.name: path.read_bytes() for path in parts.parent.iterdir()} == before
    single = parts.with_name("single.tar")
    single.write_bytes(b"precious")
    with pytest.raises(Conflict, match="exists already"):
        write(gather(all_of(store)), FileSink(single))
    assert single.read_bytes() == b"precious"


def test_im_07_a_temporary_file_that_somebody_has_planted_is_not_written_through(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (tmp_path / ".b.tar.guessed").hardlink_to(tmp_path / "victim")
    with pytest.raises(Conflict):
        write(gather(all_of(store)), FileSink(tmp_path / "b.tar"))
    assert (tmp_path / "victim").read_bytes() == b"precious"


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is brought to the disk and what gets its name, as it happens."""
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(fd: int) -> None:
        fsync(fd)
        done.append(f"on the disk: {Path(f'/proc/self/fd/{fd}').readlink().name.removesuffix('.token')}")

    def renamed(old: Path, new: Path) -> None:
        rename(old, new)
        done.append(f"named: {new.name}")

    monkeypatch.setattr("secrets.token_hex", lambda _: "token")
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    return done


def test_f_18_a_bundle_gets_its_name_once_it_is_on_the_disk(tmp_path: Path, order: list[str]) -> None:
    with FileSink(tmp_path / "b.tar", PART) as sink:
        sink.start(PART + 1)
        sink.write_at(0, bytes(PART + 1))
        assert order == []
    assert order == [
        "on the disk: .b.tar.001",
        "on the disk: .b.tar.002",
        "named: b.tar.001",
        "named: b.tar.002",
        f"on the disk: {tmp_path.name}",
    ]
    assert held_below(tmp_path) == []


def test_f_18_what_is_mended_is_on_the_disk_when_that_is_said(parts: Path, order: list[str]) -> None:
    with PatchSink(parts) as sink:
        sink.start(4 * PART)
        sink.write_at(0, b"x")
    assert order == [f"on the disk: b.tar.00{number}" for number in range(1, 5)]
    assert held_below(parts.parent) == []


def test_f_16_what_can_not_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    with FileSink(tmp_path / "b.tar") as sink:
        sink.start(2 << 20)
        with files_end_at(1 << 20), pytest.raises(OciError, match=r"b\.tar: File too large"):
            sink.write_at(1 << 20, b"x")


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "b.tar", PART)
    with suppress(OciError), sink:
        sink.start(200_000)
        sink.write_at(0, b"x")
        assert len(list(tmp_path.iterdir())) == 4
        raise OciError("half-way")
    assert list(tmp_path.iterdir()) == []
    assert held_below(tmp_path) == []


def test_a_directory_that_cannot_take_it_is_told_at_once(
    tmp_path: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFound), FileSink(tmp_path / "nowhere" / "b.tar") as sink:
        sink.start(1)
    found = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*found[:4], 0, *found[5:])))
    with pytest.raises(OciError, match=r"no space for the bundle .* 0 are free"):
        write(gather(all_of(store)), FileSink(tmp_path / "b.tar"))
    assert list(tmp_path.iterdir()) == []


def test_parts_have_a_sensible_size(tmp_path: Path) -> None:
    with pytest.raises(OciError, match="parts of 4 bytes are too small"):
        FileSink(tmp_path / "b.tar", 4)


def test_there_may_be_so_many_parts_and_no_more(tmp_path: Path) -> None:
    with FileSink(tmp_path / "b.tar", PART) as sink:
        sink.start(PART * 899 + 1)
    assert len(list(tmp_path.iterdir())) == 900
    assert (tmp_path / "b.tar.900").stat().st_size == 1
    with BundleFile.open(tmp_path / "b.tar") as file:
        assert file.size == PART * 899 + 1
    with pytest.raises(OciError, match="would be 901 files"), FileSink(tmp_path / "c.tar", PART) as sink:
        sink.start(PART * 900 + 1)


class Full(io.BytesIO):
    """Standard output that somebody has closed."""

    def write(self, data: object, /) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_stream_that_is_closed_ends_the_bundle(store: MemoryStore) -> None:
    with pytest.raises(OciError, match="the stream of the bundle: Broken pipe"):
        write(gather(all_of(store)), StreamSink(Full()))
