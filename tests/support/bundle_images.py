"""Images made of bytes that a test chooses."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from support.layout_content import put

from ocitool import mediatypes
from ocitool.bundle import BundleFile, BundleSource, Gathered, Item, StreamSink, gather, write
from ocitool.bundle.holding import Holding, images_of
from ocitool.bundle.inventory import bare

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocitool.content import Store
    from ocitool.digest import Digest
    from ocitool.memory import MemoryStore
    from ocitool.model import Descriptor


def put_image(
    store: Store, *layers: bytes, tag: str = "", subject: Descriptor | None = None, kind: str = ""
) -> Descriptor:
    """Push an image with these layers."""
    config = put(store, json.dumps({"layers": len(layers)}).encode(), "application/vnd.test.config")
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [put(store, layer, mediatypes.OCI_LAYER).to_json() for layer in layers],
    }
    if kind:
        document["artifactType"] = kind
    if subject:
        document["subject"] = bare(subject).to_json()
    desc = put(store, json.dumps(document).encode(), mediatypes.OCI_MANIFEST)
    if tag:
        store.tag(desc, tag)
    return desc


def all_of(store: MemoryStore) -> list[Item]:
    """Every named image of a store, under its own name."""
    return [Item.called(store, tag, tag) for tag in store.tags()]


def written(gathered: Gathered, **options: Any) -> bytes:
    """A bundle as bytes."""
    out = io.BytesIO()
    write(gathered, StreamSink(out), **options)
    return out.getvalue()


def bundle_of(items: Iterable[Item], **options: Any) -> bytes:
    """A bundle of these images as bytes."""
    return written(gather(items, **options))


def opened(raw: bytes, name: str = "test.tar") -> BundleSource:
    """A bundle from bytes; the temporary file goes when it is closed, or collected."""
    return BundleSource(BundleFile.spooled(io.BytesIO(raw), name))


def holding(store: MemoryStore, repository: str = "") -> Holding:
    """All that a store has under a name."""
    return Holding(store, images_of(store, repository), repository)


def state(store: MemoryStore) -> tuple[dict[Digest, bytes], dict[str, Descriptor]]:
    """Everything that a store holds."""
    return dict(store._content), dict(store._tags)
