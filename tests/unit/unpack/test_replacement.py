"""LU-09 to LU-12: what is in an entry's way goes, whatever it is, and nothing is written through it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from support.unpack_images import image, unpacked
from support.unpack_tars import archive, device, directory, fifo, file, hardlink, symlink
from support.unpack_trees import tree

from ocitool.errors import InvalidContent

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {
    "file": (file(b"x", b"content"), stat.S_IFREG),
    "empty file": (file(b"x"), stat.S_IFREG),
    "directory": (directory(b"x/"), stat.S_IFDIR),
    "full directory": (
        directory(b"x/") + directory(b"x/d/") + file(b"x/d/f") + symlink(b"x/l", b"d"),
        stat.S_IFDIR,
    ),
    "implied directory": (file(b"x/d/f"), stat.S_IFDIR),
    "link to a directory": (
        directory(b"target/") + file(b"target/f") + symlink(b"x", b"target"),
        stat.S_IFLNK,
    ),
    "link to a file": (file(b"aim", b"old") + symlink(b"x", b"aim"), stat.S_IFLNK),
    "dangling link": (symlink(b"x", b"nowhere"), stat.S_IFLNK),
    "hard link": (file(b"twin", b"twin") + hardlink(b"x", b"twin"), stat.S_IFREG),
    "FIFO": (fifo(b"x"), stat.S_IFIFO),
}
LINKS = {"link to a directory": "target", "link to a file": "aim", "dangling link": "nowhere"}
if os.geteuid() == 0:
    KINDS["device"] = (device(b"x", 1, 3), stat.S_IFCHR)


@pytest.mark.parametrize("layers", [1, 2], ids=["same layer", "next layer"])
@pytest.mark.parametrize("second", sorted(KINDS))
@pytest.mark.parametrize("first", sorted(KINDS))
def test_lu_09_lu_10_anything_replaces_anything(tmp_path: Path, first: str, second: str, layers: int) -> None:
    (one, _), (other, kind) = KINDS[first], KINDS[second]
    tars = [archive(one, other)] if layers == 1 else [archive(one), archive(other)]
    rootfs = unpacked(tmp_path / "bundle", *tars)
    if second == "implied directory" and first in LINKS:
        # An entry below a link goes where the link leads; only an entry of the same name replaces it.
        assert (rootfs / LINKS[first] / "d" / "f").is_file()
    else:
        assert stat.S_IFMT((rootfs / "x").lstat().st_mode) == kind
    if first == "link to a directory":
        assert (rootfs / "target" / "f").is_file()
    if first == "hard link" and second != "hard link":
        assert (rootfs / "twin").read_bytes() == b"twin"


def test_lu_09_the_last_of_several_entries_wins(tmp_path: Path) -> None:
    tar = archive(file(b"x", b"first"), hardlink(b"twin", b"x"), file(b"x", b"second", mode=0o600))
    rootfs = unpacked(tmp_path / "bundle", tar)
    assert (rootfs / "x").read_bytes() == b"second"
    assert (rootfs / "twin").read_bytes() == b"first"


def test_lu_09_a_directory_entry_twice_keeps_what_is_in_it(tmp_path: Path) -> None:
    tar = archive(directory(b"d/", mode=0o700), file(b"d/x"), directory(b"d/", mode=0o711))
    rootfs = unpacked(tmp_path / "bundle", tar)
    assert (rootfs / "d" / "x").is_file()
    assert (rootfs / "d").stat().st_mode & 0o777 == 0o711


def test_lu_09_a_link_that_overrides_a_directory_and_is_overridden(tmp_path: Path, canary: Path) -> None:
    tar = archive(directory(b"d/"), symlink(b"d", bytes(canary)), directory(b"d/"), file(b"d/song", b"croak"))
    assert (unpacked(tmp_path / "bundle", tar) / "d" / "song").read_bytes() == b"croak"


@pytest.mark.parametrize("layers", [1, 2])
def test_lu_10_paths_lead_elsewhere_once_a_link_is_replaced(tmp_path: Path, layers: int) -> None:
    first = directory(b"a/") + directory(b"b/") + symlink(b"l", b"a") + file(b"l/one")
    second = symlink(b"l", b"b") + file(b"l/two")
    tars = [archive(first, second)] if layers == 1 else [archive(first), archive(second)]
    rootfs = unpacked(tmp_path / "bundle", *tars)
    assert tree(rootfs).keys() == {".", "a", "a/one", "b", "b/two", "l"}


def test_lu_10_a_merged_usr_takes_files_by_both_names(tmp_path: Path) -> None:
    lower = archive(directory(b"usr/lib/"), symlink(b"lib", b"usr/lib"), file(b"usr/lib/a"))
    upper = archive(file(b"lib/b"), directory(b"lib/c/", mode=0o700), file(b"lib/.wh.a"))
    rootfs = unpacked(tmp_path / "bundle", lower, upper)
    assert tree(rootfs).keys() == {".", "lib", "usr", "usr/lib", "usr/lib/b", "usr/lib/c"}
    assert (rootfs / "usr/lib/c").stat().st_mode & 0o777 == 0o700


def test_lu_11_a_fifo_or_device_below_is_never_opened(tmp_path: Path) -> None:
    lower = archive(fifo(b"a"), *([device(b"b", 1, 3)] if os.geteuid() == 0 else []))
    rootfs = unpacked(tmp_path / "bundle", lower, archive(file(b"a", b"a"), file(b"b", b"b")))
    assert (rootfs / "a").read_bytes() == b"a"
    assert (rootfs / "b").read_bytes() == b"b"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="making device nodes needs root")
def test_lu_12_root_makes_devices_and_fifos_as_the_image_has_them(tmp_path: Path) -> None:
    tar = archive(device(b"c", 1, 3, mode=0o620, gid=5), device(b"b", 7, 300, b"4"), fifo(b"f", mode=0o6))
    rootfs = unpacked(tmp_path / "bundle", tar)
    character, block, pipe = ((rootfs / name).lstat() for name in "cbf")
    assert (stat.filemode(character.st_mode), character.st_gid) == ("crw--w----", 5)
    assert (os.major(block.st_rdev), os.minor(block.st_rdev)) == (7, 300)
    assert stat.filemode(pipe.st_mode) == "p------rw-"
    assert pipe.st_mtime == 1_700_000_000


def test_lu_12_devices_are_left_out_and_counted_where_they_are_not_wanted(tmp_path: Path) -> None:
    tar = archive(device(b"c", 1, 3), device(b"b", 7, 0, b"4"), fifo(b"f"), file(b"x"))
    report = image(archive(file(b"c", b"below")), tar).unpack(tmp_path / "bundle", devices=False)
    assert report.devices == 2
    assert tree(tmp_path / "bundle" / "rootfs").keys() == {".", "f", "x"}


@pytest.mark.parametrize("numbers", [(4096, 0), (0, 1 << 20), (-1, 0), (1 << 32, 0)])
def test_lu_12_a_device_with_impossible_numbers_is_refused(tmp_path: Path, numbers: tuple[int, int]) -> None:
    with pytest.raises(InvalidContent, match="impossible numbers"):
        unpacked(tmp_path / "bundle", archive(device(b"c", *numbers)))
