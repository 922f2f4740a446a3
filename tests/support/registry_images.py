"""Images for registry tests, and how the tests open a client."""

from __future__ import annotations

import os
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ocitool import mediatypes, strictjson
from ocitool.events import ignore
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor
from ocitool.reference import Reference
from ocitool.registry import Client, ClientConfig, RegistryStore
from ocitool.registry.sockets import Pace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from support.registry_fake import FakeRegistry

    from ocitool.content import Store
    from ocitool.events import OnEvent

FAST = Pace(connect=5.0, answer=5.0, idle=5.0, minimum_rate=0)


def client(
    config: Mapping[str, Any] | None = None,
    *,
    on_event: OnEvent = ignore,
    environ: Mapping[str, str] | None = None,
    **more: Any,
) -> Client:
    """A client that waits little, and sees nothing of this machine's configuration."""
    settings = {"retry_delay": 0.01, "pace": FAST, **(config or {}), **more}
    return Client(
        ClientConfig(**settings),
        on_event=on_event,
        environ={"HOME": "/nonexistent", "PATH": os.environ["PATH"]} if environ is None else environ,
    )


def repository(client: Client, registry: str, name: str = "some/repo") -> RegistryStore:
    return client.repository(Reference(registry, name))


def put(store: Store, media_type: str, content: bytes) -> Descriptor:
    desc = Descriptor.of(media_type, content)
    store.push(desc, BytesIO(content))
    return desc


def manifest_of(config: Descriptor, *layers: Descriptor, **fields: object) -> bytes:
    return strictjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_MANIFEST,
            "config": config.to_json(),
            "layers": [layer.to_json() for layer in layers],
            **fields,
        }
    )


def image(store: Store, *sizes: int, tag: str = "v1", **fields: object) -> Descriptor:
    """An image with random layers of these sizes."""
    config = put(
        store,
        mediatypes.OCI_CONFIG,
        strictjson.dumps(
            {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
        ),
    )
    layers = [put(store, mediatypes.OCI_LAYER, os.urandom(size)) for size in sizes]
    desc = put(store, mediatypes.OCI_MANIFEST, manifest_of(config, *layers, **fields))
    if tag:
        store.tag(desc, tag)
    return desc


def memory_image(*sizes: int, tag: str = "v1") -> MemoryStore:
    store = MemoryStore()
    image(store, *sizes, tag=tag)
    return store


def stocked(registry: FakeRegistry, *sizes: int, name: str = "some/repo", tag: str = "v1") -> Descriptor:
    """Put an image into a fake registry without asking it."""
    store = MemoryStore()
    desc = image(store, *sizes, tag=tag)
    for digest, content in store._content.items():
        known = store._descriptors[digest]
        if known.is_manifest:
            registry.add_manifest(name, known.media_type, content, tag)
        else:
            registry.add_blob(name, content)
    return desc


def layers_of(registry: FakeRegistry, name: str = "some/repo") -> list[bytes]:
    """The blobs of a fake registry, the largest first."""
    return sorted(registry.blobs[name].values(), key=len, reverse=True)
