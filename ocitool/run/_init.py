"""The child: from the first instruction in the new namespaces to the container's program.

It runs in the interpreter that was cloned, so everything that it needs is loaded already; the
first thing it does is to make every later import fail. After the change of root an import would
take code from the container's file system and run it with the runtime's privileges (RN-02).
"""

from __future__ import annotations

import gc
import posix
import sys

from ocitool.errors import RunError

from . import process, records
from .kernel import CLONE_FILES, CLONE_PARENT, PR_SET_DUMPABLE, PR_SET_PDEATHSIG
from .namespaces import CGROUP, PID, TIME, USER, join

# The interpreter's own way out would run the parent's exit handlers in the child.
posix_exit = posix._exit  # noqa: SLF001 - public in spite of its name

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import Any, NoReturn

    from .furnishing import Container
    from .kernel import Kernel
    from .listener import Courier
else:
    import _signal

_SIGKILL = 9
_KEPT: list[object] = []


class Job:
    """Everything that the child needs; made by the parent before it clones.

    Attributes:
        kernel: the kernel.
        process: the `process` to become.
        entry: what `process.finish` needs.
        new: flags of the namespaces that the clone makes.
        joined: open namespaces to enter first, by flag.
        time_offsets: text for timens_offsets, or "" (then there is no new time namespace).
        entrances: descriptors by which the version 1 cgroups are entered.
        cgroup_namespace: an open cgroup namespace to enter once the child is in its cgroup, or -1. Nobody
            who is inside puts a process into a cgroup that is outside (cgroups(7), "nsdelegate").
        go: the parent's pipe to us: one byte when the id maps are written and the hooks have run.
        awaited: whether the parent waits until the namespaces are entered: its hooks see them.
        console: the socket that a pseudo-terminal is sent to, or None.
        give_terminal: what makes one; set by whoever sets `console`, for the child loads nothing.
        courier: what brings the seccomp listener's descriptor to an agent outside, or None.
        root: descriptor of the root directory to change to where there is no mount namespace, or -1.
        container: the container to set up, or None for a further process in a running one.
    """

    def __init__(self, kernel: Kernel, wanted: dict[str, Any], entry: process.Entry) -> None:
        self.kernel = kernel
        self.process = wanted
        self.entry = entry
        self.new = 0
        self.joined: dict[int, int] = {}
        self.time_offsets = ""
        self.entrances: list[int] = []
        self.cgroup_namespace = -1
        self.go = -1
        self.awaited = False
        self.new_cgroup_namespace = False
        self.userns = False
        self.console: Any = None
        self.give_terminal: Callable[..., None] | None = None
        self.courier: Courier | None = None
        self.root = -1
        self.container: Container | None = None

    def needs_stage(self) -> bool:
        """Whether a process of its own has to enter namespaces before the child is cloned.

        A new container's runtime stays outside, for it starts hooks; the rights of a user namespace decide
        what can be entered from where; time is moved before anybody is in it; a courier needs a process.
        """
        if self.time_offsets or self.courier is not None:
            return True
        return bool(self.joined) and (self.container is not None or any(f & USER for f in self.joined))


def become(job: Job, joined: dict[int, int]) -> NoReturn:
    """Do everything, and never return: what goes wrong is reported to the parent.

    Args:
        job: what to do.
        joined: open namespaces that are still to be entered, by flag.
    """
    try:
        leave_the_host()
        join(job.kernel, {flags & ~PID: fd for flags, fd in joined.items() if flags & ~PID})
        _become(job)
    except BaseException as exc:  # noqa: BLE001 - nothing may escape into the parent's code
        records.write(job.entry.report, records.failure(exc))
    posix_exit(1)


def stage(job: Job, cgroup: int, answer: int) -> NoReturn:
    """Enter existing namespaces, clone the real child as a sibling, and tell its number.

    A process cannot move itself into a pid namespace, only its children; and a child cannot enter
    namespaces that the rights of its new user namespace do not cover.
    """
    kernel = job.kernel
    try:
        leave_the_host()
        kernel.prctl(PR_SET_PDEATHSIG, _SIGKILL)
        join(kernel, job.joined)
        if job.time_offsets:
            kernel.unshare(TIME)
            if job.time_offsets.strip():
                process.write_proc(kernel, job.entry.proc, "self/timens_offsets", job.time_offsets)
        shared = CLONE_FILES if job.courier else 0
        pid = kernel.clone(job.new | CLONE_PARENT | shared, cgroup)
        if pid == 0:
            become(job, {})
        if job.courier:
            # The parent lets the child go on once it has the answer; until then, the table is ours alone.
            job.courier.watch(kernel, pid)
        posix.write(answer, b"%d" % pid)
        if job.courier:
            waits = job.container.waits if job.container else ()
            job.courier.serve(kernel, pid, waits[1] if waits else job.entry.report)
        posix_exit(0)
    except BaseException as exc:  # noqa: BLE001 - as above
        records.write(job.entry.report, records.failure(exc))
    posix_exit(1)


def leave_the_host() -> None:
    """Load nothing from here on, and take signals as a program finds them that was just started."""
    gc.disable()
    # Out of reach, and yet not freed: that would copy every page that they and their like lie on.
    _KEPT.extend((sys.path, sys.meta_path, sys.path_hooks, sys.path_importer_cache))
    sys.path, sys.meta_path, sys.path_hooks, sys.path_importer_cache = [], [], [], {}
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGINT):
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])


def _become(job: Job) -> None:
    kernel, report = job.kernel, job.entry.report
    # Until the container is complete, it dies with its runtime.
    kernel.prctl(PR_SET_PDEATHSIG, _SIGKILL)
    _enter_cgroups(job)
    if job.go >= 0:
        if job.awaited:
            records.write(report, records.JOINED)
        if posix.read(job.go, 1) != b"g":
            posix_exit(1)
    # Nobody traces us, or reads our descriptors or memory, from here to the program (RN-18).
    kernel.prctl(PR_SET_DUMPABLE, 0)
    if job.userns:
        _become_root_inside(kernel, job)
    if job.new_cgroup_namespace:
        kernel.unshare(CGROUP)
    elif job.cgroup_namespace >= 0:
        kernel.setns(job.cgroup_namespace, CGROUP)
    if job.container is not None:
        job.container.set_up(job)
    else:
        posix.setsid()
        if job.give_terminal is not None:
            job.give_terminal(kernel, job.root, job.console, job.process)
        if job.root >= 0:
            posix.fchdir(job.root)
            posix.chroot(".")
        process.prepare(kernel, job.process, job.entry.linux)
    process.finish(kernel, job.process, job.entry)


def _enter_cgroups(job: Job) -> None:
    try:
        for fd in job.entrances:
            posix.write(fd, b"0")
            posix.close(fd)
    except OSError as exc:
        raise RunError(f"the cgroup takes no process: {exc.strerror}") from exc


def _become_root_inside(kernel: Kernel, job: Job) -> None:
    if process.groups_denied(kernel, job.entry.proc):
        kernel.set_ids(0, 0, None)
    else:
        kernel.set_ids(0, 0, [])
    # A change of user clears the signal that ends us with the runtime.
    kernel.prctl(PR_SET_PDEATHSIG, _SIGKILL)
