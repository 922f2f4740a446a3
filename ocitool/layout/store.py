"""An image layout as a store that any number of processes may use at once (image-spec, image-layout.md).

The order of writing is the promise: a blob is verified and on the disk before it gets its name, its name is
on the disk before `index.json` mentions what it belongs to. So a process or a machine that stops anywhere
leaves a layout in which every name resolves to content that is whole. docs/explanation/durability.md tells
the whole story.
"""

from __future__ import annotations

import math
import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ocitool import limits, strictjson
from ocitool.errors import Conflict, InvalidContent, InvalidReference, NotFound, Unsupported
from ocitool.layout import files
from ocitool.layout.blobs import Blobs
from ocitool.layout.index import IndexJson, check_name, digest_of, listing, pick, sniff, tags
from ocitool.layout.locks import GC_LOCK, INDEX_LOCK, PRIVATE, Lease, leased, lock
from ocitool.layout.referring import Subjects

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ocitool.content import Source
    from ocitool.digest import Digest
    from ocitool.layout.partials import PartialFile
    from ocitool.model import Descriptor
    from ocitool.streams import Reader

INDEX_JSON: Final = "index.json"
OCI_LAYOUT: Final = "oci-layout"
# The version that every layout has had since the specification's first release.
VERSION: Final = {"imageLayoutVersion": "1.0.0"}


class LayoutStore:
    """A directory of blobs and names.

    Implements Source, Store, Mounter, Deleter, Referrers, Lister and Resumer, and may be used from several
    threads. A store that has written holds a lease on what it wrote or found there, against the collection of
    garbage, until it is closed or forgotten; one that lives for long calls `renew` now and then.
    """

    def __init__(
        self, path: Path | str, *, create: bool = True, read_only: bool = False, verify: bool = False
    ) -> None:
        """Name a layout; nothing is opened yet.

        Args:
            path: the directory.
            create: make it with the first write if it is not there.
            read_only: refuse every write.
            verify: `exists` reads the content instead of comparing sizes only.
        """
        self._path = Path(path)
        self._create = create
        self._read_only = read_only
        self._verify = verify
        self._mutex = threading.Lock()
        self._lease: Lease | None = None
        self._older: list[tuple[float, Lease]] = []
        self._prepared = False
        self._subjects = Subjects(self)
        self.blobs = Blobs(self._path)

    @property
    def path(self) -> Path:
        """The directory."""
        return self._path

    def close(self) -> None:
        """Let garbage be collected that this store has added and not named."""
        self.renew(math.inf)

    def renew(self, since: float) -> None:
        """Let garbage be collected that this store has added and not named, or found, before a moment.

        Args:
            since: seconds of the monotonic clock. What came after it stays, and some of what came before.
        """
        with self._mutex:
            if self._lease:
                self._older.append((time.monotonic(), self._lease))
                self._lease = None
            for ended, lease in self._older:
                if ended <= since:
                    lease.close()
            self._older = [(ended, lease) for ended, lease in self._older if ended > since]

    # Source

    def resolve(self, ref: str, /) -> Descriptor:
        """What a name or a digest stands for; "" is the only image that there is.

        Raises:
            NotFound: nothing has that name.
            InvalidReference: "" and there are several images.
            InvalidContent: the name stands at different content.
        """
        return pick(self.entries(), ref, f"the layout {self._path}", self._unlisted)

    def _unlisted(self, digest: Digest) -> Descriptor | None:
        size = self.blobs.size(digest)
        return None if size is None else sniff(self, digest, size)

    @contextmanager
    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> Iterator[Reader]:
        """See `Source`; the reader is an open file."""
        with self.blobs.open(desc.digest, offset) as blob:
            yield blob

    # Store

    def exists(self, desc: Descriptor, /) -> bool:
        """See `Store`. What is there then stays, whoever collects garbage, for as long as this store.

        A manifest is read, and counts only if it is listed among the referrers of its subject.
        """
        if not (self._path / OCI_LAYOUT).exists():
            return False  # and nothing is written into what may be anybody's directory
        if self._read_only or not os.access(self._path, os.W_OK):
            return self._is_there(desc, None)
        with self._noted(desc.digest) as lease:
            return self._is_there(desc, lease)

    def _is_there(self, desc: Descriptor, lease: Lease | None) -> bool:
        if self.blobs.size(desc.digest) != desc.size:
            return False
        suspect = lease is not None and desc.digest in lease.suspects
        if (self._verify or suspect or desc.is_manifest) and not self.blobs.is_sound(desc):
            return False
        if lease and suspect:
            lease.trust(desc.digest)
        return not desc.is_manifest or self._subjects.of(desc) is None or desc in self.entries()

    def push(self, desc: Descriptor, stream: Reader, /) -> None:
        """See `Store`."""
        with self.resume(desc) as partial:
            if partial is not None:
                partial.discard()
                partial.push(stream)

    @contextmanager
    def resume(self, desc: Descriptor, /) -> Iterator[PartialFile | None]:
        """See `Resumer`."""
        self._prepare()
        with self.blobs.partial(desc) as partial:
            with self._noted(desc.digest) as lease:
                there = self._is_there(desc, lease)
            if there or partial.complete():
                if not partial.committed:
                    partial.discard()
                yield None
            else:
                yield partial
            if partial.committed:
                lease.trust(desc.digest)
        if desc.is_manifest and self._subjects.of(desc):
            self._list_referrer(desc)

    def mount(self, desc: Descriptor, source: Source, /) -> bool:
        """See `Mounter`: a layout on a file system that can do that shares its blobs' blocks."""
        if not isinstance(source, LayoutStore) or desc.is_manifest:
            return False
        self._prepare()
        with self._noted(desc.digest):
            pass
        return self.blobs.share(desc, source.blobs)

    def tag(self, desc: Descriptor, ref: str, /) -> None:
        """See `Store`.

        A `ref` with a repository in it is written as containerd's full name too.
        """
        own = ref == str(desc.digest)
        if not own and digest_of(ref):
            raise InvalidReference(f"content of {desc.digest} can't be named {ref} in a layout")
        check_name(ref)
        self._prepare()
        # Shared, so that what gets a name is not just being collected for lack of one.
        with lock(self._path, GC_LOCK, shared=True), self._edit() as index:
            if self.blobs.size(desc.digest) != desc.size:
                raise NotFound(f"{desc.digest} is not in the layout {self._path}, so it can't be named {ref}")
            index.put(desc, "" if own else ref)

    # Deleter

    def untag(self, ref: str, /) -> None:
        """See `Deleter`."""
        with self._edit() as index:
            if not index.find(ref):
                raise NotFound(
                    f"nothing in the layout {self._path} is named {ref}", hint=listing(index.entries)
                )
            index.remove_name(ref)

    def delete(self, desc: Descriptor, /) -> None:
        """See `Deleter`. The bytes of what another process is using stay until garbage is collected."""
        with self.collecting():
            if self.blobs.size(desc.digest) is None:
                raise NotFound(f"{desc.digest} is not in the layout {self._path}")
            with self._edit() as index:
                index.remove(desc.digest)
            if desc.digest not in leased(self._path, but=self._leases()):
                self.blobs.remove(desc.digest)

    # Referrers and Lister

    def referrers(self, desc: Descriptor, /, artifact_type: str = "") -> list[Descriptor]:
        """See `Referrers`. Those are found that `index.json` lists, directly or under the fallback tag."""
        return self._subjects.referrers(desc, self.entries(), artifact_type)

    def _list_referrer(self, desc: Descriptor) -> None:
        if desc not in self.entries():
            with self._edit() as index:
                index.put(self._subjects.as_referrer(desc))

    def tags(self) -> list[str]:
        """See `Lister`: one name per named root, the full one where there are two."""
        return tags(self.entries())

    def entries(self) -> list[Descriptor]:
        """What `index.json` lists, annotations included.

        Raises:
            NotFound: there is no layout.
            InvalidContent: the directory, or its index, is none.
        """
        return self.read_index().entries

    def read_index(self) -> IndexJson:
        """`index.json`, read."""
        return read_index(self._path)

    # Maintenance

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep writers from relying on anything new while garbage is found and removed."""
        self._prepare()
        with files.translated("garbage", self._path), lock(self._path, GC_LOCK):
            yield

    def leased(self) -> set[Digest]:
        """What living writers rely on; to be called while `collecting`."""
        return leased(self._path)

    def subject(self, desc: Descriptor) -> Digest | None:
        """What a manifest refers to, if it does."""
        return self._subjects.of(desc)

    def forget(self, roots: Iterable[Descriptor]) -> None:
        """Take roots that have no name out of `index.json`."""
        with self._edit() as index:
            index.remove_unnamed(set(roots))

    # Writing

    @contextmanager
    def _edit(self) -> Iterator[IndexJson]:
        """Change `index.json`; nothing is written if the body raises or changes nothing."""
        self._prepare()
        with files.translated(INDEX_JSON, self._path), lock(self._path, INDEX_LOCK) as private:
            index = self.read_index()
            before = index.dump()
            yield index
            if (after := index.dump()) != before:
                # A blob may have been named by a process that has not put the name on the disk yet.
                self.blobs.sync()
                with files.directory(self._path) as root:
                    files.replace_file(private, root, INDEX_JSON, after)

    @contextmanager
    def _noted(self, digest: Digest) -> Iterator[Lease]:
        """Put content on the lease; while the body runs, no garbage is collected."""
        with files.translated(PRIVATE, self._path):
            while True:
                with self._mutex:
                    self._lease = lease = self._lease or Lease(self._path)
                with lock(self._path, GC_LOCK, shared=True):
                    if lease.note(digest):
                        yield lease
                        return

    def _leases(self) -> list[Lease]:
        with self._mutex:
            return [lease for _, lease in self._older] + ([self._lease] if self._lease else [])

    def _prepare(self) -> None:
        """Make sure that there is a layout to write to."""
        if self._read_only:
            raise Conflict(f"the layout {self._path} was opened for reading only")
        if self._prepared:
            return
        if self._create and not (self._path / OCI_LAYOUT).exists():
            initialise(self._path)
        # Now, so that nobody waits for a download that has no place to go.
        self.read_index()
        self._prepared = True


def _repair(path: Path) -> str:
    return f"`ocitool store check --store {path} --repair` rebuilds it from the blobs"


def initialise(path: Path) -> None:
    """Make an empty layout, or end what an interrupted process began.

    Raises:
        Conflict: the directory holds something else.
    """
    _check_not_file(path)
    with files.translated(f"directory {path.name}", path):
        files.make_root(path)
        _check_empty(path)
        with lock(path, INDEX_LOCK) as private, files.directory(path) as root:
            _check_empty(path)
            with files.directory(path, "blobs", "sha256", create=True):
                pass
            if not (path / INDEX_JSON).exists():
                files.replace_file(private, root, INDEX_JSON, IndexJson().dump())
            # Last, because a directory that has this file is a layout.
            if not (path / OCI_LAYOUT).exists():
                files.replace_file(private, root, OCI_LAYOUT, strictjson.dumps(VERSION))


def _check_not_file(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise Conflict(
            f"{path} is a file, and an image layout is a directory",
            hint="an archive is named oci-archive:FILE or docker-archive:FILE",
        )


def _has_parts(path: Path) -> bool:
    """Whether a directory is a layout but for the file that says so."""
    return (path / INDEX_JSON).exists() or (path / "blobs").exists()


def _check_empty(path: Path) -> None:
    if holds_nothing(path) or (path / OCI_LAYOUT).exists():  # another process was faster
        return
    if _has_parts(path):
        raise InvalidContent(f"the layout {path} has no oci-layout file", hint=_repair(path))
    raise Conflict(
        f"the directory {path} is neither empty nor an image layout", hint="name a directory of its own"
    )


def holds_nothing(path: Path) -> bool:
    """Whether a directory is empty, or has what a process leaves that dies while it makes a layout.

    Raises:
        InvalidContent: its index.json is none.
    """
    if {entry.name for entry in path.iterdir()} - {PRIVATE, "blobs", INDEX_JSON}:
        return False
    try:
        with files.directory(path) as root:
            index = IndexJson(files.read_file(root, INDEX_JSON, limits.INDEX_JSON_BYTES))
    except FileNotFoundError:
        index = IndexJson()
    return not index.entries and not any(True for _ in Blobs(path))


def read_index(path: Path) -> IndexJson:
    """Read `index.json` of a layout, once `oci-layout` has said that it is one.

    Raises:
        NotFound: there is no layout.
        Conflict: there is a file.
        InvalidContent: there is one that breaks the specification.
    """
    _check_not_file(path)
    what = OCI_LAYOUT
    with files.translated(f"directory {path.name}", path):
        try:
            with files.directory(path) as root:
                check_version(files.read_file(root, OCI_LAYOUT, limits.CONFIG_BYTES))
                what = INDEX_JSON
                return IndexJson(files.read_file(root, INDEX_JSON, limits.INDEX_JSON_BYTES))
        except FileNotFoundError as error:
            if what == OCI_LAYOUT and (not _has_parts(path) or holds_nothing(path)):
                raise NotFound(f"there is no image layout at {path}") from error
            raise InvalidContent(f"the layout {path} has no {what} file", hint=_repair(path)) from error
        except InvalidContent as error:
            error.add_note(f"in the layout {path}")
            error.hint = error.hint or _repair(path)
            raise


def check_version(raw: bytes) -> None:
    """image-layout.md: it "MUST be a JSON object", "MUST contain an `imageLayoutVersion` field"."""
    version = strictjson.load_object(raw, OCI_LAYOUT).get("imageLayoutVersion")
    if not isinstance(version, str):
        raise InvalidContent("oci-layout has no imageLayoutVersion")
    if not version.startswith("1."):
        raise Unsupported(f"layouts of version {version!r:.40} are not supported; 1.x are")
