"""Any history of images, any bundles lost on the way: the far side is a full mirror, or untouched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundle_images import all_of, holding, opened, put_image, state, written
from support.layout_content import put_index

from ocitool.bundle import Inventory, gather
from ocitool.bundle.application import OneStore, apply
from ocitool.bundle.holding import inventory_of
from ocitool.errors import NotFound
from ocitool.memory import MemoryStore
from ocitool.transfer import copy, survey

if TYPE_CHECKING:
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


class World:
    """The near side, the far side, a full mirror of what arrived, and the last bundle that was made."""

    def __init__(self) -> None:
        self.near, self.far, self.mirror = MemoryStore(), MemoryStore(), MemoryStore()
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
        if how == "inventory":
            return inventory_of([holding(self.far)])[0]
        return self.last if how == "last bundle" else Inventory()

    def reached(self) -> set[Digest]:
        found: set[Digest] = set()
        for tag in self.near.tags():
            graph = survey(self.near, self.near.resolve(tag), referrers=True)
            found |= graph.leaves.keys() | graph.manifests.keys()
        return found

    def decay(self, which: int) -> None:
        descs = list(self.far._descriptors.values())
        if descs:
            self.far.delete(descs[which % len(descs)])

    def mirror_all(self) -> None:
        for tag in self.near.tags():
            copy(self.near, self.mirror, tag, referrers=True)


@settings(max_examples=150)
@given(history=st.lists(steps, min_size=1, max_size=6))
def test_apply_makes_a_full_mirror_or_changes_nothing(history: list[Step]) -> None:
    world = World()
    for step in history:
        world.change(step)
        have = world.have(step.have)
        gathered = gather(all_of(world.near), have=have)
        raw = written(gathered)
        world.last = gathered.inventory
        held = have.content.keys() | have.presumed.keys()
        assert gathered.inventory.content.keys() == world.reached() - held
        assert gathered.inventory.presumed.keys() == world.reached() & held
        if step.lost:
            continue
        if step.decay is not None:
            world.decay(step.decay)
            world.mirror = MemoryStore()
            world.mirror._content, world.mirror._tags = state(world.far)
            world.mirror._descriptors = dict(world.far._descriptors)
        before = state(world.far)
        lacking = gathered.inventory.presumed.keys() - before[0].keys()
        with opened(raw) as bundle:
            if lacking:
                with pytest.raises(NotFound, match=f"lacks {len(lacking)} of"):
                    apply(bundle, OneStore(world.far), jobs=1)
                assert state(world.far) == before
                continue
            apply(bundle, OneStore(world.far), jobs=1)
            world.mirror_all()
            assert state(world.far) == state(world.mirror)
            assert apply(bundle, OneStore(world.far), jobs=1) == {}
            assert state(world.far) == state(world.mirror)
