"""What is particular to serving a layout that others made."""

from __future__ import annotations

import shutil
import time
from types import SimpleNamespace
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

from ocitool.digest import Digest
from ocitool.layout import LayoutStore, incoming, repositories, store
from ocitool.layout.gc import collect
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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (incoming, repositories, store):  # and not for the servers' own timers
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=made))
    return made


class Clock:
    """Time that can be made to pass."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def test_what_was_deleted_is_collected_while_the_server_runs(tmp_path: Path, clock: Clock) -> None:
    served = layout_repositories(tmp_path / "layout")
    with registry(served) as running:
        document = running.push_image("a", "1.0", b"to be deleted")
        kept = running.push_image("a", "2.0", b"to be kept")
        layer = Digest.parse(document["layers"][0]["digest"])
        assert running.http.delete(f"/v2/a/manifests/{digest_of(document)}").status_code == 202

        # A client may have asked for the layer just now, for an image that it is about to push.
        served.tend()
        assert layer not in collected(tmp_path)
        pass_by(clock, served)

        assert layer in collected(tmp_path)
        assert running.http.get(f"/v2/a/blobs/{layer}").status_code == 404
        for entry in (kept["config"], *kept["layers"]):
            assert running.http.get(f"/v2/a/blobs/{entry['digest']}").status_code == 200


def test_a_push_that_waits_for_its_largest_layer_loses_none_of_the_others(
    tmp_path: Path, clock: Clock
) -> None:
    served = layout_repositories(tmp_path / "layout")
    with registry(served) as running:
        small, large = b"a small layer", b"a large layer"
        location = running.http.post("/v2/a/blobs/uploads/").headers["location"]
        running.push_blob("a", b"{}")
        running.push_blob("a", small)
        running.http.patch(location, content=large[:5])

        pass_by(clock, served)

        assert collected(tmp_path) == set()
        done = running.http.put(location, params={"digest": digest_of(large)}, content=large[5:])
        assert done.status_code == 201
        assert running.push_manifest("a", "1.0", image(small, large)).status_code == 201


def test_what_a_client_has_found_a_moment_ago_stays(tmp_path: Path, clock: Clock) -> None:
    served = layout_repositories(tmp_path / "layout")
    with registry(served) as running:
        running.push_blob("a", b"{}")
        layer = running.push_blob("a", b"a layer")
        clock.ahead += repositories._RENEWAL
        served.tend()
        clock.ahead += repositories._RELIED_ON - 1
        mounted = running.http.post("/v2/b/blobs/uploads/", params={"mount": layer, "from": "a"})
        assert mounted.status_code == 201
        clock.ahead += repositories._RENEWAL
        served.tend()

        assert collected(tmp_path) == {Digest.parse(digest_of(b"{}"))}


def collected(tmp_path: Path) -> set[Digest]:
    """What another process collects of the layout."""
    return {blob.digest for blob in collect(LayoutStore(tmp_path / "layout")).blobs}


def pass_by(clock: Clock, served: LayoutRepositories) -> None:
    """Let the time go by after which nobody relies on what he has found."""
    served.tend()
    for _ in range(2):
        clock.ahead += repositories._RELIED_ON
        served.tend()
