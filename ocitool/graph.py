"""Everything that a root names: found level by level, in bounds, before any of it is moved."""

from __future__ import annotations

import threading
from dataclasses import replace
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

from ocitool import limits, mediatypes
from ocitool.content import Referrers, Source, read_verified
from ocitool.errors import InvalidContent, UnsafeContent
from ocitool.model import Descriptor, parse_manifest
from ocitool.selection import EVERYTHING, Selected, Selection, select
from ocitool.workers import JOBS, Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from ocitool.digest import Digest


def survey(
    src: Source,
    root: Descriptor,
    *,
    platforms: Selection = EVERYTHING,
    referrers: bool = False,
    jobs: int = JOBS,
) -> Graph:
    """Find all content that `copy_graph` with the same arguments would see to, without moving any of it.

    Raises:
        OciError: as `copy`, for what is wrong with manifests.
    """
    selected = select(src, root, platforms)
    with Workers(jobs, threading.Event()) as workers:
        return walk(src, selected, lambda desc: read_verified(src, desc), workers, with_referrers=referrers)


class Graph:
    """What a root names: leaves, and manifests with their bytes and what they name.

    One piece of content may be both, a manifest to one document and a blob to another, and then lives in
    two places in a registry.

    Attributes:
        root: where it starts: a new index where a selection makes one.
        leaves: the content that names nothing.
        manifests: the rest, the root first.
        content: the bytes of the manifests.
    """

    def __init__(self, root: Descriptor) -> None:
        self.root = root
        self.leaves: dict[Digest, Descriptor] = {}
        self.manifests: dict[Digest, Descriptor] = {}
        self.content: dict[Digest, bytes] = {}
        self._below: dict[Digest, list[Digest]] = {}

    def add(self, found: Iterable[Descriptor]) -> list[Descriptor]:
        """Take content in, each piece once; the manifests among what is new are still to be read."""
        new = []
        for desc in found:
            known = self.manifests if desc.is_manifest else self.leaves
            first = known.setdefault(desc.digest, desc)
            if first.size != desc.size or (desc.is_manifest and first.media_type != desc.media_type):
                raise InvalidContent(
                    f"{desc.digest} is named as {first.media_type} of {first.size} bytes,"
                    f" and as {desc.media_type} of {desc.size}"
                )
            if desc.is_manifest and desc.digest not in self._below:
                self._below[desc.digest] = []
                new.append(desc)
        if len(self.leaves) + len(self.manifests) > limits.GRAPH_NODES:
            raise UnsafeContent(f"more than {limits.GRAPH_NODES} pieces of content are named")
        if sum(desc.size for desc in self.manifests.values()) > limits.GRAPH_BYTES:
            raise UnsafeContent(f"manifests of more than {limits.GRAPH_BYTES} bytes together are named")
        return new

    def read(self, desc: Descriptor, raw: bytes, children: Iterable[Descriptor]) -> None:
        """Take in what a manifest turned out to be."""
        self.content[desc.digest] = raw
        self._below[desc.digest] = [child.digest for child in children if child.is_manifest]

    def ranks(self) -> Iterator[list[Descriptor]]:
        """The manifests in groups, each after the groups that hold what it names."""
        order = TopologicalSorter(self._below)
        order.prepare()
        while order.is_active():
            ready = order.get_ready()
            yield [self.manifests[digest] for digest in ready]
            order.done(*ready)

    def roots(self) -> list[Descriptor]:
        """The manifests that no other one names: the root and, where they were asked for, referrers."""
        named = {digest for below in self._below.values() for digest in below}
        return [desc for desc in self.manifests.values() if desc.digest not in named]


def walk(
    src: Source,
    selected: Selected,
    read: Callable[[Descriptor], bytes],
    workers: Workers,
    *,
    with_referrers: bool,
) -> Graph:
    """Read every manifest under a root, level by level, each level in parallel."""
    graph = Graph(replace(selected.root, data=None))
    level, depth = graph.add([selected.root]), 0
    while level:
        depth += 1
        if depth > limits.INDEX_NESTING:
            raise UnsafeContent(f"{selected.root.digest} is nested deeper than {limits.INDEX_NESTING} levels")
        found: list[Descriptor] = []
        for desc, raw in zip(level, workers.each(read, level), strict=True):
            # What the root leaves out may well be named again by what it keeps.
            children = _children(desc, raw, selected.left_out if desc == selected.root else ())
            graph.read(desc, raw, children)
            found += children
        if with_referrers and isinstance(src, Referrers):
            for more in workers.each(lambda desc: list(src.referrers(desc)), level):
                found += more
        level = graph.add(found)
    return graph


def _children(desc: Descriptor, raw: bytes, left_out: Collection[Digest]) -> list[Descriptor]:
    """What a manifest names and may be copied.

    image-spec, layer.md: "Implementations SHOULD NOT upload layers tagged with this media type" - the
    non-distributable ones.
    """
    return [
        child
        for child in parse_manifest(raw, desc).children
        if child.digest not in left_out and not mediatypes.is_nondistributable(child.media_type)
    ]
