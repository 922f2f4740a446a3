"""Commands that look at images without moving them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ocitool.cli.options import entry_option, format_option, platform_option, wanted_platform, with_session

if TYPE_CHECKING:
    from ocitool.content import Source
    from ocitool.locations import Session
    from ocitool.model import Descriptor


def _resolved(session: Session, location: str, platform: str | None = None) -> tuple[Source, Descriptor]:
    """What a location names; one platform's manifest where a platform is given."""
    from ocitool.locations import Location

    where = Location.parse(location)
    source = session.source(where)
    root = source.resolve(where.name)
    return source, wanted_platform(platform).under(source, root) if platform else root


def image_in(session: Session, location: str, platform: str | None) -> tuple[Source, Descriptor]:
    """An image's source and manifest; of an index, the manifest of the platform, or else of the host's."""
    source, root = _resolved(session, location)
    return source, wanted_platform(platform).under(source, root)


@click.command()
@click.argument("location")
@entry_option
@with_session
def digest(session: Session, location: str, *, platform: str | None) -> None:
    """Print the digest of an image."""
    from ocitool import console

    console.result(str(_resolved(session, location, platform)[1].digest))


@click.command()
@click.argument("location")
@entry_option
@with_session
def manifest(session: Session, location: str, *, platform: str | None) -> None:
    """Print a manifest or an index, byte for byte."""
    from ocitool import console
    from ocitool.content import read_verified

    console.result_bytes(read_verified(*_resolved(session, location, platform)))


@click.command()
@click.argument("location")
@platform_option
@with_session
def config(session: Session, location: str, *, platform: str | None) -> None:
    """Print an image's configuration, byte for byte."""
    from ocitool import console
    from ocitool.content import read_manifest, read_verified
    from ocitool.model import Manifest

    source, desc = image_in(session, location, platform)
    image = read_manifest(source, desc)
    assert isinstance(image, Manifest)  # noqa: S101 - an index was resolved to one of its manifests
    console.result_bytes(read_verified(source, image.config))


@click.command()
@click.argument("location")
@entry_option
@format_option
@with_session
def inspect(session: Session, location: str, *, platform: str | None, output: str) -> None:
    """Say what an image is: digest, platforms, layers, configuration."""
    from ocitool import console
    from ocitool.viewing import view

    described = view(*_resolved(session, location, platform))
    if output == "json":
        console.result_json(described)
    else:
        for line in _lines(described):
            console.result(line)


def _lines(value: Any) -> list[str]:
    """Nested data as indented lines; what is empty is left out."""
    if isinstance(value, list):
        return [line for part in value for line in _item(_lines(part))]
    if not isinstance(value, dict):
        return [str(value)]
    lines = []
    for key, part in value.items():
        if isinstance(part, dict | list) and part:
            lines += [f"{key}:", *(f"  {line}" for line in _lines(part))]
        elif part not in ("", [], {}, None):
            lines.append(f"{key}: {part}")
    return lines


def _item(lines: list[str]) -> list[str]:
    return [("  " if number else "- ") + line for number, line in enumerate(lines)]


@click.command(short_help="List the tags of a repository or the names in a layout.")
@click.argument("location")
@format_option
@with_session
def tags(session: Session, location: str, *, output: str) -> None:
    """List the tags of a repository, also of one in the local store, or the names in a layout."""
    from ocitool import console
    from ocitool.content import Lister
    from ocitool.errors import Unsupported
    from ocitool.locations import Kind, Location

    where = Location.parse(location)
    source = session.source(where)
    if not isinstance(source, Lister):
        raise Unsupported(f"the names in {location} can't be listed")
    names = list(source.tags())
    if where.kind is Kind.STORE and where.reference:
        names = _tags_of(where.reference.name, names)
    if output == "json":
        console.result_json(names)
    else:
        for name in names:
            console.result(name)


def _tags_of(repository: str, names: list[str]) -> list[str]:
    """The tags that a repository has among full names."""
    from ocitool.errors import NotFound

    found = [name.removeprefix(f"{repository}:") for name in names if name.startswith(f"{repository}:")]
    if not found:
        raise NotFound(f"the local store has nothing of {repository}", hint="what there is: ocitool store ls")
    return found


@click.command(short_help="List what refers to an image, as signatures.")
@click.argument("location")
@click.option("--artifact-type", default="", help="List only referrers of this type.")
@format_option
@with_session
def referrers(session: Session, location: str, *, artifact_type: str, output: str) -> None:
    """List what refers to an image: signatures, SBOMs and other artifacts."""
    from ocitool import console
    from ocitool.content import Referrers
    from ocitool.errors import Unsupported

    source, root = _resolved(session, location)
    if not isinstance(source, Referrers):
        raise Unsupported(f"{location} keeps no referrers")
    found = list(source.referrers(root, artifact_type))
    if output == "json":
        console.result_json([desc.to_json() for desc in found])
    else:
        console.table([("DIGEST", "TYPE"), *((str(desc.digest), desc.artifact_type) for desc in found)])


COMMANDS = (inspect, manifest, config, digest, tags, referrers)
