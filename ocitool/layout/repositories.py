"""A layout seen as a registry: its names sorted into repositories.

An entry named `[host/]repo:tag` is tag `tag` of repository `repo`; one with a plain tag belongs to the
repository that is named after the layout's directory. A layout does not say which repository content
without a name belongs to, so every repository has all of it; only what a client deleted is hidden from it.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Final

from ocitool.content import read_manifest
from ocitool.digest import Digest
from ocitool.errors import InvalidReference, NotFound, OciError
from ocitool.layout.incoming import IncomingBlob
from ocitool.layout.index import is_full, names
from ocitool.layout.room import Room
from ocitool.layout.store import INDEX_JSON
from ocitool.model import Descriptor
from ocitool.reference import Reference, check_tag, is_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ocitool.content import Incoming
    from ocitool.layout.store import LayoutStore
    from ocitool.streams import Reader

_BLOB: Final = "application/octet-stream"
_DEFAULT: Final = "image"  # where the directory's name is no repository's
_REMEMBERED: Final = 10_000  # repositories that were pushed to and have no tag yet
_RELIED_ON: Final = 600.0
"""Seconds for which content stays that a client has pushed or found here and not named: between two requests
of one push there may be another blob, for which it waits as well, but hardly more than that."""
_RENEWAL: Final = 60.0  # seconds between two leases


class LayoutRepositories:
    """The repositories of one layout; for `ocitool.serve`."""

    def __init__(self, store: LayoutStore, *, limit: int | None = None) -> None:
        """See a layout as a registry.

        Args:
            store: the layout.
            limit: how many bytes of content `tend` leaves there; None is all.
        """
        self._store = store
        self._room = Room(store, limit) if limit is not None else None
        self._created: dict[str, None] = {}
        self._hidden: set[tuple[str, Digest]] = set()
        self._catalogue = _Catalogue(store)
        self._incoming = _Incoming(store)
        self._renewed = time.monotonic()

    def tend(self) -> None:
        """Let garbage be collected that no client can still rely on, and make room. See `serve.Tended`."""
        if self._room:
            self._room.trim()
        now = time.monotonic()
        if now - self._renewed >= _RENEWAL:
            self._renewed = now
            self._store.renew(min(now - _RELIED_ON, self._incoming.oldest()))

    def names(self) -> Iterable[str]:
        """The repositories that have a tag, and those that were pushed to since this object was made."""
        return sorted({*self._catalogue.read().tags, *self._created})

    def open(self, name: str, *, create: bool = False) -> Repository | None:
        """A repository; None where there is none of that name and none is to be created."""
        if create:
            self._created[name] = None
            if len(self._created) > _REMEMBERED:
                # Whoever begins pushes to ever more names pays with the oldest ones.
                self._created.pop(next(iter(self._created)), None)
        elif name not in self._created and name not in self._catalogue.read().tags:
            return None
        return Repository(self._store, name, self._catalogue, self._hidden, self._incoming, self._room)


class _Incoming:
    """The uploads that are under way."""

    def __init__(self, store: LayoutStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._begun: weakref.WeakSet[IncomingBlob] = weakref.WeakSet()

    def begin(self, committed: Callable[[Descriptor], None]) -> IncomingBlob:
        """Begin one."""
        blob = IncomingBlob(self._store, committed)
        with self._lock:
            self._begun.add(blob)
        return blob

    def oldest(self) -> float:
        """When the one began that began first, in seconds of the monotonic clock."""
        with self._lock:
            return min((blob.begun for blob in self._begun if blob.is_open), default=math.inf)


class _View:
    """`index.json` at one moment."""

    def __init__(self, entries: list[Descriptor], default: str) -> None:
        self.entries = entries
        self.roots = {entry.digest: entry for entry in entries}
        self.tags: dict[str, dict[str, tuple[str, Descriptor]]] = {}
        for entry in entries:
            # The last name is the full one, where an entry has two.
            found = repository_and_tag(names(entry)[-1], default) if names(entry) else None
            if found:
                # Of two hosts' images with the same name the first one counts.
                self.tags.setdefault(found[0], {}).setdefault(found[1], (names(entry)[-1], entry))


class _Catalogue:
    """`index.json`, read again when it changes."""

    def __init__(self, store: LayoutStore) -> None:
        self._store = store
        self._default = _default_repository(store)
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._view = _View([], self._default)

    def read(self) -> _View:
        """The view as it is now."""
        with self._lock:
            stamp = self._changed()
            if stamp is None or stamp != self._stamp:
                self._view = _View(self._store.entries(), self._default)
                self._stamp = stamp
            return self._view

    def _changed(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._store.path / INDEX_JSON)  # noqa: PTH116 - a stat result, without a second object
        except OSError:
            return None  # `entries` says why
        return status.st_ino, status.st_mtime_ns, status.st_size


class Repository:
    """One repository of a layout. Implements Store, Deleter, Referrers, Lister and Receiver."""

    def __init__(
        self,
        store: LayoutStore,
        name: str,
        catalogue: _Catalogue,
        hidden: set[tuple[str, Digest]],
        incoming: _Incoming,
        room: Room | None,
    ) -> None:
        self._store = store
        self._name = name
        self._catalogue = catalogue
        self._hidden = hidden
        self._incoming = incoming
        self._room = room

    def resolve(self, ref: str, /) -> Descriptor:
        """See `Source`; a blob's media type is not known to a layout."""
        view = self._catalogue.read()
        digest = Digest.parse(ref) if is_digest(ref) else None
        if digest is None:
            _, desc = self._tagged(ref)
        else:
            desc = view.roots.get(digest) or Descriptor(_BLOB, digest, self._store.blobs.size(digest) or 0)
        if self._is_hidden(desc) or self._store.blobs.size(desc.digest) != desc.size:
            raise NotFound(f"{ref} is not in repository {self._name}")
        return desc

    @contextmanager
    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> Iterator[Reader]:
        """See `Source`."""
        with (
            self._room.reading(desc.digest) if self._room else nullcontext(),
            self._store.fetch(desc, offset=offset) as reader,
        ):
            yield reader

    def exists(self, desc: Descriptor, /) -> bool:
        """See `Store`."""
        return not self._is_hidden(desc) and self._store.exists(desc)

    def push(self, desc: Descriptor, stream: Reader, /) -> None:
        """See `Store`."""
        self._store.push(desc, stream)
        self._added(desc)

    def receive(self) -> Incoming:
        """See `Receiver`."""
        return self._incoming.begin(self._added)

    def _added(self, desc: Descriptor) -> None:
        self._hidden.discard((self._name, desc.digest))
        if self._room:
            self._room.grown()

    def tag(self, desc: Descriptor, ref: str, /) -> None:
        """See `Store`; a tag that there is keeps the name that its entry has, with its host."""
        name = ref
        if not is_digest(ref):
            known = self._catalogue.read().tags.get(self._name, {}).get(ref)
            name = known[0] if known else f"{self._name}:{ref}"
        self._store.tag(desc, name)

    def untag(self, ref: str, /) -> None:
        """See `Deleter`."""
        self._store.untag(self._tagged(ref)[0])

    def delete(self, desc: Descriptor, /) -> None:
        """See `Deleter`. What an image that keeps its name is made of is hidden here, and stays."""
        self.resolve(str(desc.digest))
        for name, tagged in list(self._catalogue.read().tags.get(self._name, {}).values()):
            if tagged.digest == desc.digest:
                self._store.untag(name)
        if not self._is_needed(desc.digest):
            self._store.delete(desc)
        self._hidden.add((self._name, desc.digest))

    def referrers(self, desc: Descriptor, /, artifact_type: str = "") -> Iterable[Descriptor]:
        """See `Referrers`."""
        found = self._store.referrers(desc, artifact_type)
        return [referrer for referrer in found if not self._is_hidden(referrer)]

    def tags(self) -> Iterable[str]:
        """See `Lister`."""
        return sorted(self._catalogue.read().tags.get(self._name, {}))

    def _tagged(self, tag: str) -> tuple[str, Descriptor]:
        found = self._catalogue.read().tags.get(self._name, {}).get(tag)
        if found is None:
            raise NotFound(f"repository {self._name} has no tag {tag}")
        return found

    def _is_hidden(self, desc: Descriptor) -> bool:
        return (self._name, desc.digest) in self._hidden

    def _is_needed(self, digest: Digest) -> bool:
        """Whether an entry, other than the content's own one without a name, reaches it."""
        seen: set[Digest] = set()
        left = [entry for entry in self._catalogue.read().entries if names(entry) or entry.digest != digest]
        while left:
            desc = left.pop()
            if desc.digest == digest:
                return True
            if desc.is_manifest and desc.digest not in seen:
                seen.add(desc.digest)
                left += self._children(desc)
        return False

    def _children(self, desc: Descriptor) -> tuple[Descriptor, ...]:
        try:
            return read_manifest(self._store, desc).children
        except OciError:
            return ()  # what is lost needs nothing


def repository_and_tag(name: str, default: str) -> tuple[str, str] | None:
    """The repository and the tag that a layout's name means; None where it can't be either.

    Args:
        name: an entry's name, full or a plain tag.
        default: the repository of plain tags.
    """
    repository, tag = default, name
    if is_full(name):
        repository, colon, tag = name.rpartition(":")
        if not colon or "/" in tag:
            repository, tag = name, "latest"
        host, slash, rest = repository.partition("/")
        if slash and (host == "localhost" or "." in host or ":" in host):
            repository = rest
    try:
        Reference("localhost", repository)
        check_tag(tag)
    except InvalidReference:
        return None
    return repository, tag


def _default_repository(store: LayoutStore) -> str:
    name = store.path.resolve().name.lower()
    return name if repository_and_tag("latest", name) else _DEFAULT
