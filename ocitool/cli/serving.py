"""The embedded registry."""

from __future__ import annotations

from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ocitool.cli.options import FILE, byte_count, with_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ocitool.locations import Session
    from ocitool.serve import Repositories, Served

R = TypeVar("R")

_LISTENING = (
    click.option(
        "--listen", default="127.0.0.1:5000", show_default=True, metavar="HOST:PORT", help="0 is any port."
    ),
    click.option("--address-file", type=FILE, help="Write HOST:PORT here once it listens."),
    click.option("--htpasswd", type=FILE, help="Ask for a user and password of this file."),
    click.option("--tls-cert", type=FILE, help="Certificate chain, for HTTPS; read again when it changes."),
    click.option("--tls-key", type=FILE, help="Key of the certificate."),
    click.option("--log", is_flag=True, help="Say each request on stderr, not only those that fail here."),
)


def listening(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the options that `listen` takes."""
    for option in reversed(_LISTENING):
        command = option(command)
    return command


@click.command()
@click.argument("layout", type=click.Path(path_type=Path))
@click.option("--read-only", is_flag=True, help="Refuse what would change the layout.")
@click.option("--sparse", is_flag=True, help="Take an index though platforms of it are missing.")
@click.option("--proxy", metavar="REGISTRY", help="Fetch from this registry what is asked for, and keep it.")
@click.option(
    "--cache-size",
    callback=byte_count,
    metavar="SIZE",
    help="With --proxy, keep so much (20G); what was not used for longest goes.",
)
@listening
@with_session
def serve(
    session: Session,
    layout: Path,
    *,
    read_only: bool,
    sparse: bool,
    proxy: str | None,
    cache_size: int | None,
    **options: Any,
) -> None:
    """Serve an image layout as a registry, until interrupted.

    An image named repo:tag in the layout is tag `tag` of repository `repo`. What is pushed is in the layout
    at once. Without TLS and passwords, listen only where nobody else can connect. `bundle serve` serves a
    bundle.

    With --proxy the layout is a cache: tags are looked up in the other registry, and taken from the layout
    where that does not answer; nothing can be pushed. The credentials are for that registry.
    """
    from ocitool.errors import NotFound
    from ocitool.layout import LayoutStore
    from ocitool.layout.repositories import LayoutRepositories

    if layout.is_file() or (not layout.exists() and layout.with_name(f"{layout.name}.001").is_file()):
        raise click.UsageError(f"{layout} is no directory; `ocitool bundle serve` serves a bundle")
    if proxy and read_only:
        raise click.UsageError("--proxy keeps what it fetches, so it excludes --read-only")
    if cache_size is not None and not proxy:
        raise click.UsageError("--cache-size is for a cache, and so for --proxy: an image layout keeps all")
    if read_only and not layout.is_dir():
        raise NotFound(f"there is no image layout at {layout}")
    store = LayoutStore(layout, create=not read_only, read_only=read_only)
    repositories = LayoutRepositories(store, limit=cache_size)
    with _proxied(session, repositories, layout, proxy) if proxy else nullcontext(repositories) as served:
        listen(served, str(layout), read_only=read_only, sparse=sparse, **options)


@contextmanager
def _proxied(session: Session, cache: Repositories, layout: Path, registry: str) -> Iterator[Repositories]:
    """Another registry's repositories, with a layout before them."""
    from ocitool import console
    from ocitool.layout.store import initialise
    from ocitool.reference import Reference, registry_of
    from ocitool.registry import Client
    from ocitool.serve import ProxyRepositories

    registry = registry_of(registry)
    if not layout.exists():
        initialise(layout)
    # Clients try again by themselves, and what is in the cache does not wait for a registry that is gone.
    with Client(replace(session.config, retries=1), on_event=session.on_event) as client:
        proxied = ProxyRepositories(
            cache,
            lambda name: client.repository(Reference(registry, name)),
            spool=layout,  # on the disk where it will stay
            on_failure=lambda error: console.say(f"not kept: {error}"),
        )
        with closing(proxied):
            yield proxied


def listen(  # noqa: PLR0913 - one parameter for each option
    repositories: Repositories,
    name: str,
    *,
    listen: str,
    address_file: Path | None,
    htpasswd: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    log: bool,
    read_only: bool,
    sparse: bool = False,
) -> None:
    """Serve repositories until a signal comes; `name` is what people call them."""
    from ocitool import console
    from ocitool import serve as server

    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise click.UsageError(f"--listen takes HOST:PORT, not {listen!r}")

    def ready(address: str) -> None:
        console.say(f"serving {name} at {address}")
        if address_file:
            address_file.write_text(address)

    server.serve(
        repositories,
        host.strip("[]"),
        int(port),
        options=server.Options(
            read_only=read_only,
            sparse_indexes=sparse,
            passwords=server.Htpasswd(htpasswd) if htpasswd else None,
            on_request=partial(_say, always=log),
            on_failure=lambda error: console.say(str(error)),
        ),
        tls_cert=tls_cert,
        tls_key=tls_key,
        on_ready=ready,
    )


def _say(served: Served, *, always: bool) -> None:
    """Say a request; without --log only one that failed here, which its client alone would know of."""
    from ocitool import console

    if always or served.failure:
        failure = f": {served.failure!s}" if served.failure else ""
        line = f"{served.client} {served.method} {served.path} {served.status} {served.seconds:.3f} s"
        console.say(line + failure)


COMMANDS = (serve,)
