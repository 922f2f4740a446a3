"""An artifact's files, written into a directory.

A file's name stands in an annotation that anybody may have written. So what is written is one component, made
new in an open directory, and has its name only once its bytes are verified.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ocitool import mediatypes
from ocitool.content import Referrers, open_verified, read_manifest
from ocitool.errors import Conflict, NotFound, OciError, UnsafeContent, Unsupported
from ocitool.events import Advanced, Finished, OnEvent, Planned, Started, ignore
from ocitool.limits import NAME_BYTES
from ocitool.model import Manifest
from ocitool.scratch import write_all
from ocitool.streams import CountingReader, chunks
from ocitool.trust.attaching import TITLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ocitool.content import Source
    from ocitool.model import Descriptor

_MOST_SHOWN: Final = 20


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


def fetch(source: Source, artifact: Descriptor, directory: Path, *, on_event: OnEvent = ignore) -> list[Path]:
    """Write the files of an artifact into a directory, which is made if it is not there.

    Args:
        source: where the artifact is.
        artifact: its manifest.
        directory: where the files go; none that is there is replaced.
        on_event: is told what happens.

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
    on_event(Planned(tuple(layers)))
    try:
        for layer, name in zip(layers, names, strict=True):
            on_event(Started(layer))
            _write(source, layer, fd, directory / name, on_event)
            on_event(Finished(layer, "copied"))
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


def _write(source: Source, layer: Descriptor, fd: int, path: Path, on_event: OnEvent) -> None:
    """Write a file in the directory that is open."""
    hidden = f".{secrets.token_hex(8)}"
    try:
        file = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=fd)
        try:
            with os.fdopen(file, "wb", 0) as stream, open_verified(source, layer) as reader:
                for chunk in chunks(CountingReader(reader, lambda count: on_event(Advanced(layer, count)))):
                    write_all(stream, chunk)
            # A link takes no other file's place, as a renamed file would.
            os.link(hidden, path.name, src_dir_fd=fd, dst_dir_fd=fd)
        finally:
            with suppress(OSError):
                os.unlink(hidden, dir_fd=fd)
    except FileExistsError as error:
        raise Conflict(f"{path} is there already") from error
    except OSError as error:
        raise OciError(f"{path} can't be written: {error.strerror}") from error
