"""A bundle seen as a registry, and two bundles beside each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.bundle_images import all_of, bundle_of, opened, put_image

from ocitool.bundle import Inventory, gather
from ocitool.bundle.difference import difference
from ocitool.bundle.repositories import BundleRepositories
from ocitool.content import Lister, Referrers, Source, Store, read_verified
from ocitool.digest import Digest
from ocitool.errors import NotFound
from ocitool.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocitool.bundle import BundleSource


@pytest.fixture
def near() -> MemoryStore:
    store = MemoryStore()
    app = put_image(store, b"base", b"app", tag="docker.io/library/app:1")
    put_image(store, b"base", b"app 2", tag="docker.io/library/app:2")
    put_image(store, b"db", tag="quay.example/team/db:2")
    put_image(store, b"plain", tag="plain")
    put_image(store, b"signature", subject=app, kind="text/signature")
    return store


@pytest.fixture
def bundle(near: MemoryStore) -> Iterator[BundleSource]:
    with opened(bundle_of(all_of(near))) as bundle:
        yield bundle


def test_repositories_are_named_as_a_client_of_a_mirror_asks(bundle: BundleSource) -> None:
    served = BundleRepositories(bundle)
    assert served.names() == ["image", "library/app", "team/db"]
    assert served.open("docker.io/library/app") is None
    assert served.open("new", create=True) is None


def test_a_repository_has_its_tags_and_can_only_be_read(bundle: BundleSource, near: MemoryStore) -> None:
    app = BundleRepositories(bundle).open("library/app")
    assert isinstance(app, Source)
    assert isinstance(app, Lister)
    assert isinstance(app, Referrers)
    assert not isinstance(app, Store)
    assert list(app.tags()) == ["1", "2"]
    root = near.resolve("docker.io/library/app:1")
    assert app.resolve("1") == app.resolve(str(root.digest)) == root
    assert read_verified(app, root) == near._content[root.digest]
    assert [one.artifact_type for one in app.referrers(root)] == ["text/signature"]
    for name in ("3", "library/app:1", str(Digest.of(b"nothing"))):
        with pytest.raises(NotFound):
            app.resolve(name)


def test_a_name_that_is_only_a_tag_is_in_a_repository_of_its_own(bundle: BundleSource) -> None:
    image = BundleRepositories(bundle).open("image")
    assert image is not None
    assert list(image.tags()) == ["plain"]


def test_a_repository_of_referrers_alone_is_served() -> None:
    store = MemoryStore()
    put_image(store, b"x", tag="a.example/app:1")
    item = all_of(store)[0]
    unnamed = type(item)(store, item.ref, item.repository, "")
    with opened(bundle_of([unnamed])) as bundle:
        app = BundleRepositories(bundle).open("app")
        assert app is not None
        assert list(app.tags()) == []
        assert app.resolve(str(store.resolve(item.ref).digest)) == store.resolve(item.ref)


def test_equal_inventories_do_not_differ(near: MemoryStore) -> None:
    inventory = gather(all_of(near)).inventory
    assert not difference(inventory, inventory)
    # What is presumed is needed as much as what is here.
    assert not difference(inventory, gather(all_of(near), have=inventory).inventory)


def test_a_difference_is_told_by_names_and_content(near: MemoryStore) -> None:
    before = gather(all_of(near)).inventory
    old = near.resolve("docker.io/library/app:1").digest
    new = put_image(near, b"base", b"app 1.1", tag="docker.io/library/app:1").digest
    near.untag("plain")
    found = difference(before, gather(all_of(near)).inventory)
    assert found
    assert found.images["docker.io/library/app:1"] == (old, new)
    assert found.images["plain"][1] is None
    assert Digest.of(b"app 1.1") in {desc.digest for desc in found.added}
    assert {Digest.of(b"app"), Digest.of(b"plain"), Digest.of(b"signature")} <= {
        d.digest for d in found.removed
    }
    assert len(difference(Inventory(), before).added) == len(before.content)
