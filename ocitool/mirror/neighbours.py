"""A destination that takes blobs over from its neighbours: what one image brought, the next ones need not."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Final

from ocitool.content import Mounter, Publisher
from ocitool.mirror.reading import Reading

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ocitool.content import Source, Store
    from ocitool.digest import Digest
    from ocitool.model import Descriptor
    from ocitool.streams import Reader


# Between a claim and the first byte lies one request. A claim that rests longer than this, in seconds, is one
# whose image has failed in between.
_PATIENCE: Final = 10.0


@dataclass(slots=True)
class _Claim:
    owner: object
    until: float  # for ever, once bytes are on their way


class Deliveries:
    """Which blob of a run is where at each registry, or on its way there.

    Of several images that bring the same blob at the same time, one does and the others wait for it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._coming: dict[tuple[str, Digest], _Claim] = {}
        self._there: dict[tuple[str, Digest], tuple[str, Store]] = {}

    def claim(self, host: str, digest: Digest, owner: object) -> tuple[str, Store] | None:
        """Wait while another brings a blob, and say where it is; None makes the claim the caller's."""
        key = (host, digest)
        with self._changed:
            while (claim := self._coming.get(key)) and claim.owner is not owner:
                left = claim.until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(left, _PATIENCE))
            found = self._there.get(key)
            if found is None:
                self._coming[key] = _Claim(owner, time.monotonic() + _PATIENCE)
            return found

    def moving(self, host: str, digest: Digest, owner: object) -> None:
        """Bytes are on their way: from here on, `arrived` or `release` is sure to come."""
        with self._changed:
            self._coming[host, digest] = _Claim(owner, math.inf)

    def arrived(self, host: str, digest: Digest, place: str, store: Store) -> None:
        """The blob is there, for others to take over."""
        with self._changed:
            self._there[host, digest] = (place, store)
            self._coming.pop((host, digest), None)
            self._changed.notify_all()

    def release(self, host: str, digest: Digest, owner: object) -> None:
        """Give up a claim that came to nothing."""
        with self._changed:
            claim = self._coming.get((host, digest))
            if claim and claim.owner is owner:
                del self._coming[host, digest]
                self._changed.notify_all()


class Neighbourly:
    """One image's way into a repository. Implements Store and Mounter.

    Its source has to say through `begin` and `lost` when a blob is on its way, and when it did not get here:
    others wait for it in between.

    Attributes:
        missing: content that the plan found missing, which nobody asks about again.
        named: manifests that get a tag as soon as they have been pushed; that is one request then, not two.
        mounted: how many blobs were taken over.
    """

    def __init__(self, inner: Store, place: str, host: str, deliveries: Deliveries) -> None:
        self.missing: frozenset[Digest] = frozenset()
        self.named: frozenset[Digest] = frozenset()
        self.mounted = 0
        self._inner = inner
        self._place = place
        self._host = host
        self._deliveries = deliveries
        self._lock = threading.Lock()
        self._held: dict[Digest, bytes] = {}

    def resolve(self, ref: str, /) -> Descriptor:
        """See `Source`."""
        return self._inner.resolve(ref)

    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> AbstractContextManager[Reader]:
        """See `Source`."""
        return self._inner.fetch(desc, offset=offset)

    def exists(self, desc: Descriptor, /) -> bool:
        """See `Store`. What was missing a moment ago is pushed, which does no harm if it came since."""
        return desc.digest not in self.missing and self._inner.exists(desc)

    def push(self, desc: Descriptor, stream: Reader, /) -> None:
        """See `Store`. A manifest in `named` is only held, for the `tag` that follows at once."""
        if desc.digest in self.named and isinstance(self._inner, Publisher):
            self._held[desc.digest] = stream.read()
            return
        self._inner.push(desc, stream)
        if not desc.is_manifest:
            self._deliveries.arrived(self._host, desc.digest, self._place, self._inner)

    def tag(self, desc: Descriptor, ref: str, /) -> None:
        """See `Store`."""
        held = self._held.pop(desc.digest, None)
        if held is not None and isinstance(self._inner, Publisher):
            self._inner.publish(desc, BytesIO(held), ref)
        else:
            self._inner.tag(desc, ref)

    def mount(self, desc: Descriptor, source: Source, /) -> bool:
        """See `Mounter`; a neighbour to which this run brought the blob comes before the source."""
        found = self._deliveries.claim(self._host, desc.digest, self)
        if found and found[0] == self._place:
            return True
        origin = source.inner if isinstance(source, Reading) else source
        done = isinstance(self._inner, Mounter) and self._inner.mount(desc, found[1] if found else origin)
        if done:
            with self._lock:
                self.mounted += 1
            self._deliveries.arrived(self._host, desc.digest, self._place, self._inner)
        return done

    def begin(self, desc: Descriptor) -> None:
        """Let other images wait for a blob that is on its way."""
        self._deliveries.moving(self._host, desc.digest, self)

    def lost(self, desc: Descriptor) -> None:
        """Let another image bring a blob that this one could not."""
        self._deliveries.release(self._host, desc.digest, self)
