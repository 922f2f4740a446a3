"""Commands that speak to a registry about more than one image, or change what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ocitool.cli.options import read_password, with_session

if TYPE_CHECKING:
    from ocitool.locations import Session


@click.command()
@click.argument("registry", metavar="REGISTRY")
@click.option("-u", "--username", prompt=True, help="User at the registry.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin instead of asking.")
@with_session
def login(session: Session, registry: str, *, username: str, password_stdin: bool) -> None:
    """Check a user and password, and keep them where docker and podman look as well."""


COMMANDS = ()
