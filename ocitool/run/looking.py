"""What `ps`, `update` and `events` of the command line need besides the life cycle."""

from __future__ import annotations

import posix

from ocitool.errors import InvalidContent, OciError

from . import jsonfast
from .state import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .commands import Arguments

_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def process_table(pids: list[int]) -> list[list[str]]:
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


def seconds(text: str) -> float:
    """A length of time such as 500ms, 5s or 1m.

    Raises:
        InvalidContent: it is not one.
    """
    number = text.rstrip("hms")
    try:
        return float(number) * _SECONDS[text[len(number) :] or "s"]
    except (KeyError, ValueError) as exc:
        raise InvalidContent(f"{text!r} is not a length of time such as 5s") from exc


def _size(text: str, option: str) -> int:
    unit = text[-1:].lower()
    digits = text[:-1] if unit in _UNITS else text
    try:
        return int(digits) * _UNITS.get(unit, 1)
    except ValueError as exc:
        raise InvalidContent(f"--{option} {text!r} is not a number") from exc


def resources_from(arguments: Arguments) -> dict[str, Any]:
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
    }  # fmt: skip
    for option, (group, key) in numbers.items():
        if option in values:
            result.setdefault(group, {})[key] = _size(values[option], option)
    for option, key in (("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")):
        if option in values:
            result.setdefault("cpu", {})[key] = values[option]
    return result
