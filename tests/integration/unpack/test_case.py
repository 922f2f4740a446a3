"""LU-23: a real file system that ignores case (NTFS, mounted so), where two names are one file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.command import Ocitool
from support.peers import call, require, require_root
from support.unpack_images import image
from support.unpack_tars import archive, directory, file, hardlink, symlink
from support.unpack_trees import tree

from ocitool.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def caseless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    require_root()
    require("mkntfs", "lowntfs-3g")
    where = tmp_path_factory.mktemp("caseless")
    disk, mount = where / "disk", where / "mount"
    mount.mkdir()
    with disk.open("wb") as file:
        file.truncate(32 << 20)
    geometry = ("-s", "512", "-p", "0", "-H", "0", "-S", "0")
    call("mkntfs", "--force", "--quick", "--quiet", *geometry, disk)
    call("lowntfs-3g", disk, mount, "-o", "ignore_case,permissions,streams_interface=xattr")
    try:
        (mount / "a").touch()
        assert (mount / "A").exists()
        (mount / "a").unlink()
        yield mount
    finally:
        call("umount", mount)


LOWER = archive(directory(b"dir/"), file(b"dir/a", b"1"), symlink(b"link", b"dir"))


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        ([archive(file(b"a"), file(b"A"))], ("'A'", "'a'")),
        ([archive(file(b"d/readme"), file(b"d/README"))], ("'d/README'", "'d/readme'")),
        ([LOWER, archive(file(b"dir/A"))], ("'dir/A'", "'dir/a'")),
        ([LOWER, archive(file(b"Dir/b"))], ("'Dir'", "'dir'")),
        ([LOWER, archive(file(b"link/A"))], ("'dir/A'", "'dir/a'")),
        ([LOWER, archive(file(b"Link/b"))], ("'Link'", "'link'")),
        ([LOWER, archive(file(b"dir/.wh.A"))], ("'dir/A'", "'dir/a'")),
        ([LOWER, archive(file(b"DIR/.wh..wh..opq"))], ("'DIR'", "'dir'")),
        ([LOWER, archive(hardlink(b"b", b"dir/A"))], ("'dir/A'", "'dir/a'")),
        ([archive(symlink(b"s", b"x"), directory(b"S/"))], ("'S'", "'s'")),
        ([archive(file("\u00e4".encode()), file("\u00c4".encode()))], ("'\u00c4'", "'\u00e4'")),
    ],
)
def test_lu_23_names_that_are_one_there_are_an_error_that_tells_both(
    caseless: Path, layers: list[bytes], named: tuple[str, str]
) -> None:
    with pytest.raises(Unsupported, match="ignores case") as caught:
        image(*layers).unpack(caseless / "bundle")
    assert f"{named[0]} and {named[1]} would be one file" in str(caught.value)
    assert os.listdir(caseless) == []  # noqa: PTH208 - beside any other staging directory


def test_lu_23_names_that_come_after_each_other_are_no_collision(caseless: Path, tmp_path: Path) -> None:
    layers = [
        archive(directory(b"Etc/"), file(b"Etc/README", b"1"), symlink(b"L", b"Etc"), file(b"x")),
        archive(file(b"Etc/README", b"2"), file(b"L/more", b"3"), hardlink(b"Twin", b"Etc/README")),
        archive(file(b".wh.x"), file(b"Etc/.wh.more")),
        archive(file(b"X", b"4"), file(b"Etc/More", b"5"), file(b"Etc/More", b"6")),
    ]
    for where in (caseless, tmp_path):
        image(*layers).unpack(where / "bundle", keep_owner=False)
    found, expected = (
        {name.lower(): node.content for name, node in tree(where / "bundle" / "rootfs").items()}
        for where in (caseless, tmp_path)
    )
    assert found == expected
    call("rm", "-r", caseless / "bundle")


def test_lu_23_a_cached_layer_is_held_to_the_same(caseless: Path) -> None:
    found = image(archive(file(b"a"), file(b"A")))
    with pytest.raises(Unsupported, match="'A' and 'a'"):
        found.cached(caseless / "cache", keep_owner=False)
    call("rm", "-r", caseless / "cache")


def test_lu_23_the_command_line_says_which_names(caseless: Path, ocitool: Ocitool) -> None:
    location = image(archive(file(b"a"), file(b"A"))).to_layout(ocitool.home / "layout")
    done = ocitool("unpack", location, caseless / "bundle", code=16)
    assert "'A' and 'a' would be one file" in done.err
