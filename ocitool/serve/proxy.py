"""A pull-through cache: repositories whose content comes from an upstream when it is first asked for."""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from typing import IO, TYPE_CHECKING, Final

from ocitool.content import BlobFinder, Inquirer, Lister, Referrers, Source, Store, read_verified
from ocitool.digest import Digest
from ocitool.errors import NotFound, OciError, RegistryError, Unauthorized
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor, parse_manifest
from ocitool.reference import is_digest
from ocitool.scratch import write_all
from ocitool.serve.repositories import Tended
from ocitool.streams import Reader, VerifiedReader, chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from ocitool.serve.repositories import Repositories

_DOWNLOADS: Final = 8  # at once
_UPSTREAMS: Final = 256  # repositories whose source is kept, with its tokens
_KNOWN: Final = 100_000  # blobs whose size is remembered, about 200 bytes each


class ProxyRepositories:
    """Every repository of an upstream, to be pulled from; what was pulled once is in a cache.

    A tag is asked of the upstream each time, with a request that costs no pull, and taken from the cache
    where the upstream does not answer. Content that has a digest is asked for once.
    """

    def __init__(
        self,
        cache: Repositories,
        upstream: Callable[[str], Source],
        *,
        spool: Path | None = None,
        on_failure: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        """Put a cache before an upstream.

        Args:
            cache: repositories of stores, where content is kept.
            upstream: the source of a repository's content, by its name; what it gives is kept and used
                from several threads.
            spool: where downloads are kept until they are complete; None is the temporary directory.
            on_failure: is told where the cache could not keep what clients got all the same.
        """
        self._cache = cache
        self._upstream = lru_cache(_UPSTREAMS)(upstream)
        self._downloads = _Downloads(spool, on_failure)
        self._known: dict[Digest, Descriptor] = {}

    def names(self) -> Iterable[str]:
        """The repositories of which something is cached; the upstream's are not asked for."""
        return self._cache.names()

    def open(self, name: str, *, create: bool = False) -> Source | None:
        """A repository of the upstream, whether or not it has it; nothing can be pushed to it."""
        del create
        return _Proxied(name, self._cache, self._upstream(name), self._downloads, self._known)

    def tend(self) -> None:
        """See `Tended`."""
        if isinstance(self._cache, Tended):
            self._cache.tend()

    def close(self) -> None:
        """Give downloads up that nobody waits for."""
        self._downloads.close()


class _Proxied:
    """One repository, for one request. Implements Source, Lister and Referrers."""

    def __init__(
        self,
        name: str,
        cache: Repositories,
        upstream: Source,
        downloads: _Downloads,
        known: dict[Digest, Descriptor],
    ) -> None:
        self._name = name
        self._cache = cache
        self._upstream = upstream
        self._downloads = downloads
        self._known = known
        self._tag = ""

    def resolve(self, ref: str, /) -> Descriptor:
        if not is_digest(ref):
            self._tag = ref
            return self._resolve_tag(ref)
        digest = Digest.parse(ref)
        try:
            return self._known.get(digest) or self._cached().resolve(ref)
        except NotFound:
            pass
        try:
            return self._ask(ref)
        except NotFound:
            # A blob whose manifest was pulled from elsewhere, or before this server started.
            if not isinstance(self._upstream, BlobFinder):
                raise
            found = self._upstream.find_blob(digest)
            self._remember([found])
            return found

    def _resolve_tag(self, tag: str) -> Descriptor:
        try:
            return self._ask(tag)
        except Unauthorized:
            raise  # no reason to show what was cached for others
        except RegistryError as error:
            try:
                return self._cached().resolve(tag)
            except NotFound:
                raise error from None

    def _ask(self, ref: str) -> Descriptor:
        """Resolve a name at the upstream, without a pull that it might count."""
        return (
            self._upstream.ask(ref) if isinstance(self._upstream, Inquirer) else self._upstream.resolve(ref)
        )

    @contextmanager
    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> Iterator[Reader]:
        coming: Reader | None = None
        if not self._keeps(desc):
            if desc.is_manifest:
                coming = BytesIO(self._fetch_manifest(desc)[offset:])
            else:
                coming = self._downloads.follow(desc, self._upstream, self._stored, self._keeps, offset)
        if coming is not None:
            yield coming
            return
        store = self._cached()
        if desc.is_manifest and isinstance(store, Store):
            self._note(store, desc, read_verified(store, desc))
        with store.fetch(desc, offset=offset) as reader:
            yield reader

    def _fetch_manifest(self, desc: Descriptor) -> bytes:
        raw = read_verified(self._upstream, desc)
        store = self._stored()
        store.push(desc, BytesIO(raw))
        self._note(store, desc, raw)
        return raw

    def _note(self, store: Store, desc: Descriptor, raw: bytes) -> None:
        """Name a manifest in the cache, and remember what it names: clients ask for that by digest alone."""
        if self._tag:
            store.tag(desc, self._tag)
        self._remember(parse_manifest(raw, desc).children)

    def _remember(self, blobs: Iterable[Descriptor]) -> None:
        if len(self._known) > _KNOWN:
            self._known.clear()
        self._known.update({blob.digest: blob for blob in blobs})

    def _cached(self) -> Source:
        """The repository of the cache; where there is none it is not made for that."""
        return self._cache.open(self._name) or MemoryStore()

    def _keeps(self, desc: Descriptor) -> bool:
        """Whether the cache has something."""
        store = self._cached()
        return isinstance(store, Store) and store.exists(desc)

    def _stored(self) -> Store:
        store = self._cache.open(self._name, create=True)
        if not isinstance(store, Store):
            raise OciError(f"the cache can't be written to, so {self._name} is not pulled through it")
        return store

    def tags(self) -> Iterable[str]:
        for source in (self._upstream, self._cached()):
            try:
                if isinstance(source, Lister):
                    return list(source.tags())
            except RegistryError:
                if source is not self._upstream:
                    raise
        return []

    def referrers(self, desc: Descriptor, /, artifact_type: str = "") -> Iterable[Descriptor]:
        if isinstance(self._upstream, Referrers):
            return self._upstream.referrers(desc, artifact_type)
        return []


class _Downloads:
    """Blobs on their way from the upstream: each is fetched once, however many clients wait for it."""

    def __init__(self, spool: Path | None, on_failure: Callable[[Exception], None]) -> None:
        self._spool = spool
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._running: dict[Digest, _Download] = {}
        self._pool = ThreadPoolExecutor(_DOWNLOADS, thread_name_prefix="ocitool-proxy")

    def follow(
        self,
        desc: Descriptor,
        source: Source,
        store: Callable[[], Store],
        keeps: Callable[[Descriptor], bool],
        offset: int,
    ) -> Reader | None:
        """Read a blob as it comes; None where it has come since the caller looked for it in the cache.

        Raises:
            OciError: the upstream does not give it.
        """
        with self._lock:
            download = self._running.get(desc.digest)
            # One that has failed may still be there for a moment; whoever asks now is for a new try.
            if download is None or download.error:
                if keeps(desc):
                    return None
                download = self._running[desc.digest] = _Download(desc, self._spool)
                self._pool.submit(self._run, download, source, store)
        download.wait(offset)
        return _Follower(download, offset)

    def _run(self, download: _Download, source: Source, store: Callable[[], Store]) -> None:
        try:
            download.fetch(source)
            if not download.error:
                store().push(download.desc, _Follower(download, 0))
        except Exception as error:  # noqa: BLE001 - clients have what they asked for
            self._on_failure(error)
        finally:
            with self._lock:
                if self._running.get(download.desc.digest) is download:
                    del self._running[download.desc.digest]

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Download:
    """The bytes of one blob, as far as they have come."""

    def __init__(self, desc: Descriptor, spool: Path | None) -> None:
        self.desc = desc
        self.error: Exception | None = None
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=spool, buffering=0)  # noqa: SIM115 - see finalize
        weakref.finalize(self, self._file.close)  # with the last reader
        self._changed = threading.Condition()
        self._size = 0
        self._verified = False

    def fetch(self, source: Source) -> None:
        """Get the bytes and verify them; a failure is for the readers."""
        try:
            with source.fetch(self.desc) as stream:
                for chunk in chunks(VerifiedReader(stream, self.desc.digest, self.desc.size)):
                    write_all(self._file, chunk)
                    with self._changed:
                        self._size += len(chunk)
                        self._changed.notify_all()
            self._verified = True
        except Exception as error:  # noqa: BLE001 - raised again where the bytes are read
            self.error = error
        with self._changed:
            self._changed.notify_all()

    def read_at(self, offset: int, n: int) -> bytes:
        """Bytes from an offset on, once there are any; b"" at the end.

        Raises:
            Exception: what ended the download.
        """
        available = self.wait(offset)
        return os.pread(self._file.fileno(), min(n, available - offset), offset)

    def wait(self, offset: int) -> int:
        """Wait until there are bytes from an offset on, or all of them; how many bytes there are then.

        Raises:
            Exception: what ended the download.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.error or self._verified or self._available > offset)
            if self.error and self._available <= offset:
                raise self.error
            return max(self._available, offset)

    @property
    def _available(self) -> int:
        # The last byte is held back until the whole is verified, so that no client gets all of wrong content.
        return self._size if self._verified else min(self._size, self.desc.size - 1)


class _Follower:
    """Reads a download from somewhere on, never faster than it comes."""

    def __init__(self, download: _Download, offset: int) -> None:
        self._download = download
        self._offset = offset

    def read(self, n: int = -1, /) -> bytes:
        if n < 0:
            return b"".join(chunks(self))
        data = self._download.read_at(self._offset, n)
        self._offset += len(data)
        return data
