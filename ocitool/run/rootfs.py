"""The container's root file system: devices, masks and the change of root."""

from __future__ import annotations

import posix

from ocitool.errors import RunError

from . import paths
from .kernel import (
    AT_FDCWD,
    ATTR_RDONLY,
    CLOEXEC,
    MNT_DETACH,
    MS_PRIVATE,
    MS_REC,
    MS_SLAVE,
)
from .mountoptions import PROPAGATION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .kernel import Kernel

_KINDS = {"c": 0o020000, "u": 0o020000, "b": 0o060000, "p": 0o010000}
# config-linux.md, "Default Devices": "the runtime MUST also supply the following default devices".
DEFAULT_DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
_NULL_DEVICE = (1 << 8) | 3


def detach_from_host(kernel: Kernel, propagation: str) -> None:
    """Stop mounts made here from reaching the host's mount namespace (RN-19).

    What is to be shared with the host was opened before (see `trees`), and what the root does for the
    containers inside is decided after the change of root.
    """
    kernel.propagate("/", (MS_PRIVATE if propagation in ("private", "rprivate") else MS_SLAVE) | MS_REC)


def enter_root(kernel: Kernel, rootfs: str, propagation: str) -> int:
    """Make the root file system a mount of its own, and open it.

    With `rootfsPropagation` "slave" it "receives propagation events from the host".

    Raises:
        RunError: the directory is not there.
    """
    try:
        tree = kernel.open_tree(AT_FDCWD, rootfs, recursive=True)
        fd = kernel.openat2(AT_FDCWD, rootfs, paths.O_PATH | posix.O_DIRECTORY, 0)
        if propagation not in ("slave", "rslave"):
            kernel.mount_setattr(tree, propagation=MS_PRIVATE)
        kernel.move_mount(tree, fd)
    except OSError as exc:
        raise RunError(f"root file system {rootfs}: {exc.strerror}") from exc
    posix.close(fd)
    return tree


def open_null(kernel: Kernel) -> int:
    """Open the host's /dev/null as the source of masks, and prove that it is that (CVE-2025-31133)."""
    fd = kernel.openat2(AT_FDCWD, "/dev/null", paths.O_PATH | posix.O_NOFOLLOW, 0)
    info = posix.fstat(fd)
    if info.st_mode & 0o170000 != 0o020000 or info.st_rdev != _NULL_DEVICE:
        raise RunError("/dev/null of the host is not the null device")
    return fd


def make_devices(kernel: Kernel, root: int, devices: list[dict[str, Any]], *, bind: bool) -> None:
    """Make the default devices and the configured ones.

    Args:
        kernel: the kernel.
        root: descriptor of the container's root.
        devices: `linux.devices`.
        bind: take the host's nodes by bind mount, because a user namespace may not make any.

    Raises:
        RunError: one of them cannot be made, or stands there as something else.
    """
    listed = {paths.same_names(device["path"]) for device in devices}
    defaults = [
        {"path": f"/dev/{name}", "type": "c", "major": major, "minor": minor}
        for name, (major, minor) in DEFAULT_DEVICES.items()
        if f"/dev/{name}" not in listed
    ]
    directories: dict[str, int] = {}
    try:
        for device in [*defaults, *devices]:
            _device(kernel, root, device, directories, bind=bind)
        dev = _directory(kernel, root, "/dev", directories)
        # runtime-linux.md: "MUST create the following symlinks if the source file exists after processing
        # mounts"
        links = _LINKS if paths.exists(kernel, root, "/proc/self/fd") else {}
        for name, target in {**links, "ptmx": "pts/ptmx"}.items():
            _link(dev, name, target)
    finally:
        for fd in directories.values():
            posix.close(fd)


def _directory(kernel: Kernel, root: int, path: str, opened: dict[str, int]) -> int:
    """Open a directory for devices, once for all that are made in it."""
    if path not in opened:
        opened[path] = paths.made_directory(kernel, root, path)
    return opened[path]


def _device(
    kernel: Kernel, root: int, device: dict[str, Any], directories: dict[str, int], *, bind: bool
) -> None:
    path = paths.same_names(device["path"])
    try:
        if bind or not _make_device(kernel, root, path, device, directories):
            _bind_device(kernel, root, path, device)
    except OSError as exc:
        raise RunError(f"device {path}: {exc.strerror}") from exc


def _bind_device(kernel: Kernel, root: int, path: str, device: dict[str, Any]) -> None:
    tree = kernel.open_tree(AT_FDCWD, path, recursive=False)
    if not _is_device(posix.fstat(tree), device):
        raise RunError(f"device {path}: what the host has there is not the device asked for")
    target = paths.made_file(kernel, root, path)
    kernel.move_mount(tree, target)
    posix.close(target)
    posix.close(tree)


def _number(device: dict[str, Any]) -> int:
    return posix.makedev(device.get("major", 0), device.get("minor", 0)) if device["type"] != "p" else 0


def _is_device(info: posix.stat_result, device: dict[str, Any]) -> bool:
    number = _number(device)
    return info.st_mode & 0o170000 == _KINDS[device["type"]] and (not number or info.st_rdev == number)


def _make_device(
    kernel: Kernel, root: int, path: str, device: dict[str, Any], directories: dict[str, int]
) -> bool:
    """Make a device node; whether that was allowed.

    The rules of a cgroup of version 2 that deny a device altogether deny making it too.
    """
    directory, _, name = path.rpartition("/")
    parent = _directory(kernel, root, directory, directories)
    mode = device.get("fileMode", 0o666) & 0o7777
    try:
        posix.mknod(name, _KINDS[device["type"]] | mode, _number(device), dir_fd=parent)
        # The mask is 0, but an ACL of the directory could still have changed the mode.
        posix.chown(name, device.get("uid", 0), device.get("gid", 0), dir_fd=parent, follow_symlinks=False)
    except FileExistsError:
        # "If a file already exists at path that does not match the requested device, the runtime MUST
        # generate an error."
        if not _is_device(posix.stat(name, dir_fd=parent, follow_symlinks=False), device):
            raise RunError(f"{path} exists in the root file system and is not the device asked for") from None
    except PermissionError:
        return False
    return True


def _link(directory: int, name: str, target: str) -> None:
    try:
        posix.symlink(target, name, dir_fd=directory)
    except FileExistsError:
        return


def hide(kernel: Kernel, root: int, masked: list[str], null: int) -> None:
    """Mask paths: a file by the null device, a directory by an empty read-only tmpfs.

    "maskedPaths ... will mask over the provided paths inside the container so that they cannot be
    read." What does not exist needs no mask.
    """
    for path in dict.fromkeys(paths.same_names(path) for path in masked):
        try:
            target = paths.opened_exactly(kernel, root, path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as exc:
            raise RunError(f"masked path {path}: {exc.strerror}") from exc
        if paths.is_directory(target):
            tree = kernel.new_mount("tmpfs", "tmpfs", ["nr_blocks=1", "nr_inodes=2", "mode=555"], ATTR_RDONLY)
        else:
            tree = kernel.open_tree(null, "", recursive=False)
        kernel.move_mount(tree, target)
        posix.close(tree)
        posix.close(target)


def freeze(kernel: Kernel, root: int, readonly: list[str]) -> None:
    """Make paths read-only, with everything mounted below them ("readonlyPaths")."""
    for path in dict.fromkeys(paths.same_names(path) for path in readonly):
        try:
            target = paths.opened_exactly(kernel, root, path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as exc:
            raise RunError(f"read-only path {path}: {exc.strerror}") from exc
        tree = kernel.open_tree(target, "", recursive=True)
        kernel.mount_setattr(tree, set_=ATTR_RDONLY, recursive=True)
        kernel.move_mount(tree, target)
        posix.close(tree)
        posix.close(target)


def change_root(kernel: Kernel, root: int) -> None:
    """Make `root` the root of this mount namespace, and let go of the host's tree."""
    old = posix.open("/", paths.O_PATH | CLOEXEC)
    posix.fchdir(root)
    kernel.pivot_root(".", ".")
    # The old root lies on top of the new one now. First cut its propagation, or the host would lose
    # its mounts; then let it go, with everything on it.
    posix.fchdir(old)
    posix.close(old)
    kernel.propagate(".", MS_SLAVE | MS_REC)
    kernel.umount(".", MNT_DETACH)
    posix.chdir("/")


def change_root_by_moving(kernel: Kernel, root: int) -> None:
    """Change the root without pivot_root, for a host whose root is an initramfs (`--no-pivot`)."""
    posix.fchdir(root)
    kernel.call("mount", b".", b"/", None, 0x2000, None)
    posix.chroot(".")
    posix.chdir("/")


def finish_root(kernel: Kernel, propagation: str, *, readonly: bool) -> None:
    """Give the root its propagation and, with `root.readonly`, its attribute; after everything else in it."""
    if propagation:
        kernel.propagate("/", PROPAGATION[propagation] & ~MS_REC)
    if readonly:
        fd = posix.open("/", paths.O_PATH | CLOEXEC)
        kernel.mount_setattr(fd, set_=ATTR_RDONLY)
        posix.close(fd)
