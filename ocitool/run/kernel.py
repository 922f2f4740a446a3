"""Linux, and the numbers by which it is called.

`Linux` calls the system call numbers directly through `_ctypes`: importing `ctypes` costs 4 ms, and
a C library that is older than the kernel lacks half of the wrappers.
"""

# ruff: noqa: D102 - what the methods of `Linux` do is said in `Kernel` (see `interface`)
from __future__ import annotations

import posix
from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_USE_ERRNO,
    CFuncPtr,
    _SimpleCData,
    addressof,
    dlopen,
    dlsym,
    get_errno,
)

from ocitool.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from .interface import Kernel as Kernel  # noqa: PLC0414 - the others take it from here

SIGCHLD = 17
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

CLONE_FILES = 0x400
CLONE_PARENT = 0x8000
CLONE_INTO_CGROUP = 0x200000000

# openat2(2), `resolve`
NO_XDEV = 0x01
NO_MAGICLINKS = 0x02
NO_SYMLINKS = 0x04
IN_ROOT = 0x10

# mount_setattr(2) and fsmount(2)
ATTR_RDONLY = 0x1
ATTR_NOSUID = 0x2
ATTR_NODEV = 0x4
ATTR_NOEXEC = 0x8
ATTR_ATIME = 0x70
ATTR_NOATIME = 0x10
ATTR_STRICTATIME = 0x20
ATTR_NODIRATIME = 0x80
ATTR_IDMAP = 0x100000
ATTR_NOSYMFOLLOW = 0x200000

MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MNT_DETACH = 2

OPEN_TREE_CLONE = 1
CLOEXEC = 0o2000000
MOVE_EMPTY_PATHS = 0x44  # MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH

MADV_DONTNEED = 4

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
CLOSE_RANGE_CLOEXEC = 4

PROC_SUPER_MAGIC = 0x9FA0

# Numbers that differ between x86_64 and the architectures with the generic table.
_X86_64 = {
    "ioctl": 16, "madvise": 28, "signalfd4": 289, "socket": 41, "clone": 56, "fcntl": 72, "fstatfs": 138,
    "pivot_root": 155, "prctl": 157, "mount": 165, "umount2": 166, "sethostname": 170,
    "setdomainname": 171, "capget": 125, "capset": 126, "personality": 135, "set_mempolicy": 238,
    "keyctl": 250, "ioprio_set": 251, "unshare": 272, "prlimit64": 302, "setns": 308,
    "sched_setattr": 314, "seccomp": 317, "memfd_create": 319, "bpf": 321, "execveat": 322,
}  # fmt: skip
_GENERIC = {
    "ioctl": 29, "madvise": 233, "signalfd4": 74, "socket": 198, "clone": 220, "fcntl": 25, "fstatfs": 44,
    "pivot_root": 41, "prctl": 167, "mount": 40, "umount2": 39, "sethostname": 161, "setdomainname": 162,
    "capget": 90, "capset": 91, "personality": 92, "set_mempolicy": 237, "keyctl": 219, "ioprio_set": 30,
    "unshare": 97, "prlimit64": 261, "setns": 268, "sched_setattr": 274, "seccomp": 277,
    "memfd_create": 279, "bpf": 280, "execveat": 281,
}  # fmt: skip
_EVERYWHERE = {
    "pidfd_send_signal": 424, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431,
    "fsmount": 432, "pidfd_open": 434, "pidfd_getfd": 438, "clone3": 435, "close_range": 436,
    "openat2": 437, "mount_setattr": 442,
}  # fmt: skip
# The newest of them came with this release; what it is for has no older way that is as safe.
OLDEST = "the runtime needs Linux 5.12 or later"
_ENOSYS = 38
_THIS_PROGRAM: Any = None  # dlopen(3): the C library that is loaded already
_TABLES = {"x86_64": _X86_64, "aarch64": _GENERIC, "riscv64": _GENERIC}


if TYPE_CHECKING:
    _Simple = _SimpleCData[Any]
else:
    _Simple = _SimpleCData


class _Long(_Simple):
    _type_ = "l"


class _Byte(_Simple):
    _type_ = "c"


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = _Long


def _buffer(data: bytearray) -> Any:
    """A C array over the bytes of `data`."""
    return (_Byte * len(data)).from_buffer(data)


def _words(*values: int) -> bytes:
    """Values as unsigned 64-bit words; every machine of `_TABLES` is little-endian."""
    return b"".join([(value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little") for value in values])


class Linux:
    """`Kernel` on the machine's own kernel."""

    def __init__(self) -> None:
        machine = posix.uname().machine
        if machine not in _TABLES:
            raise Unsupported(
                f"the runtime does not know the system calls of {machine}",
                hint="hand the bundle to another runtime with --runtime",
            )
        self._numbers = {**_TABLES[machine], **_EVERYWHERE}
        self._syscall: Any = _Function(dlsym(dlopen(_THIS_PROGRAM, 0), "syscall"))

    def call(self, name: str, *args: Any) -> int:
        """Make a system call: integers, bytes (as a pointer), bytearrays (written to) and None.

        Raises:
            OSError: with the kernel's errno and the call's name.
            Unsupported: the kernel is too old to have the call, or a filter around us hides it.
        """
        words = [
            _Long(arg) if type(arg) is int else _buffer(arg) if type(arg) is bytearray else arg
            for arg in args
        ]
        result: int = self._syscall(_Long(self._numbers[name]), *words)
        if result == -1:
            code = get_errno()
            if code == _ENOSYS and name in _EVERYWHERE:
                raise Unsupported(f"this kernel has no {name}(2)", hint=OLDEST)
            raise OSError(code, posix.strerror(code), name)
        return result

    def clone(self, flags: int, cgroup: int = -1) -> int:
        if cgroup >= 0:
            # A sibling (CLONE_PARENT) gets the signal that we have; naming one is an error to clone3.
            signal = 0 if flags & CLONE_PARENT else SIGCHLD
            args = _words(flags | CLONE_INTO_CGROUP, 0, 0, 0, signal, 0, 0, 0, 0, 0, cgroup)
            return self.call("clone3", args, len(args))
        return self.call("clone", flags | SIGCHLD, 0, 0, 0, 0)

    def unshare(self, flags: int) -> None:
        self.call("unshare", flags)

    def setns(self, fd: int, flags: int) -> None:
        self.call("setns", fd, flags)

    def open_tree(self, fd: int, path: str, *, recursive: bool) -> int:
        flags = OPEN_TREE_CLONE | CLOEXEC | AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
        return self.call("open_tree", fd, _encode(path), flags)

    def move_mount(self, tree: int, target: int, path: str = "") -> None:
        self.call("move_mount", tree, b"", target, _encode(path), MOVE_EMPTY_PATHS)

    def new_mount(self, fstype: str, source: str, options: Sequence[str], attributes: int) -> int:
        context = self.call("fsopen", _encode(fstype), 1)
        try:
            if source:
                self.call("fsconfig", context, 1, b"source", _encode(source), 0)
            for option in options:
                key, has_value, value = option.partition("=")
                if has_value:
                    self.call("fsconfig", context, 1, _encode(key), _encode(value), 0)
                else:
                    self.call("fsconfig", context, 0, _encode(key), None, 0)
            self.call("fsconfig", context, 6, None, None, 0)
            return self.call("fsmount", context, 1, attributes)
        except OSError as exc:
            said = self._complaint(context)
            if said:
                exc.add_note(said)
            raise
        finally:
            posix.close(context)

    @staticmethod
    def _complaint(context: int) -> str:
        """What the file system said of its options, if it said anything."""
        try:
            # After a letter for how bad it is.
            return posix.read(context, 512).decode(errors="replace").strip()[2:]
        except OSError:
            return ""

    def mount_setattr(
        self, fd: int, *, set_: int = 0, clear: int = 0, propagation: int = 0, userns: int = 0,
        recursive: bool = False,
    ) -> None:  # fmt: skip
        args = _words(set_, clear, propagation, userns)
        flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
        self.call("mount_setattr", fd, b"", flags, args, len(args))

    def propagate(self, path: str, flags: int) -> None:
        self.call("mount", None, _encode(path), None, flags, None)

    def umount(self, path: str, flags: int) -> None:
        self.call("umount2", _encode(path), flags)

    def pivot_root(self, new: str, old: str) -> None:
        self.call("pivot_root", _encode(new), _encode(old))

    def openat2(self, fd: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
        how = _words(flags | CLOEXEC, mode, resolve)
        while True:
            try:
                return self.call("openat2", fd, _encode(path), how, len(how))
            except BlockingIOError:
                # EAGAIN: something was renamed or mounted meanwhile, and the walk could not be proved safe.
                continue

    def prctl(self, option: int, a: int = 0, b: int = 0, c: int = 0) -> int:
        return self.call("prctl", option, a, b, c, 0)

    def capget(self) -> tuple[int, int, int]:
        data = bytearray(24)
        self.call("capget", _CAPABILITY_HEADER, data)
        low, high = memoryview(data).cast("I")[:3].tolist(), memoryview(data).cast("I")[3:].tolist()
        effective, permitted, inheritable = (a | b << 32 for a, b in zip(low, high, strict=True))
        return effective, permitted, inheritable

    def capset(self, effective: int, permitted: int, inheritable: int) -> None:
        sets = (effective, permitted, inheritable)
        words = [value & 0xFFFFFFFF for value in sets] + [value >> 32 for value in sets]
        self.call("capset", _CAPABILITY_HEADER, _u32(*words))

    def set_ids(self, uid: int, gid: int, groups: Sequence[int] | None) -> None:
        if groups is not None:
            posix.setgroups(groups)
        posix.setresgid(gid, gid, gid)
        posix.setresuid(uid, uid, uid)

    def seccomp(self, program: bytes, flags: int) -> int:
        kept = _buffer(bytearray(program))
        # struct sock_fprog: a 16-bit count, padding, a pointer.
        return self.call("seccomp", 1, flags, _words(len(program) // 8, addressof(kept)))

    def prlimit(self, resource: int, soft: int, hard: int) -> None:
        self.call("prlimit64", 0, resource, _words(soft, hard), None)

    def hostname(self, name: str) -> None:
        data = _encode(name)
        self.call("sethostname", data, len(data))

    def domainname(self, name: str) -> None:
        data = _encode(name)
        self.call("setdomainname", data, len(data))

    def join_keyring(self, name: str) -> None:
        self.call("keyctl", 1, _encode(name), 0, 0, 0)

    def close_range(self, first: int, last: int, flags: int) -> None:
        self.call("close_range", first, last, flags)

    def execveat(self, fd: int, args: Sequence[str], env: Sequence[str]) -> NoReturn:
        kept = [[_buffer(bytearray(_encode(item) + b"\0")) for item in items] for items in (args, env)]
        argv, envp = (_words(*[addressof(item) for item in items], 0) for items in kept)
        self.call("execveat", fd, b"", argv, envp, AT_EMPTY_PATH)
        raise OSError(0, "execveat returned")  # it never does

    def ioctl(self, fd: int, request: int, argument: Any = 0) -> int:
        """Operate on a device."""
        return self.call("ioctl", fd, request, argument)


def address_of(data: bytes) -> tuple[Any, int]:
    """A copy of `data` that must be kept as long as the kernel may read it, and its address."""
    kept = _buffer(bytearray(data))
    return kept, addressof(kept)


def _u32(*values: int) -> bytes:
    return b"".join([value.to_bytes(4, "little") for value in values])


def _encode(text: str) -> bytes:
    """What a string that came from the kernel, or goes there, is in bytes: names need not be UTF-8."""
    return text.encode("utf-8", "surrogateescape")


_CAPABILITY_HEADER = _u32(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process


def filesystem_type(kernel: Kernel, fd: int) -> int:
    """The magic number of the file system that `fd` is on (fstatfs)."""
    data = bytearray(128)
    kernel.call("fstatfs", fd, data)
    return memoryview(data).cast("L")[0]
