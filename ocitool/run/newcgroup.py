"""Making a container's cgroup: where it is to be, its directories, its limits, and the mount that shows it.

The settings of `linux.resources` are worked out by `cgroup_v1` and `cgroup_v2`, which are pure.
"""

from __future__ import annotations

import posix

from ocitool.errors import Conflict, InvalidContent, RunError, Unsupported

from . import cgroup_v1, paths
from .cgroups import Cgroup, text, write_setting
from .kernel import AT_FDCWD, ATTR_RDONLY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .kernel import Kernel
    from .mountoptions import Options
    from .mounts import Surroundings

_EROFS = 30


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

    @property
    def base(self) -> str:
        """The cgroup from which relative paths start: our own, or, in version 2, the one above it.

        A cgroup of version 2 that holds processes gives no controllers to those below it, and ours
        holds at least us. Who may not write above it has no choice.
        """
        above = self.own.rpartition("/")[0]
        free = self.unified and posix.access(f"{self.mount_point}{above}", posix.W_OK)
        return above if free else self.own


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
        if " - cgroup" not in line:
            continue
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


def place(hierarchy: Hierarchy, cgroups_path: str | None, container_id: str) -> str:
    """The directory of a container in a hierarchy (config-linux.md, "Cgroups Path").

    "In the case of an absolute path, the runtime MUST take the path to be relative to the cgroups
    mount point. In the case of a relative path, the runtime MAY interpret the path relative to a
    runtime-determined location": ours is `Hierarchy.base`.

    Raises:
        InvalidContent: the path has ".." in it (RN-16).
    """
    path = cgroups_path or f"ocitool-{container_id}"
    if ".." in path.split("/"):
        raise InvalidContent(f"linux.cgroupsPath {path!r} has '..' in it")
    if not path.startswith("/"):
        path = f"{hierarchy.base}/{path}"
    names = paths.parts(path)
    return "/".join([hierarchy.mount_point.rstrip("/"), *names])


def own_hierarchies() -> list[Hierarchy]:
    """The hierarchies that this process sees."""
    return hierarchies(text("/proc/self/mountinfo"), text("/proc/self/cgroup"))


def for_container(config: dict[str, Any], container_id: str) -> Cgroup:
    """The cgroup that a container is to have; nothing is made yet."""
    linux = config.get("linux") or {}
    found = Cgroup({}, [])
    for hierarchy in own_hierarchies():
        names = ",".join(hierarchy.controllers)
        found.directories[names] = place(hierarchy, linux.get("cgroupsPath"), container_id)
        if names and ".." not in hierarchy.own:
            found.outside[names] = f"{hierarchy.mount_point}{hierarchy.own}"
    return found


def plan(cgroup: Cgroup) -> None:
    """Note which directories are missing, so that whoever is killed while making them leaves a list."""
    cgroup.made = [directory for path in cgroup.directories.values() for directory in _missing(path)]


def _missing(path: str) -> list[str]:
    """A directory and those above it as far as they are not there, the topmost first."""
    found: list[str] = []
    while path and not posix.access(path, 0):
        found.insert(0, path)
        path = path.rpartition("/")[0]
    return found


def create(cgroup: Cgroup, *, optional: bool) -> None:
    """Make the directories.

    Args:
        cgroup: what is planned.
        optional: leave out the hierarchies that this user may not write to.

    Raises:
        Conflict: one of them holds processes or is frozen.
        RunError: one of them cannot be made.
    """
    for names, path in list(cgroup.directories.items()):
        try:
            _make(names, path)
        except OSError as exc:
            if (optional and isinstance(exc, PermissionError)) or exc.errno == _EROFS:
                del cgroup.directories[names]
                continue
            raise RunError(f"cgroup {path}: {exc.strerror}") from exc
    if cgroup.pure_v2:  # beside version 1 it only counts who is in it: no limit of ours is set there
        from . import cgroup_v2

        cgroup_v2.enable_controllers(cgroup.unified)
    cgroup.taken = True


def _make(names: str, path: str) -> None:
    if not make_directories(path, names.split(",")):
        _refuse_used(names, path)


def make_directories(path: str, controllers: list[str]) -> list[str]:
    """Make a directory in a hierarchy, and those above it; those that were missing, parents first.

    Raises:
        OSError: one of them can't be made.
    """
    made: list[str] = []
    try:
        posix.mkdir(path, 0o755)
    except FileExistsError:
        return made
    except FileNotFoundError:
        made = make_directories(path.rpartition("/")[0], controllers)
        posix.mkdir(path, 0o755)
    if "cpuset" in controllers:
        cgroup_v1.inherit_cpuset(path)
    return [*made, path]


def _refuse_used(names: str, path: str) -> None:
    if text(f"{path}/cgroup.procs").strip():
        raise Conflict(f"cgroup {path} holds processes of something else")
    frozen = f"{path}/freezer.state" if names == "freezer" else f"{path}/cgroup.freeze"
    if posix.access(frozen, 0) and text(frozen).strip() in ("FROZEN", "1"):
        raise Conflict(f"cgroup {path} is frozen: a process that entered it would hang")


def apply(cgroup: Cgroup, kernel: Kernel, resources: dict[str, Any], *, devices: bool = True) -> None:
    """Set `linux.resources`.

    Raises:
        RunError: the kernel refuses a value, or lacks what it needs.
    """
    settings = (
        _unified_settings(cgroup, kernel, resources, devices=devices)
        if cgroup.pure_v2
        else _settings(cgroup, resources, devices=devices)
    )
    for controller, name, *values in _together(settings):
        directory = cgroup.directory_of(controller) if controller else cgroup.unified
        if not directory:
            raise RunError(
                f"linux.resources: {name} = {values[0]} cannot be set, because this host (or this user) has"
                f" no {controller} controller"
            )
        if not controller:
            from . import cgroup_v2

            cgroup_v2.check_controller(directory, name)
        write_setting(f"{directory}/{name}", *values)


def _together(settings: cgroup_v1.Settings) -> list[list[str]]:
    """The same in the same order; what goes to one file in a row, such as rules for devices, is one entry."""
    found: list[list[str]] = []
    for *file, value in settings:
        if found and found[-1][:2] == file:
            found[-1].append(value)
        else:
            found.append([*file, value])
    return found


def give(cgroup: Cgroup, uid: int) -> None:
    """Change the owner of a version 2 cgroup (config-linux.md, "Cgroup ownership")."""
    if cgroup.pure_v2:
        from . import cgroup_v2

        cgroup_v2.give(cgroup.unified, uid)


def _unified_settings(
    cgroup: Cgroup, kernel: Kernel, resources: dict[str, Any], *, devices: bool
) -> cgroup_v1.Settings:
    from . import cgroup_v2

    _check_usage(cgroup, resources.get("memory") or {})
    found = [("", name, value) for name, value in cgroup_v2.settings(resources, _has_swap(cgroup))]
    if devices:
        cgroup_v2.attach_devices(kernel, cgroup.unified, resources.get("devices") or [])
    return found


def _settings(cgroup: Cgroup, resources: dict[str, Any], *, devices: bool) -> cgroup_v1.Settings:
    found = cgroup_v1.settings(resources, _has_swap(cgroup))
    if resources.get("unified"):
        raise Unsupported("linux.resources.unified needs a host with cgroup version 2")
    if devices and cgroup.directory_of("devices"):
        rules = cgroup_v1.device_settings(resources.get("devices") or [])
        found += [("devices", name, rule) for name, rule in rules]
    return found


def _check_usage(cgroup: Cgroup, memory: dict[str, Any]) -> None:
    """With `checkBeforeUpdate`, "MUST reject the limit if it is lower than the current usage".

    Version 1 refuses such a limit by itself; version 2 would end processes to reach it.
    """
    limit = memory.get("limit") or -1
    if memory.get("checkBeforeUpdate") and limit > 0:
        usage = int(text(f"{cgroup.unified}/memory.current"))
        if limit < usage:
            raise RunError(f"the memory limit {limit} is lower than the current usage {usage}")


def _has_swap(cgroup: Cgroup) -> bool:
    if cgroup.pure_v2:
        return posix.access(f"{cgroup.unified}/memory.swap.max", 0)
    directory = cgroup.directory_of("memory")
    return bool(directory) and posix.access(f"{directory}/memory.memsw.limit_in_bytes", 0)


def mount(cgroup: Cgroup, around: Surroundings, destination: str, options: Options) -> None:
    """Make the mount of type "cgroup": the directories that the container is in, and no others."""
    kernel = around.kernel
    target = paths.made_directory(kernel, around.root, destination)
    if not (cgroup.outside or any(cgroup.directories)):  # not a hierarchy of version 1
        tree = _unified_tree(cgroup, around, options)
        kernel.move_mount(tree, target)
        posix.close(tree)
        posix.close(target)
        return
    cover = kernel.new_mount("tmpfs", "tmpfs", ["mode=755"], options.set_ & ~1)
    kernel.move_mount(cover, target)
    for names, path in cgroup.directories.items():
        _bind(kernel, cover, names, path, 0)
    for names, path in cgroup.outside.items():
        if names not in cgroup.directories and posix.access(path, 0):
            _bind(kernel, cover, names, path, ATTR_RDONLY)  # it is not the container's (RN-16)
    kernel.mount_setattr(cover, set_=options.set_, recursive=True)
    posix.close(cover)
    posix.close(target)


def _unified_tree(cgroup: Cgroup, around: Surroundings, options: Options) -> int:
    kernel = around.kernel
    # A new mount from the host's namespace would give its options, such as no "nsdelegate", to the host's
    # as well.
    if around.cgroup_namespace:
        try:
            return kernel.new_mount("cgroup2", "cgroup2", options.file_system, options.set_)
        except PermissionError:
            pass
    shown = cgroup.unified
    if not (shown and around.cgroup_namespace):
        # Paths in /proc/self/cgroup are the host's here, so all of its hierarchy is shown.
        shown = next((each.mount_point for each in own_hierarchies() if each.unified), shown)
    tree = kernel.open_tree(AT_FDCWD, shown, recursive=False)
    kernel.mount_setattr(tree, set_=options.set_)
    return tree


def _bind(kernel: Kernel, cover: int, names: str, path: str, attributes: int) -> None:
    name = names.removeprefix("name=") or "unified"
    # Nobody else has been in this file system yet, so a name in it is as good as a descriptor.
    posix.mkdir(name, 0o755, dir_fd=cover)
    tree = kernel.open_tree(AT_FDCWD, path, recursive=False)
    if attributes:
        kernel.mount_setattr(tree, set_=attributes)
    kernel.move_mount(tree, cover, name)
    posix.close(tree)
    for single in name.split(",") if "," in name else []:
        posix.symlink(name, single, dir_fd=cover)
