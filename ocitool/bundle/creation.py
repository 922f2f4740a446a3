"""Making a bundle: find what the images are made of, leave out what the far side has, write the rest."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from ocitool.bundle.inventory import Entry, Image, Inventory, bare, split
from ocitool.bundle.writer import BundleWriter, Plan
from ocitool.content import digest_tags
from ocitool.digesttags import tag_of
from ocitool.errors import InvalidContent, NotFound
from ocitool.events import OnEvent, Planned, ignore
from ocitool.graph import Graph, survey
from ocitool.selection import EVERYTHING, Selection
from ocitool.transfer import move
from ocitool.workers import JOBS, each

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Self

    from ocitool.bundle.signing import Signer
    from ocitool.bundle.sinks import Sink
    from ocitool.content import Source
    from ocitool.digest import Digest
    from ocitool.model import Descriptor
    from ocitool.streams import Reader

NOTHING: Final = Inventory()


@dataclass(frozen=True, slots=True)
class Item:
    """One image that shall be in a bundle.

    Attributes:
        source: where it is.
        ref: its tag or digest there.
        repository: the repository that it shall be in, `host/path`, or "" for none.
        tag: its tag there, or "" for no name.
    """

    source: Source
    ref: str
    repository: str
    tag: str

    @classmethod
    def called(cls, source: Source, ref: str, name: str) -> Self:
        """An image under a name as layouts have them, `host/path:tag` or any other.

        Raises:
            InvalidReference: a bundle can't have such a name.
        """
        return cls(source, ref, *split(name))


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a bundle will hold, and where each piece of it is to be had."""

    inventory: Inventory
    origins: Mapping[Digest, Source]
    documents: Mapping[Digest, bytes]

    @property
    def content(self) -> list[Descriptor]:
        """Everything that has to be written, in the order of the bundle; manifests with their bytes."""
        return [
            replace(entry.descriptor, data=self.documents.get(digest))
            for digest, entry in self.inventory.content.items()
        ]


@dataclass(slots=True)
class _Found:
    """One piece of content while images are looked at."""

    descriptor: Descriptor
    source: Source
    repositories: set[str] = field(default_factory=set)


def gather(
    items: Iterable[Item],
    *,
    have: Inventory = NOTHING,
    platforms: Selection = EVERYTHING,
    referrers: bool = True,
    jobs: int = JOBS,
) -> Gathered:
    """Find all that a bundle of these images has to hold. Only manifests are read.

    Args:
        items: the images.
        have: what the far side has: its own inventory, or that of a bundle which it has got.
        platforms: which part of each index to take.
        referrers: take what refers to each image as well (signatures, SBOMs), and what has its digest in its
            tag.
        jobs: how many manifests are read at once.

    Raises:
        NotFound: an image is not there.
        Conflict: one name stands for two images.
        OciError: whatever the sources raise.
    """
    images: list[Image] = []
    found: dict[Digest, _Found] = {}
    documents: dict[Digest, bytes] = {}
    items = list(items)

    def look(item: Item) -> tuple[Descriptor, Graph]:
        root = item.source.resolve(item.ref)
        alone = max(1, jobs // len(items))
        return root, survey(item.source, root, platforms=platforms, referrers=referrers, jobs=alone)

    def look_at_signature(item: Item) -> tuple[Descriptor, Graph]:
        root = item.source.resolve(item.ref)
        return root, survey(item.source, root, jobs=1)

    looked = each(look, items, jobs=jobs)
    if referrers:
        beside = _beside(items, [graph for _, graph in looked], jobs)
        items += beside
        looked += each(look_at_signature, beside, jobs=jobs)
    for item, (root, graph) in zip(items, looked, strict=True):
        # A new index, made for the platforms, has all that it lists.
        kept = platforms.platforms if platforms.sparse and root.is_index else ()
        images.append(Image(item.repository, item.tag, bare(graph.root), kept))
        images += [Image(item.repository, "", bare(desc)) for desc in graph.roots() if desc != graph.root]
        documents |= graph.content
        # What a descriptor carries itself need not be anywhere else.
        documents |= {desc.digest: desc.data for desc in graph.leaves.values() if desc.data is not None}
        _take(found, graph, item.source, item.repository)
    held = {**have.content, **have.presumed}
    return Gathered(
        Inventory.of(
            images,
            [_entry(one) for digest, one in found.items() if digest not in held],
            [_entry(one, held[digest]) for digest, one in found.items() if digest in held],
        ),
        {digest: one.source for digest, one in found.items()},
        documents,
    )


def _beside(items: Sequence[Item], graphs: Sequence[Graph], jobs: int) -> list[Item]:
    """What belongs to the images by its tag, as cosign's signatures do, but for what is listed anyway."""

    def named(pair: tuple[Item, Graph]) -> list[Item]:
        item, graph = pair
        own = f"{item.repository}:{item.tag}" if item.repository else item.tag
        names = digest_tags(item.source, graph.manifests.values(), own)
        return [Item(item.source, name, item.repository, tag_of(name)) for name in names]

    listed = {(item.repository, item.tag) for item in items}
    found = {
        (item.repository, item.tag): item
        for several in each(named, list(zip(items, graphs, strict=True)), jobs=jobs)
        for item in several
    }
    return [item for key, item in found.items() if key not in listed]


def _take(found: dict[Digest, _Found], graph: Graph, source: Source, repository: str) -> None:
    for desc in (*graph.manifests.values(), *graph.leaves.values()):
        one = found.setdefault(desc.digest, _Found(bare(desc), source))
        if one.descriptor.size != desc.size:
            raise InvalidContent(
                f"{desc.digest} is named with two sizes, {one.descriptor.size} and {desc.size} bytes"
            )
        # One name for the type, whatever the order: content may be a manifest here and a blob there.
        one.descriptor = min(
            one.descriptor, bare(desc), key=lambda known: (not known.is_manifest, known.media_type)
        )
        one.repositories.add(repository)


def _entry(one: _Found, held: Entry | None = None) -> Entry:
    holders = held.repositories if held else ()
    return Entry(one.descriptor, tuple(sorted(one.repositories)), holders)


class _Origins:
    """Each piece of content from where it was found."""

    def __init__(self, gathered: Gathered) -> None:
        self._gathered = gathered

    def resolve(self, ref: str, /) -> Descriptor:
        raise NotFound(f"{ref} is looked up where it is, and not here")  # pragma: no cover - never asked

    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> AbstractContextManager[Reader]:
        return self._gathered.origins[desc.digest].fetch(desc, offset=offset)


def write(
    gathered: Gathered,
    sink: Sink,
    *,
    signers: Sequence[Signer] = (),
    jobs: int = JOBS,
    on_event: OnEvent = ignore,
) -> Plan:
    """Write a bundle.

    Args:
        gathered: what it holds.
        sink: where it goes; there is no bundle there if this fails.
        signers: what to sign its inventory with.
        jobs: how many blobs may be on their way at once, where the sink takes more than one.
        on_event: is told what happens.

    Returns:
        The plan that was followed.

    Raises:
        IntegrityError: a source does not hold what it promised.
        OciError: whatever the sources and the sink raise.
    """
    raw = gathered.inventory.dump()
    plan = Plan(gathered.inventory, [signer.sign(raw) for signer in signers])
    on_event(Planned(tuple(entry.descriptor for entry in gathered.inventory.content.values())))
    with sink:
        writer = BundleWriter(plan, sink)
        move(
            _Origins(gathered),
            writer,
            gathered.content,
            jobs=1 if sink.in_order else jobs,
            on_event=on_event,
        )
    return plan
