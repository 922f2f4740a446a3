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
        "total": _number(f"{cpu}/cpuacct.usage"),
        "percpu": [int(word) for word in _text(f"{cpu}/cpuacct.usage_percpu").split()],
        "kernel": _number(f"{cpu}/cpuacct.usage_sys"),
        "user": _number(f"{cpu}/cpuacct.usage_user"),
    }
    throttled = _pairs(f"{cgroup.directory_of('cpu')}/cpu.stat")
    details = _pairs(f"{memory}/memory.stat")
    return {
        "cpu": _known({"usage": _known(usage), "throttling": _throttling(throttled, "throttled_time", 1)}),
        "memory": _known(
            {
                "cache": details.get("cache"),
                "usage": _amounts(f"{memory}/memory"),
                "swap": _amounts(f"{memory}/memory.memsw"),
                "kernel": _amounts(f"{memory}/memory.kmem"),
                "raw": details,
            }
        ),
        "pids": _pids(pids),
    }


def _throttling(found: dict[str, int], time: str, unit: int) -> dict[str, int]:
    """How often, and for how many nanoseconds, the quota has kept the container from running."""
    if "nr_periods" not in found:
        return {}
    return {
        "periods": found["nr_periods"],
        "throttledPeriods": found.get("nr_throttled", 0),
        "throttledTime": found.get(time, 0) * unit,
    }


def _amounts(prefix: str) -> dict[str, int]:
    return _known(
        {
            "usage": _number(f"{prefix}.usage_in_bytes"),
            "max": _number(f"{prefix}.max_usage_in_bytes"),
            "limit": _number(f"{prefix}.limit_in_bytes"),
            "failcnt": _number(f"{prefix}.failcnt"),
        }
    )


def _pids(directory: str) -> dict[str, int]:
    return _known(
        {"current": _number(f"{directory}/pids.current"), "limit": _number(f"{directory}/pids.max")}
    )


def _unified(directory: str) -> dict[str, Any]:
    times = _pairs(f"{directory}/cpu.stat")
    usage = {
        "total": times.get("usage_usec", 0) * 1000,
        "user": times.get("user_usec", 0) * 1000,
        "kernel": times.get("system_usec", 0) * 1000,
    }
    details = _pairs(f"{directory}/memory.stat")
    amounts = {
        "usage": _number(f"{directory}/memory.current"),
        "max": _number(f"{directory}/memory.peak"),
        "limit": _number(f"{directory}/memory.max"),
    }
    return {
        "cpu": _known({"usage": usage, "throttling": _throttling(times, "throttled_usec", 1000)}),
        "memory": _known(
            {
                "cache": details.get("file"),
                "usage": _known(amounts),
                "swap": _with_swap(directory, amounts),
                "raw": details,
            }
        ),
        "pids": _pids(directory),
    }


def _with_swap(directory: str, memory: dict[str, int | None]) -> dict[str, int]:
    """Memory and swap together, as version 1 counts them."""
    both = {
        "usage": (memory["usage"], _number(f"{directory}/memory.swap.current")),
        "limit": (memory["limit"], _number(f"{directory}/memory.swap.max")),
    }
    return {key: one + other for key, (one, other) in both.items() if one is not None and other is not None}
