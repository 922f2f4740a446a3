"""How much a container may use: memory, processors, processes, files, as command lines have it."""

from __future__ import annotations

from ocitool.errors import InvalidReference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .options import RunOptions

_PERIOD = 100_000
_LEAST_QUOTA = 1000
_LEAST_MEMORY = 6 << 20  # as docker has it
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
# Those that docker takes; setrlimit(2) knows AS too.
_RLIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip


def limit(config: dict[str, Any], options: RunOptions) -> None:
    """Set what `options` say of limits.

    Raises:
        InvalidReference: one of them is not well-formed.
    """
    process, resources = config["process"], config["linux"].setdefault("resources", {})
    _set_memory(resources, options)
    _set_cpu(resources, options)
    if options.pids_limit is not None and options.pids_limit > 0:
        resources["pids"] = {"limit": options.pids_limit}
    elif options.pids_limit is not None:
        resources.pop("pids", None)  # who has no cgroup has no limit either
    if options.ulimits:
        chosen = [ulimit(text) for text in options.ulimits]
        found = {each["type"]: each for each in (*(process.get("rlimits") or ()), *chosen)}
        process["rlimits"] = list(found.values())
    if options.oom_score_adj is not None:
        if not -1000 <= options.oom_score_adj <= 1000:
            raise InvalidReference(f"--oom-score-adj goes from -1000 to 1000, not to {options.oom_score_adj}")
        process["oomScoreAdj"] = options.oom_score_adj
    if options.shm_size is not None:
        _set_shm_size(config, options.shm_size)


def size(text: str) -> int:
    """A size in bytes, such as 64m or 1g.

    Raises:
        InvalidReference: it is not one.
    """
    number = text.rstrip("bBiIkKmMgGtT")
    unit = text[len(number) :].lower()
    # As docker reads them: 64m, 64mb and 64MiB are the same, and there are fractions.
    unit = unit.removesuffix("ib") if len(unit) == 3 else unit.removesuffix("b")
    whole, _, part = number.partition(".")
    if not (whole + part).isascii() or not (whole + part).isdigit() or unit not in _UNITS:
        raise InvalidReference(f"{text!r} is not a size such as 64m or 1.5g")
    return int(whole or 0) * _UNITS[unit] + int(float(f"0.{part or 0}") * _UNITS[unit])


def ulimit(text: str) -> dict[str, Any]:
    """The limit (config.md, `rlimits`) that `--ulimit NAME=SOFT[:HARD]` asks for; -1 is none.

    Raises:
        InvalidReference: it is not well-formed.
    """
    name, _, values = text.partition("=")
    soft, has_hard, hard = values.partition(":")
    if name not in _RLIMITS:
        raise InvalidReference(f"ulimit {text!r}: {name!r} is not one of {', '.join(_RLIMITS)}")
    numbers = [_rlimit(number, text) for number in ((soft, hard) if has_hard else (soft, soft))]
    if numbers[1] >= 0 and not 0 <= numbers[0] <= numbers[1]:
        raise InvalidReference(f"ulimit {text!r}: the soft limit is above the hard one")
    return {"type": f"RLIMIT_{name.upper()}", "soft": numbers[0], "hard": numbers[1]}


def _rlimit(number: str, text: str) -> int:
    if number == "-1":
        return -1
    if not (number.isascii() and number.isdigit()) or int(number) >= 1 << 63:
        raise InvalidReference(f"ulimit {text!r} is not NAME=SOFT[:HARD], in numbers")
    return int(number)


def _set_memory(resources: dict[str, Any], options: RunOptions) -> None:
    """Limits of memory; the one of memory and swap together is twice the memory where it is not given."""
    limit, reserved = (
        size(text) if text is not None else 0 for text in (options.memory, options.memory_reservation)
    )
    if 0 < limit < _LEAST_MEMORY:
        raise InvalidReference(f"{options.memory!r} is less memory than a container can start with: 6m")
    if 0 < limit < reserved:
        raise InvalidReference(
            f"--memory-reservation {options.memory_reservation} is more than --memory {options.memory}"
        )
    memory = _scarcity(options)
    if limit:
        memory["limit"] = limit
        if options.counts_swap:
            memory["swap"] = 2 * limit
    if reserved:
        memory["reservation"] = reserved
    if options.memory_swap is not None:
        memory |= _swap(options.memory_swap, limit)
    if memory:
        resources["memory"] = {**(resources.get("memory") or {}), **memory}


def _scarcity(options: RunOptions) -> dict[str, Any]:
    """What happens where there is too little memory."""
    found: dict[str, Any] = {}
    swappiness = options.memory_swappiness
    if swappiness is not None and swappiness != -1:
        if not 0 <= swappiness <= 100:
            raise InvalidReference(f"--memory-swappiness goes from 0 to 100, not to {swappiness}")
        found["swappiness"] = swappiness
    if options.oom_kill_disable:
        found["disableOOMKiller"] = True
    return found


def _swap(text: str, limit: int) -> dict[str, int]:
    both = -1 if text == "-1" else size(text)
    if both and not limit:
        raise InvalidReference("--memory-swap is of memory and swap together: give --memory as well")
    if 0 < both < limit:
        raise InvalidReference(f"--memory-swap {text} is less than --memory, which it has in it")
    return {"swap": both} if both else {}


def _set_cpu(resources: dict[str, Any], options: RunOptions) -> None:
    chosen: dict[str, Any] = {
        "shares": options.cpu_shares,
        "cpus": options.cpuset_cpus,
        "mems": options.cpuset_mems,
        "realtimePeriod": options.cpu_rt_period,
        "realtimeRuntime": options.cpu_rt_runtime,
    }
    quota = _quota(options.cpus)
    if quota:
        if options.cpu_quota or options.cpu_period:
            raise InvalidReference("--cpus is a quota of a period: leave out --cpu-quota and --cpu-period")
        chosen |= {"quota": quota, "period": _PERIOD}
    else:
        chosen |= {"quota": options.cpu_quota, "period": options.cpu_period}
    chosen = {name: value for name, value in chosen.items() if value}
    if chosen:
        resources["cpu"] = {**(resources.get("cpu") or {}), **chosen}


def _quota(cpus: str | None) -> int:
    """Microseconds of a period for a number of CPUs; 0 for no limit."""
    try:
        quota = int(float(cpus or 0) * _PERIOD)
    except (ValueError, OverflowError) as exc:
        raise InvalidReference(f"{cpus!r} is not a number of CPUs") from exc
    if quota < 0 or 0 < quota < _LEAST_QUOTA or (not quota and cpus and float(cpus)):
        raise InvalidReference(f"{cpus!r} CPUs are fewer than the kernel can give (0.01)")
    return quota


def _set_shm_size(config: dict[str, Any], text: str) -> None:
    """Change the size of /dev/shm; a container with the host's has no size of its own."""
    wanted = size(text)
    if not wanted:
        raise InvalidReference("--shm-size 0 would leave no shared memory at all")
    for mount in config.get("mounts") or []:
        if mount["destination"] == "/dev/shm" and mount.get("type") == "tmpfs":
            kept = [option for option in mount.get("options") or [] if not option.startswith("size=")]
            mount["options"] = [*kept, f"size={wanted}"]
