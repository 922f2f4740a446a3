"""Which manifest of an index is meant, and what is left out where only a part of it is copied."""

from __future__ import annotations

import json
import time

import pytest
from support.stores import RecordingStore, put, put_image, put_index, put_json

from ocitool import limits, mediatypes
from ocitool.digest import Digest
from ocitool.errors import InvalidContent, NotFound, UnsafeContent
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor, Index
from ocitool.platforms import Platform
from ocitool.selection import EVERYTHING, Selection, Wanted, choose, require, select

AMD, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def image(store: MemoryStore, platform: str, salt: bytes = b"") -> Descriptor:
    """An image whose descriptor says what it runs on."""
    return put_image(store, platform, [platform.encode() + salt], marked=True)


def unmarked(store: MemoryStore, platform: str) -> Descriptor:
    """An image of which only the configuration says what it runs on."""
    return put_image(store, platform, [platform.encode()])


def attestation(store: MemoryStore, about: Descriptor) -> Descriptor:
    """What buildkit puts beside an image."""
    return put_json(
        store,
        mediatypes.OCI_MANIFEST,
        {
            "schemaVersion": 2,
            "config": put(store, mediatypes.OCI_CONFIG, b'{"provenance":true}').to_json(),
            "layers": [put(store, "application/vnd.in-toto+json", str(about.digest).encode()).to_json()],
        },
        platform=Platform("unknown", "unknown"),
        annotations={
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": str(about.digest),
        },
    )


# choose


def test_takes_the_first_entry_that_matches() -> None:
    store = MemoryStore()
    first, second = image(store, "linux/amd64", b"1"), image(store, "linux/amd64", b"2")
    root = put_index(store, [image(store, "linux/arm64"), first, second])
    assert choose(store, root, AMD) == first


@pytest.mark.parametrize(
    ("listed", "wanted", "taken"),
    [
        ("linux/arm64/v8", "linux/arm64", "linux/arm64/v8"),
        ("linux/arm64", "linux/arm64/v8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7", "linux/arm"),
        ("linux/amd64 linux/amd64/v2", "linux/amd64/v3", "linux/amd64/v2"),
        ("linux/amd64 linux/amd64/v4", "linux/amd64/v3", "linux/amd64"),
        ("linux/amd64/v2 linux/amd64", "linux/amd64", "linux/amd64"),
        ("linux/arm/v5 linux/arm/v6 linux/arm/v8", "linux/arm/v7", "linux/arm/v6"),
        ("linux/arm/v5 linux/arm64", "linux/arm64/v9", "linux/arm64"),
    ],
)
def test_takes_the_best_variant_that_runs(listed: str, wanted: str, taken: str) -> None:
    store = MemoryStore()
    images = {name: image(store, name) for name in listed.split()}
    root = put_index(store, images.values())
    assert choose(store, root, Platform.parse(wanted)) == images[taken]


@pytest.mark.parametrize(
    ("listed", "wanted"),
    [
        ("linux/amd64/v2", "linux/amd64"),
        ("linux/386", "linux/amd64"),
        ("linux/arm/v7", "linux/arm64"),
        ("linux/arm/v8", "linux/arm/v7"),
        ("windows/amd64", "linux/amd64"),
        ("unknown/unknown", "linux/amd64"),
        ("unknown/unknown", "unknown/unknown"),
    ],
)
def test_takes_nothing_that_does_not_run(listed: str, wanted: str) -> None:
    store = MemoryStore()
    root = put_index(store, [image(store, listed)])
    with pytest.raises(NotFound, match=f"has no manifest for {wanted}") as caught:
        choose(store, root, Platform.parse(wanted))
    assert caught.value.exit_code == 10


def test_says_which_platforms_there_are() -> None:
    store = MemoryStore()
    amd = image(store, "linux/amd64")
    nested = put_index(store, [image(store, "linux/arm64/v8"), image(store, "linux/arm64/v8", b"2")])
    root = put_index(store, [amd, attestation(store, amd), nested])
    with pytest.raises(NotFound) as caught:
        choose(store, root, Platform.parse("linux/s390x"))
    assert caught.value.hint == "it has linux/amd64, linux/arm64; choose one with --platform"
    with pytest.raises(NotFound) as caught:
        choose(store, put_index(store, []), AMD)
    assert "no images" in caught.value.hint


def test_a_list_of_platforms_has_an_end() -> None:
    store = MemoryStore()
    lone = unmarked(store, "linux/amd64")
    entries = [
        Descriptor(lone.media_type, lone.digest, lone.size, platform=Platform("linux", f"cpu{n}", "x" * 1000))
        for n in range(100)
    ]
    with pytest.raises(NotFound) as caught:
        choose(store, put_index(store, entries), AMD)
    assert "linux/cpu29/xxx" in caught.value.hint
    assert ", and 70 more;" in caught.value.hint
    assert len(caught.value.hint) < 2500


def test_never_takes_an_attestation() -> None:
    store = MemoryStore()
    amd = image(store, "linux/amd64")
    about = attestation(store, amd)
    assert choose(store, put_index(store, [about, amd]), AMD) == amd
    with pytest.raises(NotFound):
        choose(store, put_index(store, [about]), AMD)


def test_finds_images_in_nested_indexes_in_their_order() -> None:
    store = MemoryStore()
    inner, outer = image(store, "linux/amd64", b"inner"), image(store, "linux/amd64", b"outer")
    nested = put_index(store, [put_index(store, [inner])])
    assert choose(store, put_index(store, [nested, outer]), AMD) == inner
    assert choose(store, put_index(store, [outer, nested]), AMD) == outer


def test_what_is_no_index_is_taken_as_it_is_without_being_read() -> None:
    store = RecordingStore()
    lone = image(store, "linux/arm64")
    assert choose(store, lone, AMD) == lone
    assert store.asked("fetch") == []


def test_an_entry_without_a_platform_is_the_last_resort_and_is_asked_for_it() -> None:
    store = MemoryStore()
    arm, amd = unmarked(store, "linux/arm64"), unmarked(store, "linux/amd64")
    marked = image(store, "linux/amd64", b"marked")
    assert choose(store, put_index(store, [arm, amd]), AMD) == amd
    assert choose(store, put_index(store, [amd, marked]), AMD) == marked
    with pytest.raises(NotFound) as caught:
        choose(store, put_index(store, [arm]), AMD)
    assert "it has linux/arm64;" in caught.value.hint


def test_an_artifact_without_a_platform_runs_anywhere() -> None:
    store = MemoryStore()
    config = put(store, "application/vnd.example.config", b"{}")
    artifact = put_image(store, fields={"config": config.to_json()})
    assert choose(store, put_index(store, [artifact]), ARM64) == artifact


def test_a_mandatory_feature_that_was_not_asked_for_is_not_there() -> None:
    store = MemoryStore()
    desc = put_image(store, "windows/amd64")
    entry = Descriptor(
        desc.media_type,
        desc.digest,
        desc.size,
        platform=Platform("windows", "amd64", os_features=("win32k",)),
    )
    root = put_index(store, [entry])
    with pytest.raises(NotFound):
        choose(store, root, Platform.parse("windows/amd64"))
    assert choose(store, root, Platform.parse("windows(+win32k)/amd64")) == entry


# require


def test_a_lone_image_of_another_platform_is_refused_when_the_platform_was_named() -> None:
    store = MemoryStore()
    lone = unmarked(store, "linux/arm64")
    assert require(store, lone, ARM64) == lone
    assert require(store, lone, Platform.parse("linux/arm64/v9")) == lone
    with pytest.raises(NotFound, match="is for linux/arm64, not linux/amd64"):
        require(store, lone, AMD)
    assert Wanted(AMD).under(store, lone) == lone
    with pytest.raises(NotFound):
        Wanted(AMD, named=True).under(store, lone)


def test_a_lone_image_that_names_no_platform_is_for_none_that_can_be_named() -> None:
    store = MemoryStore()
    config = put_json(store, mediatypes.OCI_CONFIG, {"rootfs": {"type": "layers"}})
    lone = put_image(store, fields={"config": config.to_json()})
    with pytest.raises(NotFound, match="is for no platform that it names, not linux/amd64"):
        require(store, lone, AMD)
    assert choose(store, lone, AMD) == lone


def test_a_lone_images_own_word_counts_not_that_of_its_descriptor() -> None:
    store = MemoryStore()
    desc = unmarked(store, "linux/arm64")
    lying = Descriptor(desc.media_type, desc.digest, desc.size, platform=AMD)
    with pytest.raises(NotFound):
        require(store, lying, AMD)


def test_a_lone_artifact_is_for_every_platform() -> None:
    store = MemoryStore()
    config = put(store, mediatypes.OCI_EMPTY, b"{}")
    artifact = put_image(store, fields={"config": config.to_json(), "artifactType": "a/b"})
    assert require(store, artifact, AMD) == artifact


def test_require_chooses_from_an_index() -> None:
    store = MemoryStore()
    amd = image(store, "linux/amd64")
    root = put_index(store, [amd])
    assert require(store, root, AMD) == amd
    with pytest.raises(NotFound):
        require(store, root, ARM64)


# select


def test_everything_is_the_root_itself_and_reads_nothing() -> None:
    store = RecordingStore()
    root = put_index(store, [image(store, "linux/amd64")])
    selected = select(store, root, EVERYTHING)
    assert (selected.root, selected.left_out) == (root, frozenset())
    assert store.asked("fetch") == []


def test_a_lone_image_is_taken_whole_or_refused() -> None:
    store = MemoryStore()
    lone = unmarked(store, "linux/amd64")
    assert select(store, lone, Selection((AMD,))).root == lone
    with pytest.raises(NotFound):
        select(store, lone, Selection((AMD, ARM64)))


def test_a_smaller_index_keeps_every_field_that_it_need_not_change() -> None:
    store = MemoryStore()
    amd, arm = image(store, "linux/amd64"), image(store, "linux/arm64")
    entries = [{**arm.to_json(), "invented": 1}, {**amd.to_json(), "invented": 2}]
    document = {
        "schemaVersion": 2,
        "invented": {"b": 1, "a": [2.5]},
        "mediaType": mediatypes.OCI_INDEX,
        "manifests": entries,
        "annotations": {"é": "ü"},
    }
    root = put_json(store, mediatypes.OCI_INDEX, document)
    selected = select(store, root, Selection((AMD,)))
    assert selected.left_out == frozenset()
    assert selected.root.data is not None
    assert selected.root.digest == Digest.of(selected.root.data)
    assert json.loads(selected.root.data) == {**document, "manifests": entries[1:]}
    assert list(json.loads(selected.root.data)) == list(document)


def test_attestations_follow_what_they_attest() -> None:
    store = MemoryStore()
    amd, arm = image(store, "linux/amd64"), image(store, "linux/arm64")
    about_amd, about_arm = attestation(store, amd), attestation(store, arm)
    root = put_index(store, [amd, arm, about_amd, about_arm])
    assert select(store, root, Selection((AMD,), sparse=True)).left_out == {arm.digest, about_arm.digest}
    smaller = select(store, root, Selection((ARM64,))).root
    assert smaller.data is not None
    assert Index.parse(smaller.data, smaller.media_type).manifests == (arm, about_arm)


def test_an_attestation_of_an_image_in_a_nested_index_follows_it() -> None:
    store = MemoryStore()
    amd, arm = image(store, "linux/amd64"), image(store, "linux/arm64")
    nested, about = put_index(store, [amd]), attestation(store, amd)
    root = put_index(store, [nested, arm, about])
    assert select(store, root, Selection((AMD,), sparse=True)).left_out == {arm.digest}


def test_a_selection_of_all_that_there_is_changes_nothing() -> None:
    store = MemoryStore()
    amd, arm = image(store, "linux/amd64"), image(store, "linux/arm64")
    root = put_index(store, [amd, arm, attestation(store, amd)])
    selected = select(store, root, Selection((ARM64, AMD, AMD)))
    assert (selected.root, selected.root.data, selected.left_out) == (root, None, frozenset())


def test_one_image_for_two_platforms_is_found_under_either() -> None:
    store = MemoryStore()
    plain = unmarked(store, "linux/amd64")
    platforms = [Platform.parse("linux/arm/v6"), Platform.parse("linux/arm/v7")]
    entries = [Descriptor(plain.media_type, plain.digest, plain.size, platform=p) for p in platforms]
    other = image(store, "linux/s390x")
    root = put_index(store, [*entries, other])
    for platform in platforms:
        assert select(store, root, Selection((platform,), sparse=True)).left_out == {other.digest}


def test_a_platform_that_is_absent_is_not_found_even_beside_one_that_is_there() -> None:
    store = MemoryStore()
    root = put_index(store, [image(store, "linux/amd64")])
    with pytest.raises(NotFound, match="linux/arm64"):
        select(store, root, Selection((AMD, ARM64)))


def test_each_index_is_read_once() -> None:
    store = RecordingStore()
    nested = put_index(store, [image(store, "linux/arm64")])
    root = put_index(store, [image(store, "linux/amd64"), nested, image(store, "linux/s390x")])
    store.calls.clear()
    select(store, root, Selection((AMD, ARM64)))
    assert sorted(store.asked("fetch")) == sorted([str(root.digest), str(nested.digest)])


# RC-22, RC-09


def test_rc_22_nesting_has_an_end_and_the_deepest_that_is_allowed_is_found() -> None:
    store = MemoryStore()
    amd = nested = image(store, "linux/amd64")
    for _ in range(limits.INDEX_NESTING - 1):
        nested = put_index(store, [nested])
    assert choose(store, nested, AMD) == amd
    deeper = put_index(store, [nested])
    for ask in (lambda: choose(store, deeper, AMD), lambda: select(store, deeper, Selection((AMD,)))):
        with pytest.raises(UnsafeContent, match="nested deeper than 8 levels"):
            ask()


def test_rc_22_indexes_that_name_each_next_one_many_times_are_unfolded_once() -> None:
    store = RecordingStore()
    nested = image(store, "linux/amd64")
    for _ in range(limits.INDEX_NESTING - 1):
        nested = put_index(store, [nested] * 100)
    store.calls.clear()
    before = time.thread_time()
    with pytest.raises(NotFound):
        choose(store, nested, ARM64)
    select(store, nested, Selection((AMD,)))
    assert time.thread_time() - before < 5
    assert len(store.asked("fetch")) == 2 * (limits.INDEX_NESTING - 1)


def test_rc_22_a_forest_of_nested_indexes_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    nested = [put_index(store, [], fields={"annotations": {"n": str(n)}}) for n in range(10)]
    root = put_index(store, nested)
    monkeypatch.setattr(limits, "INDEX_ENTRIES", 10)
    with pytest.raises(UnsafeContent, match="one of more than 10"):
        choose(store, root, AMD)


def test_rc_09_an_index_that_turns_out_to_be_an_image_is_refused() -> None:
    store = MemoryStore()
    lone = put_image(store, media_type=mediatypes.OCI_MANIFEST)
    lying = Descriptor(mediatypes.OCI_INDEX, lone.digest, lone.size)
    with pytest.raises(InvalidContent, match="announced"):
        choose(store, lying, AMD)
