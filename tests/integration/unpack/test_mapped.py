"""Whoever unpacks says which ids of the host an image's users are."""

from __future__ import annotations

import json
import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest
from support.fixtures import layout
from support.peers import call, require
from support.unpack_images import Image, image, memory_directory
from support.unpack_rootless import FIRST_SUBORDINATE, USER, unpack_as_user
from support.unpack_tars import archive, device, directory, file, symlink
from support.unpack_trees import tree

from ocitool.content import read_manifest
from ocitool.errors import Unsupported
from ocitool.model import Manifest
from ocitool.unpack.entries import Archive
from ocitool.unpack.idmap import IdMap, Range
from ocitool.unpack.repack import RepackOptions, repack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.userns, pytest.mark.root]

IDS = IdMap((Range(0, 100_000, 1000), Range(1000, 300_000, 1)), (Range(0, 200_000, 1000),))
LAYER = archive(
    directory(b"d/", mode=0o700, uid=1000, gid=7),
    file(b"d/x", b"x", mode=0o4755, uid=5, gid=6),
    symlink(b"l", b"d", uid=7, gid=8),
    device(b"null", 1, 3),
)


@pytest.fixture
def where() -> Iterator[Path]:
    with memory_directory() as directory:
        yield directory


def test_root_gives_files_to_whom_the_maps_say(where: Path) -> None:
    image(LAYER).unpack(where / "bundle", ids=IDS)
    found = {
        path: (node.uid, node.gid, node.mode) for path, node in tree(where / "bundle" / "rootfs").items()
    }
    assert found["d"] == (300_000, 200_007, 0o700)
    assert found["d/x"] == (100_005, 200_006, 0o4755)
    assert found["l"][:2] == (100_007, 200_008)
    assert found["null"][:2] == (100_000, 200_000)
    assert (where / "bundle" / "rootfs").stat().st_uid == 100_000
    linux = json.loads((where / "bundle" / "config.json").read_bytes())["linux"]
    assert linux["uidMappings"] == [
        {"containerID": 0, "hostID": 100_000, "size": 1000},
        {"containerID": 1000, "hostID": 300_000, "size": 1},
    ]
    assert linux["gidMappings"] == [{"containerID": 0, "hostID": 200_000, "size": 1000}]
    assert {"type": "user"} in linux["namespaces"]


def test_nobody_but_the_mapped_root_gets_into_the_bundle(where: Path) -> None:
    image(LAYER).unpack(where / "bundle", ids=IDS)
    status = (where / "bundle").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 200_000, 0o710)


def test_such_a_bundle_runs_here_and_under_runc(where: Path) -> None:
    require("runc")
    maps = ["--uid-map", "0:100000:65536"]
    where.chmod(0o711)
    ocitool = (sys.executable, "-m", "ocitool", "--quiet")
    call(*ocitool, "unpack", *maps, f"oci:{layout()}:hello:1.0", where / "bundle")
    assert "Hello" in call(*ocitool, "run", where / "bundle")
    assert "Hello" in call("runc", "run", "--bundle", where / "bundle", where.name)


def test_what_changed_goes_back_with_the_image_s_owners(where: Path) -> None:
    found = image(LAYER)
    found.unpack(where / "bundle", ids=IDS)
    assert repack(found.store, found.manifest, where / "bundle") == found.manifest
    new = where / "bundle" / "rootfs" / "d" / "new"
    new.touch()
    os.chown(new, 300_000, 200_001)
    options = RepackOptions(compress="none")
    again = Image(found.store, repack(found.store, found.manifest, where / "bundle", options=options))
    manifest = read_manifest(again.store, again.manifest)
    assert isinstance(manifest, Manifest)
    with again.store.fetch(manifest.layers[-1]) as blob:
        owners = {entry.path: (entry.uid, entry.gid) for entry in Archive(blob)}
    assert owners == {b"d": (1000, 7), b"d/new": (1000, 1)}


@pytest.mark.parametrize(("uid", "gid", "who"), [(1001, 0, "user 1001"), (0, 1000, "group 1000")])
def test_lu_21_an_owner_beyond_the_maps_is_an_error_and_never_root(
    where: Path, uid: int, gid: int, who: str
) -> None:
    with pytest.raises(Unsupported, match=who):
        image(archive(file(b"x", uid=uid, gid=gid))).unpack(where / "bundle", ids=IDS)
    assert list(where.iterdir()) == []


def test_a_user_s_own_maps_are_made_by_the_helpers(where: Path) -> None:
    require("newuidmap", "newgidmap", "unshare", "setpriv")
    maps = [f"0:{USER}:1", f"1:{FIRST_SUBORDINATE + 500}:100"]
    unpack_as_user(where, archive(file(b"x", uid=5, gid=6)), maps=maps)
    node = tree(where / "bundle" / "rootfs")["x"]
    assert (node.uid, node.gid) == (FIRST_SUBORDINATE + 504, FIRST_SUBORDINATE + 505)


def test_ids_that_are_not_the_user_s_are_refused(where: Path) -> None:
    require("newuidmap", "newgidmap", "unshare", "setpriv")
    report = unpack_as_user(where, LAYER, maps=[f"0:{USER}:1", "1:1:100"])
    assert (report["error"], "newuidmap refuses" in report["message"]) == ("Unsupported", True)


@pytest.mark.parametrize("options", [{"keep_owner": False}, {"layer_cache": "cache"}])
def test_maps_are_of_no_use_without_owners(where: Path, options: dict[str, object]) -> None:
    with pytest.raises(Unsupported, match="neither with a layer cache nor without owners"):
        image(LAYER).unpack(where / "bundle", ids=IDS, **options)
