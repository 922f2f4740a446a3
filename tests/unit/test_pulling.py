"""Pulling: one platform by default, and only what is not there."""

from __future__ import annotations

from io import BytesIO

import pytest

from ocitool import mediatypes, pulling, strictjson
from ocitool.errors import NotFound
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor
from ocitool.platforms import Platform
from ocitool.selection import Wanted

AMD64, ARM64, S390X = (Platform("linux", name) for name in ("amd64", "arm64", "s390x"))


def _add(store: MemoryStore, media_type: str, content: bytes) -> Descriptor:
    desc = Descriptor.of(media_type, content)
    store.push(desc, BytesIO(content))
    return desc


def _image(store: MemoryStore, platform: Platform) -> Descriptor:
    config = _add(
        store,
        mediatypes.OCI_CONFIG,
        strictjson.dumps(
            {
                "architecture": platform.architecture,
                "os": platform.os,
                "rootfs": {"type": "layers", "diff_ids": []},
            }
        ),
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [_add(store, mediatypes.OCI_LAYER, str(platform).encode()).to_json()],
    }
    return _add(store, mediatypes.OCI_MANIFEST, strictjson.dumps(manifest))


@pytest.fixture
def repository() -> MemoryStore:
    """A repository with a two-platform image `fat` and an image `arm` that is none."""
    store = MemoryStore()
    entries = [
        _image(store, platform).to_json()
        | {"platform": {"os": platform.os, "architecture": platform.architecture}}
        for platform in (AMD64, ARM64)
    ]
    index = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": entries}
    store.tag(_add(store, mediatypes.OCI_INDEX, strictjson.dumps(index)), "fat")
    store.tag(_image(store, ARM64), "arm")
    return store


def test_a_pull_takes_the_one_manifest_for_the_platform(repository: MemoryStore) -> None:
    local = MemoryStore()
    desc = pulling.pull(repository, local, repository.resolve("fat"), to="x", wanted=Wanted(ARM64))
    assert desc == local.resolve("x") == _image(repository, ARM64)
    assert not local.exists(_image(repository, AMD64))


def test_a_pull_of_everything_keeps_the_index(repository: MemoryStore) -> None:
    local = MemoryStore()
    assert pulling.pull(
        repository, local, repository.resolve("fat"), to="x", wanted=None
    ) == repository.resolve("fat")
    assert local.exists(_image(repository, AMD64))
    assert local.exists(_image(repository, ARM64))


def test_a_pull_without_a_name_gives_none(repository: MemoryStore) -> None:
    store = MemoryStore()
    pulled = pulling.pull(repository, store, repository.resolve("fat"), to="", wanted=Wanted(ARM64))
    assert store.exists(pulled)
    assert list(store.tags()) == []


def test_a_platform_that_is_not_there_is_not_found_and_the_others_are_named(repository: MemoryStore) -> None:
    with pytest.raises(NotFound) as missing:
        pulling.pull(repository, MemoryStore(), repository.resolve("fat"), to="x", wanted=Wanted(S390X))
    assert "linux/s390x" in missing.value.message
    assert "linux/amd64, linux/arm64" in missing.value.hint


def test_a_lone_image_of_another_platform_is_refused_only_where_one_was_named(
    repository: MemoryStore,
) -> None:
    pulling.pull(repository, MemoryStore(), repository.resolve("arm"), to="x", wanted=Wanted(AMD64))
    with pytest.raises(NotFound, match="is for linux/arm64, not linux/amd64"):
        pulling.pull(
            repository, MemoryStore(), repository.resolve("arm"), to="x", wanted=Wanted(AMD64, named=True)
        )


def test_an_image_that_is_there_is_not_pulled_again(repository: MemoryStore) -> None:
    desc = pulling.ensure(repository, "arm", Wanted(ARM64, named=True), None)
    assert desc == repository.resolve("arm")


def test_an_image_that_is_not_there_is_pulled_once(repository: MemoryStore) -> None:
    local = MemoryStore()
    pulls = []

    def pull_now() -> Descriptor:
        pulls.append(1)
        return pulling.pull(repository, local, repository.resolve("fat"), to="x", wanted=Wanted(AMD64))

    for _ in range(2):
        assert pulling.ensure(local, "x", Wanted(AMD64), pull_now) == _image(repository, AMD64)
    assert len(pulls) == 1


def test_another_platform_than_the_one_that_is_there_is_pulled(repository: MemoryStore) -> None:
    local = MemoryStore()
    pulling.pull(repository, local, repository.resolve("fat"), to="x", wanted=Wanted(AMD64))
    wanted = Wanted(ARM64, named=True)
    desc = pulling.ensure(
        local,
        "x",
        wanted,
        lambda: pulling.pull(repository, local, repository.resolve("fat"), to="x", wanted=wanted),
    )
    assert desc == _image(repository, ARM64)


def test_an_image_that_may_not_be_pulled_is_not_found(repository: MemoryStore) -> None:
    with pytest.raises(NotFound) as missing:
        pulling.ensure(MemoryStore(), "x", Wanted(AMD64), None)
    assert "--pull" in missing.value.hint
