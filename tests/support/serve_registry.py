"""Registries to test: the real server over content in memory or in a layout, and a plain HTTP client."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from ocitool import mediatypes
from ocitool.layout import LayoutStore
from ocitool.layout.repositories import LayoutRepositories
from ocitool.layout.store import initialise
from ocitool.memory import MemoryStore
from ocitool.serve import Options, Repositories, Served, Server

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

EMPTY_CONFIG = b"{}"
MANIFEST = mediatypes.OCI_MANIFEST
INDEX = mediatypes.OCI_INDEX


class MemoryRepositories:
    """Repositories in memory, made when first pushed to."""

    def __init__(self) -> None:
        self.stores: dict[str, MemoryStore] = {}

    def names(self) -> Iterable[str]:
        return list(self.stores)

    def open(self, name: str, *, create: bool = False) -> MemoryStore | None:
        return self.stores.setdefault(name, MemoryStore()) if create else self.stores.get(name)


def layout_repositories(path: Path) -> LayoutRepositories:
    """The repositories of a layout, which is made if it is not there."""
    if not path.exists():
        initialise(path)
    return LayoutRepositories(LayoutStore(path, create=False))


class Registry:
    """A server, what it told of its requests, and a client for it."""

    def __init__(self, server: Server, http: httpx.Client, served: list[Served]) -> None:
        self.server = server
        self.http = http
        self.served = served

    def push_blob(self, name: str, content: bytes) -> str:
        """Push a blob as most clients do; its digest."""
        digest = digest_of(content)
        begun = self.http.post(f"/v2/{name}/blobs/uploads/")
        assert begun.status_code == 202, begun.text
        done = self.http.put(begun.headers["location"], params={"digest": digest}, content=content)
        assert done.status_code == 201, done.text
        return digest

    def push_manifest(self, name: str, reference: str, document: dict[str, Any]) -> httpx.Response:
        return self.http.put(
            f"/v2/{name}/manifests/{reference}",
            content=json.dumps(document),
            headers={"content-type": document["mediaType"]},
        )

    def push_image(self, name: str, tag: str, layer: bytes = b"a layer", **more: Any) -> dict[str, Any]:
        """Push an image of one layer; its manifest."""
        self.push_blob(name, EMPTY_CONFIG)
        self.push_blob(name, layer)
        document = image(layer, **more)
        response = self.push_manifest(name, tag, document)
        assert response.status_code == 201, response.text
        return document


@contextmanager
def registry(repositories: Repositories, **options: Any) -> Iterator[Registry]:
    """A running registry."""
    served: list[Served] = []
    settings = Options(on_request=served.append, **options)
    with (
        Server(repositories, options=settings) as server,
        httpx.Client(base_url=server.url, trust_env=False, verify=False, timeout=60) as http,
    ):
        yield Registry(server, http, served)


def digest_of(content: bytes | dict[str, Any], algorithm: str = "sha256") -> str:
    """The digest of bytes, or of a document as `push_manifest` sends it."""
    raw = json.dumps(content).encode() if isinstance(content, dict) else content
    return f"{algorithm}:{hashlib.new(algorithm, raw).hexdigest()}"


def descriptor(
    content: bytes | dict[str, Any], media_type: str = "application/octet-stream"
) -> dict[str, Any]:
    raw = json.dumps(content).encode() if isinstance(content, dict) else content
    media_type = content["mediaType"] if isinstance(content, dict) else media_type
    return {"mediaType": media_type, "digest": digest_of(raw), "size": len(raw)}


def image(*layers: bytes, config_type: str = mediatypes.OCI_CONFIG, **more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(EMPTY_CONFIG, config_type),
        "layers": [descriptor(layer, mediatypes.OCI_LAYER) for layer in layers],
        **more,
    }


def index(*manifests: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [descriptor(manifest) for manifest in manifests],
        **more,
    }


def codes(response: httpx.Response) -> list[str]:
    """The error codes of an answer."""
    return [error["code"] for error in response.json()["errors"]]
