"""Blobs that one image of a run brought, and others take over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.layout_content import blob

from ocitool.memory import MemoryStore
from ocitool.mirror.neighbours import Deliveries, Neighbourly

if TYPE_CHECKING:
    from ocitool.content import Source
    from ocitool.model import Descriptor

BLOB = blob(b"shared")


class Repository(MemoryStore):
    """A repository that can mount, or can't, and tells from where it was asked to."""

    def __init__(self, *, mounts: bool) -> None:
        super().__init__()
        self.mounts = mounts
        self.asked: list[Source] = []

    def mount(self, desc: Descriptor, source: Source, /) -> bool:
        self.asked.append(source)
        return self.mounts


@pytest.mark.timeout(60)
def test_what_was_mounted_from_the_source_is_mounted_on_from_there_at_once() -> None:
    deliveries, source = Deliveries(), MemoryStore()
    first, second = Repository(mounts=True), Repository(mounts=True)
    assert Neighbourly(first, "r/a", "r", deliveries).mount(BLOB, source)
    assert Neighbourly(second, "r/b", "r", deliveries).mount(BLOB, source)
    assert (first.asked, second.asked) == ([source], [first])


@pytest.mark.timeout(60)
def test_what_one_image_could_not_bring_the_next_one_does() -> None:
    deliveries, source = Deliveries(), MemoryStore()
    first, second = Repository(mounts=False), Repository(mounts=True)
    one = Neighbourly(first, "r/a", "r", deliveries)
    assert not one.mount(BLOB, source)
    one.begin(BLOB)
    one.lost(BLOB)
    assert Neighbourly(second, "r/b", "r", deliveries).mount(BLOB, source)
    assert second.asked == [source]
