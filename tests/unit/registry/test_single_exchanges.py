"""What one request says and one answer means, for registries that no test can run."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import httpx
import pytest
import respx
from support.registry_images import client

from ocitool import mediatypes
from ocitool.digest import Digest
from ocitool.errors import NotFound, RegistryError, Unauthorized
from ocitool.model import Descriptor
from ocitool.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": {"mediaType": mediatypes.OCI_EMPTY, "digest": str(Digest.of(b"{}")), "size": 2},
        "layers": [],
    }
).encode()


@pytest.fixture
def web() -> Iterator[respx.MockRouter]:
    with respx.mock(assert_all_called=True) as router:
        yield router


def test_docker_hub_is_asked_at_its_own_host_for_the_library(web: respx.MockRouter) -> None:
    url = "https://registry-1.docker.io/v2/library/alpine/manifests/3.20"
    headers = {"Content-Type": mediatypes.OCI_MANIFEST, "Docker-Content-Digest": str(Digest.of(MANIFEST))}
    # A HEAD costs no pull there.
    asked = web.head(url).respond(200, headers={**headers, "Content-Length": str(len(MANIFEST))})
    reference = Reference.parse("alpine:3.20")
    with client() as made:
        desc = made.repository(reference).resolve(reference.ref)
    assert desc.digest == Digest.of(MANIFEST)
    sent = asked.calls.last.request
    assert set(mediatypes.MANIFESTS) <= {part.strip() for part in sent.headers["Accept"].split(",")}
    assert sent.headers["Accept-Encoding"] == "identity"
    assert "Authorization" not in sent.headers


def test_an_anonymous_token_is_asked_for_where_the_challenge_says(web: respx.MockRouter) -> None:
    url = "https://registry.example/v2/org/app/manifests/1"
    challenge = 'Bearer realm="https://auth.example/token",service="registry.example"'
    web.get(url).mock(
        side_effect=[
            httpx.Response(401, headers={"WWW-Authenticate": challenge}),
            httpx.Response(200, headers={"Content-Type": mediatypes.OCI_MANIFEST}, content=MANIFEST),
        ]
    )
    tokens = web.get("https://auth.example/token").respond(200, json={"token": "anonymous"})
    with client() as made:
        made.repository(Reference("registry.example", "org/app")).resolve("1")
    assert dict(tokens.calls.last.request.url.params) == {
        "service": "registry.example",
        "scope": "repository:org/app:pull",
    }


def test_the_answer_of_a_registry_that_refuses_is_told_in_its_words(web: respx.MockRouter) -> None:
    web.get("https://registry.example/v2/org/app/manifests/1").respond(
        403, json={"errors": [{"code": "DENIED", "message": "your plan does not include this"}]}
    )
    with client() as made, pytest.raises(Unauthorized, match=r"DENIED.*your plan does not include this"):
        made.repository(Reference("registry.example", "org/app")).resolve("1")


def test_a_registry_that_is_full_is_not_asked_again(web: respx.MockRouter) -> None:
    asked = web.post("https://registry.example/v2/org/app/blobs/uploads/").respond(507)
    with client() as made, pytest.raises(RegistryError) as caught:
        made.repository(Reference("registry.example", "org/app")).push(
            Descriptor.of(mediatypes.OCI_EMPTY, b"{}"), io.BytesIO(b"{}")
        )
    assert (caught.value.status, caught.value.temporary, asked.call_count) == (507, False, 1)


def test_what_is_not_there_is_not_asked_for_again(web: respx.MockRouter) -> None:
    asked = web.get("https://registry.example/v2/org/app/manifests/1").respond(404)
    with client() as made, pytest.raises(NotFound):
        made.repository(Reference("registry.example", "org/app")).resolve("1")
    assert asked.call_count == 1
