"""Images that are kept unpacked: made once, whoever asks, and removed when nobody needs them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from support.fixtures import digests, layout

from ocitool import prepared
from ocitool.content import read_config, read_manifest
from ocitool.errors import InvalidContent
from ocitool.layout import LayoutStore
from ocitool.model import Manifest

if TYPE_CHECKING:
    from pathlib import Path

    from ocitool.digest import Digest
    from ocitool.model import Descriptor


@pytest.fixture
def store() -> LayoutStore:
    return LayoutStore(layout(), create=False, read_only=True)


@pytest.fixture
def image(store: LayoutStore) -> Descriptor:
    return store.resolve("layers:1.0")


def test_an_image_is_unpacked_once(store: LayoutStore, image: Descriptor, tmp_path: Path) -> None:
    with prepared.prepared(store, image, tmp_path) as first:
        made = first.stat()
    with prepared.prepared(store, image, tmp_path) as second:
        assert os.path.samestat(second.stat(), made)
    assert [path.name for path in tmp_path.iterdir()] == [digests()["layers:1.0"].replace(":", "-")]


def test_whoever_asks_at_the_same_time_gets_the_same(
    store: LayoutStore, image: Descriptor, tmp_path: Path
) -> None:
    def ask(_: int) -> int:
        with prepared.prepared(store, image, tmp_path) as bundle:
            assert (bundle / "config.json").is_file()
            return bundle.stat().st_ino

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ask, range(4)))) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_what_nobody_needs_is_removed_and_what_runs_stays(
    store: LayoutStore, image: Descriptor, tmp_path: Path
) -> None:
    def unused(_: Digest) -> bool:
        return False

    (tmp_path / "something else").mkdir()
    with prepared.prepared(store, image, tmp_path) as bundle:
        assert prepared.remove_unused(tmp_path, unused, really=True) == []
        assert bundle.exists()
    assert prepared.remove_unused(tmp_path, lambda digest: digest == image.digest, really=True) == []
    assert prepared.remove_unused(tmp_path, unused, really=False) == [image.digest]
    assert bundle.exists()
    assert prepared.remove_unused(tmp_path, unused, really=True) == [image.digest]
    assert [path.name for path in tmp_path.iterdir()] == ["something else"]
    assert prepared.remove_unused(tmp_path / "none", unused, really=True) == []


def test_the_root_of_the_container_is_as_the_image_has_it(
    store: LayoutStore, image: Descriptor, tmp_path: Path
) -> None:
    container = tmp_path / "container"
    container.mkdir()
    with prepared.prepared(store, image, tmp_path / "images") as bundle:
        mount = prepared.overlay(bundle, container)
        root, upper = (bundle / "rootfs").stat(), (container / "upper").stat()
    assert mount.lower == [str(bundle / "rootfs")]
    assert (upper.st_mode, upper.st_uid, upper.st_mtime_ns) == (root.st_mode, root.st_uid, root.st_mtime_ns)


def test_another_user_is_looked_up_in_the_image(
    store: LayoutStore, image: Descriptor, tmp_path: Path
) -> None:
    manifest = read_manifest(store, image)
    assert isinstance(manifest, Manifest)
    config = read_config(store, manifest)
    with prepared.prepared(store, image, tmp_path) as bundle:
        process = prepared.process_of(bundle, config, "12:34")
        assert (process["user"]["uid"], process["user"]["gid"]) == (12, 34)
        assert process["capabilities"]["effective"] == []
        with pytest.raises(InvalidContent, match="nobody-there"):
            prepared.process_of(bundle, config, "nobody-there")
