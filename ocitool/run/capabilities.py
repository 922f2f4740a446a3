"""Capabilities: the five sets of a process (config.md, "Linux Process")."""

from __future__ import annotations

from .kernel import PR_CAP_AMBIENT, PR_CAPBSET_DROP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .kernel import Kernel

# In the order of their numbers (capability.h).
NAMES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
]
_NUMBERS = {name: number for number, name in enumerate(NAMES)}
_AMBIENT_RAISE, _AMBIENT_CLEAR_ALL = 2, 4


class Sets:
    """The five sets as bit masks; all empty where config.json has no `capabilities`."""

    def __init__(self, capabilities: dict[str, list[str]] | None, warn: Callable[[str], None]) -> None:
        given = capabilities or {}
        self.bounding = _mask(given.get("bounding"))
        self.effective = _mask(given.get("effective"))
        self.permitted = _mask(given.get("permitted"))
        self.inheritable = _mask(given.get("inheritable"))
        self.ambient = _mask(given.get("ambient"))
        # "Any value which cannot be mapped to a relevant kernel interface, or cannot be granted otherwise
        # MUST be logged as a warning by the runtime."
        for name in {name: None for names in given.values() for name in names or () if name not in _NUMBERS}:
            warn(f"capability {name} is not known and was left out")


def _mask(names: list[str] | None) -> int:
    """The known ones of some names as a bit mask."""
    bits = 0
    for name in names or ():
        if name in _NUMBERS:
            bits |= 1 << _NUMBERS[name]
    return bits


def drop_bounding(kernel: Kernel, wanted: int) -> None:
    """Take everything else out of the bounding set; needs CAP_SETPCAP, so it comes first."""
    for number in range(64):
        if wanted >> number & 1:
            continue
        try:
            kernel.prctl(PR_CAPBSET_DROP, number)
        except OSError:
            if number < len(NAMES):
                raise
            return  # past the last capability of this kernel


def apply(kernel: Kernel, sets: Sets, warn: Callable[[str], None]) -> None:
    """Set all but the bounding set; what can't be granted is left out with a warning.

    "Runtimes SHOULD NOT fail if the container configuration requests capabilities that cannot be granted."
    """
    _, held, _ = kernel.capget()
    permitted = sets.permitted & held
    # What the kernel demands of each set: see capabilities(7), "Programmatically adjusting capability sets".
    effective = sets.effective & permitted
    inheritable = sets.inheritable & held & sets.bounding
    ambient = sets.ambient & permitted & inheritable
    missing = (sets.permitted | sets.effective | sets.inheritable | sets.ambient) & ~held
    if missing:
        warn("capabilities not held by the runtime were left out: " + ", ".join(names_of(missing)))
    for kind, wanted, granted, others in (
        ("effective", sets.effective, effective, "permitted"),
        ("inheritable", sets.inheritable, inheritable, "bounding"),
        ("ambient", sets.ambient, ambient, "permitted and inheritable"),
    ):
        if left_out := wanted & held & ~granted:
            names = ", ".join(names_of(left_out))
            warn(f"{kind} capabilities were left out, which would have to be {others} as well: {names}")
    kernel.capset(effective, permitted, inheritable)
    kernel.prctl(PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    for number in range(len(NAMES)):
        if ambient >> number & 1:
            kernel.prctl(PR_CAP_AMBIENT, _AMBIENT_RAISE, number)


def names_of(bits: int) -> list[str]:
    """The names of the bits of a mask; a bit without a name by its number."""
    return [
        NAMES[number] if number < len(NAMES) else f"capability {number}"
        for number in range(bits.bit_length())
        if bits >> number & 1
    ]


def process_sets(process: dict[str, Any], warn: Callable[[str], None]) -> Sets:
    """The sets of `process.capabilities`."""
    return Sets(process.get("capabilities"), warn)
