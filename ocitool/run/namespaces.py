"""Namespaces: which are new, which are joined by path, and their id maps (config-linux.md)."""

from __future__ import annotations

import posix

from ocitool.errors import InvalidContent, RunError

from .kernel import CLOEXEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .kernel import Kernel

# The specification's name: (clone flag, name below /proc/<pid>/ns).
TYPES = {
    "pid": (0x20000000, "pid"),
    "network": (0x40000000, "net"),
    "mount": (0x00020000, "mnt"),
    "ipc": (0x08000000, "ipc"),
    "uts": (0x04000000, "uts"),
    "user": (0x10000000, "user"),
    "cgroup": (0x02000000, "cgroup"),
    "time": (0x00000080, "time"),
}
USER, PID, CGROUP, TIME, MOUNT, NETWORK = (
    TYPES[name][0] for name in ("user", "pid", "cgroup", "time", "mount", "network")
)
_NS_GET_NSTYPE = 0xB703


class Namespaces:
    """The namespaces of one container.

    Attributes:
        new: flags of those to be made.
        joined: paths of those to be entered, by flag.
    """

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self.new = 0
        self.joined: dict[int, str] = {}
        seen = set()
        for entry in entries:
            kind = entry["type"]
            if kind not in TYPES:
                raise InvalidContent(f"linux.namespaces: {kind!r} is no type of namespace")
            # "If a namespaces field contains duplicated namespaces with same type, the runtime MUST
            # generate an error."
            if kind in seen:
                raise InvalidContent(f"linux.namespaces: {kind} is there twice")
            seen.add(kind)
            flag = TYPES[kind][0]
            path = entry.get("path") or ""
            if path and not path.startswith("/"):
                raise InvalidContent(f"linux.namespaces: the path {path!r} is not absolute")
            if path:
                self.joined[flag] = path
            else:
                self.new |= flag

    def has(self, flag: int) -> bool:
        """Whether the container has a namespace of this type other than the runtime's."""
        return bool(self.new & flag) or flag in self.joined

    def open(self, kernel: Kernel) -> dict[int, int]:
        """Open every namespace to be joined, and prove its type.

        "The runtime MUST generate an error if path is not associated with a namespace of type type."

        Raises:
            RunError: a path is not a namespace, or is one of another type.
        """
        found = {}
        for flag, path in self.joined.items():
            try:
                fd = posix.open(path, posix.O_RDONLY | CLOEXEC)
                kind = kernel.call("ioctl", fd, _NS_GET_NSTYPE, 0)
            except OSError as exc:
                raise RunError(f"namespace {path}: {exc.strerror}") from exc
            if kind != flag:
                raise RunError(f"namespace {path} is not of type {name_of(flag)}")
            found[flag] = fd
        return found


def name_of(flag: int) -> str:
    """The specification's name of a clone flag."""
    return next(name for name, (number, _) in TYPES.items() if number == flag)


def join(kernel: Kernel, opened: dict[int, int]) -> None:
    """Enter namespaces.

    The user namespace is first where it grants the rights to enter the others; those that only the
    rights of the old one open are entered before it.
    """
    waiting = dict(opened)
    user = waiting.pop(USER, -1)
    if user >= 0:
        for flag, fd in list(waiting.items()):
            try:
                kernel.setns(fd, flag)
            except PermissionError:
                continue
            del waiting[flag]
        kernel.setns(user, USER)
    for flag, fd in waiting.items():
        kernel.setns(fd, flag)


def id_map(mappings: list[dict[str, Any]]) -> str:
    """The text of a uid_map or gid_map."""
    return "".join(f"{entry['containerID']} {entry['hostID']} {entry['size']}\n" for entry in mappings)


def on_host(linux: dict[str, Any], user: dict[str, Any]) -> int:
    """The host's uid of `process.user`; -1 where it has none."""
    uid: int = user.get("uid", 0)
    mappings = linux.get("uidMappings")
    if not mappings:
        return uid
    for entry in mappings:
        if entry["containerID"] <= uid < entry["containerID"] + entry["size"]:
            return int(entry["hostID"] + uid - entry["containerID"])
    return -1


def is_host_root() -> bool:
    """Whether this process is root, and of the whole host.

    Engines of ordinary users call the runtime as root of a user namespace. What such a root may do ends where
    the namespace ends: it makes no device nodes, and owns no cgroups but those that it was given.
    """
    # user_namespaces(7): the first one maps every id to itself.
    return posix.geteuid() == 0 and _own_map() == [(0, 0, 4294967295)]


def user_outside() -> int:
    """The number that this process's user has outside of its user namespace."""
    user = posix.geteuid()
    found = (user - inside + outside for inside, outside, size in _own_map() if 0 <= user - inside < size)
    return next(found, user)


def _own_map() -> list[tuple[int, int, int]]:
    """Who exists in the user namespace of this process: ranges from ours to those outside."""
    try:
        fd = posix.open("/proc/self/uid_map", posix.O_RDONLY | CLOEXEC)
    except OSError:
        return [(0, 0, 4294967295)]  # a host without user namespaces, or without /proc
    try:
        numbers = [int(number) for number in posix.read(fd, 1 << 16).split()]
    finally:
        posix.close(fd)
    return list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))


def write_maps(pid: int, uids: list[dict[str, Any]], gids: list[dict[str, Any]]) -> None:
    """Map the ids of a new user namespace whose first process is `pid`.

    Root writes the maps itself. Anyone else may only map their own id; a wider map is made by
    newuidmap and newgidmap, which know what /etc/subuid grants.

    Raises:
        RunError: the maps are refused.
    """
    own_u, own_g = posix.geteuid(), posix.getegid()
    try:
        if own_u == 0 or (_single(uids, own_u) and _single(gids, own_g)):
            if own_u != 0:
                # Without it, a member of a group that denies access could leave that group (CVE-2014-8989).
                _write(f"/proc/{pid}/setgroups", "deny")
            _write(f"/proc/{pid}/uid_map", id_map(uids))
            _write(f"/proc/{pid}/gid_map", id_map(gids))
            return
    except OSError as exc:
        raise RunError(
            f"the user namespace's id map was refused: {exc.strerror}",
            hint="some systems restrict user namespaces: see kernel.apparmor_restrict_unprivileged_userns",
        ) from exc
    _helper("newuidmap", pid, uids)
    _helper("newgidmap", pid, gids)


def _single(mappings: list[dict[str, Any]], own: int) -> bool:
    return len(mappings) == 1 and mappings[0]["size"] == 1 and mappings[0]["hostID"] == own


def _write(path: str, text: str) -> None:
    fd = posix.open(path, posix.O_WRONLY | CLOEXEC)
    try:
        posix.write(fd, text.encode())
    finally:
        posix.close(fd)


def _helper(program: str, pid: int, mappings: list[dict[str, Any]]) -> None:
    numbers = [str(entry[key]) for entry in mappings for key in ("containerID", "hostID", "size")]
    for directory in ("/usr/bin", "/bin", "/usr/local/bin"):
        if posix.access(f"{directory}/{program}", posix.X_OK):
            child = posix.posix_spawn(f"{directory}/{program}", [program, str(pid), *numbers], {})
            if posix.waitstatus_to_exitcode(posix.waitpid(child, 0)[1]) == 0:
                return
            raise RunError(
                f"{program} refused the id map",
                hint="see the ranges of this user in /etc/subuid and /etc/subgid",
            )
    raise RunError(
        f"an id map of more than one's own id needs {program}, which is not installed",
        hint="install the package uidmap, or map a single id",
    )
