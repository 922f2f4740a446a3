"""distribution-spec 1.1.1, "Push": every MUST and SHOULD of it, over HTTP."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from support.serve_registry import (
    INDEX,
    MANIFEST,
    codes,
    descriptor,
    digest_of,
    image,
    index,
    layout_repositories,
    registry,
)

from ocitool import mediatypes

if TYPE_CHECKING:
    from pathlib import Path

    import httpx
    from support.serve_registry import Registry

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
MISSING = "sha256:" + "0" * 64


def _begin(served: Registry, name: str = "a") -> httpx.Response:
    response = served.http.post(f"/v2/{name}/blobs/uploads/", headers={"content-length": "0"})
    assert response.status_code == 202
    return response


def _patch(served: Registry, location: str, chunk: bytes, first: int | None = None) -> httpx.Response:
    headers = {"content-type": "application/octet-stream"}
    if first is not None:
        headers["content-range"] = f"{first}-{first + len(chunk) - 1}"
    return served.http.patch(location, content=chunk, headers=headers)


def _put(served: Registry, location: str, digest: str, content: bytes = b"") -> httpx.Response:
    return served.http.put(location, params={"digest": digest}, content=content)


def test_a_session_begins_with_a_location_that_holds_a_uuid(served: Registry) -> None:
    # "Upon success, the response MUST have a code of `202 Accepted`, and MUST include … Location. The
    # `<location>` MUST contain a UUID representing a unique session ID for the upload to follow."
    first, second = _begin(served), _begin(served)
    assert UUID.search(first.headers["location"])
    assert first.headers["location"] != second.headers["location"]


def test_a_blob_is_pushed_by_post_and_put(served: Registry) -> None:
    content = b"in one piece"
    response = _put(served, _begin(served).headers["location"], digest_of(content), content)
    # "Upon successful completion of the request, the response MUST have code `201 Created` and MUST have the
    # following header: Location … With `<blob-location>` being a pullable blob URL."
    assert response.status_code == 201
    assert served.http.get(response.headers["location"]).content == content


def test_a_blob_is_pushed_by_a_single_post(served: Registry) -> None:
    content = b"in one request"
    response = served.http.post(
        "/v2/a/blobs/uploads/", params={"digest": digest_of(content)}, content=content
    )
    # "Successful completion of the request MUST return a `201 Created` and MUST include … Location".
    assert response.status_code == 201
    assert served.http.get(response.headers["location"]).content == content


def test_a_blob_is_pushed_as_one_stream(served: Registry) -> None:
    pieces = [bytes([n]) * 70_000 for n in range(30)]
    location = _begin(served).headers["location"]
    response = served.http.patch(location, content=iter(pieces))
    assert response.status_code == 202
    response = _put(served, response.headers["location"], digest_of(b"".join(pieces)))
    assert response.status_code == 201
    assert served.http.get(response.headers["location"]).content == b"".join(pieces)


def test_a_blob_is_pushed_in_chunks(served: Registry) -> None:
    begun = _begin(served)
    first = _patch(served, begun.headers["location"], b"01234", 0)
    # "Each successful chunk upload MUST have a `202 Accepted` response code, and MUST have the following
    # headers: Location, Range: 0-<end-of-range>".
    assert (first.status_code, first.headers["range"]) == (202, "0-4")
    second = _patch(served, first.headers["location"], b"56789", 5)
    assert (second.status_code, second.headers["range"]) == (202, "0-9")
    # "The final chunk MAY be uploaded using a `PATCH` request or it MAY be uploaded in the closing `PUT`".
    done = _put(served, second.headers["location"], digest_of(b"0123456789abc"), b"abc")
    assert done.status_code == 201
    assert served.http.get(done.headers["location"]).content == b"0123456789abc"


def test_a_chunk_out_of_order_is_a_416_and_changes_nothing(served: Registry) -> None:
    begun = _begin(served)
    # "The first chunk's range MUST begin with `0`. … If a chunk is uploaded out of order, the registry MUST
    # respond with a `416 Requested Range Not Satisfiable` code."
    assert _patch(served, begun.headers["location"], b"56789", 5).status_code == 416
    first = _patch(served, begun.headers["location"], b"01234", 0)
    again = _patch(served, begun.headers["location"], b"01234", 0)
    gap = _patch(served, begun.headers["location"], b"789", 7)
    assert (again.status_code, gap.status_code) == (416, 416)
    assert again.headers["range"] == "0-4"
    # "To get the current status after a 416 error, issue a `GET` request to a URL `<location>`. The
    # response to an active upload `<location>` MUST be a `204 No Content` response code, and MUST have
    # the following headers: Location, Range".
    status = served.http.get(first.headers["location"])
    assert (status.status_code, status.headers["range"]) == (204, "0-4")
    last = _patch(served, status.headers["location"], b"56789", 5)
    assert _put(served, last.headers["location"], digest_of(b"0123456789")).status_code == 201


def test_a_last_chunk_out_of_order_is_a_416_and_makes_no_blob(served: Registry) -> None:
    first = _patch(served, _begin(served).headers["location"], b"01234", 0)
    last = served.http.put(
        first.headers["location"],
        params={"digest": digest_of(b"01234789")},
        content=b"789",
        headers={"content-range": "7-9"},
    )
    assert last.status_code == 416
    assert served.http.head(f"/v2/a/blobs/{digest_of(b'01234789')}").status_code == 404
    status = served.http.get(first.headers["location"])
    assert (status.status_code, status.headers["range"]) == (204, "0-4")


@pytest.mark.parametrize("header", ["bytes 0-4/10", "0-", "-4", "a-b", "0-4-5"])
def test_a_content_range_against_the_grammar_is_a_400(served: Registry, header: str) -> None:
    location = _begin(served).headers["location"]
    response = served.http.patch(location, content=b"01234", headers={"content-range": header})
    assert response.status_code == 400


def test_a_chunk_longer_than_its_range_is_a_400(served: Registry) -> None:
    location = _begin(served).headers["location"]
    response = served.http.patch(location, content=b"0123456789", headers={"content-range": "0-4"})
    assert (response.status_code, codes(response)) == (400, ["SIZE_INVALID"])


def test_a_session_that_is_not_there_is_a_404(served: Registry) -> None:
    begun = _begin(served)
    elsewhere = begun.headers["location"].replace("/v2/a/", "/v2/b/")
    _begin(served, "b")
    for location in ("/v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000", elsewhere):
        assert codes(served.http.get(location)) == ["BLOB_UPLOAD_UNKNOWN"]
        assert _patch(served, location, b"x").status_code == 404
        assert _put(served, location, digest_of(b"")).status_code == 404


def test_a_session_ends_with_the_blob(served: Registry) -> None:
    location = _begin(served).headers["location"]
    assert _put(served, location, digest_of(b"x"), b"x").status_code == 201
    assert served.http.get(location).status_code == 404


def test_a_session_can_be_cancelled(served: Registry) -> None:
    location = _begin(served).headers["location"]
    _patch(served, location, b"never mind")
    assert served.http.delete(location).status_code == 204
    assert served.http.get(location).status_code == 404


@pytest.mark.parametrize("how", ["put", "post"])
def test_content_of_another_digest_is_refused_and_not_kept(served: Registry, how: str) -> None:
    promised = digest_of(b"promised")
    if how == "put":
        response = _put(served, _begin(served).headers["location"], promised, b"delivered")
    else:
        response = served.http.post("/v2/a/blobs/uploads/", params={"digest": promised}, content=b"delivered")
    assert (response.status_code, codes(response)) == (400, ["DIGEST_INVALID"])
    assert served.http.get(f"/v2/a/blobs/{promised}").status_code == 404
    assert served.http.get(f"/v2/a/blobs/{digest_of(b'delivered')}").status_code == 404


@pytest.mark.parametrize("query", [{}, {"digest": ""}, {"digest": "sha256:x"}])
def test_a_session_is_not_closed_without_a_digest(served: Registry, query: dict[str, str]) -> None:
    # "The closing `PUT` request MUST include the `<digest>` of the whole blob".
    location = _begin(served).headers["location"]
    response = served.http.put(location, params=query, content=b"x")
    assert (response.status_code, codes(response)) == (400, ["DIGEST_INVALID"])


def test_a_blob_is_mounted_from_another_repository(served: Registry) -> None:
    digest = served.push_blob("a", b"shared")
    response = served.http.post("/v2/b/blobs/uploads/", params={"mount": digest, "from": "a"})
    # "The response to a successful mount MUST be `201 Created`, and MUST contain the following header:
    # Location: <blob-location>".
    assert response.status_code == 201
    assert response.headers["location"] == f"/v2/b/blobs/{digest}"
    assert served.http.get(response.headers["location"]).content == b"shared"


@pytest.mark.parametrize(
    "query", [{"mount": MISSING}, {"mount": MISSING, "from": "a"}, {"mount": MISSING, "from": "x"}]
)
def test_a_blob_that_can_not_be_mounted_begins_a_session(served: Registry, query: dict[str, str]) -> None:
    served.push_blob("a", b"something else")
    # "if a registry does not support cross-repository mounting or is unable to mount the requested blob, it
    # SHOULD return a `202`. This indicates that the upload session has begun".
    response = served.http.post("/v2/b/blobs/uploads/", params=query)
    assert response.status_code == 202
    assert _put(served, response.headers["location"], digest_of(b"x"), b"x").status_code == 201


def test_a_manifest_is_kept_byte_for_byte(served: Registry) -> None:
    served.push_image("a", "one")
    raw = json.dumps(image(b"a layer"), indent=7).encode() + b"\n\n"
    response = served.http.put("/v2/a/manifests/odd", content=raw, headers={"content-type": MANIFEST})
    # "The registry MUST store the manifest in the exact byte representation provided by the client. Upon a
    # successful upload, the registry MUST return response code `201 Created`, and MUST have the following
    # header: Location … The `<location>` is a pullable manifest URL. The Docker-Content-Digest header returns
    # the canonical digest of the uploaded blob, and MUST be equal to the client provided digest."
    assert response.status_code == 201
    assert response.headers["docker-content-digest"] == digest_of(raw)
    assert served.http.get(response.headers["location"]).content == raw
    assert served.http.get("/v2/a/manifests/odd").content == raw


def test_a_manifest_is_pushed_by_digest(served: Registry) -> None:
    served.push_blob("a", b"{}")
    document = image()
    assert served.push_manifest("a", digest_of(document), document).status_code == 201
    assert served.http.get(f"/v2/a/manifests/{digest_of(document)}").json() == document
    assert served.http.get("/v2/a/tags/list").json()["tags"] == []


def test_a_manifest_of_another_digest_is_refused(served: Registry) -> None:
    served.push_blob("a", b"{}")
    response = served.push_manifest("a", MISSING, image())
    assert (response.status_code, codes(response)) == (400, ["DIGEST_INVALID"])


def test_another_manifest_under_a_digest_that_is_there_is_refused(served: Registry) -> None:
    there = served.push_image("a", "1.0")
    other = served.push_image("a", "2.0", b"b layer")  # as many bytes
    reference = digest_of(json.dumps(there).encode())
    response = served.push_manifest("a", reference, other)
    assert (response.status_code, codes(response)) == (400, ["DIGEST_INVALID"])


def test_parameters_of_the_content_type_are_ignored(served: Registry) -> None:
    served.push_blob("a", b"{}")
    # "The registry SHOULD ignore parameters on the `Content-Type` header."
    response = served.http.put(
        "/v2/a/manifests/one",
        content=json.dumps(image()),
        headers={"content-type": f"{MANIFEST}; charset=utf-8"},
    )
    assert response.status_code == 201
    assert served.http.get("/v2/a/manifests/one").headers["content-type"] == MANIFEST


@pytest.mark.parametrize(
    ("raw", "media_type"),
    [
        (b"", MANIFEST),
        (b"{}", MANIFEST),
        (b"not JSON", MANIFEST),
        (b"[]", MANIFEST),
        (json.dumps(image()).encode(), INDEX),
        (json.dumps(index()).encode(), MANIFEST),
        (json.dumps({**image(), "manifests": []}).encode(), MANIFEST),
        (json.dumps({**image(), "schemaVersion": 1}).encode(), MANIFEST),
        (json.dumps({**image(), "config": {"digest": "sha256:x"}}).encode(), MANIFEST),
        (b"{}", "application/json"),
        (json.dumps({"schemaVersion": 2, "config": descriptor(b"{}"), "layers": []}).encode(), "text/plain"),
        (b"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    ],
)
def test_what_is_no_manifest_is_refused(served: Registry, raw: bytes, media_type: str) -> None:
    served.push_blob("a", b"{}")
    response = served.http.put("/v2/a/manifests/bad", content=raw, headers={"content-type": media_type})
    assert (response.status_code, codes(response)) == (400, ["MANIFEST_INVALID"])
    assert served.http.get("/v2/a/manifests/bad").status_code == 404


@pytest.mark.parametrize("tag", ["-x", ".x", "a" * 129, "a b"])
def test_a_tag_against_the_grammar_is_refused(served: Registry, tag: str) -> None:
    served.push_blob("a", b"{}")
    # "`<reference>` as a tag MUST be at most 128 characters in length and MUST match the following regular
    # expression: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}".
    assert served.push_manifest("a", tag, image()).status_code == 400


def test_a_manifest_whose_blobs_are_missing_is_refused(served: Registry) -> None:
    served.push_blob("a", b"{}")
    response = served.push_manifest("a", "one", image(b"missing", b"missing too"))
    # "When a manifest is rejected for this reason, it MUST result in one or more `MANIFEST_BLOB_UNKNOWN`
    # errors".
    assert (response.status_code, codes(response)) == (400, ["MANIFEST_BLOB_UNKNOWN"])
    assert [missing["digest"] for missing in response.json()["errors"][0]["detail"]] == [
        digest_of(b"missing"),
        digest_of(b"missing too"),
    ]


def test_an_index_whose_manifests_are_missing_is_refused(served: Registry) -> None:
    served.push_blob("a", b"{}")
    response = served.push_manifest("a", "many", index(image()))
    assert (response.status_code, codes(response)) == (400, ["MANIFEST_BLOB_UNKNOWN"])


def test_a_sparse_index_is_taken_where_that_is_wanted(tmp_path: Path) -> None:
    with registry(layout_repositories(tmp_path / "layout"), sparse_indexes=True) as served:
        here, missing = served.push_image("a", "one"), image(annotations={"not": "here"})
        assert served.push_manifest("a", "many", index(here, missing)).status_code == 201
        assert served.http.get("/v2/a/manifests/many").json() == index(here, missing)
        assert served.http.get(f"/v2/a/manifests/{digest_of(missing)}").status_code == 404
        # Later it may become whole.
        assert served.push_manifest("a", digest_of(missing), missing).status_code == 201
        # What an image is made of has to be there all the same.
        assert served.push_manifest("a", "bad", image(b"missing")).status_code == 400


def test_a_layer_that_may_not_be_distributed_need_not_be_here(served: Registry) -> None:
    served.push_blob("a", b"{}")
    foreign = descriptor(b"elsewhere", mediatypes.OCI_LAYER_NONDISTRIBUTABLE + "+gzip")
    assert served.push_manifest("a", "one", {**image(), "layers": [foreign]}).status_code == 201


def test_the_largest_manifest_is_taken_and_a_larger_one_is_a_413(served: Registry) -> None:
    served.push_blob("a", b"{}")
    # "Client and registry implementations SHOULD expect to be able to support manifest pushes of at least 4
    # megabytes."
    document = image(annotations={"padding": ""})
    room = 4 * 2**20 - len(json.dumps(document))
    document["annotations"]["padding"] = "x" * room
    assert served.push_manifest("a", "large", document).status_code == 201
    assert served.http.get("/v2/a/manifests/large").json() == document
    document["annotations"]["padding"] += "x"
    # "A registry that enforces this limit SHOULD respond to a request to push a manifest over this limit
    # with a response code `413 Payload Too Large`."
    assert served.push_manifest("a", "larger", document).status_code == 413
    streamed = served.http.put(
        "/v2/a/manifests/larger",
        content=iter([json.dumps(document).encode()]),
        headers={"content-type": MANIFEST},
    )
    assert streamed.status_code == 413


def test_a_referrer_is_acknowledged_even_before_its_subject(served: Registry) -> None:
    served.push_blob("a", b"{}")
    subject = image(annotations={"not": "pushed yet"})
    # "A registry MUST initially accept an otherwise valid manifest with a `subject` field that references a
    # manifest that does not exist in the repository". "a registry implementation that supports the referrers
    # API MUST respond with the response header `OCI-Subject: <subject digest>`".
    response = served.push_manifest("a", "referrer", image(subject=descriptor(subject)))
    assert response.status_code == 201
    assert response.headers["oci-subject"] == digest_of(subject)


def test_a_manifest_without_subject_acknowledges_none(served: Registry) -> None:
    served.push_blob("a", b"{}")
    assert "oci-subject" not in served.push_manifest("a", "one", image()).headers


def test_a_tag_is_moved_only_from_what_the_client_has_seen(served: Registry) -> None:
    # "The client MAY use conditional HTTP requests to prevent overwriting a referrers list that has changed
    # since it was first pulled."
    served.push_image("a", "one")
    seen = served.http.head("/v2/a/manifests/one").headers["etag"]
    newer, newest = image(annotations={"n": "2"}), image(annotations={"n": "3"})

    def put(document: object, **conditions: str) -> int:
        headers = {
            "content-type": MANIFEST,
            **{key.replace("_", "-"): value for key, value in conditions.items()},
        }
        return served.http.put(
            "/v2/a/manifests/one", content=json.dumps(document), headers=headers
        ).status_code

    assert put(newer, if_none_match="*") == 412
    assert put(newer, if_match=seen) == 201
    assert put(newest, if_match=seen) == 412
    assert served.http.get("/v2/a/manifests/one").json() == newer
    response = served.http.put(
        "/v2/a/manifests/new",
        content=json.dumps(newest),
        headers={"content-type": MANIFEST, "if-none-match": "*"},
    )
    assert response.status_code == 201
