"""Bind mounts that the parent opens for the child: those out of its reach, and id-mapped ones."""

from __future__ import annotations

import posix

from ocitool.errors import RunError

from . import namespaces
from .kernel import AT_FDCWD, CLOEXEC, MS_SLAVE
from .mountoptions import Options
from .mounts import idmapped, source_of

# The interpreter's own way out would run the parent's exit handlers in the child.
posix_exit = posix._exit  # noqa: SLF001 - public in spite of its name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .kernel import Kernel


def open_trees(
    kernel: Kernel, config: dict[str, Any], bundle: str, *, userns: bool, shares: bool
) -> dict[int, int]:
    """Open the bind mounts that the child could not open itself.

    With a user namespace, root's own directories are closed to the child; a mount can only be id-mapped with
    the rights of the namespace that it comes from; and the child's own tree is not the host's peer any more.

    Args:
        kernel: the kernel.
        config: the whole config.json.
        bundle: the bundle's directory.
        userns: whether the container has a user namespace.
        shares: whether mounts that are to be shared are shared with the host.
    """
    trees = {}
    for position, mount in enumerate(config.get("mounts") or []):
        options = Options(mount.get("options") or [])
        shared = shares and options.shared and not userns
        if not options.bind or not (userns or shared or options.idmap or mount.get("uidMappings")):
            continue
        try:
            tree = kernel.open_tree(AT_FDCWD, source_of(mount, bundle), recursive=options.recursive)
            if not shared:
                # It is a peer of the host's mount until told otherwise.
                kernel.mount_setattr(tree, propagation=MS_SLAVE, recursive=True)
            if options.idmap or mount.get("uidMappings"):
                _map_tree(kernel, tree, mount, config["linux"], options)
        except OSError as exc:
            mapped = options.idmap or mount.get("uidMappings")
            if isinstance(exc, PermissionError) and not mapped and not namespaces.is_host_root():
                continue  # these mounts are not ours to clone, and the child can reach what we can
            raise RunError(
                f"mount {mount['destination']} from {mount.get('source')}: {exc.strerror}"
            ) from exc
        trees[position] = tree
    return trees


def _map_tree(
    kernel: Kernel, tree: int, mount: dict[str, Any], linux: dict[str, Any], options: Options
) -> None:
    own = mount if mount.get("uidMappings") else linux
    userns = user_namespace(kernel, own.get("uidMappings") or [], own.get("gidMappings") or [])
    try:
        idmapped(kernel, tree, userns, recursive=options.idmap == "ridmap")
    finally:
        posix.close(userns)


def user_namespace(kernel: Kernel, uids: list[dict[str, Any]], gids: list[dict[str, Any]]) -> int:
    """A user namespace with these mappings, and nobody in it; its mappings are what is wanted of it."""
    reading, writing = posix.pipe2(posix.O_CLOEXEC)
    pid = kernel.clone(namespaces.USER)
    if pid == 0:
        posix.close(writing)
        posix.read(reading, 1)
        posix_exit(0)
    posix.close(reading)
    try:
        namespaces.write_maps(pid, uids, gids)
        return posix.open(f"/proc/{pid}/ns/user", posix.O_RDONLY | CLOEXEC)
    finally:
        posix.close(writing)
        posix.waitpid(pid, 0)
