"""The command that makes containers of images: run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ocitool.cli.options import platform_option, with_session
from ocitool.cli.unpacking import image_of, pull_option

if TYPE_CHECKING:
    from ocitool.locations import Session


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("location")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@platform_option
@pull_option
@click.option(
    "-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable; the caller's without =."
)
@click.option(
    "--env-file",
    "env_files",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Set the variables of a file, one on each line.",
)
@click.option("-w", "--workdir", metavar="DIR", help="Working directory in the container.")
@click.option(
    "-u", "--user", default="", metavar="USER[:GROUP]", help="Run as this user of the image, or number."
)
@click.option("--entrypoint", metavar="PROGRAM", help="Run this instead of the image's entrypoint.")
@click.option("--name", default="", metavar="ID", help="The container's ID. [random]")
@click.option("--hostname", metavar="NAME", help="The container's host name.")
@click.option(
    "-v", "--volume", "volumes", multiple=True, metavar="SOURCE:DEST[:MODE]", help="Mount a directory."
)
@click.option(
    "--mount",
    "mounts",
    multiple=True,
    metavar="NAME=VALUE,…",
    help="As docker's: type=bind or tmpfs, source, target, readonly.",
)
@click.option("--tmpfs", multiple=True, metavar="DEST[:OPTIONS]", help="Mount an empty directory in memory.")
@click.option("--read-only", is_flag=True, help="Make the root file system read-only.")
@click.option("--cap-add", multiple=True, metavar="CAP", help="Give a capability.")
@click.option("--cap-drop", multiple=True, metavar="CAP", help="Take a capability away.")
@click.option("-m", "--memory", metavar="SIZE", help="Limit memory, as 512m.")
@click.option("--cpus", metavar="NUMBER", help="Limit processor time, as 1.5.")
@click.option("--pids-limit", type=int, metavar="NUMBER", help="Limit processes.")
@click.option(
    "--network",
    metavar="KIND",
    help="The network: none, host, slirp4netns[:OPTION] or pasta[:OPTION]. [none]",
)
@click.option(
    "--userns",
    type=click.Choice(["auto", "host"]),
    default="auto",
    show_default=True,
    help="A user namespace of its own: where root needs none and others do, or never.",
)
@click.option(
    "--isolation",
    type=click.Choice(["auto", "full", "chroot"]),
    default="auto",
    show_default=True,
    help="chroot: a root directory of its own and nothing else.",
)
@click.option(
    "--security-opt", multiple=True, metavar="OPTION", help="As docker's, such as seccomp=unconfined."
)
@click.option(
    "--runtime", default="", metavar="NAME|PATH", help="Hand the bundle to this runtime, as crun. [our own]"
)
@click.option("-t", "--tty", is_flag=True, help="Give the program a terminal.")
@click.option("--init", is_flag=True, help="Have a small program collect orphans and pass signals on.")
@click.option("-d", "--detach", is_flag=True, hidden=True)
@click.option("-i", "--interactive", is_flag=True, help="Pass stdin on, as is always done.")
@click.option("--rm", "remove", is_flag=True, help="Remove the container afterwards, as is the default.")
@click.option("--keep", is_flag=True, help="Leave the container's directory when the program has ended.")
@with_session
def run(  # noqa: PLR0913 - one parameter for each option
    session: Session,
    location: str,
    command: tuple[str, ...],
    *,
    platform: str | None,
    pull: str,
    workdir: str | None,
    user: str,
    name: str,
    env: tuple[str, ...],
    env_files: tuple[Path, ...],
    runtime: str,
    isolation: str,
    userns: str,
    detach: bool,
    volumes: tuple[str, ...],
    tty: bool,
    interactive: bool,
    remove: bool,
    keep: bool,
    **changes: Any,
) -> int:
    """Run an image's program, or COMMAND, in a new container.

    LOCATION may also be the path of a bundle: a directory with rootfs/ and config.json. The exit code is
    the program's own; 125 to 127 say that it could not be started.
    """
    from ocitool import console, containers, running
    from ocitool.prepared import place
    from ocitool.run.options import RunOptions

    if detach:
        raise click.UsageError(
            "containers run in the foreground, for there is no daemon: end the line with &"
        )
    if userns == "host" and os.geteuid() != 0:
        raise click.UsageError("--userns host is for root: an ordinary user needs a user namespace")
    if runtime and isolation == "chroot":
        raise click.UsageError("--isolation chroot is of our own runtime: leave out --runtime")
    if remove and keep:
        raise click.UsageError("--rm and --keep exclude each other")
    del interactive  # what docker's users type out of habit
    options = RunOptions(
        args=command[command[:1] == ("--",) :] or None,
        env=(*(line for path in env_files for line in _env_lines(path)), *env),
        host_env=dict(os.environ),
        cwd=workdir,
        volumes=tuple(_absolute_source(volume) for volume in volumes),
        terminal=tty,
        console_size=_terminal_size() if tty else None,
        **changes,
    )
    if isolation == "chroot":
        running.check_chroot(options)
    launch = running.Launch(
        containers.place(session.store_path),
        name=name,
        runtime=runtime,
        isolation=isolation,
        hostname=options.hostname or "",
        network=options.network or "none",
        on_warning=console.say,
    )
    if location.startswith(("/", "./", "../")) and running.is_bundle(location):
        return running.run_directory(location, options.but(user=user or None), launch)
    source, image = image_of(session, location, platform, pull)
    return running.run_image(source, image, place(session.store_path), options, launch, user=user, keep=keep)


def _absolute_source(volume: str) -> str:
    """A volume whose source is relative to where we are, as shells' users write it."""
    source, colon, rest = volume.partition(":")
    return f"{Path(source).absolute()}{colon}{rest}" if colon and source.startswith(".") else volume


def _env_lines(path: Path) -> list[str]:
    """The variables of a file as docker reads it: NAME=VALUE or NAME, and comments, which start with #."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--env-file {path} can't be read: {error}") from error
    found = [line.lstrip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    for line in found:
        name = line.partition("=")[0]
        if not name or name != name.rstrip() or " " in name:
            raise click.UsageError(f"--env-file {path}: {line!r} has no name of a variable at its start")
    return found


def _terminal_size() -> tuple[int, int]:
    columns, lines = shutil.get_terminal_size()
    return lines, columns


COMMANDS = (run,)
