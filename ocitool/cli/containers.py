"""The command that makes containers of images: run."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ocitool.cli import reported
from ocitool.cli.options import with_options, with_session
from ocitool.cli.runoptions import OPTIONS, Option, without_flag_values
from ocitool.cli.trusting import policy_of
from ocitool.cli.unpacking import image_of
from ocitool.errors import Conflict, RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ocitool.launch import Launch
    from ocitool.locations import Session
    from ocitool.run.options import RunOptions


class _Run(click.Command):
    """The command, with the exit codes of engines (see `launching.not_started`)."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the command line."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            raise _told(error) from error

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words of a command line, of which flags may have a value."""
        known = {}
        for parameter in self.params:
            if isinstance(parameter, click.Option):
                option = Option(*parameter.opts, kind="flag" if parameter.is_flag else "text")
                known.update(dict.fromkeys(parameter.opts, option))
        return super().parse_args(ctx, without_flag_values(args, known))

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; what goes wrong is told here."""
        from ocitool.cli.launching import not_started

        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            raise _told(error) from error
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001 - as in `main`
            return not_started(reported(error))


def _told(error: click.ClickException) -> click.exceptions.Exit:
    with suppress(OSError):  # nobody listens, which changes nothing
        error.show()
    return click.exceptions.Exit(RunError.exit_code)


@click.command(cls=_Run, context_settings={"allow_interspersed_args": False, "help_option_names": ["--help"]})
@click.argument("location")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@with_options(OPTIONS)
@with_session
def run(session: Session, **values: Any) -> int:
    """Run an image's program, or COMMAND, in a new container.

    LOCATION may also be the path of a bundle: a directory with rootfs/ and config.json. The exit code is
    the program's own; 125 to 127 say that it could not be started.
    """
    from ocitool import running
    from ocitool.cli.launching import launch_of, names_bundle, options_of, shut_input
    from ocitool.launch import Launch, check_chroot

    _check(values)
    from_files = _lines_of("--env-file", values["env_files"])
    values["labels"] = (*_lines_of("--label-file", values["label_files"]), *values["labels"])
    options = options_of(values, (*from_files, *values["env"]))
    if values["isolation"] == "chroot":
        check_chroot(options)
    launch = launch_of(Launch, values, options, session.store_path)
    shut_input(values)
    with _id_file(values["cidfile"]) as launch.on_start:
        if names_bundle(values["location"]):
            return running.run_directory(values["location"], _of_bundle(options, values), launch)
        return _run_image(session, values, options, launch)


@contextmanager
def _id_file(path: str) -> Iterator[Callable[[str], object]]:
    """The file of `--cidfile`, and what writes the ID into it; without a container, it is taken away again.

    Raises:
        Conflict: it is there, perhaps because of a container that is running.
    """
    if not path:
        yield lambda _: None
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError as error:
        raise Conflict(f"--cidfile {path} exists", hint="remove it, if its container has ended") from error
    except OSError as error:
        raise click.UsageError(f"--cidfile {path} can't be written: {error.strerror}") from error
    try:
        # A start that has to be tried again writes it again.
        yield lambda container_id: os.pwrite(fd, container_id.encode(), 0)
    finally:
        if not os.fstat(fd).st_size:
            Path(path).unlink()
        os.close(fd)


def _of_bundle(options: RunOptions, values: dict[str, Any]) -> RunOptions:
    """The options for a bundle, whose users and files in /etc are those that its maker has put there."""
    from ocitool.cli.launching import OF_IMAGES

    for name, given in OF_IMAGES.items():
        if values[given]:
            raise click.UsageError(f"{name} is for images: a bundle's /etc is its own")
    if values["verify_keys"]:
        raise click.UsageError("--verify-key is for images: nobody signs a bundle's files")
    if not all(group.isdecimal() for group in values["groups"]):
        raise click.UsageError("--group-add takes numbers where a bundle is run")
    gids = tuple(map(int, values["groups"]))
    return options.but(user=values["user"] or None, additional_gids=gids)


def _check(values: dict[str, Any]) -> None:
    """Refuse options that do not go together."""
    from ocitool.launch import STREAMS

    if values["detach"]:
        raise click.UsageError(
            "containers run in the foreground, for there is no daemon: end the line with &"
        )
    if values["published"]:
        raise click.UsageError(
            "there is no bridge to publish ports of: use --network host, or pasta:--tcp-ports=8080:80"
        )
    if values["userns"] == "host" and os.geteuid() != 0:
        raise click.UsageError("--userns host is for root: an ordinary user needs a user namespace")
    if values["runtime"] and values["isolation"] == "chroot":
        raise click.UsageError("--isolation chroot is of our own runtime: leave out --runtime")
    if values["no_hosts"] and values["hosts"]:
        raise click.UsageError("--no-hosts and --add-host exclude each other")
    for stream in values["attached"]:
        if stream.lower() not in STREAMS:
            raise click.UsageError(f"--attach {stream!r} is not stdin, stdout or stderr")
    if values["remove"] and values["keep"]:
        raise click.UsageError("--rm and --keep exclude each other")


def _run_image(session: Session, values: dict[str, Any], options: RunOptions, launch: Launch) -> int:
    """Run an image, and remember what its name means for the next time."""
    from ocitool import prepared, remembered, running
    from ocitool.locations import Location

    location, platform = values["location"], values["platform"]
    images = prepared.place(session.store_path)
    question = remembered.Question(location, str(session.store_path), platform or "")
    layout = session.layout_of(Location.parse(location))
    index = f"{layout.absolute()}/index.json" if layout else ""
    before = remembered.seen(index)
    policy = policy_of(tuple(map(Path, values["verify_keys"])))
    source, image = image_of(session, location, platform, values["pull"], policy)
    return running.run_image(
        source,
        image,
        images,
        options,
        launch,
        user=values["user"],
        keep=values["keep"],
        on_known=lambda known: question.remember(images, index, before, known),
    )


def _lines_of(option: str, paths: tuple[str, ...]) -> list[str]:
    """What is set by files as docker reads them: NAME=VALUE or NAME, and comments, which start with #."""
    return [line for path in paths for line in _lines(option, Path(path))]


def _lines(option: str, path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise click.UsageError(f"{option} {path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{option} {path} is not UTF-8: {error.reason}") from error
    found = [line.lstrip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    for line in found:
        name = line.partition("=")[0]
        if not name or name != name.rstrip() or " " in name:
            raise click.UsageError(f"{option} {path}: {line!r} has no name at its start")
    return found


COMMANDS = (run,)
