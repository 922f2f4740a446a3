"""The seam: everything is content in a store, and pull, push, mirror, export and import are one copy.

A *store* is a content-addressed set of blobs plus names (tags). A registry's repository is a store; so
is an image layout, an archive, and a dictionary in memory. `Source` is what can be read from, `Store`
what can be written to as well. What only some stores can do are small protocols of their own: ask with
`isinstance`, and have a plain way where the answer is no.
"""

from __future__ import annotations

import io
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ocitool import limits
from ocitool.digesttags import belonging
from ocitool.errors import NotFound, OciError, UnsafeContent
from ocitool.model import Descriptor, ImageConfig, Index, Manifest, parse_manifest
from ocitool.streams import Reader, VerifiedReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ocitool.digest import Digest


@runtime_checkable
class Source(Protocol):
    """Content that can be read. Every method may be called from several threads at once."""

    def resolve(self, ref: str, /) -> Descriptor:
        """What a tag or a digest names.

        Raises:
            NotFound: nothing has that name.
        """
        ...

    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> AbstractContextManager[Reader]:
        """Open content, from `offset` bytes on; at an `offset` of the content's size nothing is left.

        The bytes are not verified: whoever consumes them does so (`open_verified`, `read_verified`), and
        `Store.push` always does.

        Raises:
            NotFound: the source does not have it.
        """
        ...


@runtime_checkable
class Store(Source, Protocol):
    """Content that can be read and added to."""

    def exists(self, desc: Descriptor, /) -> bool:
        """Whether the store has this content, as far as it can tell without reading all of it."""
        ...

    def push(self, desc: Descriptor, stream: Reader, /) -> None:
        """Add content.

        It is invisible until all of it has been verified; pushing what is there already does no harm. A
        manifest is pushed after what it names, and one that has a `subject` is among the subject's
        referrers afterwards.

        Raises:
            IntegrityError: the stream is not what the descriptor names; nothing has been added.
        """
        ...

    def tag(self, desc: Descriptor, ref: str, /) -> None:
        """Name content that is in the store; a name that exists moves.

        A `ref` that is the content's own digest keeps the content without a name, where a store would
        otherwise be free to collect it.
        """
        ...


@runtime_checkable
class Mounter(Protocol):
    """A store that can take a blob over from a neighbour without its bytes passing through here."""

    def mount(self, desc: Descriptor, source: Source, /) -> bool:
        """Take a blob over, or say False: then it has to be copied."""
        ...


@runtime_checkable
class Deleter(Protocol):
    """A store from which content and names can be removed."""

    def untag(self, ref: str, /) -> None:
        """Remove a name; the content stays.

        Raises:
            NotFound: nothing has that name.
        """
        ...

    def delete(self, desc: Descriptor, /) -> None:
        """Remove content, and with it every name that it has.

        Raises:
            NotFound: the store does not have it.
        """
        ...


@runtime_checkable
class Referrers(Protocol):
    """A source that knows which manifests have a given one as their subject."""

    def referrers(self, desc: Descriptor, /, artifact_type: str = "") -> Iterable[Descriptor]:
        """The manifests that refer to this one, with their `artifact_type` and annotations.

        Nothing refers to content that is not there: that is no error (distribution-spec, "Listing
        Referrers").
        """
        ...


@runtime_checkable
class Lister(Protocol):
    """A source whose names can be listed."""

    def tags(self) -> Iterable[str]:
        """The names, sorted."""
        ...


@runtime_checkable
class Inquirer(Protocol):
    """A source that can say what a name stands for without reading it, which its owner may not count."""

    def ask(self, ref: str, /) -> Descriptor:
        """As `Source.resolve`.

        Raises:
            NotFound: nothing has that name.
        """
        ...


@runtime_checkable
class BlobFinder(Protocol):
    """A source that can say how large a blob is of which nothing is known but its digest."""

    def find_blob(self, digest: Digest, /) -> Descriptor:
        """Find a blob; its type is not known. Whether its bytes are right, who reads them verifies.

        Raises:
            NotFound: it is not there.
        """
        ...


@runtime_checkable
class Publisher(Protocol):
    """A store that takes a manifest and its name in one step."""

    def publish(self, desc: Descriptor, stream: Reader, ref: str, /) -> None:
        """As `Store.push` of a manifest and `Store.tag` with a tag.

        Raises:
            IntegrityError: the stream is not what the descriptor names; nothing has been added.
        """
        ...


class Partial(Protocol):
    """One blob on its way into a store, held by this process alone."""

    @property
    def offset(self) -> int:
        """How many of its bytes an earlier, interrupted push left, in bytes."""
        ...

    def push(self, rest: Reader, /) -> None:
        """Add what follows `offset`, verify the whole, and make it visible.

        Raises:
            IntegrityError: the whole is not what the descriptor names; nothing of it is kept.
        """
        ...


@runtime_checkable
class Resumer(Protocol):
    """A store that keeps what it got of an interrupted push, across processes."""

    def resume(self, desc: Descriptor, /) -> AbstractContextManager[Partial | None]:
        """Take hold of a blob's partial; None where the blob has become whole in the meantime.

        Waits for another process that holds it, so that one blob is downloaded once.
        """
        ...


class Incoming(Protocol):
    """Content on its way into a store, whose digest is told at its end. Used by one thread at a time."""

    @property
    def size(self) -> int:
        """How many bytes have been written."""
        ...

    def write(self, data: bytes, /) -> None:
        """Add bytes: all of them, or none where that fails."""
        ...

    def commit(self, desc: Descriptor, /) -> None:
        """Verify what was written, and make it visible as `Store.push` does.

        Raises:
            IntegrityError: it is not what the descriptor names; nothing has been added.
        """
        ...

    def close(self) -> None:
        """Forget what was not committed."""
        ...


@runtime_checkable
class Receiver(Protocol):
    """A store that takes content of which nothing is known yet, so that it is written only once."""

    def receive(self) -> Incoming:
        """Begin; whoever does closes it."""
        ...


def digest_tags(source: Source, manifests: Iterable[Descriptor], name: str) -> list[str]:
    """The names by which other clients find what belongs to an image; see `ocitool.digesttags`.

    Args:
        source: where it is; one that can't list its names has none.
        manifests: the image's, and those of what refers to it.
        name: the image's own.

    Raises:
        OciError: the names can't be listed.
    """
    if not isinstance(source, Lister):
        return []
    try:
        return belonging(source.tags(), {str(desc.digest) for desc in manifests}, name)
    except NotFound:
        return []  # as a registry says where there are digests alone
    except OciError as error:
        error.add_note(f"while looking for signatures of {name or 'an image'} by their tags (sha256-….sig)")
        raise


@contextmanager
def open_verified(source: Source, desc: Descriptor) -> Iterator[Reader]:
    """Open content such that reading to its end proves that it is what the descriptor names.

    Content that the descriptor carries itself (`data`) is not asked for.

    Raises (from `read`):
        IntegrityError: it is not what the descriptor names.
    """
    held = None if desc.data is None else io.BytesIO(desc.data)
    with source.fetch(desc) if held is None else nullcontext(held) as reader:
        yield VerifiedReader(reader, desc.digest, desc.size)


def read_verified(source: Source, desc: Descriptor, *, limit: int = limits.MANIFEST_BYTES) -> bytes:
    """Read content that fits in memory.

    Raises:
        UnsafeContent: it is larger than `limit` bytes.
        IntegrityError: it is not what the descriptor names.
    """
    if desc.size > limit:
        raise UnsafeContent(
            f"{desc.media_type} {desc.digest} has {desc.size} bytes; at most {limit} are read"
        )
    with open_verified(source, desc) as reader:
        return reader.read()


def read_manifest(source: Source, desc: Descriptor) -> Manifest | Index:
    """Read and parse a manifest or an index.

    Raises:
        InvalidContent, IntegrityError: as `read_verified` and `parse_manifest`.
    """
    return parse_manifest(read_verified(source, desc), desc)


def read_config(source: Source, manifest: Manifest) -> ImageConfig:
    """Read and parse an image's configuration.

    Raises:
        InvalidContent, IntegrityError: as `read_verified` and `ImageConfig.parse`.
    """
    raw = read_verified(source, manifest.config, limit=limits.CONFIG_BYTES)
    return ImageConfig.parse(raw, f"image config {manifest.config.digest}")
