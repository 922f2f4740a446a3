"""Options that several commands share, and the session that they describe."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ocitool.locations import Session
    from ocitool.registry import ClientConfig
    from ocitool.selection import Wanted

P = ParamSpec("P")
R = TypeVar("R")

_FILE = click.Path(path_type=Path, dir_okay=False)
_DIRECTORY = click.Path(path_type=Path, file_okay=False)

_SESSION = (
    click.option("--username", default="", help="User at the registry."),
    click.option("--password-stdin", is_flag=True, help="Read the password from stdin."),
    click.option("--registry-token", default="", help="Send this bearer token."),
    click.option("--no-creds", is_flag=True, help="Use no credentials."),
    click.option("--authfile", type=_FILE, help="Read credentials from this file alone."),
    click.option(
        "--tls-verify",
        type=bool,
        default=True,
        metavar="BOOL",
        help="Check the registry's certificate. [true]",
    ),
    click.option("--plain-http", is_flag=True, help="Use HTTP without TLS."),
    click.option("--ca-file", type=_FILE, help="Trust this certificate authority as well."),
    click.option("--cert-file", type=_FILE, help="Client certificate."),
    click.option("--key-file", type=_FILE, help="Key of the client certificate."),
    click.option("--cert-dir", type=_DIRECTORY, help="Directory with *.crt, *.cert and *.key."),
    click.option("--store", type=_DIRECTORY, help="The local store. [$XDG_DATA_HOME/ocitool/store]"),
)

platform_option = click.option(
    "--platform", metavar="OS/ARCH[/VARIANT]", help="The platform to take. [the host's]"
)

format_option = click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    default="text",
    help="How to print the result. [text]",
)


def with_session(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the options of a session, and the session as its first argument."""

    @wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> R:
        settings = {name: kwargs.pop(name) for name in _NAMES}
        with _session(settings) as session:
            return command(session, *args, **kwargs)

    for option in reversed(_SESSION):
        wrapper = option(wrapper)
    return wrapper


_NAMES = (
    "username",
    "password_stdin",
    "registry_token",
    "no_creds",
    "authfile",
    "tls_verify",
    "plain_http",
    "ca_file",
    "cert_file",
    "key_file",
    "cert_dir",
    "store",
)


@contextmanager
def _session(settings: dict[str, Any]) -> Iterator[Session]:
    from ocitool.console import Progress, listener
    from ocitool.locations import Session

    store = settings.pop("store")
    on_event = listener(Progress(click.get_current_context().obj["progress"]))
    try:
        with Session(lambda: _config(settings), store=store, on_event=on_event) as session:
            yield session
    finally:
        on_event.close()


def _config(settings: dict[str, Any]) -> ClientConfig:
    """The registry client's configuration; made only when a registry is used, because it loads much."""
    from ocitool.registry import ClientConfig

    settings = dict(settings)
    password = read_password() if settings.pop("password_stdin") else ""
    return ClientConfig(password=password, no_credentials=settings.pop("no_creds"), **settings)


def read_password() -> str:
    """A password from stdin, without the line's end."""
    return sys.stdin.read().removesuffix("\n").removesuffix("\r")


def wanted_platform(text: str | None) -> Wanted:
    """The platform that an option, the environment or the host says to take."""
    from ocitool.platforms import Platform, host
    from ocitool.selection import Wanted

    text = text or os.environ.get("DOCKER_DEFAULT_PLATFORM")
    return Wanted(Platform.parse(text), named=True) if text else Wanted(host())
