"""Tar files of layouts: what we write every reader reads, and what we read is what every reader sees."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest
from support.bundle_files import InMemory

from ocitool import tarballs
from ocitool.errors import IntegrityError, InvalidContent, UnsafeContent

if TYPE_CHECKING:
    from collections.abc import Callable

LONG = "blobs/sha512/" + "a" * 128


def archive(*files: tuple[str, bytes]) -> bytes:
    parts = [
        tarballs.header(name, len(content)) + content + bytes(tarballs.padding(len(content)))
        for name, content in files
    ]
    return b"".join(parts) + tarballs.END


def names(raw: bytes) -> list[str]:
    return [member.name for member in tarballs.members(InMemory(raw), "t.tar")]


def by_tarfile(*infos: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, content in infos:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_what_is_written_other_readers_read_and_so_do_we() -> None:
    files = [("index.json", b"{}"), (LONG, b"x" * 513), ("empty", b"")]
    raw = archive(*files)
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as tar:
        found = [(info.name, tar.extractfile(info)) for info in tar]
    assert [(name, file.read() if file else None) for name, file in found] == files
    ours = list(tarballs.members(InMemory(raw), "t.tar"))
    assert [(one.name, raw[one.offset : one.offset + one.size]) for one in ours] == files


def test_ustar_is_enough_unless_a_name_or_a_size_is_not() -> None:
    assert len(tarballs.header("blobs/sha256/" + "a" * 64, 5)) == 512
    assert len(tarballs.header(LONG, 5)) == 3 * 512
    large = tarballs.header("x", 9 << 30)
    assert len(large) == 3 * 512
    with tarfile.open(fileobj=io.BytesIO(large), mode="r:") as tar:
        info = tar.next()
    assert info is not None
    assert (info.name, info.size, info.uid, info.gid, info.mtime) == ("x", 9 << 30, 0, 0, 0)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_other_writers_are_read(form: int) -> None:
    directory = special("./blobs", tarfile.DIRTYPE)
    plain = tarfile.TarInfo("./index.json")
    raw = by_tarfile((directory, b""), (plain, b"{}"), form=form)
    assert names(raw) == ["index.json"]
    if form != tarfile.USTAR_FORMAT:
        assert names(by_tarfile((tarfile.TarInfo(LONG), b"x"), form=form)) == [LONG]


def test_links_are_told_and_nothing_else_is_accepted() -> None:
    raw = by_tarfile((special("a", tarfile.SYMTYPE, "../b"), b""), (special("c", tarfile.LNKTYPE, "a"), b""))
    assert [member.link for member in tarballs.members(InMemory(raw), "t.tar")] == ["../b", "a"]
    for kind in (tarfile.CHRTYPE, tarfile.FIFOTYPE, b"Z"):
        with pytest.raises(InvalidContent, match="neither a file nor a directory"):
            names(by_tarfile((special("x", kind), b"")))


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a//b", "a/./b", "..", "x" * 5000])
def test_im_05_a_name_that_leaves_the_archive_is_refused(name: str) -> None:
    with pytest.raises(UnsafeContent, match="has a member named"):
        names(by_tarfile((tarfile.TarInfo(name), b"")))


def test_im_05_two_members_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidContent, match=r"holds index\.json twice"):
        names(archive(("index.json", b"1"), ("./index.json", b"2")))


def test_truncation_at_every_block_is_found() -> None:
    raw = archive(("a", b"x" * 1000), ("b", b"y"), (LONG, b"z"))
    for end in range(0, len(raw) - 512, 256):
        with pytest.raises(IntegrityError, match="truncated"):
            names(raw[:end])


def test_nothing_may_follow_the_end_mark_but_padding() -> None:
    raw = archive(("a", b"x"))
    assert names(raw + bytes(9216)) == ["a"]
    with pytest.raises(InvalidContent, match="goes on after its end mark"):
        names(raw + raw)
    with pytest.raises(UnsafeContent, match="after its end mark"):
        names(raw + bytes(17 << 20))


def _zeroed(raw: bytearray) -> None:
    raw[512 * 2 : 512 * 3] = bytes(512)


def _checksum(raw: bytearray) -> None:
    raw[10] ^= 1


def _size(raw: bytearray) -> None:
    raw[124:136] = b"99999999999\0"


@pytest.mark.parametrize("damage", [_checksum, _size, _zeroed])
def test_a_damaged_header_is_no_end_of_the_archive(damage: Callable[[bytearray], None]) -> None:
    raw = bytearray(archive(("a", b"x"), ("b", b"y")))
    damage(raw)
    with pytest.raises(InvalidContent):
        names(bytes(raw))


def test_a_header_of_absurd_length_is_not_read() -> None:
    raw = bytearray(tarballs.header(LONG, 1))
    raw[:512] = tarballs._block(b"x", 2 << 20, 0, b"x")
    with pytest.raises(UnsafeContent, match="has a header of 2097152 bytes"):
        names(bytes(raw))


def test_a_file_with_holes_is_refused() -> None:
    info = tarfile.TarInfo("index.json")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    with pytest.raises(InvalidContent, match="a file with holes"):
        names(by_tarfile((info, b"{}")))
