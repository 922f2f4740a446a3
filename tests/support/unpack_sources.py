"""The smallest source over an image layout directory, for the unpacker's own tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ocitool.errors import NotFound
from ocitool.model import Descriptor

if TYPE_CHECKING:
    from pathlib import Path


class Layout:
    """Reads blobs where a layout has them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def resolve(self, ref: str, /) -> Descriptor:
        """See `Source`."""
        for entry in json.loads((self._path / "index.json").read_bytes())["manifests"]:
            if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == ref:
                return Descriptor.from_json(entry, "index.json")
        raise NotFound(ref)

    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> Any:
        """See `Source`."""
        file = (self._path / "blobs" / desc.digest.algorithm / desc.digest.hex).open("rb")
        file.seek(offset)
        return file
