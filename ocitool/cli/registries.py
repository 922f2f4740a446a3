"""Commands that speak to a registry about more than one image, or change what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ocitool.cli.options import FILE, asked, with_login, with_session

if TYPE_CHECKING:
    from pathlib import Path

    from ocitool.content import Store
    from ocitool.locations import Location, Session


@click.command(short_help="Check a user and password, and keep them.")
@click.argument("registry")
@click.option("-u", "user", metavar="TEXT", help="As --username.")
@with_login
def login(session: Session, registry: str, user: str | None) -> None:
    """Check a user and password, and keep them where docker and podman look as well.

    What is not given as an option is asked for.
    """
    from ocitool import console
    from ocitool.reference import registry_of
    from ocitool.registry import credentials

    registry = registry_of(registry)
    config = session.config
    username = user or config.username or asked("User", "--username")
    password = config.password or asked("Password", "--password-stdin", hide_input=True)
    session.client.check(registry, username, password)
    where = credentials.login(registry, username, password, authfile=config.authfile)
    console.say(f"credentials for {registry} are in {where}")


@click.command()
@click.argument("registry")
@click.option("--authfile", type=FILE, help="Forget them in this file. [where login keeps them]")
def logout(registry: str, authfile: Path | None) -> None:
    """Forget the credentials for a registry."""
    from ocitool import console
    from ocitool.reference import registry_of
    from ocitool.registry import credentials

    registry = registry_of(registry)
    where = credentials.logout(registry, authfile=authfile)
    console.say(f"removed the credentials for {registry} from {where}")


@click.command(short_help="Give an image another name in the place where it is.")
@click.argument("location")
@click.argument("name", metavar="TAG")
@with_session
def tag(session: Session, location: str, name: str) -> None:
    """Give an image another name in the place where it is.

    TAG is a tag of the same repository; in the local store it may also be another image's whole name.
    """
    from ocitool import console
    from ocitool.locations import Location

    where = Location.parse(location)
    name = name_in(where, name)
    store = changeable(session, where)
    desc = store.resolve(where.name)
    store.tag(desc, name)
    console.result(str(desc.digest))


def name_in(where: Location, name: str) -> str:
    """What a user calls an image as the place knows it.

    A tag is one of the repository that `where` names; the local store, which holds all repositories, takes
    a whole reference as well.

    Raises:
        InvalidReference: it is neither.
    """
    from dataclasses import replace

    from ocitool.errors import InvalidReference
    from ocitool.locations import Kind
    from ocitool.reference import Reference, check_tag

    in_store = where.kind is Kind.STORE
    whole = not {"/", ":"}.isdisjoint(name)
    if in_store and whole:
        return Reference.parse(name).tagged
    try:
        check_tag(name)
    except InvalidReference as error:
        if whole:
            error.hint = (
                "only the tag itself is given; an image goes into another repository by `ocitool copy`"
            )
        raise
    if in_store:
        assert where.reference is not None  # noqa: S101 - a location in the store has one
        return replace(where.reference, tag=name, digest=None).tagged
    return name


@click.command(short_help="Delete a name, or an image.")
@click.argument("location")
@click.option("--digest", "whole", is_flag=True, help="Delete the image itself, and with it all its names.")
@with_session
def delete(session: Session, location: str, *, whole: bool) -> None:
    """Delete a name, or an image with all its names.

    LOCATION with a tag deletes that name and leaves the image; with a digest, or with --digest, the image.
    """
    from ocitool import console
    from ocitool.content import Deleter
    from ocitool.locations import Location
    from ocitool.reference import is_digest

    where = Location.parse(location)
    if not where.name and not whole:
        raise click.UsageError(f"name what to delete, as {where}:TAG")
    store = changeable(session, where)
    assert isinstance(store, Deleter)  # noqa: S101 - as all are whose names can be changed
    if whole or is_digest(where.name):
        desc = session.source(where).resolve(where.name)
        store.delete(desc)
        console.result(str(desc.digest))
    else:
        store.untag(where.name)


def changeable(session: Session, where: Location) -> Store:
    """The store of a place whose images and names can be changed.

    Raises:
        Unsupported: it is an archive, which is written once.
    """
    from ocitool.errors import Unsupported
    from ocitool.locations import Kind

    if where.kind in {Kind.OCI_ARCHIVE, Kind.DOCKER_ARCHIVE}:
        raise Unsupported(f"nothing can be changed in {where}", hint="copy it into a layout first")
    return session.store(where)


COMMANDS = (login, logout, tag, delete)
