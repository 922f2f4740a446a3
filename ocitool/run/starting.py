"""The parent's half of starting a process: descriptors, the clone, id maps, hooks, and the report."""

from __future__ import annotations

import posix

from ocitool.errors import RunError, Unsupported

from . import _init, process, records
from .kernel import CLOSE_RANGE_CLOEXEC, OLDEST, filesystem_type
from .namespaces import PID
from .state import write_file

_EOPNOTSUPP = 95
_PIPEFS = 0x50495045

# The interpreter's own way out would run the parent's exit handlers in the child.
posix_exit = posix._exit  # noqa: SLF001 - public in spite of its name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .kernel import Kernel
    from .overlay import Overlay


class Settings:
    """What a command line says of a process to be started.

    Attributes:
        bundle: the bundle's directory.
        console_socket: where the terminal is sent, or "".
        pid_file: where the process's number is written, or "".
        pidfd_socket: where a descriptor of the process is sent, or "".
        pivot: whether to use pivot_root.
        keyring: whether to start a new session keyring.
        listening: how many of them are sockets that were opened for the program (LISTEN_FDS).
        preserve: how many descriptors from 3 on the program gets.
        detach: whether not to wait for the program.
        keep: whether the container stays after its program ended.
        ignore_paused: whether a further process may wait in a paused container until that is resumed.
        below: cgroups below the container's for a further process (see `Cgroup.below`).
        subreaper: whether this process adopts what the container leaves behind.
        network: what connects the container's own network namespace (see `networks`), or "".
        prepare_root: called in the container's mount namespace to mount its root file system, or None.
        served: layers that a program outside mounts as the root file system (see `fuse`), or None.
    """

    def __init__(self, bundle: str = ".") -> None:
        self.bundle = bundle
        self.console_socket = ""
        self.pid_file = ""
        self.pidfd_socket = ""
        self.pivot = True
        self.keyring = True
        self.preserve = 0
        self.listening = 0
        self.detach = False
        self.keep = False
        self.ignore_paused = False
        self.below: list[str] = []
        self.subreaper = True
        self.network = ""
        self.prepare_root: Callable[[Kernel], None] | None = None
        self.served: Overlay | None = None


class Child:
    """A process that is being started.

    Attributes:
        pid: its number on the host.
        reader: its reports.
    """

    def __init__(self, pid: int, reader: records.Reader, go: int) -> None:
        self.pid = pid
        self.reader = reader
        self._go = go

    def release(self) -> None:
        """Let it go on: everything that it needs from outside is done."""
        try:
            posix.write(self._go, b"g")
        except BrokenPipeError:
            pass  # it has ended already, and its report says why
        finally:
            posix.close(self._go)
            self._go = -1


def forget_descriptors(kernel: Kernel, preserve: int) -> None:
    """Keep what our caller left open, beyond what is asked for, from hooks and helpers.

    Raises:
        Unsupported: the kernel is too old: this is the first call that such a one refuses.
    """
    try:
        kernel.close_range(3 + preserve, 0xFFFFFFFF, CLOSE_RANGE_CLOEXEC)
    except OSError as exc:
        raise Unsupported(f"this kernel's close_range(2) refuses: {exc.strerror}", hint=OLDEST) from exc


def open_pipes(kernel: Kernel) -> None:
    """Let whatever user the program has open its standard streams anew, as /dev/stdout and the like do.

    A pipe belongs to who made it, which mostly is root. It has no name: who can reach it by another process
    has that one's rights, and so holds it already. What has a name, a file or a terminal, is left alone.
    """
    for fd in range(3):
        try:
            if posix.fstat(fd).st_mode & 0o170666 == 0o010600 and filesystem_type(kernel, fd) == _PIPEFS:
                posix.fchmod(fd, 0o666)
        except OSError:
            continue  # it is closed, or somebody else's


def clone(job: _init.Job, cgroup: int, warn: Callable[[str], None]) -> Child:
    """Clone the child; it waits for `release`.

    Raises:
        RunError: this process has threads, or the kernel refuses the namespaces.
    """
    if len(posix.listdir("/proc/self/task")) != 1:
        raise RunError("a container cannot be cloned from a process with threads")
    open_pipes(job.kernel)
    report, job.entry.report = posix.pipe2(posix.O_CLOEXEC)
    job.go, go = posix.pipe2(posix.O_CLOEXEC)
    reader = records.Reader(report, (job.process.get("args") or [""])[0], warn)
    try:
        staged = job.needs_stage()
        pid = _clone_staged(job, cgroup, reader) if staged else _clone_directly(job, cgroup)
    except OSError as exc:
        raise RunError(f"new namespaces: {exc.strerror}", hint=_hint(exc)) from exc
    if pid == 0:
        posix.close(go)
        posix.close(report)
        _init.become(job, {} if staged else job.joined)
    for fd in (job.go, job.entry.report, *job.entrances):
        posix.close(fd)
    if job.courier is not None:
        job.courier.forget()
    return Child(pid, reader, go)


def _clone_directly(job: _init.Job, cgroup: int) -> int:
    """Clone the child, in the pid namespace that it joins: a process enters that by being born there."""
    for flags, fd in job.joined.items():
        if flags & PID:
            # From here on all our children are born there: `exec` has no other.
            job.kernel.setns(fd, PID)
    return job.kernel.clone(job.new, cgroup)


def _hint(exc: OSError) -> str:
    if exc.errno == _EOPNOTSUPP:
        # cgroups(7), "Threaded mode": its type is "domain invalid".
        return (
            "the cgroup above the container's passes controllers on and holds processes: move them elsewhere"
        )
    if isinstance(exc, PermissionError):
        return "an ordinary user needs a user namespace, and a kernel that allows it"
    return ""


def _clone_staged(job: _init.Job, cgroup: int, reader: records.Reader) -> int:
    reading, answer = posix.pipe2(posix.O_CLOEXEC)
    stage = job.kernel.clone(0)
    if stage == 0:
        _init.stage(job, cgroup, answer)
    posix.close(answer)
    number = posix.read(reading, 16)
    posix.close(reading)
    if number and job.courier is not None:
        return int(number)  # it stays, until it has brought what it has to
    posix.waitpid(stage, 0)
    if number:
        return int(number)
    posix.close(job.entry.report)
    reader.wait()
    raise RunError("the namespaces could not be entered")


def engage_courier(job: _init.Job, seccomp: dict[str, Any], state: dict[str, Any]) -> None:
    """Have the listener's descriptor brought to an agent outside, where the filter asks one."""
    if job.entry.filter.notifies:
        from .listener import Courier

        job.courier = Courier(seccomp, state)
        job.entry.notice = job.courier.notice


def adjust_oom_score(job: _init.Job, pid: int) -> None:
    """Set `process.oomScoreAdj`: "If it is not set, the runtime MUST NOT change the value".

    Raises:
        RunError: the kernel refuses it: a lower one takes CAP_SYS_RESOURCE.
    """
    score = job.process.get("oomScoreAdj")
    if score is None:
        return
    try:
        process.write_proc(job.kernel, job.entry.proc, f"{pid}/oom_score_adj", str(score))
    except OSError as exc:
        raise RunError(f"process.oomScoreAdj {score}: {exc.strerror}") from exc


def stop(pid: int) -> None:
    """Kill a process, and collect it if it is our own child."""
    try:
        posix.kill(pid, 9)
        posix.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return


def write_pid_file(path: str, pid: int) -> None:
    """Write a process number where an engine looks for it."""
    try:
        write_file(path, b"%d" % pid, 0o644)
    except OSError as exc:
        raise RunError(f"pid file {path}: {exc.strerror}") from exc


def send_pidfd(kernel: Kernel, path: str, pid: int, kind: str) -> None:
    """Send a descriptor of our child to an engine that listens (`--pidfd-socket`).

    Args:
        kernel: the kernel.
        path: where it listens.
        pid: the child, which we have not collected: the number is still its own.
        kind: what it is, by runc's word: "standard" is a first process, "setns" a further one.

    Raises:
        RunError: nobody listens, or the kernel refuses.
    """
    from . import terminal

    sock = terminal.connect(path, "pidfd socket")
    try:
        fd = kernel.call("pidfd_open", pid, 0)
    except OSError as exc:
        raise RunError(f"a descriptor of process {pid}: {exc.strerror}") from exc
    terminal.send(sock, fd, kind.encode(), "pidfd socket")
    posix.close(fd)
    sock.close()


def until_program(child: Child) -> None:
    """Wait until the child has become its program.

    Raises:
        RunError: it did not.
    """
    while child.reader.wait():
        pass
