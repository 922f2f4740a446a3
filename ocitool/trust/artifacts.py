"""Files beside an image (image-spec, manifest.md, "Guidelines for Artifact Usage").

A file's name stands in an annotation that anybody may have written. So what is written to a directory is one
component, made new in an open directory, and has its name only once its bytes are verified.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from ocitool import jsontypes, mediatypes, strictjson
from ocitool.content import Referrers, open_verified, read_manifest
from ocitool.digest import Digest, new_hasher
from ocitool.errors import Conflict, InvalidReference, NotFound, OciError, UnsafeContent, Unsupported
from ocitool.limits import NAME_BYTES
from ocitool.model import Descriptor, Manifest
from ocitool.scratch import write_all
from ocitool.streams import chunks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from ocitool.content import Source, Store

TITLE: Final = "org.opencontainers.image.title"
ANY_FILE: Final = "application/octet-stream"
_MOST_SHOWN: Final = 20


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
) -> Descriptor:
    """Put files beside a manifest, as an artifact that refers to it; the same files give the same digest.

    Args:
        store: where the manifest is.
        subject: the manifest.
        files: what to attach; they go by the last part of their paths.
        artifact_type: what kind of artifact it is.
        annotations: what to say of it.

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
    layers = [_pushed(store, file) for file in files]
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        # manifest.md, artifactType: "This MUST be set when `config.mediaType` is set to the empty value."
        "artifactType": artifact_type,
        "config": put(store, mediatypes.OCI_EMPTY, b"{}").to_json(),
        "layers": [layer.to_json() for layer in layers],
        "subject": Descriptor(subject.media_type, subject.digest, subject.size).to_json(),
    }
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    manifest = put(store, mediatypes.OCI_MANIFEST, strictjson.dumps(document))
    return replace(manifest, artifact_type=artifact_type, annotations=annotations)


def put(store: Store, media_type: str, content: bytes) -> Descriptor:
    """Add bytes to a store that may have them."""
    desc = Descriptor.of(media_type, content)
    if not store.exists(desc):
        store.push(desc, BytesIO(content))
    return desc


def _pushed(store: Store, file: File) -> Descriptor:
    try:
        with file.path.open("rb") as stream:
            hasher, size = new_hasher("sha256"), 0
            for chunk in chunks(stream):
                hasher.update(chunk)
                size += len(chunk)
            digest = Digest("sha256", hasher.hexdigest())
            desc = Descriptor(file.media_type, digest, size, annotations={TITLE: file.path.name})
            if not store.exists(desc):
                stream.seek(0)
                store.push(desc, stream)
            return desc
    except OSError as error:
        kind = NotFound if isinstance(error, FileNotFoundError) else OciError
        raise kind(f"{file.path} can't be attached: {error.strerror or error}") from error


def artifact_of(source: Source, subject: Descriptor, artifact_type: str) -> Descriptor:
    """The one artifact of a type that refers to a manifest.

    Raises:
        NotFound: there is none.
        Conflict: there are several; the hint lists them.
        Unsupported: the source keeps no referrers.
    """
    if not isinstance(source, Referrers):
        raise Unsupported(f"no list is kept there of what refers to {subject.digest}")
    found = list(source.referrers(subject, artifact_type))
    if not found:
        raise NotFound(f"nothing of the type {artifact_type} refers to {subject.digest}")
    if len(found) > 1:
        raise Conflict(
            f"{len(found)} artifacts of the type {artifact_type} refer to {subject.digest}",
            hint="name one by its digest: " + ", ".join(str(desc.digest) for desc in found[:_MOST_SHOWN]),
        )
    return found[0]


def fetch(source: Source, artifact: Descriptor, directory: Path) -> list[Path]:
    """Write the files of an artifact into a directory, which is made if it is not there.

    Args:
        source: where the artifact is.
        artifact: its manifest.
        directory: where the files go; none that is there is replaced.

    Returns:
        The files.

    Raises:
        Unsupported: it is an index.
        UnsafeContent: a file's name would lead elsewhere.
        Conflict: a file of that name is there.
        IntegrityError: content is not what it should be; nothing of that file is left.
        OciError: a file can't be written.
    """
    manifest = read_manifest(source, artifact)
    if not isinstance(manifest, Manifest):
        raise Unsupported(f"{artifact.digest} is an index and holds no files")
    # The empty descriptor stands where an artifact has no files (manifest.md, layers).
    layers = [layer for layer in manifest.layers if layer.media_type != mediatypes.OCI_EMPTY]
    names = list(_names(layers, artifact))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise OciError(f"nothing can be written to {directory}: {error.strerror}") from error
    try:
        for layer, name in zip(layers, names, strict=True):
            _write(source, layer, fd, name, directory)
    finally:
        os.close(fd)
    return [directory / name for name in names]


def _names(layers: list[Descriptor], artifact: Descriptor) -> Iterator[str]:
    """The names of all files, before any is written; what has no title is called by its digest."""
    seen = set()
    for layer in layers:
        name = layer.annotations.get(TITLE) or layer.digest.hex
        unsafe = name in {".", ".."} or "/" in name or not name.isprintable()
        if unsafe or len(name.encode()) > NAME_BYTES or name in seen:
            raise UnsafeContent(
                f"{artifact.digest} names a file {name!r:.100}, which is no name for one in a directory",
                hint="`ocitool copy` takes the artifact as it is",
            )
        seen.add(name)
        yield name


def _write(source: Source, layer: Descriptor, fd: int, name: str, directory: Path) -> None:
    hidden = f".{secrets.token_hex(8)}"
    try:
        file = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=fd)
        try:
            with os.fdopen(file, "wb", 0) as stream, open_verified(source, layer) as reader:
                for chunk in chunks(reader):
                    write_all(stream, chunk)
            # A link takes no other file's place, as a renamed file would.
            os.link(hidden, name, src_dir_fd=fd, dst_dir_fd=fd)
        finally:
            with suppress(OSError):
                os.unlink(hidden, dir_fd=fd)
    except FileExistsError as error:
        raise Conflict(f"{directory / name} is there already") from error
    except OSError as error:
        raise OciError(f"{directory / name} can't be written: {error.strerror}") from error
