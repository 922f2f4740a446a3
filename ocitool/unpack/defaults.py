"""The parts of a runtime configuration that no image decides: as container engines have them.

Mounts, capabilities, masked and read-only paths are those that Docker and Podman give a container. The
version is the lowest one that has everything used here, because some runtimes refuse a later one.
"""

from __future__ import annotations

from typing import Any, Final

OCI_VERSION: Final = "1.0.2"
PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOSTNAME: Final = "ocitool"
COMMAND: Final = ("sh",)

CAPABILITIES: Final = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)

MASKED_PATHS: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_QUIET: Final = ("nosuid", "noexec", "nodev")
_CGROUP: Final = ("/sys/fs/cgroup", "cgroup", "cgroup", (*_QUIET, "relatime", "ro"))
_MOUNTS: Final = (
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
)
_NAMESPACES: Final = ("pid", "network", "ipc", "uts", "mount")


def mounts(*, rootless: bool, one_group: bool) -> list[dict[str, Any]]:
    """The mounts of every container.

    Args:
        rootless: the container has a user namespace of its own, made by an ordinary user.
        one_group: a single group is mapped in it, so that group 5, the terminals', does not exist.
    """
    table = _MOUNTS if rootless else (*_MOUNTS, _CGROUP)
    return [
        mount(destination, kind, source, [part for part in options if not (one_group and part == "gid=5")])
        for destination, kind, source, options in table
    ]


def mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    """One mount (runtime-spec, config.md, "Mounts")."""
    return {"destination": destination, "type": kind, "source": source, "options": options}


def namespaces(*, rootless: bool) -> list[dict[str, Any]]:
    """The namespaces that every container has for itself."""
    kinds = (*_NAMESPACES, "user") if rootless else _NAMESPACES
    return [{"type": kind} for kind in kinds]
