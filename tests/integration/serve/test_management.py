"""distribution-spec 1.1.1, "Content Management": every MUST of it, over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.serve_registry import (
    MemoryRepositories,
    codes,
    descriptor,
    digest_of,
    image,
    layout_repositories,
    registry,
)

if TYPE_CHECKING:
    from pathlib import Path

    from support.serve_registry import Registry

MISSING = "sha256:" + "0" * 64


def test_a_deleted_tag_is_gone_and_its_manifest_is_not(served: Registry) -> None:
    document = served.push_image("a", "one")
    served.push_manifest("a", "two", document)
    # "Upon success, the registry MUST respond with a `202 Accepted` code. … Once deleted, a `GET` to
    # `/v2/<name>/manifests/<tag>` will return a 404."
    assert served.http.delete("/v2/a/manifests/one").status_code == 202
    assert served.http.get("/v2/a/manifests/one").status_code == 404
    assert served.http.get("/v2/a/tags/list").json()["tags"] == ["two"]
    assert served.http.get(f"/v2/a/manifests/{digest_of(document)}").json() == document


def test_a_deleted_manifest_is_gone_with_all_its_tags(served: Registry) -> None:
    document = served.push_image("a", "one")
    served.push_manifest("a", "two", document)
    served.push_image("a", "other", b"another layer")
    # "Once deleted, a `GET` to `/v2/<name>/manifests/<digest>` and any tag pointing to that digest will
    # return a 404."
    assert served.http.delete(f"/v2/a/manifests/{digest_of(document)}").status_code == 202
    for reference in ("one", "two", digest_of(document)):
        assert served.http.get(f"/v2/a/manifests/{reference}").status_code == 404
    assert served.http.get("/v2/a/tags/list").json()["tags"] == ["other"]


def test_a_deleted_blob_is_gone(served: Registry) -> None:
    digest = served.push_blob("a", b"to be deleted")
    # "Upon success, the registry MUST respond with code `202 Accepted`."
    assert served.http.delete(f"/v2/a/blobs/{digest}").status_code == 202
    assert served.http.get(f"/v2/a/blobs/{digest}").status_code == 404
    # "If the blob is not found, a `404 Not Found` code MUST be returned."
    assert served.http.delete(f"/v2/a/blobs/{digest}").status_code == 404


def test_what_was_deleted_can_be_pushed_again(served: Registry) -> None:
    document = served.push_image("a", "one")
    served.http.delete(f"/v2/a/manifests/{digest_of(document)}")
    served.http.delete(f"/v2/a/blobs/{digest_of(b'a layer')}")
    assert served.push_image("a", "one") == document
    assert served.http.get("/v2/a/manifests/one").json() == document
    assert served.http.get(f"/v2/a/blobs/{digest_of(b'a layer')}").content == b"a layer"


def test_what_is_not_there_can_not_be_deleted(served: Registry) -> None:
    served.push_image("a", "one")
    # "If the repository does not exist, the response MUST return `404 Not Found`."
    for path in (
        "a/manifests/absent",
        f"a/manifests/{MISSING}",
        f"a/blobs/{MISSING}",
        f"x/manifests/{MISSING}",
    ):
        assert served.http.delete(f"/v2/{path}").status_code == 404


def test_a_deleted_referrer_is_listed_no_more(served: Registry) -> None:
    subject = served.push_image("a", "one")
    referrer = image(subject=descriptor(subject), artifactType="application/x.sbom")
    served.push_manifest("a", digest_of(referrer), referrer)
    served.http.delete(f"/v2/a/manifests/{digest_of(referrer)}")
    assert served.http.get(f"/v2/a/referrers/{digest_of(subject)}").json()["manifests"] == []


def test_deletion_in_one_repository_leaves_another_whole(served: Registry) -> None:
    document = served.push_image("a", "one")
    served.push_image("b", "one")
    served.http.delete(f"/v2/a/manifests/{digest_of(document)}")
    served.http.delete(f"/v2/a/blobs/{digest_of(b'a layer')}")
    assert served.http.get(f"/v2/a/blobs/{digest_of(b'a layer')}").status_code == 404
    assert served.http.get("/v2/b/manifests/one").json() == document
    assert served.http.get(f"/v2/b/blobs/{digest_of(b'a layer')}").content == b"a layer"


def test_deletion_that_is_disabled_is_a_405() -> None:
    with registry(MemoryRepositories(), allow_delete=False) as served:
        document = served.push_image("a", "one")
        # "If tag deletion is disabled, the registry MUST respond with either a `400 Bad Request` or a `405
        # Method Not Allowed`."
        for path in ("manifests/one", f"manifests/{digest_of(document)}", f"blobs/{digest_of(b'a layer')}"):
            response = served.http.delete(f"/v2/a/{path}")
            assert (response.status_code, codes(response)) == (405, ["UNSUPPORTED"])
        assert served.http.get("/v2/a/manifests/one").json() == document


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "a/blobs/uploads/"),
        ("PATCH", "a/blobs/uploads/begun-before"),
        ("PUT", f"a/blobs/uploads/begun-before?digest={MISSING}"),
        ("PUT", "a/manifests/one"),
        ("DELETE", "a/manifests/one"),
        ("DELETE", f"a/blobs/{MISSING}"),
    ],
)
def test_a_read_only_registry_changes_nothing(method: str, path: str, tmp_path: Path) -> None:
    repositories = layout_repositories(tmp_path / "layout")
    with registry(repositories) as served:
        document = served.push_image("a", "one")
    with registry(repositories, read_only=True) as served:
        response = served.http.request(method, f"/v2/{path}")
        assert (response.status_code, codes(response)) == (405, ["UNSUPPORTED"])
        assert served.http.get("/v2/a/manifests/one").json() == document
