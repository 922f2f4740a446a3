"""The compiled filter, kept beside the state so that `exec` need not compile it again."""

from __future__ import annotations

from ocitool.errors import NotFound

from .process import Filter
from .state import read_file, write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# In the first word of the file, above the flags of seccomp(2).
_ALLOWS_FCNTL, _NOTIFIES = 1 << 31, 1 << 30


def make(directory: str, linux: dict[str, Any]) -> Filter:
    """Compile the container's profile, if it has one, and keep the result."""
    profile = linux.get("seccomp")
    if not profile:
        return Filter(b"")
    from .seccomp import compile_filter

    found = compile_filter(profile)
    head = found.flags | (_ALLOWS_FCNTL if found.allows_fcntl else 0) | (_NOTIFIES if found.notifies else 0)
    write_file(f"{directory}/seccomp.bpf", head.to_bytes(8, "little") + found.program)
    return found


def load(directory: str, linux: dict[str, Any]) -> Filter:
    """The filter of a container for a further process."""
    if not linux.get("seccomp"):
        return Filter(b"")
    try:
        kept = read_file(f"{directory}/seccomp.bpf", "seccomp filter")
    except NotFound:
        return make(directory, linux)
    head = int.from_bytes(kept[:8], "little")
    return Filter(
        kept[8:],
        head & ~(_ALLOWS_FCNTL | _NOTIFIES),
        allows_fcntl=bool(head & _ALLOWS_FCNTL),
        notifies=bool(head & _NOTIFIES),
    )
