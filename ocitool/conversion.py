"""Images in another form, as sources: Docker's documents as OCI's, gzip layers as zstd and back.

A converted image is another image, with another digest; its layers hold the same files. What refers to the
original (signatures, SBOMs) does not refer to it.
"""

from __future__ import annotations

import os
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from ocitool import mediatypes, strictjson
from ocitool.compression import Compression, decompressed, detect
from ocitool.content import Source, open_verified, read_config, read_manifest
from ocitool.digest import Digest, new_hasher
from ocitool.errors import IntegrityError, InvalidContent, NotFound
from ocitool.model import Descriptor, Manifest
from ocitool.scratch import Scratch
from ocitool.streams import CHUNK, chunks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from hashlib import _Hash
    from typing import Self

    from ocitool.streams import Reader

_TO_OCI: Final = {
    mediatypes.DOCKER_INDEX: mediatypes.OCI_INDEX,
    mediatypes.DOCKER_MANIFEST: mediatypes.OCI_MANIFEST,
    mediatypes.DOCKER_CONFIG: mediatypes.OCI_CONFIG,
    mediatypes.DOCKER_LAYER_GZIP: mediatypes.OCI_LAYER_GZIP,
    mediatypes.DOCKER_LAYER_ZSTD: mediatypes.OCI_LAYER_ZSTD,
    mediatypes.DOCKER_LAYER_FOREIGN: mediatypes.OCI_LAYER_NONDISTRIBUTABLE,
    f"{mediatypes.DOCKER_LAYER_FOREIGN}.gzip": f"{mediatypes.OCI_LAYER_NONDISTRIBUTABLE}+gzip",
}
_OCI_LAYERS: Final = {
    Compression.NONE: mediatypes.OCI_LAYER,
    Compression.GZIP: mediatypes.OCI_LAYER_GZIP,
    Compression.ZSTD: mediatypes.OCI_LAYER_ZSTD,
}
_DOCKER_LAYERS: Final = {
    Compression.NONE: mediatypes.DOCKER_LAYER,
    Compression.GZIP: mediatypes.DOCKER_LAYER_GZIP,
    Compression.ZSTD: mediatypes.DOCKER_LAYER_ZSTD,
}
# They describe where things lie in the compressed stream, so they are wrong about another one.
_ABOUT_THE_STREAM: Final = (
    "containerd.io/snapshot/stargz/",
    "io.containers.estargz.",
    "io.github.containers.zstd-chunked.",
)
# The default levels of the two libraries, and of the tools that are used most.
_GZIP_LEVEL: Final = 6
_ZSTD_LEVEL: Final = 3


class Converted:
    """A source whose images are converted as they are asked for; fields that nobody knows stay.

    An image that is in the wanted form already stays as it is, digest and all. Layers that are compressed
    anew are kept in temporary files until the source is closed.
    """

    def __init__(
        self, source: Source, *, to_oci: bool = False, compression: Compression | None = None
    ) -> None:
        """Say what to convert.

        Args:
            source: where the images are.
            to_oci: give Docker's documents the media types of OCI; layers stay as they are.
            compression: how layers shall be compressed; None leaves them alone.
        """
        self._source = source
        self._to_oci = to_oci
        self._compression = compression
        self._documents: dict[Digest, bytes] = {}
        self._layers: dict[Digest, IO[bytes]] = {}
        self._done: dict[Digest, Descriptor] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was compressed."""
        self._stack.close()

    def resolve(self, ref: str, /) -> Descriptor:
        """What a name stands for, converted.

        Raises:
            IntegrityError, InvalidContent: what is to be converted is damaged.
        """
        return self.convert(self._source.resolve(ref))

    @contextmanager
    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> Iterator[Reader]:
        """See `Source`."""
        if desc.digest in self._documents:
            yield BytesIO(self._documents[desc.digest][offset:])
        elif desc.digest in self._layers:
            yield _At(self._layers[desc.digest], offset)
        else:
            with self._source.fetch(desc, offset=offset) as reader:
                yield reader

    def convert(self, desc: Descriptor) -> Descriptor:
        """What a manifest or an index becomes."""
        if desc.digest not in self._done:
            self._done[desc.digest] = self._document(desc) if desc.is_manifest else desc
        return self._done[desc.digest]

    def _document(self, desc: Descriptor) -> Descriptor:
        try:
            manifest = read_manifest(self._source, desc)
        except NotFound:
            return desc  # a sparse index lists it all the same
        before, fields = (strictjson.load_object(manifest.raw, str(desc.digest)) for _ in range(2))
        if isinstance(manifest, Manifest):
            self._image(manifest, fields)
        else:
            for entry, child in zip(fields["manifests"], manifest.manifests, strict=True):
                _point(entry, self.convert(child))
        media_type = self._media_type(desc.media_type)
        if "mediaType" in fields:
            fields["mediaType"] = media_type
        if fields == before and media_type == desc.media_type:
            return desc  # the same meaning, so the bytes stay the same as well
        raw = strictjson.dumps(fields)
        converted = replace(desc, media_type=media_type, digest=Digest.of(raw), size=len(raw), data=None)
        self._documents[converted.digest] = raw
        return converted

    def _media_type(self, media_type: str) -> str:
        return _TO_OCI.get(media_type, media_type) if self._to_oci else media_type

    def _image(self, manifest: Manifest, fields: dict[str, Any]) -> None:
        diff_ids: tuple[Digest, ...] = ()
        if self._compression and manifest.config.media_type in mediatypes.CONFIGS:
            diff_ids = read_config(self._source, manifest).diff_ids
        fields["config"]["mediaType"] = self._media_type(manifest.config.media_type)
        for i, (entry, layer) in enumerate(zip(fields["layers"], manifest.layers, strict=True)):
            diff_id = diff_ids[i] if i < len(diff_ids) else None
            changed = replace(layer, media_type=self._layer_type(layer))
            if self._compression and diff_id and not mediatypes.is_nondistributable(layer.media_type):
                changed = self._compressed(changed, diff_id, self._compression)
            if changed.digest != layer.digest and "annotations" in entry:
                entry["annotations"] = dict(changed.annotations)
            _point(entry, changed)

    def _layer_type(self, layer: Descriptor) -> str:
        if not self._to_oci or layer.media_type != mediatypes.DOCKER_LAYER:
            return self._media_type(layer.media_type)
        # Docker's plain type often holds gzip.
        with self._source.fetch(layer) as reader:
            return _OCI_LAYERS[detect(reader.read(4))]

    def _compressed(self, layer: Descriptor, diff_id: Digest, wanted: Compression) -> Descriptor:
        """A layer, compressed anew unless it is as it should be; its files are proven to be the same."""
        with open_verified(self._source, layer) as reader:
            if detect(reader.read(4)) is wanted:
                return layer
        scratch = self._stack.enter_context(Scratch(f"the converted layer {layer.digest}"))
        hasher = new_hasher("sha256")
        plain = new_hasher(diff_id.algorithm)
        with open_verified(self._source, layer) as reader:
            for chunk in _compressing(_hashed(decompressed(reader, f"layer {layer.digest}"), plain), wanted):
                hasher.update(chunk)
                scratch.write(chunk)
            if reader.read():  # pragma: no cover - decompressing ends at the end, or raises
                raise InvalidContent(f"layer {layer.digest} has something after its end")
        if plain.hexdigest() != diff_id.hex:
            raise IntegrityError(
                f"layer {layer.digest} does not have the diff ID that its image says",
                expected=str(diff_id),
                actual=f"{diff_id.algorithm}:{plain.hexdigest()}",
            )
        digest, size = Digest("sha256", hasher.hexdigest()), scratch.file.tell()
        self._layers[digest] = scratch.file
        family = _DOCKER_LAYERS if layer.media_type.startswith(mediatypes.DOCKER_LAYER) else _OCI_LAYERS
        kept = {k: v for k, v in layer.annotations.items() if not k.startswith(_ABOUT_THE_STREAM)}
        return replace(
            layer, media_type=family[wanted], digest=digest, size=size, annotations=kept, data=None, urls=()
        )


def _point(entry: dict[str, Any], desc: Descriptor) -> None:
    """Let an entry of a document name something else."""
    if str(desc.digest) != entry["digest"]:
        entry.pop("data", None)
        entry.pop("urls", None)
    entry |= {"mediaType": desc.media_type, "digest": str(desc.digest), "size": desc.size}


def _hashed(reader: Reader, hasher: _Hash) -> Iterator[bytes]:
    for chunk in chunks(reader):
        hasher.update(chunk)
        yield chunk


def _compressing(plain: Iterator[bytes], wanted: Compression) -> Iterator[bytes]:
    """Compress a stream; the same bytes for the same content and version of the library."""
    if wanted is Compression.NONE:
        yield from plain
        return
    compressor: _Compressor
    if wanted is Compression.GZIP:
        compressor = zlib.compressobj(_GZIP_LEVEL, wbits=31)  # a gzip header without name and time
    else:
        import zstandard

        compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compressobj()
    for chunk in plain:
        yield compressor.compress(chunk)
    yield compressor.flush()


class _Compressor(Protocol):
    """What the two libraries have in common."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _At:
    """A file from some place on, read without moving its position: several threads share it."""

    def __init__(self, file: IO[bytes], offset: int) -> None:
        self._fd = file.fileno()
        self._offset = offset

    def read(self, n: int = -1, /) -> bytes:
        if n < 0:
            return b"".join(chunks(self))
        data = os.pread(self._fd, min(n, CHUNK), self._offset)
        self._offset += len(data)
        return data
