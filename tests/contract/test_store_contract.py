"""What every store promises (see the docstrings of `ocitool.content`)."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import fixtures
from support.layout_content import blob, put, put_artifact, put_index

from ocitool.content import Deleter, Lister, Referrers, Resumer, Source, Store, open_verified, read_verified
from ocitool.errors import IntegrityError, NotFound, OciError, RegistryError, Unsupported
from ocitool.layout import LayoutStore
from ocitool.memory import MemoryStore
from ocitool.registry import RegistryStore
from ocitool.transfer import copy

if TYPE_CHECKING:
    from collections.abc import Callable

    from ocitool.model import Descriptor


def read(store: Source, desc: Descriptor, offset: int = 0) -> bytes:
    with store.fetch(desc, offset=offset) as reader:
        parts = []
        while part := reader.read(1000):
            parts.append(part)
    return b"".join(parts)


def test_it_is_a_store(store: Store) -> None:
    assert isinstance(store, Source)
    assert isinstance(store, Store)


def test_what_was_pushed_is_there_and_can_be_read(store: Store) -> None:
    desc = put(store, b"hello")
    assert store.exists(desc)
    assert read(store, desc) == b"hello"
    assert read_verified(store, desc) == b"hello"


def test_reading_may_start_anywhere(store: Store) -> None:
    content = os.urandom(10_000)
    desc = put(store, content)
    for offset in (0, 1, 9_999):
        assert read(store, desc, offset) == content[offset:]


def test_what_was_not_pushed_is_not_there(store: Store) -> None:
    put(store, b"something else")
    desc = blob(b"hello")
    assert not store.exists(desc)
    with pytest.raises(NotFound), open_verified(store, desc) as reader:
        reader.read()
    with pytest.raises(NotFound):
        store.resolve(str(desc.digest))
    with pytest.raises(NotFound):
        store.resolve("no-such-tag")


def test_an_empty_store_answers_without_complaint(store: Store) -> None:
    assert not store.exists(blob(b"hello"))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [(b"hellO", "another digest"), (b"hell", "too short"), (b"hello!", "too long"), (b"", "nothing")],
)
def test_wrong_bytes_are_refused_and_stay_invisible(store: Store, wrong: bytes, why: str) -> None:
    desc = blob(b"hello")
    with pytest.raises(IntegrityError):
        store.push(desc, io.BytesIO(wrong))
    assert not store.exists(desc)
    store.push(desc, io.BytesIO(b"hello"))
    assert read(store, desc) == b"hello"


class _Breaks:
    """A reader that fails half-way, as a connection does."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def read(self, n: int = -1, /) -> bytes:
        data = self._content.read(n)
        if not data:
            raise OciError("the line went dead")
        return data


def test_a_push_that_breaks_off_leaves_nothing_visible(store: Store) -> None:
    content = os.urandom(100_000)
    desc = blob(content)
    with pytest.raises(OciError, match="the line went dead"):
        store.push(desc, _Breaks(content[:50_000]))
    assert not store.exists(desc)
    store.push(desc, io.BytesIO(content))
    assert read(store, desc) == content


def test_pushing_again_does_no_harm(store: Store) -> None:
    desc = put(store, b"hello")
    store.push(desc, io.BytesIO(b"hello"))
    assert read(store, desc) == b"hello"


def test_one_blob_pushed_by_many_threads_is_whole(store: Store) -> None:
    content = os.urandom(300_000)
    desc = blob(content)
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(store.push, desc, io.BytesIO(content)) for _ in range(8)]:
            done.result()
    assert read(store, desc) == content


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_every_registered_algorithm_names_content(store: Store, algorithm: str) -> None:
    desc = blob(b"hello", algorithm)
    store.push(desc, io.BytesIO(b"hello"))
    assert store.exists(desc)
    assert read(store, desc) == b"hello"


def test_a_tag_names_content(store: Store) -> None:
    desc = put_artifact(store, "one")
    store.tag(desc, "a")
    store.tag(desc, "b")
    assert store.resolve("a") == store.resolve("b") == desc


def test_a_tag_that_exists_moves(store: Store) -> None:
    one, two = put_artifact(store, "one"), put_artifact(store, "two")
    store.tag(one, "a")
    store.tag(two, "a")
    assert store.resolve("a") == two
    assert store.exists(one)


def test_a_digest_names_a_manifest_with_or_without_a_tag(store: Store) -> None:
    desc = put_artifact(store, "one")
    store.tag(desc, str(desc.digest))
    assert store.resolve(str(desc.digest)) == desc
    store.tag(desc, "a")
    assert store.resolve(str(desc.digest)) == desc


def test_content_that_is_not_there_cannot_be_tagged(store: Store) -> None:
    put(store, b"something else")
    other = put_artifact(MemoryStore(), "one")
    with pytest.raises(NotFound):
        store.tag(other, "a")
    with pytest.raises(NotFound):
        store.resolve("a")


def test_names_are_listed_sorted(store: Store) -> None:
    assert isinstance(store, Lister)
    desc = put_artifact(store, "one")
    for tag in ("c", "a", "b"):
        store.tag(desc, tag)
    store.tag(desc, str(desc.digest))
    assert list(store.tags()) == ["a", "b", "c"]


def test_a_name_can_be_removed_and_the_content_stays(store: Store) -> None:
    assert isinstance(store, Deleter)
    desc = put_artifact(store, "one")
    store.tag(desc, "a")
    store.tag(desc, "b")
    try:
        store.untag("a")
    except Unsupported:
        # distribution-spec, "Content Management": "Registries MAY implement deletion or they MAY disable it."
        assert store.resolve("a") == desc
        return
    with pytest.raises(NotFound):
        store.resolve("a")
    assert store.resolve("b") == desc
    with pytest.raises(NotFound):
        store.untag("a")


def test_removed_content_takes_its_names_with_it(store: Store) -> None:
    assert isinstance(store, Deleter)
    one, two = put_artifact(store, "one"), put_artifact(store, "two")
    store.tag(one, "a")
    store.tag(two, "b")
    store.delete(one)
    assert not store.exists(one)
    assert store.resolve("b") == two
    for ref in ("a", str(one.digest)):
        with pytest.raises(NotFound):
            store.resolve(ref)
    with pytest.raises(NotFound):
        store.delete(one)


def test_a_manifest_with_a_subject_is_among_its_referrers(store: Store) -> None:
    assert isinstance(store, Referrers)
    subject = put_artifact(store, "subject")
    store.tag(subject, "a")
    assert list(store.referrers(subject)) == []
    sbom = put_artifact(store, "sbom", subject=subject, kind="text/sbom")
    signature = put_artifact(store, "signature", subject=subject, kind="text/signature")
    found = {desc.digest: desc for desc in store.referrers(subject)}
    assert found.keys() == {sbom.digest, signature.digest}
    # distribution-spec, "Listing Referrers": "The descriptors MUST include annotations from the image
    # manifest or index."
    assert found[sbom.digest].artifact_type == "text/sbom"
    assert found[sbom.digest].annotations == {"text": "sbom"}
    assert [desc.digest for desc in store.referrers(subject, "text/signature")] == [signature.digest]
    assert list(store.referrers(sbom)) == []


def test_a_referrer_that_is_removed_is_listed_no_more(store: Store) -> None:
    assert isinstance(store, Referrers)
    assert isinstance(store, Deleter)
    subject = put_artifact(store, "subject")
    referrer = put_artifact(store, "referrer", subject=subject)
    store.delete(referrer)
    assert list(store.referrers(subject)) == []


def test_a_referrer_may_come_before_its_subject(store: Store) -> None:
    assert isinstance(store, Referrers)
    subject = put_artifact(MemoryStore(), "subject")
    referrer = put_artifact(store, "referrer", subject=subject)
    assert [desc.digest for desc in store.referrers(subject)] == [referrer.digest]


def test_an_interrupted_push_goes_on_where_it_stopped(store: Store) -> None:
    if not isinstance(store, Resumer):
        return  # an ability that a store may lack
    content = os.urandom(200_000)
    desc = blob(content)
    with store.resume(desc) as partial:
        assert partial is not None
        with pytest.raises(OciError, match="dead"):
            partial.push(_Breaks(content[:120_000]))
    assert not store.exists(desc)
    with store.resume(desc) as partial:
        assert partial is not None
        assert 0 < partial.offset <= 120_000
        partial.push(io.BytesIO(content[partial.offset :]))
    assert read(store, desc) == content
    with store.resume(desc) as partial:
        assert partial is None


def test_an_image_comes_back_as_it_went(store: Store) -> None:
    source = LayoutStore(fixtures.layout(), read_only=True)
    root = source.resolve("hello:1.0")
    back = MemoryStore()
    assert copy(source, store, "hello:1.0", to="1.0", referrers=True) == root
    assert copy(store, back, "1.0", referrers=True) == root
    assert [d.digest for d in back.referrers(root)] == [d.digest for d in source.referrers(root)]
    for child in (root, *source.referrers(root)):
        assert read_verified(back, child) == read_verified(source, child)


def test_an_index_may_lack_what_it_lists(store: Store) -> None:
    here, elsewhere = put_artifact(store, "here"), put_artifact(MemoryStore(), "elsewhere")
    with ExitStack() as stack:
        if isinstance(store, RegistryStore):
            # A registry may insist on all parts, and has nothing of the index then.
            stack.enter_context(pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN"))
        index = put_index(store, here, elsewhere)
        store.tag(index, "sparse")
        assert store.resolve("sparse") == index
    assert not store.exists(elsewhere)


@settings(max_examples=15)
@given(contents=st.lists(st.binary(max_size=2000), min_size=1, max_size=5))
def test_any_content_comes_back(new_store: Callable[[], Store], contents: list[bytes]) -> None:
    store = new_store()
    descs = [put(store, content) for content in contents]
    assert [read_verified(store, desc) for desc in descs] == contents
