"""LU-07, LU-08: whiteouts hide what lower layers brought, in whatever order they come."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from support.unpack_images import memory_directory, unpacked
from support.unpack_tars import archive, directory, fifo, file, hardlink, pax, symlink
from support.unpack_trees import Node, tree

from ocitool.errors import InvalidContent
from ocitool.unpack.whiteouts import Nothing, Whiteout, meaning

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b".wh.x", Whiteout(b"", b"x")),
        (b"a/b/.wh.x.wh.y", Whiteout(b"a/b", b"x.wh.y")),
        (b"a/.wh..wh..opq", Whiteout(b"a", b"")),
        (b".wh....", Whiteout(b"", b"...")),
        (b".wh..x", Whiteout(b"", b".x")),
        (b"a/x.wh.y", None),
        (b"a.wh.b/x", None),
        (b".wh..wh.plnk", Nothing()),
        (b".wh..wh.plnk/2.3", Nothing()),
        (b".wh..wh.aufs", Nothing()),
    ],
)
def test_a_name_means_what_the_specification_says(path: bytes, expected: object) -> None:
    assert meaning(path) == expected


@pytest.mark.parametrize(
    "path", [b".wh.", b".wh..", b".wh...", b"d/.wh..", b"d/.wh.", b".wh.d/f", b"a/.wh.b/c"]
)
def test_lu_07_a_whiteout_of_nothing_is_refused(path: bytes) -> None:
    with pytest.raises(InvalidContent):
        meaning(path)


LOWER = archive(
    directory(b"d/", mode=0o700),
    file(b"d/a", b"a"),
    directory(b"d/sub/", mode=0o700),
    file(b"d/sub/deep", b"deep"),
    file(b"f", b"f"),
    symlink(b"l", b"d"),
    file(b"d/.hidden"),
)


@pytest.mark.parametrize(
    "whiteout",
    [
        file,
        lambda name: file(name, b"with a body"),
        lambda name: symlink(name, b"/etc"),
        lambda name: hardlink(name, b".wh..wh.aufs"),
        fifo,
        lambda name: file(b"./" + name),
    ],
    ids=["empty", "with a body", "symlink", "hard link", "fifo", "dotted"],
)
@pytest.mark.parametrize(
    ("name", "gone", "left"),
    [
        (b".wh.f", "f", "d/a"),
        (b".wh.d", "d", "f"),
        (b"d/.wh.sub", "d/sub", "d/a"),
        (b"d/.wh..hidden", "d/.hidden", "d/a"),
        (b".wh.l", "l", "d/a"),
        (b"l/.wh.a", "d/a", "d/sub/deep"),
        (b"l/.wh..wh..opq", "d/a", "d"),
    ],
)
def test_lu_07_a_whiteout_of_any_type_removes_and_is_hidden(
    tmp_path: Path, canary: Path, whiteout: object, name: bytes, gone: str, left: str
) -> None:
    assert callable(whiteout)
    rootfs = unpacked(tmp_path / "bundle", LOWER, archive(whiteout(name)))
    assert gone not in tree(rootfs)
    assert left in tree(rootfs)
    assert not [path for path in tree(rootfs) if ".wh." in path]


@pytest.mark.parametrize(
    "name", [b"gone/.wh.x", b"gone/.wh..wh..opq", b"f/.wh.x", b"f/x/.wh..wh..opq", b".wh.gone"]
)
def test_lu_07_a_whiteout_of_what_is_not_there_changes_nothing(tmp_path: Path, name: bytes) -> None:
    rootfs = unpacked(tmp_path / "bundle", LOWER, archive(file(name)))
    assert tree(rootfs).keys() == tree(unpacked(tmp_path / "other", LOWER)).keys()


def test_lu_07_a_removed_link_leaves_its_target(tmp_path: Path, canary: Path) -> None:
    lower = archive(symlink(b"out", bytes(canary)), symlink(b"song", bytes(canary / "song")))
    upper = archive(file(b".wh.song"), file(b"out/.wh.song"), file(b"out/.wh..wh..opq"), file(b".wh.out"))
    assert tree(unpacked(tmp_path / "bundle", lower, upper)).keys() == {"."}


def test_lu_07_bookkeeping_of_aufs_is_left_out(tmp_path: Path) -> None:
    tar = archive(directory(b".wh..wh.plnk/"), file(b".wh..wh.plnk/1.2"), file(b".wh..wh.aufs"), file(b"x"))
    assert tree(unpacked(tmp_path / "bundle", tar)).keys() == {".", "x"}


def test_whiteouts_in_the_lowest_layer_hide_nothing_and_are_hidden(tmp_path: Path) -> None:
    tar = archive(file(b"x"), file(b".wh.x"), file(b".wh..wh..opq"), file(b"y"))
    assert tree(unpacked(tmp_path / "bundle", tar)).keys() == {".", "x", "y"}


def shape(nodes: dict[str, Node]) -> dict[str, tuple[object, ...]]:
    """What a permutation must not change."""
    return {name: (*node[:6], node.target, node.xattrs, node.content) for name, node in nodes.items()}


UPPERS = {
    "opaque beside new siblings": [file(b"d/.wh..wh..opq"), file(b"d/new"), file(b"d/a", b"other")],
    "opaque and a kept directory": [
        file(b"d/.wh..wh..opq"),
        directory(b"d/sub/", mode=0o711),
        file(b"d/sub/x"),
    ],
    "opaque and an implied directory": [file(b"d/.wh..wh..opq"), file(b"d/sub/x"), file(b"d/sub/y")],
    "whiteout of what comes anew": [file(b".wh.f"), file(b"f", b"other")],
    "whiteout of a directory that comes anew": [file(b".wh.d"), directory(b"d/", mode=0o711), file(b"d/x")],
    "whiteout of a directory that is implied": [file(b".wh.d"), file(b"d/sub/x"), file(b"g")],
    "whiteout below an opaque directory": [
        file(b"d/.wh..wh..opq"),
        file(b"d/sub/.wh.deep"),
        file(b"d/sub/x"),
    ],
    "attributes": [
        file(b"d/.wh.sub"),
        pax({b"SCHILY.xattr.user.new": b"1"}) + directory(b"d/sub/"),
        file(b"d/.wh.a"),
    ],
    "opaque root": [file(b".wh..wh..opq"), file(b"x"), directory(b"d/")],
}


@pytest.mark.parametrize("name", sorted(UPPERS))
def test_lu_08_the_order_of_entries_makes_no_difference(name: str) -> None:
    lower = archive(
        directory(b"d/", mode=0o700, mtime=1),
        file(b"d/a", b"a"),
        pax({b"SCHILY.xattr.user.old": b"1"}) + directory(b"d/sub/", mode=0o700, mtime=1),
        file(b"d/sub/deep", b"deep"),
        file(b"f", b"f"),
    )
    with memory_directory() as where:
        shapes = [
            shape(tree(unpacked(where / str(number), lower, archive(*order))))
            for number, order in enumerate(itertools.permutations(UPPERS[name]))
        ]
    assert all(found == shapes[0] for found in shapes)


def test_lu_08_the_specifications_own_example_holds(tmp_path: Path) -> None:
    lower = archive(*(directory(name) for name in (b"a/", b"a/b/", b"a/b/c/")), file(b"a/b/c/bar"))
    upper = [directory(b"a/"), directory(b"a/b/"), directory(b"a/b/c/"), file(b"a/b/c/foo")]
    opaque = file(b"a/.wh..wh..opq")
    first = tree(unpacked(tmp_path / "1", lower, archive(upper[0], opaque, *upper[1:])))
    last = tree(unpacked(tmp_path / "2", lower, archive(*upper, opaque)))
    assert first.keys() == last.keys() == {".", "a", "a/b", "a/b/c", "a/b/c/foo"}


def test_files_of_the_layer_itself_survive_its_whiteouts(tmp_path: Path) -> None:
    # layer.md: "Files that are present in the same layer as a whiteout file can only be hidden by whiteout
    # files in subsequent layers."
    upper = archive(file(b"f", b"new"), file(b".wh.f"))
    assert (unpacked(tmp_path / "bundle", LOWER, upper) / "f").read_bytes() == b"new"
    last = archive(file(b".wh.f"))
    assert not (unpacked(tmp_path / "other", LOWER, upper, last) / "f").exists()


def test_a_hard_link_survives_the_whiteout_of_its_other_name(tmp_path: Path) -> None:
    upper = archive(hardlink(b"kept", b"f"), file(b".wh.f"))
    rootfs = unpacked(tmp_path / "bundle", LOWER, upper)
    assert (rootfs / "kept").read_bytes() == b"f"
    assert not (rootfs / "f").exists()
