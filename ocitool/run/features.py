"""What this runtime can do, in the specification's own structure (features.md).

Everything comes from the tables by which the code works, so that nothing is promised that is not
there. "It MUST NOT depend on the host": what a kernel lacks is an error when it is asked for.
"""

from __future__ import annotations

from ocitool import __version__

from . import capabilities, mountoptions, namespaces, process, seccomp, spec
from .state import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def document() -> dict[str, Any]:
    """The Features structure."""
    return {
        "ociVersionMin": spec.OLDEST,
        "ociVersionMax": VERSION,
        "hooks": list(spec.HOOKS),
        "mountOptions": mountoptions.names(),
        "linux": {
            "namespaces": sorted(namespaces.TYPES),
            "capabilities": list(capabilities.NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": sorted(seccomp.ACTIONS),
                "operators": [f"SCMP_CMP_{name}" for name in seccomp.OPERATORS],
                "archs": [f"SCMP_ARCH_{name}" for name in seccomp.ARCHITECTURES],
                "knownFlags": sorted(seccomp.FLAGS),
                "supportedFlags": sorted(seccomp.FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "memoryPolicy": {
                "modes": list(process.MEMORY_POLICIES),
                "flags": list(process.MEMORY_POLICY_FLAGS),
            },
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": {"ocitool.version": __version__},
    }
