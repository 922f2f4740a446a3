"""Planning: what a mirror file would move, down to the blob, without moving any of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from ocitool import limits, mediatypes
from ocitool.content import Referrers, read_manifest
from ocitool.digest import Digest
from ocitool.errors import InvalidContent, NotFound, OciError, UnsafeContent
from ocitool.mirror.items import Failure, Item, Listings, Stores
from ocitool.mirror.once import Once
from ocitool.mirror.patterns import is_fallback_tag, subject_of
from ocitool.mirror.reading import Meter, NotRead, Reading, ask, asked
from ocitool.model import Descriptor, Index
from ocitool.reference import is_digest
from ocitool.selection import EVERYTHING, Selection, select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ocitool.content import Source, Store
    from ocitool.mirror.naming import Target
    from ocitool.platforms import Platform
    from ocitool.reference import Reference

_REFERRER_DEPTH: Final = 4  # a signature of an SBOM of an image is three


@runtime_checkable
class ListsByTag(Protocol):
    """A repository that may come to know that its registry has no API for referrers."""

    @property
    def lists_by_tag(self) -> bool:
        """Whether it is known by now that lists of referrers are kept as tags alone."""
        ...


@dataclass(frozen=True, slots=True)
class Pin:
    """What a plan says an image is: its root, what refers to it, and its digest tags."""

    root: Descriptor
    referrers: Mapping[Digest, tuple[Descriptor, ...]] = field(default_factory=dict)
    digest_tags: Mapping[str, Descriptor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Work:
    """What the destination lacks of an image.

    Attributes:
        manifests: these, in the order in which they were found.
        blobs: and these.
        mounts: blobs that an earlier image of the plan brings to another repository of the same registry.
        shared: digests of blobs that an earlier image of the plan brings to the same repository.
        pulls: manifests that this place can't give, and that are read from the source unless they are known.
        known: False where no manifest was read that costs a pull; then all this is the least.
    """

    manifests: tuple[Descriptor, ...] = ()
    blobs: tuple[Descriptor, ...] = ()
    mounts: tuple[Descriptor, ...] = ()
    shared: tuple[Descriptor, ...] = ()
    pulls: tuple[Digest, ...] = ()
    known: bool = True

    @property
    def size(self) -> int:
        """Bytes to move from the source."""
        return sum(desc.size for desc in (*self.manifests, *self.blobs))


@dataclass(frozen=True, slots=True)
class Image:
    """One image of a plan.

    Attributes:
        item: what is wanted.
        pin: what that is now.
        platforms: those of the wanted platforms that the image has.
        lacks: those that it has not.
        left_out: the entries of the index that are not taken.
        before: the digest that the target's name has at the destination, or None.
        unchanged: nothing has to be done.
        work: what has to be done.
        moved: in a replay, the digest that the source's tag has by now, where that is another one.
    """

    item: Item
    pin: Pin
    platforms: tuple[Platform, ...] = ()
    lacks: tuple[Platform, ...] = ()
    left_out: frozenset[Digest] = frozenset()
    before: Digest | None = None
    unchanged: bool = False
    work: Work = Work()
    moved: str = ""

    @property
    def source(self) -> Reference:
        """Where it comes from."""
        return self.item.source

    @property
    def target(self) -> Target:
        """Where it goes."""
        return self.item.target

    def selection(self, *, sparse: bool) -> Selection:
        """The part of an index that is taken."""
        return Selection(self.platforms, sparse=sparse) if self.left_out else EVERYTHING


@dataclass(frozen=True, slots=True)
class Plan:
    """Images, sorted by target, and what could not be planned."""

    images: tuple[Image, ...]
    failures: tuple[Failure, ...] = ()


class Planner:
    """Makes plans. No blob of a place is asked for twice, and no repository for its tags."""

    def __init__(self, stores: Stores, meter: Meter, listings: Listings, *, jobs: int = 4) -> None:
        self._listings = listings
        self._stores = stores
        self._meter = meter
        self._jobs = jobs
        self._blobs = Once[tuple[str, Digest], bool]()

    def plan(self, items: Iterable[Item], pins: Mapping[Target, Pin] | None = None) -> Plan:
        """Plan images; those that have a pin are taken as it says, whatever the source says by now."""
        found: list[Image] = []
        failures: list[Failure] = []

        def one(item: Item) -> Image | Failure:
            try:
                return self._image(item, (pins or {}).get(item.target))
            except OciError as error:
                return Failure(f"{item.source} to {item.target}", error)

        with ThreadPoolExecutor(self._jobs, thread_name_prefix="ocitool-plan") as pool:
            for result in pool.map(one, items):
                if isinstance(result, Image):
                    found.append(result)
                else:
                    failures.append(result)
        found.sort(key=lambda image: image.target)
        return Plan(tuple(_shared(found)), tuple(failures))

    def reading(self, item: Item, destination: Store) -> Reading:
        """An item's source, as it is read."""
        return Reading(self._stores.source(item.source), item.source.registry, self._meter, destination)

    def _image(self, item: Item, pin: Pin | None) -> Image:
        destination = self._stores.store(item.target.place)
        reading = self.reading(item, destination)
        root, moved = self._root(item, reading.inner, pin)
        before = asked(destination, item.target.name)
        place = item.target.place
        survey = _Survey(
            reading,
            lambda leaf: self._blobs.get((place, leaf.digest), lambda: destination.exists(leaf)),
        )
        image = Image(item, Pin(root), before=before.digest if before else None, moved=moved)
        try:
            image = survey.select(image)
            right = before is not None and before.digest in survey.acceptable(image)
            subjects = survey.whole(root, image.left_out, known=right)
            referrers = pin.referrers if pin else self._referrers(item, reading.inner, subjects)
            tags = (
                pin.digest_tags
                if pin
                else self._digest_tags(item, reading.inner, (*subjects, *_all(referrers)))
            )
            for desc in _all(referrers):
                survey.whole(desc, frozenset())
            tagged = survey.tagged(tags, destination)
        except NotRead:
            return replace(image, work=Work(known=False))
        work = survey.work()
        unchanged = right and tagged and not work.manifests and not work.blobs
        return replace(image, pin=Pin(root, referrers, tags), unchanged=unchanged, work=work)

    def _root(self, item: Item, source: Source, pin: Pin | None) -> tuple[Descriptor, str]:
        """What the source has, or what the pin says and, where that is not the same, what the source has."""
        if pin is None:
            root = ask(source, item.source.ref)
            if not root.is_manifest:
                raise InvalidContent(f"{item.source} is {root.media_type!r:.80}, which is no image")
            return root, ""
        if item.source.digest:
            return pin.root, ""
        now = asked(source, item.source.ref)
        if now is None:
            return pin.root, "nothing"
        return pin.root, "" if now.digest == pin.root.digest else str(now.digest)

    def _referrers(
        self, item: Item, source: Source, subjects: Iterable[Descriptor]
    ) -> dict[Digest, tuple[Descriptor, ...]]:
        """What refers to the manifests, and what refers to that, sorted."""
        result: dict[Digest, tuple[Descriptor, ...]] = {}
        if not item.options.referrers or not isinstance(source, Referrers):
            return result
        level, depth = list(subjects), 0
        while level and depth < _REFERRER_DEPTH:
            depth += 1
            following: list[Descriptor] = []
            for subject in level:
                if self._unlisted(item.source, source, subject):
                    continue
                found = sorted(source.referrers(subject), key=lambda desc: desc.digest)
                if found and subject.digest not in result:
                    result[subject.digest] = tuple(found)
                    following += found
            level = following
        return result

    def _unlisted(self, reference: Reference, source: Source, subject: Descriptor) -> bool:
        """Whether the tags alone say that nothing refers to a manifest, so that nobody has to be asked."""
        if not isinstance(source, ListsByTag) or not source.lists_by_tag:
            return False
        tag = f"{subject.digest.algorithm}-{subject.digest.hex[:64]}"
        return tag not in self._listed(reference, source)

    def _digest_tags(
        self, item: Item, source: Source, subjects: Iterable[Descriptor]
    ) -> dict[str, Descriptor]:
        """The tags by which other clients find what belongs to the manifests."""
        if not item.options.digest_tags:
            return {}
        wanted = {str(subject.digest) for subject in subjects}
        return {
            tag: ask(source, tag)
            for tag in sorted(self._listed(item.source, source))
            if subject_of(tag) in wanted and not is_fallback_tag(tag)
        }

    def _listed(self, reference: Reference, source: Source) -> frozenset[str]:
        """The digest tags of a repository."""
        return self._listings.tags(reference, source).of_digests


class _Survey:
    """Finds what a destination lacks of a few graphs of content."""

    def __init__(self, reading: Reading, has_blob: Callable[[Descriptor], bool]) -> None:
        self._reading = reading
        self._has_blob = has_blob
        self._manifests: dict[Digest, Descriptor] = {}
        self._leaves: dict[Digest, Descriptor] = {}
        self._pulls: dict[Digest, None] = {}
        self._seen: set[Digest] = set()

    def select(self, image: Image) -> Image:
        """Say which platforms an image has, and which entries of its index are left out."""
        root, wanted = image.pin.root, image.item.options.platforms
        if not wanted:
            return image
        self._note(root)
        has = tuple(platform for platform in wanted if self._has(root, platform))
        if not has:
            names = ", ".join(map(str, wanted))
            raise NotFound(f"{image.source} has none of the platforms {names}")
        left_out = select(self._reading, root, Selection(has, sparse=True)).left_out
        return replace(
            image, platforms=has, left_out=left_out, lacks=tuple(p for p in wanted if p not in has)
        )

    def _has(self, root: Descriptor, platform: Platform) -> bool:
        try:
            select(self._reading, root, Selection((platform,), sparse=True))
        except NotRead:
            raise
        except NotFound:
            return False
        return True

    def acceptable(self, image: Image) -> set[Digest]:
        """The digests that the target may have at the destination when nothing is to be done."""
        root = image.pin.root
        if not image.left_out:
            return {root.digest}
        smaller = select(self._reading, root, image.selection(sparse=False)).root.digest
        sparse = image.item.options.sparse
        return (
            {smaller}
            if sparse == "never"
            else {root.digest}
            if sparse == "always"
            else {root.digest, smaller}
        )

    def whole(
        self, root: Descriptor, left_out: frozenset[Digest], *, known: bool = False
    ) -> list[Descriptor]:
        """Note what is missing under a root; `known` says that the destination has the root itself.

        A manifest that is there has all that it names: a registry takes it only then. An index may be sparse.

        Returns:
            The manifests under the root that are meant, the root included.
        """
        found: list[Descriptor] = []
        level, depth = [root], 0
        while level:
            depth += 1
            if depth > limits.INDEX_NESTING or len(found) > limits.INDEX_ENTRIES:
                raise UnsafeContent(f"{root.digest} is nested too deep, or names too many manifests")
            following: list[Descriptor] = []
            for desc in level:
                found.append(desc)
                there = (known and desc == root) or self._reading.is_there(desc)
                if not there:
                    self._manifests[desc.digest] = desc
                    self._note(desc)
                if there and not desc.is_index:
                    continue
                for child in self._children(desc):
                    if child.digest in left_out or child.digest in self._seen:
                        continue
                    self._seen.add(child.digest)
                    if child.is_manifest:
                        following.append(child)
                    else:
                        self._leaves[child.digest] = child
            level = following
        return found

    def _children(self, desc: Descriptor) -> Iterable[Descriptor]:
        manifest = read_manifest(self._reading, desc)
        children = manifest.manifests if isinstance(manifest, Index) else manifest.children
        return [child for child in children if not mediatypes.is_nondistributable(child.media_type)]

    def _note(self, desc: Descriptor) -> None:
        """Note a manifest that has to be read, and that the destination can't give."""
        if not self._reading.is_there(desc):
            self._pulls[desc.digest] = None

    def tagged(self, tags: Mapping[str, Descriptor], destination: Source) -> bool:
        """Note what is missing under digest tags; say whether all of them are as they should be."""
        right = True
        for tag, desc in tags.items():
            known = asked(destination, tag) == desc
            right &= known
            self.whole(desc, frozenset(), known=known)
        return right

    def work(self) -> Work:
        """What is missing."""
        blobs = [leaf for leaf in self._leaves.values() if not self._has_blob(leaf)]
        return Work(tuple(self._manifests.values()), tuple(blobs), pulls=tuple(self._pulls))


def _shared(images: Iterable[Image]) -> Iterable[Image]:
    """Count every blob once: what one image brings, the next ones find, or mount."""
    in_place: set[tuple[str, Digest]] = set()
    on_host: set[tuple[str, Digest]] = set()
    for image in images:
        place, host = image.target.place, image.target.host
        blobs, mounts, shared = [], [], []
        for blob in image.work.blobs:
            if (place, blob.digest) in in_place:
                shared.append(blob)
            elif (host, blob.digest) in on_host:
                mounts.append(blob)
            else:
                blobs.append(blob)
            in_place.add((place, blob.digest))
            on_host.add((host, blob.digest))
        work = replace(image.work, blobs=tuple(blobs), mounts=tuple(mounts), shared=tuple(shared))
        yield replace(image, work=work)


def _all(referrers: Mapping[Digest, tuple[Descriptor, ...]]) -> list[Descriptor]:
    return [desc for found in referrers.values() for desc in found]


def named(image: Image) -> str:
    """The name under which an image is tagged; a digest stands for none."""
    return str(image.pin.root.digest) if is_digest(image.target.name) else image.target.name
