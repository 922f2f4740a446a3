"""The command line of `ocitool-runtime`: runc's, so that engines can call it.

Parsed by hand, because `argparse` alone takes as long to load as a container takes to start.
"""

from __future__ import annotations

import posix

from ocitool.errors import OciError, RunError

from . import jsonfast

# The interpreter's own way out would run the parent's exit handlers in the child.
posix_exit = posix._exit  # noqa: SLF001 - public in spite of its name

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import Any, NoReturn

    from .runtime import Runtime
    from .starting import Settings
else:
    import _signal


class UsageError(OciError):
    """The command line is wrong."""

    exit_code = 2


# Options by command: those that take a value, and those that do not. "" stands for the global ones.
_STARTING = ("bundle b", "console-socket", "pid-file", "pidfd-socket", "preserve-fds")
VALUES = {
    "": ("root", "log", "log-format", "rootless", "cgroup-manager", "message-fd"),
    "create": _STARTING,
    "run": (*_STARTING, "overlay", "runtime", "network", "isolation"),
    "exec": (
        "process p", "console-socket", "pid-file", "pidfd-socket", "preserve-fds", "cwd", "env e", "user u",
        "additional-gids g", "apparmor", "process-label", "cap c", "cgroup",
    ),
    "list": ("format f",),
    "ps": ("format f",),
    "spec": ("bundle b",),
    "update": (
        "resources r", "memory", "memory-swap", "memory-reservation", "cpu-quota", "cpu-period", "cpu-share",
        "cpuset-cpus", "cpuset-mems", "pids-limit", "blkio-weight", "cpu-burst", "cpu-idle", "cpu-rt-period",
        "cpu-rt-runtime",
    ),
    "events": ("interval",),
    "kill": ("signal s",),
}  # fmt: skip
FLAGS = {
    "": ("debug", "systemd-cgroup", "version v"),
    "create": ("no-pivot", "no-new-keyring", "no-subreaper"),
    "run": ("no-pivot", "no-new-keyring", "no-subreaper", "detach d", "keep"),
    "exec": ("detach d", "tty t", "no-new-privs", "ignore-paused"),
    "list": ("quiet q",),
    "spec": ("rootless",),
    "delete": ("force f",),
    "kill": ("all a",),
    "events": ("stats",),
}

# How many operands a command takes, where that is not one: the container.
_OPERANDS = {"features": 0, "list": 0, "spec": 0, "kill": 2}


class Arguments:
    """Options and operands of one command.

    Attributes:
        values: options with a value, the last one counts; `lists` has all of them.
        flags: options without.
        operands: the rest.
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}
        self.flags: set[str] = set()
        self.operands: list[str] = []


def _names(entries: tuple[str, ...]) -> dict[str, str]:
    """Every spelling of an option, to its long name."""
    return {spelling: entry.split()[0] for entry in entries for spelling in entry.split()}


def parse(
    words: list[str], command: str, *, operands_end_options: bool = False
) -> tuple[Arguments, list[str]]:
    """Take options, "--name value", "--name=value", "-n value", up to "--" or to an operand.

    Args:
        words: the command line.
        command: whose options to know; "" for those before the command.
        operands_end_options: stop at the first operand and return the rest, for what follows it
            belongs to something else.

    Raises:
        UsageError: an option is not known, or lacks its value.
    """
    values, flags = _names(VALUES.get(command, ())), _names((*FLAGS.get(command, ()), "help h"))
    found = Arguments()
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            found.operands += words[at:]
            return found, []
        if not word.startswith("-") or word == "-":
            if operands_end_options:
                return found, words[at - 1 :]
            found.operands.append(word)
            continue
        name, has_value, value = word.lstrip("-").partition("=")
        if name in flags:
            if value.lower() not in ("false", "0"):
                found.flags.add(flags[name])
            continue
        if name not in values:
            raise UsageError(f"{command or 'ocitool-runtime'}: unknown option {word}")
        if not has_value:
            if at == len(words):
                raise UsageError(f"{command or 'ocitool-runtime'}: {word} needs a value")
            value = words[at]
            at += 1
        found.values[values[name]] = value
        found.lists.setdefault(values[name], []).append(value)
    return found, []


def run(words: list[str]) -> NoReturn:
    """Do what a command line says, and end the process."""
    log = Log()
    try:
        code = _dispatch(words, log)
    except OciError as exc:
        log.failure(exc)
        code = exc.exit_code
    except OSError as exc:
        log.failure(RunError(f"{exc.filename or 'runtime'}: {exc.strerror}"))
        code = 125
    posix_exit(code)


class Log:
    """Where warnings and errors go: standard error, and the engine's log file.

    With `fd` (`--message-fd`) they go to a pipe of our own library instead, as one JSON document a line.
    """

    def __init__(self) -> None:
        self.path = ""
        self.as_json = False
        self.fd = -1

    def warn(self, message: str) -> None:
        """Report what is not an error."""
        if self.fd >= 0:
            show(jsonfast.dumps({"level": "warning", "msg": message}) + "\n", self.fd)
        else:
            self._write("warning", message)

    def failure(self, exc: OciError) -> None:
        """Report the error that ends the process."""
        if self.fd >= 0:
            fields = {"type": type(exc).__name__, "msg": exc.message, "hint": exc.hint, "code": exc.exit_code}
            show(jsonfast.dumps({"level": "error", **fields}) + "\n", self.fd)
            return
        message = f"{exc.message} ({exc.hint})" if exc.hint else exc.message
        self._write("error", message)

    def _write(self, level: str, message: str) -> None:
        # A bundle's names reach a terminal here: what would move its cursor or break the line is spelled out.
        message = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in message)
        if self.path:
            import time

            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            line = (
                jsonfast.dumps({"level": level, "msg": message, "time": now})
                if self.as_json
                else f'time="{now}" level={level} msg={jsonfast.dumps(message)}'
            )
            try:
                flags = posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC
                fd = posix.open(self.path, flags, 0o644)
                posix.write(fd, line.encode() + b"\n")
                posix.close(fd)
            except OSError:
                pass  # the message is on standard error all the same
        show(f"ocitool-runtime: {'warning: ' if level == 'warning' else ''}{message}\n", 2)


def show(text: str, fd: int = 1) -> None:
    """Print, to nobody if nobody reads."""
    data = text.encode("utf-8", "surrogateescape")
    try:
        while data:
            data = data[posix.write(fd, data) :]
    except OSError:
        return


def _dispatch(words: list[str], log: Log) -> int:
    options, rest = parse(words, "", operands_end_options=True)
    log.path = options.values.get("log", "")
    log.fd = _number(options, "message-fd", -1)
    if (kind := options.values.get("log-format", "text")) not in ("text", "json"):
        raise UsageError(f"--log-format {kind!r} is neither text nor json")
    log.as_json = kind == "json"
    if "version" in options.flags:
        from .looking import show_version

        return show_version()
    known = sorted((*_COMMANDS, *_OTHERS))
    if not rest or "help" in options.flags or rest[0] == "help":
        from .looking import show_help

        return show_help("", known)
    if rest[0] not in known:
        raise UsageError(f"unknown command {rest[0]!r}", hint=f"one of {', '.join(known)}")
    manager = options.values.get("cgroup-manager", "cgroupfs")
    systemd = "systemd-cgroup" in options.flags or manager == "systemd"
    from .runtime import Runtime

    arguments = _parse_command(rest[1:], rest[0])
    if "help" in arguments.flags:
        from .looking import show_help

        return show_help(rest[0], [])
    runtime = Runtime(
        options.values.get("root"), warn=log.warn, use_cgroups=manager != "disabled", systemd=systemd
    )
    return _command(rest[0])(runtime, arguments)


def _parse_command(words: list[str], command: str) -> Arguments:
    if command in ("checkpoint", "restore"):  # refused whatever their options are, which are many
        words = [word for word in words if word in ("--help", "-h")]
    if command not in ("exec", "ps"):
        found, _ = parse(words, command)
        if excess := found.operands[_OPERANDS.get(command, 1) :]:
            raise UsageError(f"{command}: {excess[0]!r} is one word too many")
        return found
    # What follows the id is the command line of another program.
    found, rest = parse(words, command, operands_end_options=True)
    if rest[1:2] == ["--"]:
        del rest[1]
    found.operands += rest
    return found


def id_of(arguments: Arguments) -> str:
    """The container that a command is about."""
    # "This operation MUST generate an error if it is not provided the ID of a container."
    if not arguments.operands or not arguments.operands[0]:
        raise UsageError("a container id is needed")
    return arguments.operands[0]


def _number(arguments: Arguments, name: str, default: int) -> int:
    text = arguments.values.get(name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError as exc:
        raise UsageError(f"--{name} {text!r} is not a number") from exc


def _settings(runtime: Runtime, arguments: Arguments) -> Settings:
    from .starting import Settings, forget_descriptors

    settings = Settings(arguments.values.get("bundle", "."))
    settings.console_socket = arguments.values.get("console-socket", "")
    settings.pid_file = arguments.values.get("pid-file", "")
    settings.pidfd_socket = arguments.values.get("pidfd-socket", "")
    settings.preserve = _number(arguments, "preserve-fds", 0)
    settings.pivot = "no-pivot" not in arguments.flags
    settings.keyring = "no-new-keyring" not in arguments.flags
    settings.subreaper = "no-subreaper" not in arguments.flags
    listening = posix.environ.get(b"LISTEN_FDS", b"0")
    settings.listening = int(listening) if listening.isdigit() else 0
    settings.preserve += settings.listening
    settings.detach = "detach" in arguments.flags
    settings.keep = "keep" in arguments.flags
    forget_descriptors(runtime.kernel, settings.preserve)
    return settings


def _create(runtime: Runtime, arguments: Arguments) -> int:
    settings = _settings(runtime, arguments)
    runtime.create(id_of(arguments), settings)
    return 0


def _start(runtime: Runtime, arguments: Arguments) -> int:
    runtime.start(id_of(arguments))
    return 0


def _run(runtime: Runtime, arguments: Arguments) -> int:
    settings = _settings(runtime, arguments)
    if "overlay" in arguments.values:
        from .overlay import Overlay

        layers = Overlay.load(jsonfast.loads(arguments.values["overlay"].encode(), "--overlay"))
        layers.engage(settings)
    settings.network = arguments.values.get("network", "")
    if settings.network and settings.detach:
        raise UsageError("run: --network needs somebody who waits for the container: leave out --detach")
    if "runtime" in arguments.values:
        from . import foreign

        return foreign.run(runtime, id_of(arguments), arguments.values["runtime"], settings)
    if arguments.values.get("isolation") == "chroot":
        from . import chrooted

        return chrooted.run(runtime, id_of(arguments), settings)
    return runtime.run(id_of(arguments), settings)


def _state(runtime: Runtime, arguments: Arguments) -> int:
    show(jsonfast.dumps(runtime.state(id_of(arguments))) + "\n")
    return 0


def _delete(runtime: Runtime, arguments: Arguments) -> int:
    runtime.delete(id_of(arguments), force="force" in arguments.flags)
    return 0


def signal_number(text: str) -> int:
    """A signal by number, or by name with or without "SIG".

    Raises:
        UsageError: there is no such signal.
    """
    if text.isascii() and text.isdigit() and int(text) <= 64:
        return int(text)
    number = getattr(_signal, "SIG" + text.upper().removeprefix("SIG"), None)
    if type(number) is not int:
        raise UsageError(f"{text!r} is not a signal")
    return number


def _kill(runtime: Runtime, arguments: Arguments) -> int:
    container_id = id_of(arguments)
    text = arguments.values.get("signal") or (arguments.operands[1:] or ["TERM"])[0]
    runtime.kill(container_id, signal_number(text), everyone="all" in arguments.flags)
    return 0


def _pause(runtime: Runtime, arguments: Arguments) -> int:
    runtime.pause(id_of(arguments), frozen=True)
    return 0


def _resume(runtime: Runtime, arguments: Arguments) -> int:
    runtime.pause(id_of(arguments), frozen=False)
    return 0


def _exec(runtime: Runtime, arguments: Arguments) -> int:
    from .entering import process_from

    settings = _settings(runtime, arguments)
    settings.ignore_paused = "ignore-paused" in arguments.flags
    settings.below = arguments.lists.get("cgroup", [])
    container_id = id_of(arguments)
    if "process" not in arguments.values and len(arguments.operands) == 1:
        raise UsageError("exec: a command is needed, or --process FILE")
    wanted = process_from(runtime, container_id, arguments)
    return runtime.execute(container_id, wanted, settings)


_COMMANDS: dict[str, Callable[[Runtime, Any], int]] = {
    "create": _create,
    "delete": _delete,
    "exec": _exec,
    "kill": _kill,
    "pause": _pause,
    "resume": _resume,
    "run": _run,
    "start": _start,
    "state": _state,
}
# Those that are not in a hurry, in `looking`.
_OTHERS = ("checkpoint", "events", "features", "list", "ps", "restore", "spec", "update")


def _command(name: str) -> Callable[[Runtime, Any], int]:
    if name in _OTHERS:
        from .looking import COMMANDS

        return COMMANDS[name]
    return _COMMANDS[name]
