"""A source as the mirror reads it: manifests once and from where they cost least."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import TYPE_CHECKING, Final

from ocitool.content import Inquirer, read_verified
from ocitool.digest import Digest
from ocitool.errors import NotFound, OciError
from ocitool.mirror.budgets import LimitedReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from ocitool.content import Source, Store
    from ocitool.mirror.budgets import PullBudget, TokenBucket
    from ocitool.model import Descriptor
    from ocitool.streams import Reader

_REMEMBERED: Final = 64 << 20  # bytes in memory
_KEPT: Final = 30 * 86400  # seconds on the disk without being of use


def ask(source: Source, ref: str) -> Descriptor:
    """What a name stands for, without reading it wherever the source can say so.

    Raises:
        NotFound: nothing has that name.
    """
    return source.ask(ref) if isinstance(source, Inquirer) else source.resolve(ref)


def asked(source: Source, ref: str) -> Descriptor | None:
    """As `ask`; None where nothing has that name."""
    try:
        return ask(source, ref)
    except NotFound:
        return None


class NotRead(OciError):
    """A manifest would have to be read from its source, which was not to be done."""


class ManifestCache:
    """Manifests that have been read, in memory and, with a directory, across runs.

    A manifest that was read to make a plan is not read, and not counted by its registry, a second time to
    carry the plan out.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._memory: OrderedDict[Digest, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, desc: Descriptor) -> bytes | None:
        """A manifest's bytes, or None; what is on the disk is believed once its digest is right."""
        with self._lock:
            if (raw := self._memory.get(desc.digest)) is not None:
                self._memory.move_to_end(desc.digest)
                return raw
        if self._directory is None:
            return None
        file = self._directory / desc.digest.algorithm / desc.digest.hex
        try:
            raw = file.read_bytes()
        except OSError:
            return None
        if Digest.of(raw, desc.digest.algorithm) != desc.digest:
            return None
        with suppress(OSError):
            os.utime(file)  # for `sweep`
        self._remember(desc, raw)
        return raw

    def put(self, desc: Descriptor, raw: bytes) -> None:
        """Keep a manifest whose digest has been verified; a disk that is full is no failure."""
        self._remember(desc, raw)
        if self._directory is None:
            return
        file = self._directory / desc.digest.algorithm / desc.digest.hex
        partial = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_bytes(raw)
                partial.replace(file)
            finally:
                partial.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Forget on the disk what has not been of use for a long time."""
        if self._directory is None:
            return
        oldest = time.time() - _KEPT
        for file in self._directory.glob("*/*"):
            with suppress(OSError):
                if file.stat().st_mtime < oldest:
                    file.unlink()

    def _remember(self, desc: Descriptor, raw: bytes) -> None:
        with self._lock:
            if desc.digest not in self._memory:
                self._memory[desc.digest] = raw
                self._size += len(raw)
            while self._size > _REMEMBERED and len(self._memory) > 1:
                self._size -= len(self._memory.popitem(last=False)[1])


class Meter:
    """What a run asks of its sources, counted, and kept within its budgets.

    Attributes:
        pulls: manifests read from each host.
    """

    def __init__(
        self,
        cache: ManifestCache | None = None,
        *,
        budget: PullBudget | None = None,
        bucket: TokenBucket | None = None,
        may_pull: bool = True,
    ) -> None:
        self.cache = cache or ManifestCache()
        self.bucket = bucket
        self.pulls: dict[str, int] = {}
        self._budget = budget
        self._may_pull = may_pull
        self._lock = threading.Lock()

    def left(self, host: str) -> int | None:
        """How many manifests may still be read from a host; None where there is no limit."""
        return self._budget.left(host) if self._budget else None

    def pull(self, host: str, desc: Descriptor) -> None:
        """Count a manifest that is about to be read from a host.

        Raises:
            Conflict: the host's budget is used up.
            NotRead: this run reads none.
        """
        if not self._may_pull:
            raise NotRead(f"{desc.media_type} {desc.digest} was not read")
        if self._budget:
            self._budget.take(host)
        with self._lock:
            self.pulls[host] = self.pulls.get(host, 0) + 1


class Reading:
    """One repository, read for one destination. Implements Source and Referrers.

    Attributes:
        inner: the repository itself.
        new: the destination has no names yet, so that nobody asks it for manifests.
        referrers_of: the referrers that are to be seen, by their subject: those that were planned.
        on_begin: is told of a blob that is about to be read.
        on_lost: is told of a blob that could not be read to its end, or not be written.
    """

    def __init__(self, inner: Source, host: str, meter: Meter, destination: Store) -> None:
        self.inner = inner
        self.new = False
        self.referrers_of: Mapping[Digest, tuple[Descriptor, ...]] = {}
        self.on_begin: Callable[[Descriptor], None] = lambda _: None
        self.on_lost: Callable[[Descriptor], None] = lambda _: None
        self._host = host
        self._meter = meter
        self._destination = destination
        self._lock = threading.Lock()
        self._there: dict[Digest, bool] = {}

    def resolve(self, ref: str, /) -> Descriptor:
        """See `Source`."""
        return self.inner.resolve(ref)

    @contextmanager
    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> Iterator[Reader]:
        """See `Source`."""
        if desc.is_manifest:
            yield BytesIO(self._manifest(desc)[offset:])
            return
        bucket = self._meter.bucket
        self.on_begin(desc)
        try:
            with self.inner.fetch(desc, offset=offset) as reader:
                yield LimitedReader(reader, bucket) if bucket else reader
        except BaseException:
            self.on_lost(desc)
            raise

    def referrers(self, desc: Descriptor, /, artifact_type: str = "") -> Iterable[Descriptor]:
        """See `Referrers`."""
        found = self.referrers_of.get(desc.digest, ())
        return [referrer for referrer in found if artifact_type in {"", referrer.artifact_type}]

    def is_there(self, desc: Descriptor) -> bool:
        """Whether the destination had a manifest when it was first asked."""
        if self.new:
            return False
        with self._lock:
            known = self._there.get(desc.digest)
        if known is None:
            known = self._destination.exists(desc)
            with self._lock:
                self._there[desc.digest] = known
        return known

    def _manifest(self, desc: Descriptor) -> bytes:
        """From the cache; from the destination, which counts no pulls; or from the source."""
        if (raw := self._meter.cache.get(desc)) is not None:
            return raw
        if self.is_there(desc):
            raw = read_verified(self._destination, desc)
        else:
            self._meter.pull(self._host, desc)
            raw = read_verified(self.inner, desc)
        self._meter.cache.put(desc, raw)
        return raw
