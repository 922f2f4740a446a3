"""Commands that move images: pull, push, copy."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ocitool.cli.options import (
    jobs_option,
    platform_option,
    platforms_option,
    wanted_platform,
    with_session,
    with_two_sessions,
)
from ocitool.cli.trusting import policy_of, resolved, verify_key_option

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ocitool.content import Source
    from ocitool.locations import Location, Session
    from ocitool.model import Descriptor
    from ocitool.reference import Reference


_verify_option = click.option(
    "--verify", is_flag=True, help="Read what is there already again, instead of comparing sizes."
)


@click.command()
@click.argument("reference", metavar="REF")
@click.argument("location", required=False)
@platform_option
@click.option("--all", "everything", is_flag=True, help="Take every platform, and keep the index.")
@verify_key_option
@_verify_option
@jobs_option
@with_session
def pull(  # noqa: PLR0913 - one parameter for each option
    session: Session,
    reference: str,
    location: str | None,
    *,
    platform: str | None,
    everything: bool,
    verify_keys: tuple[Path, ...],
    verify: bool,
    jobs: int,
) -> None:
    """Pull an image from a registry; print its digest.

    It goes to LOCATION, or into the local store. Of an index with several platforms, the host's is taken.
    """
    from ocitool import pulling
    from ocitool.locations import Kind, Location

    origin, parsed = Location.parse(reference), _in_registry(reference)
    if everything and platform:
        raise click.UsageError("--all and --platform exclude each other")
    target = Location.parse(location) if location else Location(Kind.STORE, parsed)
    if target.kind is Kind.REGISTRY:
        raise click.UsageError(
            f"{location} is in a registry too: name a directory ./{location}, or use `ocitool copy`"
        )
    session.verify = verify
    source = session.source(origin)
    desc = pulling.pull(
        source,
        session.store(target),
        resolved(source, origin, policy_of(verify_keys)),
        to=target.name_for(parsed),
        wanted=None if everything else wanted_platform(platform),
        jobs=jobs,
        on_event=session.watching(target),
    )
    _tell(session, target, desc)


@click.command()
@click.argument("location")
@click.argument("reference", metavar="REF")
@click.option("--referrers", is_flag=True, help="Push what refers to the image as well.")
@jobs_option
@with_session
def push(session: Session, location: str, reference: str, *, referrers: bool, jobs: int) -> None:
    """Push an image to a registry; print its digest.

    LOCATION without a prefix names an image of the local store. All platforms that are there are pushed.
    """
    from ocitool import console
    from ocitool.locations import Location
    from ocitool.transfer import copy

    origin = Location.parse(location).stored
    target = _in_registry(reference)
    desc = copy(
        session.source(origin),
        session.client.repository(target),
        origin.name,
        to=target.ref,
        referrers=referrers,
        jobs=jobs,
        on_event=session.on_event,
    )
    _require_digest(target, str(desc.digest))
    console.result(str(desc.digest))


def _in_registry(text: str) -> Reference:
    from ocitool.locations import Kind, Location

    where = Location.parse(text)
    if where.kind is not Kind.REGISTRY or where.reference is None:
        raise click.UsageError(f"{text} is not in a registry; between any two places: ocitool copy FROM TO")
    return where.reference


def _require_digest(target: Reference, digest: str) -> None:
    from ocitool.errors import IntegrityError

    if target.digest and str(target.digest) != digest:
        raise IntegrityError(
            f"the image is {digest}, not {target.digest}", expected=str(target.digest), actual=digest
        )


@click.command(short_help="Copy an image between any two locations.")
@click.argument("source", metavar="FROM")
@click.argument("destination", metavar="TO")
@platforms_option
@click.option("--all", "everything", is_flag=True, help="Take every platform, as is the default.")
@click.option("--sparse", is_flag=True, help="Keep the index and its digest, leave the other platforms out.")
@click.option("--format", "form", type=click.Choice(["oci"]), help="Make a Docker image an OCI image.")
@click.option("--compression", type=click.Choice(["gzip", "zstd", "none"]), help="Compress layers this way.")
@click.option("--preserve-digests", is_flag=True, help="Fail where the digest would change.")
@click.option("--referrers", is_flag=True, help="Copy what refers to the image as well.")
@verify_key_option
@_verify_option
@jobs_option
@with_two_sessions
def copy(  # noqa: PLR0913 - one parameter for each option
    session: Session,
    target_session: Session,
    source: str,
    destination: str,
    *,
    platforms: tuple[str, ...],
    everything: bool,
    sparse: bool,
    form: str | None,
    compression: str | None,
    preserve_digests: bool,
    referrers: bool,
    verify_keys: tuple[Path, ...],
    verify: bool,
    jobs: int,
) -> None:
    """Copy an image, all platforms of it, between any two locations; print its digest.

    Its bytes stay as they are, unless --format, --compression or a part of its platforms is asked for.

    The options about registries are for both sides. With --src- or --dest- before their names, as in
    --src-no-creds and --dest-authfile FILE, they are for one.
    """
    from ocitool import console
    from ocitool.errors import Conflict
    from ocitool.locations import Location
    from ocitool.platforms import Platform
    from ocitool.selection import Selection, select
    from ocitool.transfer import copy_graph

    if everything and platforms:
        raise click.UsageError("--all and --platform exclude each other")
    selection = Selection(tuple(map(Platform.parse, platforms)), sparse=sparse)
    origin = Location.parse(source)
    target = Location.parse(destination)
    original = session.source(origin)
    before = resolved(original, origin, policy_of(verify_keys))
    src, root = _converted(session, original, before, form, compression)
    selected = select(src, root, selection)
    if preserve_digests and selected.root != before:
        raise Conflict(
            f"what is asked for changes the digest of {before.digest}",
            hint="--sparse leaves platforms out and keeps the index; or drop --preserve-digests",
        )
    name, *more = _names(origin, target, original, before) or [str(root.digest)]
    target_session.verify = verify
    store = target_session.store(target)
    with _explained(sparse=sparse):
        desc = copy_graph(
            src, store, root, ref=origin.name, to=name, platforms=selection,
            referrers=referrers, jobs=jobs, on_event=session.watching(target),
        )  # fmt: skip
    for another in more:
        store.tag(desc, another)
    if desc != before:
        how = "left platforms out of" if desc != root else "converted"
        console.say(f"{how} {before.digest}: its new digest is {desc.digest}")
    _tell(session, target, desc)


def _names(origin: Location, target: Location, source: Source, found: Descriptor) -> list[str]:
    """What an image is called where it goes: what was asked for, else all that it is called where it is."""
    from ocitool.layout import ArchiveSource, LayoutStore
    from ocitool.layout.index import names_of
    from ocitool.locations import Kind

    if origin.reference:
        asked = target.name_for(origin.reference)
    else:
        asked = target.name or origin.ref
        if not asked:
            assert isinstance(source, ArchiveSource | LayoutStore)  # noqa: S101 - what has no reference is one
            return names_of(source.entries(), found, full=target.kind is Kind.DOCKER_ARCHIVE)
    return [asked] if asked else []


@contextmanager
def _explained(*, sparse: bool) -> Iterator[None]:
    """Say what helps where a registry takes no index of which a part is missing."""
    from ocitool.errors import RegistryError

    try:
        yield
    except RegistryError as error:
        if sparse and error.refuses_sparse:
            error.hint = (
                "it takes an index only with all its platforms: leave out --sparse, for a smaller one"
            )
        raise


def _converted(
    session: Session, source: Source, root: Descriptor, form: str | None, compression: str | None
) -> tuple[Source, Descriptor]:
    """A source and a root as they are, or in another form."""
    if not form and not compression:
        return source, root
    from ocitool.compression import Compression
    from ocitool.conversion import Converted

    wanted = Compression(compression) if compression else None
    converted = session.opened(Converted(source, to_oci=form == "oci", compression=wanted))
    return converted, converted.convert(root)


def _tell(session: Session, target: Location, desc: Descriptor) -> None:
    """Print a digest once what it names is where it should be; on stderr if stdout is where that is."""
    from ocitool import console

    session.finish()
    (console.say if str(target.path) == "-" else console.result)(str(desc.digest))


COMMANDS = (pull, push, copy)
