"""A terminal in the foreground: bytes are copied between ours and the container's."""

from __future__ import annotations

import posix
import select

from . import terminal
from .waiting import collect, forward

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .kernel import Kernel

_SIGWINCH = 28
_CHUNK = 65536
_SIGINFO = 128


class Proxy:
    """One program behind a terminal.

    Args:
        kernel: the kernel.
        master: our end of the container's terminal.
        pid: the program.
    """

    def __init__(self, kernel: Kernel, master: int, pid: int) -> None:
        self._kernel = kernel
        self._master = master
        self._pid = pid

    def until_end(self, signals: set[int]) -> int:
        """Copy, resize and forward until the program has ended; then restore our terminal.

        Returns:
            Its exit code, as `Wait.until_end` does.
        """
        bits = sum(1 << (number - 1) for number in signals)
        arriving = self._kernel.call("signalfd4", -1, bits.to_bytes(8, "little"), 8, posix.O_CLOEXEC)
        terminal.copy_size(self._kernel, 0, self._master)
        with terminal.Raw(self._kernel, 0):
            code = self._copy(arriving)
            self._drain()
        posix.close(arriving)
        return code

    def _copy(self, arriving: int) -> int:
        poll = select.poll()
        for fd in (0, self._master, arriving):
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == arriving:
                    code = self._signalled(arriving)
                    if code is not None:
                        return code
                elif not self._pass(fd):
                    poll.unregister(fd)

    def _signalled(self, arriving: int) -> int | None:
        number = int.from_bytes(posix.read(arriving, _SIGINFO)[:4], "little")
        if number == _SIGWINCH:
            terminal.copy_size(self._kernel, 0, self._master)
        forward(self._pid, number)
        return collect(self._pid)

    def _pass(self, fd: int) -> bool:
        """Copy one piece from `fd` to the other side; False at its end."""
        try:
            data = posix.read(fd, _CHUNK)
        except OSError:
            return False  # EIO: nobody holds the other end of the terminal any more
        if not data:
            if fd == 0:
                _write(self._master, b"\x04")  # what a person would type to say that there is no more
            return False
        _write(1 if fd == self._master else self._master, data)
        return True

    def _drain(self) -> None:
        """What the program wrote before it ended."""
        posix.set_blocking(self._master, False)
        while self._pass(self._master):
            pass


def _write(fd: int, data: bytes) -> None:
    try:
        while data:
            data = data[posix.write(fd, data) :]
    except OSError:
        return
