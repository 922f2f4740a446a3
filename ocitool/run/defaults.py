"""What a container gets that asks for nothing: a config.json, and a seccomp profile of our own."""

from __future__ import annotations

import posix

from . import capabilities, seccomp, spec
from .syscalls import numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
    "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_MOUNTS = (
    ("/proc", "proc", ("nosuid", "noexec", "nodev")),
    ("/dev", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ("/dev/pts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    ("/dev/shm", "tmpfs", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),
    ("/dev/mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ("/sys", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    ("/sys/fs/cgroup", "cgroup", ("nosuid", "noexec", "nodev", "relatime", "ro")),
)


def config(*, rootless: bool = False) -> dict[str, Any]:
    """The config.json that `spec` writes.

    Args:
        rootless: for this ordinary user: their own id is root inside, and the host's network is shared.
    """
    kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
    linux: dict[str, Any] = {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": kind} for kind in kinds],
        "seccomp": seccomp_profile(),
        "maskedPaths": list(MASKED),
        "readonlyPaths": list(READONLY),
    }
    if rootless:
        linux["namespaces"] = [{"type": kind} for kind in (*kinds, "user") if kind != "network"]
        linux["uidMappings"] = [{"containerID": 0, "hostID": posix.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": posix.getegid(), "size": 1}]
        del linux["resources"]
    listed = list(capabilities.DEFAULT)
    return {
        "ociVersion": spec.VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {kind: list(listed) for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "ocitool",
        "mounts": [
            {"destination": destination, "type": kind, "source": kind, "options": list(options)}
            for destination, kind, options in _MOUNTS
        ],
        "linux": linux,
    }


# Calls that change the host rather than the container, that a container has no business with, or
# that have been the way out of one. Everything else that we know by name is allowed.
_DENIED_TEXT = (
    # the kernel itself: modules, restart, swap, clocks, log, accounting, hardware ports
    "create_module delete_module finit_module init_module get_kernel_syms query_module kexec_file_load"
    " kexec_load reboot swapoff swapon clock_settime clock_settime64 settimeofday stime syslog acct ioperm"
    " iopl vm86 vm86old lookup_dcookie nfsservctl quotactl quotactl_fd sysfs _sysctl uselib ustat vhangup"
    " bdflush"
    # namespaces and mounts
    " fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree open_tree_attr pivot_root"
    " setns umount umount2 unshare sethostname setdomainname"
    # what has no namespace, or sees all of the machine
    " add_key keyctl request_key bpf perf_event_open fanotify_init open_by_handle_at userfaultfd"
    " io_uring_enter io_uring_register io_uring_setup get_mempolicy set_mempolicy set_mempolicy_home_node"
    " mbind migrate_pages move_pages lsm_set_self_attr socketcall"
)
_DENIED = frozenset(_DENIED_TEXT.split())
_CONDITIONAL = frozenset(("clone", "clone3", "ioctl", "personality", "socket"))
_NEW_NAMESPACES = 0x7E020000
_TIOCSTI = 0x5412
# (mask, value) pairs that together take every socket family up to 47 but AF_ALG (38) and AF_VSOCK (40).
_FAMILIES = (
    (0xFFFFFFE0, 0), (0xFFFFFFFC, 32), (0xFFFFFFFE, 36), (0xFFFFFFFF, 39), (0xFFFFFFFF, 41), (0xFFFFFFFE, 42),
    (0xFFFFFFFC, 44),
)  # fmt: skip
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)


def _masked(index: int, mask: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def seccomp_profile() -> dict[str, Any]:
    """The default profile, for this machine's architecture and those that it also runs.

    The kernel looks at 32 bits of a socket family or an ioctl number, so the conditions do too: a
    comparison of all 64 could be passed by setting one that the kernel ignores.
    """
    native = seccomp.native()
    also = {"X86_64": ["X86", "X32"], "AARCH64": ["ARM"]}.get(native, [])
    known: set[str] = set()
    for architecture in (native, *also):
        known.update(numbers(architecture))
    allow = "SCMP_ACT_ALLOW"
    flags_index = 1 if native == "S390X" else 0
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": [f"SCMP_ARCH_{name}" for name in (native, *also)],
        "syscalls": [
            {"names": sorted(known - _DENIED - _CONDITIONAL), "action": allow},
            {"names": ["clone"], "action": allow, "args": [_masked(flags_index, _NEW_NAMESPACES, 0)]},
            # Its flags lie in memory, where a filter cannot look; libraries fall back to clone.
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {
                "names": ["personality"],
                "action": allow,
                "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in _PERSONALITIES],
            },
            {
                "names": ["socket"],
                "action": allow,
                "args": [_masked(0, mask, value) for mask, value in _FAMILIES],
            },
            # Any number that differs from TIOCSTI in one bit.
            {
                "names": ["ioctl"],
                "action": allow,
                "args": [_masked(1, 1 << bit, ~_TIOCSTI & 1 << bit) for bit in range(32)],
            },
        ],
    }
