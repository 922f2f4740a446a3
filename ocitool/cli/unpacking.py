"""Commands between images and bundles: unpack, repack."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ocitool.cli.options import (
    DIRECTORY,
    FILE,
    byte_count,
    pairs,
    platform_option,
    pull_option,
    source_date,
    wanted_platform,
    with_session,
)
from ocitool.cli.registries import changeable, name_in
from ocitool.cli.trusting import policy_of, resolved, verify_key_option

if TYPE_CHECKING:
    from ocitool.content import Source
    from ocitool.locations import Session
    from ocitool.model import Descriptor
    from ocitool.trust import Policy
    from ocitool.unpack import UnpackReport
    from ocitool.unpack.idmap import IdMap


@click.command()
@click.argument("location")
@click.argument("bundle", type=click.Path(path_type=Path))
@platform_option
@pull_option
@verify_key_option
@click.option("--rootless/--no-rootless", default=None, help="Unpack for a user namespace. [when not root]")
@click.option(
    "--keep-owner/--no-keep-owner", default=None, help="Give files the image's owners. [where possible]"
)
@click.option(
    "--uid-map",
    "uid_maps",
    multiple=True,
    metavar="INSIDE:OUTSIDE:SIZE",
    help="Give files to these users of the host, and the bundle a user namespace of them.",
)
@click.option(
    "--gid-map", "gid_maps", multiple=True, metavar="INSIDE:OUTSIDE:SIZE", help="Groups. [as --uid-map]"
)
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Run as this user of the image.")
@click.option("--hostname", default="", metavar="NAME", help="The container's host name.")
@click.option(
    "-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable; without =, unset it."
)
@click.option("--annotation", "annotations", multiple=True, metavar="NAME=VALUE", help="Set an annotation.")
@click.option(
    "--hook",
    "hooks",
    multiple=True,
    metavar="STAGE=COMMAND",
    help="Have the runtime run a command of the host, as createRuntime='/usr/bin/setup --fast'.",
)
@click.option(
    "--config-template",
    type=FILE,
    help="What stands in this config.json wins.",
)
@click.option("--config-only", is_flag=True, help="Write config.json alone; users have to be numbers.")
@click.option("--rootfs-only", is_flag=True, help="Write rootfs/ alone.")
@click.option(
    "--layer-cache",
    type=DIRECTORY,
    help="Keep each layer unpacked once in this directory, for an overlay on rootfs/.",
)
@click.option(
    "--max-bytes", callback=byte_count, metavar="SIZE", help="The largest size of a layer, inflated, as 64G."
)
@click.option("--max-entries", type=click.IntRange(min=1), help="The largest number of files in a layer.")
@with_session
def unpack(  # noqa: PLR0913 - one parameter for each option
    session: Session,
    location: str,
    bundle: Path,
    *,
    platform: str | None,
    pull: str,
    verify_keys: tuple[Path, ...],
    annotations: tuple[str, ...],
    hooks: tuple[str, ...],
    max_bytes: int | None,
    max_entries: int | None,
    uid_maps: tuple[str, ...],
    gid_maps: tuple[str, ...],
    **changes: Any,
) -> None:
    """Unpack an image into a runtime bundle: rootfs/ and config.json."""
    from ocitool import console
    from ocitool.unpack import UnpackOptions
    from ocitool.unpack import unpack as unpack_image

    if changes["config_only"] and changes["rootfs_only"]:
        raise click.UsageError("--config-only and --rootfs-only exclude each other")
    if changes["config_only"] and changes["layer_cache"]:
        raise click.UsageError("--config-only and --layer-cache exclude each other")
    for entry in changes["env"]:
        if entry.startswith("=") or not entry:
            raise click.UsageError(f"environment variable {entry!r} has no name")
    if max_bytes:
        changes["max_bytes"] = max_bytes
    if max_entries:
        changes["max_entries"] = max_entries
    options = UnpackOptions(
        ids=_ids(uid_maps, gid_maps), annotations=pairs(annotations), hooks=_hooks(hooks), **changes
    )
    source, image = image_of(session, location, platform, pull, policy_of(verify_keys))
    report = unpack_image(source, image, bundle, options=options, on_event=session.on_event)
    for line in _left_out(report):
        console.say(line)
    console.result_path(bundle)


def _ids(uid_maps: tuple[str, ...], gid_maps: tuple[str, ...]) -> IdMap | None:
    """The ids of a user namespace; where only users or groups are mapped, the others are mapped likewise."""
    from ocitool.unpack.idmap import IdMap, Range

    if not (uid_maps or gid_maps):
        return None
    return IdMap(*(tuple(map(Range.parse, maps)) for maps in (uid_maps or gid_maps, gid_maps or uid_maps)))


def _hooks(texts: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    """The hooks of a runtime configuration (runtime-spec, config.md, "POSIX-platform Hooks")."""
    from ocitool.unpack.bundle import HOOKS

    hooks: dict[str, list[dict[str, Any]]] = {}
    for text in texts:
        stage, _, command = text.partition("=")
        try:
            args = shlex.split(command)
        except ValueError as error:
            raise click.UsageError(f"--hook {text}: {str(error).lower()}") from error
        # "path (string, REQUIRED) with similar semantics to IEEE Std 1003.1-2008 `execv`'s path. This
        # specification extends the IEEE standard in that path MUST be absolute."
        if stage not in HOOKS or not args or not args[0].startswith("/"):
            raise click.UsageError(
                f"--hook takes STAGE=COMMAND: a stage of {', '.join(HOOKS)}, and a program's absolute path"
            )
        hooks.setdefault(stage, []).append({"path": args[0], "args": args})
    return hooks


def _left_out(report: UnpackReport) -> list[str]:
    """What of an image could not be represented, in a line each."""
    counted = (
        (report.owners, "owners not set, but recorded beside the files"),
        (report.devices, "device nodes left out"),
        (report.xattrs, "extended attributes not set"),
        (len(report.volumes), "volumes without a mount, because the image has files there"),
    )
    return [f"{what}: {count}" for count, what in counted if count]


def image_of(
    session: Session, location: str, platform: str | None, pull: str, policy: Policy | None
) -> tuple[Source, Descriptor]:
    """The source and the manifest that a location stands for; a reference is looked up in the local store.

    With a policy a reference is always looked up in its registry, for that is where the signatures are; what
    the store has of the image is not moved again.
    """
    from ocitool.locations import Kind, Location

    where = Location.parse(location)
    wanted = wanted_platform(platform)
    if where.kind is not Kind.REGISTRY:
        source = session.source(where)
        return source, wanted.under(source, resolved(source, where, policy))

    from ocitool import pulling

    name = where.stored.name

    def pull_now() -> Descriptor:
        source = session.source(where)
        root = resolved(source, where, policy)
        return pulling.pull(source, session.local, root, to=name, wanted=wanted, on_event=session.on_event)

    if policy and pull == "never":
        raise click.UsageError(f"--verify-key asks the registry of {location}, and --pull never forbids that")
    if policy or pull == "always":
        return session.local, pull_now()
    never = pull == "never"
    return session.local, pulling.ensure(session.local, name, wanted, None if never else pull_now)


@click.command(short_help="Make an image of what has changed in a bundle.")
@click.argument("location")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("name", metavar="TAG")
@platform_option
@click.option(
    "--compress",
    type=click.Choice(["gzip", "zstd", "none"]),
    default="gzip",
    show_default=True,
    help="How to compress the layer.",
)
@click.option(
    "--mask-path",
    "mask_paths",
    multiple=True,
    metavar="PATH",
    help="Leave out what is at or below this path.",
)
@click.option(
    "--mask-volumes/--no-mask-volumes",
    default=True,
    show_default=True,
    help="Leave out what is in the image's volumes.",
)
@click.option(
    "--created-by",
    default="ocitool repack",
    metavar="TEXT",
    show_default=True,
    help="What made the layer, for the image's history.",
)
@click.option("--author", default="", metavar="TEXT", help="Who made the layer, likewise.")
@click.option("--comment", default="", metavar="TEXT", help="What the layer is for, likewise.")
@with_session
def repack(
    session: Session, location: str, bundle: Path, name: str, *, platform: str | None, **changes: Any
) -> None:
    """Make a new image of what has changed in a bundle; print its digest.

    LOCATION is the image that BUNDLE was unpacked from, in a layout or the local store. The new image is
    that and one more layer, and is named TAG in the same place. With SOURCE_DATE_EPOCH in the environment,
    the same changes give the same digest.
    """
    from ocitool import console
    from ocitool.locations import Location
    from ocitool.unpack.repack import RepackOptions
    from ocitool.unpack.repack import repack as repack_bundle

    where = Location.parse(location).stored
    name = name_in(where, name)
    store = changeable(session, where)
    image = wanted_platform(platform).under(store, store.resolve(where.name))
    new = repack_bundle(store, image, bundle, options=RepackOptions(created=source_date(), **changes))
    if new == image:
        console.say(f"nothing has changed in {bundle}")
    store.tag(new, name)
    console.result(str(new.digest))


COMMANDS = (unpack, repack)
