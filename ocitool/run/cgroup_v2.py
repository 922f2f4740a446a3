"""`linux.resources` in the files of cgroup version 2 (config-linux.md, "Control groups")."""

from __future__ import annotations

import posix

from ocitool.errors import InvalidContent, RunError, Unsupported

from .cgroup_v1 import rdma_lines
from .kernel import CLOEXEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .kernel import Kernel

    Settings = list[tuple[str, str]]


# config-linux.md, "Cgroup ownership": "If the /sys/kernel/cgroup/delegate file does not exist, the
# runtime MUST fall back to using the following list of files".
_DELEGATED = "cgroup.procs cgroup.subtree_control cgroup.threads"


def settings(resources: dict[str, Any], has_swap: bool = True) -> Settings:  # noqa: FBT001, FBT002 - a fact of the host
    """All but the devices, as (file, value) in the order in which they are written.

    Raises:
        InvalidContent, Unsupported: a value has no meaning in version 2.
    """
    found: Settings = []
    _memory(found, resources.get("memory") or {}, has_swap=has_swap)
    _cpu(found, resources.get("cpu") or {})
    pids = resources.get("pids") or {}
    if pids.get("limit") is not None:
        found.append(("pids.max", str(pids["limit"]) if pids["limit"] >= 0 else "max"))
    _block(found, resources.get("blockIO") or {})
    for page in resources.get("hugepageLimits") or []:
        found.append((f"hugetlb.{page['pageSize']}.max", str(page["limit"])))
    if resources.get("network"):
        raise Unsupported("linux.resources.network needs a host with cgroup version 1")
    found += [("rdma.max", line) for line in rdma_lines(resources.get("rdma") or {})]
    for name, value in (resources.get("unified") or {}).items():
        # The names are file names: nothing else may be reached through them.
        if "/" in name or name in ("", ".", ".."):
            raise InvalidContent(f"linux.resources.unified: {name!r} is no file of a cgroup")
        found.append((name, value))
    return found


def _limit(value: int) -> str:
    return "max" if value < 0 else str(value)


def _memory(found: Settings, memory: dict[str, Any], *, has_swap: bool) -> None:
    limit, swap = memory.get("limit"), memory.get("swap")
    if memory.get("swappiness") is not None:
        raise Unsupported("linux.resources.memory.swappiness needs a host with cgroup version 1")
    if memory.get("disableOOMKiller"):
        raise Unsupported("linux.resources.memory.disableOOMKiller needs a host with cgroup version 1")
    if swap is not None and swap > 0:
        # Version 1 counts memory and swap together, version 2 swap alone.
        if limit is None or limit < 0:
            raise InvalidContent("linux.resources.memory.swap needs a memory limit to be converted")
        if swap < limit:
            raise InvalidContent("linux.resources.memory.swap is lower than the memory limit")
        found.append(("memory.swap.max", str(swap - limit)))
    elif swap is not None and has_swap:
        # A kernel that counts no swap has none to limit.
        found.append(("memory.swap.max", "max" if swap < 0 else "0"))
    if limit is not None:
        found.append(("memory.max", _limit(limit)))
    if memory.get("reservation") is not None:
        found.append(("memory.low", _limit(memory["reservation"])))


def weight_of_shares(shares: int) -> int:
    """cpu.shares (2 to 262144) as cpu.weight (1 to 10000), in a straight line."""
    return 1 + (min(max(shares, 2), 262144) - 2) * 9999 // 262142


def _cpu(found: Settings, cpu: dict[str, Any]) -> None:
    if cpu.get("idle"):
        found.append(("cpu.idle", str(cpu["idle"])))
    if cpu.get("shares"):
        found.append(("cpu.weight", str(weight_of_shares(cpu["shares"]))))
    quota, period = cpu.get("quota"), cpu.get("period")
    if quota or period:
        amount = "max" if not quota or quota < 0 else str(quota)
        found.append(("cpu.max", f"{amount} {period or 100000}"))
    if cpu.get("burst"):
        found.append(("cpu.max.burst", str(cpu["burst"])))
    if cpu.get("realtimeRuntime") or cpu.get("realtimePeriod"):
        raise Unsupported("realtime limits of linux.resources.cpu need a host with cgroup version 1")
    for key in ("cpus", "mems"):
        if cpu.get(key):
            found.append((f"cpuset.{key}", cpu[key]))


def _block(found: Settings, block: dict[str, Any]) -> None:
    if block.get("weight"):
        # 10 to 1000 there, 1 to 10000 here.
        found.append(("io.weight", f"default {1 + (block['weight'] - 10) * 9999 // 990}"))
    for device in block.get("weightDevice") or []:
        if device.get("weight"):
            found.append(
                (
                    "io.weight",
                    f"{device['major']}:{device['minor']} {1 + (device['weight'] - 10) * 9999 // 990}",
                )
            )
    for kind, name in (
        ("ReadBps", "rbps"),
        ("WriteBps", "wbps"),
        ("ReadIOPS", "riops"),
        ("WriteIOPS", "wiops"),
    ):
        for device in block.get(f"throttle{kind}Device") or []:
            found.append(("io.max", f"{device['major']}:{device['minor']} {name}={device['rate']}"))


def enable_controllers(path: str) -> None:
    """Enable every controller there is in each parent of `path`; what a parent refuses stays off.

    One that holds processes refuses most of them. It would take those that work on threads (cpu, pids),
    at the price that no process could enter a cgroup below it any more. The topmost cgroup of a host may
    have both. Whether a controller was needed shows when its file is written.
    """
    parents = []
    here = path.rpartition("/")[0]
    while posix.access(f"{here}/cgroup.subtree_control", 0):
        parents.append(here)
        here = here.rpartition("/")[0]
    for parent in reversed(parents):
        wanted = set(_read(f"{parent}/cgroup.controllers").split()) - set(
            _read(f"{parent}/cgroup.subtree_control").split()
        )
        if wanted and _holds_processes(parent):
            continue
        for controller in sorted(wanted):
            _try_enable(f"{parent}/cgroup.subtree_control", controller)


def check_controller(directory: str, name: str) -> None:
    """Tell why a cgroup lacks the file of a setting, if that is for want of the controller.

    Raises:
        RunError: a cgroup above does not pass the controller on, or the host does not have it.
    """
    if posix.access(f"{directory}/{name}", 0):
        return
    controller, here = name.partition(".")[0], directory
    while posix.access(f"{here}/cgroup.controllers", 0):
        if controller in _read(f"{here}/cgroup.controllers").split():
            break
        here = here.rpartition("/")[0]
    else:
        raise RunError(f"linux.resources: {name} cannot be set, as there is no {controller} controller here")
    if here == directory:
        return
    busy = _holds_processes(here)
    raise RunError(
        f"linux.resources: {name} cannot be set, as cgroup {here} passes no {controller} controller on"
        + (": it holds processes itself" if busy else ""),
        hint="move them into a cgroup below it, or give another place with linux.cgroupsPath" if busy else "",
    )


def give(directory: str, uid: int) -> None:
    """Give a cgroup to a user, who can then divide it further and not raise its limits.

    "A runtime that changes the cgroup ownership SHOULD only change the ownership of the container's
    cgroup directory and files within that directory that are listed in /sys/kernel/cgroup/delegate."
    """
    listed = "/sys/kernel/cgroup/delegate"
    names = _read(listed) if posix.access(listed, 0) else _DELEGATED
    posix.chown(directory, uid, -1)
    for name in names.split():
        try:
            posix.chown(f"{directory}/{name}", uid, -1)
        except FileNotFoundError:
            continue  # "Runtimes MUST NOT fail in this scenario"


def _holds_processes(directory: str) -> bool:
    """Whether it holds some, and is not the topmost one of the host, which alone has no `cgroup.type`."""
    try:
        held = _read(f"{directory}/cgroup.procs").strip()
    except OSError:
        return True  # a part of a threaded tree does not say
    return bool(held) and posix.access(f"{directory}/cgroup.type", 0)


def _try_enable(path: str, controller: str) -> None:
    try:
        fd = posix.open(path, posix.O_WRONLY | CLOEXEC)
    except OSError:
        return
    try:
        posix.write(fd, f"+{controller}".encode())
    except OSError:
        return  # in use by processes of the parent itself, or not delegated to us
    finally:
        posix.close(fd)


def _read(path: str) -> str:
    fd = posix.open(path, posix.O_RDONLY | CLOEXEC)
    try:
        return posix.read(fd, 65536).decode()
    finally:
        posix.close(fd)


def attach_devices(kernel: Kernel, directory: str, devices: list[dict[str, Any]]) -> None:
    """Load the device rules as a program of type CGROUP_DEVICE and attach it.

    Raises:
        RunError: the kernel refuses it.
    """
    from .device_program import attach, program

    try:
        attach(kernel, directory, program(devices))
    except OSError as exc:
        raise RunError(f"device rules of cgroup {directory}: {exc.strerror}") from exc
