"""What the distribution specification demands of requests, read from the requests."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from support.registry_images import client, image, manifest_of, memory_image, put, repository

from ocitool import mediatypes
from ocitool.transfer import copy

if TYPE_CHECKING:
    from support.registry_fake import FakeRegistry

SIZE = 50_000


def pushed(fake: FakeRegistry) -> None:
    with client(chunk_size=20_000) as made:
        copy(memory_image(SIZE), repository(made, fake.name), "v1")


def test_a_session_is_opened_with_a_length_of_zero(fake: FakeRegistry) -> None:
    pushed(fake)
    assert {request.headers["content-length"] for request in fake.asked("POST", "/uploads/")} == {"0"}


def test_chunks_follow_each_other_in_the_form_of_the_specification(fake: FakeRegistry) -> None:
    pushed(fake)
    chunks = [request for request in fake.asked("PATCH") if len(request.body) > 1000]  # the layer's
    assert [request.headers["content-range"] for request in chunks] == [
        "0-19999",
        "20000-39999",
        "40000-49999",
    ]
    for request in chunks:
        assert re.fullmatch(r"[0-9]+-[0-9]+", request.headers["content-range"])
        assert request.headers["content-type"] == "application/octet-stream"
        assert int(request.headers["content-length"]) == len(request.body)


def test_a_session_is_closed_with_the_digest_of_the_whole(fake: FakeRegistry) -> None:
    pushed(fake)
    closing = fake.asked("PUT", "/uploads/")
    assert {request.first("digest") for request in closing} == fake.blobs["some/repo"].keys()
    assert all(request.body == b"" for request in closing)


def test_a_manifest_is_pushed_as_what_it_says_it_is(fake: FakeRegistry) -> None:
    pushed(fake)
    for request in fake.asked("PUT", "/manifests/"):
        assert request.headers["content-type"] == json.loads(request.body)["mediaType"]


def test_a_list_that_we_keep_says_what_the_api_would(fake: FakeRegistry) -> None:
    with client() as made:
        repo = repository(made, fake.name)
        subject = image(repo, 10)
        empty = put(repo, mediatypes.OCI_EMPTY, b"{}")
        documents: list[dict[str, object]] = [
            {"artifactType": "application/vnd.example", "annotations": {"a": "b"}},
            {"annotations": {"only": "annotations"}},
            {},
        ]
        for document in documents:
            content = manifest_of(empty, empty, subject=subject.to_json(), **document)
            put(repo, mediatypes.OCI_MANIFEST, content)
        by_api = list(repo.referrers(subject))
    fake.quirks.no_referrers = True
    with client() as made:
        repo = repository(made, fake.name)
        for content in [content for _, content in list(fake.manifests["some/repo"].values())]:
            put(repo, mediatypes.OCI_MANIFEST, content)
        by_tag = list(repo.referrers(subject))
    assert [(d.digest, d.artifact_type, d.annotations) for d in by_tag] == [
        (d.digest, d.artifact_type, d.annotations) for d in by_api
    ]
    assert len(by_tag) == 3
    assert by_tag[1].artifact_type == mediatypes.OCI_EMPTY
