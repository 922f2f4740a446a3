"""Layouts that other tools wrote are read as they are, and the other way round, digests unchanged."""

from __future__ import annotations

import json
import os
import tempfile
from typing import TYPE_CHECKING

import pytest
from support import fixtures
from support.layout_content import put_artifact
from support.peers import call, require, require_root

from ocitool.content import read_manifest
from ocitool.digest import Digest
from ocitool.errors import OciError
from ocitool.events import Advanced, Started
from ocitool.layout import LayoutStore
from ocitool.memory import MemoryStore
from ocitool.model import Manifest
from ocitool.transfer import copy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.peers


@pytest.fixture
def ours(tmp_path: Path) -> LayoutStore:
    """A layout that ocitool wrote, with one image of two platforms and one of three layers."""
    source = LayoutStore(fixtures.layout(), read_only=True)
    store = LayoutStore(tmp_path / "ours")
    copy(source, store, "hello:1.0", to="hello")
    copy(source, store, "layers:1.0", to="layers")
    return store


@pytest.fixture
def storage() -> Iterator[tuple[str, ...]]:
    """Options that keep buildah's and podman's images apart; they want short paths."""
    with tempfile.TemporaryDirectory(prefix="oci", ignore_cleanup_errors=True) as root:
        yield ("--root", f"{root}/root", "--runroot", f"{root}/run", "--storage-driver", "vfs")


def digest_by_skopeo(location: str) -> str:
    return str(Digest.of(call("skopeo", "inspect", "--raw", location).encode()))


@pytest.mark.parametrize("name", ["hello", "layers"])
def test_skopeo_reads_our_layout(ours: LayoutStore, tmp_path: Path, name: str) -> None:
    require("skopeo")
    theirs = tmp_path / "theirs"
    call("skopeo", "copy", "--all", "--preserve-digests", f"oci:{ours.path}:{name}", f"oci:{theirs}:{name}")
    assert digest_by_skopeo(f"oci:{ours.path}:{name}") == str(ours.resolve(name).digest)
    assert LayoutStore(theirs).resolve(name) == ours.resolve(name)


@pytest.mark.parametrize("name", ["hello", "layers"])
def test_we_read_the_layout_of_skopeo(ours: LayoutStore, tmp_path: Path, name: str) -> None:
    require("skopeo")
    theirs = LayoutStore(tmp_path / "theirs")
    call(
        "skopeo",
        "copy",
        "--all",
        "--preserve-digests",
        f"oci:{ours.path}:{name}",
        f"oci:{theirs.path}:{name}",
    )
    again = MemoryStore()
    assert copy(theirs, again, name) == ours.resolve(name)
    assert copy(theirs, MemoryStore(), "") == ours.resolve(name)


def test_skopeo_adds_to_our_layout_and_keeps_what_is_there(ours: LayoutStore) -> None:
    require("skopeo")
    call("skopeo", "copy", "--all", f"oci:{fixtures.layout()}:zstd:1.0", f"oci:{ours.path}:zstd")
    assert ours.tags() == ["hello", "layers", "zstd"]
    assert str(ours.resolve("zstd").digest) == fixtures.digests()["zstd:1.0"]


def test_umoci_lists_unpacks_tags_and_collects_in_our_layout(ours: LayoutStore, tmp_path: Path) -> None:
    require("umoci")
    require_root()
    assert sorted(call("umoci", "ls", "--layout", ours.path).split()) == ["hello", "layers"]
    call("umoci", "unpack", "--image", f"{ours.path}:layers", tmp_path / "bundle")
    assert any((tmp_path / "bundle" / "rootfs").iterdir())
    call("umoci", "tag", "--image", f"{ours.path}:layers", "more")
    assert ours.resolve("more") == ours.resolve("layers")
    call("umoci", "rm", "--image", f"{ours.path}:layers")
    call("umoci", "gc", "--layout", ours.path)
    assert ours.tags() == ["hello", "more"]
    assert copy(ours, MemoryStore(), "more") == ours.resolve("more")


def test_we_read_and_tag_in_a_layout_of_umoci(tmp_path: Path) -> None:
    require("umoci")
    path = tmp_path / "theirs"
    call("umoci", "init", "--layout", path)
    call("umoci", "new", "--image", f"{path}:empty")
    theirs = LayoutStore(path)
    root = theirs.resolve("empty")
    theirs.tag(root, "again")
    theirs.tag(put_artifact(theirs, "artifact"), "artifact")
    assert sorted(call("umoci", "ls", "--layout", path).split()) == ["again", "artifact", "empty"]
    assert copy(theirs, MemoryStore(), "again") == root


def test_buildah_pulls_from_our_layout_and_pushes_back(
    ours: LayoutStore, tmp_path: Path, storage: tuple[str, ...]
) -> None:
    require("buildah")
    require_root()
    image = call("buildah", *storage, "pull", "--quiet", f"oci:{ours.path}:layers").strip()
    call("buildah", *storage, "push", "--quiet", "--format", "oci", image, f"oci:{tmp_path / 'theirs'}:back")
    theirs = LayoutStore(tmp_path / "theirs")
    # buildah compresses again, so the image is the same (its configuration), but not its layers' bytes.
    manifest = read_manifest(theirs, theirs.resolve("back"))
    assert isinstance(manifest, Manifest)
    assert manifest.config.digest.hex == image
    copy(theirs, MemoryStore(), "back")


def test_podman_pulls_from_our_layout(ours: LayoutStore, storage: tuple[str, ...]) -> None:
    require("podman")
    require_root()
    image = call("podman", *storage, "pull", "--quiet", f"oci:{ours.path}:layers").strip()
    assert json.loads(call("podman", *storage, "image", "inspect", image))[0]["Id"] == image


def test_f_22_a_read_only_layout_is_read_and_refuses_before_anything_is_moved(
    ours: LayoutStore, tmp_path: Path
) -> None:
    root = ours.resolve("layers")
    ours.close()
    readable = tmp_path / "readable"
    if os.geteuid() == 0:
        readable.mkdir()
        call("mount", "--bind", "--options", "ro", ours.path, readable)
    else:
        ours.path.rename(readable)
        readable.chmod(0o555)
    try:
        store = LayoutStore(readable)
        assert copy(store, MemoryStore(), "layers") == root
        assert store.exists(root)
        moved: list[object] = []
        with pytest.raises(OciError, match=r"Read-only file system|Permission denied") as caught:
            copy(LayoutStore(fixtures.layout(), read_only=True), store, "zstd:1.0", on_event=moved.append)
        assert not any(isinstance(event, Started | Advanced) for event in moved)
        assert caught.value.hint
    finally:
        if os.geteuid() == 0:
            call("umount", readable)
