"""Back again: a new layer of what changed in a bundle since it was unpacked, and a new image on top of it.

What changed is found by unpacking the image once more and comparing, so that nothing has to be recorded
beside a bundle, and nothing that was recorded can be wrong.
"""

from __future__ import annotations

import io
import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ocitool import mediatypes, strictjson
from ocitool.content import read_config, read_manifest
from ocitool.digest import Digest, new_hasher
from ocitool.errors import InvalidContent, NotFound, OciError, Unsupported
from ocitool.model import Descriptor, Manifest
from ocitool.unpack import changes, packing
from ocitool.unpack.entries import clean
from ocitool.unpack.idmap import IdMap, Range
from ocitool.unpack.image import UnpackOptions, unpack
from ocitool.unpack.removal import discard
from ocitool.unpack.root import OPEN_DIRECTORY
from ocitool.unpack.stacks import Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import IO

    from ocitool.content import Store
    from ocitool.model import ImageConfig

Compress = Literal["gzip", "zstd", "none"]
_SUFFIXES: dict[str, str] = {"gzip": "+gzip", "zstd": "+zstd", "none": ""}
_DOCKER: dict[str, str] = {
    "gzip": mediatypes.DOCKER_LAYER_GZIP,
    "zstd": mediatypes.DOCKER_LAYER_ZSTD,
    "none": mediatypes.DOCKER_LAYER,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RepackOptions:
    """How to make the layer.

    Attributes:
        compress: how the layer is compressed.
        created: the time that the image says it was made at; None for now. No file in the layer is given a
            later time, so that the same changes make the same image again.
        comment: what the image's history says of the layer.
    """

    compress: Compress = "gzip"
    created: datetime | None = None
    comment: str = "ocitool repack"


class _Layer(NamedTuple):
    descriptor: Descriptor
    diff_id: Digest


def repack(
    store: Store,
    image: Descriptor,
    bundle: Path,
    *,
    options: RepackOptions = RepackOptions(),
) -> Descriptor:
    """Make a new image: the one that a bundle was unpacked from, and what has changed since then.

    What lies in the image's volumes is left out (conversion.md, "`Config.Volumes`").

    Args:
        store: where the image is, and where the new one goes; it is not tagged.
        image: the image manifest that the bundle was unpacked from.
        bundle: the bundle.
        options: how.

    Returns:
        The new image's manifest, or `image` itself where nothing has changed.

    Raises:
        NotFound: there is no such bundle.
        Unsupported: something belongs to somebody who does not exist in the container.
        OciError: files can't be read.
    """
    manifest = read_manifest(store, image)
    if not isinstance(manifest, Manifest):
        raise Unsupported(f"{image.digest} is an index, not an image", hint="choose one of its platforms")
    config = read_config(store, manifest)
    if Stack.load(bundle):
        raise Unsupported(f"{bundle} has its root file system in a layer cache, where nothing changes")
    ids = _ids(bundle)
    created = options.created or datetime.now(UTC)
    latest = None if options.created is None else int(created.timestamp()) * 1_000_000_000
    try:
        with _unpacked(store, image, bundle, ids) as before, _opened(bundle / "rootfs") as after:
            without = frozenset(clean(os.fsencode(volume)) for volume in config.config.get("Volumes") or ())
            found = changes.between(before, after, without=without)
            if not (found.removed or found.changed):
                return image

            def write(to: Callable[[bytes], object]) -> None:
                packing.pack(found, lambda path: _below(after, path), to, ids=ids, latest=latest)

            layer = _push_layer(store, manifest, options.compress, write)
    except OSError as error:
        raise OciError(f"{bundle} can't be packed: {error.strerror} ({error.filename!r})") from error
    return _push_image(store, manifest, config, layer, created, options.comment)


def _ids(bundle: Path) -> IdMap | None:
    """The user namespace that a bundle is for, as its configuration says."""
    try:
        raw = (bundle / "config.json").read_bytes()
    except OSError as error:
        raise NotFound(f"{bundle} is no bundle: config.json can't be read ({error.strerror})") from error
    linux = strictjson.load_object(raw, f"{bundle}/config.json").get("linux") or {}
    maps = [linux.get(key) or () for key in ("uidMappings", "gidMappings")]
    try:
        uids, gids = (
            tuple(Range(part["containerID"], part["hostID"], part["size"]) for part in parts)
            for parts in maps
        )
    except (KeyError, TypeError) as error:
        raise InvalidContent(f"the id mappings in {bundle}/config.json are none") from error
    return IdMap(uids, gids) if uids and gids else None


@contextmanager
def _unpacked(store: Store, image: Descriptor, bundle: Path, ids: IdMap | None) -> Iterator[int]:
    """What the image gives in the bundle's kind, beside the bundle and gone afterwards."""
    where = bundle.parent / f".{bundle.name}.{os.getpid()}.repack"
    single = ids is not None and ids.single
    options = UnpackOptions(
        rootless=ids is not None, keep_owner=False if single else None, rootfs_only=True, sync=False
    )
    unpack(store, image, where, options=options)
    try:
        with _opened(where / "rootfs") as fd:
            yield fd
    finally:
        discard(where)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, OPEN_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def _below(root: int, path: bytes) -> int:
    fd = os.dup(root)
    for name in path.split(b"/") if path else ():
        above = fd
        try:
            fd = os.open(name, OPEN_DIRECTORY, dir_fd=above)
        finally:
            os.close(above)
    return fd


def _push_layer(
    store: Store, manifest: Manifest, compress: Compress, write: Callable[[Callable[[bytes], object]], None]
) -> _Layer:
    """Write the layer to a file, because its digest comes before it, and add it to the store."""
    tar, blob = new_hasher("sha256"), new_hasher("sha256")
    with tempfile.TemporaryFile() as file:
        feed, finish = _compressor(compress, file, blob.update)

        def take(data: bytes) -> None:
            tar.update(data)
            feed(data)

        write(take)
        finish()
        size = file.tell()
        docker = manifest.media_type == mediatypes.DOCKER_MANIFEST
        media_type = _DOCKER[compress] if docker else mediatypes.OCI_LAYER + _SUFFIXES[compress]
        layer = Descriptor(media_type, Digest("sha256", blob.hexdigest()), size)
        file.seek(0)
        store.push(layer, file)
    return _Layer(layer, Digest("sha256", tar.hexdigest()))


def _compressor(
    compress: Compress, file: IO[bytes], hashed: Callable[[bytes], object]
) -> tuple[Callable[[bytes], None], Callable[[], None]]:
    def out(data: bytes) -> None:
        hashed(data)
        file.write(data)

    if compress == "none":
        return out, lambda: None
    if compress == "gzip":
        import zlib

        # Its header names neither a file nor a time, so the bytes are the same every time.
        packer: Any = zlib.compressobj(6, wbits=31)
    else:
        import zstandard

        packer = zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
    return lambda data: out(packer.compress(data)), lambda: out(packer.flush())


def _push_image(
    store: Store, manifest: Manifest, config: ImageConfig, layer: _Layer, created: datetime, comment: str
) -> Descriptor:
    stamp = created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    # Fields that ocitool does not know stay: the documents are changed, not made anew.
    fields = dict(config.fields)
    rootfs = dict(fields["rootfs"])
    rootfs["diff_ids"] = [*rootfs["diff_ids"], str(layer.diff_id)]
    history = [*(fields.get("history") or ()), {"created": stamp, "created_by": comment}]
    new_config = _push(
        store, manifest.config.media_type, {**fields, "created": stamp, "rootfs": rootfs, "history": history}
    )
    document = strictjson.load_object(manifest.raw, "manifest")
    document["config"] = new_config.to_json()
    document["layers"] = [*document["layers"], layer.descriptor.to_json()]
    return _push(store, manifest.media_type, document)


def _push(store: Store, media_type: str, document: dict[str, Any]) -> Descriptor:
    content = strictjson.dumps(document)
    desc = Descriptor.of(media_type, content)
    store.push(desc, io.BytesIO(content))
    return desc
