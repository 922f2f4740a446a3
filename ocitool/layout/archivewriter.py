"""Archives as destinations: one tar file that every tool loads, the same bytes for the same content.

The file is an image layout and what `docker load` reads in one: `index.json` and `manifest.json` come
first and point to the same blobs.

Nothing is kept twice on the way. What a copy would push here is only noted, with where it is to be had;
the bytes move when the archive is closed, in one pass and in an order that does not depend on threads.
"""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocitool import limits, mediatypes, strictjson, tarballs
from ocitool.content import Source, open_verified, read_manifest
from ocitool.digesttags import subject_of
from ocitool.errors import Conflict, InvalidReference, NotFound, Unsupported
from ocitool.events import Advanced, Finished, OnEvent, Started, ignore
from ocitool.layout import files
from ocitool.layout.archive import STREAM
from ocitool.layout.dockerarchive import MANIFEST_JSON
from ocitool.layout.graph import reachable
from ocitool.layout.index import IndexJson, blob_path, is_beside, names, pick, sniff
from ocitool.layout.referring import Subjects
from ocitool.model import Descriptor, Manifest, parse_manifest
from ocitool.platforms import host
from ocitool.reference import Reference
from ocitool.selection import choose
from ocitool.streams import Reader, VerifiedReader, chunks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO, Self

    from ocitool.digest import Digest
    from ocitool.layout.archive import ArchiveFormat


class ArchiveWriter:
    """An archive as a store to write to, once.

    Implements Store, Referrers and Mounter. Used as a context manager: the archive is written at its end, and
    only if nothing went wrong; the file has its name only when it is whole. Sources have to stay open until
    then.
    """

    def __init__(
        self, path: Path | str, kind: ArchiveFormat = "oci-archive", *, on_event: OnEvent = ignore
    ) -> None:
        """Name the archive; nothing is written yet.

        Args:
            path: the file, or "-" for standard output.
            kind: `docker-archive` refuses what `docker load` could not use.
            on_event: is told while the bytes move.
        """
        self._path = path
        self._kind = kind
        self._on_event = on_event
        self._small: dict[Digest, bytes] = {}
        self._noted: dict[Digest, tuple[Descriptor, Source]] = {}
        self._index = IndexJson()
        self._subjects = Subjects(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A copy names what it has copied last, so without a name there is nothing that is whole.
        if kind is None and self._index.entries:
            self.write()

    def resolve(self, ref: str, /) -> Descriptor:
        """See `Source`."""
        return pick(self._index.entries, ref, f"the archive {self._path}", self._find)

    def _find(self, digest: Digest) -> Descriptor | None:
        content = self._small.get(digest)
        if content is not None:
            return sniff(self, digest, len(content))
        return self._noted[digest][0] if digest in self._noted else None

    @contextmanager
    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> Iterator[Reader]:
        """See `Source`."""
        if desc.digest in self._small:
            yield BytesIO(self._small[desc.digest][offset:])
        elif desc.digest in self._noted:
            with self._noted[desc.digest][1].fetch(desc, offset=offset) as reader:
                yield reader
        else:
            raise NotFound(f"{desc.digest} is not in the archive {self._path}")

    def exists(self, desc: Descriptor, /) -> bool:
        """See `Store`."""
        return desc.digest in self._small or desc.digest in self._noted

    def push(self, desc: Descriptor, stream: Reader, /) -> None:
        """See `Store`. Meant for manifests: what is pushed stays in memory.

        Raises:
            Unsupported: it is too large for that; `mount` takes it.
        """
        if desc.size > limits.INDEX_JSON_BYTES:
            raise Unsupported(f"{desc.digest} has {desc.size} bytes; archives take blobs from their source")
        content = VerifiedReader(stream, desc.digest, desc.size).read()
        self._small[desc.digest] = content
        if desc.is_manifest and parse_manifest(content, desc).subject:
            self._index.put(self._subjects.as_referrer(desc))

    def mount(self, desc: Descriptor, source: Source, /) -> bool:
        """See `Mounter`: note where a blob is to be had."""
        self._noted.setdefault(desc.digest, (desc, source))
        return True

    def tag(self, desc: Descriptor, ref: str, /) -> None:
        """See `Store`.

        Raises:
            NotFound: the content was not pushed.
            Unsupported: the archive is for `docker load`, and this is no image.
        """
        if not self.exists(desc):
            raise NotFound(f"{desc.digest} is not in the archive {self._path}, so it can't be named {ref}")
        # A signature is none, and `docker load` is not told of it.
        signs = bool(subject_of(ref))
        if self._kind == "docker-archive" and not signs and self._image(desc) is None:
            raise Unsupported(
                f"{desc.digest} is no image, so it can't be in a docker-archive", hint="use oci-archive"
            )
        self._index.put(desc, "" if ref == str(desc.digest) else ref)

    def referrers(self, desc: Descriptor, /, artifact_type: str = "") -> list[Descriptor]:
        """See `Referrers`."""
        return self._subjects.referrers(desc, self._index.entries, artifact_type)

    def write(self) -> None:
        """Write the archive.

        Raises:
            IntegrityError: a source does not hold what it promised; there is no archive then.
        """
        if str(self._path) == STREAM:
            if sys.stdout.isatty():
                raise Conflict("an archive is not written to a terminal", hint="redirect standard output")
            self._write_to(sys.stdout.buffer)
            return
        path = Path(self._path)
        with files.translated(f"the archive {path.name}", path.parent, place="the directory"):
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            try:
                with temporary.open("xb") as out:
                    self._write_to(out)
                    os.fsync(out.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            with files.directory(path.parent) as parent:
                os.fsync(parent)

    def _write_to(self, out: BinaryIO) -> None:
        tar = _Tar(out)
        tar.add("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        tar.add("index.json", self._index.dump())
        if manifest_json := self._manifest_json():
            tar.add(MANIFEST_JSON, manifest_json)
        for digest in sorted(self._small):
            tar.add(blob_path(digest), self._small[digest])
        for digest in sorted(self._noted.keys() - self._small.keys()):
            desc, source = self._noted[digest]
            self._on_event(Started(desc))
            with open_verified(source, desc) as reader:
                tar.add_stream(blob_path(digest), desc.size, self._reported(desc, reader))
            self._on_event(Finished(desc, "copied"))
        tar.end()

    def _reported(self, desc: Descriptor, reader: Reader) -> Iterator[bytes]:
        for chunk in chunks(reader):
            self._on_event(Advanced(desc, len(chunk)))
            yield chunk

    def _manifest_json(self) -> bytes:
        """What `docker load` starts from: one platform of each image."""
        images: dict[Descriptor, dict[str, Any]] = {}
        for root in self._index.entries:
            manifest = None if is_beside(root) else self._image(root)
            if manifest is None:
                continue
            image = images.setdefault(
                root,
                {
                    "Config": blob_path(manifest.config.digest),
                    "RepoTags": [],
                    "Layers": [blob_path(layer.digest) for layer in manifest.layers],
                },
            )
            image["RepoTags"] += [tag for name in names(root)[-1:] if (tag := _repo_tag(name))]
        return strictjson.dumps([*images.values()]) if images else b""

    def _image(self, root: Descriptor) -> Manifest | None:
        """The image that Docker would take of a root: the host's, or else the first one that is all here."""
        try:
            preferred = [choose(self, root, host())]
        except NotFound:
            preferred = []
        candidates = (*preferred, *reachable(self, [root]).values())
        return next(filter(None, map(self._loadable, candidates)), None)

    def _loadable(self, desc: Descriptor) -> Manifest | None:
        """A manifest, if it is one of an image and nothing of it is missing, as layers of Windows may be."""
        is_attestation = desc.platform is not None and desc.platform.is_unknown
        if desc.media_type not in mediatypes.IMAGE_MANIFESTS or is_attestation or not self.exists(desc):
            return None
        manifest = read_manifest(self, desc)
        if not isinstance(manifest, Manifest) or manifest.config.media_type not in mediatypes.CONFIGS:
            return None
        return manifest if all(self.exists(child) for child in manifest.children) else None


def _repo_tag(name: str) -> str:
    """A name as Docker takes it; a mere tag names no repository there."""
    if "/" not in name and ":" not in name:
        return ""
    try:
        reference = Reference.parse(name)
    except InvalidReference:
        return ""
    return "" if reference.digest else reference.tagged


class _Tar:
    """A tar file that grows; `tarballs` gives the same bytes for the same names and contents."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._time = tarballs.source_date_epoch()

    def add(self, name: str, content: bytes) -> None:
        """Add a small file."""
        self.add_stream(name, len(content), iter([content]))

    def add_stream(self, name: str, size: int, content: Iterator[bytes]) -> None:
        """Add a file."""
        self._out.write(tarballs.header(name, size, self._time))
        for chunk in content:
            self._out.write(chunk)
        self._out.write(bytes(tarballs.padding(size)))

    def end(self) -> None:
        """Mark the end."""
        self._out.write(tarballs.END)
        self._out.flush()
