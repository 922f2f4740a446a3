"""copy on any graph: everything arrives, once, children first; and a second time nothing moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.stores import RecordingStore, put_image, put_index

from ocitool.digest import Digest
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor, parse_manifest
from ocitool.transfer import copy

# Each image by the numbers of its layers, each index by those of what was made before it.
images = st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=4)
indexes = st.lists(st.lists(st.integers(0, 20), max_size=4), max_size=5)


def build(store: MemoryStore, images: list[list[int]], indexes: list[list[int]]) -> Descriptor:
    made = [put_image(store, layers=[bytes([n]) for n in layers]) for layers in images]
    for entries in indexes:
        made.append(put_index(store, [made[n % len(made)] for n in entries]))
    root = put_index(store, made[-3:])
    store.tag(root, "1")
    return root


def content(store: MemoryStore, desc: Descriptor) -> bytes:
    with store.fetch(desc) as reader:
        return reader.read()


def edges(store: MemoryStore, root: Descriptor) -> dict[Digest, set[Digest]]:
    found: dict[Digest, set[Digest]] = {}
    todo = [root]
    while todo:
        desc = todo.pop()
        if desc.digest not in found:
            below = parse_manifest(content(store, desc), desc).children if desc.is_manifest else ()
            found[desc.digest] = {child.digest for child in below}
            todo += below
    return found


@given(images, indexes, st.integers(1, 5), st.data())
def test_a_copy_is_whole_in_order_and_idempotent(
    images: list[list[int]], indexes: list[list[int]], jobs: int, data: st.DataObject
) -> None:
    src, dst = MemoryStore(), RecordingStore()
    root = build(src, images, indexes)
    below = edges(src, root)
    held = data.draw(st.sets(st.integers(0, 4)))
    if held:
        put_image(dst, layers=[bytes([n]) for n in held])
        dst.calls.clear()
    assert copy(src, dst, "1", jobs=jobs) == root
    assert edges(dst, root) == below
    pushed = dst.asked("push")
    assert len(set(pushed)) == len(pushed)
    assert set(pushed) <= set(map(str, below))
    order = {digest: at for at, digest in enumerate(pushed)}
    for parent, children in below.items():
        for child in children:
            assert order.get(str(child), -1) < order.get(str(parent), len(pushed))
    dst.calls.clear()
    copy(src, dst, "1", jobs=jobs)
    assert dst.calls == [("tag", "1")]
