"""The pull-through cache."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from support import fixtures
from support.serve_registry import (
    INDEX,
    MemoryRepositories,
    Registry,
    codes,
    digest_of,
    layout_repositories,
    registry,
)
from support.waiting import until

from ocitool import mediatypes
from ocitool.digest import Digest
from ocitool.errors import OciError, RegistryError, Unauthorized, Unreachable
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor
from ocitool.reference import Reference
from ocitool.registry import Client, ClientConfig
from ocitool.serve.proxy import ProxyRepositories, _Download, _Proxied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from ocitool.content import Source
    from ocitool.serve import Repositories
    from ocitool.streams import Reader

LAYER = bytes(range(256)) * 4096 * 3


class Upstream(MemoryStore):
    """An upstream that counts what it is asked for, and can fail."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.wrap: Callable[[Reader], Reader] = lambda reader: reader

    def resolve(self, ref: str, /) -> Descriptor:
        self.asked.append(f"resolve {ref}")
        if self.error:
            raise self.error
        found = super().resolve(ref)
        if ":" in ref and not found.is_manifest:
            raise RegistryError(f"{ref} is a blob, and blobs are not resolved by registries")
        return found

    @contextmanager
    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> Iterator[Reader]:
        self.asked.append(f"fetch {desc.digest}")
        if self.error:
            raise self.error
        with super().fetch(desc, offset=offset) as reader:
            yield self.wrap(reader)


@pytest.fixture
def upstream() -> Upstream:
    store = Upstream()
    config, layer = Descriptor.of(mediatypes.OCI_CONFIG, b"{}"), Descriptor.of(mediatypes.OCI_LAYER, LAYER)
    document = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json()],
    }
    raw = json.dumps(document).encode()
    manifest = Descriptor.of(mediatypes.OCI_MANIFEST, raw)
    for desc, content in ((config, b"{}"), (layer, LAYER), (manifest, raw)):
        store.push(desc, BytesIO(content))
    store.tag(manifest, "1")
    return store


@pytest.fixture
def cache(tmp_path: Path) -> Repositories:
    return layout_repositories(tmp_path / "cache")


@contextmanager
def _proxied(cache: Repositories, upstream: Source, **options: Any) -> Iterator[Registry]:
    proxy = ProxyRepositories(cache, lambda _: upstream, **options)
    with registry(proxy) as served:
        yield served
        settle(proxy)
    proxy.close()


def settle(proxy: ProxyRepositories) -> None:
    """Wait until the cache has what clients have: they do not wait for that."""
    until(lambda: not proxy._downloads._running)


def _pull(served: Registry) -> None:
    manifest = served.http.get("/v2/a/manifests/1")
    assert manifest.status_code == 200
    for desc in (manifest.json()["config"], *manifest.json()["layers"]):
        blob = served.http.get(f"/v2/a/blobs/{desc['digest']}")
        assert (blob.status_code, digest_of(blob.content)) == (200, desc["digest"])


def test_what_was_pulled_once_is_not_fetched_again(cache: Repositories, upstream: Upstream) -> None:
    with _proxied(cache, upstream) as served:
        _pull(served)
        fetched = [asked for asked in upstream.asked if asked.startswith("fetch")]
        assert len(fetched) == 3
        _pull(served)
        assert [asked for asked in upstream.asked if asked.startswith("fetch")] == fetched
    # What is cached is an image of its own.
    stored = cache.open("a")
    assert stored is not None
    with stored.fetch(stored.resolve("1")) as reader:
        assert digest_of(reader.read()) == str(upstream.resolve("1").digest)


def test_f_30_what_is_known_of_blobs_is_bounded(
    cache: Repositories, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocitool.serve.proxy._KNOWN", 3)
    for number in range(5):
        layer = Descriptor.of(mediatypes.OCI_LAYER, b"%d" % number)
        document = {"schemaVersion": 2, "config": layer.to_json(), "layers": [layer.to_json()]}
        raw = json.dumps(document).encode()
        upstream.push(layer, BytesIO(b"%d" % number))
        upstream.push(Descriptor.of(mediatypes.OCI_MANIFEST, raw), BytesIO(raw))
        upstream.tag(Descriptor.of(mediatypes.OCI_MANIFEST, raw), f"0.{number}")
    proxy = ProxyRepositories(cache, lambda _: upstream)
    with registry(proxy) as served:
        for number in range(5):
            assert served.http.get(f"/v2/a/manifests/0.{number}").status_code == 200
            assert len(proxy._known) <= 3 + 1
        # What was forgotten is found all the same, in what is cached.
        for number in range(5):
            assert served.http.get(f"/v2/a/manifests/0.{number}").status_code == 200
            layer = Descriptor.of(mediatypes.OCI_LAYER, b"%d" % number)
            assert served.http.get(f"/v2/a/blobs/{layer.digest}").content == b"%d" % number
        settle(proxy)
    proxy.close()


def test_a_head_fetches_nothing(cache: Repositories, upstream: Upstream) -> None:
    with _proxied(cache, upstream) as served:
        assert served.http.head("/v2/a/manifests/1").status_code == 200
    assert upstream.asked == ["resolve 1"]


@pytest.mark.parametrize(
    "error", [Unreachable("no answer", temporary=True), RegistryError("busy", status=429)]
)
def test_what_is_cached_is_there_while_the_upstream_is_not(
    cache: Repositories, upstream: Upstream, error: Exception
) -> None:
    with _proxied(cache, upstream) as served:
        _pull(served)
    upstream.error = error
    with _proxied(layout_repositories(cache._store.path), upstream) as served:  # type: ignore[attr-defined]
        _pull(served)
        assert served.http.get("/v2/a/tags/list").json()["tags"] == ["1"]
        response = served.http.get("/v2/a/manifests/2")
        assert response.status_code in {429, 503}


def test_a_tag_that_moved_is_followed(cache: Repositories, upstream: Upstream) -> None:
    with _proxied(cache, upstream) as served:
        _pull(served)
        raw = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
        newer = Descriptor.of(INDEX, raw)
        upstream.push(newer, BytesIO(raw))
        upstream.tag(newer, "1")
        assert served.http.get("/v2/a/manifests/1").content == raw


def test_an_upstream_that_refuses_shows_no_cached_tag(cache: Repositories, upstream: Upstream) -> None:
    with _proxied(cache, upstream) as served:
        _pull(served)
        upstream.error = Unauthorized("not you", status=401)
        assert served.http.get("/v2/a/manifests/1").status_code == 502


def test_what_the_upstream_lacks_is_a_404(cache: Repositories, upstream: Upstream) -> None:
    with _proxied(cache, upstream) as served:
        _pull(served)
        assert codes(served.http.get("/v2/a/manifests/absent")) == ["MANIFEST_UNKNOWN"]
        upstream.delete(Descriptor.of(mediatypes.OCI_LAYER, LAYER))
    with _proxied(MemoryRepositories(), upstream) as served:
        served.http.get("/v2/a/manifests/1")
        response = served.http.get(f"/v2/a/blobs/{digest_of(LAYER)}")
        assert (response.status_code, codes(response)) == (404, ["BLOB_UNKNOWN"])


def test_nothing_can_be_pushed(cache: Repositories, upstream: Upstream) -> None:
    with _proxied(cache, upstream) as served:
        assert served.http.post("/v2/a/blobs/uploads/").status_code == 405
        assert served.http.delete("/v2/a/manifests/1").status_code == 405


def test_many_clients_of_one_blob_are_one_download(cache: Repositories, upstream: Upstream) -> None:
    together = threading.Barrier(8)
    go = threading.Event()

    class Slow:
        def __init__(self, reader: Reader) -> None:
            self._reader = reader

        def read(self, n: int = -1, /) -> bytes:
            go.wait(60)
            return self._reader.read(min(n, 100_000))

    with _proxied(cache, upstream) as served:
        served.http.get("/v2/a/manifests/1")
        upstream.wrap = Slow

        def pull(number: int) -> bytes:
            together.wait(60)
            if number == 0:
                threading.Timer(0.3, go.set).start()
            headers = {"range": "bytes=1000-"} if number % 2 else {}
            return httpx.get(
                f"{served.server.url}/v2/a/blobs/{digest_of(LAYER)}", headers=headers, timeout=60
            ).content

        with ThreadPoolExecutor(8) as pool:
            for number, content in enumerate(pool.map(pull, range(8))):
                assert content == (LAYER[1000:] if number % 2 else LAYER)
    assert upstream.asked.count(f"fetch {digest_of(LAYER)}") == 1


def test_a_blob_that_comes_while_a_client_looks_for_it_in_the_cache_is_not_fetched_again(
    cache: Repositories, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, come = threading.Event(), threading.Event()
    keeps = _Proxied._keeps

    def slowly(self: _Proxied, desc: Descriptor) -> bool:
        found = keeps(self, desc)
        if not desc.is_manifest and not looked.is_set():
            looked.set()
            come.wait(60)
        return found

    monkeypatch.setattr(_Proxied, "_keeps", slowly)
    proxy = ProxyRepositories(cache, lambda _: upstream)
    with registry(proxy) as served, ThreadPoolExecutor(1) as pool:
        served.http.get("/v2/a/manifests/1")
        url = f"{served.server.url}/v2/a/blobs/{digest_of(LAYER)}"
        slow = pool.submit(httpx.get, url, timeout=60)
        looked.wait(60)
        assert httpx.get(url, timeout=60).content == LAYER
        settle(proxy)
        come.set()
        assert slow.result().content == LAYER
    proxy.close()
    assert upstream.asked.count(f"fetch {digest_of(LAYER)}") == 1


def test_a_download_that_has_failed_is_begun_anew_though_it_has_not_been_cleared_away(
    cache: Repositories, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear = threading.Event()
    fetch = _Download.fetch

    def lingering(self: _Download, source: Source) -> None:
        fetch(self, source)
        if self.error:
            clear.wait(60)

    monkeypatch.setattr(_Download, "fetch", lingering)
    with _proxied(cache, upstream) as served:
        served.http.get("/v2/a/manifests/1")
        upstream.error = RegistryError("busy", status=429)
        assert served.http.get(f"/v2/a/blobs/{digest_of(LAYER)}").status_code == 429
        upstream.error = None
        assert served.http.get(f"/v2/a/blobs/{digest_of(LAYER)}").content == LAYER
        clear.set()


def test_wrong_content_never_reaches_a_client_whole_nor_the_cache(
    cache: Repositories, upstream: Upstream
) -> None:
    class Flipped:
        def __init__(self, reader: Reader) -> None:
            self._reader = reader

        def read(self, n: int = -1, /) -> bytes:
            return self._reader.read(n).replace(b"\x00\x01", b"\x01\x00")

    with _proxied(cache, upstream) as served:
        served.http.get("/v2/a/manifests/1")
        upstream.wrap = Flipped
        with pytest.raises(httpx.RemoteProtocolError):
            served.http.get(f"/v2/a/blobs/{digest_of(LAYER)}")
        stored = cache.open("a")
        assert stored is not None
        with pytest.raises(OciError):
            stored.resolve(digest_of(LAYER))
        upstream.wrap = lambda reader: reader
        assert served.http.get(f"/v2/a/blobs/{digest_of(LAYER)}").content == LAYER


def test_an_upstream_that_lists_nothing_is_pulled_from_all_the_same(
    cache: Repositories, upstream: Upstream
) -> None:
    class Plain:
        """Only a source."""

        def resolve(self, ref: str, /) -> Descriptor:
            return upstream.resolve(ref)

        def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> AbstractContextManager[Reader]:
            return upstream.fetch(desc, offset=offset)

    with _proxied(cache, Plain()) as served:
        assert served.http.get("/v2/a/tags/list").json()["tags"] == []
        _pull(served)
        assert served.http.get("/v2/a/tags/list").json()["tags"] == ["1"]
        digest = digest_of(served.http.get("/v2/a/manifests/1").content)
        assert served.http.get(f"/v2/a/referrers/{digest}").json()["manifests"] == []
        assert served.http.get("/v2/_catalog").json()["repositories"] == ["a"]


def test_a_cache_that_can_not_keep_is_told_of_and_clients_are_served(upstream: Upstream) -> None:
    class Full(MemoryStore):
        def push(self, desc: Descriptor, stream: Reader, /) -> None:
            if desc.media_type == mediatypes.OCI_LAYER:
                raise OciError("no room")
            super().push(desc, stream)

    cache = MemoryRepositories()
    cache.stores["a"] = Full()
    failures: list[Exception] = []
    with _proxied(cache, upstream, on_failure=failures.append) as served:
        _pull(served)
    assert [str(failure) for failure in failures] == ["no room"]


def test_a_registry_is_pulled_through(cache: Repositories) -> None:
    with (
        registry(layout_repositories(fixtures.layout()), read_only=True) as origin,
        Client(ClientConfig(plain_http=True)) as client,
    ):

        def source(name: str) -> Source:
            return client.repository(Reference(origin.server.address, name))

        proxy = ProxyRepositories(cache, source)
        with registry(proxy) as served:
            index = served.http.get("/v2/hello/manifests/1.0")
            assert index.headers["docker-content-digest"] == fixtures.digests()["hello:1.0"]
            for entry in index.json()["manifests"]:
                manifest = served.http.get(f"/v2/hello/manifests/{entry['digest']}").json()
                for desc in (manifest["config"], *manifest["layers"]):
                    assert (
                        digest_of(served.http.get(f"/v2/hello/blobs/{desc['digest']}").content)
                        == desc["digest"]
                    )
            assert served.http.get("/v2/hello/tags/list").json()["tags"] == ["1.0"]
            referrers = served.http.get(f"/v2/hello/referrers/{fixtures.digests()['hello:1.0']}").json()
            assert len(referrers["manifests"]) == 1
            assert served.http.get(f"/v2/hello/blobs/sha256:{'0' * 64}").status_code == 404
            assert served.http.get("/v2/no/such/manifests/x").status_code == 404
            assert served.http.get("/v2/hello/manifests/.not-a-tag").status_code == 404
        assert "HEAD" in {one.method for one in origin.served if one.path.endswith("/1.0")}
        proxy.close()


def test_a_blob_whose_manifest_was_never_asked_for_is_found_and_kept(cache: Repositories) -> None:
    with (
        registry(layout_repositories(fixtures.layout()), read_only=True) as origin,
        Client(ClientConfig(plain_http=True)) as client,
    ):
        layer = origin.http.get("/v2/layers/manifests/1.0").json()["layers"][0]
        path = f"/v2/layers/blobs/{layer['digest']}"
        origin.served.clear()
        proxy = ProxyRepositories(
            cache, lambda name: client.repository(Reference(origin.server.address, name))
        )
        with registry(proxy) as served:
            assert served.http.head(path).headers["content-length"] == str(layer["size"])
            for _ in range(2):
                assert digest_of(served.http.get(path).content) == layer["digest"]
            absent = served.http.get(f"/v2/layers/blobs/sha256:{'0' * 64}")
            assert (absent.status_code, codes(absent)) == (404, ["BLOB_UNKNOWN"])
        proxy.close()
        # The size is asked for once, and the bytes are.
        assert [one.method for one in origin.served if one.path == path] == ["HEAD", "GET"]


def test_a_blob_that_the_upstream_has_wrong_does_not_reach_a_client_whole(cache: Repositories) -> None:
    wrong = LAYER[:-1] + b"!"

    class Finding(Upstream):
        def find_blob(self, digest: Digest, /) -> Descriptor:
            return Descriptor(mediatypes.OCI_LAYER, digest, len(wrong))

        @contextmanager
        def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> Iterator[Reader]:
            yield BytesIO(wrong[offset:])

    with _proxied(cache, Finding()) as served:
        with pytest.raises(httpx.RemoteProtocolError):
            served.http.get(f"/v2/a/blobs/{digest_of(LAYER)}")
        with pytest.raises(OciError):
            (cache.open("a", create=True) or MemoryStore()).resolve(digest_of(LAYER))
