"""LU-15: what our reader sees in an archive is what GNU tar, bsdtar and Python see, or it refuses."""

from __future__ import annotations

import io
import os
import re
import stat
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.peers import require
from support.unpack_images import image, memory_directory, unpacked
from support.unpack_tars import (
    archive,
    directory,
    extension,
    fifo,
    file,
    hardlink,
    header,
    pax,
    symlink,
)
from support.unpack_trees import differences, tree

from ocitool.errors import InvalidContent, OciError
from ocitool.unpack.entries import Archive, Entry, clean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = st.lists(
    st.binary(min_size=1, max_size=12).filter(
        lambda part: not {47, 0} & set(part) and part not in {b".", b".."} and b".wh." not in part
    )
    | st.sampled_from([b"a", b"b", b"lib", b"x" * 120]),
    min_size=1,
    max_size=4,
).map(b"/".join)
NUMBERS = st.integers(0, 0o7777777)
BODIES = st.binary(max_size=1500)


@st.composite
def entry(draw: st.DrawFn) -> bytes:
    """One entry as a sane writer makes it, in one of the formats."""
    name, body, mode = draw(NAMES), draw(BODIES), draw(st.integers(0, 0o777)) | 0o600
    fields = {
        "mode": mode,
        "uid": draw(NUMBERS),
        "gid": draw(NUMBERS),
        "mtime": draw(st.integers(0, 2**33 - 1)),
    }
    extra = b""
    if draw(st.booleans()):
        extra = pax({b"path": name, b"mtime": b"%d.5" % fields["mtime"], b"comment": b"x"})
        name = name[:50].rstrip(b"/") or b"x"
        return extra + file(name, body, **fields)
    made = draw(st.sampled_from(["file", "directory", "symlink", "fifo"]))
    if made == "directory":
        return directory(name + b"/", **{**fields, "mode": mode | 0o700})
    if made == "symlink":
        return symlink(name, draw(NAMES), **fields)
    return fifo(name[:90], **fields) if made == "fifo" else file(name, body, **fields)


def ours(tar: bytes) -> list[tuple[Entry, bytes]]:
    reading = Archive(io.BytesIO(tar))
    return [(one, b"".join(reading.body())) for one in reading]


@given(st.lists(entry(), max_size=6))
@settings(max_examples=200)
def test_lu_15_python_sees_the_same_entries(parts: list[bytes]) -> None:
    tar = archive(*parts)
    with tarfile.open(fileobj=io.BytesIO(tar)) as theirs:
        members = theirs.getmembers()
        bodies = [
            (handle.read() if (handle := theirs.extractfile(one)) else b"") if one.isreg() else b""
            for one in members
        ]
    found = ours(tar)
    assert [one.path for one, _ in found] == [os.fsencode(member.name) for member in members]
    for (one, body), member, expected in zip(found, members, bodies, strict=True):
        assert (one.mode, one.uid, one.gid, body) == (member.mode & 0o7777, member.uid, member.gid, expected)
        assert one.mtime == int(member.mtime * 10) * 10**8
        assert one.link == os.fsencode(member.linkname)


HOSTILE = [
    file(b"a", b"body"),
    directory(b"d/"),
    directory(b"./e//"),
    file(b"f/./g//h"),
    symlink(b"l", b"a"),
    hardlink(b"h", b"a"),
    extension(b"L", b"long\0"),
    extension(b"K", b"target\0"),
    pax({b"path": b"renamed"}),
    pax({b"size": b"512"}),
    pax({b"SCHILY.xattr.user.k": b"v"}),
    pax({b"size": b"0"}),
    pax({b"GNU.sparse.map": b"0,4", b"GNU.sparse.size": b"9"}),
    pax({b"comment": b"x"}, b"g"),
    pax({b"path": b"all"}, b"g"),
    bytes(512),
    header(b"s/", size=512),
    header(b"dir", b"5", size=512),
    header(b"h2", b"1", size=512, link=b"a"),
    header(b"neg", size=-512),
    header(b"v7/", b"\0", magic=bytes(8)),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """An archive of pieces that don't belong together, with some bytes changed."""
    tar = bytearray(archive(*draw(st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=6))))
    for at, value in draw(st.lists(st.tuples(st.integers(0, len(tar) - 1), st.integers(0, 255)), max_size=3)):
        tar[at] = value
    if draw(st.booleans()):
        # Make the checksums right again, so that the damage is not found for a trivial reason.
        for start in range(0, len(tar) - 511, 512):
            if tar[start + 257 : start + 262] == b"ustar":
                tar[start + 148 : start + 156] = b" " * 8
                tar[start + 148 : start + 156] = b"%06o\0 " % sum(tar[start : start + 512])
    return bytes(tar[: draw(st.integers(0, len(tar))) if draw(st.integers(0, 9)) == 0 else None])


@given(mutated())
@settings(max_examples=500)
def test_any_bytes_are_read_or_refused_and_nothing_else(tar: bytes) -> None:
    try:
        found = ours(tar)
    except InvalidContent:
        return
    for one, body in found:
        assert len(body) == one.size
        assert not one.path.startswith(b"/")
        assert not {b"", b".", b".."} & set(one.path.split(b"/")) or one.path == b""


@given(st.binary(max_size=2000))
@settings(max_examples=200)
def test_noise_is_refused(tar: bytes) -> None:
    try:
        ours(tar)
    except InvalidContent:
        return
    assert not tar.strip(b"\0")


ESCAPE = re.compile(rb"\\(\\|[0-7]{3}|[abfnrtv])")
LETTERS = dict(zip(b"abfnrtv", b"\a\b\f\n\r\t\v", strict=True))


def unescaped(name: bytes) -> bytes:
    """A name as bsdtar prints it, back in bytes."""

    def one(match: re.Match[bytes]) -> bytes:
        found = match[1]
        if len(found) == 3:
            return bytes([int(found, 8)])
        return found if found == b"\\" else bytes([LETTERS[found[0]]])

    return ESCAPE.sub(one, name)


def listed(command: list[str], tar: bytes) -> list[bytes] | None:
    """What another tar lists; None where it complains."""
    done = subprocess.run(command, input=tar, capture_output=True, check=False)
    return None if done.returncode else done.stdout.splitlines()


def python_names(tar: bytes, *, ignore_zeros: bool) -> list[bytes]:
    with tarfile.open(fileobj=io.BytesIO(tar), ignore_zeros=ignore_zeros) as archive:
        return [os.fsencode(member.name) for member in archive.getmembers()]


@given(mutated())
@settings(max_examples=300)
def test_lu_15_what_we_accept_python_lists_alike(tar: bytes) -> None:
    try:
        found = ours(tar)
    except InvalidContent:
        return
    try:
        names, all_names = (python_names(tar, ignore_zeros=lenient) for lenient in (False, True))
    except (tarfile.TarError, ValueError, OverflowError, EOFError):
        return
    if names != all_names:
        return  # it met a header that it can't read, and takes that for the end without a word
    assert [clean(name) for name in names] == [one.path for one, _ in found]


@given(mutated())
@settings(max_examples=100)
def test_lu_15_what_we_accept_gnu_tar_lists_alike(tar: bytes) -> None:
    require("tar")
    try:
        found = ours(tar)
    except InvalidContent:
        return
    theirs = listed(["tar", "--list", "--quoting-style=literal", "--show-transformed-names"], tar)
    if theirs is None:
        return  # two that disagree aloud smuggle nothing
    assert [clean(name) for name in theirs] == [one.path for one, _ in found]


@given(mutated())
@settings(max_examples=100)
def test_lu_15_what_we_accept_bsdtar_lists_alike(tar: bytes) -> None:
    require("bsdtar")
    try:
        found = ours(tar)
    except InvalidContent:
        return
    theirs = listed(["bsdtar", "--list", "--file", "-"], tar)
    if theirs is None or not found:
        return  # an archive with nothing in it is none to bsdtar
    assert [clean(unescaped(name)) for name in theirs] == [one.path for one, _ in found]


def gnu_tar(tar: bytes, where: Path) -> bool:
    flags = ["--extract", "--numeric-owner", "--same-permissions", "--directory", str(where)]
    flags += ["--xattrs", "--xattrs-include=*"]
    return not subprocess.run(["tar", *flags], input=tar, capture_output=True, check=False).returncode


def bsdtar(tar: bytes, where: Path) -> bool:
    flags = ["-x", "-p", "--xattrs", "--numeric-owner", "-C", str(where), "-f", "-"]
    return not subprocess.run(["bsdtar", *flags], input=tar, capture_output=True, check=False).returncode


def python(tar: bytes, where: Path) -> bool:
    try:
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            members = [(clean(os.fsencode(one.name)), one.isdir()) for one in archive.getmembers()]
            names = [name for name, _ in members]
            above = [name + b"/" for name, is_directory in members if not is_directory]
            if len(set(names)) < len(names) or any(name.startswith(tuple(above)) for name in names):
                return False  # it does not replace what is there, but writes through it or leaves it
            archive.extractall(where, numeric_owner=True, filter="fully_trusted")
    except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError, RecursionError):
        return False
    return True


PEERS = {"tar": gnu_tar, "bsdtar": bsdtar, "python": python}


@pytest.mark.root
@pytest.mark.parametrize("peer", sorted(PEERS))
@given(parts=st.lists(entry(), min_size=1, max_size=6))
@settings(max_examples=40)
def test_lu_15_a_tree_comes_out_as_others_make_it(peer: str, parts: list[bytes]) -> None:
    compare_trees(peer, archive(directory(b"./", mtime=5), *parts))


@pytest.mark.root
@pytest.mark.parametrize("peer", sorted(PEERS))
@given(tar=mutated())
@settings(max_examples=40)
def test_lu_15_a_damaged_archive_comes_out_alike_or_is_refused(peer: str, tar: bytes) -> None:
    compare_trees(peer, tar)


def compare_trees(peer: str, tar: bytes) -> None:
    """Unpack with both, where the other one can: some fail when a directory is in the way of a file."""
    if peer != "python":
        require(peer)
    if os.geteuid() != 0:
        pytest.skip("giving files away needs root")
    with memory_directory() as where:
        try:
            found = tree(unpacked(where / "ours", tar))
        except OciError:
            return
        (where / "theirs").mkdir()
        if not PEERS[peer](tar, where / "theirs"):
            return
        expected = tree(where / "theirs")
        named = {os.fsdecode(one.path) or "." for one, _ in ours(tar)}
        for name, node in found.items():
            theirs = expected.get(name)
            if theirs is None:
                continue
            if node.kind == "d":  # others leave a directory's time as later entries made it
                theirs = theirs._replace(mtime=node.mtime)
            if name not in named:  # a directory that no entry describes is as the umask has it
                theirs = theirs._replace(mode=node.mode)
            if peer == "python":  # which has neither fractions of seconds nor attributes
                theirs = theirs._replace(mtime=node.mtime, xattrs=node.xattrs)
            expected[name] = theirs
        assert differences(found, expected) == []


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with memory_directory() as directory:
        yield directory


@given(tars=st.lists(mutated(), min_size=1, max_size=3))
@settings(max_examples=150)
def test_any_layers_are_applied_or_refused_and_the_canary_stands(scratch: Path, tars: list[bytes]) -> None:
    canary = scratch / "canary"
    canary.write_bytes(b"tweet")
    before = canary.stat()
    with memory_directory() as where:
        try:
            image(*tars).unpack(where / "bundle")
        except OciError:
            assert list(where.iterdir()) == []
        assert canary.read_bytes() == b"tweet"
        assert canary.stat()[:7] == before[:7]
    assert stat.S_ISREG(before.st_mode)
