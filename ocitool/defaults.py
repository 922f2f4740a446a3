"""What container engines give a container that asks for nothing.

Shared by all who write a config.json: the unpacker for an image's bundle, the runner for `spec`. Only what is
loaded anyway is imported, because the runner's start-up time is a feature.
"""

from __future__ import annotations

from ocitool.errors import InvalidReference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

OCI_VERSION = "1.1.0"
"""The lowest one that has everything a config.json of ours uses, because some runtimes refuse a later one."""
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOSTNAME = "ocitool"
_LONGEST_HOSTNAME = 64
CAPABILITIES = (
    "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID",
    "CAP_SYS_CHROOT",
)  # fmt: skip
MASKED_PATHS = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
    "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_QUIET = ("nosuid", "noexec", "nodev")
_MOUNTS = (
    ("/proc", "proc", "proc", _QUIET),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    ("/dev/shm", "tmpfs", "shm", (*_QUIET, "mode=1777", "size=65536k")),  # noqa: S108 - the container's
    ("/dev/mqueue", "mqueue", "mqueue", _QUIET),
    ("/sys", "sysfs", "sysfs", (*_QUIET, "ro")),
    ("/sys/fs/cgroup", "cgroup", "cgroup", (*_QUIET, "relatime", "ro")),
)


def hostname(name: str) -> str:
    """A host name as the kernel takes it and as other programs read it (RFC 1123).

    Raises:
        InvalidReference: it is not one.
    """
    plain = name.replace("-", "").replace(".", "").replace("_", "")
    if len(name) > _LONGEST_HOSTNAME or not (plain.isascii() and plain.isalnum()):
        raise InvalidReference(
            f"the host name {name[:80]!r} is not valid",
            hint=f"use up to {_LONGEST_HOSTNAME} letters, digits and the characters - and .",
        )
    return name


def mounts() -> list[dict[str, Any]]:
    """The mounts of every container (runtime-spec, config.md, "Mounts")."""
    return [mount(*row) for row in _MOUNTS]


def rootless_mounts(*, single: bool, host_network: bool = False) -> list[dict[str, Any]]:
    """The same for an ordinary user.

    Args:
        single: whether a single group is mapped: then group 5, the terminals', does not exist.
        host_network: whether the container has the host's. A sysfs shows a network, and is mounted only by
            who owns that.
    """
    made = mounts()
    for row in made:
        if single:
            row["options"] = [option for option in row["options"] if option != "gid=5"]
        if host_network and row["type"] == "sysfs":
            row.update(type="none", source="/sys", options=["rbind", *row["options"]])
    return made


def mount(destination: str, kind: str, source: str, options: Iterable[str]) -> dict[str, Any]:
    """One mount."""
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


# The seccomp profile: the calls that Docker's allows and the signals of old i386 programs, but not the ioctl
# that types into a terminal, nor i386's one call for all that sockets do: a filter can't look behind it.

_ALLOWED = (
    "_llseek _newselect accept accept4 access adjtimex alarm arch_prctl arm_fadvise64_64"
    " arm_sync_file_range bind breakpoint brk cacheflush cachestat capget capset chdir chmod chown chown32"
    " clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64"
    " clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3"
    " epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait"
    " epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64"
    " fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl"
    " fcntl64 fdatasync fgetxattr file_getattr file_setattr flistxattr flock fork fremovexattr fsetxattr"
    " fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue"
    " futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu"
    " getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32"
    " getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32"
    " getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid"
    " getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel"
    " io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioprio_get ioprio_set"
    " ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr"
    " link linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat"
    " lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod"
    " mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr mq_notify mq_open"
    " mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal"
    " msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat"
    " open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect"
    " poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv"
    " process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readdir"
    " readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages"
    " removexattr removexattrat rename renameat renameat2 restart_syscall riscv_flush_icache riscv_hwprobe"
    " rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend"
    " rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo s390_pci_mmio_read s390_pci_mmio_write"
    " s390_runtime_instr sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr"
    " sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64"
    " sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl"
    " semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto"
    " set_robust_list set_thread_area set_tid_address set_tls setfsgid setfsgid32 setfsuid setfsuid32"
    " setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid"
    " setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32"
    " setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaction sigaltstack signal signalfd"
    " signalfd4 sigpending sigprocmask sigreturn sigsuspend socketpair splice stat stat64 statfs statfs64"
    " statmount statx swapcontext symlink symlinkat sync sync_file_range sync_file_range2 syncfs sysinfo"
    " tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64"
    " timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime"
    " timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uprobe"
    " uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev"
)
# Calls that come with a capability: the kernel asks for it anyway, and most have been ways out of containers.
_BY_CAPABILITY = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_ADMIN": "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie"
    " lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree"
    " perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}
# The machines of image configurations and of uname(2), each with those whose programs it runs as well.
_ARCHITECTURES = {
    "386": ("X86",),
    "amd64": ("X86_64", "X86", "X32"),
    "arm": ("ARM",),
    "arm64": ("AARCH64", "ARM"),
    "ppc64le": ("PPC64LE",),
    "riscv64": ("RISCV64",),
    "s390x": ("S390X",),
}
_ARCHITECTURES |= {"x86_64": _ARCHITECTURES["amd64"], "aarch64": _ARCHITECTURES["arm64"]}
_ALLOW = "SCMP_ACT_ALLOW"
_ENOSYS = 38
_NEW_NAMESPACES = 0x7E020000
_TIOCSTI = 0x5412
# (mask, value) pairs that together take every socket family up to 47 but AF_ALG (38) and AF_VSOCK (40).
_FAMILIES = (
    (0xFFFFFFE0, 0), (0xFFFFFFFC, 32), (0xFFFFFFFE, 36), (0xFFFFFFFF, 39), (0xFFFFFFFF, 41), (0xFFFFFFFE, 42),
    (0xFFFFFFFC, 44),
)  # fmt: skip
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)


def seccomp(machine: str, capabilities: Iterable[str]) -> dict[str, Any]:
    """The seccomp profile (runtime-spec, config-linux.md, "Seccomp").

    The kernel looks at 32 bits of a socket family or an ioctl number, so the conditions do too: a comparison
    of all 64 could be passed by setting one that the kernel ignores.

    Args:
        machine: the processor, as images (`amd64`) or the kernel (`x86_64`) call it. Of an unknown one, only
            programs of its own kind can run.
        capabilities: those that the container may have; some calls come with them.
    """
    names = _ALLOWED.split()
    for capability in capabilities:
        names += _BY_CAPABILITY.get(capability, "").split()
    found = set(names)
    rules: list[dict[str, Any]] = [{"names": sorted(found), "action": _ALLOW}]
    if "clone" not in found:
        flags = 1 if machine == "s390x" else 0
        rules.append(_rule("clone", _masked(flags, _NEW_NAMESPACES, 0)))
        # Its flags lie in memory, where a filter cannot look; libraries fall back to clone.
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS})
    rules += [
        _rule(
            "personality", *({"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in _PERSONALITIES)
        ),
        _rule("socket", *(_masked(0, mask, value) for mask, value in _FAMILIES)),
        # Any number that differs from TIOCSTI in one bit.
        _rule("ioctl", *(_masked(1, 1 << bit, ~_TIOCSTI & 1 << bit) for bit in range(32))),
    ]
    profile: dict[str, Any] = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": rules}
    if machine in _ARCHITECTURES:
        profile["architectures"] = [f"SCMP_ARCH_{name}" for name in _ARCHITECTURES[machine]]
    return profile


def _rule(name: str, *alternatives: dict[str, Any]) -> dict[str, Any]:
    return {"names": [name], "action": _ALLOW, "args": list(alternatives)}


def _masked(index: int, mask: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
