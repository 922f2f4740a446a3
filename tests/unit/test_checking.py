"""Deep check and repair: every fault found by its path, and only what is faulty fetched."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from support.bundle_images import put_image
from support.layout_content import put, put_artifact, put_index

from ocitool import limits, mediatypes
from ocitool.checking import check, repair
from ocitool.content import Source, read_manifest
from ocitool.digest import Digest
from ocitool.errors import NotFound, RegistryError
from ocitool.events import Event, Finished
from ocitool.layout import LayoutStore
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor
from ocitool.platforms import Platform
from ocitool.streams import Reader
from ocitool.transfer import copy


def content(store: MemoryStore) -> Descriptor:
    """An index of two images, one of which has a signature that has a time stamp."""
    amd64, arm64 = (
        Descriptor(d.media_type, d.digest, d.size, platform=Platform.parse(name))
        for name in ("linux/amd64", "linux/arm64")
        for d in [put_image(store, b"base", name.encode())]
    )
    root = put_index(store, amd64, arm64)
    store.tag(root, "app:1")
    signature = put_artifact(store, "signature", subject=arm64, kind="text/signature")
    put_artifact(store, "stamp", subject=signature, kind="text/stamp")
    return root


@pytest.fixture
def origin() -> MemoryStore:
    store = MemoryStore()
    content(store)
    return store


@pytest.fixture
def layout(origin: MemoryStore, tmp_path: Path) -> LayoutStore:
    store = LayoutStore(tmp_path / "layout", verify=True)
    copy(origin, store, "app:1", referrers=True)
    return store


def blob(store: LayoutStore, digest: Digest) -> Path:
    return store.path / "blobs" / digest.algorithm / digest.hex


def roots(store: Source) -> dict[str, Descriptor]:
    return {"app:1": store.resolve("app:1")}


def test_a_place_without_a_fault_is_found_sound(origin: MemoryStore, layout: LayoutStore) -> None:
    for store in (origin, layout):
        report = check(store, roots(store))
        assert report.faults == []
        assert report.sound.keys() == origin._content.keys()


PATHS = {
    "manifests[0] (linux/amd64) > layers[1]": b"linux/amd64",
    "manifests[1] (linux/arm64) > layers[1]": b"linux/arm64",
    "manifests[0] (linux/amd64) > layers[0]": b"base",
    "manifests[1] (linux/arm64) > referrer text/signature > layers[0]": b"signature",
    "manifests[1] (linux/arm64) > referrer text/signature > referrer text/stamp > layers[0]": b"stamp",
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("how", ["flipped", "truncated", "longer", "gone"])
def test_im_03_each_damaged_blob_is_named_by_its_path(layout: LayoutStore, path: str, how: str) -> None:
    raw = PATHS[path]
    file = blob(layout, Digest.of(raw))
    changed = {"flipped": bytes([raw[0] ^ 1]) + raw[1:], "truncated": raw[:-1], "longer": raw + b"\0"}
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(changed[how])
    faults = check(layout, roots(layout)).faults
    assert [str(fault.node) for fault in faults] == [f"app:1 > {path}"]
    assert isinstance(faults[0].error, NotFound) == (how == "gone")


def test_every_node_is_found_and_repaired_by_itself(origin: MemoryStore, layout: LayoutStore) -> None:
    for digest, raw in origin._content.items():
        for wrong in (b"", raw[:-1] + bytes([raw[-1] ^ 1])):
            blob(layout, digest).write_bytes(wrong)
            # What index.json lists is known even where its bytes are damaged.
            start = {str(entry.digest): entry for entry in layout.entries()}
            report = check(layout, start)
            faulty = {fault.node.descriptor.digest for fault in report.faults}
            assert digest in faulty
            counted = Counted(origin)
            assert repair(layout, report, counted) == []
            assert blob(layout, digest).read_bytes() == raw
            assert set(counted.fetched) == {digest}
            assert check(layout, start).faults == []


class Counted:
    """A source that notes what is fetched from it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.fetched: list[Digest] = []

    def resolve(self, ref: str, /) -> Descriptor:
        return self._source.resolve(ref)

    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> AbstractContextManager[Reader]:
        self.fetched.append(desc.digest)
        return self._source.fetch(desc, offset=offset)


def test_what_lies_behind_a_lost_manifest_is_repaired_too(origin: MemoryStore, layout: LayoutStore) -> None:
    root = origin.resolve("app:1")
    children = read_manifest(origin, root).children
    for lost in (root.digest, children[0].digest, Digest.of(b"linux/amd64")):
        blob(layout, lost).unlink()
    report = check(layout, roots(origin))
    assert [str(fault.node) for fault in report.faults] == ["app:1"]
    counted = Counted(origin)
    assert repair(layout, report, counted) == []
    assert set(counted.fetched) == {root.digest, children[0].digest, Digest.of(b"linux/amd64")}
    assert check(layout, roots(origin)).faults == []


def test_what_the_origin_lacks_is_left_and_the_rest_repaired(
    origin: MemoryStore, layout: LayoutStore
) -> None:
    for raw in (b"linux/amd64", b"linux/arm64"):
        blob(layout, Digest.of(raw)).unlink()
    origin.delete(Descriptor("x", Digest.of(b"linux/amd64"), 11))
    events: list[Event] = []
    left = repair(layout, check(layout, roots(layout)), origin, on_event=events.append)
    assert [str(fault.node) for fault in left] == ["app:1 > manifests[0] (linux/amd64) > layers[1]"]
    assert [str(event.descriptor.digest) for event in events if isinstance(event, Finished)] == [
        str(Digest.of(b"linux/arm64"))
    ]


class Stubborn(MemoryStore):
    """A place that keeps damaged content, as registries do."""

    def push(self, desc: Descriptor, stream: Reader, /) -> None:
        if desc.digest not in self._content:
            super().push(desc, stream)


def test_a_place_that_keeps_what_is_damaged_is_told(origin: MemoryStore) -> None:
    place = Stubborn()
    copy(origin, place, "app:1")
    place._content[Digest.of(b"base")] = b"BASE"
    left = repair(place, check(place, roots(place)), origin)
    assert [str(fault.node) for fault in left] == ["app:1 > manifests[0] (linux/amd64) > layers[0]"]


def test_a_shallow_check_asks_and_does_not_read(origin: MemoryStore) -> None:
    origin._content[Digest.of(b"base")] = b"BASE"
    assert check(origin, roots(origin), deep=False).faults == []
    origin.delete(Descriptor("x", Digest.of(b"base"), 4))
    assert len(check(origin, roots(origin), deep=False).faults) == 1


def test_a_sparse_index_is_a_fault_unless_it_is_allowed(origin: MemoryStore) -> None:
    first = read_manifest(origin, origin.resolve("app:1")).children[0]
    origin.delete(first)
    assert [str(f.node) for f in check(origin, roots(origin)).faults] == [
        "app:1 > manifests[0] (linux/amd64)"
    ]
    report = check(origin, roots(origin), sparse=True)
    assert report.faults == []
    assert [node.descriptor for node in report.absent] == [first]


def test_layers_that_may_not_be_distributed_need_not_be_there(origin: MemoryStore) -> None:
    foreign = Descriptor(mediatypes.DOCKER_LAYER_FOREIGN + ".gzip", Digest.of(b"elsewhere"), 9)
    config = put(origin, b"{}", mediatypes.OCI_EMPTY)
    document = {"schemaVersion": 2, "config": config.to_json(), "layers": [foreign.to_json()]}
    origin.tag(put(origin, json.dumps(document).encode(), mediatypes.OCI_MANIFEST), "app:1")
    assert check(origin, roots(origin)).faults == []


def test_rc_22_nesting_without_an_end_is_a_fault_and_no_recursion() -> None:
    store = MemoryStore()
    inner = put_image(store, b"base")
    for _ in range(limits.INDEX_NESTING + 1):
        inner = put_index(store, inner)
    report = check(store, {"deep": inner})
    assert len(report.faults) == 1
    assert "nested deeper" in report.faults[0].error.message


def test_a_manifest_that_is_none_is_a_fault(origin: MemoryStore) -> None:
    bad = Descriptor.of("application/vnd.oci.image.manifest.v1+json", b"[]")
    # A registry may have anything; this store parses what it takes in.
    origin._content[bad.digest] = b"[]"
    report = check(origin, {"bad": bad, **roots(origin)})
    assert [str(fault.node) for fault in report.faults] == ["bad"]


class Down(Counted):
    """A registry that stops answering."""

    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> AbstractContextManager[Reader]:
        raise RegistryError("the registry is down", status=503)


def test_a_place_that_cannot_be_asked_is_no_fault_of_its_content(origin: MemoryStore) -> None:
    with pytest.raises(RegistryError, match="is down"):
        check(Down(origin), roots(origin))
