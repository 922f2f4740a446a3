"""The embedded registry."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("layout", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option(
    "--listen", default="127.0.0.1:5000", show_default=True, metavar="HOST:PORT", help="0 is any port."
)
@click.option("--address-file", type=click.Path(path_type=Path), help="Write HOST:PORT here once it listens.")
def serve(layout: Path, *, listen: str, address_file: Path | None) -> None:
    """Serve an image layout as a registry, until interrupted.

    An image named repo:tag in the layout is tag `tag` of repository `repo`.
    """
    from ocitool import console
    from ocitool.layout import LayoutStore
    from ocitool.layout.repositories import LayoutRepositories
    from ocitool.serve import serve as serve_repositories

    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise click.UsageError(f"--listen takes HOST:PORT, not {listen!r}")

    def ready(address: str) -> None:
        console.say(f"serving {layout} at {address}")
        if address_file:
            address_file.write_text(address)

    serve_repositories(LayoutRepositories(LayoutStore(layout, create=False)), host, int(port), on_ready=ready)


COMMANDS = (serve,)
