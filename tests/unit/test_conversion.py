"""Converted images hold the same files, and what needs no conversion is not touched."""

from __future__ import annotations

import gzip
import io
import json
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from support import fixtures
from support.layout_content import put, put_artifact, put_index

from ocitool import mediatypes
from ocitool.compression import Compression, decompressed
from ocitool.content import open_verified, read_config, read_manifest
from ocitool.conversion import Converted
from ocitool.digest import Digest
from ocitool.errors import IntegrityError, InvalidContent
from ocitool.layout import LayoutStore
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor, Index, Manifest
from ocitool.transfer import copy

if TYPE_CHECKING:
    from ocitool.content import Source

FIXTURES = LayoutStore(fixtures.layout(), read_only=True)
PLAIN = b"plain " * 1000


def config_of(*plain: bytes) -> bytes:
    diff_ids = [str(Digest.of(layer)) for layer in plain]
    return json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()


def docker_image(store: MemoryStore, **extra: Any) -> Descriptor:
    """An image as Docker writes it: gzip, gzip under the plain type, and plain."""
    layers = [
        put(store, gzip.compress(PLAIN, mtime=0), mediatypes.DOCKER_LAYER_GZIP),
        put(store, gzip.compress(PLAIN + b"2", mtime=0), mediatypes.DOCKER_LAYER),
        put(store, PLAIN + b"3", mediatypes.DOCKER_LAYER),
    ]
    config = put(store, config_of(PLAIN, PLAIN + b"2", PLAIN + b"3"), mediatypes.DOCKER_CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatypes.DOCKER_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
        **extra,
    }
    return put(store, json.dumps(manifest).encode(), mediatypes.DOCKER_MANIFEST)


def image(source: Source, root: Descriptor) -> Manifest:
    manifest = read_manifest(source, root)
    assert isinstance(manifest, Manifest)
    return manifest


def files(source: Source, root: Descriptor) -> list[Digest]:
    """The digests of an image's layers, inflated; these must be its diff IDs."""
    manifest = image(source, root)
    found = []
    for layer in manifest.layers:
        with open_verified(source, layer) as reader:
            found.append(Digest.of(decompressed(reader, "layer").read()))
    assert tuple(found) == read_config(source, manifest).diff_ids
    return found


@pytest.fixture
def docker() -> MemoryStore:
    store = MemoryStore()
    store.tag(docker_image(store), "a")
    return store


def test_docker_images_become_oci_images_with_the_same_layers(docker: MemoryStore) -> None:
    store = MemoryStore()
    root = copy(Converted(docker, to_oci=True), store, "a")
    before, after = image(docker, docker.resolve("a")), image(store, root)
    assert root.media_type == after.media_type == mediatypes.OCI_MANIFEST
    assert after.config.media_type == mediatypes.OCI_CONFIG
    assert [child.digest for child in after.children] == [child.digest for child in before.children]
    assert [layer.media_type for layer in after.layers] == [
        mediatypes.OCI_LAYER_GZIP,
        mediatypes.OCI_LAYER_GZIP,
        mediatypes.OCI_LAYER,
    ]


def test_docker_lists_become_indexes_of_oci_images(docker: MemoryStore) -> None:
    child = docker.resolve("a")
    entry = {**child.to_json(), "platform": {"os": "linux", "architecture": "amd64"}, "x-unknown": 1}
    document = {"schemaVersion": 2, "mediaType": mediatypes.DOCKER_INDEX, "manifests": [entry]}
    docker.tag(put(docker, json.dumps(document).encode(), mediatypes.DOCKER_INDEX), "list")
    store = MemoryStore()
    root = copy(Converted(docker, to_oci=True), store, "list")
    index = read_manifest(store, root)
    assert isinstance(index, Index)
    assert index.media_type == mediatypes.OCI_INDEX
    assert str(index.manifests[0].platform) == "linux/amd64"
    assert json.loads(index.raw)["manifests"][0]["x-unknown"] == 1
    assert image(store, index.manifests[0]).media_type == mediatypes.OCI_MANIFEST


@pytest.mark.parametrize("name", ["hello:1.0", "layers:1.0", "artifact:1.0"])
def test_what_is_oci_already_keeps_its_digest(name: str) -> None:
    assert copy(Converted(FIXTURES, to_oci=True), MemoryStore(), name) == FIXTURES.resolve(name)


@pytest.mark.parametrize("wanted", Compression)
@pytest.mark.parametrize("name", ["hello:1.0", "layers:1.0", "zstd:1.0"])
def test_layers_compressed_anew_hold_the_same_files(name: str, wanted: Compression) -> None:
    store = MemoryStore()
    with Converted(FIXTURES, compression=wanted) as source:
        root = copy(source, store, name)
    before = FIXTURES.resolve(name)
    pairs = [(before, root)]
    if before.is_index:
        pairs = [
            *zip(read_manifest(FIXTURES, before).children, read_manifest(store, root).children, strict=True)
        ]
    for old, new in pairs:
        assert files(store, new) == files(FIXTURES, old)
        assert image(store, new).config == image(FIXTURES, old).config
        suffix = {Compression.NONE: ".tar", Compression.GZIP: "+gzip", Compression.ZSTD: "+zstd"}[wanted]
        assert all(layer.media_type.endswith(suffix) for layer in image(store, new).layers)


def test_an_image_of_the_wanted_compression_keeps_its_digest() -> None:
    with Converted(FIXTURES, compression=Compression.ZSTD) as source:
        assert source.resolve("zstd:1.0") == FIXTURES.resolve("zstd:1.0")


def test_the_same_image_becomes_the_same_bytes() -> None:
    roots = set()
    for _ in range(2):
        with Converted(FIXTURES, compression=Compression.ZSTD) as source:
            roots.add(source.resolve("layers:1.0"))
    assert len(roots) == 1


def test_docker_images_keep_their_family_unless_it_is_converted_too(docker: MemoryStore) -> None:
    with Converted(docker, compression=Compression.ZSTD) as source:
        types = {layer.media_type for layer in image(source, source.resolve("a")).layers}
        assert types == {mediatypes.DOCKER_LAYER_ZSTD}
    with Converted(docker, to_oci=True, compression=Compression.ZSTD) as source:
        types = {layer.media_type for layer in image(source, source.resolve("a")).layers}
        assert types == {mediatypes.OCI_LAYER_ZSTD}
        assert files(source, source.resolve("a"))


def test_fields_that_nobody_knows_survive() -> None:
    store = MemoryStore()
    store.tag(docker_image(store, **{"x-vendor": {"a": [1, None]}, "annotations": {"k": "v"}}), "a")
    with Converted(store, to_oci=True) as source:
        fields = json.loads(image(source, source.resolve("a")).raw)
    assert (fields["x-vendor"], fields["annotations"]) == ({"a": [1, None]}, {"k": "v"})


def test_what_is_said_about_a_stream_goes_with_it() -> None:
    store = MemoryStore()
    layer = put(store, gzip.compress(PLAIN), mediatypes.OCI_LAYER_GZIP)
    config = put(store, config_of(PLAIN), mediatypes.OCI_CONFIG)
    annotations = {"containerd.io/snapshot/stargz/toc.digest": "sha256:00", "kept": "yes"}
    manifest = {
        "schemaVersion": 2,
        "config": config.to_json(),
        "layers": [{**layer.to_json(), "annotations": annotations}],
    }
    store.tag(put(store, json.dumps(manifest).encode(), mediatypes.OCI_MANIFEST), "a")
    with Converted(store, compression=Compression.ZSTD) as source:
        assert image(source, source.resolve("a")).layers[0].annotations == {"kept": "yes"}


def test_artifacts_and_their_blobs_are_left_alone() -> None:
    with Converted(FIXTURES, to_oci=True, compression=Compression.ZSTD) as source:
        assert source.resolve("artifact:1.0") == FIXTURES.resolve("artifact:1.0")


def test_a_sparse_index_stays_sparse(docker: MemoryStore) -> None:
    here = docker.resolve("a")
    elsewhere = put_artifact(MemoryStore(), "elsewhere")
    docker.tag(put_index(docker, here, elsewhere), "sparse")
    with Converted(docker, to_oci=True) as source:
        children = read_manifest(source, source.resolve("sparse")).children
    assert children[0].media_type == mediatypes.OCI_MANIFEST
    assert children[1] == elsewhere


def test_a_layer_that_is_not_its_diff_id_is_not_compressed_anew() -> None:
    with (
        Converted(FIXTURES, compression=Compression.ZSTD) as source,
        pytest.raises(IntegrityError, match="diff ID"),
    ):
        source.resolve("hostile-diff-id:1.0")


@pytest.mark.parametrize("name", ["hostile-gzip:1.0", "hostile-truncated:1.0"])
def test_a_broken_stream_is_not_compressed_anew(name: str) -> None:
    with Converted(FIXTURES, compression=Compression.ZSTD) as source, pytest.raises(InvalidContent):
        source.resolve(name)


def test_a_converted_layer_can_be_read_from_anywhere() -> None:
    with Converted(FIXTURES, compression=Compression.ZSTD) as source:
        layer = image(source, source.resolve("layers:1.0")).layers[0]
        with source.fetch(layer) as reader:
            whole = reader.read()
        with source.fetch(layer, offset=10) as reader:
            assert reader.read() == whole[10:]
    assert zstandard.ZstdDecompressor().stream_reader(io.BytesIO(whole)).read()
