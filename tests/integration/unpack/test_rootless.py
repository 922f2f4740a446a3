"""An ordinary user unpacks: with ids of their own to give files to, and without."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest
from support.peers import require
from support.unpack_images import image, memory_directory
from support.unpack_rootless import FIRST_SUBORDINATE, USER, unpack_as_user
from support.unpack_tars import archive, device, directory, fifo, file, hardlink, symlink
from support.unpack_trees import differences, tree

from ocitool.errors import Unsupported
from ocitool.unpack.entries import Archive
from ocitool.unpack.owners import decode
from ocitool.unpack.repack import repack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.userns, pytest.mark.root]

LAYER = archive(
    directory(b"home/", mode=0o755),
    directory(b"home/app/", mode=0o700, uid=1000, gid=1000),
    file(b"home/app/x", b"x", mode=0o600, uid=1000, gid=1000),
    file(b"su", b"x", mode=0o4755, uid=5, gid=6),
    hardlink(b"su2", b"su"),
    symlink(b"l", b"su", uid=7, gid=7),
    device(b"null", 1, 3),
    fifo(b"pipe", uid=1),
    directory(b"shut/", mode=0),
    file(b"shut/x"),
    file(b"etc/passwd", b"app:x:1000:1000::/home/app:/bin/sh\n", mode=0o600, uid=3),
)


@pytest.fixture
def where() -> Iterator[Path]:
    with memory_directory() as directory:
        yield directory


def test_with_delegated_ids_files_get_their_owners(where: Path) -> None:
    require("newuidmap", "newgidmap", "unshare", "setpriv")
    report = unpack_as_user(where, LAYER, archive(file(b"home/app/.wh.x"), file(b"new", uid=8)))
    assert report == {"entries": 13, "owners": 0, "devices": 1, "xattrs": 0}
    found = tree(where / "bundle" / "rootfs")
    owners = {name: (node.uid, node.gid) for name, node in found.items()}
    outside = FIRST_SUBORDINATE - 1
    assert owners["home"] == (USER, USER)
    assert owners["home/app"] == (outside + 1000, outside + 1000)
    assert owners["su"] == (outside + 5, outside + 6)
    assert owners["l"] == (outside + 7, outside + 7)
    assert found["su"].mode == 0o4755
    assert found["new"].uid == outside + 8
    assert "home/app/x" not in found
    config = json.loads((where / "bundle" / "config.json").read_bytes())
    assert config["linux"]["uidMappings"] == [
        {"containerID": 0, "hostID": USER, "size": 1},
        {"containerID": 1, "hostID": FIRST_SUBORDINATE, "size": 65536},
    ]


def test_an_image_user_is_found_in_files_that_only_the_namespace_can_read(where: Path) -> None:
    require("newuidmap", "newgidmap")
    unpack_as_user(where, LAYER, user="app")
    config = json.loads((where / "bundle" / "config.json").read_bytes())
    assert config["process"]["user"] == {"uid": 1000, "gid": 1000}


@pytest.mark.parametrize("tail", [b"", b"junk" * 200])
def test_a_failure_inside_the_namespace_leaves_nothing_outside(where: Path, tail: bytes) -> None:
    require("newuidmap", "newgidmap")
    report = unpack_as_user(where, LAYER, archive(hardlink(b"a", b"gone")) + tail)
    assert report["error"] == "InvalidContent"
    assert "not there" in report["message"]
    assert not [path for path in where.iterdir() if "bundle" in path.name]


def test_an_unknown_user_is_said_and_leaves_nothing(where: Path) -> None:
    require("newuidmap", "newgidmap")
    assert unpack_as_user(where, LAYER, user="nobody-there")["error"] == "InvalidContent"
    assert not [path for path in where.iterdir() if "bundle" in path.name]


def test_lu_21_an_id_that_is_not_mapped_is_an_error_and_never_root(where: Path) -> None:
    require("newuidmap", "newgidmap")
    report = unpack_as_user(where, archive(file(b"x", uid=65537)))
    assert report["error"] == "OciError"
    assert "'x' can't be unpacked" in report["message"]


@pytest.mark.parametrize("options", [{}, {"keep_owner": False}])
def test_with_one_id_owners_are_recorded_beside_the_files_and_counted(
    where: Path, options: dict[str, Any]
) -> None:
    report = unpack_as_user(where, LAYER, delegated=bool(options), **options)
    assert report["owners"] == 6
    assert report["devices"] == 1
    rootfs = where / "bundle" / "rootfs"
    assert {(node.uid, node.gid) for node in tree(rootfs).values()} == {(USER, USER)}
    recorded = os.getxattr(rootfs / "home" / "app" / "x", "user.rootlesscontainers")
    assert decode(recorded) == (1000, 1000)
    assert stat.S_IMODE((rootfs / "shut").stat().st_mode) == 0
    config = json.loads((where / "bundle" / "config.json").read_bytes())
    assert config["linux"]["uidMappings"] == [{"containerID": 0, "hostID": USER, "size": 1}]


def test_keeping_owners_without_delegated_ids_is_refused_with_the_way_out(where: Path) -> None:
    report = unpack_as_user(where, LAYER, delegated=False, keep_owner=True)
    assert report["error"] == "Unsupported"


def test_helpers_that_refuse_cost_the_owners_and_not_the_unpack(where: Path) -> None:
    report = unpack_as_user(where, LAYER, refused=True)
    assert report["owners"] == 6
    config = json.loads((where / "bundle" / "config.json").read_bytes())
    assert config["linux"]["uidMappings"] == [{"containerID": 0, "hostID": USER, "size": 1}]


def test_helpers_that_refuse_are_an_error_where_owners_must_be_kept(where: Path) -> None:
    report = unpack_as_user(where, LAYER, refused=True, keep_owner=True)
    assert (report["error"], "not today" in report["message"]) == ("Unsupported", True)
    assert not [path for path in where.iterdir() if "bundle" in path.name]


def test_a_failure_after_shut_directories_leaves_nothing(where: Path) -> None:
    report = unpack_as_user(where, LAYER, delegated=False, user="nobody-there")
    assert report["error"] == "InvalidContent"
    assert not [path for path in where.iterdir() if "bundle" in path.name]


def repacked(where: Path, **options: Any) -> dict[bytes, tuple[int, int]]:
    """The owners in the layer that the user makes of what has changed; nothing else is left there."""
    before = sorted(path.name for path in where.iterdir())
    report = unpack_as_user(where, act="repack", **options)
    assert sorted(path.name for path in where.iterdir() if path.name != "layer") == before
    with (where / "layer").open("rb") as layer:
        assert report == {"layer": str(where / "layer")}
        return {entry.path: (entry.uid, entry.gid) for entry in Archive(layer)}


def test_a_user_with_delegated_ids_packs_what_only_the_namespace_can_read(where: Path) -> None:
    require("newuidmap", "newgidmap", "unshare", "setpriv")
    outside = FIRST_SUBORDINATE - 1
    tar = archive(LAYER[:-1024], file(b"home/app/gone", uid=1000))
    unpack_as_user(where, tar)
    assert unpack_as_user(where, act="repack") == {}
    home = where / "bundle" / "rootfs" / "home" / "app"
    (home / "new").write_bytes(b"new")
    os.chown(home / "new", outside + 1000, outside + 1000)
    (home / "new").chmod(0o600)
    (home / "nobody").touch()
    os.chown(home / "nobody", outside + 65534, outside + 65534)
    (home / "x").write_bytes(b"y")
    (home / "gone").unlink()
    owners = repacked(where)
    assert owners == {
        b"home/app": (1000, 1000),
        b"home/app/.wh.gone": (0, 0),
        b"home/app/new": (1000, 1000),
        b"home/app/nobody": (65534, 65534),
        b"home/app/x": (1000, 1000),
    }
    (where / "again").mkdir()
    image(tar, (where / "layer").read_bytes()).unpack(where / "again" / "bundle")
    ours, theirs = (tree(path / "bundle" / "rootfs") for path in (where / "again", where))
    ours.pop("null")  # which an ordinary user can't have
    inside = {
        name: node._replace(uid=max(0, node.uid - outside), gid=max(0, node.gid - outside))
        for name, node in theirs.items()
    }
    assert differences(ours, inside) == []


def test_what_belongs_to_nobody_in_the_container_is_not_packed(where: Path) -> None:
    require("newuidmap", "newgidmap", "unshare", "setpriv")
    unpack_as_user(where, LAYER)
    (where / "bundle" / "rootfs" / "home" / "roots").touch()
    report = unpack_as_user(where, act="repack")
    assert report["error"] == "Unsupported"
    assert "'home/roots' belongs to somebody who does not exist" in report["message"]
    assert not [path for path in where.iterdir() if "repack" in path.name]


def test_ids_that_are_not_delegated_any_more_are_said(where: Path) -> None:
    require("newuidmap", "newgidmap", "unshare", "setpriv")
    unpack_as_user(where, LAYER)
    report = unpack_as_user(where, act="repack", delegated=False)
    assert report["error"] == "Unsupported"
    assert "newuidmap refuses" in report["message"]
    assert not [path for path in where.iterdir() if "repack" in path.name]


def test_a_full_disk_ends_packing_on_both_sides(where: Path) -> None:
    require("newuidmap", "newgidmap", "unshare", "setpriv")
    unpack_as_user(where, LAYER)
    large = where / "bundle" / "rootfs" / "large"
    large.write_bytes(os.urandom(8 << 20))
    os.chown(large, USER, USER)
    report = unpack_as_user(where, act="repack", crowded=True)
    assert report["error"] == "OciError"
    assert "No space left on device" in report["message"]
    assert not [path for path in where.iterdir() if "repack" in path.name]


def test_root_is_told_who_can_pack_a_bundle_of_delegated_ids(where: Path) -> None:
    require("newuidmap", "newgidmap", "unshare", "setpriv")
    unpack_as_user(where, LAYER)
    found = image(LAYER)
    with pytest.raises(Unsupported, match="delegated to an ordinary user"):
        repack(found.store, found.manifest, where / "bundle")


def test_a_user_without_ids_packs_recorded_owners_and_files_that_are_shut(where: Path) -> None:
    require("unshare", "setpriv")
    unpack_as_user(where, LAYER, delegated=False)
    home = where / "bundle" / "rootfs" / "home" / "app"
    (home / "x").write_bytes(b"y")
    (home / "new").touch()
    os.chown(home / "new", USER, USER)
    owners = repacked(where, delegated=False)
    assert owners == {b"home/app": (1000, 1000), b"home/app/new": (0, 0), b"home/app/x": (1000, 1000)}
