"""Images in memory, made of tar archives."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ocitool import mediatypes, strictjson
from ocitool.digest import Digest
from ocitool.layout import LayoutStore
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor
from ocitool.transfer import copy_graph
from ocitool.unpack import UnpackOptions, UnpackReport, unpack
from ocitool.unpack.image import documents
from ocitool.unpack.overlay import LayerCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ocitool.unpack.stacks import Stack


class Image(NamedTuple):
    """A store and the manifest in it."""

    store: MemoryStore
    manifest: Descriptor

    def unpack(self, bundle: Path, **options: Any) -> UnpackReport:
        """Unpack it, without waiting for a disk."""
        return unpack(self.store, self.manifest, bundle, options=UnpackOptions(**{"sync": False, **options}))

    def cached(self, directory: Path, *, keep_owner: bool = True) -> Stack:
        """Have its layers in a cache."""
        cache = LayerCache(directory, keep_owner=keep_owner, options=UnpackOptions(sync=False))
        return cache.add(self.store, *documents(self.store, self.manifest))

    def to_layout(self, path: Path) -> str:
        """Write it into a layout; the location that the command line takes."""
        copy_graph(self.store, LayoutStore(path), self.manifest, to="image")
        return f"oci:{path}:image"


def image(
    *layers: bytes,
    config: Mapping[str, Any] | None = None,
    compress: Callable[[bytes], bytes] | None = None,
    media_type: str = mediatypes.OCI_LAYER,
    diff_ids: list[str] | None = None,
    **fields: Any,
) -> Image:
    """An image whose layers have these tar archives."""
    store = MemoryStore()
    packed = [push(store, media_type, compress(tar) if compress else tar) for tar in layers]
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": diff_ids or [str(Digest.of(tar)) for tar in layers]},
        **fields,
    }
    content = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": push(store, mediatypes.OCI_CONFIG, strictjson.dumps(document)).to_json(),
        "layers": [layer.to_json() for layer in packed],
    }
    return Image(store, push(store, mediatypes.OCI_MANIFEST, strictjson.dumps(content)))


def push(store: MemoryStore, media_type: str, content: bytes) -> Descriptor:
    """Add content to a store."""
    desc = Descriptor.of(media_type, content)
    store.push(desc, io.BytesIO(content))
    return desc


def gzipped(data: bytes) -> bytes:
    """The same bytes every time."""
    return gzip.compress(data, 6, mtime=0)


def unpacked(where: Path, *layers: bytes, **options: Any) -> Path:
    """The root file system of an image with these layers."""
    image(*layers).unpack(where, **options)
    return where / "rootfs"


@contextmanager
def memory_directory() -> Iterator[Path]:
    """A directory in memory where there is one, because thousands of trees are made in it."""
    where = tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    try:
        yield Path(where)
    finally:
        shutil.rmtree(where)
