"""Pseudo-terminals: the child's side (made in the container, never opened by name) and the parent's.

A path such as /dev/pts/0 or /dev/console could be a link of the image's (CVE-2025-52565): the slave
is taken from the master's descriptor with TIOCGPTPEER, and /dev/console is a mount of that.
"""

from __future__ import annotations

import posix

from ocitool.errors import RunError

from . import paths
from .kernel import CLOEXEC, IN_ROOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .kernel import Kernel

_TIOCSPTLCK, _TIOCGPTPEER, _TIOCSWINSZ, _TIOCGWINSZ, _TIOCSCTTY = 0x40045431, 0x5441, 0x5414, 0x5413, 0x540E
_TIOCGPTN = 0x80045430
_SOL_SOCKET, _SCM_RIGHTS = 1, 1
_TCGETS, _TCSETS = 0x5401, 0x5402


def give(kernel: Kernel, root: int, console: Any, process: dict[str, Any]) -> None:
    """Make a terminal in the container's devpts, put it on /dev/console, and become its session leader.

    Args:
        kernel: the kernel.
        root: descriptor of the container's root, with its devpts mounted.
        console: the socket to which the master is sent.
        process: `process`, for consoleSize and the owner.

    Raises:
        RunError: there is no devpts in the container, or the socket is gone.
    """
    try:
        master = kernel.openat2(root, "dev/pts/ptmx", posix.O_RDWR | posix.O_NOCTTY, IN_ROOT)
    except OSError as exc:
        raise RunError(f"terminal: /dev/pts/ptmx in the container: {exc.strerror}") from exc
    slave = _open_slave(kernel, master, process)
    target = paths.made_file(kernel, root, "dev/console")
    tree = kernel.open_tree(slave, "", recursive=False)
    kernel.move_mount(tree, target)
    for fd in (tree, target):
        posix.close(fd)
    _hand_over(kernel, master, slave, console)


def give_at(kernel: Kernel, root: int, console: Any, process: dict[str, Any]) -> None:
    """The same for a process in a root where nothing is to be mounted; /dev/console stays as it is.

    Args:
        kernel: the kernel.
        root: descriptor of the root that the process is about to have, or -1 where it has it already.
        console: the socket to which the master is sent.
        process: `process`, for consoleSize and the owner.

    Raises:
        RunError: there is no devpts, or the socket is gone.
    """
    try:
        master = _master_at(kernel, root)
    except OSError as exc:
        raise RunError(f"terminal: /dev/pts/ptmx in the container: {exc.strerror}") from exc
    _hand_over(kernel, master, _open_slave(kernel, master, process), console)


def _master_at(kernel: Kernel, root: int) -> int:
    flags = posix.O_RDWR | posix.O_NOCTTY
    if root >= 0:
        try:
            return kernel.openat2(root, "dev/pts/ptmx", flags, IN_ROOT)
        except FileNotFoundError:
            pass  # a changed root and nothing else: the host's terminals have to do
    return posix.open("/dev/pts/ptmx", flags | CLOEXEC)


def _open_slave(kernel: Kernel, master: int, process: dict[str, Any]) -> int:
    kernel.call("ioctl", master, _TIOCSPTLCK, bytes(4))
    slave = kernel.call("ioctl", master, _TIOCGPTPEER, posix.O_RDWR | posix.O_NOCTTY | CLOEXEC)
    size = process.get("consoleSize")
    if size:
        set_size(kernel, master, size["height"], size["width"])
    user = process.get("user") or {}
    _own(slave, user.get("uid", 0))
    return slave


def _own(slave: int, uid: int) -> None:
    try:
        posix.fchown(slave, uid, -1)
    except OSError:
        return  # an id that is not mapped; the terminal is open for us all the same


def _hand_over(kernel: Kernel, master: int, slave: int, console: Any) -> None:
    send(console, master, _name(kernel, master))
    console.close()
    posix.close(master)
    kernel.call("ioctl", slave, _TIOCSCTTY, 0)
    for fd in range(3):
        posix.dup2(slave, fd, True)
    if slave > 2:
        posix.close(slave)


def _name(kernel: Kernel, master: int) -> bytes:
    number = bytearray(4)
    kernel.call("ioctl", master, _TIOCGPTN, number)
    return b"/dev/pts/%d" % int.from_bytes(number, "little")


def send(sock: Any, fd: int, payload: bytes, what: str = "console socket") -> None:
    """Send a descriptor over a Unix socket."""
    try:
        sock.sendmsg([payload], [(_SOL_SOCKET, _SCM_RIGHTS, fd.to_bytes(4, "little"))])
    except OSError as exc:
        raise RunError(f"{what}: {exc.strerror}") from exc


def connect(path: str, what: str = "console socket") -> Any:
    """Connect to the console socket (`--console-socket`), or to another one.

    Raises:
        RunError: nobody listens there.
    """
    import _socket

    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    # The address holds 108 bytes: a longer path is reached through its directory's descriptor.
    directory, _, name = path.rpartition("/")
    try:
        fd = posix.open(directory or ("/" if path.startswith("/") else "."), paths.O_PATH | CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{fd}/{name}")
        finally:
            posix.close(fd)
    except OSError as exc:
        raise RunError(f"{what} {path}: {exc.strerror}") from exc
    return sock


def listen(path: str) -> Any:
    """A socket to which another runtime sends the terminal that it makes."""
    import _socket

    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.bind(path)
        sock.listen(1)
    except OSError as exc:
        raise RunError(f"console socket {path}: {exc.strerror or exc}") from exc
    return sock


def accept(sock: Any) -> Any:
    """The connection through which the terminal comes."""
    import _socket

    fd, _ = sock._accept()  # noqa: SLF001 - the module that wraps it costs 6 ms
    return _socket.socket(fileno=fd)


def pair() -> tuple[Any, Any]:
    """Two connected sockets, for a terminal that this process itself copies to and from."""
    import _socket

    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    return ours, theirs


def receive(sock: Any) -> int:
    """Receive the descriptor that `send` sent.

    Raises:
        RunError: the other side ended without sending one.
    """
    _, ancillary, _, _ = sock.recvmsg(4096, 64)
    for level, kind, data in ancillary:
        if (level, kind) == (_SOL_SOCKET, _SCM_RIGHTS):
            return int.from_bytes(data[:4], "little")
    raise RunError("the container made no terminal")


def set_size(kernel: Kernel, fd: int, rows: int, columns: int) -> None:
    """Set the size of a terminal, in characters."""
    kernel.call(
        "ioctl", fd, _TIOCSWINSZ, rows.to_bytes(2, "little") + columns.to_bytes(2, "little") + bytes(4)
    )


def copy_size(kernel: Kernel, source: int, target: int) -> None:
    """Give a terminal the size of another one, if that is one."""
    size = bytearray(8)
    try:
        kernel.call("ioctl", source, _TIOCGWINSZ, size)
        kernel.call("ioctl", target, _TIOCSWINSZ, bytes(size))
    except OSError:
        return


class Raw:
    """Raw mode of our own terminal, for as long as a `with` statement lasts."""

    def __init__(self, kernel: Kernel, fd: int) -> None:
        self._kernel = kernel
        self._fd = fd
        self._before: bytes = b""

    def __enter__(self) -> None:
        settings = bytearray(64)
        try:
            self._kernel.call("ioctl", self._fd, _TCGETS, settings)
        except OSError:
            return  # not a terminal
        self._before = bytes(settings)
        # cfmakeraw(3): four 32-bit words of flags, then line discipline and characters.
        masks = (0x5EB, 0x1, 0x130, 0x804B)  # iflag, oflag, cflag (CSIZE|PARENB), lflag
        words = [int.from_bytes(settings[at : at + 4], "little") for at in (0, 4, 8, 12)]
        words = [word & ~bits for word, bits in zip(words, masks, strict=True)]
        words[2] |= 0x30  # CS8
        raw = b"".join([word.to_bytes(4, "little") for word in words]) + bytes(settings[16:])
        self._kernel.call("ioctl", self._fd, _TCSETS, raw)

    def __exit__(self, *_: object) -> None:
        if self._before:
            self._kernel.call("ioctl", self._fd, _TCSETS, self._before)
