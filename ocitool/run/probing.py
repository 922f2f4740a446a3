"""What a host lacks for a container, found by trying, in processes that end with the attempt.

A script of its own, because a process with threads can't try namespaces: `python -I -S probing.py`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_USER = 0x10000000
_KINDS = {
    "user": _USER,
    "mount": 0x20000,
    "pid": 0x20000000,
    "network": 0x40000000,
    "ipc": 0x8000000,
    "uts": 0x4000000,
}
_MS_REC_SLAVE = 0x4000 | 0x80000
_MS_NOSUID = 2
_SETTINGS = {
    "kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "AppArmor keeps user namespaces to listed programs",
    ),
    "user/max_user_namespaces": ("0", "user namespaces are switched off"),
    "kernel/unprivileged_userns_clone": ("0", "user namespaces are kept to root"),
}


def lacks() -> list[str]:
    """What this process may not do, in a few words each."""
    libc = ctypes.CDLL(None, use_errno=True)
    base = 0 if os.geteuid() == 0 else _USER
    refused: dict[int, list[str]] = {}
    for kind, flag in _KINDS.items():
        if kind == "user" and not base:
            continue
        code = _tried(partial(libc.unshare, base | flag))
        if code:
            refused.setdefault(code, []).append(kind)
        if code and kind == "user":
            break  # an ordinary user needs it for all the others
    found = [f"no new {', '.join(kinds)} namespace ({os.strerror(code)})" for code, kinds in refused.items()]
    if found:
        return found + _reasons()

    def mount() -> int:
        return int(
            libc.unshare(base | _KINDS["mount"])
            or libc.mount(None, b"/", None, _MS_REC_SLAVE, None)
            or libc.mount(b"tmpfs", b"/", b"tmpfs", _MS_NOSUID, None)
        )

    code = _tried(mount)
    return [f"no mount ({os.strerror(code)})", *_reasons()] if code else []


def _tried(attempt: Callable[[], int]) -> int:
    """The errno of something that is tried in a child, or 0."""
    child = os.fork()
    if child == 0:
        os._exit(ctypes.get_errno() if attempt() else 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _reasons() -> list[str]:
    found = []
    for name, (value, meaning) in _SETTINGS.items():
        try:
            with open(f"/proc/sys/{name}") as file:
                if file.read().strip() == value:
                    found.append(f"{name.replace('/', '.')} is {value}: {meaning}")
        except OSError:
            continue
    return found


if __name__ == "__main__":
    sys.stdout.write("; ".join(lacks()))
