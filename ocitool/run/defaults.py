"""What `spec` writes: a config.json for a container that asks for nothing."""

from __future__ import annotations

import posix

from ocitool import defaults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


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
        "maskedPaths": list(defaults.MASKED_PATHS),
        "readonlyPaths": list(defaults.READONLY_PATHS),
    }
    if rootless:
        linux["namespaces"] = [{"type": kind} for kind in (*kinds, "user") if kind != "network"]
        linux["uidMappings"] = [{"containerID": 0, "hostID": posix.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": posix.getegid(), "size": 1}]
        del linux["resources"]
    mounts = defaults.rootless_mounts(single=True, host_network=True) if rootless else defaults.mounts()
    listed = list(defaults.CAPABILITIES)
    return {
        "ociVersion": defaults.OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [defaults.PATH, "TERM=xterm"],
            "cwd": "/",
            "capabilities": {kind: list(listed) for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": defaults.HOSTNAME,
        "mounts": mounts,
        "linux": linux,
    }


def seccomp_profile(capabilities: Iterable[str] = defaults.CAPABILITIES) -> dict[str, Any]:
    """The default profile for a container with these capabilities on this machine."""
    return defaults.seccomp(posix.uname().machine, capabilities)
