"""openat2(2), which the standard library does not have: open a path as if a directory were `/`."""

from __future__ import annotations

import errno
import os
import struct
from functools import cache
from typing import Any, Final

_NUMBER: Final = 437  # on every architecture
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_IN_ROOT: Final = 0x10
_HOW: Final = struct.Struct("QQQ")  # struct open_how: flags, mode, resolve
_TRIES: Final = 8


@cache
def available() -> bool:
    """Whether this kernel (5.6 and later) and its filters let us call it."""
    try:
        fd = _call(os.open("/", os.O_PATH | os.O_CLOEXEC), b".", os.O_PATH | os.O_CLOEXEC, keep=False)
    except OSError:
        return False
    os.close(fd)
    return True


def in_root(root: int, path: bytes, flags: int) -> int | None:
    """Open a path with `root` as the root of absolute links and of `..`; magic links are not followed.

    Returns:
        The file descriptor, or None where there is no such file, or the kernel would not say.
    """
    for _ in range(_TRIES):
        try:
            return _call(root, path, flags)
        except OSError as error:
            # EAGAIN: something on the way was renamed just then.
            if error.errno != errno.EAGAIN:
                return None
    return None


def _call(root: int, path: bytes, flags: int, *, keep: bool = True) -> int:
    how = _HOW.pack(flags, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    try:
        fd: int = _syscall()(_NUMBER, root, path, how, len(how))
        if fd < 0:
            import ctypes

            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        if not keep:
            os.close(root)
    return fd


@cache
def _syscall() -> Any:
    import ctypes  # loaded late: who only removes trees never gets here

    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    call.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
    return call
