"""Waiting for a container's program in the foreground: signals go in, output and exit status come out."""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any

    from .kernel import Kernel
else:
    import _signal

# Meant for this process, or made by it.
_OWN = {_signal.SIGCHLD, _signal.SIGPIPE, _signal.SIGURG, _signal.SIGTTIN, _signal.SIGTTOU, _signal.SIGWINCH}


class Wait:
    """The foreground of one program.

    Made before the program is, so that no signal is lost: from here on they wait to be read.

    Attributes:
        console: the socket that the terminal comes through, or None.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.console: Any = None
        uncatchable = (_signal.SIGKILL, _signal.SIGSTOP)
        self._signals = {int(number) for number in _signal.valid_signals() if number not in uncatchable}
        _signal.pthread_sigmask(_signal.SIG_BLOCK, self._signals)

    def until_end(self, pid: int) -> int:
        """Forward signals until a child ends.

        Returns:
            Its exit status, or 128 and the number of the signal that ended it.
        """
        if self.console is not None:
            from . import proxy, terminal

            return proxy.Proxy(self._kernel, terminal.receive(self.console), pid).until_end(self._signals)
        while True:
            code = collect(pid)
            if code is not None:
                return code
            forward(pid, _signal.sigwait(self._signals))


def collect(pid: int) -> int | None:
    """Collect every child that has ended; the exit code of `pid`, if it is among them."""
    found = None
    while True:
        try:
            done, status = posix.waitpid(-1, posix.WNOHANG)
        except ChildProcessError:
            return found
        if not done:
            return found
        if done == pid:
            code = posix.waitstatus_to_exitcode(status)
            found = code if code >= 0 else 128 - code


def forward(pid: int, number: int) -> None:
    """Pass a signal on to the program, unless it is about ourselves."""
    if number in _OWN:
        return
    try:
        posix.kill(pid, number)
    except ProcessLookupError:
        return
