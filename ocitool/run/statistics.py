"""What a container uses, from the files of its cgroup, in the form that `events` prints."""

from __future__ import annotations

from ocitool.errors import OciError

from .state import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .cgroups import Cgroup


def collect(cgroup: Cgroup) -> dict[str, Any]:
    """CPU time in nanoseconds, memory in bytes, the number of processes; as far as they are known."""
    return _unified(cgroup.unified) if cgroup.pure_v2 else _separate(cgroup)


def _text(path: str) -> str:
    try:
        return read_file(path, "cgroup").decode()
    except OciError:
        return ""


def _number(path: str) -> int | None:
    text = _text(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _pairs(path: str) -> dict[str, int]:
    lines = [line.split() for line in _text(path).splitlines()]
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, {}, [])}


def _separate(cgroup: Cgroup) -> dict[str, Any]:
    cpu, memory, pids = (cgroup.directory_of(name) for name in ("cpuacct", "memory", "pids"))
    usage = {
        "usage": _known(
            {"total": _number(f"{cpu}/cpuacct.usage"), "percpu": _per_cpu(f"{cpu}/cpuacct.usage_percpu")}
        ),
        "throttling": _pairs(f"{cgroup.directory_of('cpu')}/cpu.stat"),
    }
    amounts = {
        "usage": _number(f"{memory}/memory.usage_in_bytes"),
        "max": _number(f"{memory}/memory.max_usage_in_bytes"),
        "limit": _number(f"{memory}/memory.limit_in_bytes"),
        "failcnt": _number(f"{memory}/memory.failcnt"),
    }
    return {
        "cpu": _known(usage),
        "memory": _known({"usage": _known(amounts), "raw": _pairs(f"{memory}/memory.stat")}),
        "pids": _known({"current": _number(f"{pids}/pids.current"), "limit": _number(f"{pids}/pids.max")}),
    }


def _per_cpu(path: str) -> list[int]:
    return [int(word) for word in _text(path).split()]


def _unified(directory: str) -> dict[str, Any]:
    times = _pairs(f"{directory}/cpu.stat")
    usage = {
        "total": times.get("usage_usec", 0) * 1000,
        "user": times.get("user_usec", 0) * 1000,
        "kernel": times.get("system_usec", 0) * 1000,
    }
    amounts = {
        "usage": _number(f"{directory}/memory.current"),
        "max": _number(f"{directory}/memory.peak"),
        "limit": _number(f"{directory}/memory.max"),
    }
    return {
        "cpu": {"usage": usage},
        "memory": _known({"usage": _known(amounts), "raw": _pairs(f"{directory}/memory.stat")}),
        "pids": _known(
            {"current": _number(f"{directory}/pids.current"), "limit": _number(f"{directory}/pids.max")}
        ),
    }
