"""What stands in a bundle: the same bytes every time, each blob once, and a layout for other tools."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest
from support.bundle_images import all_of, bundle_of, opened, put_image, written
from support.layout_content import put, put_index

from ocitool import mediatypes
from ocitool.bundle import BundleSource, FileSink, Inventory, Item, StreamSink, gather, write
from ocitool.bundle.inventory import split
from ocitool.bundle.verification import verify
from ocitool.bundle.writer import BundleWriter, Plan
from ocitool.digest import Digest
from ocitool.errors import Conflict, IntegrityError, InvalidContent, InvalidReference, NotFound, RegistryError
from ocitool.events import Event, Finished, Planned
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor
from ocitool.platforms import Platform
from ocitool.selection import Selection
from ocitool.transfer import copy

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from ocitool.streams import Reader

AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")


@pytest.fixture
def store() -> MemoryStore:
    """Two images that share a layer, one of them signed."""
    store = MemoryStore()
    one = put_image(store, b"base", b"one", tag="host.example/app:1")
    put_image(store, b"base", b"two", tag="host.example/app:2")
    put_image(store, b"signature", subject=one, kind="text/signature")
    return store


def platforms(store: MemoryStore) -> Descriptor:
    entries = []
    for platform in (AMD64, ARM64):
        desc = put_image(store, b"for " + str(platform).encode())
        entries.append(Descriptor(desc.media_type, desc.digest, desc.size, platform=platform))
    return put_index(store, *entries)


def members(raw: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as tar:
        files = [(info.name, tar.extractfile(info)) for info in tar]
    return {name: file.read() for name, file in files if file}


def test_a_name_is_split_where_a_tag_begins_and_nowhere_else() -> None:
    assert split("host.example:5000/app:1") == ("host.example:5000/app", "1")
    for name in ("host.example:5000/app", "1", "app:" + "x" * 129):
        assert split(name) == ("", name)


def test_what_the_far_side_has_counts_as_there_and_the_rest_once_it_is_whole(store: MemoryStore) -> None:
    have = gather([Item.called(store, "host.example/app:1", "host.example/app:1")]).inventory
    gathered = gather(all_of(store), have=have)
    writer = BundleWriter(Plan(gathered.inventory), StreamSink(io.BytesIO()))
    presumed = next(iter(gathered.inventory.presumed.values())).descriptor
    new = next(iter(gathered.inventory.content.values())).descriptor
    assert writer.exists(presumed)
    assert not writer.exists(new)
    with writer.resume(new) as member, store.fetch(new) as stream:
        assert member is not None
        assert not writer.exists(new)
        member.push(stream)
    assert writer.exists(new)


class Breaks(io.BytesIO):
    """A download that is cut off."""

    def read(self, n: int | None = -1, /) -> bytes:
        if data := super().read(n):
            return data
        raise RegistryError("cut off", temporary=True)


def test_f_01_what_came_before_a_download_broke_off_is_kept(store: MemoryStore, tmp_path: Path) -> None:
    gathered = gather(all_of(store))
    new = next(entry.descriptor for entry in gathered.inventory.content.values())
    with store.fetch(new) as stream:
        content = stream.read()
    with FileSink(tmp_path / "b.tar") as sink:
        writer = BundleWriter(Plan(gathered.inventory), sink)
        with pytest.raises(RegistryError):
            writer.push(new, Breaks(content[:100]))
        with writer.resume(new) as member:
            assert member is not None
            assert member.offset == 100
            member.push(io.BytesIO(content[100:]))
        with writer.resume(new) as member:
            assert member is None
    assert content in (tmp_path / "b.tar").read_bytes()


def test_content_that_two_images_name_with_two_sizes_is_refused(store: MemoryStore) -> None:
    layer = Descriptor(mediatypes.OCI_LAYER, Digest.of(b"base"), len(b"base") + 1)
    document = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": put(store, b"{}", mediatypes.OCI_EMPTY).to_json(),
        "layers": [layer.to_json()],
    }
    store.tag(put(store, json.dumps(document).encode(), mediatypes.OCI_MANIFEST), "host.example/app:3")
    with pytest.raises(InvalidContent, match="is named with two sizes, 4 and 5 bytes"):
        gather(all_of(store))


def test_a_damaged_signature_does_not_hide_the_others(store: MemoryStore) -> None:
    one = store.resolve("host.example/app:1")
    for text in (b"more", b"most"):
        put_image(store, text, subject=one, kind="text/more")
    raw = bytearray(bundle_of(all_of(store)))
    with opened(bytes(raw)) as bundle:
        assert len(bundle.referrers(one)) == 3
        bad = bundle.referrers(one, "text/more")[0]
        member = bundle.members[f"blobs/sha256/{bad.digest.hex}"]
    raw[member.offset : member.offset + 8] = b"damaged!"
    with opened(bytes(raw)) as bundle:
        assert bad not in bundle.referrers(one)
        assert len(bundle.referrers(one)) == 2


def test_it_is_a_layout_with_every_blob_once(store: MemoryStore) -> None:
    found = members(bundle_of(all_of(store)))
    assert json.loads(found["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads(found["index.json"])
    names = [
        entry.get("annotations", {}).get("org.opencontainers.image.ref.name") for entry in index["manifests"]
    ]
    assert names == ["host.example/app:1", "host.example/app:2", None]
    blobs = {name: content for name, content in found.items() if name.startswith("blobs/")}
    for name, content in blobs.items():
        assert name == f"blobs/sha256/{Digest.of(content).hex}"
    assert sum(content == b"base" for content in blobs.values()) == 1
    assert index["annotations"]["org.ocitool.bundle.inventory"] in {
        str(Digest.of(blob)) for blob in blobs.values()
    }


def test_the_bytes_depend_on_the_content_alone(store: MemoryStore, tmp_path: Path) -> None:
    items = all_of(store)
    raw = bundle_of(items)
    assert bundle_of(reversed(items)) == raw
    copied = MemoryStore()
    for tag in store.tags():
        copy(store, copied, tag, referrers=True)
    write(gather(all_of(copied), jobs=1), FileSink(tmp_path / "b.tar"), jobs=7)
    assert (tmp_path / "b.tar").read_bytes() == raw


def test_members_stand_in_their_order_with_plain_headers(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    raw = bundle_of(all_of(store))
    with opened(raw) as bundle:
        manifests = [d for d, entry in bundle.inventory.content.items() if entry.descriptor.is_manifest]
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as tar:
        infos = list(tar)
    assert [info.name for info in infos[:2]] == ["oci-layout", "index.json"]
    assert [info.name for info in infos[3:6]] == [f"blobs/sha256/{d.hex}" for d in sorted(manifests)]
    blobs = [info.name for info in infos[6:]]
    assert blobs == sorted(blobs)
    assert {(info.uid, info.gid, info.mode, info.mtime) for info in infos} == {(0, 0, 0o644, 1700000000)}
    assert not any(info.pax_headers for info in infos)


@pytest.mark.parametrize("text", ["yesterday", "-1", "1e9", "", "99999999999"])
def test_a_time_that_is_none_is_refused(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with pytest.raises(InvalidReference, match="SOURCE_DATE_EPOCH"):
        bundle_of(all_of(store))


def test_content_of_any_registered_algorithm_is_carried() -> None:
    store = MemoryStore()
    layer = Descriptor(mediatypes.OCI_LAYER, Digest.of(b"layer", "sha512"), 5)
    store.push(layer, io.BytesIO(b"layer"))
    config = put(store, b"{}", mediatypes.OCI_EMPTY)
    document = {"schemaVersion": 2, "config": config.to_json(), "layers": [layer.to_json()]}
    store.tag(put(store, json.dumps(document).encode(), mediatypes.OCI_MANIFEST), "x")
    raw = bundle_of(all_of(store))
    assert members(raw)[f"blobs/sha512/{layer.digest.hex}"] == b"layer"
    with opened(raw) as bundle:
        assert verify(bundle) == []


def test_what_was_written_is_read_back(store: MemoryStore) -> None:
    with opened(bundle_of(all_of(store))) as bundle:
        assert bundle.tags() == store.tags()
        back = MemoryStore()
        for tag in bundle.tags():
            assert copy(bundle, back, tag, referrers=True) == store.resolve(tag)
        assert back._content == store._content
        one = store.resolve("host.example/app:1")
        assert [d.artifact_type for d in bundle.referrers(one)] == ["text/signature"]
        assert list(bundle.referrers(one, "text/other")) == []
        assert bundle.resolve(str(one.digest)) == one
        with pytest.raises(InvalidReference, match="holds 2 images"):
            bundle.resolve("")
        with pytest.raises(NotFound):
            bundle.resolve("host.example/app:3")
        with bundle.fetch(one, offset=10) as reader:
            assert reader.read() == store._content[one.digest][10:]


def test_what_the_far_side_has_is_left_out_and_recorded(store: MemoryStore) -> None:
    first = gather([Item.called(store, "host.example/app:1", "host.example/app:1")])
    rest = gather(all_of(store), have=first.inventory)
    assert (
        rest.inventory.content.keys() | rest.inventory.presumed.keys()
        == gather(all_of(store)).inventory.content.keys()
    )
    assert rest.inventory.presumed.keys() == first.inventory.content.keys()
    base = rest.inventory.presumed[Digest.of(b"base")]
    assert (base.repositories, base.holders) == (("host.example/app",), ("host.example/app",))
    raw = written(rest)
    assert b"two" in members(raw).values()
    assert b"base" not in members(raw).values()
    with opened(raw) as bundle:
        assert bundle.inventory == rest.inventory
        assert verify(bundle) == []


def test_what_nobody_needs_is_not_presumed(store: MemoryStore) -> None:
    have = gather(all_of(store)).inventory
    other = MemoryStore()
    put_image(other, b"three", b"other", b"layers", tag="other")
    assert gather(all_of(other), have=have).inventory.presumed == {}


def test_a_platform_becomes_a_new_index_and_a_sparse_one_keeps_its_digest() -> None:
    store = MemoryStore()
    root = platforms(store)
    store.tag(root, "x")
    smaller = gather(all_of(store), platforms=Selection((AMD64,)))
    assert smaller.inventory.images[0].root != root
    sparse = gather(all_of(store), platforms=Selection((AMD64,), sparse=True))
    assert sparse.inventory.images[0].root == root
    assert sparse.inventory.images[0].platforms == (AMD64,)
    for gathered in (smaller, sparse):
        with opened(written(gathered)) as bundle:
            assert verify(bundle) == []
            assert len(bundle.inventory.content) == 4


def test_one_name_for_two_images_is_a_conflict(store: MemoryStore) -> None:
    one, two = all_of(store)
    with pytest.raises(Conflict, match="stands for two images"):
        gather([one, Item(store, two.ref, one.repository, one.tag)])
    assert len(gather([one, one]).inventory.images) == 2  # the image and its signature


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "ä", "x" * 600])
def test_im_06_a_name_that_could_mislead_is_refused(store: MemoryStore, name: str) -> None:
    with pytest.raises(InvalidReference, match="can't be named"):
        Item.called(store, "host.example/app:1", name)


class Flaky:
    """A source whose connection is lost in the middle of each blob, a few times."""

    def __init__(self, store: MemoryStore, losses: int, *, spoil: bool = False) -> None:
        self.store = store
        self.losses = losses
        self.spoil = spoil
        self.offsets: list[int] = []

    def resolve(self, ref: str, /) -> Descriptor:
        return self.store.resolve(ref)

    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> AbstractContextManager[Reader]:
        from contextlib import nullcontext

        content = self.store._content[desc.digest]
        if desc.size < 1000 or not self.losses:
            return nullcontext(io.BytesIO(content[offset:]))
        self.losses -= 1
        self.offsets.append(offset)
        if self.spoil:
            return nullcontext(io.BytesIO(bytes(desc.size - offset)))
        return nullcontext(_Breaks(content[offset : offset + 700]))


class _Breaks:
    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def read(self, n: int = -1, /) -> bytes:
        data = self._content.read(n)
        if not data:
            raise RegistryError("the line went dead", temporary=True)
        return data


def large(store: MemoryStore) -> bytes:
    content = bytes(range(256)) * 12
    put_image(store, content, tag="x")
    return content


def test_a_lost_connection_is_taken_up_where_it_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocitool.transfer._RETRY_DELAY", 0)
    store = MemoryStore()
    large(store)
    flaky = Flaky(store, 2)
    assert bundle_of([Item.called(flaky, "x", "x")]) == bundle_of(all_of(store))
    assert flaky.offsets == [0, 700]


def test_wrong_bytes_are_fetched_again_into_a_file_but_end_a_stream(tmp_path: Path) -> None:
    store = MemoryStore()
    large(store)
    right = bundle_of(all_of(store))
    write(gather([Item.called(Flaky(store, 1, spoil=True), "x", "x")]), FileSink(tmp_path / "b.tar"))
    assert (tmp_path / "b.tar").read_bytes() == right
    with pytest.raises(IntegrityError):
        bundle_of([Item.called(Flaky(store, 1, spoil=True), "x", "x")])


def test_a_source_that_lies_leaves_no_file(tmp_path: Path) -> None:
    store = MemoryStore()
    large(store)
    with pytest.raises(IntegrityError):
        write(gather([Item.called(Flaky(store, 9, spoil=True), "x", "x")]), FileSink(tmp_path / "b.tar"))
    assert list(tmp_path.iterdir()) == []


def test_listeners_are_told_what_will_move_and_what_has(store: MemoryStore) -> None:
    events: list[Event] = []
    gathered = gather(all_of(store))
    written(gathered, on_event=events.append)
    planned = [event for event in events if isinstance(event, Planned)]
    assert len(planned) == 1
    finished = {event.descriptor for event in events if isinstance(event, Finished)}
    assert (
        finished == set(planned[0].descriptors) == {e.descriptor for e in gathered.inventory.content.values()}
    )


def test_an_empty_bundle_is_one(tmp_path: Path) -> None:
    write(gather([]), FileSink(tmp_path / "b.tar"))
    with BundleSource.open(tmp_path / "b.tar") as bundle:
        assert bundle.inventory == Inventory.of([], [])
        assert verify(bundle) == []


def test_content_that_a_descriptor_carries_itself_is_carried_along() -> None:
    store = MemoryStore()
    layer = put(store, b"layer", mediatypes.OCI_LAYER)
    config = {**Descriptor.of(mediatypes.OCI_EMPTY, b"{}").to_json(), "data": "e30="}
    document = {"schemaVersion": 2, "config": config, "layers": [layer.to_json()]}
    store.tag(put(store, json.dumps(document).encode(), mediatypes.OCI_MANIFEST), "x")
    assert Digest.of(b"{}") not in store._content
    assert b"{}" in members(bundle_of(all_of(store))).values()
