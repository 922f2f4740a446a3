"""distribution-spec 1.1.1, "Content Discovery": every MUST and SHOULD of it, over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.serve_registry import INDEX, codes, descriptor, digest_of, image, index

if TYPE_CHECKING:
    from support.serve_registry import Registry

MISSING = "sha256:" + "0" * 64


def _tags(served: Registry, **query: str) -> list[str]:
    response = served.http.get("/v2/a/tags/list", params=query)
    assert response.status_code == 200
    assert response.json()["name"] == "a"
    tags: list[str] = response.json()["tags"]
    return tags


def _push_tags(served: Registry, *tags: str) -> None:
    served.push_blob("a", b"{}")
    for tag in tags:
        assert served.push_manifest("a", tag, image()).status_code == 201


def test_tags_are_listed_in_lexical_order_without_regard_to_case(served: Registry) -> None:
    _push_tags(served, "b", "A", "c", "B1", "a1", "10", "9", "_x")
    # "If the list is not empty, the tags MUST be in lexical order (i.e. case-insensitive alphanumeric
    # order)."
    tags = _tags(served)
    assert tags == sorted(tags, key=str.lower)
    assert set(tags) == {"b", "A", "c", "B1", "a1", "10", "9", "_x"}


def test_a_repository_without_tags_has_an_empty_list(served: Registry) -> None:
    served.push_blob("a", b"{}")
    # "The list of tags MAY be empty if there are no tags on the repository."
    assert _tags(served) == []


def test_pages_of_tags_are_all_the_tags(served: Registry) -> None:
    expected = [f"t{n:02}" for n in range(7)]
    _push_tags(served, *expected)
    seen: list[str] = []
    path: str | None = "/v2/a/tags/list?n=3"
    pages = 0
    while path:
        response = served.http.get(path)
        seen += response.json()["tags"]
        # "If included, the `Link` header MUST be set according to RFC5988 with the Relation Type
        # `rel="next"`."
        path = response.links["next"]["url"] if "next" in response.links else None
        pages += 1
    assert (seen, pages) == (expected, 3)


def test_the_last_page_has_no_link(served: Registry) -> None:
    _push_tags(served, "a", "b")
    assert "link" not in served.http.get("/v2/a/tags/list?n=2").headers
    assert "link" not in served.http.get("/v2/a/tags/list?n=100").headers


def test_no_tags_are_listed_where_none_are_wanted(served: Registry) -> None:
    _push_tags(served, "a", "b")
    # "When `n` is zero, this endpoint MUST return an empty list, and MUST NOT include a `Link` header."
    response = served.http.get("/v2/a/tags/list?n=0")
    assert response.json()["tags"] == []
    assert "link" not in response.headers


def test_last_is_not_in_the_list_and_need_not_be_a_tag(served: Registry) -> None:
    _push_tags(served, "a", "b", "c", "d")
    # "`<tagname>` will not be included in the results, but up to `<int>` tags after `<tagname>` will be
    # returned." "When using the `last` query parameter, the `n` parameter is OPTIONAL."
    assert _tags(served, n="2", last="a") == ["b", "c"]
    assert _tags(served, last="b") == ["c", "d"]
    assert _tags(served, last="bb") == ["c", "d"]
    assert _tags(served, last="z") == []


@pytest.mark.parametrize("n", ["-1", "x", "", "1" * 30, "1.5"])
def test_a_number_of_tags_that_is_none_is_a_400(served: Registry, n: str) -> None:
    _push_tags(served, "a")
    assert served.http.get("/v2/a/tags/list", params={"n": n}).status_code == 400


def test_the_catalogue_lists_repositories_in_pages(served: Registry) -> None:
    for name in ("c", "a/b", "b"):
        served.push_image(name, "one")
    assert served.http.get("/v2/_catalog").json() == {"repositories": ["a/b", "b", "c"]}
    page = served.http.get("/v2/_catalog?n=2")
    assert page.json() == {"repositories": ["a/b", "b"]}
    assert served.http.get(page.links["next"]["url"]).json() == {"repositories": ["c"]}


def _referrers(served: Registry, digest: str, **query: str) -> list[dict[str, Any]]:
    response = served.http.get(f"/v2/a/referrers/{digest}", params=query)
    # "Assuming a repository is found, this request MUST return a `200 OK` response code. … the response
    # MUST be a JSON body with an image index containing a list of descriptors. The `Content-Type` header
    # MUST be set to `application/vnd.oci.image.index.v1+json`."
    assert response.status_code == 200
    assert response.headers["content-type"] == INDEX
    body = response.json()
    assert (body["schemaVersion"], body["mediaType"]) == (2, INDEX)
    manifests: list[dict[str, Any]] = body["manifests"]
    return manifests


def test_referrers_are_listed_with_type_and_annotations(served: Registry) -> None:
    subject = served.push_image("a", "one")
    about = descriptor(subject)
    typed = image(subject=about, artifactType="application/x.sbom", annotations={"by": "type"})
    by_config = image(subject=about, config_type="application/x.signature", annotations={"by": "config"})
    listed = index(subject=about, annotations={"by": "index"})
    listed_typed = index(subject=about, artifactType="application/x.bundle")
    for document in (typed, by_config, listed, listed_typed):
        assert served.push_manifest("a", digest_of(document), document).status_code == 201

    found = {entry["digest"]: entry for entry in _referrers(served, digest_of(subject))}
    # "The descriptors MUST include an `artifactType` field that is set to the value of the `artifactType` in
    # the image manifest or index, if present."
    assert found[digest_of(typed)]["artifactType"] == "application/x.sbom"
    assert found[digest_of(listed_typed)]["artifactType"] == "application/x.bundle"
    # "If the `artifactType` is empty or missing in the image manifest, the value of `artifactType` MUST
    # be set to the config descriptor `mediaType` value."
    assert found[digest_of(by_config)]["artifactType"] == "application/x.signature"
    # "If the `artifactType` is empty or missing in an index, the `artifactType` MUST be omitted."
    assert "artifactType" not in found[digest_of(listed)]
    # "The descriptors MUST include annotations from the image manifest or index."
    assert found[digest_of(typed)]["annotations"] == {"by": "type"}
    assert found[digest_of(listed)]["annotations"] == {"by": "index"}
    assert len(found) == 4
    for document in (typed, by_config, listed, listed_typed):
        entry = found[digest_of(document)]
        assert {key: entry[key] for key in ("mediaType", "digest", "size")} == descriptor(document)


def test_referrers_are_filtered_by_type(served: Registry) -> None:
    subject = served.push_image("a", "one")
    for kind in ("application/x.one", "application/x.two"):
        document = image(subject=descriptor(subject), artifactType=kind)
        served.push_manifest("a", digest_of(document), document)
    # "If filtering is requested and applied, the response MUST include a header `OCI-Filters-Applied:
    # artifactType` denoting that an `artifactType` filter was applied."
    path = f"/v2/a/referrers/{digest_of(subject)}"
    response = served.http.get(path, params={"artifactType": "application/x.two"})
    assert response.headers["oci-filters-applied"] == "artifactType"
    assert [entry["artifactType"] for entry in response.json()["manifests"]] == ["application/x.two"]
    assert "oci-filters-applied" not in served.http.get(path).headers


def test_what_nothing_refers_to_has_an_empty_list(served: Registry) -> None:
    subject = served.push_image("a", "one")
    # "If a query results in no matching referrers, an empty manifest list MUST be returned." "If the registry
    # supports the referrers API, the registry MUST NOT return a `404 Not Found` to a referrers API requests."
    assert _referrers(served, digest_of(subject)) == []
    assert _referrers(served, MISSING) == []
    assert served.http.get(f"/v2/never/seen/referrers/{MISSING}").status_code == 200


def test_referrers_of_what_is_not_pushed_yet_are_listed(served: Registry) -> None:
    served.push_blob("a", b"{}")
    subject = image(annotations={"not": "yet"})
    document = image(subject=descriptor(subject))
    served.push_manifest("a", digest_of(document), document)
    assert [entry["digest"] for entry in _referrers(served, digest_of(subject))] == [digest_of(document)]


@pytest.mark.parametrize("digest", ["latest", "sha256:abc", "sha256"])
def test_referrers_of_what_is_no_digest_are_a_400(served: Registry, digest: str) -> None:
    served.push_blob("a", b"{}")
    # "If the request is invalid, such as a `<digest>` with an invalid syntax, a `400 Bad Request` MUST be
    # returned."
    response = served.http.get(f"/v2/a/referrers/{digest}")
    assert (response.status_code, codes(response)) == (400, ["DIGEST_INVALID"])


def test_referrers_that_a_client_keeps_under_a_tag_are_listed_once(served: Registry) -> None:
    subject = served.push_image("a", "one")
    real = image(subject=descriptor(subject), artifactType="application/x.sbom", annotations={"k": "v"})
    unrelated = image(annotations={"refers": "to nothing"})
    for document in (real, unrelated):
        served.push_manifest("a", digest_of(document), document)
    # "Registries MUST include preexisting image manifests that are listed in an image index tagged with the
    # referrers tag schema and have a valid `subject` field in the referrers API response."
    tag = digest_of(subject).replace(":", "-")
    assert served.push_manifest("a", tag, index(real, unrelated)).status_code == 201
    assert [entry["digest"] for entry in _referrers(served, digest_of(subject))] == [digest_of(real)]


def test_many_referrers_come_in_pages(served: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocitool.serve.discovery._REFERRERS_PER_PAGE", 2)
    subject = served.push_image("a", "one")
    expected = set()
    for n in range(5):
        document = image(
            subject=descriptor(subject), artifactType="application/x.n", annotations={"n": str(n)}
        )
        served.push_manifest("a", digest_of(document), document)
        expected.add(digest_of(document))
    seen: list[str] = []
    path: str | None = f"/v2/a/referrers/{digest_of(subject)}?artifactType=application/x.n"
    while path:
        # "A `Link` header MUST be included in the response when the descriptor list cannot be returned in a
        # single manifest. Each response is an image index with different descriptors".
        response = served.http.get(path)
        assert len(response.json()["manifests"]) <= 2
        seen += [entry["digest"] for entry in response.json()["manifests"]]
        path = response.links["next"]["url"] if "next" in response.links else None
    assert (len(seen), set(seen)) == (5, expected)
