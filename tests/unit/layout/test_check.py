"""Every fault is found and named, what can be rebuilt is, and nothing is thrown away."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support import fixtures
from support.layout_content import put, put_artifact, put_index

from ocitool.content import read_manifest
from ocitool.digest import Digest
from ocitool.errors import NotFound
from ocitool.layout import LayoutStore
from ocitool.layout.check import Kind, check, repair
from ocitool.layout.usage import usage
from ocitool.model import Descriptor
from ocitool.platforms import Platform
from ocitool.selection import Selection
from ocitool.transfer import copy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FIXTURES = LayoutStore(fixtures.layout(), read_only=True)


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    """A layout with an image of two platforms, what refers to it, and one of three layers."""
    store = LayoutStore(tmp_path / "layout")
    copy(FIXTURES, store, "hello:1.0", referrers=True)
    copy(FIXTURES, store, "layers:1.0", to="example.org/layers:1.0")
    store.close()
    return store


def content(path: Path) -> dict[str, bytes]:
    """Every file of a layout but the private ones."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and ".ocitool" not in file.parts
    }


def blob_files(store: LayoutStore) -> list[Path]:
    return sorted((store.path / "blobs" / "sha256").iterdir())


def test_a_sound_layout_has_no_problems(store: LayoutStore) -> None:
    assert check(store) == []
    before = content(store.path)
    assert repair(store) == []
    assert content(store.path) == before


def test_the_fixtures_and_a_sparse_copy_of_them_are_sound(tmp_path: Path) -> None:
    assert check(FIXTURES) == []
    store = LayoutStore(tmp_path / "sparse")
    copy(FIXTURES, store, "hello:1.0", platforms=Selection((Platform("linux", "arm64"),), sparse=True))
    assert check(store) == []
    (image,) = usage(store).images
    assert image.missing > 0
    assert [str(platform) for platform in image.platforms] == ["linux/arm64"]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "truncated": lambda content: content[:-1],
    "empty": lambda content: b"",
    "zeroed": lambda content: bytes(len(content)),
    "longer": lambda content: content + b"\0",
    "respaced": lambda content: b" " + content,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_im_03_f_23_damage_to_any_blob_is_found_named_and_undone(store: LayoutStore, damage: str) -> None:
    before = content(store.path)
    for path in blob_files(store):
        good = path.read_bytes()
        path.write_bytes(DAMAGES[damage](good))
        problems = check(store)
        assert (Kind.DAMAGED, str(path.relative_to(store.path))) in {(p.kind, p.where) for p in problems}
        repairs = repair(store, FIXTURES)
        assert any("moved to .ocitool/damaged/" in done.done for done in repairs)
        assert all(done.done.endswith("fetched again") for done in repairs)
        assert check(store) == []
        assert content(store.path) == before


def test_missing_parts_are_found_named_and_fetched(store: LayoutStore) -> None:
    before = content(store.path)
    for path in blob_files(store):
        path.unlink()
        found = {(p.kind, p.where) for p in check(store)}
        where = str(path.relative_to(store.path))
        # A manifest of an index may be missing; whatever a root or a manifest names may not.
        index = read_manifest(FIXTURES, FIXTURES.resolve("hello:1.0"))
        in_an_index = path.name in {child.digest.hex for child in index.children}
        assert found == (set() if in_an_index else {(Kind.MISSING, where)})
        repair(store, FIXTURES)
        path.write_bytes(before[where])
    assert check(store) == []


def test_without_a_source_damaged_blobs_are_set_aside_for_the_next_pull(store: LayoutStore) -> None:
    path = blob_files(store)[0]
    good = path.read_bytes()
    path.write_bytes(b"damaged")
    (done,) = [done.done for done in repair(store) if done.problem.kind is Kind.DAMAGED]
    assert not path.exists()
    assert (store.path / done.removeprefix("moved to ")).read_bytes() == b"damaged"
    copy(FIXTURES, store, "hello:1.0", referrers=True)
    copy(FIXTURES, store, "layers:1.0", to="example.org/layers:1.0")
    assert path.read_bytes() == good


def test_a_fetch_that_fails_is_told(store: LayoutStore, tmp_path: Path) -> None:
    blob_files(store)[0].write_bytes(b"damaged")
    other = LayoutStore(tmp_path / "other")
    put(other, b"x")
    assert any("not fetched again" in done.done for done in repair(store, other))


def test_every_problem_is_listed_at_once(store: LayoutStore) -> None:
    first, second, third, *_ = blob_files(store)
    first.write_bytes(b"x")
    second.unlink()
    second.symlink_to("/etc/passwd")
    third.rename(third.with_name("stray"))
    found = {(p.kind, p.where.rpartition("/")[2]) for p in check(store)}
    assert found >= {(Kind.DAMAGED, first.name), (Kind.DAMAGED, second.name), (Kind.STRAY, "stray")}


def rewrite(store: LayoutStore, change: Any) -> None:
    path = store.path / "index.json"
    document = json.loads(path.read_bytes())
    change(document["manifests"])
    path.write_text(json.dumps(document))


def test_a_name_at_two_images_is_ambiguous(store: LayoutStore) -> None:
    name = {"org.opencontainers.image.ref.name": "a"}
    rewrite(store, lambda entries: [entry.update(annotations=name) for entry in entries])
    assert Kind.AMBIGUOUS in {p.kind for p in check(store)}


def test_a_descriptor_that_lies_about_a_size_is_found(store: LayoutStore) -> None:
    rewrite(store, lambda entries: entries[0].update(size=1))
    (problem,) = check(store)
    assert problem.kind is Kind.INVALID
    assert "not the 1 that" in problem.message


def test_a_root_that_is_no_manifest_is_found(store: LayoutStore) -> None:
    desc = put(
        store, b'{"schemaVersion":2,"layers":[],"manifests":[]}', "application/vnd.oci.image.index.v1+json"
    )
    store.tag(desc, "both")
    assert {(p.kind, p.content) for p in check(store)} == {(Kind.INVALID, desc)}


@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
@pytest.mark.parametrize("wrong", [None, b"", b"{", b"[]", b"\xff\xfe"])
def test_f_24_broken_documents_are_rebuilt(store: LayoutStore, name: str, wrong: bytes | None) -> None:
    path = store.path / name
    roots = {entry.digest for entry in store.entries()}
    path.unlink() if wrong is None else path.write_bytes(wrong)
    (problem, *_) = check(store)
    assert (problem.kind, problem.where) == (Kind.LAYOUT, name)
    (done,) = repair(store)
    assert done.done.startswith("rebuilt")
    assert check(store) == []
    assert {entry.digest for entry in store.entries()} == roots
    if wrong is not None:
        (kept,) = (store.path / ".ocitool" / "damaged").iterdir()
        assert kept.read_bytes() == wrong


def test_f_24_names_are_saved_from_what_is_left_of_an_index(store: LayoutStore) -> None:
    path = store.path / "index.json"
    whole = path.read_bytes()
    for end in (*range(0, len(whole), 61), len(whole) - 1):
        path.write_bytes(whole[:end])
        repair(store)
        assert {FIXTURES.resolve(name).digest for name in ("hello:1.0", "layers:1.0")} <= {
            entry.digest for entry in store.entries()
        }
    assert store.tags() == ["example.org/layers:1.0", "hello:1.0"]


def test_a_layout_without_blobs_gets_the_directory(store: LayoutStore) -> None:
    (store.path / "blobs").rename(store.path / "elsewhere")
    rewrite(store, lambda entries: entries.clear())
    assert [(p.kind, p.where) for p in check(store)] == [(Kind.LAYOUT, "blobs")]
    repair(store)
    assert check(store) == []


def test_no_layout_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        check(LayoutStore(tmp_path))


def test_repair_follows_no_link(store: LayoutStore, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    for name in ("index.json", "oci-layout"):
        (store.path / name).unlink()
        (store.path / name).symlink_to(victim)
    blob_files(store)[0].unlink()
    blob_files(store)[0].with_name("0" * 64).symlink_to(victim)
    try:
        repair(store)
    finally:
        assert victim.read_bytes() == b"precious"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["layout", "victim"]


def test_usage_tells_shared_from_unique_bytes(tmp_path: Path) -> None:
    store = LayoutStore(tmp_path / "layout")
    shared = put(store, b"shared" * 100)
    one = put_artifact(store, "one")
    index = put_index(store, one, shared)
    store.tag(one, "one")
    store.tag(one, "uno")
    store.tag(index, "both")
    loose = put(store, b"loose")
    found = {image.root: image for image in usage(store).images}
    assert found[one].names == ("one", "uno")
    assert found[one].size == one.size + len(b"one") + len(b"{}")
    assert found[one].unique == 0
    assert found[index].unique == index.size + shared.size
    assert found[index].size == found[index].unique + found[one].size
    assert usage(store).unreferenced == loose.size
    assert usage(store).size == found[index].size + loose.size


def test_usage_tells_platforms(store: LayoutStore) -> None:
    found = {image.names: image for image in usage(store).images}
    assert [str(p) for p in found["hello:1.0",].platforms] == ["linux/amd64", "linux/arm64"]
    assert [str(p) for p in found["example.org/layers:1.0",].platforms] == ["linux/amd64"]
    assert found[()].platforms == ()
    assert all(image.missing == 0 for image in found.values())


def test_an_empty_layout_uses_nothing(tmp_path: Path) -> None:
    store = LayoutStore(tmp_path / "layout")
    put(store, b"")
    assert usage(store) == type(usage(store))((), 0, 0)
    assert check(store) == []
    assert Descriptor.of("a/b", b"").digest == Digest.of(b"")
