"""Output that a container's program could not open anew by `/dev/stdout`.

For that it needs a right to what is there. The runtime sees to it for pipes, which have no name (see
`starting`). A file or a terminal is somebody's, and stays what it is; a socket is opened by nobody. In their
place the program gets a pipe, and a process of ours writes what comes out of it.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import NoReturn
else:
    import _signal

_CHUNK = 65536
_KIND, _CHARACTER, _REGULAR, _SOCKET = 0o170000, 0o020000, 0o100000, 0o140000
_OUTPUT = (1, 2)


def outputs(user: int) -> Outputs | None:
    """Pipes in the place of such output of ours while a block lasts; None where there is none.

    All that came through them is where it belongs when the block ends.

    Args:
        user: who the program is; 0 is whoever started it.
    """
    # What is one file or one terminal goes through one pipe: its lines keep their order.
    found: dict[tuple[int, int], list[int]] = {}
    for number in _OUTPUT:
        info = os.fstat(number)
        kind = info.st_mode & _KIND
        # /dev/null and its like are everybody's.
        is_shut = user and kind in (_REGULAR, _CHARACTER) and not info.st_mode & 0o002
        if is_shut or kind == _SOCKET:
            found.setdefault((info.st_dev, info.st_ino), []).append(number)
    return Outputs(list(found.values())) if found else None


class Outputs:
    """See `outputs`."""

    def __init__(self, found: list[list[int]]) -> None:
        self._found = found
        self._relays: list[_Relay] = []

    def __enter__(self) -> None:
        for numbers in self._found:
            self._relays.append(_Relay(numbers))

    def __exit__(self, *_: object) -> None:
        for relay in self._relays:
            relay.end()


class _Relay:
    """A pipe in the place of some of our descriptors, and a process that empties it into what was there.

    A process and not a thread: the runtime may be this very process, and then has to be without threads.
    """

    def __init__(self, numbers: list[int]) -> None:
        reading, writing = os.pipe()
        self._before = {number: os.dup(number) for number in numbers}
        self._pid = os.fork()
        if self._pid == 0:
            _copy(reading, numbers[0])
        os.close(reading)
        for number in numbers:
            os.dup2(writing, number)
        os.close(writing)

    def end(self) -> None:
        """Put everything back, and wait until the pipe is empty."""
        for number, before in self._before.items():
            os.dup2(before, number)
            os.close(before)
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            return  # whoever waited for the container has collected it, too


def _copy(reading: int, writing: int) -> NoReturn:
    """Copy until nobody has the pipe any more, whatever happens to the program."""
    try:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        os.dup2(reading, 0)
        os.dup2(writing, 1)
        # What we hold, a lock above all, would be held by this process as well.
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        while data := os.read(0, _CHUNK):
            while data:
                data = data[os.write(1, data) :]
    except OSError as error:
        os.write(2, f"ocitool: the program's output could not be written: {error.strerror}\n".encode())
    finally:
        os._exit(0)
