"""What the roots of a layout reach; content that is not there is no error, because layouts may be sparse."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Final

from ocitool import limits, mediatypes
from ocitool.content import read_manifest, read_verified
from ocitool.digest import Digest
from ocitool.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ocitool.content import Source
    from ocitool.model import Descriptor

_DIGESTS: Final = re.compile(rb"sha256:[a-f0-9]{64}(?![a-f0-9])|sha512:[a-f0-9]{128}(?![a-f0-9])")


def reachable(source: Source, roots: Iterable[Descriptor]) -> dict[Digest, Descriptor]:
    """Everything under some roots, each after what names it for the first time; missing content included.

    Raises:
        IntegrityError, InvalidContent: a manifest is damaged, so what it names is not known.
    """
    found: dict[Digest, Descriptor] = {}
    level = list(roots)
    while level:
        new = {desc.digest: desc for desc in reversed(level) if desc.digest not in found}
        found.update(new)
        level = [child for desc in new.values() for child in children(source, desc)]
    return found


def children(source: Source, desc: Descriptor) -> tuple[Descriptor, ...]:
    """What a manifest names; nothing if it is not there."""
    if not desc.is_manifest:
        return ()
    try:
        return read_manifest(source, desc).children
    except NotFound:
        return ()


def mentioned(source: Source, desc: Descriptor) -> Iterator[Digest]:
    """The digests that stand in a document of a type that ocitool does not know.

    Nobody can tell what such a document needs, so whoever collects garbage keeps all that it mentions.
    """
    known = desc.is_manifest or desc.media_type in mediatypes.CONFIGS or mediatypes.is_layer(desc.media_type)
    if known or "json" not in desc.media_type or desc.size > limits.MANIFEST_BYTES:
        return
    try:
        raw = read_verified(source, desc)
    except NotFound:
        return
    yield from {Digest.parse(match.decode()) for match in _DIGESTS.findall(raw)}


def parents_first(source: Source, descs: Iterable[Descriptor]) -> list[Descriptor]:
    """Content in an order in which nothing comes before what names it."""
    todo = {desc.digest: desc for desc in descs}
    sorter: TopologicalSorter[Digest] = TopologicalSorter()
    for desc in todo.values():
        sorter.add(desc.digest, *(child.digest for child in children(source, desc) if child.digest in todo))
    return [todo[digest] for digest in reversed([*sorter.static_order()])]
