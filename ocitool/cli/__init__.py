"""The command line: parse, one library call, render.

A command's module is loaded when the command is used. It imports click and nothing that costs time; what a
command needs it imports in its body, so that `ocitool --help` loads no command's libraries.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import Any, Final, NoReturn

import click

from ocitool import __version__

COMMANDS: Final = {
    "bundling": ("bundle",),
    "checking": ("check",),
    "containers": ("run",),
    "differing": ("diff",),
    "images": ("pull", "push", "copy"),
    "inspection": ("inspect", "manifest", "config", "digest", "tags", "referrers"),
    "mirroring": ("mirror",),
    "registries": ("login", "logout", "tag", "delete"),
    "serving": ("serve",),
    "stores": ("store",),
    "unpacking": ("unpack", "repack"),
}
"""The commands that each module of this package has in its own `COMMANDS`."""


class _Commands(click.Group):
    """Loads the module of the command that is used, and no other one."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(name for names in COMMANDS.values() for name in names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        for module, names in COMMANDS.items():
            if cmd_name in names:
                commands: tuple[click.Command, ...] = import_module(f"{__name__}.{module}").COMMANDS
                return next(command for command in commands if command.name == cmd_name)
        return None


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "OCITOOL"},
)
@click.version_option(__version__, prog_name="ocitool", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show where in the program an error arose.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but results, warnings and errors.")
@click.option(
    "--progress",
    type=click.Choice(["auto", "bar", "plain", "json", "none"]),
    default="auto",
    show_default=True,
    help="How to show progress.",
)
@click.pass_context
def cli(ctx: click.Context, *, debug: bool, quiet: bool, progress: str) -> None:
    """Move, inspect, unpack and run container images without a daemon.

    A LOCATION is where an image is or goes: a registry reference (alpine:3.20), oci:DIR[:TAG],
    oci-archive:FILE[:TAG], docker-archive:FILE[:REF], store:REF for the local store, or a path that
    starts with /, ./ or ../.
    """
    ctx.obj = {"debug": debug, "progress": "none" if quiet else progress}


class _Terminated(BaseException):
    """SIGTERM: end as an interrupt does."""


def _terminate(*_: Any) -> NoReturn:
    raise _Terminated


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; every error becomes one clear sentence."""
    _open_standard_streams()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code: int = cli.main(arguments, prog_name="ocitool", standalone_mode=False) or 0
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _leave(_report(KeyboardInterrupt()))
    except _Terminated:
        from ocitool import console

        console.say("ocitool: terminated")
        _leave(143)
    except BrokenPipeError:
        # Whoever read our output has enough of it, which is no error; Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the one place where errors become text
        if _debugging():
            import traceback

            traceback.print_exc()
        return _report(error)
    return code


def _open_standard_streams() -> None:
    """Point standard streams that were closed at nothing.

    Otherwise the next file that is opened would be one of them, and what is printed would end up there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, number)
            if null != number:
                os.close(null)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115 - a descriptor that stays open


def _report(error: BaseException) -> int:
    from ocitool import console

    return console.report(error)


def _debugging() -> bool:
    return "--debug" in sys.argv or bool(os.environ.get("OCITOOL_DEBUG"))


def _leave(code: int) -> NoReturn:
    """Exit at once: a thread may be waiting for a peer that says nothing.

    What is on disk is as good after this as after any other kill.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
