"""Whatever is wrong with a bundle is found, named by its path, and nothing of it is used."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest
from support.bundle_files import InMemory
from support.bundle_images import all_of, bundle_of, opened, put_image, state
from support.layout_content import put_index

from ocitool import tarballs
from ocitool.bundle import Entry, Image, Inventory, Item, StreamSink
from ocitool.bundle.application import OneStore, apply
from ocitool.bundle.creation import Gathered, gather, write
from ocitool.bundle.inventory import MEDIA_TYPE
from ocitool.bundle.verification import require_sound, verify
from ocitool.digest import Digest
from ocitool.errors import IntegrityError, InvalidContent, OciError, UnsafeContent, Unsupported
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor
from ocitool.strictjson import dumps

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.tag(put_index(store, put_image(store, b"base", b"one"), put_image(store, b"base", b"two")), "app:1")
    return store


@pytest.fixture
def raw(store: MemoryStore) -> bytes:
    return bundle_of(all_of(store))


def place(raw: bytes, content: bytes) -> int:
    """Where a blob's content starts."""
    name = f"blobs/sha256/{Digest.of(content).hex}"
    return next(one.offset for one in tarballs.members(InMemory(raw), "raw") if one.name == name)


def replaced(raw: bytes, at: int, new: bytes) -> bytes:
    return raw[:at] + new + raw[at + len(new) :]


def repacked(
    raw: bytes, change: Callable[[dict[str, bytes]], object], form: int = tarfile.PAX_FORMAT
) -> bytes:
    """The bundle as another tool would pack it after a change."""
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as tar:
        files = {info.name: file.read() for info in tar if (file := tar.extractfile(info))}
    change(files)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1.5
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def refused(raw: bytes, error: type[OciError], match: str) -> None:
    """Refused before anything is written, by every way of reading it."""
    far = MemoryStore()
    with pytest.raises(error, match=match), opened(raw) as bundle:
        apply(bundle, OneStore(far), jobs=1)
    assert state(far) == ({}, {})


def test_a_sound_bundle_has_no_problems(raw: bytes) -> None:
    with opened(raw) as bundle:
        assert verify(bundle) == []
        require_sound(bundle)


def test_a_damaged_layer_is_named_by_its_path(raw: bytes) -> None:
    damaged = replaced(raw, place(raw, b"two"), b"TWO")
    with opened(damaged) as bundle:
        problems = [str(problem) for problem in verify(bundle)]
    assert len(problems) == 1
    assert problems[0].startswith("app:1 > manifests[1] > layers[1]: content of sha256:")
    refused(damaged, IntegrityError, r"is damaged: app:1 > manifests\[1\] > layers\[1\]")


def test_every_piece_of_content_that_is_damaged_is_found(store: MemoryStore, raw: bytes) -> None:
    for content in store._content.values():
        at = place(raw, content)
        with opened(replaced(raw, at, bytes([raw[at] ^ 1]))) as bundle:
            assert verify(bundle), content


def test_all_problems_are_listed_at_once(raw: bytes) -> None:
    damaged = replaced(replaced(raw, place(raw, b"two"), b"TWO"), place(raw, b"one"), b"ONE")
    with opened(damaged) as bundle:
        assert len(verify(bundle)) == 2
    refused(damaged, IntegrityError, "and 1 more fault")


def test_a_damaged_inventory_is_found_at_once(raw: bytes) -> None:
    at = raw.index(b'{"schemaVersion":1')
    refused(replaced(raw, at + 20, b"X"), IntegrityError, "the inventory of the bundle .* is damaged")


def test_a_bundle_that_was_packed_anew_is_read(raw: bytes) -> None:
    def shuffle(files: dict[str, bytes]) -> None:
        for name in list(files):
            files[name] = files.pop(name)
        for name in sorted(files, reverse=True):
            files["./" + name] = files.pop(name)

    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        with opened(repacked(raw, shuffle, form)) as bundle:
            assert verify(bundle) == []


def test_damage_is_found_in_what_only_presumed_manifests_name(store: MemoryStore) -> None:
    """Of an image whose manifest the far side has, and one layer of which it lost."""
    one = Digest.of(b"two")
    there = [entry for digest, entry in gather(all_of(store)).inventory.content.items() if digest != one]
    raw = bundle_of(all_of(store), have=Inventory.of((), there))
    with opened(raw) as bundle:
        assert list(bundle.inventory.content) == [one]
        assert verify(bundle) == []
    with opened(replaced(raw, place(raw, b"two"), b"TWO")) as bundle:
        assert [problem.where for problem in verify(bundle)] == [f"blobs/sha256/{one.hex}"]


def test_what_is_not_in_the_inventory_is_told(raw: bytes) -> None:
    with opened(repacked(raw, lambda files: files.update({"run-me.sh": b"#!"}))) as bundle:
        assert [str(problem) for problem in verify(bundle)] == ["run-me.sh: is not in the inventory"]


def test_what_is_missing_is_told(raw: bytes) -> None:
    def lose(files: dict[str, bytes]) -> None:
        del files[f"blobs/sha256/{Digest.of(b'one').hex}"]

    with opened(repacked(raw, lose)) as bundle:
        assert [problem.where for problem in verify(bundle)] == ["app:1 > manifests[0] > layers[1]"]
    refused(repacked(raw, lose), IntegrityError, "is damaged")


def test_im_06_names_that_the_inventory_does_not_have_are_refused(raw: bytes) -> None:
    def add(files: dict[str, bytes]) -> None:
        index = json.loads(files["index.json"])
        entry = index["manifests"][0]
        named = {**entry, "annotations": {"org.opencontainers.image.ref.name": "docker.io/library/debian:12"}}
        files["index.json"] = json.dumps({**index, "manifests": [entry, named]}).encode()

    refused(repacked(raw, add), IntegrityError, r"index\.json of .* is not what its inventory says")


def test_an_archive_that_is_no_bundle_is_told_apart(raw: bytes) -> None:
    def strip(files: dict[str, bytes]) -> None:
        index = json.loads(files["index.json"])
        del index["annotations"]
        files["index.json"] = json.dumps(index).encode()

    refused(repacked(raw, strip), InvalidContent, "has no inventory")
    refused(repacked(raw, lambda files: files.pop("oci-layout")), InvalidContent, "holds no image layout")
    refused(b"", IntegrityError, "truncated")
    refused(b"\x1f\x8b" + bytes(2000), InvalidContent, "is no tar file")


def test_an_annotation_that_is_no_digest_is_refused(raw: bytes) -> None:
    def confuse(files: dict[str, bytes]) -> None:
        index = json.loads(files["index.json"])
        index["annotations"]["org.ocitool.bundle.inventory"] = "sha256:../../etc/passwd"
        files["index.json"] = json.dumps(index).encode()

    refused(repacked(raw, confuse), InvalidContent, "is not a digest")


@pytest.mark.parametrize("annotations", [["org.ocitool.bundle.inventory"], {"a": 1}, "a"])
def test_annotations_that_are_no_map_of_strings_are_refused(raw: bytes, annotations: object) -> None:
    def confuse(files: dict[str, bytes]) -> None:
        index = json.loads(files["index.json"])
        if isinstance(annotations, dict):
            annotations.update(index["annotations"])
        files["index.json"] = json.dumps({**index, "annotations": annotations}).encode()

    refused(repacked(raw, confuse), InvalidContent, "does not map strings to strings")


def test_a_layout_of_another_version_is_told(raw: bytes) -> None:
    other = repacked(raw, lambda files: files.update({"oci-layout": b'{"imageLayoutVersion":"2.0.0"}'}))
    with opened(other) as bundle:
        assert [problem.where for problem in verify(bundle)] == ["oci-layout"]
    with opened(repacked(raw, lambda files: files.update({"oci-layout": b"{"}))) as bundle:
        assert [problem.where for problem in verify(bundle)] == ["oci-layout"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_im_02_a_link_is_refused(raw: bytes, kind: bytes) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link = tarfile.TarInfo("blobs/sha256/" + "a" * 64)
        link.type, link.linkname = kind, "/etc/shadow"
        tar.addfile(link)
    refused(out.getvalue()[:512] + raw, UnsafeContent, "holds the link")


def test_truncation_anywhere_is_found(raw: bytes) -> None:
    for end in range(0, len(raw), 4096):
        with pytest.raises((IntegrityError, InvalidContent)):
            opened(raw[:end])


def test_an_inventory_that_promises_too_much_is_found(store: MemoryStore) -> None:
    """A bundle whose maker wrote an inventory of something else."""
    honest = gather(all_of(store))
    ghost = Descriptor("application/x", Digest.of(b"ghost"), 5)
    inventory = Inventory.of(honest.inventory.images, [*honest.inventory.content.values()][:2])
    out = io.BytesIO()
    write(Gathered(inventory, honest.origins, honest.documents), StreamSink(out))
    with opened(out.getvalue()) as bundle:
        assert any("is not in" in problem.message for problem in verify(bundle))
    twice = Inventory.of(
        honest.inventory.images,
        honest.inventory.content.values(),
        [Entry(ghost), honest.inventory.content[Digest.of(b"one")]],
    )
    out = io.BytesIO()
    write(Gathered(twice, honest.origins, honest.documents), StreamSink(out))
    with opened(out.getvalue()) as bundle:
        assert [problem.message for problem in verify(bundle)] == ["is in the bundle and presumed elsewhere"]


GOOD = {"schemaVersion": 1, "mediaType": MEDIA_TYPE, "images": [], "content": []}
ROOT = {"mediaType": "application/x", "digest": str(Digest.of(b"x")), "size": 1}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"mediaType": "application/json"}, InvalidContent),
        ({"schemaVersion": 2}, Unsupported),
        ({"images": {}}, InvalidContent),
        ({"images": [{**ROOT, "repository": 1, "tag": ""}]}, InvalidContent),
        ({"images": [{**ROOT, "repository": "", "tag": "\u001b[2J"}]}, InvalidContent),
        (
            {"images": [{**ROOT, "repository": "", "tag": "a"}, {**ROOT, "size": 2, "tag": "a"}]},
            InvalidContent,
        ),
        ({"images": [{**ROOT, "tag": "a", "platforms": [1]}]}, InvalidContent),
        ({"content": [ROOT, ROOT]}, InvalidContent),
        ({"content": [{**ROOT, "digest": "sha256:../../x"}]}, InvalidContent),
        ({"content": [{**ROOT, "size": -1}]}, InvalidContent),
        ({"content": [{**ROOT, "repositories": "a"}]}, InvalidContent),
        ({"presumed": 3}, InvalidContent),
    ],
)
def test_im_01_an_inventory_that_is_none_is_refused(change: dict[str, object], error: type[OciError]) -> None:
    with pytest.raises(error):
        Inventory.parse(dumps({**GOOD, **change}), "inventory")


def test_an_inventory_comes_back_as_it_went(store: MemoryStore) -> None:
    inventory = gather(all_of(store)).inventory
    assert Inventory.parse(inventory.dump(), "x") == inventory
    assert Inventory.parse(inventory.dump()[:-2] + b',"later":1}', "x") == inventory


def test_images_are_ordered_by_name_and_those_without_one_follow(store: MemoryStore) -> None:
    root = store.resolve("app:1")
    images = [Image("", "", root), Image("b", "1", root), Image("a", "2", root), Image("", "z", root)]
    assert [str(image) for image in Inventory.of(images, []).images] == ["z", "a:2", "b:1", f"@{root.digest}"]


def test_an_index_that_names_its_children_wrongly_is_told(store: MemoryStore) -> None:
    child = put_image(store, b"x")
    wrong = Descriptor(child.media_type, child.digest, child.size + 1)
    store.tag(put_index(store, wrong), "bad")
    with pytest.raises(IntegrityError):
        gather([Item.called(store, "bad", "bad")])


def test_limits_hold_for_what_is_read_and_for_what_is_written(
    store: MemoryStore, raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocitool.bundle.source._MAX_MEMBERS", 3)
    refused(raw, UnsafeContent, "holds more than 3 files")
    monkeypatch.undo()
    inventory = gather(all_of(store)).inventory
    document = inventory.dump()
    monkeypatch.setattr("ocitool.bundle.inventory.MAX_BYTES", len(document) - 1)
    with pytest.raises(UnsafeContent, match="would be larger"):
        inventory.dump()
    with pytest.raises(UnsafeContent, match="is larger"):
        Inventory.parse(document, "inventory")
    monkeypatch.setattr("ocitool.bundle.source.MAX_BYTES", len(document) - 1)
    refused(raw, UnsafeContent, "at most")


def test_an_index_that_can_not_be_read_is_told_with_the_bundle_it_is_in(raw: bytes) -> None:
    at = next(one.offset for one in tarballs.members(InMemory(raw), "raw") if one.name == "index.json")
    with pytest.raises(InvalidContent) as caught:
        opened(replaced(raw, at + 20, b"\xff"))
    assert any("the bundle" in note for note in caught.value.__notes__)
    assert caught.value.hint
