"""The child: from the first instruction in the new namespaces to the container's program.

It runs in the interpreter that was cloned, so everything that it needs is loaded already; the
first thing it does is to make every later import fail. After the change of root an import would
take code from the container's file system and run it with the runtime's privileges (RN-02).
"""

from __future__ import annotations

import gc
import posix
import sys

from ocitool.errors import OciError, RunError

from . import mounts, paths, process, records, rootfs
from .kernel import CLOEXEC, CLONE_FILES, CLONE_PARENT, PR_SET_DUMPABLE, PR_SET_PDEATHSIG
from .namespaces import CGROUP, NETWORK, TIME, join

# The interpreter's own way out would run the parent's exit handlers in the child.
posix_exit = posix._exit  # noqa: SLF001 - public in spite of its name

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import Any, NoReturn

    from .cgroups import Cgroup
    from .kernel import Kernel
    from .listener import Courier
else:
    import _signal

_SIGKILL = 9
_SIOCSIFFLAGS = 0x8914
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
        self.new_cgroup_namespace = False
        self.userns = False
        self.console: Any = None
        self.give_terminal: Callable[..., None] | None = None
        self.courier: Courier | None = None
        self.root = -1
        self.container: Container | None = None


class Container:
    """What the set-up of a new container needs.

    Attributes:
        config: the whole config.json.
        bundle, rootfs: absolute paths.
        state: the state for hooks that run in the container's namespaces.
        cgroup: the container's cgroup.
        trees: mounts that the parent has opened, by position.
        pivot: whether to use pivot_root.
        waits: descriptors of the `go` and `err` pipes, or () to go on at once.
        mounts_rootfs: called to mount the root file system first, or None.
        run_hooks: what runs hooks; set where there are any for the child.
    """

    def __init__(self, config: dict[str, Any], bundle: str, rootfs_path: str) -> None:
        self.config = config
        self.bundle = bundle
        self.rootfs = rootfs_path
        self.state: dict[str, Any] = {}
        self.cgroup: Cgroup | None = None
        self.trees: dict[int, int] = {}
        self.pivot = True
        self.waits: tuple[int, int] | tuple[()] = ()
        self.mounts_rootfs: Callable[[Kernel], None] | None = None
        self.run_hooks: Callable[[list[Any], dict[str, Any], str], None] | None = None
        self.userns = False

    def hooks(self, kind: str, state: dict[str, Any]) -> None:
        """Run the hooks of one kind."""
        if self.run_hooks is not None:
            self.run_hooks((self.config.get("hooks") or {}).get(kind) or [], state, kind)


def become(job: Job) -> NoReturn:
    """Do everything, and never return: what goes wrong is reported to the parent."""
    try:
        _leave_the_host()
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
        _leave_the_host()
        kernel.prctl(PR_SET_PDEATHSIG, _SIGKILL)
        join(kernel, job.joined)
        if job.time_offsets:
            kernel.unshare(TIME)
            if job.time_offsets.strip():
                process.write_proc(kernel, job.entry.proc, "self/timens_offsets", job.time_offsets)
        shared = CLONE_FILES if job.courier else 0
        pid = kernel.clone(job.new | CLONE_PARENT | shared, cgroup)
        if pid == 0:
            become(job)
        posix.write(answer, b"%d" % pid)
        posix.close(answer)
        if job.courier:
            waits = job.container.waits if job.container else ()
            job.courier.serve(kernel, pid, waits[1] if waits else job.entry.report)
        posix_exit(0)
    except BaseException as exc:  # noqa: BLE001 - as above
        records.write(job.entry.report, records.failure(exc))
    posix_exit(1)


def _leave_the_host() -> None:
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
    for fd in job.entrances:
        posix.write(fd, b"0")
        posix.close(fd)
    if job.go >= 0:
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
        _set_up(job, job.container)
    else:
        posix.setsid()
        if job.give_terminal is not None:
            job.give_terminal(kernel, job.console, job.process)
        if job.root >= 0:
            posix.fchdir(job.root)
            posix.chroot(".")
        process.prepare(kernel, job.process, job.entry.linux)
    process.finish(kernel, job.process, job.entry)


def _become_root_inside(kernel: Kernel, job: Job) -> None:
    if process.groups_denied(kernel, job.entry.proc):
        kernel.set_ids(0, 0, None)
    else:
        kernel.set_ids(0, 0, [])
    # A change of user clears the signal that ends us with the runtime.
    kernel.prctl(PR_SET_PDEATHSIG, _SIGKILL)


def _set_up(job: Job, container: Container) -> None:
    kernel, config = job.kernel, container.config
    linux = config.get("linux") or {}
    posix.setsid()
    posix.umask(0)
    _set_names(kernel, config)
    root = _fill_root(job, container, linux)
    container.hooks("createContainer", container.state)
    _write_sysctls(job, linux.get("sysctl") or {})
    if container.pivot:
        rootfs.change_root(kernel, root)
    else:
        rootfs.change_root_by_moving(kernel, root)
    posix.close(root)
    rootfs.finish_root(
        kernel, linux.get("rootfsPropagation") or "", readonly=bool(config["root"].get("readonly"))
    )
    if job.new & NETWORK:
        _loopback_up(kernel)
    if job.process:
        process.find_program_early(job.process)
        process.prepare(kernel, job.process, linux)
    _wait_for_start(job, container)
    container.hooks("startContainer", {**container.state, "status": "created"})


def _set_names(kernel: Kernel, config: dict[str, Any]) -> None:
    if config.get("hostname"):
        kernel.hostname(config["hostname"])
    if config.get("domainname"):
        kernel.domainname(config["domainname"])


def _fill_root(job: Job, container: Container, linux: dict[str, Any]) -> int:
    """Make the whole tree below the root's descriptor, before the host's is let go."""
    kernel, config = job.kernel, container.config
    rootfs.detach_from_host(kernel, linux.get("rootfsPropagation") or "")
    null = rootfs.open_null(kernel)
    if container.mounts_rootfs is not None:
        container.mounts_rootfs(kernel)
    root = rootfs.enter_root(kernel, container.rootfs)
    around = mounts.Surroundings(kernel, root, container.bundle)
    around.userns = container.userns
    around.gid_mappings = linux.get("gidMappings") or []
    around.trees = container.trees
    around.label = _mount_label(job, linux)
    around.cgroup = container.cgroup
    around.cgroup_namespace = job.new_cgroup_namespace or job.cgroup_namespace >= 0 or CGROUP in job.joined
    entries = config.get("mounts") or []
    mounts.mount_all(around, entries)
    _make_working_directory(kernel, root, job.process)
    if not mounts.binds_dev(entries):
        rootfs.make_devices(kernel, root, linux.get("devices") or [], bind=container.userns)
    if job.give_terminal is not None:
        job.give_terminal(kernel, root, job.console, job.process)
    rootfs.freeze(kernel, root, linux.get("readonlyPaths") or [])
    rootfs.hide(kernel, root, linux.get("maskedPaths") or [], null)
    posix.close(null)
    return root


def _make_working_directory(kernel: Kernel, root: int, wanted: dict[str, Any]) -> None:
    """Make the working directory where it is missing, as images expect; entering it tells of a failure."""
    try:
        posix.close(paths.made_directory(kernel, root, wanted.get("cwd") or "/"))
    except (OSError, OciError):
        return


def _mount_label(job: Job, linux: dict[str, Any]) -> str:
    label: str = linux.get("mountLabel") or ""
    if label and not posix.access("/sys/fs/selinux", 0):
        job.entry.warn("linux.mountLabel was left out: this host has no SELinux")
        return ""
    return label


def _write_sysctls(job: Job, sysctls: dict[str, str]) -> None:
    for key, value in sysctls.items():
        # "net.ipv4.conf.eth0/1.forwarding" names the interface "eth0.1": the two characters change places.
        path = key if "/" in key and "." not in key.partition("/")[0] else key.translate({46: "/", 47: "."})
        try:
            process.write_proc(job.kernel, job.entry.proc, f"sys/{path}", value)
        except OSError as exc:
            raise RunError(f"sysctl {key}: {exc.strerror}") from exc


def _loopback_up(kernel: Kernel) -> None:
    """Set the loopback interface up: the one thing of a network that every program expects."""
    fd = kernel.call("socket", 2, 2 | CLOEXEC, 0)  # AF_INET, SOCK_DGRAM
    try:
        # struct ifreq: a name of 16 bytes, then the flags IFF_UP | IFF_RUNNING.
        kernel.call("ioctl", fd, _SIOCSIFFLAGS, bytearray(b"lo".ljust(16, b"\0") + b"\x41\0" + bytes(22)))
    finally:
        posix.close(fd)


def _wait_for_start(job: Job, container: Container) -> None:
    """Tell that the container is created; where `start` is a command of its own, wait for it."""
    if not container.waits:
        records.write(job.entry.report, records.READY)
        return
    go, err = container.waits
    # From here on the container lives without its runtime, which may end as soon as it has read this.
    job.kernel.prctl(PR_SET_PDEATHSIG, 0)
    records.write(job.entry.report, records.READY)
    posix.close(job.entry.report)
    job.entry.report = err
    posix.read(go, 1)
    posix.close(go)
