"""Whatever bytes pose as a bundle: they are refused with one of our errors, or they are what they say."""

from __future__ import annotations

import functools
import io

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.bundle_files import InMemory
from support.bundle_images import all_of, bundle_of, opened, put_image, state
from support.layout_content import put_index

from ocitool import tarballs
from ocitool.bundle import BundleFile, Inventory
from ocitool.bundle.application import OneStore, apply
from ocitool.errors import InvalidContent, OciError
from ocitool.memory import MemoryStore


def near() -> MemoryStore:
    store = MemoryStore()
    one = put_image(store, b"base", b"one")
    store.tag(put_index(store, one, put_image(store, b"base", b"two")), "app:1")
    put_image(store, b"signature", subject=one, kind="text/signature")
    return store


@functools.cache
def sound() -> bytes:
    return bundle_of(all_of(near()))


def arrives_whole_or_not_at_all(raw: bytes) -> None:
    far = MemoryStore()
    try:
        with opened(raw) as bundle:
            apply(bundle, OneStore(far), jobs=1)
    except OciError:
        assert state(far) == ({}, {})
    else:
        assert far._content.keys() <= near()._content.keys()
        for tag, root in far._tags.items():
            assert near().resolve(tag) == root


@settings(max_examples=150)
@given(raw=st.binary(max_size=3000))
@example(raw=b"")
@example(raw=bytes(1024))
def test_any_bytes(raw: bytes) -> None:
    arrives_whole_or_not_at_all(raw)


@settings(max_examples=300)
@given(data=st.data())
def test_any_bytes_changed(data: st.DataObject) -> None:
    raw = bytearray(sound())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        new = data.draw(st.binary(min_size=1, max_size=8))
        raw[at : at + len(new)] = new
    arrives_whole_or_not_at_all(bytes(raw))


@settings(max_examples=150)
@given(data=st.data())
def test_any_blocks_lost_doubled_or_swapped(data: st.DataObject) -> None:
    raw = sound()
    blocks = [raw[at : at + 512] for at in range(0, len(raw), 512)]
    at = data.draw(st.integers(0, len(blocks) - 1))
    match data.draw(st.sampled_from(["lost", "doubled", "swapped", "cut"])):
        case "lost":
            del blocks[at]
        case "doubled":
            blocks.insert(at, blocks[at])
        case "swapped":
            other = data.draw(st.integers(0, len(blocks) - 1))
            blocks[at], blocks[other] = blocks[other], blocks[at]
        case _:
            del blocks[at:]
    arrives_whole_or_not_at_all(b"".join(blocks))


@settings(max_examples=200)
@given(raw=st.binary(max_size=600) | st.text(max_size=200).map(str.encode))
def test_any_inventory(raw: bytes) -> None:
    try:
        found = Inventory.parse(raw, "inventory")
    except OciError:
        return
    assert Inventory.parse(found.dump(), "inventory") == found


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=140)


@settings(max_examples=200)
@given(files=st.dictionaries(names, st.binary(max_size=1200), max_size=5))
def test_any_files_come_back_from_a_tar_file(files: dict[str, bytes]) -> None:
    raw = b"".join(
        tarballs.header(name, len(content)) + content + bytes(tarballs.padding(len(content)))
        for name, content in files.items()
    )
    try:
        found = list(tarballs.members(InMemory(raw + tarballs.END), "t.tar"))
    except InvalidContent:
        # A name with an empty component, or one that leaves the archive, or two that are one.
        plain = [name.removeprefix("./").split("/") for name in files]
        assert any(part in {"", ".", ".."} for parts in plain for part in parts) or len(
            {tuple(parts) for parts in plain}
        ) < len(plain)
        return
    assert {one.name: raw[one.offset : one.offset + one.size] for one in found} == {
        name.removeprefix("./"): content for name, content in files.items()
    }


@settings(max_examples=100)
@given(
    raw=st.binary(min_size=1, max_size=500),
    offset=st.integers(0, 600),
    count=st.integers(0, 600),
)
def test_reads_of_a_spooled_file_are_slices(raw: bytes, offset: int, count: int) -> None:
    with BundleFile.spooled(io.BytesIO(raw)) as file:
        assert file.read_at(offset, count) == raw[offset : offset + count]
