"""What the child tells its parent: JSON lines on a pipe, or the trampoline's four bytes of errno.

End of file without an error means that the container's program runs: the pipe closes on exec.
"""

from __future__ import annotations

import posix

from ocitool.errors import OciError, RunError

from . import jsonfast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READY = '{"ready":true}\n'
JOINED = '{"joined":true}\n'
_ENOENT, _ENOTDIR = 2, 20
_NOT_EXECUTABLE = (1, 8, 13)  # EPERM, ENOEXEC, EACCES


def warning(text: str) -> str:
    """A record that does not stop the container."""
    return jsonfast.dumps({"warning": text}) + "\n"


def failure(exc: BaseException) -> str:
    """A record of the error that stopped the child."""
    if isinstance(exc, OciError):
        message, code, hint = exc.message, exc.exit_code, exc.hint
    elif isinstance(exc, OSError):
        message, code, hint = f"{exc.filename or 'container'}: {exc.strerror}", 125, ""
    else:
        message, code, hint = f"{type(exc).__name__}: {exc}", 125, ""
    return jsonfast.dumps({"error": message, "code": code, "hint": hint}) + "\n"


def exec_failure(path: str, code: int) -> RunError:
    """The error for a program that the kernel would not execute; 126 or 127, as engines expect.

    The words are those of strerror: podman tells its own exit codes by them.
    """
    exit_code = 127 if code in (_ENOENT, _ENOTDIR) else 126 if code in _NOT_EXECUTABLE else 125
    return RunError(f"exec {path}: {posix.strerror(code).lower()}", exit_code=exit_code)


def write(fd: int, record: str) -> None:
    """Write a record; a parent that is gone is no reason to fail."""
    try:
        posix.write(fd, record.encode())
    except OSError:
        return


class Reader:
    """The parent's end of the pipe."""

    def __init__(self, fd: int, program: str, warn: Callable[[str], None]) -> None:
        self.fd = fd
        self._program = program
        self._warn = warn
        self._rest = b""

    def wait(self) -> str:
        """Return the next milestone ("ready", "joined"), or "" at the end of file.

        Raises:
            RunError: the child reported an error.
        """
        while True:
            line, newline, rest = self._rest.partition(b"\n")
            if newline and line.startswith(b"{"):
                self._rest = rest
                milestone = self._take(line)
                if milestone:
                    return milestone
                continue
            more = posix.read(self.fd, 65536)
            if not more:
                return self._end()
            self._rest += more

    def _end(self) -> str:
        if self._rest:
            raise exec_failure(self._program, int.from_bytes(self._rest[:4], "little"))
        return ""

    def _take(self, line: bytes) -> str:
        record = jsonfast.loads(line, "the child's report")
        if "error" in record:
            raise RunError(record["error"], hint=record["hint"], exit_code=record["code"])
        if "warning" in record:
            self._warn(record["warning"])
            return ""
        return str(next(iter(record)))
