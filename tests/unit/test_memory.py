"""The store in memory beyond the contract that all stores share."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.stores import put, put_artifact, put_image, put_index

from ocitool import mediatypes
from ocitool.content import Deleter, Lister, Mounter, Referrers, Resumer, Store
from ocitool.digest import Digest
from ocitool.errors import IntegrityError, InvalidContent, NotFound
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor


def test_has_the_abilities_that_it_names_and_no_others() -> None:
    store = MemoryStore()
    assert isinstance(store, Store)
    assert isinstance(store, Deleter)
    assert isinstance(store, Referrers)
    assert isinstance(store, Lister)
    assert not isinstance(store, Mounter)
    assert not isinstance(store, Resumer)


def test_resolves_tags_and_digests_and_nothing_else() -> None:
    store = MemoryStore()
    image = put_image(store)
    store.tag(image, "1")
    assert store.resolve("1") == store.resolve(str(image.digest)) == image
    for absent in ("2", str(Digest.of(b"absent")), image.digest.hex, ""):
        with pytest.raises(NotFound):
            store.resolve(absent)


def test_fetches_from_an_offset_on() -> None:
    store = MemoryStore()
    desc = put(store, "a/b", b"hello")
    for offset, rest in [(0, b"hello"), (2, b"llo"), (5, b"")]:
        with store.fetch(desc, offset=offset) as reader:
            assert reader.read() == rest
    with pytest.raises(NotFound), store.fetch(Descriptor.of("a/b", b"absent")):
        pass


@pytest.mark.parametrize("content", [b"hell", b"hello!", b"jello"])
def test_keeps_nothing_of_wrong_content(content: bytes) -> None:
    store = MemoryStore()
    desc = Descriptor.of("a/b", b"hello")
    with pytest.raises(IntegrityError):
        store.push(desc, io.BytesIO(content))
    assert not store.exists(desc)


def test_refuses_a_manifest_that_is_none() -> None:
    store = MemoryStore()
    desc = Descriptor.of(mediatypes.OCI_MANIFEST, b"{}")
    with pytest.raises(InvalidContent):
        store.push(desc, io.BytesIO(b"{}"))
    assert not store.exists(desc)


def test_names_only_what_is_there() -> None:
    store = MemoryStore()
    with pytest.raises(NotFound, match="can't be tagged 1"):
        store.tag(Descriptor.of("a/b", b"absent"), "1")
    image = put_image(store)
    store.tag(image, str(image.digest))
    assert list(store.tags()) == []


def test_removes_names_and_content() -> None:
    store = MemoryStore()
    one, two = put_image(store, layers=[b"1"]), put_image(store, layers=[b"2"])
    for name, desc in [("b", one), ("a", one), ("c", two)]:
        store.tag(desc, name)
    store.untag("a")
    assert list(store.tags()) == ["b", "c"]
    store.delete(Descriptor("other/type", one.digest, one.size))
    assert list(store.tags()) == ["c"]
    assert not store.exists(one)
    for gone in (lambda: store.untag("a"), lambda: store.delete(one), lambda: store.resolve(str(one.digest))):
        with pytest.raises(NotFound):
            gone()


def test_knows_what_refers_to_what_with_kind_and_annotations() -> None:
    store = MemoryStore()
    image = put_image(store)
    signature, sbom = put_artifact(store, image, "signature"), put_artifact(store, image, "sbom")
    about = put_index(store, [], fields={"subject": image.to_json(), "annotations": {"a": "b"}})
    found = {referrer.digest: referrer for referrer in store.referrers(image)}
    assert found.keys() == {signature.digest, sbom.digest, about.digest}
    assert found[signature.digest].artifact_type == "signature"
    assert found[about.digest].annotations == {"a": "b"}
    assert list(store.referrers(image, "sbom")) == [sbom]
    assert list(store.referrers(signature)) == []
    store.delete(sbom)
    assert list(store.referrers(image, "sbom")) == []


def test_may_be_used_from_several_threads() -> None:
    store = MemoryStore()
    subject = put_image(store)

    def work(n: int) -> None:
        for m in range(50):
            artifact = put_artifact(store, subject, f"kind {n} {m}")
            store.tag(artifact, f"{n}-{m}")
            assert store.resolve(f"{n}-{m}") == artifact
            assert artifact in list(store.referrers(subject))
            assert f"{n}-{m}" in list(store.tags())
            store.delete(artifact)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert list(store.tags()) == []
