"""A kernel that only remembers what it was asked, so that order can be tested without privileges."""

from __future__ import annotations

import posix
from collections.abc import Sequence
from typing import Any, NoReturn


class Executed(Exception):
    """The program was reached."""


class RecordingKernel:
    """A `Kernel` that records.

    Attributes:
        calls: every call as (name, arguments), in order.
        refuse: errno by the name of a call that is to fail.
        held: the permitted capabilities of the pretended process.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.refuse: dict[str, int] = {}
        self.held = (1 << 41) - 1

    def _record(self, name: str, *arguments: Any) -> int:
        self.calls.append((name, arguments))
        if name in self.refuse:
            raise OSError(self.refuse[name], posix.strerror(self.refuse[name]), name)
        return 0

    def _fd(self, name: str, *arguments: Any) -> int:
        """A call that returns a descriptor gives a real one, which may be closed."""
        self._record(name, *arguments)
        return posix.open("/dev/null", posix.O_RDONLY | posix.O_CLOEXEC)

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def clone(self, flags: int, cgroup: int = -1) -> int:
        return self._record("clone", flags, cgroup) or 4242

    def unshare(self, flags: int) -> None:
        self._record("unshare", flags)

    def setns(self, fd: int, flags: int) -> None:
        self._record("setns", fd, flags)

    def open_tree(self, fd: int, path: str, *, recursive: bool) -> int:
        return self._fd("open_tree", path, recursive)

    def move_mount(self, tree: int, target: int, path: str = "") -> None:
        self._record("move_mount")

    def new_mount(self, fstype: str, source: str, options: Sequence[str], attributes: int) -> int:
        return self._fd("new_mount", fstype, source, list(options), attributes)

    def mount_setattr(
        self, fd: int, *, set_: int = 0, clear: int = 0, propagation: int = 0, userns: int = 0,
        recursive: bool = False,
    ) -> None:  # fmt: skip
        self._record("mount_setattr", set_, clear, propagation, recursive)

    def propagate(self, path: str, flags: int) -> None:
        self._record("propagate", path, flags)

    def umount(self, path: str, flags: int) -> None:
        self._record("umount", path, flags)

    def pivot_root(self, new: str, old: str) -> None:
        self._record("pivot_root", new, old)

    def openat2(self, fd: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
        self._record("openat2", path)
        return posix.open(path, flags | posix.O_CLOEXEC, mode, dir_fd=fd if fd >= 0 else None)

    def prctl(self, option: int, a: int = 0, b: int = 0, c: int = 0) -> int:
        if option == 24 and a > 40:
            raise OSError(22, "no such capability")
        return self._record("prctl", option, a)

    def capget(self) -> tuple[int, int, int]:
        return self.held, self.held, 0

    def capset(self, effective: int, permitted: int, inheritable: int) -> None:
        self._record("capset", effective, permitted, inheritable)

    def set_ids(self, uid: int, gid: int, groups: Sequence[int] | None) -> None:
        self._record("set_ids", uid, gid, groups)

    def seccomp(self, program: bytes, flags: int) -> int:
        return self._record("seccomp", program, flags)

    def prlimit(self, resource: int, soft: int, hard: int) -> None:
        self._record("prlimit", resource, soft, hard)

    def hostname(self, name: str) -> None:
        self._record("hostname", name)

    def domainname(self, name: str) -> None:
        self._record("domainname", name)

    def join_keyring(self, name: str) -> None:
        self._record("join_keyring", name)

    def close_range(self, first: int, last: int, flags: int) -> None:
        self._record("close_range", first, last, flags)

    def execveat(self, fd: int, args: Sequence[str], env: Sequence[str]) -> NoReturn:
        self._record("execveat", list(args), list(env))
        raise Executed

    def call(self, name: str, *args: Any) -> int:
        if name == "memfd_create":
            return self._fd(name)
        if name == "fcntl":
            return 0
        return self._record(name, *args)
