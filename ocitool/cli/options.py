"""Options that several commands share, and the session that they describe."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from ocitool.cli import runoptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from ocitool.console import Progress
    from ocitool.locations import Session
    from ocitool.registry import ClientConfig
    from ocitool.selection import Wanted

R = TypeVar("R")

FILE: Final = click.Path(path_type=Path, dir_okay=False)
DIRECTORY: Final = click.Path(path_type=Path, file_okay=False)
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

_REGISTRY: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--username", {"help": "User at the registry."}),
    ("--password-stdin", {"is_flag": True, "default": None, "help": "Read the password from stdin."}),
    ("--registry-token", {"help": "Send this bearer token."}),
    ("--no-creds", {"is_flag": True, "default": None, "help": "Use no credentials."}),
    ("--authfile", {"type": FILE, "help": "Read credentials from this file alone."}),
    ("--tls-verify", {"type": bool, "metavar": "BOOL", "help": "Check the registry's certificate. [true]"}),
    ("--plain-http", {"is_flag": True, "default": None, "help": "Use HTTP without TLS."}),
    ("--ca-file", {"type": FILE, "help": "Trust this certificate authority as well."}),
    ("--cert-file", {"type": FILE, "help": "Client certificate."}),
    ("--key-file", {"type": FILE, "help": "Key of the client certificate."}),
    ("--cert-dir", {"type": DIRECTORY, "help": "Directory with *.crt, *.cert and *.key."}),
)
_NAMES = tuple(option.removeprefix("--").replace("-", "_") for option, _ in _REGISTRY)
_SIDES = ("src", "dest")


def _note(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Keep the value of an option that stands before the command or behind it, for `_progress`."""
    if value:
        context.find_root().ensure_object(dict)[option.name] = value


TELLING: Final = (
    click.Option(
        ["--debug"], is_flag=True, expose_value=False, help="Show where in the program an error arose."
    ),
    click.Option(
        ["-q", "--quiet"],
        is_flag=True,
        expose_value=False,
        callback=_note,
        help="Say nothing but results, warnings and errors.",
    ),
    click.Option(
        ["--progress"],
        type=click.Choice(["auto", "bar", "plain", "json", "none"]),
        expose_value=False,
        callback=_note,
        help="How to show progress. [auto]",
    ),
)
"""The options of every command about what is told."""


def _progress() -> Progress:
    from ocitool.console import Progress

    noted: dict[str, Any] = click.get_current_context().find_root().obj or {}
    return Progress.NONE if noted.get("quiet") else Progress(noted.get("progress", "auto"))


_store_option = click.option(
    "--store", type=DIRECTORY, help="The local store. [$XDG_DATA_HOME/ocitool/store]"
)

jobs_option = click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="How much is done at once.",
)

platforms_option = click.option(
    "--platform", "platforms", multiple=True, metavar="OS/ARCH", help="Take this platform; repeatable. [all]"
)


def described(option: runoptions.Option) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """A command's option, from the table that those of `run` are in."""
    kinds: dict[str, dict[str, Any]] = {
        "texts": {"multiple": True},
        "number": {"type": int},
        "choice": {"type": click.Choice(option.choices), "show_default": True},
        "flag": {"is_flag": True},
    }
    shown = {"metavar": option.metavar, "help": option.help or None, "hidden": option.hidden}
    given = {"default": option.default, **shown, **kinds.get(option.kind, {})}
    return click.option(*option.names, option.attribute, **given)


def with_options(
    options: Iterable[runoptions.Option],
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a command options, in their order."""

    def decorated(command: Callable[..., R]) -> Callable[..., R]:
        for option in reversed(list(options)):
            command = described(option)(command)
        return command

    return decorated


platform_option = described(runoptions.PLATFORM)
entry_option = click.option(
    "--platform",
    metavar=runoptions.PLATFORM.metavar,
    help="Of an index, take this platform. [the index itself]",
)
pull_option = described(runoptions.PULL)

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
        store, settings = kwargs.pop("store"), _taken(kwargs)
        with _session(store, settings) as session, _pointing_out(kwargs):
            return command(session, *args, **kwargs)

    return _with_registry_options(_store_option(wrapper))


def with_login(command: Callable[..., R]) -> Callable[..., R]:
    """The same for a command that tries a user's password: it takes no image and no other credentials."""

    @wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> R:
        with _session(None, _taken(kwargs)) as session:
            return command(session, *args, **kwargs)

    return _with_registry_options(wrapper, but=("--registry-token", "--no-creds"))


def with_two_sessions(command: Callable[..., R]) -> Callable[..., R]:
    """The same with two sessions, to read from and to write to.

    Each option about registries has a form for either side (`--src-…`, `--dest-…`), which wins over the
    one for both. `--help` tells of them in the command's own words.
    """

    @wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> R:
        store, settings = kwargs.pop("store"), _taken(kwargs)
        sides = [_taken(kwargs, f"{side}_") for side in _SIDES]
        if sum(bool(each.get("password_stdin")) for each in (settings, *sides)) > 1:
            raise click.UsageError("only one password can come from stdin")
        with _session(store, settings) as session, _pointing_out(kwargs):
            source, target = (_beside(session, settings, side) if side else session for side in sides)
            return command(source, target, *args, **kwargs)

    decorated: Callable[..., R] = _store_option(wrapper)
    for side in _SIDES:
        decorated = _with_registry_options(decorated, f"{side}-", hidden=True)
    return _with_registry_options(decorated)


def _with_registry_options(
    command: Callable[..., R], side: str = "", *, hidden: bool = False, but: tuple[str, ...] = ()
) -> Callable[..., R]:
    for name, attributes in reversed([option for option in _REGISTRY if option[0] not in but]):
        command = click.option(f"--{side}{name.removeprefix('--')}", hidden=hidden, **attributes)(command)
    return command


def _taken(kwargs: dict[str, Any], side: str = "") -> dict[str, Any]:
    """What was given of the options about registries; they are the session's and not the command's."""
    values = {name: kwargs.pop(side + name, None) for name in _NAMES}
    return {name: value for name, value in values.items() if value is not None}


def _beside(session: Session, settings: dict[str, Any], own: dict[str, Any]) -> Session:
    return session.beside(lambda: _config({**settings, **own}))


@contextmanager
def _session(store: Path | None, settings: dict[str, Any]) -> Iterator[Session]:
    from ocitool.console import listener
    from ocitool.locations import Session

    on_event = listener(_progress())
    try:
        with Session(lambda: _config(settings), store=store, on_event=on_event) as session:
            yield session
    finally:
        on_event.close()


_LOCATIONS: Final = ("location", "source", "destination", "first", "second")


@contextmanager
def _pointing_out(values: dict[str, Any]) -> Iterator[None]:
    """Say of a reference that was of no use that it is the name of a file or directory as well."""
    from ocitool.errors import NotFound, RegistryError

    try:
        yield
    except (NotFound, RegistryError) as error:
        for text in (values[name] for name in _LOCATIONS if values.get(name)):
            if not text.startswith((".", "/")) and os.path.exists(text):  # noqa: PTH110 - may be no path at all
                kind = "directory" if os.path.isdir(text) else "file"  # noqa: PTH112 - as above
                error.add_note(f"{text} is a {kind} too: ./{text} would be that")
        raise


def _config(settings: dict[str, Any]) -> ClientConfig:
    """The registry client's configuration; made only when a registry is used, because it loads much."""
    from ocitool.registry import ClientConfig

    settings = dict(settings)
    if settings.pop("password_stdin", False):
        settings["password"] = read_password()
    elif "username" in settings:
        settings["password"] = asked("Password", "--password-stdin", hide_input=True)
    return ClientConfig(no_credentials=settings.pop("no_creds", False), **settings)


def read_password() -> str:
    """A password from stdin, without the line's end."""
    password = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    if not password:
        raise click.UsageError("there is no password on stdin")
    return password


def asked(what: str, option: str, *, hide_input: bool = False) -> str:
    """What a person types; programs give an option instead."""
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"give {option}: there is no terminal where the {what.lower()} could be asked for"
        )
    answer: str = click.prompt(what, err=True, hide_input=hide_input)
    return answer


def wanted_platform(text: str | None) -> Wanted:
    """The platform that an option, the environment or the host says to take."""
    from ocitool.platforms import Platform, host
    from ocitool.selection import Wanted

    text = text or os.environ.get("DOCKER_DEFAULT_PLATFORM")
    return Wanted(Platform.parse(text), named=True) if text else Wanted(host())


def to_be_written(
    _context: click.Context | None, _parameter: click.Parameter | None, path: Path | None
) -> Path | None:
    """A file that is written when all else is done, so that what is wrong with its place is told before."""
    if path is not None and not path.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no directory {path.parent} to write {path.name} in")
    return path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step: who runs out of room keeps what was there, as a plan that is replayed.

    Raises:
        OciError: it can't be written.
    """
    from ocitool.errors import OciError

    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)  # a pipe or a device
            return
        target = path.resolve()  # a link stays one
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            temporary.write_bytes(content)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OciError(f"{path} can't be written: {error.strerror}") from error


def pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """Annotations, as they are typed."""
    found = dict(text.partition("=")[::2] for text in texts)
    if "" in found or not all("=" in text for text in texts):
        raise click.UsageError("--annotation takes NAME=VALUE")
    return found


def source_date() -> datetime | None:
    """The time that reproducible builds say it is (SOURCE_DATE_EPOCH)."""
    from datetime import UTC, datetime

    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        return datetime.fromtimestamp(int(seconds), UTC) if seconds else None
    except (ValueError, OverflowError) as error:
        raise click.UsageError("SOURCE_DATE_EPOCH is not a number of seconds") from error


def byte_count(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """A number of bytes, with K, M, G or T for powers of 1024."""
    if value is None:
        return None
    number, unit = value.rstrip("iB"), ""
    if number and number[-1].upper() in _UNITS:
        number, unit = number[:-1], number[-1].upper()
    if not number.isdecimal():
        raise click.BadParameter(f"{value!r} is no number of bytes, such as 4G")
    return int(number) * _UNITS[unit]
