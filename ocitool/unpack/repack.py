"""Back again: a new layer of what changed in a bundle since it was unpacked, and a new image on top of it.

What changed is found by unpacking the image once more and comparing, so that nothing has to be recorded
beside a bundle, and nothing that was recorded can be wrong.
"""

from __future__ import annotations

import io
import os
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ocitool import mediatypes, strictjson
from ocitool.content import read_config, read_manifest
from ocitool.digest import Digest, new_hasher
from ocitool.errors import InvalidContent, NotFound, OciError, Unsupported
from ocitool.model import Descriptor, Manifest
from ocitool.scratch import Scratch
from ocitool.unpack.building import Here
from ocitool.unpack.entries import clean
from ocitool.unpack.idmap import IdMap, Range, gives_owners, is_host_root
from ocitool.unpack.image import UnpackOptions, apply_layers
from ocitool.unpack.ownership import mapped, recorded
from ocitool.unpack.removal import discard
from ocitool.unpack.stacks import Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ocitool.content import Store
    from ocitool.model import ImageConfig
    from ocitool.unpack.building import Builder

Compress = Literal["gzip", "zstd", "none"]
_SUFFIXES: dict[str, str] = {"gzip": "+gzip", "zstd": "+zstd", "none": ""}
_DOCKER: dict[str, str] = {
    "gzip": mediatypes.DOCKER_LAYER_GZIP,
    "zstd": mediatypes.DOCKER_LAYER_ZSTD,
    "none": mediatypes.DOCKER_LAYER,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RepackOptions:
    """How to make the layer, and what the image's history says of it (image-spec, config.md, "history").

    Attributes:
        compress: how the layer is compressed.
        created: the time that the image says it was made at; None for now. No file in the layer is given a
            later time, so that the same changes make the same image again.
        created_by: what made the layer.
        author: who did.
        comment: why.
        mask_paths: paths of the root file system that are left out, with what is below them.
        mask_volumes: leave the image's volumes out as well.
    """

    compress: Compress = "gzip"
    created: datetime | None = None
    created_by: str = "ocitool repack"
    author: str = ""
    comment: str = ""
    mask_paths: Sequence[str] = ()
    mask_volumes: bool = True


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

    Args:
        store: where the image is, and where the new one goes; it is not tagged.
        image: the image manifest that the bundle was unpacked from.
        bundle: the bundle.
        options: how.

    Returns:
        The new image's manifest, or `image` itself where nothing has changed.

    Raises:
        NotFound: there is no such bundle.
        Unsupported: something belongs to somebody who does not exist in the container, or the bundle is for
            ids that are not this user's.
        OciError: files can't be read.
    """
    manifest = read_manifest(store, image)
    if not isinstance(manifest, Manifest):
        raise Unsupported(f"{image.digest} is an index, not an image", hint="choose one of its platforms")
    config = read_config(store, manifest)
    if Stack.load(bundle):
        raise Unsupported(f"{bundle} has its root file system in a layer cache, where nothing changes")
    created = options.created or datetime.now(UTC)
    latest = None if options.created is None else int(created.timestamp()) * 1_000_000_000
    # conversion.md, "`Config.Volumes`": "data in these paths SHOULD NOT be included in the new image."
    volumes = config.config.get("Volumes") or () if options.mask_volumes else ()
    without = frozenset(clean(os.fsencode(path)) for path in (*volumes, *options.mask_paths))
    with _unpacked(store, manifest, config, bundle) as before:

        def write(to: Callable[[bytes], object]) -> bool:
            return before.write_changes(bundle.absolute() / "rootfs", to, without=without, latest=latest)

        layer = _push_layer(store, manifest, options.compress, write)
    if layer is None:
        return image
    return _push_image(store, manifest, config, layer, created, options)


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
def _unpacked(store: Store, manifest: Manifest, config: ImageConfig, bundle: Path) -> Iterator[Builder]:
    """What the image gives in the bundle's kind, beside the bundle and gone afterwards."""
    ids = _ids(bundle)
    where = bundle.absolute().parent / f".{bundle.name}.{os.getpid()}.repack"
    rootfs = where / "rootfs"
    try:
        rootfs.mkdir(0o700, parents=True)
    except OSError as error:
        raise OciError(f"no directory can be made beside {bundle}: {error.strerror}") from error
    try:
        builder = _builder(rootfs, ids, made_by_root=bundle.stat().st_uid == 0)
        try:
            apply_layers(store, manifest, config, builder, UnpackOptions())
            builder.finish(())
            yield builder
        finally:
            builder.close(keep=False)
    finally:
        discard(where)


def _builder(rootfs: Path, ids: IdMap | None, *, made_by_root: bool) -> Builder:
    is_root = gives_owners()
    if ids is None:
        return Here(rootfs, keep_owner=is_root, devices=is_root)
    if is_root and made_by_root and not ids.single:
        return Here(rootfs, keep_owner=True, devices=is_host_root(), ids=ids, owner_of=mapped(ids))
    if is_root and not ids.single:
        raise Unsupported(
            "the bundle belongs to ids that were delegated to an ordinary user",
            hint="repack it as the user who unpacked it",
        )
    if not is_root:
        from ocitool.unpack.namespace import Mapped

        # With a single id, it is for files that not even their owner may read.
        with suppress(Unsupported) if ids.single else nullcontext():
            return Mapped(rootfs, ids, keep_owner=not ids.single)
    return Here(rootfs, keep_owner=False, devices=False, owner_of=recorded(mapped(ids)))


def _push_layer(
    store: Store, manifest: Manifest, compress: Compress, write: Callable[[Callable[[bytes], object]], bool]
) -> _Layer | None:
    """Add the layer to the store, if there is one: by way of a file, because its digest comes before it."""
    tar, blob = new_hasher("sha256"), new_hasher("sha256")
    with Scratch("the new layer") as scratch:
        feed, finish = _compressor(compress, scratch, blob.update)

        def take(data: bytes) -> None:
            tar.update(data)
            feed(data)

        if not write(take):
            return None
        finish()
        size = scratch.file.tell()
        docker = manifest.media_type == mediatypes.DOCKER_MANIFEST
        media_type = _DOCKER[compress] if docker else mediatypes.OCI_LAYER + _SUFFIXES[compress]
        layer = Descriptor(media_type, Digest("sha256", blob.hexdigest()), size)
        scratch.file.seek(0)
        store.push(layer, scratch.file)
    return _Layer(layer, Digest("sha256", tar.hexdigest()))


def _compressor(
    compress: Compress, scratch: Scratch, hashed: Callable[[bytes], object]
) -> tuple[Callable[[bytes], None], Callable[[], None]]:
    def out(data: bytes) -> None:
        hashed(data)
        scratch.write(data)

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
    store: Store,
    manifest: Manifest,
    config: ImageConfig,
    layer: _Layer,
    created: datetime,
    options: RepackOptions,
) -> Descriptor:
    stamp = created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    # Fields that ocitool does not know stay: the documents are changed, not made anew.
    fields = dict(config.fields)
    rootfs = dict(fields["rootfs"])
    rootfs["diff_ids"] = [*rootfs["diff_ids"], str(layer.diff_id)]
    said = {"created_by": options.created_by, "author": options.author, "comment": options.comment}
    step = {"created": stamp, **{key: text for key, text in said.items() if text}}
    history = [*(fields.get("history") or ()), step]
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
