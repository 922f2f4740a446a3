"""A layout seen as repositories."""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from support import fixtures

from ocitool import mediatypes
from ocitool.digest import Digest
from ocitool.errors import NotFound
from ocitool.layout import LayoutStore
from ocitool.layout.repositories import LayoutRepositories, repository_and_tag
from ocitool.model import Descriptor

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    return LayoutStore(tmp_path / "images")


def _put(store: LayoutStore, *names: str, note: str = "") -> Descriptor:
    config = Descriptor.of(mediatypes.OCI_EMPTY, b"{}")
    store.push(config, BytesIO(b"{}"))
    document = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [],
        "annotations": {"note": note},
    }
    raw = json.dumps(document).encode()
    desc = Descriptor.of(mediatypes.OCI_MANIFEST, raw)
    store.push(desc, BytesIO(raw))
    for name in names:
        store.tag(desc, name)
    return desc


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hello:1.0", ("hello", "1.0")),
        ("docker.io/library/alpine:3.20", ("library/alpine", "3.20")),
        ("localhost/a/b:x", ("a/b", "x")),
        ("localhost:5000/a:x", ("a", "x")),
        ("127.0.0.1:5000/a", ("a", "latest")),
        ("org/app:v1", ("org/app", "v1")),
        ("org/app", ("org/app", "latest")),
        ("1.0", ("default", "1.0")),
        ("latest", ("default", "latest")),
        ("Not/Lower:1", None),
        ("a:not a tag", None),
        ("a@sha256:" + "0" * 64, None),
        ("/a:1", None),
        ("", None),
    ],
)
def test_a_name_means_a_repository_and_a_tag(name: str, expected: tuple[str, str] | None) -> None:
    assert repository_and_tag(name, "default") == expected


def test_the_fixtures_are_repositories_by_their_names() -> None:
    repositories = LayoutRepositories(LayoutStore(fixtures.layout(), read_only=True))
    assert {"hello", "layers", "zstd", "artifact", "hostile-gzip"} <= set(repositories.names())
    hello = repositories.open("hello")
    assert hello is not None
    assert list(hello.tags()) == ["1.0"]
    assert str(hello.resolve("1.0").digest) == fixtures.digests()["hello:1.0"]
    assert [str(one.digest) for one in hello.referrers(hello.resolve("1.0"))] == [
        fixtures.digests()["application/vnd.example.sbom.v1"]
    ]


def test_plain_tags_belong_to_the_repository_of_the_directory(store: LayoutStore) -> None:
    desc = _put(store, "v1")
    repositories = LayoutRepositories(store)
    assert list(repositories.names()) == ["images"]
    opened = repositories.open("images")
    assert opened is not None
    assert opened.resolve("v1") == desc


def test_a_directory_whose_name_is_no_repository_is_called_image(tmp_path: Path) -> None:
    store = LayoutStore(tmp_path / "Größe (2)")
    _put(store, "v1")
    assert list(LayoutRepositories(store).names()) == ["image"]


def test_a_repository_that_is_not_there_is_none_until_it_is_created(store: LayoutStore) -> None:
    _put(store, "a:1")
    repositories = LayoutRepositories(store)
    assert repositories.open("b") is None
    created = repositories.open("b", create=True)
    assert created is not None
    assert list(created.tags()) == []
    assert list(repositories.names()) == ["a", "b"]


def test_what_others_add_to_the_layout_is_seen(store: LayoutStore) -> None:
    _put(store, "a:1")
    repositories = LayoutRepositories(store)
    assert list(repositories.names()) == ["a"]
    _put(LayoutStore(store.path), "b:1", note="another")
    assert list(repositories.names()) == ["a", "b"]


def test_a_tag_that_moves_keeps_its_entry_with_its_host(store: LayoutStore) -> None:
    _put(store, "docker.io/library/alpine:3")
    newer = _put(store, note="newer")
    opened = LayoutRepositories(store).open("library/alpine")
    assert opened is not None
    opened.tag(newer, "3")
    opened.tag(newer, "4")
    assert store.resolve("docker.io/library/alpine:3") == newer
    assert store.resolve("library/alpine:4") == newer
    assert sorted(opened.tags()) == ["3", "4"]


def test_any_content_of_the_layout_is_found_by_digest(store: LayoutStore) -> None:
    desc = _put(store, "a:1")
    opened = LayoutRepositories(store).open("b", create=True)
    assert opened is not None
    assert opened.resolve(str(desc.digest)).media_type == mediatypes.OCI_MANIFEST
    config = opened.resolve(str(Digest.of(b"{}")))
    assert (config.media_type, config.size) == ("application/octet-stream", 2)
    with opened.fetch(config, offset=1) as reader:
        assert reader.read() == b"}"
    with pytest.raises(NotFound, match="is not in repository b"):
        opened.resolve(str(Digest.of(b"missing")))


def test_an_entry_whose_content_is_lost_is_not_there(store: LayoutStore) -> None:
    desc = _put(store, "a:1")
    (store.path / "blobs" / "sha256" / desc.digest.hex).unlink()
    opened = LayoutRepositories(store).open("a")
    assert opened is not None
    for reference in ("1", str(desc.digest)):
        with pytest.raises(NotFound):
            opened.resolve(reference)


def test_deletion_removes_the_bytes_once_no_name_needs_them(store: LayoutStore) -> None:
    desc = _put(store, "a:1", "b:1")
    repositories = LayoutRepositories(store)
    a, b = repositories.open("a"), repositories.open("b")
    assert a is not None
    assert b is not None
    path = store.path / "blobs" / "sha256" / desc.digest.hex
    a.delete(desc)
    with pytest.raises(NotFound):
        a.resolve(str(desc.digest))
    assert b.resolve("1") == desc
    b.delete(desc)
    assert not path.exists()
    assert store.entries() == []


def test_a_blob_that_an_image_needs_is_hidden_and_stays(store: LayoutStore) -> None:
    _put(store, "a:1")
    repositories = LayoutRepositories(store)
    a = repositories.open("a")
    assert a is not None
    config = a.resolve(str(Digest.of(b"{}")))
    a.delete(config)
    assert not a.exists(config)
    assert store.blobs.size(config.digest) == 2
    a.push(config, BytesIO(b"{}"))
    assert a.exists(config)


def test_two_hosts_with_the_same_image_are_one_tag(store: LayoutStore) -> None:
    first = _put(store, "one.example/a:1")
    _put(store, "two.example/a:1", note="other")
    a = LayoutRepositories(store).open("a")
    assert a is not None
    assert list(a.tags()) == ["1"]
    assert a.resolve("1") == first


def test_names_that_are_only_begun_are_not_remembered_without_end(
    store: LayoutStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocitool.layout.repositories._REMEMBERED", 3)
    _put(store, "kept:1")
    repositories = LayoutRepositories(store)
    for number in range(10):
        repositories.open(f"begun{number}", create=True)
    assert list(repositories.names()) == ["begun7", "begun8", "begun9", "kept"]
