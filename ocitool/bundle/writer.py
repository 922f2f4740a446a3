"""A bundle as a store to write to: every byte has its place before the first one is written.

What a bundle will hold is known beforehand, so the size of the file and the position of each member are.
Into a file, or into parts, several blobs are written at once; into a stream one after the other.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

from ocitool import strictjson, tarballs
from ocitool.bundle.source import INDEX_JSON, INVENTORY, OCI_LAYOUT, SIGNATURES, index_json
from ocitool.digest import Digest
from ocitool.errors import IntegrityError, InvalidReference, Unsupported
from ocitool.layout.index import blob_path
from ocitool.streams import VerifiedReader, chunks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from ocitool.bundle.inventory import Inventory
    from ocitool.bundle.sinks import Sink
    from ocitool.model import Descriptor
    from ocitool.streams import Reader

_LAYOUT: Final = {"imageLayoutVersion": "1.0.0"}


class Plan:
    """Where everything stands in the tar file of a bundle.

    The order: `oci-layout`, `index.json`, the inventory, signatures, manifests, blobs; the last two sorted
    by digest.

    Attributes:
        inventory: what the bundle holds and presumes.
        size: the size of the tar file, in bytes.
        head: the small files and where each starts, header included.
        starts: where the header of each piece of content starts.
    """

    def __init__(
        self, inventory: Inventory, signatures: Sequence[bytes] = (), *, mtime: int | None = None
    ) -> None:
        """Lay everything out.

        Args:
            inventory: what the bundle holds and presumes.
            signatures: documents that sign the inventory.
            mtime: the time that all members get; None is 0 or SOURCE_DATE_EPOCH.
        """
        self.inventory = inventory
        self.mtime = tarballs.source_date_epoch() if mtime is None else mtime
        raw = inventory.dump()
        annotations = {INVENTORY: str(Digest.of(raw))}
        if signatures:
            annotations[SIGNATURES] = " ".join(str(Digest.of(signature)) for signature in signatures)
        files = [
            (OCI_LAYOUT, strictjson.dumps(_LAYOUT)),
            (INDEX_JSON, index_json(inventory, annotations)),
            *((blob_path(Digest.of(blob)), blob) for blob in (raw, *signatures)),
        ]
        self.head: list[tuple[int, bytes]] = []
        self.size = 0
        for name, content in files:
            head = tarballs.header(name, len(content), self.mtime)
            self.head.append((self.size, head + content))
            self._advance(len(head) + len(content))
        self.starts: dict[Digest, int] = {}
        for digest, entry in inventory.content.items():
            self.starts[digest] = self.size
            self._advance(len(self.header(digest)) + entry.descriptor.size)
        self.size += len(tarballs.END)

    def _advance(self, count: int) -> None:
        self.size += count + tarballs.padding(count)

    def header(self, digest: Digest) -> bytes:
        """The header of a piece of content."""
        size = self.inventory.content[digest].descriptor.size
        return tarballs.header(blob_path(digest), size, self.mtime)


class BundleWriter:
    """A bundle that is being written.

    Implements Store and Resumer, as far as a copy needs them: what is presumed counts as being there, and
    nothing can be read back. Names are in the plan, so they can't be given here.
    """

    def __init__(self, plan: Plan, sink: Sink) -> None:
        """Write all that is not content."""
        self._plan = plan
        self._sink = sink
        self._mutex = threading.Lock()
        self._members: dict[Digest, _Incoming] = {}
        sink.start(plan.size)
        for start, data in plan.head:
            sink.write_at(start, data)

    def exists(self, desc: Descriptor, /) -> bool:
        """See `Store`; True for what the plan leaves out."""
        if desc.digest not in self._plan.starts:
            return True
        member = self._members.get(desc.digest)
        return member is not None and member.complete

    def push(self, desc: Descriptor, stream: Reader, /) -> None:
        """See `Store`."""
        with self.resume(desc) as member:
            if member is not None:
                member.push(stream)

    @contextmanager
    def resume(self, desc: Descriptor, /) -> Iterator[_Incoming | None]:
        """See `Resumer`; what there is of a blob is kept for as long as this writer."""
        with self._mutex:
            member = self._members.get(desc.digest)
            if member is None or (member.spoiled and not self._sink.in_order):
                start, header = self._plan.starts[desc.digest], self._plan.header(desc.digest)
                self._sink.write_at(start, header)
                entry = self._plan.inventory.content[desc.digest]
                member = _Incoming(self._sink, entry.descriptor, start + len(header))
                self._members[desc.digest] = member
        yield None if member.complete else member

    def tag(self, desc: Descriptor, ref: str, /) -> NoReturn:
        """See `Store`."""
        raise InvalidReference(f"{desc.digest} can't be named {ref}: a bundle's names are planned beforehand")

    def resolve(self, ref: str, /) -> NoReturn:
        """See `Source`."""
        raise _unreadable(ref)

    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> AbstractContextManager[Reader]:  # noqa: ARG002 - as every source has it
        """See `Source`."""
        raise _unreadable(str(desc.digest))


def _unreadable(what: str) -> Unsupported:
    return Unsupported(f"{what} can't be read from a bundle that is being written")


class _Incoming:
    """One piece of content on its way into the bundle; see `content.Partial`."""

    def __init__(self, sink: Sink, desc: Descriptor, start: int) -> None:
        self._sink = sink
        self._start = start
        self._relay = _Relay()
        self._verified = VerifiedReader(self._relay, desc.digest, desc.size)
        self.offset = 0
        self.complete = False
        self.spoiled = False

    def push(self, rest: Reader, /) -> None:
        """Add what follows `offset`; see `content.Partial`."""
        self._relay.reader = rest
        try:
            for chunk in chunks(self._verified):
                self._sink.write_at(self._start + self.offset, chunk)
                self.offset += len(chunk)
        except IntegrityError:
            self.spoiled = True
            raise
        self.complete = True


class _Relay:
    """A reader whose source changes when a transfer is taken up again."""

    reader: Reader

    def read(self, n: int = -1, /) -> bytes:
        return self.reader.read(n)
