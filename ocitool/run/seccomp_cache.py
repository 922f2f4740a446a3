"""Filters are compiled once for a container, and for those after it that have the same profile.

A container's `filter` is there for `exec`. The one that was compiled last has a second name, `~seccomp`
(which is no id) beside the containers, and the next container takes it if its key says that it is the same. A
file of this kind is never changed once it has its name, and both are where only their owner can write::

    the profile and who compiled it, as one line    the key
    8 bytes                                         flags of seccomp(2), and two of ours above them
    the rest                                        the program
"""

from __future__ import annotations

import posix

from ocitool.errors import NotFound

from . import jsonfast
from .state import read_file, write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ALLOWS_FCNTL, _NOTIFIES = 1 << 31, 1 << 30
_COMPILER = ("seccomp.py", "syscalls.py")


class Filter:
    """A compiled seccomp filter.

    Attributes:
        program: BPF instructions, or b"" for none.
        flags: of seccomp(2).
        allows_fcntl: whether the trampoline can do its work under it.
        notifies: whether an agent outside decides about some calls; `flags` ask for its descriptor then.
    """

    def __init__(
        self, program: bytes, flags: int = 0, *, allows_fcntl: bool = True, notifies: bool = False
    ) -> None:
        self.program = program
        self.flags = flags
        self.allows_fcntl = allows_fcntl
        self.notifies = notifies


def make(directory: str, linux: dict[str, Any]) -> Filter:
    """Find or compile the filter of the container's profile, if it has one, and keep it."""
    profile = linux.get("seccomp")
    if not profile:
        return Filter(b"")
    key = _key(profile)
    return _found(directory, key) or _compiled(directory, profile, key)


def load(directory: str, linux: dict[str, Any]) -> Filter:
    """The filter of a container for a further process."""
    if not linux.get("seccomp"):
        return Filter(b"")
    try:
        kept = read_file(f"{directory}/filter", "seccomp filter")
    except NotFound:
        return make(directory, linux)
    return _filter(kept.partition(b"\n")[2])


def _key(profile: dict[str, Any]) -> bytes:
    """All that the program depends on: the profile, the processor, and the files of the compiler."""
    here = __file__.rpartition("/")[0]
    files = [posix.stat(f"{here}/{name}") for name in _COMPILER]
    compiler = [posix.uname().machine, *[[info.st_mtime_ns, info.st_size] for info in files]]
    return jsonfast.dumps([compiler, profile]).encode() + b"\n"


def _found(directory: str, key: bytes) -> Filter | None:
    """The filter that was compiled last, if that is the one."""
    own = f"{directory}/filter"
    try:
        posix.link(_last(directory), own)
    except OSError:
        return None
    kept = read_file(own, "seccomp filter")
    if kept.startswith(key):
        return _filter(kept[len(key) :])
    posix.unlink(own)
    return None


def _compiled(directory: str, profile: dict[str, Any], key: bytes) -> Filter:
    from .seccomp import compile_filter

    found = compile_filter(profile)
    head = found.flags | (_ALLOWS_FCNTL if found.allows_fcntl else 0) | (_NOTIFIES if found.notifies else 0)
    own, second = f"{directory}/filter", f"{directory}/filter.last"
    write_file(own, key + head.to_bytes(8, "little") + found.program)
    try:
        posix.link(own, second)
        posix.rename(second, _last(directory))
    except OSError:
        pass  # a file system without links: the next container compiles again
    return found


def _last(directory: str) -> str:
    return f"{directory.rpartition('/')[0]}/~seccomp"


def _filter(kept: bytes) -> Filter:
    head = int.from_bytes(kept[:8], "little")
    return Filter(
        kept[8:],
        head & ~(_ALLOWS_FCNTL | _NOTIFIES),
        allows_fcntl=bool(head & _ALLOWS_FCNTL),
        notifies=bool(head & _NOTIFIES),
    )
