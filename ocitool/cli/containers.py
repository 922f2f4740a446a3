"""Commands that make containers of images: unpack, run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ocitool.cli.options import platform_option, wanted_platform, with_session

if TYPE_CHECKING:
    from ocitool.content import Source
    from ocitool.locations import Session
    from ocitool.model import Descriptor

_pull_option = click.option(
    "--pull",
    type=click.Choice(["missing", "always", "never"]),
    default="missing",
    show_default=True,
    help="When to pull an image that is named by its reference.",
)


@click.command()
@click.argument("location")
@click.argument("bundle", type=click.Path(path_type=Path))
@platform_option
@_pull_option
@click.option("--rootless/--no-rootless", default=None, help="Unpack for a user namespace. [when not root]")
@with_session
def unpack(
    session: Session, location: str, bundle: Path, *, platform: str | None, pull: str, rootless: bool | None
) -> None:
    """Unpack an image into a runtime bundle: rootfs/ and config.json."""
    from ocitool import console
    from ocitool.unpack import UnpackOptions
    from ocitool.unpack import unpack as unpack_image

    source, image = _image(session, location, platform, pull)
    report = unpack_image(
        source, image, bundle, options=UnpackOptions(rootless=rootless), on_event=session.on_event
    )
    for line in report.summary():
        console.say(line)
    console.result(str(bundle))


def _image(session: Session, location: str, platform: str | None, policy: str) -> tuple[Source, Descriptor]:
    """The source and the manifest that a location stands for; a reference is looked up in the local store."""
    from ocitool import pulling
    from ocitool.locations import Kind, Location

    where = Location.parse(location)
    wanted = wanted_platform(platform)
    if where.kind is not Kind.REGISTRY or where.reference is None:
        source = session.source(where)
        return source, wanted.under(source, source.resolve(where.name))
    name = Location(Kind.STORE, where.reference).name

    def pull_now() -> Descriptor:
        return pulling.pull(
            session.source(where),
            session.local,
            where.name,
            to=name,
            wanted=wanted,
            on_event=session.on_event,
        )

    if policy == "always":
        return session.local, pull_now()
    return session.local, pulling.ensure(session.local, name, wanted, None if policy == "never" else pull_now)


COMMANDS = (unpack,)
