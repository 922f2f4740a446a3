"""Archives as sources: a layout in one tar file, or what `docker save` writes, read in place.

A file is read where it lies. What can't be (a pipe, a compressed archive) is first written to a temporary
file that has no name.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from ocitool import limits
from ocitool.errors import Conflict, InvalidContent, NotFound
from ocitool.layout import dockerarchive, files
from ocitool.layout.index import IndexJson, blob_path, pick, sniff, tags
from ocitool.layout.referring import Subjects
from ocitool.layout.tarfiles import TarFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO, Self, TypeAlias

    from ocitool.digest import Digest
    from ocitool.model import Descriptor
    from ocitool.streams import Reader

    ArchiveFormat: TypeAlias = Literal["oci-archive", "docker-archive"]

STREAM: Final = "-"
"""The name that stands for standard input and standard output."""


def archive_format(path: Path | str) -> ArchiveFormat:
    """Which kind of archive a file is; one that is both counts as `oci-archive`.

    Raises:
        InvalidContent: it is neither.
    """
    with ArchiveSource(path) as archive:
        return archive.format


class ArchiveSource:
    """An archive as a store to read from.

    Implements Source, Referrers and Lister, and may be used from several threads.
    """

    def __init__(self, path: Path | str) -> None:
        """Open an archive; "-" is standard input.

        Raises:
            NotFound: there is no such file.
            InvalidContent: it is no archive of images.
            UnsafeContent: it names something outside itself, or exceeds a limit.
        """
        self._what = "the archive on standard input" if str(path) == STREAM else f"the archive {path}"
        self._stack = ExitStack()
        self._subjects = Subjects(self)
        try:
            self._tar = TarFile(self._open(path), self._what)
            self.format: ArchiveFormat = "oci-archive" if "oci-layout" in self._tar else "docker-archive"
            if self.format == "oci-archive":
                self._index = IndexJson(self._tar.read("index.json", limits.INDEX_JSON_BYTES))
                self._contents: dockerarchive.Contents = {}
            else:
                self._index, self._contents = dockerarchive.read(self._tar, self._what)
        except BaseException as error:
            self._stack.close()
            if isinstance(error, NotFound | InvalidContent):
                error.hint = error.hint or "an archive of images has index.json or manifest.json"
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def _open(self, path: Path | str) -> int:
        if str(path) == STREAM:
            return self._seekable(sys.stdin.buffer)
        if Path(path).is_dir():
            raise Conflict(
                f"{path} is a directory, and an archive is a file", hint="an image layout is named oci:DIR"
            )
        with files.translated(f"the archive {Path(path).name}", Path(path).parent, place="the directory"):
            return self._seekable(self._stack.enter_context(Path(path).open("rb")))

    def _seekable(self, file: BinaryIO) -> int:
        """The descriptor of a plain tar file with the same content."""
        from ocitool.compression import Compression, detect

        if file.seekable() and detect(os.pread(file.fileno(), 4, 0)) is Compression.NONE:
            return file.fileno()
        from ocitool.compression import decompressed
        from ocitool.scratch import Scratch
        from ocitool.streams import chunks

        scratch = self._stack.enter_context(Scratch(f"a plain copy of {self._what}"))
        for chunk in chunks(decompressed(file, self._what)):
            scratch.write(chunk)
        return scratch.file.fileno()

    def resolve(self, ref: str, /) -> Descriptor:
        """What a name or a digest stands for; "" is the only image that there is.

        Raises:
            NotFound: nothing has that name.
            InvalidReference: "" and there are several images.
        """
        if self.format == "docker-archive":
            ref = dockerarchive.full_name(ref) if ref not in self.tags() else ref
        return pick(self._index.entries, ref, self._what, self._unlisted)

    def _unlisted(self, digest: Digest) -> Descriptor | None:
        name = blob_path(digest)
        if name not in self._tar:
            return None
        return sniff(self, digest, self._tar.member(name).size)

    @contextmanager
    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> Iterator[Reader]:
        """See `Source`."""
        content = self._contents.get(desc.digest) or blob_path(desc.digest)
        if isinstance(content, bytes):
            yield io.BytesIO(content[offset:])
        elif content in self._tar:
            yield self._tar.open(content, offset)
        else:
            raise NotFound(f"blob {desc.digest} is not in {self._what}")

    def referrers(self, desc: Descriptor, /, artifact_type: str = "") -> list[Descriptor]:
        """See `Referrers`."""
        return self._subjects.referrers(desc, self._index.entries, artifact_type)

    def tags(self) -> list[str]:
        """See `Lister`."""
        return tags(self._index.entries)

    def entries(self) -> list[Descriptor]:
        """What the archive lists, annotations included."""
        return self._index.entries
