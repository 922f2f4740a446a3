"""The `mounts` of config.json, made one by one on descriptors inside the root (config.md, "Mounts").

Every mount is first made detached (fsopen and fsmount, or open_tree) and then attached to the
descriptor of its destination. No mount is ever made on a path that could be swapped meanwhile.
"""

from __future__ import annotations

import posix

from ocitool.errors import InvalidContent, RunError, UnsafeContent, Unsupported

from . import newcgroup, paths
from .kernel import AT_FDCWD, ATTR_IDMAP, ATTR_RDONLY, MS_REC, PROC_SUPER_MAGIC, filesystem_type
from .mountoptions import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .cgroups import Cgroup
    from .kernel import Kernel

_EPERM, _EINVAL = 1, 22
# A file below /proc that a container may have replaced, because tools that lie about the host's
# resources do so. Anything else there would redirect writes that the runtime makes (CVE-2019-16884).
_REPLACEABLE = frozenset(
    "/proc/" + name
    for name in (
        "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev",
        "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled",
    )
)  # fmt: skip
# One instance for a whole namespace: making that one read-only would reach others.
_SHARED_INSTANCES = frozenset({"proc", "sysfs", "cgroup", "cgroup2", "mqueue", "tmpfs", "devpts"})


class Surroundings:
    """What the mounts of one container need to know besides their own entry.

    Attributes:
        kernel: the kernel.
        root: descriptor of the root of the container.
        bundle: the bundle's absolute path, from which relative sources are taken.
        userns: whether the container has a user namespace of its own.
        gids: the mapped range check for group ids.
        trees: detached mounts made by the parent, by position in the list.
        label: `linux.mountLabel`, or "".
        cgroup: the container's cgroup, or None.
        cgroup_namespace: whether the container has a cgroup namespace of its own.
    """

    def __init__(self, kernel: Kernel, root: int, bundle: str) -> None:
        self.kernel = kernel
        self.root = root
        self.bundle = bundle
        self.userns = False
        self.gid_mappings: list[dict[str, Any]] = []
        self.trees: dict[int, int] = {}
        self.label = ""
        self.cgroup: Cgroup | None = None
        self.cgroup_namespace = False


def mount_all(around: Surroundings, mounts: list[dict[str, Any]]) -> None:
    """Make every mount, "in the listed order".

    Raises:
        RunError: one of them is refused by the kernel.
        InvalidContent, UnsafeContent: its entry, or the root, does not allow it.
        Unsupported: it would hide the root.
    """
    for position, mount in enumerate(mounts):
        try:
            _mount(around, mount, Options(mount.get("options") or []), around.trees.get(position, -1))
        except OSError as exc:
            said = "; ".join(getattr(exc, "__notes__", []))
            raise RunError(
                f"mount {mount['destination']} ({mount.get('type') or 'bind'}"
                f" from {mount.get('source') or 'nowhere'}): {exc.strerror}" + (f" ({said})" if said else "")
            ) from exc


def _mount(around: Surroundings, mount: dict[str, Any], options: Options, tree: int) -> None:
    destination = paths.same_names(mount["destination"])
    fstype = "bind" if options.bind else mount.get("type") or "none"
    if "remount" in (mount.get("options") or []):
        _remount(around, destination, options)
    elif destination == "/":
        # Everything after it goes by the descriptor of the root, so nobody would ever see it.
        raise Unsupported("a mount on / would hide the root file system", hint="name it as root.path instead")
    elif options.bind:
        _bind(around, mount, destination, options, tree)
    elif around.cgroup is not None and (
        fstype == "cgroup" or (fstype == "cgroup2" and around.cgroup.pure_v2)
    ):
        newcgroup.mount(around.cgroup, around, destination, options)
    else:
        _file_system(around, mount, destination, options, fstype)


def source_of(mount: dict[str, Any], bundle: str) -> str:
    """The source of a bind mount: "absolute or relative to the bundle"."""
    source: str = mount.get("source") or ""
    if not source:
        raise InvalidContent(f"the bind mount on {mount['destination']} has no source")
    return source if source.startswith("/") else f"{bundle}/{source}"


def _bind(around: Surroundings, mount: dict[str, Any], destination: str, options: Options, tree: int) -> None:
    kernel = around.kernel
    if tree < 0:
        tree = kernel.open_tree(AT_FDCWD, source_of(mount, around.bundle), recursive=options.recursive)
    try:
        target = target_for(around, tree, destination)
        _check_proc(kernel, destination, target, "bind", tree)
        attach(kernel, tree, target, options)
    finally:
        posix.close(tree)


def target_for(around: Surroundings, tree: int, destination: str) -> int:
    """Open the destination of a bind mount, made as a directory or a file as its source is."""
    if paths.is_directory(tree):
        return paths.made_directory(around.kernel, around.root, destination)
    return paths.made_file(around.kernel, around.root, destination)


def attach(kernel: Kernel, tree: int, target: int, options: Options) -> None:
    """Give a detached mount its attributes, and move it onto `target`, which is closed."""
    try:
        _set_attributes(kernel, tree, options.set_, options.clear, recursive=False)
        _set_attributes(kernel, tree, options.set_below, options.clear_below, recursive=True)
        kernel.move_mount(tree, target)
        # Only an attached mount can be shared.
        for change in options.propagation:
            kernel.mount_setattr(tree, propagation=change & ~MS_REC, recursive=bool(change & MS_REC))
    finally:
        posix.close(target)


def _set_attributes(kernel: Kernel, tree: int, set_: int, clear: int, *, recursive: bool) -> None:
    if not set_ | clear:
        return
    try:
        kernel.mount_setattr(tree, set_=set_, clear=clear, recursive=recursive)
    except PermissionError:
        # In a user namespace the flags that the source has are locked: they stay, and the rest is set.
        kernel.mount_setattr(tree, set_=set_, recursive=recursive)


def _remount(around: Surroundings, destination: str, options: Options) -> None:
    fd = paths.opened(around.kernel, around.root, destination)
    try:
        _set_attributes(around.kernel, fd, options.set_, options.clear, recursive=False)
    finally:
        posix.close(fd)


def _file_system(
    around: Surroundings, mount: dict[str, Any], destination: str, options: Options, fstype: str
) -> None:
    kernel = around.kernel
    # A tmpfs over a directory of the image has its mode; over one that is made for it, its own (1777), unless
    # it is to be a copy.
    covers = fstype == "tmpfs" and (options.copy_up or paths.exists(kernel, around.root, destination))
    target = _directory(around, destination, fstype)
    try:
        _check_proc(kernel, destination, target, fstype, -1)
        data = _data(around, options, fstype, target if covers else -1)
        attributes = options.set_
        late = attributes & ATTR_RDONLY if options.copy_up else 0
        try:
            tree = kernel.new_mount(fstype, mount.get("source") or "none", data, attributes & ~late)
        except PermissionError:
            if fstype not in ("proc", "sysfs"):
                raise
            # A user namespace may not mount a fresh one where the outer one has parts covered, or
            # (sysfs) where the network namespace is not its own. The outer one shows no more than that.
            tree = kernel.open_tree(AT_FDCWD, "/proc" if fstype == "proc" else "/sys", recursive=True)
            kernel.mount_setattr(tree, set_=attributes, recursive=False)
        if options.copy_up:
            _copy_up(kernel, target, tree)
        options.set_, options.clear = late, 0
        attach(kernel, tree, posix.dup(target), options)
        posix.close(tree)
    finally:
        posix.close(target)


def _directory(around: Surroundings, destination: str, fstype: str) -> int:
    """The descriptor of a destination for a file system."""
    if fstype in ("proc", "sysfs"):
        # A link would let an image choose what the runtime takes for /proc (CVE-2019-19921).
        try:
            return paths.opened_exactly(around.kernel, around.root, destination)
        except FileNotFoundError:
            pass
        except OSError as exc:
            raise UnsafeContent(
                f"{destination} in the root file system is a symbolic link: {fstype} must be mounted on an"
                " ordinary directory"
            ) from exc
    return paths.made_directory(around.kernel, around.root, destination)


def _data(around: Surroundings, options: Options, fstype: str, covered: int) -> list[str]:
    """The options for the file system itself; `covered` is a directory whose mode it takes, or -1."""
    data = list(options.file_system)
    if covered >= 0 and not any(item.startswith("mode=") for item in data):
        data.append(f"mode={posix.fstat(covered).st_mode & 0o7777:o}")
    if fstype == "devpts" and around.userns:
        # The usual gid=5 is refused where that group has no meaning.
        data = [
            item
            for item in data
            if not item.startswith("gid=") or _mapped(around.gid_mappings, int(item[4:]))
        ]
    if options.set_ & ATTR_RDONLY and fstype not in _SHARED_INSTANCES:
        data.append("ro")
    if around.label and fstype not in ("proc", "sysfs"):
        data.append(f"context={around.label}")
    return data


def _mapped(mappings: list[dict[str, Any]], value: int) -> bool:
    return any(entry["containerID"] <= value < entry["containerID"] + entry["size"] for entry in mappings)


def _check_proc(kernel: Kernel, destination: str, target: int, fstype: str, tree: int) -> None:
    """Refuse what would put something else in the place of /proc, or of a part of it."""
    named_below = destination == "/proc" or destination.startswith("/proc/")
    if not named_below and filesystem_type(kernel, target) != PROC_SUPER_MAGIC:
        return
    if destination in _REPLACEABLE:
        return
    if destination == "/proc" and (
        fstype == "proc" or (tree >= 0 and filesystem_type(kernel, tree) == PROC_SUPER_MAGIC)
    ):
        return
    raise UnsafeContent(
        f"the mount on {destination} would cover a part of /proc",
        hint="only /proc itself (type proc) and files such as /proc/meminfo can be mounted there",
    )


def binds_dev(mounts: list[dict[str, Any]]) -> bool:
    """Whether the container's /dev is a directory of the host's, in which nothing must be made."""
    return any(
        paths.same_names(mount["destination"]) == "/dev" and Options(mount.get("options") or []).bind
        for mount in mounts
    )


def _copy_up(kernel: Kernel, source: int, tree: int) -> None:
    """Fill a fresh tmpfs (`tree`) with the content of the directory that it will cover.

    Both are walked by descriptor; the copy needs no room to move, so links are copied as links.
    """
    copy_directory(kernel, source, tree)
    info, top = posix.fstat(source), kernel.openat2(tree, ".", posix.O_RDONLY | posix.O_DIRECTORY, 0)
    posix.fchown(top, info.st_uid, info.st_gid)
    posix.close(top)


def copy_directory(kernel: Kernel, source: int, target: int) -> None:
    """Copy regular files, directories and symbolic links, with modes and owners, between two descriptors."""
    reading = kernel.openat2(source, ".", posix.O_RDONLY | posix.O_DIRECTORY, 0)
    try:
        for name in posix.listdir(reading):
            _copy_entry(kernel, name, reading, target)
    finally:
        posix.close(reading)


def _copy_entry(kernel: Kernel, name: str, source: int, target: int) -> None:
    info = posix.stat(name, dir_fd=source, follow_symlinks=False)
    kind = info.st_mode & 0o170000
    if kind == 0o120000:
        posix.symlink(posix.readlink(name, dir_fd=source), name, dir_fd=target)
    elif kind == 0o040000:
        posix.mkdir(name, info.st_mode & 0o7777, dir_fd=target)
        below = [
            posix.open(name, paths.O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=fd)
            for fd in (source, target)
        ]
        copy_directory(kernel, below[0], below[1])
        for fd in below:
            posix.close(fd)
    elif kind == 0o100000:
        read = posix.open(name, posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=source)
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
        write = posix.open(name, flags, info.st_mode & 0o7777, dir_fd=target)
        while posix.sendfile(write, read, None, 1 << 20):
            pass
        posix.close(read)
        posix.close(write)
    else:
        return
    posix.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
    if kind != 0o120000:
        posix.chmod(name, info.st_mode & 0o7777, dir_fd=target)


def idmapped(kernel: Kernel, tree: int, userns: int, *, recursive: bool) -> None:
    """Apply the mappings of a user namespace to a detached mount."""
    kernel.mount_setattr(tree, set_=ATTR_IDMAP, userns=userns, recursive=recursive)
