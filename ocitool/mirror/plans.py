"""What a plan consists of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ocitool.selection import EVERYTHING, Selection

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ocitool.digest import Digest
    from ocitool.mirror.items import Failure, Item
    from ocitool.mirror.naming import Target
    from ocitool.model import Descriptor
    from ocitool.platforms import Platform
    from ocitool.reference import Reference


@dataclass(frozen=True, slots=True)
class Pin:
    """What a plan says an image is: its root, what refers to it, and its digest tags."""

    root: Descriptor
    referrers: Mapping[Digest, tuple[Descriptor, ...]] = field(default_factory=dict)
    digest_tags: Mapping[str, Descriptor] = field(default_factory=dict)

    @property
    def referring(self) -> tuple[Descriptor, ...]:
        """All that refers to the image or to a part of it, directly or not."""
        return tuple(desc for found in self.referrers.values() for desc in found)


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


def shared_out(images: Iterable[Image]) -> Iterable[Image]:
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
