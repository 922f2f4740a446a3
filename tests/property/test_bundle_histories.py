"""Any history of images, any bundles lost on the way: the far side is a full mirror, or untouched."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundle_images import all_of, opened, put_image, state, written
from support.layout_content import put_index

from ocitool.bundle import Inventory, gather
from ocitool.bundle.application import OneStore, apply
from ocitool.bundle.holding import Holding, images_of, inventory_of
from ocitool.errors import NotFound
from ocitool.graph import survey
from ocitool.layout import LayoutStore
from ocitool.memory import MemoryStore
from ocitool.transfer import copy

if TYPE_CHECKING:
    from ocitool.content import Store
    from ocitool.digest import Digest

LAYERS = [b"base", b"libraries", b"application", b"data", b""]


@dataclass(frozen=True)
class Step:
    """What happens between two bundles, and to the bundle."""

    images: dict[str, tuple[tuple[int, ...], ...]]  # tag: one platform or several, each a list of layers
    signed: frozenset[str]
    removed: frozenset[str]
    have: str
    lost: bool
    decay: int | None  # which piece of the far side's content is lost before the bundle arrives


layer_lists = st.lists(st.integers(0, len(LAYERS) - 1), min_size=1, max_size=3).map(tuple)
steps = st.builds(
    Step,
    images=st.dictionaries(
        st.sampled_from(["app:1", "app:2", "host.example/db:1"]),
        st.lists(layer_lists, min_size=1, max_size=2, unique=True).map(tuple),
        max_size=2,
    ),
    signed=st.frozensets(st.sampled_from(["app:1", "host.example/db:1"])),
    removed=st.frozensets(st.sampled_from(["app:1", "app:2"]), max_size=1),
    have=st.sampled_from(["nothing", "inventory", "last bundle"]),
    lost=st.booleans(),
    decay=st.none() | st.integers(0, 20),
)


class Place(Protocol):
    """The far side, and the full mirror that it is compared with."""

    @property
    def far(self) -> Store: ...

    @property
    def mirror(self) -> Store: ...

    def state(self, store: Store) -> tuple[dict[Digest, bytes], object]:
        """Every byte of content, and the names."""
        ...

    def decay(self, which: int) -> None:
        """Lose some content on the far side, and make the mirror the same."""
        ...


class InMemory:
    def __init__(self) -> None:
        self.far = MemoryStore()
        self.mirror = MemoryStore()

    def state(self, store: Store) -> tuple[dict[Digest, bytes], object]:
        assert isinstance(store, MemoryStore)
        return state(store)

    def decay(self, which: int) -> None:
        descs = list(self.far._descriptors.values())
        if descs:
            self.far.delete(descs[which % len(descs)])
        self.mirror = MemoryStore()
        self.mirror._content, self.mirror._tags = state(self.far)
        self.mirror._descriptors = dict(self.far._descriptors)


class OnDisk:
    def __init__(self, directory: Path) -> None:
        self.far = LayoutStore(directory / "far")
        self.mirror = LayoutStore(directory / "mirror")

    def state(self, store: Store) -> tuple[dict[Digest, bytes], object]:
        assert isinstance(store, LayoutStore)
        if not store.path.exists():
            return {}, []
        content = {}
        for digest, _ in store.blobs:
            with store.blobs.open(digest) as blob:
                content[digest] = blob.read()
        names = [
            (entry.digest, entry.size, entry.media_type, dict(entry.annotations)) for entry in store.entries()
        ]
        return content, sorted(names, key=str)

    def decay(self, which: int) -> None:
        if self.far.path.exists() and (digests := [digest for digest, _ in self.far.blobs]):
            self.far.blobs.remove(digests[which % len(digests)])
        self.far.close()
        self.mirror.close()
        shutil.rmtree(self.mirror.path, ignore_errors=True)
        if self.far.path.exists():
            shutil.copytree(self.far.path, self.mirror.path)
        self.far, self.mirror = LayoutStore(self.far.path), LayoutStore(self.mirror.path)


class World:
    """The near side, the far side, a full mirror of what arrived, and the last bundle that was made."""

    def __init__(self, place: Place) -> None:
        self.near = MemoryStore()
        self.place = place
        self.last = Inventory()

    def change(self, step: Step) -> None:
        for tag, platforms in step.images.items():
            images = [put_image(self.near, *(LAYERS[i] for i in layers)) for layers in platforms]
            root = images[0] if len(images) == 1 else put_index(self.near, *images)
            self.near.tag(root, tag)
            if tag in step.signed:
                put_image(self.near, b"signature of " + tag.encode(), subject=root, kind="signature")
        for tag in step.removed & set(self.near.tags()):
            self.near.untag(tag)

    def have(self, how: str) -> Inventory:
        if how == "inventory" and self.state()[0]:
            return inventory_of([Holding(self.place.far, images_of(self.place.far))])[0]
        return self.last if how == "last bundle" else Inventory()

    def state(self) -> tuple[dict[Digest, bytes], object]:
        return self.place.state(self.place.far)

    def reached(self) -> set[Digest]:
        found: set[Digest] = set()
        for tag in self.near.tags():
            graph = survey(self.near, self.near.resolve(tag), referrers=True)
            found |= graph.leaves.keys() | graph.manifests.keys()
        return found

    def follow(self, history: list[Step]) -> None:
        """Live through a history; every bundle that arrives makes a full mirror or changes nothing."""
        for step in history:
            self.change(step)
            have = self.have(step.have)
            gathered = gather(all_of(self.near), have=have)
            raw = written(gathered)
            self.last = gathered.inventory
            held = have.content.keys() | have.presumed.keys()
            assert gathered.inventory.content.keys() == self.reached() - held
            assert gathered.inventory.presumed.keys() == self.reached() & held
            if step.decay is not None:
                self.place.decay(step.decay)
            if not step.lost:
                self.arrive(raw, gathered.inventory.presumed.keys() - self.state()[0].keys())

    def arrive(self, raw: bytes, lacking: set[Digest]) -> None:
        before, far = self.state(), OneStore(self.place.far)
        with opened(raw) as bundle:
            if lacking:
                with pytest.raises(NotFound, match=f"lacks {len(lacking)} of"):
                    apply(bundle, far, jobs=1)
                assert self.state() == before
                return
            apply(bundle, far, jobs=1)
            for tag in self.near.tags():
                copy(self.near, self.place.mirror, tag, referrers=True)
            assert self.state() == self.place.state(self.place.mirror)
            assert apply(bundle, far, jobs=1) == {}
            assert self.state() == self.place.state(self.place.mirror)


@settings(max_examples=150)
@given(history=st.lists(steps, min_size=1, max_size=6))
def test_apply_makes_a_full_mirror_or_changes_nothing(history: list[Step]) -> None:
    World(InMemory()).follow(history)


@settings(max_examples=20)
@given(history=st.lists(steps, min_size=1, max_size=4))
def test_apply_makes_a_full_mirror_of_a_layout_or_changes_nothing(history: list[Step]) -> None:
    with tempfile.TemporaryDirectory(prefix="histories-") as directory:
        place = OnDisk(Path(directory))
        World(place).follow(history)
        place.far.close()
        place.mirror.close()
