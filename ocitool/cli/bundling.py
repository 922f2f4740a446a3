"""Bundles: images in one file, across an air gap."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ocitool.cli.bundleplaces import (
    STREAM,
    brought,
    destination_of,
    holdings,
    inventory_file,
    items,
    lines_of,
    opened,
)
from ocitool.cli.options import (
    FILE,
    byte_count,
    format_option,
    jobs_option,
    platforms_option,
    to_be_written,
    with_session,
    write_whole,
)
from ocitool.cli.serving import listen, listening
from ocitool.cli.trusting import key_password_option, password_of

if TYPE_CHECKING:
    from ocitool.bundle import Image, Inventory, Sink
    from ocitool.locations import Session


_key_option = click.option(
    "--key",
    type=FILE,
    help="Require a signature by this public key (PEM).",
)
_bundle_argument = click.argument("path", metavar="BUNDLE", type=click.Path(path_type=Path))


@click.group()
def bundle() -> None:
    """Carry images across an air gap in one file.

    A BUNDLE is a file, the parts of one (name the file without .001), or - for a stream.
    """


@bundle.command()
@click.argument("output", metavar="BUNDLE", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.argument("locations", metavar="LOCATION...", nargs=-1)
@click.option("--from-file", type=FILE, help="Read more locations from a file, one in a line.")
@click.option(
    "--have",
    multiple=True,
    type=FILE,
    help="Leave out what this inventory of the far side lists; repeatable.",
)
@click.option(
    "--since",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Leave out what this bundle or mirror lock file brought; repeatable.",
)
@platforms_option
@click.option("--sparse", is_flag=True, help="Keep indexes and their digests, leave the other platforms out.")
@click.option(
    "--no-referrers", is_flag=True, help="Leave out signatures, SBOMs and what else refers to images."
)
@click.option("--part-size", callback=byte_count, metavar="SIZE", help="Write parts of this size (4G).")
@click.option("--sign-key", type=FILE, help="Sign the inventory with this private key (PEM).")
@key_password_option
@click.option("--dry-run", is_flag=True, help="Write nothing, say what there would be.")
@jobs_option
@with_session
def create(  # noqa: PLR0913 - one parameter for each option
    session: Session,
    output: Path,
    locations: tuple[str, ...],
    *,
    from_file: Path | None,
    have: tuple[Path, ...],
    since: tuple[Path, ...],
    platforms: tuple[str, ...],
    sparse: bool,
    no_referrers: bool,
    part_size: int | None,
    sign_key: Path | None,
    key_password_file: Path | None,
    dry_run: bool,
    jobs: int,
) -> None:
    """Write a bundle of images; print the digest of its inventory.

    A layout or an archive without a name stands for every image in it.
    """
    from ocitool import console
    from ocitool.bundle import Inventory, gather, write
    from ocitool.bundle.signing import KeySigner
    from ocitool.bundle.writer import Plan
    from ocitool.digest import Digest
    from ocitool.platforms import Platform
    from ocitool.selection import Selection

    listed = [*locations, *(lines_of(from_file) if from_file else ())]
    if not listed:
        raise click.UsageError("name at least one image")
    # Before anything is read from far away: a key or a place that can't be used is a reason to stop.
    signers = [KeySigner(sign_key, password_of(key_password_file))] if sign_key else []
    sink = None if dry_run else _sink(output, part_size)
    held = Inventory.union(
        [*(inventory_file(path) for path in have), *(brought(session, path, jobs) for path in since)]
    )
    gathered = gather(
        [item for text in listed for item in items(session, text)],
        have=held,
        platforms=Selection(tuple(map(Platform.parse, platforms)), sparse=sparse),
        referrers=not no_referrers,
        jobs=jobs,
    )
    if sink:
        plan = write(gathered, sink, signers=signers, jobs=jobs, on_event=session.on_event)
    else:
        plan = Plan(gathered.inventory)
    console.say(f"{_summary(gathered.inventory)}, bundle: {console.size(plan.size)}")
    if str(output) != STREAM:
        console.result(str(Digest.of(gathered.inventory.dump())))


def _sink(output: Path, part_size: int | None) -> Sink:
    from ocitool.bundle import FileSink, StreamSink

    if str(output) != STREAM:
        return FileSink(output, part_size)
    if part_size is not None:
        raise click.UsageError("a stream has no parts: leave --part-size out, or name a file")
    if sys.stdout.isatty():
        raise click.UsageError("a bundle is not written to a terminal: redirect standard output")
    return StreamSink(sys.stdout.buffer)


def _summary(inventory: Inventory) -> str:
    from ocitool import console

    named = sum(1 for image in inventory.images if image.tag)
    presumed = inventory.presumed
    left_out = console.size(sum(entry.descriptor.size for entry in presumed.values()))
    text = f"images: {named}, pieces of content: {len(inventory.content)} ({console.size(inventory.size)})"
    return text + (f", presumed on the far side: {len(presumed)} ({left_out})" if presumed else "")


@bundle.command("inspect")
@_bundle_argument
@_key_option
@format_option
def inspect_bundle(path: Path, *, key: Path | None, output: str) -> None:
    """Say what a bundle holds and presumes. Content is not read; `verify` does that."""
    from ocitool import console

    with opened(path, key) as found:
        inventory = found.inventory
        if output == "json":
            described = {
                "inventory": str(found.inventory_digest),
                "size": found.file.size,
                "parts": found.file.parts,
                "signatures": [str(digest) for digest in found.signatures],
                "images": [_described(image) for image in inventory.images],
                "content": {"count": len(inventory.content), "size": inventory.size},
                "presumed": [entry.descriptor.to_json() for entry in inventory.presumed.values()],
            }
            console.result_json(described)
            return
        rows = [
            (image.name or f"(in {image.repository or 'no repository'})", str(image.root.digest))
            for image in inventory.images
        ]
        console.table([("NAME", "DIGEST"), *rows])
        signed = f", signatures: {len(found.signatures)}" if found.signatures else ""
        console.say(f"{_summary(inventory)}{signed}, inventory: {found.inventory_digest}")


def _described(image: Image) -> dict[str, Any]:
    return {
        "repository": image.repository,
        "tag": image.tag,
        **image.root.to_json(),
        "platforms": [str(platform) for platform in image.platforms],
    }


@bundle.command("verify")
@_bundle_argument
@_key_option
@click.option(
    "--repair-from",
    "origins",
    multiple=True,
    metavar="LOCATION",
    help="First fetch what is damaged, or cut off, from here; repeatable.",
)
@jobs_option
@with_session
def verify_bundle(
    session: Session, path: Path, *, key: Path | None, origins: tuple[str, ...], jobs: int
) -> int:
    """Read all of a bundle and list every fault; with --key its signature is required too.

    A bundle that ocitool wrote, and whose beginning is whole, can be repaired in place.
    """
    from ocitool import console
    from ocitool.bundle.mending import repair
    from ocitool.bundle.verification import verify
    from ocitool.errors import IntegrityError
    from ocitool.locations import Location

    if origins:
        if str(path) == STREAM:
            raise click.UsageError("a stream can't be repaired: name a file")
        sources = [session.source(Location.parse(origin)) for origin in origins]
        for desc in repair(path, sources, jobs=jobs, on_event=session.on_event):
            console.say(f"not found anywhere: {desc.digest}")
    with opened(path, key) as found:
        problems = verify(found, jobs=jobs, on_event=session.on_event)
        for problem in problems:
            console.result(str(problem))
        if problems:
            console.say(f"faults in {found.name}: {len(problems)}")
            return IntegrityError.exit_code
        console.result(str(found.inventory_digest))
    return 0


@bundle.command("diff")
@click.argument("one", metavar="ONE", type=click.Path(path_type=Path))
@click.argument("two", metavar="TWO", type=click.Path(path_type=Path))
@format_option
def diff_bundles(one: Path, two: Path, *, output: str) -> int:
    """Say what the images of bundle (or inventory) TWO need and those of ONE do not, and the other way round.

    The exit code is 0 where they hold the same, and 1 where they do not.
    """
    from ocitool import console
    from ocitool.bundle.difference import difference

    found = difference(inventory_file(one), inventory_file(two))
    if output == "json":
        images = {
            name: {"before": before and str(before), "after": after and str(after)}
            for name, (before, after) in found.images.items()
        }
        lists = {"added": found.added, "removed": found.removed}
        console.result_json(
            {"images": images, **{key: [desc.to_json() for desc in descs] for key, descs in lists.items()}}
        )
        return 1 if found else 0
    for name, (before, after) in found.images.items():
        console.result(f"{name}: {before or 'not there'} -> {after or 'not there'}")
    for sign, descs in (("+", found.added), ("-", found.removed)):
        for desc in descs:
            console.result(f"{sign} {desc.digest} {desc.media_type} {console.size(desc.size)}")
    return 1 if found else 0


@bundle.command()
@click.argument("locations", metavar="LOCATION...", nargs=-1, required=True)
@click.option("--deep", is_flag=True, help="Read every blob, instead of asking whether it is there.")
@click.option(
    "-o", "--output", type=FILE, callback=to_be_written, help="Write to this file instead of standard output."
)
@jobs_option
@with_session
def inventory(
    session: Session, locations: tuple[str, ...], *, deep: bool, output: Path | None, jobs: int
) -> None:
    """Write down what a layout, or repositories of a registry, really hold.

    A LOCATION is a layout or an archive, `store:`, HOST/REPOSITORY with all its tags, or HOST/ for every
    repository that the registry lists. Take the file to where bundles are made: `bundle create --have FILE`.
    """
    from ocitool import console
    from ocitool.bundle.holding import inventory_of

    held = [holding for text in locations for holding in holdings(session, text)]
    found, faults = inventory_of(held, deep=deep, jobs=jobs, on_event=session.on_event)
    for fault in faults:
        console.say(f"left out: {fault}")
    raw = found.dump()
    if output:
        write_whole(output, raw)
    else:
        console.result_bytes(raw)
    console.say(_summary(found))


@bundle.command()
@_bundle_argument
@click.argument("destination")
@click.option(
    "--rename",
    "rules",
    multiple=True,
    metavar="FROM=TO",
    help="Give repositories that start with FROM the name TO; repeatable, the longest FROM counts.",
)
@_key_option
@jobs_option
@with_session
def apply(
    session: Session, path: Path, destination: str, *, rules: tuple[str, ...], key: Path | None, jobs: int
) -> None:
    """Bring everything in a bundle to a registry or a layout; print the names that it writes there.

    DESTINATION is oci:DIR, store:, or HOST[/PREFIX]: host/path of each image becomes HOST/PREFIX/path.
    Nothing is written before the bundle is verified and all that it presumes has been found.
    """
    from ocitool import console
    from ocitool.bundle.application import apply as apply_bundle

    with opened(path, key) as found:
        changed = apply_bundle(
            found, destination_of(session, destination, rules), jobs=jobs, on_event=session.on_event
        )
        for name, image in changed.items():
            console.result(f"{name} {image.root.digest}")
        named = sum(1 for image in found.inventory.images if image.tag)
        console.say(f"names written: {len(changed)}, there already: {named - len(changed)}")


@bundle.command("serve")
@_bundle_argument
@_key_option
@listening
def serve_bundle(path: Path, *, key: Path | None, **options: Any) -> None:
    """Serve a bundle as a registry to pull from, without unpacking it, until interrupted.

    An image host/path:tag is served as path:tag. Without TLS and passwords, listen only where nobody else
    can connect.
    """
    from ocitool import console
    from ocitool.bundle.repositories import BundleRepositories

    with opened(path, key) as found:
        if found.inventory.presumed:
            console.say(f"{found.name} lacks what it presumes elsewhere: {_summary(found.inventory)}")
        listen(BundleRepositories(found), found.name, read_only=True, **options)


COMMANDS = (bundle,)
