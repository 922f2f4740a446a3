"""Planning: what a mirror file would move, down to the blob, without moving any of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from ocitool.content import Lister, Referrers
from ocitool.digesttags import belonging
from ocitool.errors import InvalidContent, NotFound, OciError
from ocitool.mirror.items import Failure, Item, Listings, Stores
from ocitool.mirror.once import Once
from ocitool.mirror.plans import Image, Pin, Plan, Work, shared_out
from ocitool.mirror.reading import Meter, NotRead, Reading, ask, asked
from ocitool.mirror.surveying import Survey
from ocitool.reference import is_digest
from ocitool.workers import each

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ocitool.content import Source, Store
    from ocitool.digest import Digest
    from ocitool.mirror.naming import Target
    from ocitool.model import Descriptor
    from ocitool.reference import Reference

_SMALL: Final = 1 << 16  # bytes; what is smaller is sent as fast as it is asked about
_REFERRER_DEPTH: Final = 4  # a signature of an SBOM of an image is three


@runtime_checkable
class ListsByApi(Protocol):
    """A repository whose registry may have an API for referrers, or keep their lists as tags alone."""

    def referrers_by_api(self, desc: Descriptor, /) -> list[Descriptor] | None:
        """What refers to a manifest, as the API says; None where there is none, which it then knows."""
        ...


class Planner:
    """Makes plans. No blob of a place is asked for twice, and no repository for its tags."""

    def __init__(self, stores: Stores, meter: Meter, listings: Listings, *, jobs: int = 4) -> None:
        self._listings = listings
        self._stores = stores
        self._meter = meter
        self._jobs = jobs
        self._blobs: Once[tuple[str, Digest], bool] = Once()
        self._new: Once[str, bool] = Once()
        self._referrer_lists: Once[str, tuple[Digest, list[Descriptor] | None]] = Once()

    def plan(self, items: Iterable[Item], pins: Mapping[Target, Pin] | None = None) -> Plan:
        """Plan images; those that have a pin are taken as it says, whatever the source says by now."""
        found: list[Image] = []
        failures: list[Failure] = []

        def one(item: Item) -> Image | Failure:
            try:
                return self._image(item, (pins or {}).get(item.target))
            except OciError as error:
                return Failure(f"{item.source} to {item.target}", error)

        for result in each(one, _by_turns(items), jobs=self._jobs):
            if isinstance(result, Image):
                found.append(result)
            else:
                failures.append(result)
        found.sort(key=lambda image: image.target)
        failures.sort(key=lambda failure: failure.what)
        return Plan(tuple(shared_out(found)), tuple(failures))

    def reading(self, item: Item, destination: Store) -> Reading:
        """An item's source, as it is read."""
        return Reading(self._stores.source(item.source), item.source.registry, self._meter, destination)

    def _image(self, item: Item, pin: Pin | None) -> Image:
        destination = self._stores.store(item.target.place)
        reading = self.reading(item, destination)
        root, moved = self._root(item, reading.inner, pin)
        before = self._before(item.target, destination)
        reading.new = before is None and self._is_new(item.target, destination)
        survey = Survey(reading, partial(self._has_blob, item.target.place, reading, destination))
        image = Image(item, Pin(root), before=before.digest if before else None, moved=moved)
        try:
            image = survey.select(image)
            right = before is not None and before.digest in survey.acceptable(image)
            subjects = survey.whole(root, image.left_out, known=right)
            pin = pin or self._pin(item, reading.inner, root, subjects)
            for desc in pin.referring:
                survey.whole(desc, frozenset())
            beside = {item.target.beside(tag): desc for tag, desc in pin.digest_tags.items()}
            tagged = survey.tagged(beside, destination)
        except NotRead:
            return replace(image, work=Work(known=False))
        work = survey.work()
        unchanged = right and tagged and not work.manifests and not work.blobs
        return replace(image, pin=pin, unchanged=unchanged, work=work)

    def _pin(self, item: Item, source: Source, root: Descriptor, subjects: Iterable[Descriptor]) -> Pin:
        """What an image is at its source now, with all that belongs to it."""
        pin = Pin(root, self._referrers(item, source, subjects))
        return replace(pin, digest_tags=self._digest_tags(item, source, (*subjects, *pin.referring)))

    def _before(self, target: Target, destination: Store) -> Descriptor | None:
        """What a target stands for by now; a place that is known to have no names is not asked for one."""
        if self._new.known(target.place) and not is_digest(target.name):
            return None
        return asked(destination, target.name)

    def _is_new(self, target: Target, destination: Store) -> bool:
        """Whether a place has no names yet; one question, which the first missing name is worth."""
        if is_digest(target.name) or not isinstance(destination, Lister):
            return False
        return self._new.get(target.place, lambda: _is_unknown(destination))

    def _has_blob(self, place: str, reading: Reading, destination: Store, leaf: Descriptor) -> bool:
        """Whether a place has a blob. An interrupted run may have left some in one that has no names yet."""
        if reading.new and leaf.size <= _SMALL:
            return False
        return self._blobs.get((place, leaf.digest), lambda: destination.exists(leaf))

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
        if not item.options.referrers:
            return result
        level, depth = list(subjects), 0
        while level and depth < _REFERRER_DEPTH:
            depth += 1
            following: list[Descriptor] = []
            for subject in level:
                found = sorted(self._referring(item.source, source, subject), key=lambda desc: desc.digest)
                if found and subject.digest not in result:
                    result[subject.digest] = tuple(found)
                    following += found
            level = following
        return result

    def _referring(self, reference: Reference, source: Source, subject: Descriptor) -> Iterable[Descriptor]:
        """What refers to a manifest. Where lists are kept as tags, the tags say for which there is one."""
        if not isinstance(source, Referrers):
            return []
        if not isinstance(source, ListsByApi):
            return source.referrers(subject)
        # The first answer of a repository shows how its lists are kept, which others wait to know.
        asked_first, found = self._referrer_lists.get(
            reference.name, lambda: (subject.digest, source.referrers_by_api(subject))
        )
        if asked_first != subject.digest:
            found = source.referrers_by_api(subject)
        if found is not None:
            return found
        tag = f"{subject.digest.algorithm}-{subject.digest.hex[:64]}"
        return source.referrers(subject) if tag in self._listed(reference, source) else []

    def _digest_tags(
        self, item: Item, source: Source, subjects: Iterable[Descriptor]
    ) -> dict[str, Descriptor]:
        """The tags by which other clients find what belongs to the manifests."""
        if not item.options.digest_tags:
            return {}
        wanted = {str(subject.digest) for subject in subjects}
        tags = belonging(self._listed(item.source, source), wanted, item.source.ref)
        return {tag: ask(source, tag) for tag in tags}

    def _listed(self, reference: Reference, source: Source) -> frozenset[str]:
        """The digest tags of a repository."""
        return self._listings.tags(reference, source).of_digests


def _by_turns(items: Iterable[Item]) -> list[Item]:
    """One item for each place, then the next for each: the first shows whether the place has any names."""
    before: Counter[str] = Counter()
    ranked = []
    for item in items:
        ranked.append((before[item.target.place], item))
        before[item.target.place] += 1
    return [item for _, item in sorted(ranked, key=lambda pair: pair[0])]


def _is_unknown(destination: Lister) -> bool:
    try:
        list(destination.tags())
    except NotFound:
        return True
    return False
