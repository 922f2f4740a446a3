"""A layout with a limit keeps what was used last."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from support.layout_content import put_artifact

from ocitool import mediatypes
from ocitool.errors import NotFound
from ocitool.layout import LayoutStore
from ocitool.layout.repositories import LayoutRepositories
from ocitool.model import Descriptor

if TYPE_CHECKING:
    from pathlib import Path

    from ocitool.layout.repositories import Repository


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    return LayoutStore(tmp_path / "cache")


def opened(repositories: LayoutRepositories) -> Repository:
    found = repositories.open("app", create=True)
    assert found is not None
    return found


def filled(repository: Repository, *contents: bytes) -> list[Descriptor]:
    """Bring content, one after the other."""
    made = []
    for content in contents:
        made.append(desc := Descriptor.of(mediatypes.OCI_LAYER, content))
        repository.push(desc, BytesIO(content))
        used(repository, desc)
    return made


def used(repository: Repository, desc: Descriptor) -> None:
    with repository.fetch(desc) as reader:
        reader.read()


def left(store: LayoutStore, descs: list[Descriptor]) -> list[bool]:
    return [store.blobs.size(desc.digest) is not None for desc in descs]


def test_what_was_not_used_for_longest_goes_until_the_rest_fits(store: LayoutStore) -> None:
    repositories = LayoutRepositories(store, limit=250)
    repository = opened(repositories)
    made = filled(repository, *(bytes([number]) * 100 for number in range(4)))
    used(repository, made[0])

    repositories.tend()

    assert left(store, made) == [True, False, False, True]
    with pytest.raises(NotFound):
        repository.resolve(str(made[1].digest))
    filled(repository, bytes([1]) * 100)  # and may come again
    assert repository.resolve(str(made[1].digest)).size == 100


def test_what_fits_stays(store: LayoutStore) -> None:
    repositories = LayoutRepositories(store, limit=200)
    made = filled(opened(repositories), b"a" * 100, b"b" * 100)
    repositories.tend()
    assert left(store, made) == [True, True]


def test_what_is_being_read_stays_until_it_has_been(store: LayoutStore) -> None:
    repositories = LayoutRepositories(store, limit=100)
    repository = opened(repositories)
    made = filled(repository, b"a" * 100, b"b" * 100)
    with repository.fetch(made[0]) as reader:
        repositories.tend()
        assert left(store, made) == [True, False]
        assert reader.read() == b"a" * 100
    filled(repository, b"c" * 100)
    repositories.tend()
    assert left(store, made) == [False, False]


def test_content_that_is_read_in_spite_of_the_limit_is_looked_at_again(store: LayoutStore) -> None:
    repositories = LayoutRepositories(store, limit=10)
    repository = opened(repositories)
    (made,) = filled(repository, b"a" * 100)
    with repository.fetch(made):
        repositories.tend()
    assert left(store, [made]) == [True]
    repositories.tend()
    assert left(store, [made]) == [False]


def test_a_manifest_that_goes_takes_its_names_along(store: LayoutStore) -> None:
    image = put_artifact(store, "an image")
    store.tag(image, "app:1.0")
    repositories = LayoutRepositories(store, limit=0)
    repositories.tend()
    assert left(store, [image]) == [False]
    assert store.entries() == []


def test_a_new_process_knows_what_was_used_last(store: LayoutStore) -> None:
    repository = opened(LayoutRepositories(store, limit=1000))
    made = filled(repository, b"a" * 100, b"b" * 100)
    used(repository, made[0])
    file = store.path / "blobs" / "sha256" / made[0].digest.hex
    came = file.stat().st_mtime_ns
    store.close()

    LayoutRepositories(LayoutStore(store.path), limit=100).tend()

    assert left(store, made) == [True, False]
    assert file.stat().st_mtime_ns == came  # by which the collection of garbage judges its age
