"""The kernel as the runtime sees it: what tests record, and `kernel.Linux` does.

Everything that changes namespaces, mounts, identities or filters goes through `Kernel`, so that the
order of those calls can be recorded and tested without privileges. Plain file operations use `posix`.

Only the type checker reads this module: a runtime that starts has no time for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Kernel(Protocol):
    """The system calls that the runtime is made of. Every method raises `OSError` when refused."""

    def clone(self, flags: int, cgroup: int = -1) -> int:
        """Make a child as fork(2) does, in new namespaces, and in the v2 cgroup of that descriptor."""

    def unshare(self, flags: int) -> None:
        """Leave namespaces for new ones."""

    def setns(self, fd: int, flags: int) -> None:
        """Enter the namespaces of a namespace file or of a pidfd."""

    def open_tree(self, fd: int, path: str, *, recursive: bool) -> int:
        """Clone a mount (with those below it) as a detached one."""

    def move_mount(self, tree: int, target: int, path: str = "") -> None:
        """Attach a detached mount on what `target` is open on."""

    def new_mount(self, fstype: str, source: str, options: Sequence[str], attributes: int) -> int:
        """Make a detached mount of a file system (fsopen, fsconfig, fsmount)."""

    def mount_setattr(
        self, fd: int, *, set_: int = 0, clear: int = 0, propagation: int = 0, userns: int = 0,
        recursive: bool = False,
    ) -> None:  # fmt: skip
        """Change the attributes of a mount."""

    def propagate(self, path: str, flags: int) -> None:
        """Change the propagation of the mount at a path (mount(2))."""

    def umount(self, path: str, flags: int) -> None:
        """Detach what is mounted at a path."""

    def pivot_root(self, new: str, old: str) -> None:
        """Make `new` the root, and put the old one at `old`."""

    def openat2(self, fd: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
        """Open a path, resolved under the given restrictions."""

    def prctl(self, option: int, a: int = 0, b: int = 0, c: int = 0) -> int:
        """Operate on the calling process."""

    def capget(self) -> tuple[int, int, int]:
        """Effective, permitted and inheritable sets of the calling process."""

    def capset(self, effective: int, permitted: int, inheritable: int) -> None:
        """Set the three sets of the calling process."""

    def set_ids(self, uid: int, gid: int, groups: Sequence[int] | None) -> None:
        """Take supplementary groups (None: keep), then the group, then the user."""

    def seccomp(self, program: bytes, flags: int) -> int:
        """Load a filter; the descriptor of its listener, where the flags ask for one."""

    def prlimit(self, resource: int, soft: int, hard: int) -> None:
        """Set a resource limit of the calling process."""

    def hostname(self, name: str) -> None:
        """Set the host name of the UTS namespace."""

    def domainname(self, name: str) -> None:
        """Set the NIS domain name of the UTS namespace."""

    def join_keyring(self, name: str) -> None:
        """Start a new session keyring."""

    def close_range(self, first: int, last: int, flags: int) -> None:
        """Close, or mark to be closed on exec, a range of descriptors."""

    def execveat(self, fd: int, args: Sequence[str], env: Sequence[str]) -> NoReturn:
        """Execute the file that `fd` is open on."""

    def call(self, name: str, *args: Any) -> int:
        """Make any other system call by its name."""
