"""Content for tests: descriptors, manifests and stores with an image in them."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocitool import mediatypes
from ocitool.digest import Digest
from ocitool.model import Descriptor

if TYPE_CHECKING:
    from ocitool.content import Store

OCTETS = "application/octet-stream"
EMPTY_JSON = Descriptor.of(mediatypes.OCI_EMPTY, b"{}")


def blob(content: bytes, algorithm: str = "sha256") -> Descriptor:
    """The descriptor of a blob of no particular type."""
    return Descriptor(OCTETS, Digest.of(content, algorithm), len(content))


def held_below(path: Path) -> list[str]:
    """The files and directories below a path that this process has open, those without a name too."""
    found = []
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing itself, and other threads' come and go
            found.append(str(fd.readlink()))
    return [name for name in found if name.startswith(str(path))]


def put(store: Store, content: bytes, media_type: str = OCTETS) -> Descriptor:
    """Push bytes from memory."""
    desc = Descriptor.of(media_type, content)
    store.push(desc, io.BytesIO(content))
    return desc


def put_artifact(
    store: Store, text: str, *, subject: Descriptor | None = None, kind: str = "text/x"
) -> Descriptor:
    """Push an artifact with one blob, whose text makes it different from others."""
    layer = put(store, text.encode())
    config = put(store, b"{}", mediatypes.OCI_EMPTY)
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "artifactType": kind,
        "config": config.to_json(),
        "layers": [layer.to_json()],
        "annotations": {"text": text},
    }
    if subject:
        manifest["subject"] = {
            "mediaType": subject.media_type,
            "digest": str(subject.digest),
            "size": subject.size,
        }
    return put(store, json.dumps(manifest).encode(), mediatypes.OCI_MANIFEST)


def put_index(store: Store, *children: Descriptor) -> Descriptor:
    """Push an index."""
    document = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_INDEX,
        "manifests": [child.to_json() for child in children],
    }
    return put(store, json.dumps(document).encode(), mediatypes.OCI_INDEX)
