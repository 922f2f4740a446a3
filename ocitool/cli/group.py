"""All commands, as the library that reads command lines wants them."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import Final

import click

from ocitool import __version__
from ocitool.cli import COMMANDS as _MODULES
from ocitool.cli.options import TELLING

_NAME: Final = "ocitool"
_COMPLETE: Final = "_OCITOOL_COMPLETE"
"""The variable by which a shell asks for completions."""


class _Commands(click.Group):
    """Loads the module of the command that is used, and no other one."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(name for names in _MODULES.values() for name in names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        for module, names in _MODULES.items():
            if cmd_name in names:
                commands: tuple[click.Command, ...] = import_module(f"ocitool.cli.{module}").COMMANDS
                return _telling(next(command for command in commands if command.name == cmd_name))
        return None


def _telling(command: click.Command) -> click.Command:
    """A command with the options about what is told, which are understood behind its name as well."""
    command.params += [option for option in TELLING if option not in command.params]
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _telling(each)
    return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "OCITOOL"},
)
@click.version_option(__version__, prog_name="ocitool", message="%(prog)s %(version)s")
def cli() -> None:
    """Move, inspect, unpack and run container images without a daemon.

    A LOCATION is where an image is or goes: a registry reference (alpine:3.20), oci:DIR[:TAG],
    oci-archive:FILE[:TAG], docker-archive:FILE[:REF], store:REF for the local store, or a path that
    starts with /, ./ or ../.
    """


cli.params += TELLING


def run(arguments: list[str] | None) -> int:
    """Run one command and return its exit code; a command line that is wrong is told here.

    Raises:
        Exception: what the command raised.
    """
    if instruction := os.environ.get(_COMPLETE):
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, _NAME, _COMPLETE, instruction)
    try:
        # Not by way of `main`, which has an idea of its own of what a closed pipe and an interrupt mean.
        with cli.make_context(_NAME, sys.argv[1:] if arguments is None else [*arguments]) as context:
            return cli.invoke(context) or 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        with suppress(OSError):  # nobody listens, which changes nothing
            error.show()
        return error.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
