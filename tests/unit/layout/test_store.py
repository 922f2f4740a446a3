"""Names, roots and errors of a layout."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.layout_content import blob, put, put_artifact, put_index

from ocitool import mediatypes
from ocitool.digest import Digest
from ocitool.errors import (
    Conflict,
    IntegrityError,
    InvalidContent,
    InvalidReference,
    NotFound,
    OciError,
    UnsafeContent,
    Unsupported,
)
from ocitool.events import Finished
from ocitool.layout import LayoutStore
from ocitool.layout.store import initialise
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor
from ocitool.transfer import copy

REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """A layout that is not there yet."""
    return LayoutStore(tmp_path / "layout")


def index_json(store: LayoutStore) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((store.path / "index.json").read_bytes())
    return document


def rewrite(store: LayoutStore, **changes: Any) -> None:
    (store.path / "index.json").write_text(json.dumps({**index_json(store), **changes}))


def blob_path(store: LayoutStore, desc: Descriptor) -> Path:
    return store.path / "blobs" / desc.digest.algorithm / desc.digest.hex


def test_opening_and_asking_write_nothing(store: LayoutStore) -> None:
    assert not store.exists(blob(b"hello"))
    with pytest.raises(NotFound, match="no image layout"):
        store.resolve("12")
    with pytest.raises(NotFound, match="no image layout"):
        store.entries()
    assert not store.path.exists()


def test_the_first_push_makes_a_layout(store: LayoutStore) -> None:
    put(store, b"hello")
    assert json.loads((store.path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert index_json(store) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [],
    }
    assert store.entries() == []


def test_an_empty_layout_has_all_that_the_specification_demands(tmp_path: Path) -> None:
    initialise(tmp_path / "layout")
    assert (tmp_path / "layout" / "blobs").is_dir()
    assert LayoutStore(tmp_path / "layout", read_only=True).entries() == []


def test_without_create_nothing_is_made(tmp_path: Path) -> None:
    store = LayoutStore(tmp_path / "layout", create=False)
    with pytest.raises(NotFound, match="no image layout"):
        put(store, b"hello")
    assert not store.path.exists()


def test_a_directory_that_holds_something_else_is_not_made_a_layout(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    store = LayoutStore(tmp_path)
    assert not store.exists(blob(b"hello"))
    with pytest.raises(Conflict, match="neither empty nor an image layout"):
        put(store, b"hello")
    source = MemoryStore()
    source.tag(put_artifact(source, "one"), "a")
    with pytest.raises(Conflict):
        copy(source, store, "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.tex"]


def test_a_file_is_no_layout(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(b"x")
    store = LayoutStore(path)
    assert not store.exists(blob(b"hello"))
    for act in (store.entries, lambda: put(store, b"hello")):
        with pytest.raises(Conflict, match="is a file") as caught:
            act()
        assert "oci-archive" in caught.value.hint


def test_a_forked_process_does_not_end_the_lease(store: LayoutStore) -> None:
    """In a process of its own, because forking where other threads run is another story."""
    code = (
        "import io, os, sys; from ocitool.digest import Digest; from ocitool.layout import LayoutStore\n"
        "from ocitool.layout.gc import collect; from ocitool.model import Descriptor\n"
        "store, desc = LayoutStore(sys.argv[1]), Descriptor.of('a/b', b'hello')\n"
        "store.push(desc, io.BytesIO(b'hello'))\n"
        "child = os.fork()\n"
        "if not child: store.close(); os._exit(0)\n"
        "os.waitpid(child, 0); collect(LayoutStore(sys.argv[1])); assert store.exists(desc)"
    )
    subprocess.run([sys.executable, "-c", code, store.path], check=True)


def test_an_empty_directory_becomes_a_layout(tmp_path: Path) -> None:
    put(LayoutStore(tmp_path), b"hello")
    assert LayoutStore(tmp_path).entries() == []


def test_read_only_refuses_every_write(store: LayoutStore) -> None:
    desc = put_artifact(store, "one")
    store.tag(desc, "a")
    store.close()
    before = sorted(store.path.rglob("*"))
    reader = LayoutStore(store.path, read_only=True)
    assert reader.exists(desc)
    assert reader.resolve("a") == desc
    for write in (
        lambda: put(reader, b"x"),
        lambda: reader.tag(desc, "b"),
        lambda: reader.untag("a"),
        lambda: reader.delete(desc),
    ):
        with pytest.raises(Conflict, match="for reading only"):
            write()
    assert sorted(store.path.rglob("*")) == before


def test_a_tag_is_written_as_the_name_of_the_reference_only(store: LayoutStore) -> None:
    store.tag(put_artifact(store, "one"), "12")
    assert [entry.annotations for entry in store.entries()] == [{REF_NAME: "12"}]


def test_a_full_reference_is_written_under_both_names(store: LayoutStore) -> None:
    name = "docker.io/library/debian:12"
    store.tag(put_artifact(store, "one"), name)
    assert [entry.annotations for entry in store.entries()] == [{REF_NAME: name, IMAGE_NAME: name}]
    assert store.tags() == [name]


def test_the_own_digest_keeps_a_root_without_a_name_once(store: LayoutStore) -> None:
    desc = put_artifact(store, "one")
    for _ in range(2):
        store.tag(desc, str(desc.digest))
    assert [entry.annotations for entry in store.entries()] == [{}]
    store.tag(desc, "a")
    store.untag("a")
    assert [entry.annotations for entry in store.entries()] == [{}]


def test_another_digest_is_no_name(store: LayoutStore) -> None:
    desc = put_artifact(store, "one")
    with pytest.raises(InvalidReference):
        store.tag(desc, str(Digest.of(b"other")))


@pytest.mark.parametrize("name", ["two\nlines", "bell\a", "\x1b[31m", "with space", "x" * 513])
def test_names_that_mislead_a_terminal_are_refused(store: LayoutStore, name: str) -> None:
    desc = put_artifact(store, "one")
    with pytest.raises(InvalidReference):
        store.tag(desc, name)


def test_names_that_an_image_brings_along_are_dropped(store: LayoutStore) -> None:
    desc = put_artifact(store, "one")
    foreign = Descriptor(
        desc.media_type,
        desc.digest,
        desc.size,
        annotations={REF_NAME: "latest", IMAGE_NAME: "x/y:z", "k": "v"},
    )
    store.tag(foreign, "mine")
    assert [entry.annotations for entry in store.entries()] == [{REF_NAME: "mine", "k": "v"}]


def test_im_06_a_manifest_does_not_name_itself_by_its_annotations(store: LayoutStore) -> None:
    """A referrer becomes a root by itself; what its maker wrote in it must not become its name."""
    trusted = put_artifact(store, "trusted")
    store.tag(trusted, "latest")
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(store, b"{}", "application/vnd.oci.empty.v1+json").to_json(),
        "layers": [],
        "subject": {"mediaType": trusted.media_type, "digest": str(trusted.digest), "size": trusted.size},
        "annotations": {REF_NAME: "latest", IMAGE_NAME: "docker.io/library/debian:12"},
    }
    put(store, json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    assert store.tags() == ["latest"]
    assert store.resolve("latest") == trusted


def test_docker_writes_two_names_and_each_resolves(store: LayoutStore) -> None:
    desc = put_artifact(store, "one")
    names = {REF_NAME: "12", IMAGE_NAME: "docker.io/library/debian:12"}
    rewrite(store, manifests=[{**desc.to_json(), "annotations": names}])
    assert store.resolve("12") == store.resolve("docker.io/library/debian:12") == desc
    assert store.tags() == ["docker.io/library/debian:12"]
    store.untag("12")
    assert [entry.annotations for entry in store.entries()] == [{IMAGE_NAME: "docker.io/library/debian:12"}]


def test_the_only_image_needs_no_name(store: LayoutStore) -> None:
    desc = put_artifact(store, "one")
    store.tag(desc, str(desc.digest))
    assert store.resolve("") == desc


def test_the_only_image_is_found_beside_its_signature(store: LayoutStore) -> None:
    desc = put_artifact(store, "one")
    store.tag(desc, "12")
    put_artifact(store, "signature", subject=desc)
    assert store.resolve("") == desc


def test_no_name_among_several_images_lists_them(store: LayoutStore) -> None:
    for name in ("a", "b"):
        store.tag(put_artifact(store, name), name)
    with pytest.raises(InvalidReference, match="2 images") as caught:
        store.resolve("")
    assert caught.value.hint == "it has a, b"


def test_no_name_in_an_empty_layout_is_not_found(store: LayoutStore) -> None:
    put(store, b"x")
    with pytest.raises(NotFound, match="is empty"):
        store.resolve("")


def test_an_unknown_name_lists_those_that_there_are(store: LayoutStore) -> None:
    store.tag(put_artifact(store, "a"), "a")
    with pytest.raises(NotFound) as caught:
        store.resolve("b")
    assert caught.value.hint == "it has a"


def test_two_entries_of_one_image_are_one(store: LayoutStore) -> None:
    """go-containerregistry appends an entry with each pull (its issue 1807)."""
    desc = put_artifact(store, "one")
    entry = {**desc.to_json(), "annotations": {REF_NAME: "a"}}
    rewrite(store, manifests=[entry, entry])
    assert store.resolve("a") == store.resolve("") == desc
    store.tag(desc, "a")
    assert len(store.entries()) == 1


def test_a_name_at_different_images_is_ambiguous(store: LayoutStore) -> None:
    one, two = put_artifact(store, "one"), put_artifact(store, "two")
    rewrite(store, manifests=[{**desc.to_json(), "annotations": {REF_NAME: "a"}} for desc in (one, two)])
    with pytest.raises(InvalidContent, match="2 different manifests") as caught:
        store.resolve("a")
    assert str(one.digest) in caught.value.hint
    store.tag(two, "a")
    assert store.resolve("a") == two


def test_a_digest_finds_a_part_of_an_image(store: LayoutStore) -> None:
    child = put_artifact(store, "child")
    store.tag(put_index(store, child), "index")
    found = store.resolve(str(child.digest))
    assert (found, found.media_type) == (child, child.media_type)
    layer = put(store, b"no manifest")
    assert store.resolve(str(layer.digest)) == layer


def test_what_other_tools_wrote_into_index_json_survives(store: LayoutStore) -> None:
    desc = put_artifact(store, "one")
    entry = {**desc.to_json(), "annotations": {REF_NAME: "a"}, "x-vendor": [1, {"b": None}]}
    auxiliary = {**put(store, b"<x/>").to_json(), "mediaType": "application/xml"}
    rewrite(
        store, manifests=[entry, auxiliary], annotations={"com.example.index.revision": "r124356"}, other=1
    )
    before = index_json(store)
    store.tag(desc, "b")
    after = index_json(store)
    assert after["manifests"][:2] == [entry, auxiliary]
    assert {**after, "manifests": 0} == {**before, "manifests": 0}


def test_an_unknown_media_type_in_index_json_is_no_error(store: LayoutStore) -> None:
    """image-layout.md: "An encountered `mediaType` that is unknown MUST NOT generate an error."."""
    desc = put(store, b"<x/>", "application/xml")
    store.tag(desc, "a")
    assert copy(store, MemoryStore(), "a").media_type == "application/xml"


def test_an_entry_with_an_unknown_algorithm_is_kept_and_names_nothing(store: LayoutStore) -> None:
    """What it names could not be verified here, but it is not ours to throw away."""
    desc = put_artifact(store, "one")
    future = {
        "mediaType": "a/b",
        "digest": "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8",
        "size": 1,
    }
    rewrite(store, manifests=[{**future, "annotations": {REF_NAME: "future"}}])
    store.tag(desc, "a")
    store.untag("a")
    store.tag(desc, "b")
    assert store.tags() == ["b"]
    assert index_json(store)["manifests"][0] == {**future, "annotations": {REF_NAME: "future"}}


def test_referrers_are_found_under_the_fallback_tag(store: LayoutStore) -> None:
    subject = put_artifact(store, "subject")
    referrer = put_artifact(store, "referrer", subject=subject)
    [listed] = store.referrers(subject)
    rewrite(store, manifests=[])
    store.tag(put_index(store, referrer), f"sha256-{subject.digest.hex}")
    assert store.referrers(subject) == [listed]


def test_what_is_under_the_fallback_tag_and_is_not_what_it_is_listed_as_refers_to_nothing(
    store: LayoutStore,
) -> None:
    subject = put_artifact(store, "subject")
    referrer = put_artifact(store, "referrer", subject=subject)
    listed = [
        replace(referrer, size=referrer.size + 1),
        replace(referrer, media_type=mediatypes.OCI_INDEX),
        put_artifact(store, "of nothing"),
        put_artifact(MemoryStore(), "elsewhere", subject=subject),
    ]
    rewrite(store, manifests=[])
    store.tag(put_index(store, *listed), f"sha256-{subject.digest.hex}")
    assert store.referrers(subject) == []


def test_a_referrer_that_was_not_listed_when_the_process_died_is_not_there(store: LayoutStore) -> None:
    """So that the next copy pushes it again, which lists it."""
    subject = put_artifact(store, "subject")
    referrer = put_artifact(store, "referrer", subject=subject)
    rewrite(store, manifests=[])
    assert not store.exists(referrer)
    assert put_artifact(store, "referrer", subject=subject) == referrer
    assert store.exists(referrer)
    assert store.referrers(subject) == [referrer]


TRAVERSAL = "sha256:../../../../etc/passwd"


def test_im_01_a_digest_that_is_a_path_in_index_json_is_refused(store: LayoutStore) -> None:
    put(store, b"x")
    rewrite(store, manifests=[{"mediaType": "a/b", "digest": TRAVERSAL, "size": 1}])
    with pytest.raises(InvalidContent, match=r"manifests\[0\] of index\.json"):
        store.entries()
    with pytest.raises(InvalidContent):
        store.resolve(TRAVERSAL)


@pytest.mark.parametrize("where", ["config", "layers", "subject", "manifests"])
def test_im_01_a_digest_that_is_a_path_in_a_manifest_is_refused(store: LayoutStore, where: str) -> None:
    bad = {"mediaType": "a/b", "digest": TRAVERSAL, "size": 1}
    good = put(store, b"{}").to_json()
    document: dict[str, Any] = {"schemaVersion": 2, "config": good, "layers": [good]}
    document |= {"layers": [bad]} if where == "layers" else {where: bad}
    kind = "manifest"
    if where == "manifests":
        document, kind = {"schemaVersion": 2, "manifests": [bad]}, "index"
    desc = put(store, json.dumps(document).encode(), f"application/vnd.oci.image.{kind}.v1+json")
    rewrite(store, manifests=[{**desc.to_json(), "annotations": {REF_NAME: "a"}}])
    with pytest.raises(InvalidContent):
        copy(store, MemoryStore(), "a")


def _secret(tmp_path: Path, content: bytes) -> Path:
    secret = tmp_path / "secret"
    secret.write_bytes(content)
    return secret


@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "socket", "directory"])
def test_im_02_a_blob_that_is_no_regular_file_is_refused(
    store: LayoutStore, tmp_path: Path, kind: str
) -> None:
    desc = put(store, b"hello")
    path = blob_path(store, desc)
    path.unlink()
    _plant(path, kind, _secret(tmp_path, b"hello"))
    with pytest.raises(UnsafeContent), store.fetch(desc):
        pass
    with pytest.raises(UnsafeContent):
        store.exists(desc)


def _plant(path: Path, kind: str, target: Path) -> None:
    if kind == "link":
        path.symlink_to(target)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        here = Path.cwd()
        os.chdir(path.parent)  # the path of a socket may have 107 bytes only
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
        os.chdir(here)
    elif kind == "directory":
        path.mkdir()


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
def test_im_02_a_document_that_is_no_regular_file_is_refused(
    store: LayoutStore, tmp_path: Path, name: str, kind: str
) -> None:
    put(store, b"hello")
    path = store.path / name
    secret = _secret(tmp_path, path.read_bytes())
    path.unlink()
    _plant(path, kind, secret)
    with pytest.raises(UnsafeContent):
        store.entries()
    with pytest.raises(UnsafeContent):
        put(LayoutStore(store.path), b"x")


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256", ".ocitool"])
def test_im_02_a_directory_that_is_a_link_is_refused(store: LayoutStore, tmp_path: Path, name: str) -> None:
    desc = put(store, b"hello")
    path = store.path / name
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    if name != ".ocitool":
        with pytest.raises(UnsafeContent), store.fetch(desc):
            pass
    with pytest.raises(UnsafeContent):
        put(LayoutStore(store.path), b"other")
    assert sorted(elsewhere.rglob("*")) == before


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["blobs", "blobs/sha256", ".ocitool"])
def test_im_02_a_directory_that_is_a_fifo_does_not_block(
    store: LayoutStore, tmp_path: Path, name: str
) -> None:
    put(store, b"hello")
    path = store.path / name
    path.rename(tmp_path / "aside")
    os.mkfifo(path)
    with pytest.raises(UnsafeContent):
        put(LayoutStore(store.path), b"more")


def test_the_layout_itself_may_be_reached_by_a_link(store: LayoutStore, tmp_path: Path) -> None:
    desc = put_artifact(store, "one")
    (tmp_path / "link").symlink_to(store.path)
    by_link = LayoutStore(tmp_path / "link")
    by_link.tag(desc, "a")
    assert store.resolve("a") == desc


def test_im_07_private_files_are_private(store: LayoutStore) -> None:
    put(store, b"hello")
    assert (store.path / ".ocitool").stat().st_mode & 0o777 == 0o700


def test_im_07_a_planted_partial_is_not_written_through(store: LayoutStore, tmp_path: Path) -> None:
    put(store, b"first")
    victim = _secret(tmp_path, b"precious")
    desc = blob(b"hello")
    planted = store.path / ".ocitool" / "partial" / f"sha256-{desc.digest.hex}"
    planted.symlink_to(victim)
    with pytest.raises(UnsafeContent):
        put(store, b"hello")
    planted.unlink()
    os.mkfifo(planted)
    with pytest.raises(UnsafeContent):
        put(store, b"hello")
    planted.unlink()
    planted.hardlink_to(victim)
    put(store, b"hello")
    assert victim.read_bytes() == b"precious"
    assert blob_path(store, desc).read_bytes() == b"hello"


def test_a_partial_of_the_right_size_and_wrong_bytes_is_begun_anew(store: LayoutStore) -> None:
    put(store, b"first")
    desc = blob(b"hello")
    (store.path / ".ocitool" / "partial" / f"sha256-{desc.digest.hex}").write_bytes(b"HELLO")
    put(store, b"hello")
    assert blob_path(store, desc).read_bytes() == b"hello"


def test_f_17_what_a_process_had_got_all_of_is_not_fetched_again(store: LayoutStore) -> None:
    put(store, b"first")
    partials, desc = store.path / ".ocitool" / "partial", blob(b"hello")
    name = f"sha256-{desc.digest.hex}"
    (partials / name).write_bytes(b"hello")
    with store.resume(desc) as partial:
        assert partial is None
    assert blob_path(store, desc).read_bytes() == b"hello"
    # And what is left of a second one, which was too late, goes.
    (partials / name).write_bytes(b"hel")
    with store.resume(desc) as partial:
        assert partial is None
    assert list(partials.iterdir()) == []


def test_f_18_the_names_of_blobs_are_on_the_disk_before_an_image_has_its_name(
    store: LayoutStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those too that another process has given a moment ago."""
    desc = put_artifact(store, "text")
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(fd: int) -> None:
        fsync(fd)
        done.append(f"on the disk: {Path(f'/proc/self/fd/{fd}').readlink().name.partition('.')[0]}")

    def renamed(old: str, new: str, **where: int) -> None:
        rename(old, new, **where)
        done.append(f"named: {new}")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    LayoutStore(store.path).tag(desc, "a")
    assert done == ["on the disk: sha256", "on the disk: index", "named: index.json", "on the disk: layout"]


def test_a_partial_that_could_not_be_brought_to_the_disk_is_thrown_away(
    store: LayoutStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, b"first")

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OciError, match="Input/output error"):
        put(store, b"hello")
    assert list((store.path / ".ocitool" / "partial").iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "empty", "zeroed", "flipped"])
def test_f_23_a_damaged_blob_is_found_and_replaced(store: LayoutStore, damage: str) -> None:
    content = os.urandom(5000)
    desc = put(store, content)
    wrong = {
        "truncated": content[:-1],
        "empty": b"",
        "zeroed": bytes(len(content)),
        "flipped": bytes([content[0] ^ 1]) + content[1:],
    }[damage]
    blob_path(store, desc).write_bytes(wrong)
    careful = LayoutStore(store.path, verify=True)
    assert not careful.exists(desc)
    assert store.exists(desc) == (len(wrong) == desc.size)
    assert put(careful, content) == desc
    assert blob_path(store, desc).read_bytes() == content


def test_f_23_a_damaged_manifest_is_found_without_being_asked(store: LayoutStore) -> None:
    desc = put_artifact(store, "one")
    path = blob_path(store, desc)
    path.write_bytes(path.read_bytes().replace(b"one", b"two"))
    assert not store.exists(desc)
    put_artifact(store, "one")
    assert store.exists(desc)


@pytest.mark.parametrize("damage", [b"", b"hell", b"hellO", b"hello!", b" hello", b"hello\0", bytes(5)])
def test_im_03_damaged_content_goes_nowhere_and_is_named(store: LayoutStore, damage: bytes) -> None:
    root = put_artifact(store, "hello")
    store.tag(root, "a")
    desc = blob(b"hello")
    blob_path(store, desc).write_bytes(damage)
    target = MemoryStore()
    with pytest.raises(IntegrityError) as caught:
        copy(store, target, "a")
    assert str(desc.digest) in f"{caught.value} {caught.value.__notes__}"
    assert not target.exists(desc)
    assert not target.exists(root)


@pytest.mark.parametrize("data", ["aGVsbE8=", "aGVsbG8h", "not base64", 7, "A" * 100_000])
def test_im_04_embedded_data_that_lies_is_refused(store: LayoutStore, data: Any) -> None:
    desc = put(store, b"hello")
    rewrite(store, manifests=[{**desc.to_json(), "data": data, "annotations": {REF_NAME: "a"}}])
    with pytest.raises((InvalidContent, IntegrityError), match=r"manifests\[0\] of index\.json"):
        store.resolve("a")


def test_im_04_embedded_data_that_is_right_is_not_written_twice(store: LayoutStore) -> None:
    desc = put(store, b"hello")
    store.tag(replace(desc, data=b"hello"), "a")
    assert "data" not in index_json(store)["manifests"][0]


BROKEN = {
    "empty": b"",
    "half": b'{"schemaVersion":2,"mani',
    "no JSON": b"\x00" * 100,
    "another version": b'{"schemaVersion":1,"manifests":[]}',
    "no manifests": b'{"schemaVersion":2}',
    "manifests of a wrong type": b'{"schemaVersion":2,"manifests":{}}',
    "an entry of a wrong type": b'{"schemaVersion":2,"manifests":[1]}',
    "a list": b"[]",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_f_24_a_broken_index_json_is_named_and_never_rewritten(store: LayoutStore, content: bytes) -> None:
    desc = put_artifact(store, "one")
    path = store.path / "index.json"
    path.write_bytes(content)
    for act in (
        store.entries,
        lambda: store.tag(desc, "a"),
        lambda: put(LayoutStore(store.path), b"new"),
    ):
        with pytest.raises(InvalidContent, match=r"index\.json") as caught:
            act()
        assert "--repair" in caught.value.hint
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
def test_f_24_a_missing_document_is_named_and_not_made_up(store: LayoutStore, name: str) -> None:
    desc = put_artifact(store, "one")
    store.tag(desc, "a")
    (store.path / name).unlink()
    for act in (store.entries, lambda: put(LayoutStore(store.path), b"new")):
        with pytest.raises(InvalidContent, match=f"has no {name} file") as caught:
            act()
        assert "--repair" in caught.value.hint
    assert not (store.path / name).exists()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", InvalidContent),
        (b"[]", InvalidContent),
        (b"{}", InvalidContent),
        (b'{"imageLayoutVersion":1}', InvalidContent),
        (b'{"imageLayoutVersion":"2.0.0"}', Unsupported),
    ],
)
def test_f_24_a_broken_oci_layout_is_refused(
    store: LayoutStore, content: bytes, error: type[OciError]
) -> None:
    put(store, b"x")
    (store.path / "oci-layout").write_bytes(content)
    with pytest.raises(error):
        store.entries()


def test_half_made_layouts_are_completed(tmp_path: Path) -> None:
    for made in (["blobs"], ["blobs", "index.json"], [".ocitool"]):
        path = tmp_path / "-".join(made)
        put(LayoutStore(path), b"x")
        for name in {"oci-layout", "index.json"} - set(made):
            (path / name).unlink()
        for file in (path / "blobs" / "sha256").iterdir():
            file.unlink()
        put(LayoutStore(path), b"x")
        assert LayoutStore(path).entries() == []


def test_everything_a_layout_holds_is_blobs_documents_and_private(store: LayoutStore) -> None:
    store.tag(put_artifact(store, "one"), "a")
    store.close()
    files = {str(path.relative_to(store.path)) for path in store.path.rglob("*") if path.is_file()}
    blobs = {name for name in files if name.startswith("blobs/sha256/")}
    assert len(blobs) == 3
    assert files - blobs == {"index.json", "oci-layout", ".ocitool/index.lock", ".ocitool/gc.lock"}


def test_files_have_the_modes_that_the_user_asks_for(store: LayoutStore) -> None:
    before = os.umask(0o027)
    try:
        desc = put(store, b"hello")
        store.tag(put_artifact(store, "one"), "a")
    finally:
        os.umask(before)
    assert blob_path(store, desc).stat().st_mode & 0o777 == 0o640
    assert (store.path / "index.json").stat().st_mode & 0o777 == 0o640
    assert (store.path / "blobs").stat().st_mode & 0o777 == 0o750


@pytest.fixture
def cloning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that shares blocks, played by one that copies them."""

    def ioctl(target: int, request: int, source: int) -> int:
        assert request == 0x40049409  # FICLONE
        os.pwrite(target, os.pread(source, 1 << 20, 0), 0)
        return 0

    monkeypatch.setattr("fcntl.ioctl", ioctl)


@pytest.mark.usefixtures("cloning")
def test_layouts_share_blocks_where_the_file_system_can(store: LayoutStore, tmp_path: Path) -> None:
    store.tag(put_artifact(store, "one"), "a")
    other = LayoutStore(tmp_path / "other")
    events: list[object] = []
    root = copy(store, other, "a", on_event=events.append)
    mounted = {event.descriptor for event in events if isinstance(event, Finished) and event.how == "mounted"}
    assert mounted == {blob(b"one"), Descriptor.of("application/vnd.oci.empty.v1+json", b"{}")}
    assert copy(other, MemoryStore(), "a") == root
    assert not list((other.path / ".ocitool" / "partial").iterdir())


@pytest.mark.usefixtures("cloning")
def test_shared_blocks_are_verified_before_they_count(store: LayoutStore, tmp_path: Path) -> None:
    desc = put(store, b"hello")
    blob_path(store, desc).write_bytes(b"hellO")
    other = LayoutStore(tmp_path / "other")
    assert not other.mount(desc, store)
    assert not other.exists(desc)
    assert not list((other.path / ".ocitool" / "partial").iterdir())


def test_damage_to_a_layout_stays_in_it(store: LayoutStore, tmp_path: Path) -> None:
    """Whatever a file system can do, a copy is one: hard links would share what happens later."""
    desc = put_artifact(store, "one")
    store.tag(desc, "a")
    other = LayoutStore(tmp_path / "other")
    copy(store, other, "a")
    for path in (store.path / "blobs" / "sha256").iterdir():
        path.write_bytes(b"")
    assert copy(other, MemoryStore(), "a") == desc


def test_only_layouts_share(store: LayoutStore) -> None:
    source = MemoryStore()
    assert not store.mount(put(source, b"hello"), source)


def test_what_a_crash_left_is_read_again_before_it_counts(store: LayoutStore) -> None:
    """A lease whose process is gone names what a power cut may have damaged."""
    good, bad = put(store, b"good"), put(store, b"bad!")
    store.close()
    (store.path / ".ocitool" / "leases" / "0123456789abcdef").write_text(
        f"{good.digest}\n{bad.digest}\nsha256:12"
    )
    blob_path(store, bad).write_bytes(b"zero")
    assert LayoutStore(store.path, read_only=True).exists(bad)
    after = LayoutStore(store.path)
    assert after.exists(good)
    assert not after.exists(bad)
    put(after, b"bad!")
    assert after.exists(bad)
    after.close()
    assert not list((store.path / ".ocitool" / "leases").iterdir())
