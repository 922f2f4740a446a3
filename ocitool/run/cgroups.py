"""The container's cgroup: where it is, how it is entered, and how it is taken away.

A host has version 1 (one hierarchy for each controller), version 2 (a single one), or both, the
"hybrid" layout. A `Cgroup` is the container's directory in each hierarchy there is; the settings of
`linux.resources` are worked out by `cgroup_v1` and `cgroup_v2`, which are pure.
"""

from __future__ import annotations

import posix
import time

from ocitool.errors import Conflict, InvalidContent, RunError, Unsupported

from . import cgroup_v1, cgroup_v2, paths
from .kernel import AT_FDCWD, CLOEXEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .kernel import Kernel
    from .mountoptions import Options
    from .mounts import Surroundings

_EBUSY, _ENODEV = 16, 19


class Hierarchy:
    """One mounted cgroup hierarchy.

    Attributes:
        controllers: its controllers ("name=systemd" for a named one), or [] for version 2.
        mount_point: where it is mounted.
        own: the path of this process in it.
    """

    def __init__(self, controllers: list[str], mount_point: str, own: str) -> None:
        self.controllers = controllers
        self.mount_point = mount_point
        self.own = own

    @property
    def unified(self) -> bool:
        """Whether it is of version 2."""
        return not self.controllers


def hierarchies(mountinfo: str, own: str) -> list[Hierarchy]:
    """Every hierarchy, from the texts of /proc/self/mountinfo and /proc/self/cgroup.

    Where one is mounted several times, the first mount counts.
    """
    mine = {}
    for line in own.splitlines():
        _, names, path = line.split(":", 2)
        mine[frozenset(names.split(",")) if names else frozenset()] = path
    found: dict[frozenset[str], Hierarchy] = {}
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        separator = fields.index("-")
        fstype, options = fields[separator + 1], fields[-1].split(",")
        if fstype not in ("cgroup", "cgroup2"):
            continue
        key = next((names for names in mine if names and names <= set(options)), frozenset[str]())
        if (fstype == "cgroup" and not key) or (fstype == "cgroup2" and frozenset() not in mine):
            continue
        if fstype == "cgroup2":
            key = frozenset()
        path = mine[key]
        root = fields[3].rstrip("/")
        if root and (path + "/").startswith(root + "/"):
            path = path[len(root) :]
        if key not in found:
            found[key] = Hierarchy(sorted(key), _unescape(fields[4]), path or "/")
    return list(found.values())


def _unescape(path: str) -> str:
    return path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\") if "\\" in path else path


def _text(path: str) -> str:
    fd = posix.open(path, posix.O_RDONLY | CLOEXEC)
    try:
        pieces = []
        while piece := posix.read(fd, 65536):
            pieces.append(piece)
        return b"".join(pieces).decode(errors="surrogateescape")
    finally:
        posix.close(fd)


def place(hierarchy: Hierarchy, cgroups_path: str | None, container_id: str) -> str:
    """The directory of a container in a hierarchy (config-linux.md, "Cgroups Path").

    "In the case of an absolute path, the runtime MUST take the path to be relative to the cgroups
    mount point. In the case of a relative path, the runtime MAY interpret the path relative to a
    runtime-determined location": ours is the cgroup of the runtime itself.

    Raises:
        InvalidContent: the path has ".." in it (RN-16).
    """
    path = cgroups_path or f"ocitool-{container_id}"
    if ".." in path.split("/"):
        raise InvalidContent(f"linux.cgroupsPath {path!r} has '..' in it")
    if not path.startswith("/"):
        path = f"{hierarchy.own}/{path}"
    names = paths.parts(path)
    return "/".join([hierarchy.mount_point.rstrip("/"), *names])


class Cgroup:
    """The cgroup of one container.

    Attributes:
        directories: the container's directory, by the controllers of its hierarchy ("" for version 2).
        made: the directories that are made for it, parents first.
        taken: whether it is the container's by now; before that, its processes are someone else's.
    """

    def __init__(self, directories: dict[str, str], made: list[str], *, taken: bool = False) -> None:
        self.directories = directories
        self.made = made
        self.taken = taken

    @classmethod
    def load(cls, saved: dict[str, Any]) -> Cgroup:
        """From what `saved` returned."""
        return cls(saved["directories"], saved["made"], taken=saved["taken"])

    def saved(self) -> dict[str, Any]:
        """What the state file keeps."""
        return {"directories": self.directories, "made": self.made, "taken": self.taken}

    @property
    def unified(self) -> str:
        """The directory in the version 2 hierarchy, or ""."""
        return self.directories.get("", "")

    @property
    def pure_v2(self) -> bool:
        """Whether version 2 is all there is."""
        return list(self.directories) == [""]

    def directory_of(self, controller: str) -> str:
        """The version 1 directory of a controller, or ""."""
        return next((path for names, path in self.directories.items() if controller in names.split(",")), "")

    def plan(self) -> None:
        """Note which directories are missing, so that whoever is killed while making them leaves a list."""
        self.made = [
            directory
            for path in self.directories.values()
            for directory in _ancestry(path)
            if not posix.access(directory, 0)
        ]

    def create(self, *, optional: bool) -> None:
        """Make the directories.

        Args:
            optional: leave out the hierarchies that this user may not write to.

        Raises:
            Conflict: one of them holds processes or is frozen.
            RunError: one of them cannot be made.
        """
        for names, path in list(self.directories.items()):
            try:
                self._make(names, path)
            except OSError as exc:
                if (optional and isinstance(exc, PermissionError)) or exc.errno == 30:
                    del self.directories[names]
                    continue
                raise RunError(f"cgroup {path}: {exc.strerror}") from exc
        self.taken = True

    def _make(self, names: str, path: str) -> None:
        missing = [directory for directory in _ancestry(path) if not posix.access(directory, 0)]
        if not missing:
            self._refuse_used(names, path)
        for directory in missing:
            posix.mkdir(directory, 0o755)
            if "cpuset" in names.split(","):
                cgroup_v1.inherit_cpuset(directory)
        if not names:
            cgroup_v2.enable_controllers(path)

    @staticmethod
    def _refuse_used(names: str, path: str) -> None:
        if _text(f"{path}/cgroup.procs").strip():
            raise Conflict(f"cgroup {path} holds processes of something else")
        frozen = f"{path}/freezer.state" if names == "freezer" else f"{path}/cgroup.freeze"
        if posix.access(frozen, 0) and _text(frozen).strip() in ("FROZEN", "1"):
            raise Conflict(f"cgroup {path} is frozen: a process that entered it would hang")

    def apply(self, kernel: Kernel, resources: dict[str, Any], *, devices: bool = True) -> None:
        """Set `linux.resources`.

        Raises:
            RunError: the kernel refuses a value, or lacks what it needs.
        """
        self._check_usage(resources.get("memory") or {})
        if self.pure_v2:
            settings = [("", name, value) for name, value in cgroup_v2.settings(resources)]
            if devices:
                cgroup_v2.attach_devices(kernel, self.unified, resources.get("devices") or [])
        else:
            settings = cgroup_v1.settings(resources, self._has_swap())
            if resources.get("unified"):
                raise Unsupported("linux.resources.unified needs a host with cgroup version 2")
            if devices and self.directory_of("devices"):
                settings += [
                    ("devices", name, value)
                    for name, value in cgroup_v1.device_settings(resources.get("devices") or [])
                ]
        for controller, name, value in settings:
            self._set(controller, name, value)

    def _check_usage(self, memory: dict[str, Any]) -> None:
        """With `checkBeforeUpdate`, "MUST reject the limit if it is lower than the current usage".

        Version 1 refuses such a limit by itself; version 2 would end processes to reach it.
        """
        limit = memory.get("limit") or -1
        if memory.get("checkBeforeUpdate") and limit > 0 and self.pure_v2:
            usage = int(_text(f"{self.unified}/memory.current"))
            if limit < usage:
                raise RunError(f"the memory limit {limit} is lower than the current usage {usage}")

    def _has_swap(self) -> bool:
        directory = self.directory_of("memory")
        return bool(directory) and posix.access(f"{directory}/memory.memsw.limit_in_bytes", 0)

    def _set(self, controller: str, name: str, value: str) -> None:
        directory = self.directory_of(controller) if controller else self.unified
        if not directory:
            raise RunError(
                f"linux.resources: {name} = {value} cannot be set, because this host (or this user) has no"
                f" {controller} controller"
            )
        write_setting(f"{directory}/{name}", value)

    def entrances(self) -> list[int]:
        """Descriptors through which a process enters by writing "0"; the version 2 one is `directory_fd`.

        A single-threaded process that moves itself through `tasks` needs no lock that all of the
        machine shares; a move by `cgroup.procs` waits 10 ms for that lock.
        """
        return [
            posix.open(f"{path}/tasks", posix.O_WRONLY | CLOEXEC)
            for names, path in self.directories.items()
            if names
        ]

    def directory_fd(self) -> int:
        """The version 2 directory for clone3(2), or -1."""
        if not self.unified:
            return -1
        return posix.open(self.unified, posix.O_RDONLY | posix.O_DIRECTORY | CLOEXEC)

    def pids(self) -> list[int]:
        """The processes in the cgroup, in the order of their numbers."""
        for names in ("", "freezer", "pids", *self.directories):
            directory = self.directories.get(names, "")
            if directory:
                break
        else:
            return []
        found = []
        for path in _tree(directory):
            try:
                found += [int(line) for line in _text(f"{path}/cgroup.procs").split()]
            except OSError as exc:
                if exc.errno not in (2, _ENODEV):
                    raise
        return sorted(found)

    def freeze(self, *, frozen: bool) -> None:
        """Stop or continue every process.

        Raises:
            Unsupported: the host has no freezer for this container.
            RunError: it did not take effect within a second.
        """
        v1 = self.directory_of("freezer")
        if v1:
            name, want = f"{v1}/freezer.state", "FROZEN" if frozen else "THAWED"
        elif self.unified:
            name, want = f"{self.unified}/cgroup.freeze", "1" if frozen else "0"
        else:
            raise Unsupported("this container has no cgroup that could be frozen")
        for _ in range(1000):
            write_setting(name, want)
            if self.frozen() == frozen:
                return
            _pause(0.001)
        raise RunError(f"{name} did not become {want}")

    def frozen(self) -> bool:
        """Whether the processes are stopped."""
        v1 = self.directory_of("freezer")
        try:
            if v1:
                return _text(f"{v1}/freezer.state").strip() == "FROZEN"
            return bool(self.unified) and "frozen 1" in _text(f"{self.unified}/cgroup.events")
        except OSError:
            return False

    def kill(self) -> None:
        """Send SIGKILL to every process, and leave no room for one that forks meanwhile."""
        if not self.taken:
            return
        if self.unified and posix.access(f"{self.unified}/cgroup.kill", 0):
            write_setting(f"{self.unified}/cgroup.kill", "1")
        freezer = self.directory_of("freezer")
        if freezer and self.pids():
            write_setting(f"{freezer}/freezer.state", "FROZEN")
        for pid in self.pids():
            try:
                posix.kill(pid, 9)
            except ProcessLookupError:
                continue
        if freezer and posix.access(freezer, 0):
            write_setting(f"{freezer}/freezer.state", "THAWED")

    def delete(self) -> None:
        """Remove what was made for the container; a directory that others use by now stays.

        Raises:
            RunError: a directory stays busy although its processes were killed.
        """
        for path in self.directories.values():
            if path in self.made:
                for below in reversed(_tree(path)):
                    _remove(below)
        for path in reversed(self.made):
            try:
                posix.rmdir(path)
            except OSError:
                continue

    def mount(self, around: Surroundings, destination: str, options: Options) -> None:
        """Make the mount of type "cgroup": the container's own directories, and no others."""
        kernel = around.kernel
        target = paths.made_directory(kernel, around.root, destination)
        if self.pure_v2:
            tree = self._unified_tree(kernel, options)
            kernel.move_mount(tree, target)
            posix.close(tree)
            posix.close(target)
            return
        cover = kernel.new_mount("tmpfs", "tmpfs", ["mode=755"], options.set_ & ~1)
        kernel.move_mount(cover, target)
        for names, path in self.directories.items():
            self._bind(kernel, cover, names, path, options)
        kernel.mount_setattr(cover, set_=options.set_)
        posix.close(cover)
        posix.close(target)

    def _unified_tree(self, kernel: Kernel, options: Options) -> int:
        try:
            return kernel.new_mount("cgroup2", "cgroup2", options.file_system, options.set_)
        except PermissionError:
            tree = kernel.open_tree(AT_FDCWD, self.unified, recursive=False)
            kernel.mount_setattr(tree, set_=options.set_)
            return tree

    @staticmethod
    def _bind(kernel: Kernel, cover: int, names: str, path: str, options: Options) -> None:
        name = names.removeprefix("name=") or "unified"
        posix.mkdir(name, 0o755, dir_fd=cover)
        below = kernel.openat2(cover, name, paths.O_PATH, 0)
        tree = kernel.open_tree(AT_FDCWD, path, recursive=False)
        kernel.mount_setattr(tree, set_=options.set_)
        kernel.move_mount(tree, below)
        posix.close(tree)
        posix.close(below)
        for single in name.split(",") if "," in name else []:
            posix.symlink(name, single, dir_fd=cover)


def _pause(seconds: float) -> None:
    time.sleep(seconds)


def _ancestry(path: str) -> list[str]:
    """A directory and those above it, the topmost first."""
    names = path.split("/")
    return ["/".join(names[:depth]) for depth in range(2, len(names) + 1)]


def _tree(directory: str) -> list[str]:
    """A directory and all below it, parents first."""
    found = [directory]
    try:
        # A cgroup has two links, and one more for each below it: most have none, and many files.
        if posix.stat(directory).st_nlink <= 2:
            return found
        for name in posix.listdir(directory):
            path = f"{directory}/{name}"
            if posix.stat(path).st_mode & 0o170000 == 0o040000:
                found += _tree(path)
    except OSError:
        return found
    return found


def _remove(path: str) -> None:
    """Remove a cgroup; its last process may take a moment to be gone."""
    for attempt in range(200):
        try:
            posix.rmdir(path)
        except FileNotFoundError:
            return
        except OSError as exc:
            if exc.errno != _EBUSY:
                raise RunError(f"cgroup {path}: {exc.strerror}") from exc
            _pause(0.0005 if attempt < 20 else 0.01)
        else:
            return
    raise RunError(f"cgroup {path} is still in use")


def write_setting(path: str, value: str) -> None:
    """Write a value to a file of a cgroup.

    Raises:
        RunError: the file is not there, or the kernel refuses the value.
    """
    try:
        fd = posix.open(path, posix.O_WRONLY | CLOEXEC)
        try:
            posix.write(fd, value.encode())
        finally:
            posix.close(fd)
    except OSError as exc:
        raise RunError(f"cgroup: {path} = {value}: {exc.strerror}") from exc


def for_container(config: dict[str, Any], container_id: str) -> Cgroup:
    """The cgroup that a container is to have; nothing is made yet."""
    linux = config.get("linux") or {}
    directories = {}
    for hierarchy in hierarchies(_text("/proc/self/mountinfo"), _text("/proc/self/cgroup")):
        directories[",".join(hierarchy.controllers)] = place(
            hierarchy, linux.get("cgroupsPath"), container_id
        )
    return Cgroup(directories, [])
