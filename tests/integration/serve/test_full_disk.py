"""A registry whose disk really is full."""

from __future__ import annotations

import json
import os
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest
from support.disks import small_disk
from support.peers import call
from support.serve_registry import codes, digest_of, image, registry

from ocitool.layout import LayoutStore
from ocitool.layout.check import check
from ocitool.layout.repositories import LayoutRepositories

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

pytestmark = pytest.mark.root
LARGE = bytes(range(256)) * (12 << 10)  # 3 MiB


def stuffed(disk: Path) -> None:
    """Take what space is left."""
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    assert os.statvfs(disk).f_bavail == 0


def test_a_blob_that_does_not_fit_is_refused_and_the_next_one_that_does_is_taken(tmp_path: Path) -> None:
    with small_disk(tmp_path, "2m") as disk:
        with closing(LayoutStore(disk / "layout")) as store, registry(LayoutRepositories(store)) as served:
            before = served.push_image("a", "1.0")
            for way in ("whole", "in one request", "in chunks"):
                refuses(sent(served.http, way))
                assert served.http.get(f"/v2/a/blobs/{digest_of(LARGE)}").status_code == 404
            assert served.http.get("/v2/a/manifests/1.0").json() == before

            call("mount", "-o", "remount,size=8m", disk)
            assert served.push_blob("a", LARGE) == digest_of(LARGE)
            assert served.http.get(f"/v2/a/blobs/{digest_of(LARGE)}").content == LARGE
        assert list(check(LayoutStore(disk / "layout"))) == []


def test_a_manifest_and_a_name_that_do_not_fit_change_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path, "2m") as disk:
        with closing(LayoutStore(disk / "layout")) as store, registry(LayoutRepositories(store)) as served:
            before = served.push_image("a", "1.0")
            stuffed(disk)

            document = image(b"a layer", annotations={"note": "x" * 10_000})
            refuses(served.push_manifest("a", "1.0", document))

            assert served.http.get("/v2/a/manifests/1.0").json() == before
            (disk / "filler").unlink()
            assert served.push_manifest("a", "1.0", document).status_code == 201
            assert served.http.get("/v2/a/manifests/1.0").json() == document
        assert list(check(LayoutStore(disk / "layout"))) == []


def sent(http: httpx.Client, way: str) -> httpx.Response:
    """Push the large blob in one of the ways that there are; the answer to the request that has the bytes."""
    if way == "in one request":
        return http.post("/v2/a/blobs/uploads/", params={"digest": digest_of(LARGE)}, content=LARGE)
    location = http.post("/v2/a/blobs/uploads/").headers["location"]
    if way == "in chunks":
        answer = http.patch(location, content=LARGE)
        assert http.delete(location).status_code == 204
        return answer
    return http.put(location, params={"digest": digest_of(LARGE)}, content=LARGE)


def refuses(answer: httpx.Response) -> None:
    assert answer.status_code == 507
    assert codes(answer) == ["UNKNOWN"]
    assert "no space" in json.dumps(answer.json())
