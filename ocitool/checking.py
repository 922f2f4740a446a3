"""Deep check and repair of any place that holds images: a registry, a layout, an archive, a bundle.

A check walks from the roots over indexes, manifests and referrers to every blob, and goes on behind each
fault, so that one run finds all of them. A repair fetches what is faulty from elsewhere, and only that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from ocitool import limits, mediatypes
from ocitool.content import Referrers, Source, Store, open_verified, read_verified
from ocitool.errors import IntegrityError, InvalidContent, NotFound, OciError, UnsafeContent, Unsupported
from ocitool.events import Advanced, Finished, OnEvent, Planned, Started, ignore
from ocitool.model import Index, parse_manifest
from ocitool.streams import chunks
from ocitool.workers import JOBS, each

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping

    from ocitool.digest import Digest
    from ocitool.model import Descriptor, Manifest

# What is wrong with the content itself. Anything else (no connection, no permission) ends a check, because
# it says nothing about the content.
_FAULTS: Final = (NotFound, IntegrityError, InvalidContent, Unsupported)


@dataclass(frozen=True, slots=True)
class Node:
    """Content, and how it was reached.

    Attributes:
        path: from a root's name to the content ("hello:1.0", "manifests[0] (linux/amd64)", "layers[2]").
        descriptor: what was promised.
    """

    path: tuple[str, ...]
    descriptor: Descriptor

    def __str__(self) -> str:
        return " > ".join(self.path)


@dataclass(frozen=True, slots=True)
class Fault:
    """Content that is missing, damaged, or not what it should be."""

    node: Node
    error: OciError

    def __str__(self) -> str:
        return f"{self.node}: {self.error.message}"


@dataclass(slots=True)
class Report:
    """What a check has found.

    Attributes:
        sound: the content that is there and right, manifests and blobs.
        faults: everything else, in the order of the walk.
        absent: manifests that a sparse index lists without holding them, where that was allowed.
    """

    sound: dict[Digest, Descriptor] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    absent: list[Node] = field(default_factory=list)


def check(
    source: Source,
    roots: Mapping[str, Descriptor],
    *,
    deep: bool = True,
    sparse: bool = False,
    elsewhere: Container[Digest] = (),
    jobs: int = JOBS,
    on_event: OnEvent = ignore,
) -> Report:
    """Check everything that some roots reach, their referrers included.

    Args:
        source: the place.
        roots: where to start, by name.
        deep: read every blob; otherwise, and where the place is a store, only ask whether it is there.
        sparse: a manifest that an index lists need not be there.
        elsewhere: content that need not be there, and is not looked at.
        jobs: how much is read at once.
        on_event: is told about each piece of content.

    Raises:
        RegistryError: the place can't be asked.
    """
    walk = _Walk(source, sparse=sparse, elsewhere=elsewhere)
    level = walk.new(Node((name,), desc) for name, desc in roots.items())
    for _ in range(limits.INDEX_NESTING):
        level = walk.new(node for found in each(walk.manifest, level, jobs=jobs) for node in found)
    walk.too_deep(level)
    leaves = list(walk.leaves.values())
    on_event(Planned(tuple(node.descriptor for node in leaves)))

    def leaf(node: Node) -> None:
        on_event(Started(node.descriptor))
        if walk.leaf(node, lambda count: on_event(Advanced(node.descriptor, count)), deep=deep):
            on_event(Finished(node.descriptor, "checked"))

    each(leaf, leaves, jobs=jobs)
    return walk.finish()


class _Walk:
    """One pass; what it collects is only ever added to, one thread at a time per piece of content."""

    def __init__(self, source: Source, *, sparse: bool, elsewhere: Container[Digest]) -> None:
        self._source = source
        self._sparse = sparse
        self._elsewhere = elsewhere
        self.report = Report()
        self.leaves: dict[Digest, Node] = {}
        self.order: dict[Node, int] = {}
        self._seen: set[Digest] = set()
        self._unlisted: dict[str, Fault] = {}

    def finish(self) -> Report:
        """The report, in the order in which people read it: from the top."""
        faults = sorted(self.report.faults, key=lambda fault: self.order[fault.node])
        told = {fault.error.message for fault in faults}
        self.report.faults = faults + [
            fault for message, fault in self._unlisted.items() if message not in told
        ]
        return self.report

    def new(self, nodes: Iterable[Node]) -> list[Node]:
        """Take in what has been found: keep leaves for later, and return the manifests among it."""
        manifests = []
        for node in nodes:
            desc = node.descriptor
            if desc.digest in self._seen or desc.digest in self._elsewhere:
                continue
            self.order[node] = len(self.order)
            if desc.is_manifest:
                self._seen.add(desc.digest)
                manifests.append(node)
            else:
                self.leaves.setdefault(desc.digest, node)
        if len(self.order) > limits.GRAPH_NODES:
            raise UnsafeContent(f"more than {limits.GRAPH_NODES} pieces of content are named")
        return manifests

    def too_deep(self, nodes: Iterable[Node]) -> None:
        """What is left after the deepest level that is looked at."""
        for node in nodes:
            self._fault(node, UnsafeContent(f"indexes are nested deeper than {limits.INDEX_NESTING} levels"))

    def manifest(self, node: Node) -> list[Node]:
        """Check one manifest and say what it names, and what refers to it."""
        desc = node.descriptor
        found: list[Node] = []
        try:
            manifest = parse_manifest(read_verified(self._source, desc), desc)
        except _FAULTS as error:
            listed = len(node.path) > 1 and node.path[-1].startswith("manifests[")
            if self._sparse and listed and isinstance(error, NotFound):
                self.report.absent.append(node)
                return []
            self._fault(node, error)
        else:
            self.report.sound[desc.digest] = desc
            found += [Node((*node.path, label), child) for label, child in _children(manifest)]
        return found + list(self._referrers(node))

    def _referrers(self, node: Node) -> Iterator[Node]:
        if not isinstance(self._source, Referrers):
            return
        try:
            for one in self._source.referrers(node.descriptor):
                yield Node((*node.path, f"referrer {one.artifact_type or one.digest.short}"), one)
        except _FAULTS as error:
            # To list referrers, some places read every root that they have: what is wrong with one of those
            # comes up again and again, and is no fault of this manifest.
            self._unlisted.setdefault(
                error.message, Fault(Node((*node.path, "referrers"), node.descriptor), error)
            )

    def leaf(self, node: Node, advance: Callable[[int], None], *, deep: bool) -> bool:
        """Check one blob; whether it is there and sound."""
        desc = node.descriptor
        try:
            self._look(desc, advance, deep=deep)
        except _FAULTS as error:
            # Clients are told not to distribute these, so most places rightly have none.
            if not (isinstance(error, NotFound) and mediatypes.is_nondistributable(desc.media_type)):
                self._fault(node, error)
            return False
        self.report.sound[desc.digest] = desc
        return True

    def _look(self, desc: Descriptor, advance: Callable[[int], None], *, deep: bool) -> None:
        if not deep and isinstance(self._source, Store):
            if not self._source.exists(desc):
                raise NotFound(f"{desc.digest} is not there")
            return
        # Content in a descriptor's own data has been checked already: it is the place's copy that counts.
        read_through(self._source, replace(desc, data=None), advance)

    def _fault(self, node: Node, error: OciError) -> None:
        self.report.faults.append(Fault(node, error))


def read_through(source: Source, desc: Descriptor, advance: Callable[[int], None]) -> None:
    """Read content to its end, to see whether it is what its descriptor says.

    Raises:
        NotFound: it is not there.
        IntegrityError: it is something else.
    """
    with open_verified(source, desc) as reader:
        for chunk in chunks(reader):
            advance(len(chunk))


def _children(manifest: Manifest | Index) -> Iterator[tuple[str, Descriptor]]:
    if isinstance(manifest, Index):
        for i, entry in enumerate(manifest.manifests):
            yield f"manifests[{i}]" + (f" ({entry.platform})" if entry.platform else ""), entry
        return
    yield "config", manifest.config
    for i, layer in enumerate(manifest.layers):
        yield f"layers[{i}]", layer


def repair(
    store: Store,
    report: Report,
    origin: Source,
    *,
    jobs: int = JOBS,
    on_event: OnEvent = ignore,
) -> list[Fault]:
    """Fetch what a check has found faulty, and what it could not see behind that; then look again.

    Args:
        store: the place, such that `push` replaces what is damaged (a layout opened with `verify`).
        report: what a check of it has found.
        origin: where to fetch from.
        jobs: how many blobs may be on their way at once.
        on_event: is told what happens.

    Returns:
        What is faulty still: what the origin does not have either, or what the place would not replace.

    Raises:
        OciError: whatever the stores raise, except for content that the origin lacks.
    """
    left: list[Fault] = []
    # From the leaves up, so that no manifest comes before what it names: names are longest below.
    for fault in sorted(report.faults, key=lambda one: len(one.node.path), reverse=True):
        if fault.node.descriptor.digest in report.sound:
            left.append(fault)  # its referrers could not be listed
            continue
        _mend(store, origin, fault.node, left, lambda desc: on_event(Finished(desc, "copied")), jobs)
    return left


def _mend(
    store: Store, origin: Source, node: Node, left: list[Fault], done: Callable[[Descriptor], None], jobs: int
) -> None:
    """Replace one piece of content, and before it whatever is faulty below it."""
    desc = replace(node.descriptor, data=None)
    try:
        if desc.is_manifest:
            below = parse_manifest(read_verified(origin, desc), desc)
            found = check(store, dict(_children(below)), jobs=jobs)
            for fault in found.faults:
                inner = Node((*node.path, *fault.node.path), fault.node.descriptor)
                _mend(store, origin, inner, left, done, jobs)
        with open_verified(origin, desc) as reader:
            store.push(desc, reader)
        read_through(store, desc, lambda _: None)
    except _FAULTS as error:
        left.append(Fault(node, error))
    else:
        done(desc)
