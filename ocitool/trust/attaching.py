"""Files put beside an image (image-spec, manifest.md, "Guidelines for Artifact Usage")."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from ocitool import jsontypes, mediatypes, strictjson
from ocitool.digest import Digest, new_hasher
from ocitool.errors import InvalidReference, NotFound, OciError
from ocitool.events import OnEvent, ignore
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor
from ocitool.streams import chunks
from ocitool.transfer import copy_graph
from ocitool.workers import JOBS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from io import BufferedReader
    from pathlib import Path

    from ocitool.content import Store
    from ocitool.streams import Reader

TITLE: Final = "org.opencontainers.image.title"
ANY_FILE: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class File:
    """A file to attach."""

    path: Path
    media_type: str = ANY_FILE


def attach(
    store: Store,
    subject: Descriptor,
    files: Sequence[File],
    *,
    artifact_type: str,
    annotations: Mapping[str, str] = jsontypes.NOTHING,
    jobs: int = JOBS,
    on_event: OnEvent = ignore,
) -> Descriptor:
    """Put files beside a manifest, as an artifact that refers to it; the same files give the same digest.

    Args:
        store: where the manifest is.
        subject: the manifest.
        files: what to attach; they go by the last part of their paths.
        artifact_type: what kind of artifact it is.
        annotations: what to say of it.
        jobs: how many files may be on their way at once.
        on_event: is told what happens.

    Returns:
        The artifact's manifest, which is among the subject's referrers.

    Raises:
        InvalidReference: there is no file, two have the same name, or a type is none.
        NotFound, OciError: a file can't be read.
        IntegrityError: a file has changed meanwhile.
    """
    names = [file.path.name for file in files]
    if not files or len(set(names)) != len(names):
        raise InvalidReference("an artifact has one file or more, each with a name of its own")
    for media_type in (artifact_type, *(file.media_type for file in files)):
        if not mediatypes.is_media_type(media_type):
            raise InvalidReference(f"{media_type!r:.100} is no media type, as text/plain is one")
    source = _Files()
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        # manifest.md, artifactType: "This MUST be set when `config.mediaType` is set to the empty value."
        "artifactType": artifact_type,
        "config": put(source, mediatypes.OCI_EMPTY, b"{}").to_json(),
        "layers": [source.add(file).to_json() for file in files],
        "subject": Descriptor(subject.media_type, subject.digest, subject.size).to_json(),
    }
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    manifest = put(source, mediatypes.OCI_MANIFEST, strictjson.dumps(document))
    copy_graph(source, store, manifest, to=str(manifest.digest), jobs=jobs, on_event=on_event)
    return replace(manifest, artifact_type=artifact_type, annotations=annotations)


def put(store: Store, media_type: str, content: bytes) -> Descriptor:
    """Add bytes to a store that may have them."""
    desc = Descriptor.of(media_type, content)
    if not store.exists(desc):
        store.push(desc, BytesIO(content))
    return desc


class _Files(MemoryStore):
    """A source with documents in memory, and with files where they lie."""

    def __init__(self) -> None:
        super().__init__()
        self._paths: dict[Digest, Path] = {}

    def add(self, file: File) -> Descriptor:
        """A file's descriptor."""
        hasher, size = new_hasher("sha256"), 0
        with _opened(file.path) as stream:
            for chunk in chunks(stream):
                hasher.update(chunk)
                size += len(chunk)
        digest = Digest("sha256", hasher.hexdigest())
        self._paths[digest] = file.path
        return Descriptor(file.media_type, digest, size, annotations={TITLE: file.path.name})

    @contextmanager
    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> Iterator[Reader]:
        """See `Source`."""
        path = self._paths.get(desc.digest)
        if path is None:
            with super().fetch(desc, offset=offset) as reader:
                yield reader
        else:
            with _opened(path) as stream:
                stream.seek(offset)
                yield stream


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    try:
        with path.open("rb") as stream:
            yield stream
    except OSError as error:
        kind = NotFound if isinstance(error, FileNotFoundError) else OciError
        raise kind(f"{path} can't be attached: {error.strerror or error}") from error
