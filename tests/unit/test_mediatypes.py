"""Media types: the sets that decisions are made by."""

from __future__ import annotations

import pytest

from ocitool import mediatypes


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    ],
)
def test_layers_may_be_distributed(media_type: str) -> None:
    assert mediatypes.is_layer(media_type)
    assert not mediatypes.is_nondistributable(media_type)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
def test_some_layers_may_not(media_type: str) -> None:
    assert mediatypes.is_layer(media_type)
    assert mediatypes.is_nondistributable(media_type)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.empty.v1+json",
        "application/vnd.example.layer.v1.tar+gzip",
        "application/octet-stream",
        "",
    ],
)
def test_other_content_is_no_layer(media_type: str) -> None:
    assert not mediatypes.is_layer(media_type)


def test_the_old_signed_manifests_are_no_manifests_of_ours() -> None:
    assert not mediatypes.DOCKER_SCHEMA1 & mediatypes.MANIFESTS
    assert mediatypes.INDEXES | mediatypes.IMAGE_MANIFESTS == mediatypes.MANIFESTS
    assert not mediatypes.MANIFESTS & mediatypes.CONFIGS
