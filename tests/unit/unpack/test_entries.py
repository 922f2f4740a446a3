"""LU-15 to LU-17, LU-20 to LU-23, LU-29: one meaning for every archive, or none."""

from __future__ import annotations

import io
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from support.unpack_tars import (
    END,
    GNU,
    MTIME,
    V7,
    archive,
    device,
    directory,
    extension,
    file,
    hardlink,
    header,
    octal,
    padded,
    pax,
    symlink,
)

from ocitool.errors import InvalidContent, UnsafeContent
from ocitool.unpack.entries import Archive, Entry, Kind, clean

if TYPE_CHECKING:
    from collections.abc import Callable


def entries(tar: bytes, **options: int) -> list[tuple[Entry, bytes]]:
    """The entries of an archive and their bodies."""
    reading = Archive(io.BytesIO(tar), **options)
    return [(entry, b"".join(reading.body())) for entry in reading]


def only(tar: bytes) -> Entry:
    """The one entry of an archive."""
    ((entry, _),) = entries(tar)
    return entry


def refused(tar: bytes, match: str = "", error: type[Exception] = InvalidContent) -> None:
    """Nobody may take this for an archive, nor think long about it."""
    start = time.process_time()
    with pytest.raises(error, match=match or None):
        entries(tar)
    assert time.process_time() - start < 1


def test_an_entry_says_everything() -> None:
    tar = archive(file(b"usr/bin/x", b"body", mode=0o4755, uid=7, gid=8, mtime=9))
    assert entries(tar) == [
        (Entry(Kind.FILE, b"usr/bin/x", 0o4755, 7, 8, 9_000_000_000, 4), b"body"),
    ]


@pytest.mark.parametrize(
    ("block", "kind"),
    [
        (header(b"x", b"\0", magic=V7), Kind.FILE),
        (header(b"x/", b"\0", magic=V7), Kind.DIRECTORY),
        (header(b"x", b"7"), Kind.FILE),
        (header(b"x", b"5"), Kind.DIRECTORY),
        (header(b"x", b"6"), Kind.FIFO),
        (device(b"x", 1, 2), Kind.CHARACTER),
        (device(b"x", 1, 2, b"4"), Kind.BLOCK),
        (symlink(b"x", b"y"), Kind.SYMLINK),
        (hardlink(b"x", b"y"), Kind.HARDLINK),
    ],
)
def test_every_type_is_told(block: bytes, kind: Kind) -> None:
    assert only(archive(block)).kind is kind


def test_ustar_joins_prefix_and_name() -> None:
    assert only(archive(header(b"name", prefix=b"a/b"))).path == b"a/b/name"
    assert only(archive(header(b"name", prefix=b"a/b", magic=GNU))).path == b"name"


def test_long_names_and_targets_come_before_their_entry() -> None:
    name, target = b"n" * 200 + b"/x", b"t" * 3000
    assert only(archive(symlink(name, target))) == Entry(
        Kind.SYMLINK, name, 0o777, 0, 0, MTIME * 10**9, 0, target
    )
    assert only(archive(pax({b"path": name, b"linkpath": target}), symlink(b"x", b"y"))).link == target


def test_pax_records_win_over_the_header() -> None:
    extra = {
        b"path": "ü/ß".encode(),
        b"size": b"3",
        b"uid": b"4294967294",
        b"gid": b"70000",
        b"mtime": b"-1.5",
        b"SCHILY.xattr.user.a": b"\0=\n",
        b"comment": b"nothing",
    }
    ((entry, body),) = entries(archive(pax(extra), header(b"x", size=3), padded(b"abc")))
    assert (entry.path, entry.size, body) == ("ü/ß".encode(), 3, b"abc")
    assert (entry.uid, entry.gid, entry.mtime) == (4294967294, 70000, -1_500_000_000)
    assert entry.xattrs == ((b"user.a", b"\0=\n"),)


def test_an_empty_record_leaves_the_header_as_it_is() -> None:
    assert only(archive(pax({b"path": b"", b"uid": b""}), header(b"x", uid=5)))[:4] == (
        Kind.FILE,
        b"x",
        0o644,
        5,
    )


def test_the_last_of_equal_records_wins() -> None:
    assert only(archive(pax([(b"path", b"a"), (b"path", b"b")]), header(b"x"))).path == b"b"


def test_bodies_are_read_across_chunks_or_skipped() -> None:
    bodies = [bytes([n]) * size for n, size in enumerate([0, 1, 511, 512, 513, 3_000_000, 5])]
    tar = archive(*(file(b"%d" % n, body) for n, body in enumerate(bodies)))

    class Dribble(io.BytesIO):
        def read(self, n: int | None = -1, /) -> bytes:
            return super().read(min(n or 0, 777))

    for stream in (io.BytesIO(tar), Dribble(tar)):
        reading = Archive(stream)
        assert [b"".join(reading.body()) for _ in reading] == bodies
    assert [entry.size for entry in Archive(Dribble(tar))] == [len(body) for body in bodies]


# LU-15, LU-16: one meaning or none


def test_lu_15_the_pax_size_is_the_size() -> None:
    smuggled = file(b"smuggled", b"x")
    tar = archive(pax({b"size": b"%d" % len(smuggled)}), header(b"outer", size=0), smuggled, file(b"after"))
    assert [entry.path for entry, _ in entries(tar)] == [b"outer", b"after"]


@pytest.mark.parametrize("typeflag", [b"1", b"2", b"3", b"4", b"5", b"6"])
def test_lu_15_a_body_where_none_belongs_is_refused(typeflag: bytes) -> None:
    block = header(b"x", typeflag, size=512, link=b"y")
    refused(archive(block, file(b"smuggled")), "readers differ")


def test_lu_15_a_file_named_like_a_directory_is_refused() -> None:
    refused(archive(file(b"x/", b"body")), "directory to others")
    refused(archive(pax({b"path": b"x/"}), file(b"y", b"body")), "directory to others")


def test_lu_15_two_names_of_two_kinds_are_refused() -> None:
    tar = archive(extension(b"L", b"a\0"), pax({b"path": b"b"}), header(b"x"))
    refused(tar, "readers differ")


@pytest.mark.parametrize("key", [b"path", b"size", b"linkpath", b"uid", b"mtime", b"SCHILY.xattr.user.a"])
def test_lu_29_a_global_header_that_changes_entries_is_refused(key: bytes) -> None:
    refused(archive(pax({key: b"1"}, b"g"), file(b"x")), "for all entries")


def test_lu_29_a_global_remark_is_passed_over() -> None:
    tar = archive(pax({b"comment": b"0123abcd"}, b"g"), file(b"x"), pax({b"comment": b"x"}, b"g"))
    assert only(tar).path == b"x"


@pytest.mark.parametrize(
    "typeflag", [bytes([n]) for n in range(256) if bytes([n]) not in b"\x0001234567xgLKS"]
)
def test_lu_29_an_unknown_type_is_refused(typeflag: bytes) -> None:
    refused(archive(header(b"x", typeflag)), "unknown type")


@pytest.mark.parametrize(
    "size", [-1, -512, 1 << 63, 1 << 87, b"9", b"0x10", b"-1", b"1_0", b"+7", b"7 7", b"\xff" * 12, b"7\x008"]
)
def test_lu_16_a_size_that_is_none_is_refused(size: int | bytes) -> None:
    refused(archive(header(b"x", size=size), padded(b"x" * 64)))


@pytest.mark.parametrize(
    "size", [b"-512", b"1e3", b" 1", b"0x1", b"1" * 30, b"9223372036854775808", b"\xef\xbc\x91"]
)
def test_lu_16_a_pax_size_that_is_none_is_refused(size: bytes) -> None:
    refused(archive(pax({b"size": size}), header(b"x"), padded(b"x")))


@pytest.mark.parametrize("at", [0, 100, 124, 156, 400, 511])
def test_lu_16_a_flipped_bit_in_a_header_is_corruption_and_not_the_end(at: int) -> None:
    tar = bytearray(archive(file(b"a", b"x"), file(b"b", b"y")))
    tar[1024 + at] ^= 0x04
    refused(bytes(tar), "checksum is wrong")


@pytest.mark.parametrize("checksum", [b"", b"        ", b"zzzzzz\0 ", b"\xff" * 8, b"777777\0 "])
def test_lu_16_a_checksum_that_is_none_is_refused(checksum: bytes) -> None:
    refused(archive(header(b"x", checksum=checksum.ljust(8, b"\0"))), "checksum")


def test_checksums_of_names_beyond_ascii_are_compared_too() -> None:
    assert only(archive(header(b"\xff" * 100))).path == b"\xff" * 100
    block = bytearray(header("ü".encode() * 20))
    block[3] ^= 1
    refused(bytes(block) + END, "checksum")


def test_a_sum_of_signed_bytes_is_accepted_as_old_writers_made_it() -> None:
    block = header(b"\xfc" * 10)
    signed = sum(block[:148] + block[156:]) + 256 - 256 * 10
    assert only(archive(header(b"\xfc" * 10, checksum=b"%06o\0 " % signed))).path == b"\xfc" * 10


@pytest.mark.parametrize(
    "tar",
    [
        b"",
        b"\0",
        bytes(511),
        bytes(512),
        file(b"x", b"body"),
        file(b"x", b"body") + bytes(512),
        file(b"x", b"body")[:-1] + b"",
        header(b"x", size=5),
        header(b"x", size=5) + b"ab",
        pax({b"path": b"x"}),
        pax({b"path": b"x"}) + END,
        extension(b"L", b"x" * 200) + END,
    ],
)
def test_lu_16_an_archive_without_its_end_is_truncated(tar: bytes) -> None:
    refused(tar)


def test_lu_16_entries_after_a_block_of_zeros_are_not_lost_in_silence() -> None:
    refused(file(b"x") + bytes(512) + archive(file(b"y")), "lone block of zeros")


@pytest.mark.parametrize(
    "rest", [file(b"second") + END, b"junk", bytes(5120) + b"x", bytes(3_000_000) + b"x"]
)
def test_lu_19_something_after_the_end_is_refused(rest: bytes) -> None:
    refused(archive(file(b"x")) + rest, "followed by something else")


@pytest.mark.parametrize("zeros", [0, 1, 512, 9216, 3_000_000])
def test_lu_19_zeros_after_the_end_are_padding(zeros: int) -> None:
    assert only(archive(file(b"x")) + bytes(zeros)).path == b"x"


# LU-17: bombs of headers


@pytest.mark.parametrize("typeflag", [b"x", b"L", b"K", b"g"])
def test_lu_17_a_header_of_64_mib_is_not_read(typeflag: bytes) -> None:
    tar = header(b"x", typeflag, size=64 << 20) + bytes(64 << 20)
    tracemalloc.start()
    refused(tar, "at most", UnsafeContent)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "stack",
    [
        pax({b"comment": b"x"}) * 100_000,
        extension(b"L", b"x\0") * 100_000,
        pax({b"comment": b"x"}, b"g") * 100_000,
        (extension(b"L", b"x\0") + extension(b"K", b"x\0")) * 1000,
    ],
    ids=["pax", "long names", "global", "mixed"],
)
def test_lu_17_headers_upon_headers_are_refused(stack: bytes) -> None:
    refused(stack + archive(file(b"x")))


def test_lu_17_entries_are_counted() -> None:
    tar = archive(*[header(b"x")] * 11)
    assert len(entries(tar, max_entries=11)) == 11
    with pytest.raises(UnsafeContent, match="more than 10 entries"):
        entries(tar, max_entries=10)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (b"n" * 255, True),
        (b"n" * 256, False),
        (b"/".join([b"n" * 200] * 20), True),
        (b"/".join([b"n" * 15] * 256), True),
        (b"/".join([b"n" * 15] * 257), False),
        (b"d/" * 5000 + b"x", False),
        (b".wh." + b"n" * 255, True),
        (b".wh." + b"n" * 256, False),
    ],
    ids=["255", "256", "4019", "4095", "4111", "5000 deep", "255 hidden", "256 hidden"],
)
def test_lu_23_paths_have_the_length_that_file_systems_have(path: bytes, *, allowed: bool) -> None:
    if allowed:
        assert only(archive(file(path))).path == path
    else:
        refused(archive(file(path)), "too long", UnsafeContent)


@pytest.mark.parametrize(
    "name", [b"\xff\xfe", b"line\nbreak", b" ", b"-rf", "é".encode(), "e\u0301".encode(), b"\\x"]
)
def test_lu_23_names_are_bytes(name: bytes) -> None:
    assert only(archive(file(name))).path == name
    assert only(archive(pax({b"path": name}), file(b"x"))).path == name


# LU-21, LU-22: numbers


@pytest.mark.parametrize("number", [-1, (1 << 32) - 1, 1 << 32, 1 << 55])
@pytest.mark.parametrize("field", ["uid", "gid"])
def test_lu_21_an_owner_that_no_file_can_have_is_refused(field: str, number: int) -> None:
    refused(archive(header(b"x", **{field: number})), "no user or group")  # type: ignore[arg-type]
    refused(archive(pax({field.encode(): b"%d" % number}), header(b"x")))


@pytest.mark.parametrize("value", [b"abc", b"1.5", b"-0", b"0o7", b"1 "])
def test_lu_21_an_owner_that_is_no_number_is_refused(value: bytes) -> None:
    refused(archive(pax({b"uid": value}), header(b"x")), "gives")


@pytest.mark.parametrize("number", [0, 1 << 21, 1 << 31, (1 << 32) - 2])
def test_lu_21_every_owner_that_a_file_can_have_is_kept(number: int) -> None:
    assert only(archive(header(b"x", uid=number, gid=number)))[3:5] == (number, number)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"1.5", 1_500_000_000),
        (b"1.", 1_000_000_000),
        (b"-1.000000001", -1_000_000_001),
        (b"0.1234567899", 123_456_789),
        (b"99999999999999999999", (1 << 63) - 1),
        (b"-99999999999999999999", -(1 << 63)),
    ],
)
def test_lu_22_times_are_exact_and_clamped(value: bytes, expected: int) -> None:
    assert only(archive(pax({b"mtime": value}), header(b"x"))).mtime == expected


@pytest.mark.parametrize("value", [b"nan", b"inf", b"-inf", b"1e9", b".5", b"--1", b"1" * 21])
def test_lu_22_a_time_that_is_none_is_refused(value: bytes) -> None:
    refused(archive(pax({b"mtime": value}), header(b"x")), "as a time")


@pytest.mark.parametrize(
    ("mtime", "expected"), [(-1, -(10**9)), (1 << 63, (1 << 63) - 1), (-(1 << 63), -(1 << 63))]
)
def test_lu_22_binary_times_are_clamped(mtime: int, expected: int) -> None:
    assert only(archive(header(b"x", mtime=mtime))).mtime == expected


def test_lu_22_a_mode_has_twelve_bits() -> None:
    assert only(archive(header(b"x", mode=0o177777))).mode == 0o7777


@pytest.mark.parametrize("key", [b"path", b"linkpath"])
def test_lu_22_a_name_with_a_nul_is_refused(key: bytes) -> None:
    refused(archive(pax({key: b"a\0b"}), symlink(b"x", b"y")))


@pytest.mark.parametrize("target", [b"", b"x" * 4096])
def test_a_symbolic_link_needs_a_target_that_can_be(target: bytes) -> None:
    refused(archive(symlink(b"x", target)), "impossible target")


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"11 path=abc",
        b"5 a=b\n",
        b"0 a=b\n",
        b"7 a=b\n",
        b"6 ab\n\n",
        b"6 =bb\n",
        b"-6 a=b\n",
        b"6a=b\n",
        b"999999999999 a=b\n",
        b"6 a=b\n\0\0",
        b"\n",
    ],
)
def test_a_pax_header_that_breaks_its_grammar_is_refused(data: bytes) -> None:
    refused(archive(header(b"x", b"x", size=len(data)) + padded(data), header(b"x")), "PAX")


def test_a_record_that_is_taken_back_is_refused() -> None:
    refused(archive(pax([(b"path", b"a"), (b"path", b"")]), header(b"x")), "takes it back")


@pytest.mark.parametrize("mode", [-1, 1 << 32, b"\x81000644"])
def test_lu_22_a_mode_that_no_file_can_have_is_refused(mode: int | bytes) -> None:
    refused(archive(header(b"x", mode=mode)), "has the mode")


@pytest.mark.parametrize("name", [b"", b"user.a\0b", b"\0"])
def test_lu_14_an_attribute_without_a_possible_name_is_refused(name: bytes) -> None:
    refused(archive(pax({b"SCHILY.xattr." + name: b"v"}), header(b"x")), "name of an attribute")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"./a/b/", b"a/b"),
        (b"a/b//", b"a/b"),
        (b"./a//", b"a"),
        (b"/a//b/.", b"a/b"),
        (b"a/../../b", b"b"),
        (b"...", b"..."),
        (b".a/..b", b".a/..b"),
        (b"./", b""),
        (b".", b""),
        (b"..", b""),
        (b"", b""),
        (b"a/./b/..", b"a"),
        (b"././@LongLink", b"@LongLink"),
    ],
)
def test_a_path_is_cleaned(raw: bytes, expected: bytes) -> None:
    assert clean(raw) == expected


# LU-20: files with holes


def gnu_sparse(extents: list[tuple[int, int]], real: int, body: bytes, more: bytes = b"") -> bytes:
    """A sparse file of GNU's old kind."""
    table = b"".join(octal(offset, 12) + octal(length, 12) for offset, length in extents)
    tail = (bytes(41) + table).ljust(137, b"\0") + bytes([bool(more)]) + octal(real, 12) + bytes(17)
    return header(b"x", b"S", size=len(body), magic=GNU, prefix=tail) + more + padded(body)


def pax_sparse_0_0(extents: list[tuple[int, int]], real: int, body: bytes) -> bytes:
    """Version 0.0: a pair of records for each extent."""
    pairs = [(b"GNU.sparse.size", b"%d" % real), (b"GNU.sparse.numblocks", b"%d" % len(extents))]
    for offset, length in extents:
        pairs += [(b"GNU.sparse.offset", b"%d" % offset), (b"GNU.sparse.numbytes", b"%d" % length)]
    return pax(pairs) + file(b"x", body)


def pax_sparse_0_1(extents: list[tuple[int, int]], real: int, body: bytes) -> bytes:
    """Version 0.1: one record for all."""
    numbers = b",".join(b"%d,%d" % extent for extent in extents)
    records = {b"GNU.sparse.size": b"%d" % real, b"GNU.sparse.map": numbers, b"GNU.sparse.name": b"x"}
    return pax(records) + file(b"GNUSparseFile.1/x", body)


def pax_sparse_1_0(extents: list[tuple[int, int]], real: int, body: bytes) -> bytes:
    """Version 1.0: the map stands before the body."""
    numbers = b"%d\n" % len(extents) + b"".join(b"%d\n%d\n" % extent for extent in extents)
    records = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.realsize": b"%d" % real,
        b"GNU.sparse.name": b"x",
    }
    return pax(records) + file(b"GNUSparseFile.1/x", padded(numbers) + body)


SPARSE = [gnu_sparse, pax_sparse_0_0, pax_sparse_0_1, pax_sparse_1_0]


@pytest.mark.parametrize("make", SPARSE)
def test_lu_20_all_four_kinds_of_sparse_files_are_read(make: Callable[..., bytes]) -> None:
    ((entry, body), (after, _)) = entries(
        archive(make([(1, 2), (1 << 40, 3)], 1 << 41, b"abcde"), file(b"after"))
    )
    assert (entry.path, entry.size, body, after.path) == (b"x", 5, b"abcde", b"after")
    assert entry.sparse is not None
    assert (entry.sparse.size, entry.sparse.extents) == (1 << 41, ((1, 2), (1 << 40, 3)))


@pytest.mark.parametrize("make", SPARSE[1:])
def test_lu_20_a_long_map_is_read(make: Callable[..., bytes]) -> None:
    extents = [(n * 10, 1) for n in range(500)]
    ((entry, body),) = entries(archive(make(extents, 5000, b"x" * 500)))
    assert entry.sparse is not None
    assert (len(entry.sparse.extents), len(body)) == (500, 500)


def test_lu_20_gnus_old_map_goes_on_in_further_blocks() -> None:
    more = b"".join(octal(n, 12) + octal(1, 12) for n in range(100, 121))
    blocks = more.ljust(504, b"\0") + b"\1" + bytes(7) + (octal(200, 12) + octal(1, 12)).ljust(512, b"\0")
    ((entry, body),) = entries(archive(gnu_sparse([(n, 1) for n in range(4)], 300, b"x" * 26, blocks)))
    assert entry.sparse is not None
    assert (len(entry.sparse.extents), len(body)) == (26, 26)


@pytest.mark.parametrize("make", SPARSE)
@pytest.mark.parametrize(
    ("extents", "real", "body"),
    [
        ([(0, 4), (2, 3)], 10, b"x" * 7),
        ([(5, 2), (0, 2)], 10, b"x" * 4),
        ([(0, 20)], 10, b"x" * 20),
        ([(0, 5)], 10, b"x" * 4),
        ([(0, 5)], 10, b"x" * 6),
        ([((1 << 63) - 1, 5)], 10, b"x" * 5),
    ],
    ids=["overlapping", "out of order", "out of the file", "short", "long", "overflowing"],
)
def test_lu_20_a_map_that_contradicts_itself_is_refused(
    make: Callable[..., bytes], extents: list[tuple[int, int]], real: int, body: bytes
) -> None:
    refused(archive(make(extents, real, body)))


@pytest.mark.parametrize(
    "records",
    [
        {b"GNU.sparse.major": b"2", b"GNU.sparse.minor": b"0"},
        {b"GNU.sparse.map": b"0,1"},
        {b"GNU.sparse.size": b"5", b"GNU.sparse.map": b"0,1,2"},
        {b"GNU.sparse.size": b"5", b"GNU.sparse.map": b"0,-1"},
        {b"GNU.sparse.size": b"5", b"GNU.sparse.map": b"0,1", b"GNU.sparse.numblocks": b"2"},
        {b"GNU.sparse.size": b"5", b"GNU.sparse.offset": b"0"},
        {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"9"},
    ],
)
def test_lu_20_a_map_that_is_none_is_refused(records: dict[bytes, bytes]) -> None:
    refused(archive(pax(records), file(b"x", b"y")))


def test_lu_20_a_map_longer_than_any_is_not_read() -> None:
    huge = padded(b"99999999\n")
    records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"9"}
    refused(archive(pax(records), file(b"x", huge)), "at most", UnsafeContent)
    endless = (octal(0, 12) + octal(0, 12)) * 21 + b"\1" + bytes(7)
    refused(gnu_sparse([(0, 0)], 0, b"", endless * 4000) + END, "more than", UnsafeContent)


def test_lu_20_only_a_file_has_holes() -> None:
    refused(
        archive(pax({b"GNU.sparse.size": b"0", b"GNU.sparse.map": b""}), directory(b"x/")), "sparse directory"
    )
