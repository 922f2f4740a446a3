"""The commands beside the life cycle: what there is, what it uses, and what it may use from now on."""

from __future__ import annotations

import posix

from ocitool.errors import Conflict, InvalidContent, RunError, Unsupported

from . import jsonfast
from .commands import FLAGS, VALUES, UsageError, id_of, show
from .state import VERSION, read_all, read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .commands import Arguments
    from .runtime import Runtime

_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 10_000 * _SECONDS["h"]


def _process_table(pids: list[int], options: list[str]) -> str:
    """What ps(1) shows of these processes: it is asked for more, and knows them best by their numbers.

    Raises:
        RunError: ps is not installed, refuses its options, or does not show the numbers.
    """
    title, *lines = _shown_by_ps(options or ["-ef"]).splitlines() or [""]
    if "PID" not in title.split():
        raise RunError(
            "ps shows no column PID", hint="leave the title in, and ask for the column with -o pid"
        )
    column = title.split().index("PID")
    fields = [line.split()[column : column + 1] for line in lines]
    if not all(number and number[0].isdigit() for number in fields):
        raise RunError("the column PID of ps is not to be found", hint="ask for it first: -o pid,...")
    kept = [line for line, number in zip(lines, fields, strict=True) if int(number[0]) in pids]
    return "\n".join([title, *kept]) + "\n"


def _shown_by_ps(options: list[str]) -> str:
    reading, writing = posix.pipe2(posix.O_CLOEXEC)
    try:
        onto_output = [(posix.POSIX_SPAWN_DUP2, writing, 1)]
        pid = posix.posix_spawnp("ps", ["ps", *options], posix.environ, file_actions=onto_output)
    except OSError as exc:
        posix.close(reading)
        raise RunError(
            f"ps: {exc.strerror}", hint="install the package procps, or use --format json"
        ) from exc
    finally:
        posix.close(writing)
    shown = read_all(reading, "ps", "processes")
    if code := posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1]):
        raise RunError(f"ps {' '.join(options)} ended with status {code}")
    return shown.decode(errors="replace")


def _seconds(text: str) -> float:
    """A length of time such as 500ms, 5s or 1m.

    Raises:
        InvalidContent: it is not one.
    """
    number = text.rstrip("hms")
    try:
        seconds = float(number) * _SECONDS[text[len(number) :] or "s"]
    except (KeyError, ValueError) as exc:
        raise InvalidContent(f"{text!r} is not a length of time such as 5s") from exc
    if not 0 < seconds < _LONGEST:
        raise InvalidContent(f"{text!r} is no time that can be waited for, such as 5s")
    return seconds


def _size(text: str, option: str) -> int:
    unit = text[-1:].lower()
    digits = text[:-1] if unit in _UNITS else text
    try:
        return int(digits) * _UNITS.get(unit, 1)
    except ValueError as exc:
        raise InvalidContent(f"--{option} {text!r} is not a number") from exc


def _resources(arguments: Arguments) -> dict[str, Any]:
    """`linux.resources` from the options of `update`, or from the file that they name."""
    values = arguments.values
    if "resources" in values:
        path = "/dev/stdin" if values["resources"] == "-" else values["resources"]
        found: dict[str, Any] = jsonfast.loads(read_file(path, "resources"), path)
        return found
    result: dict[str, Any] = {}
    numbers = {
        "memory": ("memory", "limit"), "memory-swap": ("memory", "swap"),
        "memory-reservation": ("memory", "reservation"), "cpu-quota": ("cpu", "quota"),
        "cpu-period": ("cpu", "period"), "cpu-share": ("cpu", "shares"), "pids-limit": ("pids", "limit"),
        "blkio-weight": ("blockIO", "weight"), "cpu-burst": ("cpu", "burst"), "cpu-idle": ("cpu", "idle"),
        "cpu-rt-period": ("cpu", "realtimePeriod"), "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    }  # fmt: skip
    for option, (group, key) in numbers.items():
        if option in values:
            result.setdefault(group, {})[key] = _size(values[option], option)
    for option, key in (("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")):
        if option in values:
            result.setdefault("cpu", {})[key] = values[option]
    return result


def _as_json(arguments: Arguments) -> bool:
    """Whether JSON is asked for, and not a table.

    Raises:
        UsageError: it is something else.
    """
    chosen = arguments.values.get("format", "table")
    if chosen not in ("table", "json"):
        raise UsageError(f"--format {chosen!r} is neither table nor json")
    return chosen == "json"


def _list(runtime: Runtime, arguments: Arguments) -> int:
    as_json = _as_json(arguments)
    states = runtime.containers()
    if "quiet" in arguments.flags:
        show("".join(f"{state['id']}\n" for state in states))
    elif as_json:
        show(jsonfast.dumps(states) + "\n")
    else:
        columns = ("id", "pid", "status", "bundle", "created", "owner")
        rows = [[str(state[name]) for name in columns] for state in states]
        show(_table([[name.upper() for name in columns], *rows]))
    return 0


def _table(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _ps(runtime: Runtime, arguments: Arguments) -> int:
    as_json = _as_json(arguments)
    if as_json and arguments.operands[1:]:
        raise UsageError("ps: options of ps are for a table, not for --format json")
    pids = runtime.processes(id_of(arguments))
    if as_json:
        show(jsonfast.dumps(pids) + "\n")
    else:
        show(_process_table(pids, arguments.operands[1:]))
    return 0


def _update(runtime: Runtime, arguments: Arguments) -> int:
    runtime.update(id_of(arguments), _resources(arguments))
    return 0


def _events(runtime: Runtime, arguments: Arguments) -> int:
    import time

    container_id = id_of(arguments)
    interval = _seconds(arguments.values.get("interval", "5s"))
    while True:
        event = {"type": "stats", "id": container_id, "data": runtime.stats(container_id)}
        show(jsonfast.dumps(event) + "\n")
        if "stats" in arguments.flags:
            return 0
        time.sleep(interval)
        if runtime.state(container_id)["status"] == "stopped":
            return 0


def _spec(_: Runtime, arguments: Arguments) -> int:
    from .defaults import config

    path = f"{arguments.values.get('bundle', '.')}/config.json"
    import json

    text = json.dumps(config(rootless="rootless" in arguments.flags), indent="\t") + "\n"
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o644)
    except FileExistsError as exc:
        raise Conflict(f"{path} exists already") from exc
    posix.write(fd, text.encode())
    posix.close(fd)
    return 0


def _features(_runtime: Runtime, _arguments: Arguments) -> int:
    from .features import document

    show(jsonfast.dumps(document()) + "\n")
    return 0


def _checkpoint(_runtime: Runtime, _arguments: Arguments) -> int:
    raise Unsupported("checkpoint and restore are not supported by this runtime")


def show_help(command: str, commands: list[str]) -> int:
    """Print the options of a command, or what there is at all."""
    spelled = [*[f"{names} VALUE" for names in VALUES.get(command, ())], *FLAGS.get(command, ()), "help h"]
    options = []
    for names in spelled:
        long, *rest = names.split()
        short = [f"-{word}" if len(word) == 1 else word for word in rest]
        options.append(" ".join([f"--{long}", *short]))
    show(f"usage: ocitool-runtime [OPTION ...] {command or 'COMMAND'} ...\noptions: {', '.join(options)}\n")
    if commands:
        show(f"commands: {', '.join(commands)}\n")
    return 0


def show_version() -> int:
    """Print the three lines that engines read (`--version`)."""
    from ocitool import __version__

    show(f"ocitool-runtime version {__version__}\ncommit: {__version__}\nspec: {VERSION}\n")
    return 0


COMMANDS: dict[str, Callable[[Runtime, Any], int]] = {
    "checkpoint": _checkpoint,
    "events": _events,
    "features": _features,
    "list": _list,
    "ps": _ps,
    "restore": _checkpoint,
    "spec": _spec,
    "update": _update,
}
