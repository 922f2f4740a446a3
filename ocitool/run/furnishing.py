"""The inside of a new container, seen from its namespaces: names, mounts, devices, and the change of root."""

from __future__ import annotations

import posix

from ocitool.errors import OciError, RunError

from . import mounts, paths, process, records, rootfs
from .kernel import CLOEXEC, MADV_DONTNEED, NO_MAGICLINKS, NO_XDEV, PR_SET_PDEATHSIG
from .namespaces import CGROUP, NETWORK
from .state import read_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._init import Job
    from .cgroups import Cgroup
    from .kernel import Kernel

_SIOCSIFFLAGS = 0x8914


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
        userns: whether it has a user namespace of its own.
        makes_devices: whether device nodes can be made, or have to be mounted from the host.
        mounts_rootfs: called to mount the root file system first, or None.
        run_hooks: what runs hooks; set where there are any for the child.
        return_to_host: what brings the child back into the host's mount namespace, or None.
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
        self.return_to_host: Callable[[Kernel], None] | None = None
        self.userns = False
        self.makes_devices = True

    def hooks(self, kind: str, state: dict[str, Any]) -> None:
        """Run the hooks of one kind."""
        if self.run_hooks is not None:
            self.run_hooks((self.config.get("hooks") or {}).get(kind) or [], state, kind)

    def set_up(self, job: Job) -> None:
        """Make the namespaces that the child is in a container, all but its program.

        Raises:
            OciError, OSError: something was refused; the caller reports it and exits.
        """
        kernel, config = job.kernel, self.config
        linux = config.get("linux") or {}
        posix.setsid()
        posix.umask(0)
        _set_names(kernel, config)
        root = _fill_root(job, self, linux)
        self.hooks("createContainer", self.state)
        _write_sysctls(job, linux.get("sysctl") or {})
        if self.pivot:
            rootfs.change_root(kernel, root)
        else:
            rootfs.change_root_by_moving(kernel, root)
        posix.close(root)
        rootfs.finish_root(
            kernel, linux.get("rootfsPropagation") or "", readonly=bool(config["root"].get("readonly"))
        )
        if self.return_to_host is not None:
            self.return_to_host(kernel)
        if job.new & NETWORK:
            _loopback_up(kernel)
        if job.process:
            process.find_program_early(job.process)
            process.prepare(kernel, job.process, linux)
        _wait_for_start(job, self)
        self.hooks("startContainer", {**self.state, "status": "created"})


def _set_names(kernel: Kernel, config: dict[str, Any]) -> None:
    if config.get("hostname"):
        kernel.hostname(config["hostname"])
    if config.get("domainname"):
        kernel.domainname(config["domainname"])


def _fill_root(job: Job, container: Container, linux: dict[str, Any]) -> int:
    """Make the whole tree below the root's descriptor, before the host's is let go."""
    kernel, config = job.kernel, container.config
    propagation = linux.get("rootfsPropagation") or ""
    rootfs.detach_from_host(kernel, propagation)
    null = rootfs.open_null(kernel)
    if container.mounts_rootfs is not None:
        container.mounts_rootfs(kernel)
    root = rootfs.enter_root(kernel, container.rootfs, propagation)
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
        rootfs.make_devices(kernel, root, linux.get("devices") or [], bind=not container.makes_devices)
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
    _let_go_of_descriptors(job, {go, err, job.entry.report, job.entry.proc})
    # From here on the container lives without its runtime, which may end as soon as it has read this.
    job.kernel.prctl(PR_SET_PDEATHSIG, 0)
    records.write(job.entry.report, records.READY)
    posix.close(job.entry.report)
    job.entry.report = err
    _let_go_of_text(job)
    posix.read(go, 1)
    posix.close(go)


def _let_go_of_descriptors(job: Job, kept: set[int]) -> None:
    """Close what only the creation needed, and what its caller had left open.

    A container may wait for long, and would hold another program's locks and ends of pipes meanwhile.
    """
    if job.courier is not None:
        kept = kept | job.courier.descriptors()  # who brings the listener's descriptor has the same table
    first = 3 + job.entry.preserve
    for fd in sorted(fd for fd in kept if fd >= first):
        if fd > first:
            job.kernel.close_range(first, fd - 1, 0)
        first = fd + 1
    job.kernel.close_range(first, 0xFFFFFFFF, 0)


def _let_go_of_text(job: Job) -> None:
    """Leave the code of interpreter and libraries to the page cache: what only waits executes none of it.

    It stays mapped, and what `start` needs of it comes back from the file that it came from, by no path.
    """
    kernel = job.kernel
    try:
        fd = kernel.openat2(job.entry.proc, "self/maps", posix.O_RDONLY, NO_XDEV | NO_MAGICLINKS)
        fields = [line.split() for line in read_all(fd, "self/maps", "process").splitlines()]
        text = [entry[0].split(b"-") for entry in fields if entry[1] == b"r-xp" and entry[4] != b"0"]
        for first, last in [(int(first, 16), int(last, 16)) for first, last in text]:
            kernel.call("madvise", first, last - first, MADV_DONTNEED)
    except (OSError, OciError):
        return  # it holds more memory than it would have to
