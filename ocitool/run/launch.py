"""Running a bundle from a process that has threads, locks and an event loop of its own.

Such a process must not be cloned. A clean interpreter is started instead, which knows nothing but
this package and costs a few milliseconds; its standard streams are ours.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

from ocitool.errors import OciError, RunError

from . import jsonfast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Self

    from .overlay import Overlay

_FORWARDED = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGWINCH,
)  # fmt: skip
_CHUNK = 65536


def run_bundle(  # noqa: PLR0913 - one keyword for each choice
    bundle: str,
    *,
    container_id: str | None = None,
    root: str | None = None,
    overlay: Overlay | None = None,
    runtime: str = "",
    network: str = "",
    isolation: str = "",
    keep: bool = False,
    pid_file: str | None = None,
    without: Iterable[int] = (),
    on_warning: Callable[[str], None] | None = None,
) -> int:
    """Run a bundle in the foreground.

    Standard input, output and error are passed through; signals are forwarded; with
    `process.terminal` this process's terminal is put into raw mode meanwhile.

    Args:
        bundle: the directory with config.json.
        container_id: a name for the container; by default one that is not in use.
        root: where containers are remembered; by default /run/ocitool or the user's own directory.
        overlay: layers to mount as the root file system, in the container's mount namespace.
        runtime: another runtime to hand the bundle to, by its name on the PATH or by its path.
        network: what connects the container's own network namespace: "slirp4netns" or "pasta".
        isolation: "chroot" for a changed root directory and nothing else.
        keep: whether the container stays, stopped, after its program has ended.
        pid_file: where to write the number of the container's first process.
        without: descriptors, of standard output and error, that nothing comes out of.
        on_warning: told of what was left out; by default nobody is.

    Returns:
        The program's own exit status, or 128 and the number of the signal that ended it.

    Raises:
        RunError: the container could not be started: 126 where the program cannot be executed, 127
            where it is not there, else 125.
        OciError: the bundle is not valid, or the id is in use.
    """
    words = ["run", "--bundle", os.path.abspath(bundle)]
    if keep:
        words.append("--keep")
    if pid_file:
        words += ["--pid-file", pid_file]
    if overlay is not None:
        words += ["--overlay", jsonfast.dumps(overlay.document())]
    if runtime:
        words += ["--runtime", _found(runtime)]
    if network:
        words += ["--network", network]
    if isolation:
        words += ["--isolation", isolation]
    container_id = container_id or f"run-{os.getpid()}-{os.urandom(4).hex()}"
    with _Forwarding() as signals:
        words = [*(["--root", root] if root else []), *words, container_id]
        pid, messages = _clean_interpreter(words, without)
        signals.to(pid)
        error = _follow(_received(messages, signals.arrived), on_warning)
        # Collected below, when no signal goes to its number any more.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if error is not None:
        raise error
    if code < 0:
        _clear_up(root, container_id, pid, keep=keep)
        raise RunError(f"the runtime was ended by signal {-code}")
    return code


def _found(runtime: str) -> str:
    """The absolute path of an installed runtime."""
    import shutil

    path = shutil.which(runtime, path=os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin")
    if path is None:
        raise RunError(f"the runtime {runtime} is not installed", hint="name one on the PATH, or its path")
    return os.path.abspath(path)


def lacking() -> str:
    """What this host lacks for a container, in a few words each; "" where nothing is known to be missing."""
    import subprocess

    script = os.path.join(os.path.dirname(__file__), "probing.py")
    command = [sys.executable, "-I", "-S", script]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - our own


def interpreter() -> list[str]:
    """The command line of a clean interpreter that runs this package."""
    return [sys.executable, "-I", "-S", os.path.join(os.path.dirname(__file__), "__main__.py")]


def _clean_interpreter(words: list[str], without: Iterable[int]) -> tuple[int, int]:
    """Start a clean interpreter with our standard streams; its number, and the pipe of its messages."""
    reading, writing = os.pipe()
    command = [*interpreter(), "--message-fd", str(writing), *words]
    try:
        os.set_inheritable(writing, True)
        closed = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in without]
        pid = os.posix_spawn(command[0], command, os.environ, file_actions=closed)
    except OSError as exc:
        os.close(reading)
        raise RunError(f"{command[0]}: {exc.strerror}") from exc
    finally:
        os.close(writing)
    return pid, reading


def _received(messages: int, signals: int) -> bytes:
    """All that comes through one pipe until it ends; the other one wakes us for each signal meanwhile."""
    import select

    poll = select.poll()
    for fd in (messages, signals):
        poll.register(fd, select.POLLIN)
    received = b""
    try:
        while True:
            for fd, _ in poll.poll():
                piece = os.read(fd, _CHUNK)
                if fd == messages:
                    received += piece
                    if not piece:
                        return received
    finally:
        os.close(messages)


def _clear_up(root: str | None, container_id: str, pid: int, *, keep: bool) -> None:
    """Take away the container of a runtime that was killed: nobody waits for its program any more."""
    from .runtime import Runtime
    from .state import State

    runtime = Runtime(root)
    with suppress(OSError, OciError):
        if runtime.forget_abandoned(container_id) or keep:
            return
        # Another run may have had the name first.
        if State.load(runtime.root, container_id).fields["creator"][0] == pid:
            runtime.delete(container_id, force=True)


def _follow(messages: bytes, on_warning: Callable[[str], None] | None) -> OciError | None:
    """What the clean interpreter had to say, one JSON document a line."""
    error: OciError | None = None
    for line in messages.splitlines():
        message: dict[str, Any] = jsonfast.loads(line, "the runtime's message")
        if message["level"] == "error":
            error = _error(message)
        elif on_warning is not None:
            on_warning(message["msg"])
    return error


def _error(message: dict[str, Any]) -> OciError:
    """The error as it was raised over there, with its type, text and exit code."""
    from ocitool import errors

    kind = getattr(errors, message["type"], RunError)
    if kind is RunError:
        return RunError(message["msg"], hint=message["hint"], exit_code=message["code"])
    error: OciError = kind(message["msg"], hint=message["hint"])
    return error


class _Forwarding:
    """Passes signals on to the runtime, which passes them on to the container.

    A terminal sends ^C to both of us, so it is forwarded only where there is no terminal. Only the
    main thread may set handlers; elsewhere, the caller looks after signals.

    Attributes:
        arrived: can be read from after each signal. One that comes just before a wait does not end the wait,
            so whoever waits has to wait for this as well.
    """

    def __init__(self) -> None:
        self._pid = 0
        self._early: list[int] = []
        self._before: dict[signal.Signals, Any] = {}
        self._wakeup_before = -1

    def __enter__(self) -> Self:
        import threading

        self.arrived, self._arrival = os.pipe()
        if threading.current_thread() is threading.main_thread():
            os.set_blocking(self._arrival, False)
            self._wakeup_before = signal.set_wakeup_fd(self._arrival, warn_on_full_buffer=False)
            self._before = {number: signal.signal(number, self._forward) for number in _FORWARDED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            signal.set_wakeup_fd(self._wakeup_before)
        os.close(self.arrived)
        os.close(self._arrival)

    def to(self, pid: int) -> None:
        """Say who gets the signals, also those that came before there was anybody."""
        self._pid = pid
        for number in self._early:
            self._forward(number, None)

    def _forward(self, number: int, _frame: object) -> None:
        if not self._pid:
            self._early.append(number)
        elif number != signal.SIGINT or not os.isatty(0):
            os.kill(self._pid, number)
