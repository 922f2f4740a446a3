"""Applying a bundle: to one store or a registry's repositories, all of it or nothing, again and again."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bundle_images import all_of, bundle_of, holding, opened, put_image, state, written
from support.layout_content import put_index

from ocitool.bundle import Image, Inventory, Item, gather
from ocitool.bundle.application import OneStore, RegistryDestination, Renaming, apply
from ocitool.bundle.holding import images_of, inventory_of
from ocitool.content import Source
from ocitool.digest import Digest
from ocitool.errors import Conflict, InvalidReference, NotFound, OciError
from ocitool.layout import LayoutStore
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor
from ocitool.platforms import Platform
from ocitool.selection import Selection
from ocitool.streams import Reader


@pytest.fixture
def near() -> MemoryStore:
    """Images of two hosts that share a layer, one of them signed."""
    store = MemoryStore()
    app = put_image(store, b"base", b"app", tag="docker.io/library/app:1")
    put_image(store, b"base", b"db", tag="quay.example/team/db:2")
    put_image(store, b"signature", subject=app, kind="text/signature")
    return store


class Registry:
    """Repositories in memory, which can take blobs over from one another."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}

    def open(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    def destination(self, prefix: str = "", **rules: str) -> RegistryDestination:
        renaming = Renaming({start.replace("__", "/"): new for start, new in rules.items()})
        return RegistryDestination(self.open, "far.example:5000", prefix, renaming)

    def state(self) -> dict[str, object]:
        return {name: state(store) for name, store in self.repositories.items() if store._content}


class Repository(MemoryStore):
    """Counts what was pushed and what was mounted."""

    def __init__(self) -> None:
        super().__init__()
        self.pushed: list[Digest] = []
        self.mounted: list[Digest] = []

    def push(self, desc: Descriptor, stream: Reader, /) -> None:
        super().push(desc, stream)
        self.pushed.append(desc.digest)

    def mount(self, desc: Descriptor, source: Source, /) -> bool:
        if not isinstance(source, Repository) or not source.exists(desc):
            return False
        with source.fetch(desc) as reader:
            super().push(desc, reader)
        self.mounted.append(desc.digest)
        return True


def test_a_layout_gets_everything_under_whole_names(near: MemoryStore, tmp_path: Path) -> None:
    far = LayoutStore(tmp_path / "far")
    with opened(bundle_of(all_of(near))) as bundle:
        changed = apply(bundle, OneStore(far))
    assert list(changed) == near.tags() == far.tags()
    app = near.resolve("docker.io/library/app:1")
    assert far.resolve("docker.io/library/app:1") == app
    assert [d.artifact_type for d in far.referrers(app)] == ["text/signature"]
    assert {digest for digest, _ in far.blobs} == near._content.keys()


def test_what_only_a_tag_connects_with_an_image_crosses_with_it(near: MemoryStore, tmp_path: Path) -> None:
    """As cosign's signatures, of the image and of its platforms, in its own repository alone."""
    arm, amd = (put_image(near, layer) for layer in (b"arm", b"amd"))
    index = put_index(near, arm, amd)
    near.tag(index, "quay.example/team/fat:1")
    own = [f"quay.example/team/fat:sha256-{desc.digest.hex}.sig" for desc in (index, arm)]
    foreign = f"quay.example/team/other:sha256-{arm.digest.hex}.att"
    for name in (*own, foreign):
        put_image(near, name.encode(), tag=name)
    item = Item.called(near, "quay.example/team/fat:1", "quay.example/team/fat:1")
    far, bare = LayoutStore(tmp_path / "far"), LayoutStore(tmp_path / "bare")
    with opened(bundle_of([item])) as bundle:
        apply(bundle, OneStore(far))
    assert far.tags() == sorted(["quay.example/team/fat:1", *own])
    assert far.resolve(own[1]) == near.resolve(own[1])
    with opened(bundle_of([item], referrers=False)) as bundle:
        apply(bundle, OneStore(bare))
    assert bare.tags() == ["quay.example/team/fat:1"]


def test_applying_again_writes_nothing(near: MemoryStore, tmp_path: Path) -> None:
    far = LayoutStore(tmp_path / "far")
    with opened(bundle_of(all_of(near))) as bundle:
        apply(bundle, OneStore(far))
        far.close()
        before = {
            path: path.stat().st_mtime_ns for path in sorted((tmp_path / "far").rglob("*")) if path.is_file()
        }
        assert apply(bundle, OneStore(LayoutStore(tmp_path / "far"))) == {}
    index = tmp_path / "far" / "index.json"
    assert index.stat().st_mtime_ns == before[index]
    for path, time in before.items():
        if "blobs" in path.parts:
            assert path.stat().st_mtime_ns == time


def test_a_registry_gets_each_repository_without_its_host(near: MemoryStore) -> None:
    registry = Registry()
    with opened(bundle_of(all_of(near))) as bundle:
        apply(bundle, registry.destination("mirror"))
    names = {name: list(store.tags()) for name, store in registry.repositories.items()}
    assert names == {
        "far.example:5000/mirror/library/app": ["1"],
        "far.example:5000/mirror/team/db": ["2"],
    }
    app = registry.open("far.example:5000/mirror/library/app")
    assert len(list(app.referrers(near.resolve("docker.io/library/app:1")))) == 1


def test_what_another_repository_has_is_taken_over_from_there(near: MemoryStore) -> None:
    registry = Registry()
    with opened(bundle_of(all_of(near))) as bundle:
        apply(bundle, registry.destination())
    base = Digest.of(b"base")
    app, db = registry.repositories.values()
    assert sorted([base in app.pushed, base in db.pushed]) == [False, True]
    assert sorted([base in app.mounted, base in db.mounted]) == [False, True]


@pytest.mark.parametrize(
    ("rules", "repository", "new"),
    [
        ({}, "docker.io/library/app", "library/app"),
        ({"docker.io": "hub"}, "docker.io/library/app", "hub/library/app"),
        ({"docker.io": "hub", "docker.io/library": "base"}, "docker.io/library/app", "base/app"),
        ({"docker.io/library": ""}, "docker.io/library/app", "app"),
        ({"docker.io/lib": "wrong"}, "docker.io/library/app", "library/app"),
        ({"docker.io/library/app": "one"}, "docker.io/library/app", "one"),
        ({"": "all"}, "docker.io/library/app", "all/docker.io/library/app"),
        ({}, "localhost:5000/x", "x"),
        ({}, "team/app", "team/app"),
    ],
)
def test_the_longest_rule_that_matches_whole_components_renames(
    rules: dict[str, str], repository: str, new: str
) -> None:
    opened_names: list[str] = []

    def open_repository(name: str) -> MemoryStore:
        opened_names.append(name)
        return MemoryStore()

    RegistryDestination(open_repository, "far", "p", Renaming(rules)).place(repository, "t")
    assert opened_names == [f"far/p/{new}"]


def test_names_of_a_layout_change_only_by_a_rule() -> None:
    far = MemoryStore()
    renaming = Renaming({"docker.io/library": "base"})
    assert OneStore(far).place("docker.io/library/app", "1").name == "docker.io/library/app:1"
    assert OneStore(far, renaming).place("docker.io/library/app", "1").name == "base/app:1"
    assert OneStore(far, renaming).place("quay.example/db", "1").name == "quay.example/db:1"
    assert OneStore(far, Renaming({"": "x"})).place("", "1").name == "1"
    assert OneStore(far).place("docker.io/library/app", "").name == ""


def test_two_images_that_would_get_one_name_are_a_conflict() -> None:
    near, registry = MemoryStore(), Registry()
    put_image(near, b"one", tag="a.example/app:1")
    put_image(near, b"two", tag="b.example/app:1")
    with opened(bundle_of(all_of(near))) as bundle:
        with pytest.raises(Conflict, match=r"would both be called far\.example:5000/app:1"):
            apply(bundle, registry.destination())
        assert registry.state() == {}
        apply(bundle, registry.destination(**{"b.example": "b"}))
    assert len(registry.state()) == 2


def test_a_name_that_a_registry_cannot_have_is_refused_before_anything_is_written() -> None:
    near, registry = MemoryStore(), Registry()
    put_image(near, b"one", tag="a.example/app:1")
    put_image(near, b"two", tag="just-a-tag")
    with opened(bundle_of(all_of(near))) as bundle:
        with pytest.raises(InvalidReference, match="has no repository") as caught:
            apply(bundle, registry.destination())
        assert caught.value.hint == "say which one it shall be in: far.example:5000/REPOSITORY"
        assert registry.state() == {}
        apply(bundle, registry.destination("image"))
    assert list(registry.open("far.example:5000/image").tags()) == ["just-a-tag"]
    put_image(near, b"two", tag="spaces/are:not a tag".replace(" ", "!"))
    with opened(bundle_of(all_of(near))) as bundle, pytest.raises(InvalidReference, match="is not a tag"):
        apply(bundle, registry.destination("other"))


def test_what_is_missing_is_told_before_anything_is_written(near: MemoryStore, tmp_path: Path) -> None:
    have = gather(all_of(near)).inventory
    put_image(near, b"base", b"new", tag="docker.io/library/app:2")
    with opened(bundle_of(all_of(near), have=have)) as bundle:
        far = LayoutStore(tmp_path / "far")
        with pytest.raises(NotFound) as caught:
            apply(bundle, OneStore(far))
    assert not (tmp_path / "far").exists()
    assert caught.value.exit_code == 10
    size = sum(entry.descriptor.size for entry in have.content.values())
    assert f"lacks {len(have.content)} of the {len(have.content)} pieces" in caught.value.message
    assert f"({size} bytes); nothing was written" in caught.value.message
    notes = caught.value.__notes__
    assert f"missing: {Digest.of(b'base')} of docker.io/library/app, quay.example/team/db" in notes


def test_a_long_list_of_what_is_missing_is_cut(tmp_path: Path) -> None:
    near = MemoryStore()
    put_image(near, *(bytes([i]) for i in range(30)), tag="x")
    have = gather(all_of(near)).inventory
    with opened(bundle_of(all_of(near), have=have)) as bundle, pytest.raises(NotFound) as caught:
        apply(bundle, OneStore(MemoryStore()))
    assert len(caught.value.__notes__) == 21
    assert caught.value.__notes__[-1] == "and 12 more"


def test_presumed_content_is_taken_over_from_the_repository_that_was_seen_to_have_it() -> None:
    registry = Registry()
    held = registry.open("far.example:5000/base")
    put_image(held, b"base", tag="1")
    have, faults = inventory_of([holding(held, "far.example:5000/base")])
    assert faults == []
    near = MemoryStore()
    put_image(near, b"base", b"app", tag="docker.io/library/app:1")
    raw = bundle_of(all_of(near), have=have)
    with opened(raw) as bundle:
        assert bundle.inventory.presumed[Digest.of(b"base")].holders == ("far.example:5000/base",)
        apply(bundle, registry.destination())
    app = registry.open("far.example:5000/library/app")
    assert app.mounted == [Digest.of(b"base")]
    assert app.resolve("1") == near.resolve("docker.io/library/app:1")


def test_presumed_manifests_are_copied_between_repositories() -> None:
    registry = Registry()
    near = MemoryStore()
    child = put_image(near, b"base", tag="docker.io/library/app:1")
    with opened(bundle_of(all_of(near))) as bundle:
        apply(bundle, registry.destination())
        before = bundle.inventory
    near.tag(put_index(near, child, put_image(near, b"arm")), "quay.example/fat:1")
    item = Item.called(near, "quay.example/fat:1", "quay.example/fat:1")
    with opened(written(gather([item], have=before))) as bundle:
        assert child.digest in bundle.inventory.presumed
        apply(bundle, registry.destination())
    assert registry.open("far.example:5000/fat").exists(child)


def test_a_sparse_index_arrives_sparse() -> None:
    near, far = MemoryStore(), MemoryStore()
    amd64, arm64 = (
        Descriptor(d.media_type, d.digest, d.size, platform=Platform.parse(name))
        for name in ("linux/amd64", "linux/arm64")
        for d in [put_image(near, name.encode())]
    )
    root = put_index(near, amd64, arm64)
    near.tag(root, "x")
    selection = Selection((Platform.parse("linux/amd64"),), sparse=True)
    with opened(bundle_of(all_of(near), platforms=selection)) as bundle:
        apply(bundle, OneStore(far))
    assert far.resolve("x") == root
    assert far.exists(amd64)
    assert not far.exists(arm64)


class Breaking(MemoryStore):
    """A far side that fails after so many pushes."""

    def __init__(self, pushes: int) -> None:
        super().__init__()
        self.left = pushes

    def push(self, desc: Descriptor, stream: Reader, /) -> None:
        self.left -= 1
        if self.left < 0:
            raise OciError("the disk is full")
        super().push(desc, stream)


def test_an_apply_that_fails_leaves_no_new_name_and_the_next_one_goes_on(near: MemoryStore) -> None:
    raw = bundle_of(all_of(near))
    for pushes in range(len(near._content)):
        far = Breaking(pushes)
        old = put_image(far, tag="docker.io/library/app:1") if pushes > 2 else None
        with opened(raw) as bundle:
            with pytest.raises(OciError, match="the disk is full"):
                apply(bundle, OneStore(far), jobs=1)
            assert far._tags == ({"docker.io/library/app:1": old} if old else {})
            held = len(far._content)
            far.left = 100
            apply(bundle, OneStore(far), jobs=1)
        assert 100 - far.left <= len(near._content) - held + 2
        assert far.tags() == near.tags()


def test_an_inventory_lists_what_is_there_and_whole(near: MemoryStore) -> None:
    whole, faults = inventory_of([holding(near)])
    assert faults == []
    assert whole.content.keys() == near._content.keys()
    near.delete(Descriptor("x", Digest.of(b"base"), 4))
    near._content[Digest.of(b"app")] = b"APP"
    shallow, faults = inventory_of([holding(near)])
    assert near._content.keys() == shallow.content.keys()
    assert [str(fault.node) for fault in faults] == ["docker.io/library/app:1 > layers[0]"]
    deep, faults = inventory_of([holding(near)], deep=True)
    assert Digest.of(b"app") not in deep.content
    assert len(faults) == 2


def test_an_image_whose_manifest_is_lost_is_in_no_inventory(near: MemoryStore) -> None:
    app = near.resolve("docker.io/library/app:1")
    near._content[app.digest] = b"{}"
    found, faults = inventory_of([holding(near)])
    assert [image.name for image in found.images] == ["quay.example/team/db:2"]
    assert [fault.node.descriptor for fault in faults] == [app]


def test_the_images_of_a_layout_include_those_without_a_name(near: MemoryStore, tmp_path: Path) -> None:
    far = LayoutStore(tmp_path / "far")
    with opened(bundle_of(all_of(near))) as bundle:
        apply(bundle, OneStore(far))
    images = images_of(far)
    assert [str(image) for image in images[:2]] == near.tags()
    assert [image.tag for image in images[2:]] == [""]


def test_inventories_of_several_places_are_one(near: MemoryStore) -> None:
    one = gather(all_of(near)[:1]).inventory
    two = gather(all_of(near)[1:]).inventory
    both = Inventory.union([one, two])
    assert both.content.keys() == near._content.keys()
    assert both.content[Digest.of(b"base")].repositories == ("docker.io/library/app", "quay.example/team/db")
    assert both.images == ()


def test_an_image_says_what_it_is_called() -> None:
    root = Descriptor("x", Digest.of(b""), 0)
    assert str(Image("a/b", "1", root)) == "a/b:1"
    assert str(Image("", "1", root)) == "1"
    assert str(Image("a", "", root)) == f"a@{root.digest}"
