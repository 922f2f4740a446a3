"""What works with every registry: docker-registry in four configurations, and the fake."""

from __future__ import annotations

import os
import uuid
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from support.registry_images import client, image, manifest_of, memory_image, put, repository

from ocitool import mediatypes
from ocitool.content import Deleter, Lister, Mounter, Referrers, Store, read_verified
from ocitool.errors import IntegrityError, NotFound, Unauthorized
from ocitool.events import Finished
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor
from ocitool.transfer import copy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.registry_process import Real

    from ocitool.registry import Client, RegistryStore

pytestmark = pytest.mark.registry


@pytest.fixture
def opened(real: Real) -> Iterator[Client]:
    with client(real.config) as made:
        yield made


@pytest.fixture
def repo(real: Real, opened: Client) -> RegistryStore:
    return repository(opened, real.name, f"team/app-{uuid.uuid4().hex[:8]}")


def test_it_keeps_the_protocols(repo: RegistryStore) -> None:
    for protocol in (Store, Mounter, Deleter, Referrers, Lister):
        assert isinstance(repo, protocol)


def test_an_image_goes_in_and_comes_out_the_same(repo: RegistryStore) -> None:
    source = memory_image(3_000_000, 10, 0)
    root = copy(source, repo, "v1")
    back = MemoryStore()
    assert copy(repo, back, "v1") == root
    assert back._content == source._content
    assert list(repo.tags()) == ["v1"]


def test_what_is_there_is_not_sent_again(repo: RegistryStore) -> None:
    source = memory_image(100_000)
    copy(source, repo, "v1")
    events: list[object] = []
    copy(source, repo, "v1", to="v2", on_event=events.append)
    assert {event.how for event in events if isinstance(event, Finished)} == {"skipped"}
    assert list(repo.tags()) == ["v1", "v2"]


def test_a_blob_is_mounted_from_the_neighbour_that_has_it(
    real: Real, opened: Client, repo: RegistryStore
) -> None:
    copy(memory_image(100_000), repo, "v1")
    other = repository(opened, real.name, f"team/other-{uuid.uuid4().hex[:8]}")
    events: list[object] = []
    copy(repo, other, "v1", on_event=events.append)
    ways = [event.how for event in events if isinstance(event, Finished)]
    assert ways.count("mounted") == 2


def test_reading_may_start_anywhere(repo: RegistryStore) -> None:
    content = os.urandom(300_000)
    desc = put(repo, mediatypes.OCI_LAYER, content)
    for offset in (0, 1, 299_999, 300_000):
        with repo.fetch(desc, offset=offset) as reader:
            parts = []
            while part := reader.read(100_000):
                parts.append(part)
        assert b"".join(parts) == content[offset:]


@pytest.mark.parametrize("chunk_size", [0, 1000, 262_144])
def test_a_blob_goes_in_chunks_of_any_size(real: Real, chunk_size: int) -> None:
    content = os.urandom(10_000 if chunk_size == 1000 else 3_000_000)
    with client(real.config, chunk_size=chunk_size) as made:
        repo = repository(made, real.name, f"team/chunks-{uuid.uuid4().hex[:8]}")
        desc = put(repo, mediatypes.OCI_LAYER, content)
        assert read_verified(repo, desc) == content


def test_a_stream_that_is_not_what_it_says_is_not_stored(repo: RegistryStore) -> None:
    promised = Descriptor.of(mediatypes.OCI_LAYER, os.urandom(3_000_000))
    for actual in (os.urandom(3_000_000), os.urandom(2_999_999), os.urandom(3_000_001)):
        with pytest.raises(IntegrityError):
            repo.push(promised, BytesIO(actual))
        assert not repo.exists(promised)


def test_what_is_not_there_is_not_found(repo: RegistryStore) -> None:
    copy(memory_image(10), repo, "v1")
    missing = Descriptor.of(mediatypes.OCI_LAYER, b"never pushed")
    assert not repo.exists(missing)
    for ask in ("v2", str(missing.digest)):
        with pytest.raises(NotFound):
            repo.resolve(ask)
    with pytest.raises(NotFound), repo.fetch(missing):
        pass


def test_a_referrer_is_found_whether_the_registry_keeps_lists_or_not(repo: RegistryStore) -> None:
    subject = image(repo, 10)
    empty = put(repo, mediatypes.OCI_EMPTY, b"{}")
    kinds = ("application/vnd.example.sbom", "application/vnd.example.signature")
    pushed = [
        put(
            repo,
            mediatypes.OCI_MANIFEST,
            manifest_of(
                empty,
                empty,
                subject=subject.to_json(),
                artifactType=kind,
                annotations={"org.example.kind": kind},
            ),
        )
        for kind in kinds
    ]
    found = list(repo.referrers(subject))
    assert sorted(found, key=str) == sorted(pushed, key=str)
    assert {item.artifact_type for item in found} == set(kinds)
    assert list(repo.referrers(subject, kinds[0])) == [pushed[0]]
    assert found[0].annotations["org.example.kind"] == found[0].artifact_type
    repo.delete(pushed[0])
    assert list(repo.referrers(subject)) == [pushed[1]]


def test_a_deleted_manifest_is_gone_with_its_names(repo: RegistryStore) -> None:
    desc = image(repo, 10)
    repo.delete(desc)
    assert not repo.exists(desc)
    with pytest.raises(NotFound):
        repo.resolve("v1")
    with pytest.raises(NotFound):
        repo.delete(desc)


def test_wrong_credentials_are_refused_and_not_shown(real: Real) -> None:
    if not real.config.get("password"):
        with client(real.config) as made:
            made.check(real.name, "anyone", "anything")  # who asks nobody lets everybody in
        return
    with client() as made, pytest.raises(Unauthorized) as caught:
        made.check(real.name, "user", "wrong-password")
    assert "wrong-password" not in repr(caught.value) + str(caught.value)
    with client() as made:
        made.check(real.name, "user", "secret-password")


def test_the_catalog_lists_the_repositories(real: Real, opened: Client, repo: RegistryStore) -> None:
    image(repo, 10)
    assert repo.name.partition("/")[2] in list(opened.catalog(real.name))
