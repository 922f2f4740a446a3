"""Cgroups that systemd makes and watches (`--systemd-cgroup`): a transient scope for each container.

systemd wants to be the only one who makes cgroups where it runs, and starts a scope around processes that are
there already. A stand-in is the first of them; it ends when the container's own process has taken its place.
"""

from __future__ import annotations

import posix

from ocitool.errors import Conflict, InvalidContent, RunError

from . import cgroup_v1, cgroup_v2, dbus, namespaces, newcgroup
from .cgroups import Cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .kernel import Kernel

_SERVICE = "org.freedesktop.systemd1"
_OBJECT = "/org/freedesktop/systemd1"
_MANAGER = f"{_SERVICE}.Manager"
_PROPERTIES = "a(sv)"
_UNLIMITED = (1 << 64) - 1
_SECOND = 1_000_000  # microseconds
_QUOTA_STEP = 10_000  # systemd rounds to 10 ms of a second
# Files of a cgroup to unit properties (systemd.resource-control(5)), all of type "t".
_NUMBERS = {
    "memory.max": "MemoryMax",
    "memory.low": "MemoryLow",
    "memory.swap.max": "MemorySwapMax",
    "memory.limit_in_bytes": "MemoryLimit",
    "cpu.weight": "CPUWeight",
    "cpu.shares": "CPUShares",
    "pids.max": "TasksMax",
}
_SETS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
_NO_SUCH_UNIT = f"{_SERVICE}.NoSuchUnit"


def properties(files: list[tuple[str, str]]) -> list[list[Any]]:
    """What is written to the files of a cgroup, as properties of a unit.

    systemd writes these files anew when it is reloaded, from the properties that it knows. What it has no
    property for is left to the files.
    """
    found: dict[str, dbus.Variant] = {}
    values = dict(files)
    for name, value in values.items():
        if name in _NUMBERS:
            number = _UNLIMITED if value in ("max", "-1") else int(value)
            found[_NUMBERS[name]] = dbus.Variant("t", number)
        elif name in _SETS:
            found[_SETS[name]] = dbus.Variant("ay", list(_bits(value)))
    quota, _, period = values.get("cpu.max", "").partition(" ")
    quota = values.get("cpu.cfs_quota_us", quota)
    period = values.get("cpu.cfs_period_us", period) or "100000"
    if quota:
        found["CPUQuotaPerSecUSec"] = dbus.Variant("t", _quota(quota, int(period)))
        found["CPUQuotaPeriodUSec"] = dbus.Variant("t", int(period))
    return [[name, value] for name, value in found.items()]


def _quota(quota: str, period: int) -> int:
    if quota in ("max", "-1"):
        return _UNLIMITED
    exact = int(quota) * _SECOND // period
    return exact + -exact % _QUOTA_STEP


def _common(one: str, other: str) -> str:
    """The directory that is above both paths, or is one of them."""
    shared = []
    for a, b in zip(one.split("/"), other.split("/"), strict=False):
        if a != b:
            break
        shared.append(a)
    return "/".join(shared)


def _bits(ranges: str) -> bytes:
    """A list of CPUs such as "0-2,5" as a bit mask, the lowest byte first."""
    mask = 0
    for part in ranges.split(","):
        first, _, last = part.strip().partition("-")
        for number in range(int(first), int(last or first) + 1):
            mask |= 1 << number
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def names(cgroups_path: str | None, container_id: str, *, user: bool) -> tuple[str, str]:
    """The slice and the unit of a container, from `cgroupsPath` in the form "slice:prefix:name".

    Raises:
        InvalidContent: it has another form, or a part that can't be a part of a unit's name.
    """
    if not cgroups_path:
        return ("user.slice" if user else "system.slice"), f"ocitool-{container_id}.scope"
    parts = cgroups_path.split(":")
    if len(parts) != 3:
        raise InvalidContent(
            f"linux.cgroupsPath {cgroups_path!r} is not slice:prefix:name, as --systemd-cgroup demands"
        )
    slice_, prefix, name = parts
    slice_ = slice_ or ("user.slice" if user else "system.slice")
    if any("/" in part or ".." in part for part in parts) or not name or not slice_.endswith(".slice"):
        raise InvalidContent(f"linux.cgroupsPath {cgroups_path!r} names no slice and unit of systemd")
    if name.endswith(".slice"):
        raise InvalidContent(f"linux.cgroupsPath {cgroups_path!r}: a container is a scope, not a slice")
    return slice_, f"{prefix}-{name}.scope" if prefix else f"{name}.scope"


def address(*, user: bool) -> str:
    """Where the message bus of the system's, or of this user's, manager is."""
    variable = b"DBUS_SESSION_BUS_ADDRESS" if user else b"DBUS_SYSTEM_BUS_ADDRESS"
    given = posix.environ.get(variable, b"").decode(errors="surrogateescape")
    if given:
        return given
    if not user:
        return "unix:path=/run/dbus/system_bus_socket"
    directory = posix.environ.get(b"XDG_RUNTIME_DIR", b"/run/user/%d" % posix.geteuid())
    return f"unix:path={directory.decode(errors='surrogateescape')}/bus"


class Scope(Cgroup):
    """A container's cgroup as a scope of systemd.

    Attributes:
        unit, slice: the unit's name, and its slice.
        user: whether it is the user's own manager's.
        initial: the resources that it starts with.
    """

    def __init__(self, unit: str, slice_: str, *, user: bool) -> None:
        super().__init__({}, [])
        self.unit = unit
        self.slice = slice_
        self.user = user
        self.initial: dict[str, Any] = {}
        self._stand_in = -1

    @classmethod
    def restored(cls, saved: dict[str, Any]) -> Scope:
        """From what `saved` returned."""
        unit, slice_, user = saved["unit"]
        found = cls(unit, slice_, user=user)
        found.directories, found.made, found.taken = saved["directories"], saved["made"], saved["taken"]
        return found

    def saved(self) -> dict[str, Any]:
        """See `Cgroup`."""
        return {**super().saved(), "unit": [self.unit, self.slice, self.user]}

    def plan(self) -> None:
        """See `Cgroup`; the unit's name is all that has to be remembered."""

    def create(self, *, optional: bool) -> None:  # noqa: ARG002 - the manager may do it, or it may not
        """Have the scope made.

        Raises:
            Conflict: there is a unit of that name.
            RunError: systemd is not there, or refuses.
        """
        hierarchies = newcgroup.own_hierarchies()
        pure_v2 = all(each.unified for each in hierarchies)
        bus = dbus.Bus(address(user=self.user))
        try:
            pid = self._start_stand_in()
            self._start(bus, pid, pure_v2=pure_v2)
            path = self._control_group(bus)
        finally:
            bus.close()
        for hierarchy in hierarchies:
            self._enter(hierarchy, f"{hierarchy.mount_point.rstrip('/')}{path}")

    def _enter(self, hierarchy: newcgroup.Hierarchy, directory: str) -> None:
        """Take the scope's directory in a hierarchy; in those of version 1 some are ours to make."""
        try:
            made = [] if hierarchy.unified else newcgroup.make_directories(directory, hierarchy.controllers)
        except OSError:
            return  # the user's own manager has no part in it
        if posix.access(directory, posix.F_OK):
            self.directories[",".join(hierarchy.controllers)] = directory
            self.made += made or [directory]

    def _start_stand_in(self) -> int:
        """A process that waits for the other end of a pipe to be closed."""
        reading, self._stand_in = posix.pipe2(posix.O_CLOEXEC)
        pid = posix.fork()
        if pid == 0:
            posix.close(self._stand_in)
            posix.read(reading, 1)
            posix._exit(0)  # noqa: SLF001 - public in spite of its name
        posix.close(reading)
        return pid

    def directory_fd(self) -> int:
        """See `Cgroup`; -1 where `bring_in` has to do it."""
        return super().directory_fd() if self._can_be_entered() else -1

    def bring_in(self, pid: int) -> None:
        """See `Cgroup`: the manager moves what its user may not."""
        if not self._can_be_entered():
            bus = dbus.Bus(address(user=self.user))
            try:
                bus.call(_SERVICE, _OBJECT, _MANAGER, "AttachProcessesToUnit", "ssau", self.unit, "", [pid])
            finally:
                bus.close()

    def _can_be_entered(self) -> bool:
        """Whether we may move processes of ours to the scope.

        cgroups(7) demands write access to "cgroup.procs" of the nearest cgroup above both. That is root's
        where one is a login's session and the other belongs to the user's manager.
        """
        if not self.user or not self.unified:
            return True
        here = next(f"{each.mount_point}{each.own}" for each in newcgroup.own_hierarchies() if each.unified)
        shared = _common(here, self.unified)
        return posix.access(f"{shared}/cgroup.procs", posix.W_OK)

    def settled(self) -> None:
        """See `Cgroup`: the stand-in may go."""
        if self._stand_in >= 0:
            posix.close(self._stand_in)
            self._stand_in = -1

    def _start(self, bus: dbus.Bus, pid: int, *, pure_v2: bool) -> None:
        wanted = [
            ["Description", dbus.Variant("s", f"container {self.unit}")],
            ["Slice", dbus.Variant("s", self.slice)],
            ["Delegate", dbus.Variant("b", 1)],
            ["DefaultDependencies", dbus.Variant("b", 0)],
            *[[f"{kind}Accounting", dbus.Variant("b", 1)] for kind in ("Memory", "CPU", "Tasks", "IO")],
            ["PIDs", dbus.Variant("au", [pid])],
            *properties(_files(self.initial, pure_v2=pure_v2)),
        ]
        self._listen(bus)
        try:
            (job,) = bus.call(
                _SERVICE, _OBJECT, _MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))",
                self.unit, "fail", wanted, [],
            )  # fmt: skip
        except dbus.CallError as exc:
            if exc.name == f"{_SERVICE}.UnitExists":
                raise Conflict(f"systemd has a unit {self.unit} already") from exc
            raise RunError(f"systemd: {exc.message}") from exc
        # Until here, a unit of this name is someone else's.
        self.taken = True
        self._await(bus, job)

    @staticmethod
    def _listen(bus: dbus.Bus) -> None:
        """Hear of the end of jobs, from before the first one."""
        match = f"type='signal',interface='{_MANAGER}',member='JobRemoved'"
        bus.call(
            "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", "s", match
        )
        bus.call(_SERVICE, _OBJECT, _MANAGER, "Subscribe")

    @staticmethod
    def _await(bus: dbus.Bus, job: str) -> None:
        while True:
            _, ended, unit, result = bus.signal("JobRemoved")
            if ended == job:
                break
        if result != "done":
            raise RunError(f"systemd: the job for {unit} ended with {result!r}")

    def _control_group(self, bus: dbus.Bus) -> str:
        """Where the scope is in the hierarchies."""
        (path,) = bus.call(_SERVICE, _OBJECT, _MANAGER, "GetUnit", "s", self.unit)
        (group,) = bus.call(
            _SERVICE,
            path,
            "org.freedesktop.DBus.Properties",
            "Get",
            "ss",
            f"{_SERVICE}.Scope",
            "ControlGroup",
        )
        if not isinstance(group, str) or not group.startswith("/") or ".." in group.split("/"):
            raise RunError(f"systemd: {self.unit} has the cgroup {group!r}, which is no path")
        return group

    def update(self, kernel: Kernel, resources: dict[str, Any], *, devices: bool) -> None:
        """See `Cgroup`; systemd is told, too, or it would write the old values when it is reloaded."""
        super().update(kernel, resources, devices=devices)
        changed = properties(_files(resources, pure_v2=self.pure_v2))
        if not changed:
            return
        bus = dbus.Bus(address(user=self.user))
        try:
            bus.call(
                _SERVICE, _OBJECT, _MANAGER, "SetUnitProperties", f"sb{_PROPERTIES}", self.unit, 1, changed
            )
        finally:
            bus.close()

    def delete(self) -> None:
        """Stop the scope, and take away what systemd leaves of it."""
        self.settled()
        if not self.taken:
            return  # without the stand-in an unfinished scope is empty, and systemd drops it
        try:
            bus = dbus.Bus(address(user=self.user))
            try:
                self._stop(bus)
            finally:
                bus.close()
        except RunError:
            pass  # a scope whose cgroups are gone is over for systemd, whatever it says now
        super().delete()

    def _stop(self, bus: dbus.Bus) -> None:
        self._listen(bus)
        try:
            (job,) = bus.call(_SERVICE, _OBJECT, _MANAGER, "StopUnit", "ss", self.unit, "replace")
            self._await(bus, job)
        except dbus.CallError as exc:
            if exc.name != _NO_SUCH_UNIT:
                raise
        try:
            bus.call(_SERVICE, _OBJECT, _MANAGER, "ResetFailedUnit", "s", self.unit)
        except dbus.CallError:
            return  # it did not fail


def _files(resources: dict[str, Any], *, pure_v2: bool) -> list[tuple[str, str]]:
    if pure_v2:
        return cgroup_v2.settings(resources)
    return [(name, value) for _, name, value in cgroup_v1.settings(resources, has_swap=False)]


def for_container(config: dict[str, Any], container_id: str) -> Scope:
    """The scope that a container is to have; nothing is made yet."""
    linux = config.get("linux") or {}
    user = not namespaces.is_host_root()
    slice_, unit = names(linux.get("cgroupsPath"), container_id, user=user)
    found = Scope(unit, slice_, user=user)
    found.initial = linux.get("resources") or {}
    return found
