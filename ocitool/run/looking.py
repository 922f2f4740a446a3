"""The commands beside the life cycle: what there is, what it uses, and what it may use from now on."""

from __future__ import annotations

import posix

from ocitool.errors import Conflict, InvalidContent, OciError, Unsupported

from . import jsonfast
from .commands import FLAGS, VALUES, UsageError, id_of, show
from .state import VERSION, read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .commands import Arguments
    from .runtime import Runtime

_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 10_000 * _SECONDS["h"]


def _process_table(pids: list[int]) -> list[list[str]]:
    """Rows of number, parent, user and command line for the processes that still live."""
    rows = [["PID", "PPID", "UID", "COMMAND"]]
    for pid in pids:
        try:
            uid = posix.stat(f"/proc/{pid}").st_uid
            parent = read_file(f"/proc/{pid}/stat", "process").rpartition(b")")[2].split()[1]
            command = read_file(f"/proc/{pid}/cmdline", "process").replace(b"\0", b" ").strip()
        except (OSError, OciError):
            continue
        rows.append([str(pid), parent.decode(), str(uid), command.decode(errors="replace")])
    return rows


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
    pids = runtime.processes(id_of(arguments))
    if as_json:
        show(jsonfast.dumps(pids) + "\n")
    else:
        show(_table(_process_table(pids)))
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
