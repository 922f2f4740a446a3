"""Layers as streams of tar bytes, read ahead of whoever applies them."""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from ocitool import mediatypes
from ocitool.compression import decompressed
from ocitool.content import open_verified
from ocitool.digest import new_hasher
from ocitool.errors import IntegrityError, InvalidContent, Unsupported
from ocitool.readahead import ReadAhead
from ocitool.streams import CHUNK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from hashlib import _Hash

    from ocitool.content import Source
    from ocitool.digest import Digest
    from ocitool.model import Descriptor
    from ocitool.streams import Reader

_AHEAD: Final = 2  # layers that are inflated before their turn
_AHEAD_CHUNKS: Final = 16  # of each of them, inflated, at most


def check(layers: Sequence[Descriptor], diff_ids: Sequence[Digest]) -> None:
    """Refuse what can't be unpacked, before anything is fetched.

    Raises:
        Unsupported: a layer is encrypted, not distributable, or no tar archive.
        InvalidContent: there is not one diff ID for each layer.
    """
    for layer in layers:
        if mediatypes.is_nondistributable(layer.media_type):
            raise Unsupported(
                f"layer {layer.digest} is not distributable ({layer.media_type})",
                hint="its maker keeps it at its own place; ocitool does not fetch it from there",
            )
        if layer.media_type.endswith("+encrypted"):
            raise Unsupported(f"layer {layer.digest} is encrypted ({layer.media_type})")
        if not mediatypes.is_layer(layer.media_type):
            raise Unsupported(f"layer {layer.digest} is no file system layer but {layer.media_type}")
    # config.md, rootfs.diff_ids: "An array of layer content hashes (`DiffIDs`), in order from first to last."
    if len(layers) != len(diff_ids):
        raise InvalidContent(f"the image has {len(layers)} layers, but {len(diff_ids)} diff IDs")


@contextmanager
def opened(
    source: Source, layers: Sequence[Descriptor], diff_ids: Sequence[Digest], *, limit: int
) -> Iterator[Iterator[Reader]]:
    """The layers' tar streams in order, the next ones being fetched, hashed and inflated meanwhile.

    Each stream's end proves both the blob's digest and the diff ID.
    """
    with ExitStack() as stack:

        def start(layer: Descriptor, diff_id: Digest) -> Reader:
            hasher = new_hasher(diff_id.algorithm)
            ahead = ReadAhead(lambda: _inflated(source, layer, limit), hasher.update, depth=_AHEAD_CHUNKS)
            return _DiffIdReader(stack.enter_context(ahead), hasher, layer, diff_id)

        def streams() -> Iterator[Reader]:
            waiting: deque[Reader] = deque()
            for layer, diff_id in zip(layers, diff_ids, strict=True):
                waiting.append(start(layer, diff_id))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft()
            yield from waiting

        yield streams()


def drain(reader: Reader) -> None:
    """Read to the end, where the digests are compared: damage in transit explains whatever was wrong."""
    while reader.read(CHUNK):
        pass


@contextmanager
def _inflated(source: Source, layer: Descriptor, limit: int) -> Iterator[Reader]:
    with open_verified(source, layer) as blob:
        yield _WholeReader(decompressed(blob, f"layer {layer.digest}", limit=limit), blob, layer)


class _WholeReader:
    """Passes on a decompressed stream and makes sure that it used up the blob, whose digest that proves."""

    def __init__(self, tar: Reader, blob: Reader, layer: Descriptor) -> None:
        self._tar = tar
        self._blob = blob
        self._layer = layer

    def read(self, n: int = -1, /) -> bytes:
        try:
            data = self._tar.read(n)
        except InvalidContent:
            # If the bytes are not even those that were promised, that is the error to report.
            drain(self._blob)
            raise
        # A second guard: decompressing reads the blob to its end already, and refuses what follows a stream.
        if not data and n and self._blob.read(1):
            raise InvalidContent(f"layer {self._layer.digest} goes on after its compressed stream")
        return data


class _DiffIdReader:
    """Passes on a tar stream and raises, before its end is told, if it is not that of the diff ID."""

    def __init__(self, tar: Reader, hasher: _Hash, layer: Descriptor, diff_id: Digest) -> None:
        self._tar = tar
        self._hasher = hasher
        self._layer = layer
        self._diff_id = diff_id

    def read(self, n: int = -1, /) -> bytes:
        data = self._tar.read(n)
        if not data and n:
            self._finish()
        return data

    def _finish(self) -> None:
        actual = f"{self._diff_id.algorithm}:{self._hasher.hexdigest()}"
        if actual != str(self._diff_id):
            raise IntegrityError(
                f"layer {self._layer.digest} unpacks to {actual}, not to {self._diff_id} as the config says",
                expected=str(self._diff_id),
                actual=actual,
            )
