"""Paths inside the container's root, resolved by the kernel from the root's descriptor.

Nothing here is ever resolved by name from the host's root: a symbolic link in the image, even one
that is swapped while the container starts, leads to a place inside the root or nowhere
(CVE-2021-30465, CVE-2026-41579).
"""

from __future__ import annotations

import posix

from ocitool.errors import UnsafeContent

from .kernel import CLOEXEC, IN_ROOT, NO_MAGICLINKS, NO_SYMLINKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .kernel import Kernel

O_PATH = 0o10000000
_IN_ROOT = IN_ROOT | NO_MAGICLINKS
_S_IFMT, _S_IFDIR, _S_IFLNK = 0o170000, 0o040000, 0o120000


def is_directory(fd: int) -> bool:
    """Whether `fd` is open on a directory."""
    return posix.fstat(fd).st_mode & _S_IFMT == _S_IFDIR


def opened(kernel: Kernel, root: int, path: str, flags: int = O_PATH) -> int:
    """Open a path that must exist, links followed inside the root.

    Raises:
        OSError: as open(2).
    """
    try:
        return kernel.openat2(root, path.strip("/") or ".", flags, _IN_ROOT)
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, path) from exc


def exists(kernel: Kernel, root: int, path: str) -> bool:
    """Whether a path leads to something inside the root."""
    try:
        posix.close(opened(kernel, root, path))
    except OSError:
        return False
    return True


def opened_exactly(kernel: Kernel, root: int, path: str) -> int:
    """Open a path that must exist and hold no symbolic link at all.

    Raises:
        OSError: ENOENT where it does not exist, ELOOP where a link stands in it.
    """
    return kernel.openat2(root, path.strip("/") or ".", O_PATH, IN_ROOT | NO_SYMLINKS)


def parts(path: str) -> list[str]:
    """The components of a path, without empty ones, "." and "..".

    ".." goes up in the text and stops at the root, as it does for a path that is cleaned first.
    """
    found: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del found[-1:]
        elif part not in ("", "."):
            found.append(part)
    return found


def made_directory(kernel: Kernel, root: int, path: str, mode: int = 0o755) -> int:
    """Open a directory inside the root and make the missing ones on the way.

    Raises:
        OSError: a part exists and is no directory, or cannot be made.
    """
    names = parts(path)
    try:
        return kernel.openat2(root, "/".join(names) or ".", O_PATH | posix.O_DIRECTORY, _IN_ROOT)
    except FileNotFoundError:
        pass
    here = opened(kernel, root, ".")
    for depth in range(len(names)):
        try:
            following = _step(kernel, root, names[: depth + 1], here, mode)
        finally:
            posix.close(here)
        here = following
    return here


def _step(kernel: Kernel, root: int, names: list[str], parent: int, mode: int) -> int:
    path = "/".join(names)
    try:
        return kernel.openat2(root, path, O_PATH | posix.O_DIRECTORY, _IN_ROOT)
    except FileNotFoundError:
        pass
    try:
        posix.mkdir(names[-1], mode, dir_fd=parent)
    except FileExistsError as exc:
        # It exists and yet could not be opened: a link that leads nowhere, inside the root at least.
        target = _link(names[-1], parent)
        if target is None:
            raise
        raise UnsafeContent(
            f"/{path} in the root file system is a symbolic link to {target!r}, which does not exist there"
        ) from exc
    return kernel.openat2(root, path, O_PATH | posix.O_DIRECTORY, _IN_ROOT)


def _link(name: str, parent: int) -> str | None:
    try:
        return posix.readlink(name, dir_fd=parent)
    except OSError:
        return None


def made_file(kernel: Kernel, root: int, path: str) -> int:
    """Open a file inside the root (O_PATH), and make it, empty, where it is missing.

    Raises:
        OSError: as open(2).
        UnsafeContent: a dangling symbolic link stands in its place.
    """
    names = parts(path)
    try:
        return opened(kernel, root, "/".join(names))
    except FileNotFoundError:
        pass
    parent = made_directory(kernel, root, "/".join(names[:-1]))
    try:
        flags = posix.O_CREAT | posix.O_EXCL | posix.O_WRONLY | posix.O_NOFOLLOW | CLOEXEC
        posix.close(posix.open(names[-1], flags, 0o644, dir_fd=parent))
    except FileExistsError as exc:
        target = _link(names[-1], parent)
        raise UnsafeContent(
            f"{path} in the root file system is a dangling symbolic link to {target!r}"
        ) from exc
    finally:
        posix.close(parent)
    return opened(kernel, root, "/".join(names))


def same_names(path: str) -> str:
    """The path with a leading "/" and nothing redundant."""
    return "/" + "/".join(parts(path))
