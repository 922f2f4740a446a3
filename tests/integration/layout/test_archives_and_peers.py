"""Archives that ocitool writes are loaded by other tools, and theirs by ocitool."""

from __future__ import annotations

import json
import tempfile
from typing import TYPE_CHECKING

import pytest
from support import fixtures
from support.peers import call, require, require_root

from ocitool.compression import Compression
from ocitool.content import read_manifest
from ocitool.conversion import Converted
from ocitool.layout import ArchiveSource, ArchiveWriter, LayoutStore
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor, Manifest
from ocitool.platforms import host
from ocitool.selection import choose
from ocitool.transfer import copy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.command import Ocitool

    from ocitool.content import Source

pytestmark = pytest.mark.peers

FULL = "docker.io/library/layers:1.0"


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """An archive that ocitool wrote."""
    path = tmp_path / "ours.tar"
    with ArchiveWriter(path) as archive:
        copy(LayoutStore(fixtures.layout(), read_only=True), archive, "layers:1.0", to=FULL)
    return path


@pytest.fixture
def storage() -> Iterator[tuple[str, ...]]:
    """Options that keep buildah's and podman's images apart; they want short paths."""
    with tempfile.TemporaryDirectory(prefix="oci", ignore_cleanup_errors=True) as root:
        yield ("--root", f"{root}/root", "--runroot", f"{root}/run", "--storage-driver", "vfs")


def config(source: Source, root: Descriptor) -> str:
    """An image's ID."""
    manifest = read_manifest(source, choose(source, root, host()))
    assert isinstance(manifest, Manifest)
    return manifest.config.digest.hex


def image_id() -> str:
    source = LayoutStore(fixtures.layout(), read_only=True)
    return config(source, source.resolve("layers:1.0"))


def test_skopeo_reads_our_archive_as_a_layout(ours: Path, tmp_path: Path) -> None:
    require("skopeo")
    call("skopeo", "copy", "--preserve-digests", f"oci-archive:{ours}:{FULL}", f"oci:{tmp_path / 'back'}:x")
    assert str(LayoutStore(tmp_path / "back").resolve("x").digest) == fixtures.digests()["layers:1.0"]


def test_skopeo_reads_our_archive_as_one_of_docker(ours: Path, tmp_path: Path) -> None:
    require("skopeo")
    call("skopeo", "copy", f"docker-archive:{ours}:{FULL}", f"oci:{tmp_path / 'back'}:x")
    back = LayoutStore(tmp_path / "back")
    assert config(back, back.resolve("x")) == image_id()


def test_skopeo_reads_an_archive_of_two_platforms(tmp_path: Path) -> None:
    require("skopeo")
    with ArchiveWriter(tmp_path / "ours.tar") as archive:
        copy(LayoutStore(fixtures.layout(), read_only=True), archive, "hello:1.0", to="hello")
    call(
        "skopeo", "copy", "--all", "--preserve-digests",
        f"oci-archive:{tmp_path / 'ours.tar'}:hello", f"oci:{tmp_path / 'back'}:x",
    )  # fmt: skip
    assert str(LayoutStore(tmp_path / "back").resolve("x").digest) == fixtures.digests()["hello:1.0"]


def test_podman_loads_our_archive_under_its_name(ours: Path, storage: tuple[str, ...]) -> None:
    require("podman")
    require_root()
    assert FULL in call("podman", *storage, "load", "--input", ours)
    assert json.loads(call("podman", *storage, "image", "inspect", FULL))[0]["Id"] == image_id()


def test_podman_loads_several_images_of_our_archive(tmp_path: Path, storage: tuple[str, ...]) -> None:
    """podman reads a layout of several images as what docker writes, so `manifest.json` has them all."""
    require("podman")
    require_root()
    with ArchiveWriter(tmp_path / "ours.tar") as archive:
        for name in ("hello", "layers"):
            copy(
                LayoutStore(fixtures.layout(), read_only=True),
                archive,
                f"{name}:1.0",
                to=f"example.org/{name}:1.0",
            )
    call("podman", *storage, "load", "--input", tmp_path / "ours.tar")
    names = call("podman", *storage, "images", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert sorted(names) == ["example.org/hello:1.0", "example.org/layers:1.0"]


def test_buildah_pulls_from_our_archive(ours: Path, storage: tuple[str, ...]) -> None:
    require("buildah")
    require_root()
    assert call("buildah", *storage, "pull", "--quiet", f"oci-archive:{ours}").strip() == image_id()


def test_umoci_reads_our_archive_once_it_is_unpacked(ours: Path, tmp_path: Path) -> None:
    require("umoci", "tar")
    (tmp_path / "layout").mkdir()
    call("tar", "-xf", ours, "-C", tmp_path / "layout")
    assert call("umoci", "ls", "--layout", tmp_path / "layout").split() == [FULL]


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_we_read_the_archives_of_skopeo(tmp_path: Path, kind: str) -> None:
    require("skopeo")
    path = tmp_path / "theirs.tar"
    preserve = ["--preserve-digests"] if kind == "oci-archive" else []
    call("skopeo", "copy", *preserve, f"oci:{fixtures.layout()}:layers:1.0", f"{kind}:{path}:{FULL}")
    with ArchiveSource(path) as archive:
        root = copy(archive, MemoryStore(), FULL)
        assert config(archive, root) == image_id()
        if kind == "oci-archive":
            assert str(root) == fixtures.digests()["layers:1.0"]


def test_both_names_of_an_image_that_skopeo_saved_go_on_to_podman(
    ocitool: Ocitool, tmp_path: Path, storage: tuple[str, ...]
) -> None:
    for tool in ("skopeo", "podman"):
        require(tool)
    require_root()
    first, second = "example.test/app:1", "example.test/other:2"
    call(
        "skopeo", "copy", "--additional-tag", second,
        f"oci:{fixtures.layout()}:layers:1.0", f"docker-archive:{tmp_path / 'theirs.tar'}:{first}",
    )  # fmt: skip
    ocitool("copy", f"docker-archive:{tmp_path / 'theirs.tar'}", f"docker-archive:{tmp_path / 'ours.tar'}")
    call("podman", *storage, "load", "--input", tmp_path / "ours.tar")
    listed = call("podman", *storage, "images", "--format", "{{.Repository}}:{{.Tag}}")
    assert sorted(listed.split()) == [first, second]


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_we_read_the_archives_of_podman(
    ours: Path, tmp_path: Path, storage: tuple[str, ...], kind: str
) -> None:
    require("podman")
    require_root()
    call("podman", *storage, "load", "--input", ours)
    call("podman", *storage, "save", "--format", kind, "--output", tmp_path / "theirs.tar", FULL)
    with ArchiveSource(tmp_path / "theirs.tar") as archive:
        assert config(archive, copy(archive, MemoryStore(), "")) == image_id()


@pytest.mark.parametrize("wanted", [Compression.ZSTD, Compression.GZIP, Compression.NONE], ids=str)
def test_buildah_finds_the_same_files_in_layers_compressed_anew(
    tmp_path: Path, storage: tuple[str, ...], wanted: Compression
) -> None:
    """It inflates the layers, and compares them with the image's diff IDs."""
    require("buildah")
    require_root()
    ours = LayoutStore(tmp_path / "ours")
    with Converted(LayoutStore(fixtures.layout(), read_only=True), compression=wanted) as source:
        copy(source, ours, "layers:1.0", to="x")
    assert call("buildah", *storage, "pull", "--quiet", f"oci:{ours.path}:x").strip() == image_id()
