"""A container that "MUST inherit the runtime namespace" of mounts (config-linux.md, "Namespaces").

Its mounts are made in a namespace of their own, like anybody's, and then copied into a tree that belongs to
no namespace; the program has that tree as its root, and the host's namespace. So nothing of it is ever on the
host, where other runtimes leave such mounts behind. The kernel drops the tree with the last process in it,
however that ends. In such a tree nothing can be mounted or unmounted, and nothing arrives from other mounts.
"""

from __future__ import annotations

import posix

from ocitool.errors import InvalidContent, RunError, Unsupported

from .kernel import AT_FDCWD, CLOEXEC, MS_PRIVATE, MS_UNBINDABLE
from .mountoptions import PROPAGATION, Options
from .namespaces import MOUNT
from .paths import O_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container
    from typing import Any

    from .kernel import Kernel


def check(config: dict[str, Any], kinds: Container[str]) -> None:
    """Refuse what takes a mount namespace of the container's own.

    Args:
        config: the whole config.json.
        kinds: the types of the namespaces that it names.

    Raises:
        Unsupported: a user namespace: its root may copy the host's mount namespace, and has the host's root
            directory in the copy.
        InvalidContent: mounts that are to exchange events with others.
    """
    if "user" in kinds:
        raise Unsupported("config.json: a container with a user namespace needs a mount namespace, too")
    propagation = (config.get("linux") or {}).get("rootfsPropagation") or "private"
    _check_propagation("linux.rootfsPropagation", [PROPAGATION[propagation]])
    for mount in config.get("mounts") or []:
        changes = Options(mount.get("options") or []).propagation
        _check_propagation(f"the propagation of the mount on {mount['destination']}", changes)


def _check_propagation(where: str, changes: list[int]) -> None:
    if any(not change & (MS_PRIVATE | MS_UNBINDABLE) for change in changes):
        raise InvalidContent(
            f"config.json: {where} needs a mount namespace: without one, it can be private only"
        )


class Return:
    """The way back into the mount namespace of whoever makes this object."""

    def __init__(self) -> None:
        self._namespace = posix.open("/proc/self/ns/mnt", posix.O_RDONLY | CLOEXEC)

    def __call__(self, kernel: Kernel) -> None:
        """Leave the calling process's mount namespace, and keep what it has for a root."""
        tree = kernel.open_tree(AT_FDCWD, "/", recursive=True)
        kernel.setns(self._namespace, MOUNT)
        posix.fchdir(tree)
        posix.chroot(".")
        for fd in (tree, self._namespace):
            posix.close(fd)


def root_of(pid: int) -> int:
    """The root directory of a process that is in our own mount namespace, for a further process beside it.

    Raises:
        RunError: it is out of reach.
    """
    try:
        return posix.open(f"/proc/{pid}/root", O_PATH | posix.O_DIRECTORY | CLOEXEC)
    except OSError as exc:
        raise RunError(f"the root directory of process {pid}: {exc.strerror}") from exc
