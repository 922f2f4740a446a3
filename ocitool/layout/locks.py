"""Who works in a layout: advisory locks, which the kernel drops when their process dies, and leases.

All of it lives in the private directory `.ocitool` of the layout:

    index.lock     held (exclusively) while index.json is read, changed and written again
    gc.lock        held (exclusively) while garbage is collected, and (shared) for the moment in which a
                   writer notes what it relies on and looks whether that is there
    leases/        one file per writer, locked for its life: the content it has added or found there
    partial/       one file per blob on its way in, locked by the process that brings it

Order: gc.lock is taken before index.lock, and the lock of a partial before gc.lock, never the other way.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
import weakref
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from ocitool import limits
from ocitool.digest import Digest
from ocitool.errors import OciError
from ocitool.layout import files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PRIVATE: Final = ".ocitool"
LEASES: Final = "leases"
INDEX_LOCK: Final = "index.lock"
GC_LOCK: Final = "gc.lock"


@contextmanager
def lock(root: Path, name: str, *, shared: bool = False) -> Iterator[int]:
    """Hold one of the layout's locks; yields the private directory's descriptor."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with ExitStack() as held:
        with files.translated(f"{PRIVATE}/{name}", root):
            private = held.enter_context(files.directory(root, PRIVATE, create=True))
            fd = os.open(name, flags, 0o600, dir_fd=private)
            held.callback(files.close_unlocked, fd)
            fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield private


def try_lock(fd: int) -> bool:
    """Lock an open file unless another process has."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Lease:
    """What one writer relies on, told to whoever collects garbage.

    A lease ends with its store, or with its process. One whose process died without ending it marks a
    crash: what it names is suspect until it has been read again.
    """

    def __init__(self, root: Path) -> None:
        """Open a lease and look for those that crashes left."""
        self._root = root
        self.names: set[Digest] = set()
        self._mutex = threading.Lock()
        self.name = secrets.token_hex(8)
        # Exclusively, because between its creation and its lock a lease looks like a dead one.
        with lock(root, GC_LOCK), files.directory(root, PRIVATE, LEASES, create=True) as leases:
            self._dead = tuple(dead_leases(leases))
            self.suspects = {digest for name in self._dead for digest in _read(leases, name)}
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(self.name, flags, 0o600, dir_fd=leases)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        self._finalizer = weakref.finalize(self, _end, root, self.name, self._fd, os.getpid())

    def note(self, digest: Digest) -> bool:
        """Keep content from being collected; False where the lease has ended. With `GC_LOCK` held."""
        with self._mutex:
            if not self._finalizer.alive:
                return False
            if digest not in self.names:
                files.write_all(self._fd, f"{digest}\n".encode())
                self.names.add(digest)
            return True

    def trust(self, digest: Digest) -> None:
        """Content has been read and is right; once all of it is, the marks of the crash go."""
        with self._mutex:
            self.suspects.discard(digest)
            if self.suspects or not self._dead:
                return
            with (
                files.translated(f"{PRIVATE}/{LEASES}", self._root),
                files.directory(self._root, PRIVATE, LEASES) as leases,
            ):
                for name in self._dead:
                    files.unlink(leases, name)
            self._dead = ()

    def close(self) -> None:
        """End the lease."""
        with self._mutex:
            self._finalizer()


def _end(root: Path, name: str, fd: int, owner: int) -> None:
    if os.getpid() != owner:
        files.close_unwritten(fd)  # a forked copy of the owner, which goes on
        return
    # A lease that can't be removed looks like a crash to the next writer, which is harmless.
    with suppress(OSError), files.directory(root, PRIVATE, LEASES) as leases:
        files.unlink(leases, name)
    files.close_unlocked(fd)


def dead_leases(leases: int) -> Iterator[str]:
    """The names of leases whose process is gone."""
    for name in files.names_in(leases):
        with if_unheld(leases, name) as unheld:
            if unheld:
                yield name


@contextmanager
def if_unheld(parent: int, name: str) -> Iterator[bool]:
    """Whether nobody holds a private file; while the body runs nobody else can."""
    try:
        # For writing, because NFS gives no exclusive lock otherwise.
        fd = files.open_file(parent, name, os.O_RDWR)
    except OSError as error:
        # Gone in this moment, or no regular file and so nobody's; what is another user's is left alone.
        yield not isinstance(error, PermissionError)
        return
    try:
        yield try_lock(fd)
    finally:
        files.close_unlocked(fd)


def leased(root: Path, *, but: Iterable[Lease] = ()) -> set[Digest]:
    """What living writers rely on. To be called with `GC_LOCK` held exclusively."""
    with files.directory(root, PRIVATE, LEASES, create=True) as leases:
        living = set(files.names_in(leases)) - set(dead_leases(leases)) - {lease.name for lease in but}
        return {digest for name in living for digest in _read(leases, name)}


def _read(leases: int, name: str) -> Iterator[Digest]:
    try:
        raw = files.read_file(leases, name, limits.INDEX_JSON_BYTES)
    except OSError:
        return  # its writer has ended it in this moment
    for line in raw.decode(errors="replace").splitlines():
        # A power cut may have left anything here, and a writer may be in the middle of a line.
        with suppress(OciError):
            yield Digest.parse(line)
