"""Images that are kept unpacked: made once, whoever asks, and removed when nobody needs them."""

from __future__ import annotations

import fcntl
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import unpack_images
from support.fixtures import digests, layout
from support.unpack_tars import archive, directory, file

from ocitool import containers, prepared
from ocitool.content import read_config, read_manifest
from ocitool.digest import Digest
from ocitool.errors import InvalidContent, NotFound
from ocitool.layout import LayoutStore
from ocitool.model import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocitool.model import Descriptor


@pytest.fixture
def store() -> LayoutStore:
    return LayoutStore(layout(), create=False, read_only=True)


@pytest.fixture
def image(store: LayoutStore) -> Descriptor:
    return store.resolve("layers:1.0")


@contextmanager
def shared(directory: Path) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    try:
        yield
    finally:
        os.close(fd)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def trees(directory: Path) -> set[Path]:
    return {path for path in (directory / "layers").glob("*/*") if path.is_dir()}


@pytest.mark.parametrize("written", ["{}", "{}/", "{}/.", "../{}"])
def test_a_store_has_one_place_beside_it_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    (tmp_path / "store").mkdir()
    monkeypatch.chdir(tmp_path / "store")
    store = written.format("store" if written.startswith("..") else tmp_path / "store")
    assert prepared.place(store) == f"{tmp_path}/store.prepared-{os.geteuid()}"
    assert containers.place(store) == f"{tmp_path}/containers"
    assert prepared.place(".") == prepared.place(store)


def test_an_image_is_unpacked_once(store: LayoutStore, image: Descriptor, tmp_path: Path) -> None:
    with prepared.prepared(store, image, tmp_path) as first:
        made = Path(first.bundle).stat()
    with prepared.prepared(store, image, tmp_path) as second:
        assert os.path.samestat(Path(second.bundle).stat(), made)
    assert names(tmp_path) == ["layers", digests()["layers:1.0"].replace(":", "-")]


def test_whoever_asks_at_the_same_time_gets_the_same(
    store: LayoutStore, image: Descriptor, tmp_path: Path
) -> None:
    def ask(_: int) -> int:
        with prepared.prepared(store, image, tmp_path) as ready:
            assert Path(ready.bundle, "config.json").is_file()
            return Path(ready.bundle).stat().st_ino

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ask, range(4)))) == 1
    assert len(names(tmp_path)) == 2


def test_images_share_the_layers_that_both_have(tmp_path: Path) -> None:
    base, other = archive(directory(b"d/"), file(b"d/x")), archive(directory(b"d/"), file(b"d/y"))
    one, two = unpack_images.image(base), unpack_images.image(base, other)
    with prepared.prepared(one.store, one.manifest, tmp_path) as first:
        before = trees(tmp_path)
        with prepared.prepared(two.store, two.manifest, tmp_path) as second:
            assert second.stack.lowers[1:] == first.stack.lowers
    assert len(trees(tmp_path) - before) == 1
    removed = prepared.remove_unused(tmp_path, lambda digest: digest == one.manifest.digest, really=True)
    assert removed == [two.manifest.digest, Digest.of(other)]
    assert trees(tmp_path) == before


def test_what_nobody_needs_is_removed_and_what_runs_stays(
    store: LayoutStore, image: Descriptor, tmp_path: Path
) -> None:
    def unused(_: Digest) -> bool:
        return False

    (tmp_path / "something else").mkdir()
    with prepared.prepared(store, image, tmp_path) as ready:
        prepared.remove_unused(tmp_path, unused, really=True)
        layers = trees(tmp_path)
        assert layers == {Path(path).parent for path in ready.stack.lowers}
        assert prepared.remove_unused(tmp_path, unused, really=True) == []
    assert prepared.remove_unused(tmp_path, lambda digest: digest == image.digest, really=True) == []
    listed = prepared.remove_unused(tmp_path, unused, really=False)
    assert listed[0] == image.digest
    assert len(listed) == 1 + len(layers)
    assert Path(ready.bundle).exists()
    assert trees(tmp_path) == layers
    assert prepared.remove_unused(tmp_path, unused, really=True) == listed
    assert names(tmp_path) == ["layers", "something else"]
    assert [path for path in (tmp_path / "layers").rglob("*") if not path.is_dir()] == []
    assert prepared.remove_unused(tmp_path / "none", unused, really=True) == []


def test_a_layer_whose_maker_was_killed_is_collected(
    store: LayoutStore, image: Descriptor, tmp_path: Path
) -> None:
    with prepared.prepared(store, image, tmp_path) as ready:
        layer = Path(ready.stack.lowers[0]).parent
    half_made = layer.with_name(f".{layer.name}.6inad8p4.partial")
    (half_made / "diff").mkdir(parents=True)
    leaving: list[Path] = []
    prepared.remove_unused(tmp_path, lambda _: True, really=False, leaving=leaving.append)
    assert half_made in leaving
    assert half_made.exists()
    prepared.remove_unused(tmp_path, lambda _: True, really=True)
    assert not half_made.exists()
    assert layer.exists()


def test_layers_stay_while_somebody_adds_some(store: LayoutStore, image: Descriptor, tmp_path: Path) -> None:
    with prepared.prepared(store, image, tmp_path) as ready:
        layers = trees(tmp_path)
    shutil.rmtree(ready.bundle)
    with shared(tmp_path / "layers"):
        assert prepared.remove_unused(tmp_path, lambda _: False, really=True) == []
    assert trees(tmp_path) == layers


def test_an_image_whose_layers_are_gone_says_so(
    store: LayoutStore, image: Descriptor, tmp_path: Path
) -> None:
    with prepared.prepared(store, image, tmp_path):
        shutil.rmtree(tmp_path / "layers")
    with pytest.raises(NotFound, match="is gone"), prepared.prepared(store, image, tmp_path):
        pass


def test_the_root_of_the_container_is_as_the_image_has_it(
    store: LayoutStore, image: Descriptor, tmp_path: Path
) -> None:
    container = tmp_path / "container"
    container.mkdir()
    with prepared.prepared(store, image, tmp_path / "images") as ready:
        mount = prepared.overlay(ready.stack, container)
        root, upper = Path(ready.stack.root).stat(), (container / "upper").stat()
    assert mount.lower == list(ready.stack.lowers)
    assert (upper.st_mode, upper.st_uid, upper.st_mtime_ns) == (root.st_mode, root.st_uid, root.st_mtime_ns)


def test_another_user_is_looked_up_in_the_image(
    store: LayoutStore, image: Descriptor, tmp_path: Path
) -> None:
    manifest = read_manifest(store, image)
    assert isinstance(manifest, Manifest)
    config = read_config(store, manifest)
    with prepared.prepared(store, image, tmp_path) as ready:
        process = prepared.process_of(ready.bundle, config, "12:34")
        assert (process["user"]["uid"], process["user"]["gid"]) == (12, 34)
        assert process["capabilities"]["effective"] == []
        with pytest.raises(InvalidContent, match="nobody-there"):
            prepared.process_of(ready.bundle, config, "nobody-there")
