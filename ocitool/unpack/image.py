"""Unpacking an image: layers and configuration become a bundle, whole or not at all."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ocitool import limits, mediatypes, strictjson
from ocitool.content import read_config, read_manifest
from ocitool.errors import InvalidContent, NotFound, OciError, Unsupported
from ocitool.events import Finished, Noted, Planned, Started, ignore
from ocitool.model import Manifest
from ocitool.unpack import bundle as bundles
from ocitool.unpack import layers
from ocitool.unpack.building import NOTHING, Here
from ocitool.unpack.idmap import IdMap, gives_owners, is_host_root
from ocitool.unpack.staging import staged

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from ocitool.content import Source
    from ocitool.digest import Digest
    from ocitool.events import OnEvent
    from ocitool.model import Descriptor, ImageConfig
    from ocitool.streams import Reader
    from ocitool.unpack.building import Builder


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackOptions:
    """How to unpack.

    Attributes:
        rootless: make a bundle for a user namespace, and do without privilege; None for "unless root".
        keep_owner: give files the owners that the image names. None for "where it can be done": as root, and
            rootless where ids for a user namespace are delegated (subuid(5)). Elsewhere all files belong to
            whoever unpacks, and the owner that was meant is recorded beside each.
        ids: the ids of the user namespace that the bundle is for; files get those owners. As an ordinary
            user, ids that are delegated. None for "as `rootless` says".
        devices: make device nodes; None for "as root". Those left out are counted.
        config_only: write `config.json` alone, from an image whose users are numbers.
        rootfs_only: write `rootfs` alone.
        config_template: a runtime configuration that wins over the image's and the defaults'.
        user: whom to run as, in place of the image's own user, in the same form.
        hostname: the container's host name.
        env: `NAME=VALUE` to set, or `NAME` to unset, in the process's environment.
        annotations: annotations to set.
        hooks: the runtime configuration's hooks.
        sync: have everything on the disk before the bundle gets its name, so that not even a power cut
            leaves one that only looks complete.
        layer_cache: keep each layer unpacked once in this directory, for all images that have it. The
            bundle's `rootfs` stays empty, and `layers.json` beside it says what an overlay to be mounted
            there is made of (see `ocitool.unpack.stacks`).
        max_bytes: the largest uncompressed size of one layer.
        max_entries: the largest number of entries of one layer.
    """

    rootless: bool | None = None
    keep_owner: bool | None = None
    ids: IdMap | None = None
    devices: bool | None = None
    config_only: bool = False
    rootfs_only: bool = False
    config_template: Path | None = None
    user: str = ""
    hostname: str = ""
    env: Sequence[str] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    hooks: Mapping[str, Any] = field(default_factory=dict)
    sync: bool = True
    layer_cache: Path | None = None
    max_bytes: int = limits.DECOMPRESSED_BYTES
    max_entries: int = limits.TAR_ENTRIES


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackReport:
    """What was unpacked, and what of it could not be represented.

    Attributes:
        bundle: where it is.
        diff_ids: the layers, each verified, from the lowest on.
        entries: how many entries were applied.
        bytes: how many bytes of file content were written.
        owners: files whose owner is not the one that the image names; it is recorded beside them.
        devices: device nodes that were left out.
        xattrs: extended attributes that the file system or the lack of privilege refused.
        filtered: extended attributes left out because they mean something only to the host that made them.
        volumes: paths of `Config.Volumes` that got no mount, because the image has files there.
    """

    bundle: Path
    diff_ids: tuple[Digest, ...] = ()
    entries: int = 0
    bytes: int = 0
    owners: int = 0
    devices: int = 0
    xattrs: int = 0
    filtered: int = 0
    volumes: tuple[str, ...] = ()


def unpack(
    source: Source,
    image: Descriptor,
    bundle: Path,
    *,
    options: UnpackOptions = UnpackOptions(),
    on_event: OnEvent = ignore,
) -> UnpackReport:
    """Make a bundle of an image: `rootfs/` and `config.json`.

    Everything happens in a private directory beside `bundle`, which gets its name when every layer's
    digest and diff ID have been verified.

    Args:
        source: where the image is.
        image: an image manifest's descriptor, not an index's.
        bundle: the directory to make.
        options: how.
        on_event: hears of each layer.

    Raises:
        Conflict: `bundle` exists.
        IntegrityError: content is not what its descriptor, or the config's diff ID, promises.
        InvalidContent: the image, its configuration or a layer is malformed.
        UnsafeContent: a layer tries to leave the root, or exceeds a limit.
        Unsupported: it is no image for Linux, or has layers of a kind that can't be unpacked.
        OciError: the file system refuses.
    """
    manifest, config = documents(source, image)
    template = _template(options.config_template)
    wanted = tuple(config.config.get("Volumes") or {})
    place = _place(options)
    with staged(bundle, sync=options.sync) as staging:
        built = NOTHING
        with ExitStack() as stack:
            if options.layer_cache and not options.config_only:
                from ocitool.unpack.overlay import LayerCache

                cache = LayerCache(
                    options.layer_cache.absolute(), keep_owner=place.keep_owner, options=options
                )
                built = cache.stacked(source, manifest, config, staging, on_event)
            elif not options.config_only:
                builder, place = stack.enter_context(_builder(staging, place, options, on_event))
                apply_layers(source, manifest, config, builder, options, on_event)
                built = builder.finish(wanted)
            if not options.rootfs_only:
                runtime = bundles.runtime_config(
                    config,
                    built.accounts().find(options.user or config.config.get("User") or ""),
                    ids=place.ids,
                    volumes=built.wanted.mounts,
                    edits=_edits(options, template),
                )
                (staging / "config.json").write_bytes(bundles.dumps(runtime))
    tally = built.tally
    return UnpackReport(
        bundle=bundle,
        diff_ids=config.diff_ids,
        entries=tally.entries,
        bytes=tally.bytes,
        owners=tally.owners,
        devices=tally.devices,
        xattrs=tally.xattrs,
        filtered=tally.filtered,
        volumes=built.wanted.kept,
    )


def documents(source: Source, image: Descriptor) -> tuple[Manifest, ImageConfig]:
    """Read the manifest and the configuration of an image for Linux.

    Raises:
        Unsupported: it is no image, or none for Linux.
        InvalidContent, IntegrityError: a document is not what it should be.
    """
    manifest, config = any_documents(source, image)
    if config.platform.os not in {"", "linux"}:
        raise Unsupported(f"{image.digest} is an image for {config.platform.os}, not for Linux")
    return manifest, config


def any_documents(source: Source, image: Descriptor) -> tuple[Manifest, ImageConfig]:
    """Read the manifest and the configuration of an image for whatever system.

    Raises:
        Unsupported: it is no image.
        InvalidContent, IntegrityError: a document is not what it should be.
    """
    manifest = read_manifest(source, image)
    if not isinstance(manifest, Manifest):
        raise Unsupported(f"{image.digest} is an index, not an image", hint="choose one of its platforms")
    if manifest.config.media_type not in mediatypes.CONFIGS:
        raise Unsupported(f"{image.digest} is an artifact of the type {manifest.kind}, not a container image")
    return manifest, read_config(source, manifest)


def apply_layers(
    source: Source,
    manifest: Manifest,
    config: ImageConfig,
    builder: Builder,
    options: UnpackOptions,
    on_event: OnEvent = ignore,
) -> None:
    """Have an image's layers applied.

    Raises:
        OciError: see `unpack`.
    """
    layers.check(manifest.layers, config.diff_ids)
    on_event(Planned(manifest.layers))
    with layers.opened(source, manifest.layers, config.diff_ids, limit=options.max_bytes) as streams:
        for layer, stream in zip(manifest.layers, streams, strict=True):
            on_event(Started(layer))
            try:
                _apply_layer(builder, stream, options.max_entries)
            except OciError as error:
                error.add_note(f"in layer {layer.digest}")
                raise
            on_event(Finished(layer, "applied"))


def _apply_layer(builder: Builder, stream: Reader, max_entries: int) -> None:
    try:
        builder.apply(stream, max_entries=max_entries)
    except InvalidContent:
        # If the bytes are not even those that were promised, that is the error to report.
        layers.drain(stream)
        raise


class _Place(NamedTuple):
    """Where files are made, and for whom."""

    ids: IdMap | None  # of the user namespace that the bundle is for
    keep_owner: bool


def _place(options: UnpackOptions) -> _Place:
    is_root = gives_owners()
    if options.ids:
        if options.layer_cache or options.keep_owner is False:
            raise Unsupported("ids of one's own go neither with a layer cache nor without owners")
        return _Place(options.ids, keep_owner=True)
    rootless = not is_root if options.rootless is None else options.rootless
    if not rootless:
        return _Place(None, is_root if options.keep_owner is None else options.keep_owner)
    alone = is_root or options.keep_owner is False or options.layer_cache is not None
    delegated = None if alone else IdMap.delegated()
    if options.keep_owner and options.layer_cache:
        raise Unsupported("a layer cache for several mapped users is not supported")
    if options.keep_owner and not delegated:
        raise Unsupported(
            "owners can't be kept: nobody but you can be mapped into a user namespace",
            hint="have an administrator give you ids in /etc/subuid and /etc/subgid, and install newuidmap",
        )
    return _Place(delegated or IdMap.only_me(), delegated is not None)


@contextmanager
def _builder(
    staging: Path, place: _Place, options: UnpackOptions, on_event: OnEvent
) -> Iterator[tuple[Builder, _Place]]:
    rootfs = staging / "rootfs"
    rootfs.mkdir(0o700)
    builder: Builder | None = None
    if place.ids and place.keep_owner and not gives_owners():
        from ocitool.unpack.namespace import Mapped

        try:
            builder = Mapped(rootfs, place.ids)
        except Unsupported as error:
            if options.keep_owner or options.ids:
                raise
            on_event(Noted(f"owners are not kept, only recorded: {error.message}"))
            place = _Place(IdMap.only_me(), keep_owner=False)
    if builder is None:
        devices = place.keep_owner and is_host_root() if options.devices is None else options.devices
        builder = Here(rootfs, keep_owner=place.keep_owner, devices=devices, ids=place.ids)
        if place.ids and place.keep_owner:
            # Whoever is root there, but nobody else, has to get to the root file system.
            os.chown(staging, -1, place.ids.outside(0, 0)[1])
            staging.chmod(0o710)
    try:
        yield builder, place
    except BaseException:
        builder.close(keep=False)
        raise
    builder.close(keep=True)


def _template(path: Path | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise NotFound(f"the configuration template {path} can't be read: {error.strerror}") from error
    return strictjson.load_object(raw, f"the configuration template {path}")


def _edits(options: UnpackOptions, template: Mapping[str, Any]) -> bundles.Edits:
    return bundles.Edits(
        hostname=options.hostname,
        env=options.env,
        annotations=options.annotations,
        hooks=options.hooks,
        template=template,
    )
