"""distribution-spec 1.1.1, "Pull": every MUST and SHOULD of it, over HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.serve_registry import MANIFEST, codes, digest_of, image, index

if TYPE_CHECKING:
    from support.serve_registry import Registry

MISSING = "sha256:" + "0" * 64


def test_the_base_says_that_this_is_a_registry(served: Registry) -> None:
    # "If the response is `200 OK`, then the registry implements this specification."
    assert served.http.get("/v2/").status_code == 200
    assert served.http.get("/v2").status_code == 200


@pytest.mark.parametrize("by", ["tag", "digest"])
def test_a_manifest_is_pulled_by_tag_and_by_digest(served: Registry, by: str) -> None:
    document = served.push_image("a/b", "one")
    reference = "one" if by == "tag" else digest_of(document)
    response = served.http.get(f"/v2/a/b/manifests/{reference}", headers={"accept": MANIFEST})
    # "A GET request to an existing manifest URL MUST provide the expected manifest, with a response code that
    # MUST be `200 OK`. A successful response SHOULD contain the digest of the uploaded blob in the header
    # `Docker-Content-Digest`."
    assert response.status_code == 200
    assert response.content == json.dumps(document).encode()
    assert response.headers["docker-content-digest"] == digest_of(document)
    # "The registry SHOULD NOT include parameters on the `Content-Type` header."
    assert response.headers["content-type"] == MANIFEST


def test_an_index_is_pulled_with_its_own_type(served: Registry) -> None:
    document = served.push_image("a", "one")
    listed = index(document)
    assert served.push_manifest("a", "many", listed).status_code == 201
    response = served.http.get("/v2/a/manifests/many")
    assert response.headers["content-type"] == listed["mediaType"]
    assert response.json() == listed


@pytest.mark.parametrize("reference", ["absent", ".INVALID_MANIFEST_NAME", MISSING])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_manifest_that_is_not_there_is_a_404(served: Registry, reference: str, method: str) -> None:
    served.push_image("a", "one")
    # "If the manifest is not found in the repository, the response code MUST be `404 Not Found`."
    response = served.http.request(method, f"/v2/a/manifests/{reference}")
    assert response.status_code == 404
    assert method == "HEAD" or codes(response) == ["MANIFEST_UNKNOWN"]


def test_a_blob_is_no_manifest(served: Registry) -> None:
    served.push_image("a", "one")
    others = (
        b'{"mediaType":"text/plain"}',
        bytes((4 << 20) + 1),
    )  # one that says so, and one too large to ask
    for content in others:
        served.push_blob("a", content)
    for content in (b"{}", b"a layer", *others):
        assert served.http.get(f"/v2/a/manifests/{digest_of(content)}").status_code == 404
        assert served.http.head(f"/v2/a/manifests/{digest_of(content)}").status_code == 404


def test_a_repository_that_is_not_there_is_a_404(served: Registry) -> None:
    # "An attempt to pull a nonexistent repository MUST return response code `404 Not Found`."
    for path in ("manifests/latest", f"manifests/{MISSING}", f"blobs/{MISSING}", "tags/list"):
        response = served.http.get(f"/v2/no/such/{path}")
        assert response.status_code == 404
        assert codes(response) == ["NAME_UNKNOWN"]


def test_a_blob_is_pulled_whole(served: Registry) -> None:
    content = bytes(range(256)) * 20_000
    digest = served.push_blob("a", content)
    # "A GET request to an existing blob URL MUST provide the expected blob, with a response code that MUST be
    # `200 OK`. … If present, the value of this header MUST be a digest matching that of the response body."
    response = served.http.get(f"/v2/a/blobs/{digest}")
    assert response.status_code == 200
    assert response.content == content
    assert response.headers["docker-content-digest"] == digest
    assert response.headers["content-length"] == str(len(content))


def test_an_empty_blob_is_pulled_too(served: Registry) -> None:
    digest = served.push_blob("a", b"")
    response = served.http.get(f"/v2/a/blobs/{digest}")
    assert (response.status_code, response.content) == (200, b"")


def test_a_blob_of_another_algorithm_is_pulled(served: Registry) -> None:
    content = b"sha512"
    digest = digest_of(content, "sha512")
    begun = served.http.post("/v2/a/blobs/uploads/")
    done = served.http.put(begun.headers["location"], params={"digest": digest}, content=content)
    assert done.status_code == 201
    assert served.http.get(f"/v2/a/blobs/{digest}").content == content


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_blob_that_is_not_there_is_a_404(served: Registry, method: str) -> None:
    served.push_blob("a", b"something else")
    # "If the blob is not found in the repository, the response code MUST be `404 Not Found`."
    response = served.http.request(method, f"/v2/a/blobs/{MISSING}")
    assert response.status_code == 404
    assert method == "HEAD" or codes(response) == ["BLOB_UNKNOWN"]


@pytest.mark.parametrize("digest", ["sha256:abc", "nothing", "sha256:" + "G" * 64, "sha1:" + "0" * 40])
def test_what_is_no_digest_is_a_400(served: Registry, digest: str) -> None:
    served.push_blob("a", b"")
    response = served.http.get(f"/v2/a/blobs/{digest}")
    assert response.status_code == 400
    assert codes(response) in (["DIGEST_INVALID"], ["UNSUPPORTED"])


def test_head_says_what_get_would(served: Registry) -> None:
    document = served.push_image("a", "one")
    for path in ("manifests/one", f"manifests/{digest_of(document)}", f"blobs/{digest_of(b'a layer')}"):
        got = served.http.get(f"/v2/a/{path}")
        head = served.http.head(f"/v2/a/{path}")
        # "A HEAD request to an existing blob or manifest URL MUST return `200 OK`. A successful response
        # SHOULD contain the size in bytes of the uploaded blob in the header `Content-Length`."
        assert head.status_code == 200
        assert head.content == b""
        same = ("content-length", "content-type", "docker-content-digest", "etag")
        assert {name: head.headers[name] for name in same} == {name: got.headers[name] for name in same}


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=2-5", 2, 5),
        ("bytes=5-", 5, 9),
        ("bytes=-3", 7, 9),
        ("bytes=-100", 0, 9),
        ("bytes=8-100", 8, 9),
        ("bytes=0-9", 0, 9),
    ],
)
def test_a_range_of_a_blob_is_pulled(served: Registry, asked: str, first: int, last: int) -> None:
    # "A registry SHOULD support the `Range` request header in accordance with RFC 9110."
    content = b"0123456789"
    digest = served.push_blob("a", content)
    response = served.http.get(f"/v2/a/blobs/{digest}", headers={"range": asked})
    assert response.status_code == 206
    assert response.content == content[first : last + 1]
    assert response.headers["content-range"] == f"bytes {first}-{last}/10"
    assert response.headers["content-length"] == str(last + 1 - first)


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=5-2", "bytes=9999999999-"])
def test_a_range_that_holds_nothing_of_the_blob_is_a_416(served: Registry, asked: str) -> None:
    digest = served.push_blob("a", b"0123456789")
    response = served.http.get(f"/v2/a/blobs/{digest}", headers={"range": asked})
    assert response.status_code == 416
    assert response.headers["content-range"] == "bytes */10"


@pytest.mark.parametrize("asked", ["bytes=1-2,4-5", "lines=1-2", "bytes=a-b", "bytes=-", "x"])
def test_what_is_no_single_range_is_all_of_the_blob(served: Registry, asked: str) -> None:
    digest = served.push_blob("a", b"0123456789")
    response = served.http.get(f"/v2/a/blobs/{digest}", headers={"range": asked})
    assert (response.status_code, response.content) == (200, b"0123456789")


def test_a_range_counts_only_for_the_entity_that_the_client_has(served: Registry) -> None:
    digest = served.push_blob("a", b"0123456789")
    path = f"/v2/a/blobs/{digest}"
    same = {"range": "bytes=5-", "if-range": f'"{digest}"'}
    other = {"range": "bytes=5-", "if-range": f'"{MISSING}"'}
    assert served.http.get(path, headers=same).status_code == 206
    assert served.http.get(path, headers=other).status_code == 200


def test_what_the_client_has_already_is_not_sent_again(served: Registry) -> None:
    document = served.push_image("a", "one")
    for path in ("manifests/one", f"manifests/{digest_of(document)}", f"blobs/{digest_of(b'a layer')}"):
        tag = served.http.head(f"/v2/a/{path}").headers["etag"]
        for method in ("GET", "HEAD"):
            response = served.http.request(
                method, f"/v2/a/{path}", headers={"if-none-match": f'W/{tag}, "x"'}
            )
            assert (response.status_code, response.content) == (304, b"")
        assert served.http.get(f"/v2/a/{path}", headers={"if-none-match": '"x"'}).status_code == 200


@pytest.mark.parametrize("name", ["A/b", "a//b", "a/-b", "a" * 300, "a/b_", "a/..", "ä"])
def test_a_name_against_the_grammar_is_a_400(served: Registry, name: str) -> None:
    # "Throughout this document, `<name>` MUST match the following regular expression".
    response = served.http.get(f"/v2/{name}/manifests/latest")
    assert response.status_code in {400, 404}
    assert codes(response)[0] in {"NAME_INVALID", "UNSUPPORTED"}


@pytest.mark.parametrize(
    "name", ["a", "a.b", "a_b", "a__b", "a-b/c---d", "0/1", "blobs/uploads", "tags/list"]
)
def test_a_name_within_the_grammar_is_taken(served: Registry, name: str) -> None:
    document = served.push_image(name, "one")
    assert served.http.get(f"/v2/{name}/manifests/one").json() == document
    assert served.http.get(f"/v2/{name}/tags/list").json() == {"name": name, "tags": ["one"]}


def test_an_error_has_the_form_of_the_specification(served: Registry) -> None:
    body = served.http.get(f"/v2/a/blobs/{MISSING}").json()
    # "If the response body is in JSON format, it MUST have the following format".
    assert list(body) == ["errors"]
    assert set(body["errors"][0]) <= {"code", "message", "detail"}


def test_a_path_that_is_none_is_a_404_and_a_method_that_is_none_a_405(served: Registry) -> None:
    assert served.http.get("/").status_code == 404
    assert served.http.get("/v2/a/unknown/x").status_code == 404
    refused = served.http.request("POST", "/v2/a/manifests/one")
    assert refused.status_code == 405
    assert "PUT" in refused.headers["allow"]


def test_an_image_stays_what_it_was_after_its_tag_has_moved(served: Registry) -> None:
    first = served.push_image("a", "one")
    second = served.push_image("a", "one", b"another layer")
    assert served.http.get("/v2/a/manifests/one").json() == second
    assert served.http.get(f"/v2/a/manifests/{digest_of(first)}").json() == first
    assert image(b"a layer") == first
