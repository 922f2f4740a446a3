"""A destination that takes blobs over from its neighbours: what one image brought, the next ones need not."""

from __future__ import annotations

import threading
from io import BytesIO
from typing import TYPE_CHECKING

from ocitool.content import Mounter, Publisher
from ocitool.mirror.reading import Reading

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ocitool.content import Source, Store
    from ocitool.digest import Digest
    from ocitool.model import Descriptor
    from ocitool.streams import Reader


class Deliveries:
    """Which blob of a run is where at each registry, or on its way there.

    Of several images that bring the same blob at the same time, one does and the others wait for it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._coming: dict[tuple[str, Digest], object] = {}
        self._there: dict[tuple[str, Digest], tuple[str, Store]] = {}

    def claim(self, host: str, digest: Digest, owner: object) -> tuple[str, Store] | None:
        """Wait while another brings a blob, and say where it is; None makes the claim the caller's."""
        key = (host, digest)
        with self._changed:
            while self._coming.get(key, owner) is not owner:
                self._changed.wait()
            found = self._there.get(key)
            if found is None:
                self._coming[key] = owner
            return found

    def arrived(self, host: str, digest: Digest, place: str, store: Store) -> None:
        """The blob is there, for others to take over."""
        with self._changed:
            self._there[host, digest] = (place, store)
            self._coming.pop((host, digest), None)
            self._changed.notify_all()

    def release(self, host: str, digest: Digest, owner: object) -> None:
        """Give up a claim that came to nothing."""
        with self._changed:
            if self._coming.get((host, digest)) is owner:
                del self._coming[host, digest]
                self._changed.notify_all()


class Neighbourly:
    """One image's way into a repository. Implements Store and Mounter.

    Its source has to say through `lost` when a blob did not get here, or others would wait for it for ever.

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

    def lost(self, desc: Descriptor) -> None:
        """Let another image bring a blob that this one could not."""
        self._deliveries.release(self._host, desc.digest, self)
