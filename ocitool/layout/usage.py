"""What the images of a layout are and how much room each takes, alone and with others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocitool import mediatypes
from ocitool.content import read_config, read_manifest
from ocitool.errors import NotFound
from ocitool.layout.graph import reachable
from ocitool.layout.index import names
from ocitool.model import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocitool.digest import Digest
    from ocitool.layout.store import LayoutStore
    from ocitool.model import Descriptor
    from ocitool.platforms import Platform


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """One root of a layout.

    Attributes:
        root: its descriptor.
        names: all of its names, sorted; none for what is kept by its digest.
        platforms: what it runs on, as far as it is here.
        size: what is here of it, in bytes.
        unique: how much of that no other root needs, in bytes.
        missing: how many of its parts are not here, as in a sparse layout.
    """

    root: Descriptor
    names: tuple[str, ...]
    platforms: tuple[Platform, ...]
    size: int
    unique: int
    missing: int


@dataclass(frozen=True, slots=True)
class Usage:
    """A layout as a whole.

    Attributes:
        images: its roots, in the order of `index.json`.
        size: all blobs together, in bytes.
        unreferenced: how much of that no root needs, in bytes.
    """

    images: tuple[ImageUsage, ...]
    size: int
    unreferenced: int


def usage(store: LayoutStore) -> Usage:
    """Measure a layout.

    Raises:
        InvalidContent, IntegrityError: a manifest is damaged.
    """
    sizes = {digest: stat.st_size for digest, stat in store.blobs}
    roots: dict[Descriptor, list[str]] = {}
    for entry in store.entries():
        roots.setdefault(entry, []).extend(names(entry))
    reached = {root: reachable(store, [root]) for root in roots}
    needed_by = Counter(digest for descs in reached.values() for digest in descs)
    images = [
        ImageUsage(
            root,
            tuple(sorted(set(found))),
            platforms(store, reached[root].values()),
            sum(sizes.get(digest, 0) for digest in reached[root]),
            sum(sizes.get(digest, 0) for digest in reached[root] if needed_by[digest] == 1),
            sum(digest not in sizes for digest in reached[root]),
        )
        for root, found in roots.items()
    ]
    total = sum(sizes.values())
    return Usage(tuple(images), total, total - sum(sizes.get(digest, 0) for digest in needed_by))


def platforms(store: LayoutStore, descs: Iterable[Descriptor]) -> tuple[Platform, ...]:
    """What the images among some content run on, as the configurations say that are here."""
    found = {platform for desc in descs if (platform := _platform(store, desc))}
    return tuple(sorted(found))


def _platform(store: LayoutStore, desc: Descriptor) -> Platform | None:
    if desc.media_type not in mediatypes.IMAGE_MANIFESTS:
        return None
    if desc.platform:
        return None if desc.platform.is_unknown or not _is_here(store, desc.digest) else desc.platform
    try:
        manifest = read_manifest(store, desc)
        if isinstance(manifest, Manifest) and manifest.config.media_type in mediatypes.CONFIGS:
            return read_config(store, manifest).platform
    except NotFound:
        pass
    return None


def _is_here(store: LayoutStore, digest: Digest) -> bool:
    return store.blobs.size(digest) is not None
