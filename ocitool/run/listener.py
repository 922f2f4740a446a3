"""Who decides about system calls from outside: `SCMP_ACT_NOTIFY` (config-linux.md, "Seccomp").

The descriptor through which the kernel asks exists once the filter is loaded, and from then on the process
may do only what the filter allows. So a courier sends it: a process of the runtime's, outside of the
container, which shares the table of descriptors with the first process until that becomes its program. It
needs a number, which `write` brings; that is why `write` itself can't be asked about.
"""

from __future__ import annotations

import posix
import select

from . import jsonfast, records, terminal
from .kernel import PR_SET_DUMPABLE, PR_SET_PDEATHSIG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .kernel import Kernel


class Courier:
    """What brings one descriptor to the agent that listens on `listenerPath`.

    "The runtime MUST send exactly one container process state per connection": one is made for each.

    Args:
        seccomp: `linux.seccomp`.
        state: the container's state.

    Attributes:
        notice: where the descriptor's number is written to.

    Raises:
        RunError: nobody listens.
    """

    def __init__(self, seccomp: dict[str, Any], state: dict[str, Any]) -> None:
        # "This socket MUST use `AF_UNIX` domain and `SOCK_STREAM` type."
        self._socket = terminal.connect(seccomp["listenerPath"], "seccomp listener")
        self._reading, self.notice = posix.pipe2(posix.O_CLOEXEC)
        self._watched = posix.dup(self._reading)  # a number for `watch` that the process knows, too
        self._message: dict[str, Any] = {"ociVersion": state["ociVersion"], "fds": ["seccompFd"], "pid": 0}
        if seccomp.get("listenerMetadata"):
            self._message["metadata"] = seccomp["listenerMetadata"]
        self._message["state"] = state

    def watch(self, kernel: Kernel, pid: int) -> None:
        """Open the process, to hear of its end, before it does anything to the table of descriptors."""
        fd = kernel.call("pidfd_open", pid, 0)
        posix.dup2(fd, self._watched, False)
        posix.close(fd)

    def descriptors(self) -> set[int]:
        """What the process must leave open in the table that both have."""
        return {self._socket.fileno(), self._reading, self.notice, self._watched}

    def serve(self, kernel: Kernel, pid: int, report: int) -> None:
        """Wait until the process has loaded its filter, or is gone.

        Args:
            kernel: the kernel.
            pid: the process.
            report: where a failure is told; "If sending to this socket fails, the runtime MUST generate an
                error."
        """
        kernel.prctl(PR_SET_PDEATHSIG, 0)  # a created container waits without its runtime, and so do we
        kernel.prctl(PR_SET_DUMPABLE, 0)
        poll = select.poll()
        # The other end of the pipe is ours, too, so its end of file would never come.
        for fd in (self._reading, self._watched):
            poll.register(fd, select.POLLIN)
        if self._reading not in [fd for fd, _ in poll.poll()]:
            return
        try:
            self._send(pid, int(posix.read(self._reading, 16)))
        except BaseException as exc:  # noqa: BLE001 - whatever it is, the container must not go on
            records.write(report, records.failure(exc))

    def _send(self, pid: int, fd: int) -> None:
        self._message["pid"] = self._message["state"]["pid"] = pid
        terminal.send(self._socket, fd, jsonfast.dumps(self._message).encode(), "seccomp listener")
        # "The connection MUST NOT be reused and it MUST be closed after sending a seccomp state."
        self._socket.close()

    def forget(self) -> None:
        """Close the parent's ends; what is sent is sent by the child."""
        self._socket.close()
        for fd in (self._reading, self.notice, self._watched):
            posix.close(fd)
