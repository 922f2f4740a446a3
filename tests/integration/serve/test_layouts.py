"""What is particular to serving a layout that others made."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from support import fixtures
from support.serve_registry import (
    INDEX,
    MANIFEST,
    Registry,
    descriptor,
    digest_of,
    image,
    index,
    layout_repositories,
    registry,
)

from ocitool.layout import LayoutStore
from ocitool.layout.repositories import LayoutRepositories

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def images() -> Iterator[Registry]:
    """The fixture images, from a layout that nothing may be written to."""
    with registry(
        LayoutRepositories(LayoutStore(fixtures.layout(), read_only=True)), read_only=True
    ) as running:
        yield running


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_manifest_that_only_an_index_lists_has_its_type(images: Registry, method: str) -> None:
    listed = images.http.get("/v2/hello/manifests/1.0").json()["manifests"]
    for entry in listed:
        response = images.http.request(method, f"/v2/hello/manifests/{entry['digest']}")
        assert response.headers["content-type"] == MANIFEST
        assert response.headers["content-length"] == str(entry["size"])
        again = {"if-none-match": response.headers["etag"]}
        assert (
            images.http.request(method, f"/v2/hello/manifests/{entry['digest']}", headers=again).status_code
            == 304
        )


def test_a_large_blob_is_no_manifest_and_is_not_read_to_find_out(tmp_path: Path) -> None:
    with registry(layout_repositories(tmp_path / "served"), manifest_bytes=1000) as served:
        digest = served.push_blob("a", b"{" + b" " * 1000 + b"}")
        assert served.http.get(f"/v2/a/manifests/{digest}").status_code == 404


def test_every_fixture_is_served_as_it_is(images: Registry) -> None:
    for name, digest in fixtures.digests().items():
        repository, colon, tag = name.partition(":")
        if colon:
            response = images.http.get(f"/v2/{repository}/manifests/{tag}")
            assert response.headers["docker-content-digest"] == digest_of(response.content) == digest


def test_the_referrer_of_a_fixture_is_listed(images: Registry) -> None:
    subject = fixtures.digests()["hello:1.0"]
    (entry,) = images.http.get(f"/v2/hello/referrers/{subject}").json()["manifests"]
    assert entry["artifactType"] == "application/vnd.example.sbom.v1"
    assert entry["annotations"]["org.example.sbom.format"] == "json"


def test_what_another_process_adds_is_served_at_once(tmp_path: Path) -> None:
    with registry(layout_repositories(tmp_path / "served")) as served:
        assert served.http.get("/v2/hello/tags/list").status_code == 404
        shutil.copytree(fixtures.layout() / "blobs", tmp_path / "served" / "blobs", dirs_exist_ok=True)
        replaced = tmp_path / "served" / "index.json.new"
        shutil.copy(fixtures.layout() / "index.json", replaced)
        replaced.rename(tmp_path / "served" / "index.json")
        assert served.http.get("/v2/hello/tags/list").json()["tags"] == ["1.0"]


def test_a_layout_that_breaks_is_said_to_be_broken_and_nothing_is_made_up(tmp_path: Path) -> None:
    with registry(layout_repositories(tmp_path / "served")) as served:
        served.push_image("a", "one")
        (tmp_path / "served" / "index.json").write_text("{")
        response = served.http.get("/v2/a/manifests/one")
        assert response.status_code == 500
        assert "index.json" in response.text


def test_a_blob_that_has_changed_on_the_disk_is_served_by_no_name(tmp_path: Path) -> None:
    with registry(layout_repositories(tmp_path / "served")) as served:
        document = served.push_image("a", "one")
        path = tmp_path / "served" / "blobs" / "sha256" / digest_of(document).removeprefix("sha256:")
        content = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(content[:-1] + b" ")
        response = served.http.get("/v2/a/manifests/one")
        assert response.status_code == 500
        assert response.json()["errors"][0]["code"] == "UNKNOWN"
        path.write_bytes(content[:-1])
        assert served.http.get("/v2/a/manifests/one").status_code == 404


def test_referrers_under_a_tag_that_are_lost_are_passed_over(tmp_path: Path) -> None:
    with registry(layout_repositories(tmp_path / "served"), sparse_indexes=True) as served:
        subject = served.push_image("a", "one")
        lost = image(subject=descriptor(subject), annotations={"is": "lost"})
        tag = digest_of(subject).replace(":", "-")
        assert served.push_manifest("a", tag, index(lost)).status_code == 201
        response = served.http.get(f"/v2/a/referrers/{digest_of(subject)}")
        assert (response.status_code, response.headers["content-type"]) == (200, INDEX)
        assert response.json()["manifests"] == []
