"""The container's cgroup: how it is entered, what runs in it, and how it is taken away.

A host has version 1 (one hierarchy for each controller), version 2 (a single one), or both, the
"hybrid" layout. A `Cgroup` is the container's directory in each hierarchy there is; `newcgroup` makes it.
"""

from __future__ import annotations

import posix
import time

from ocitool.errors import InvalidContent, RunError, Unsupported

from .state import is_frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .kernel import Kernel

_EBUSY, _ENODEV = 16, 19
_MOST_ROUNDS = 100


def text(path: str) -> str:
    """The content of a file of the kernel's."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        pieces = []
        while piece := posix.read(fd, 65536):
            pieces.append(piece)
        return b"".join(pieces).decode(errors="surrogateescape")
    finally:
        posix.close(fd)


class Cgroup:
    """The cgroup of one container.

    Attributes:
        directories: the container's directory, by the controllers of its hierarchy ("" for version 2).
        made: the directories that are made for it, parents first.
        taken: whether it is the container's by now; before that, its processes are someone else's.
        outside: where the runtime is, in the hierarchies of version 1: the container stays there where it may
            not have a directory of its own.
    """

    def __init__(self, directories: dict[str, str], made: list[str], *, taken: bool = False) -> None:
        self.directories = directories
        self.made = made
        self.taken = taken
        self.outside: dict[str, str] = {}

    @classmethod
    def load(cls, saved: dict[str, Any]) -> Cgroup:
        """From what `saved` returned."""
        if "unit" in saved:
            from .systemd import Scope

            return Scope.restored(saved)
        return cls(saved["directories"], saved["made"], taken=saved["taken"])

    def saved(self) -> dict[str, Any]:
        """What the state file keeps."""
        return {"directories": self.directories, "made": self.made, "taken": self.taken}

    @property
    def unified(self) -> str:
        """The directory in the version 2 hierarchy, or ""."""
        return self.directories.get("", "")

    @property
    def pure_v2(self) -> bool:
        """Whether version 2 is all there is."""
        return list(self.directories) == [""]

    def directory_of(self, controller: str) -> str:
        """The version 1 directory of a controller, or ""."""
        return next((path for names, path in self.directories.items() if controller in names.split(",")), "")

    def below(self, names: list[str]) -> Cgroup:
        """A cgroup that was made below this one, for a process to be started in it.

        Args:
            names: its path, or "controller:path" for one hierarchy; several count one after the other.

        Raises:
            InvalidContent: a path leads out of this cgroup, or there is no such hierarchy.
        """
        directories = dict(self.directories)
        for name in names:
            controller, _, path = name.rpartition(":")
            found = [names for names in directories if not controller or controller in names.split(",")]
            if not found:
                raise InvalidContent(f"--cgroup {name}: the container has no cgroup of this controller")
            if ".." in path.split("/"):
                raise InvalidContent(f"--cgroup {name} leads out of the container's cgroup")
            directories |= {names: f"{self.directories[names]}/{path.strip('/')}" for names in found}
        return Cgroup(directories, [])

    def plan(self) -> None:
        """Note which directories are missing, so that whoever is killed while making them leaves a list."""
        from . import newcgroup

        newcgroup.plan(self)

    def create(self, *, optional: bool) -> None:
        """Make the directories.

        Args:
            optional: leave out the hierarchies that this user may not write to.

        Raises:
            Conflict: one of them holds processes or is frozen.
            RunError: one of them cannot be made.
        """
        from . import newcgroup

        newcgroup.create(self, optional=optional)

    def bring_in(self, pid: int) -> None:
        """Have a process that was not cloned into the cgroup, and could not enter it, moved there."""

    def settled(self) -> None:
        """The container's first process is in the cgroup."""

    def update(self, kernel: Kernel, resources: dict[str, Any], *, devices: bool) -> None:
        """Change `linux.resources` of a container that is there; raises what `newcgroup.apply` does."""
        from . import newcgroup

        newcgroup.apply(self, kernel, resources, devices=devices)

    def entrances(self) -> list[int]:
        """Descriptors through which a process enters by writing "0"; the version 2 one is `directory_fd`.

        A single-threaded process that moves itself through `tasks` needs no lock that all of the
        machine shares; a move by `cgroup.procs` waits 10 ms for that lock.
        """
        return [
            posix.open(f"{path}/tasks", posix.O_WRONLY | posix.O_CLOEXEC)
            for names, path in self.directories.items()
            if names
        ]

    def directory_fd(self) -> int:
        """The version 2 directory for clone3(2), or -1."""
        if not self.unified:
            return -1
        return posix.open(self.unified, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)

    def pids(self) -> list[int]:
        """The processes in the cgroup, in the order of their numbers."""
        for names in ("", "freezer", "pids", *self.directories):
            directory = self.directories.get(names, "")
            if directory:
                break
        else:
            return []
        found = []
        for path in _tree(directory):
            try:
                found += [int(line) for line in text(f"{path}/cgroup.procs").split()]
            except OSError as exc:
                if exc.errno not in (2, _ENODEV):
                    raise
        return sorted(found)

    def freeze(self, *, frozen: bool) -> None:
        """Stop or continue every process.

        Raises:
            Unsupported: the host has no freezer for this container.
            RunError: it did not take effect within a second.
        """
        v1 = self.directory_of("freezer")
        if v1:
            name, want = f"{v1}/freezer.state", "FROZEN" if frozen else "THAWED"
        elif self.unified:
            name, want = f"{self.unified}/cgroup.freeze", "1" if frozen else "0"
        else:
            raise Unsupported("this container has no cgroup that could be frozen")
        for _ in range(1000):
            write_setting(name, want)
            if is_frozen(self.directories) == frozen:
                return
            _pause(0.001)
        raise RunError(f"{name} did not become {want}")

    def kill(self) -> None:
        """Send SIGKILL to every process, and leave no room for one that forks meanwhile."""
        if not self.taken:
            return
        # A cgroup that stays must not be emptied like this: from then on, some kernels end whatever is cloned
        # into it (CLONE_INTO_CGROUP compares how often it was done with the cgroup of the parent).
        if self.unified in self.made:
            _write_if_there(f"{self.unified}/cgroup.kill", "1")
        if not self.pids():
            return  # and so there is nobody who could fork
        freezer = self.directory_of("freezer")
        if freezer:
            _write_if_there(f"{freezer}/freezer.state", "FROZEN")
        for _ in range(_MOST_ROUNDS):
            pids = self.pids()
            for pid in pids:
                _end(pid)
            if freezer or not pids:
                break  # nobody forks who is frozen, or gone
        if freezer:
            _write_if_there(f"{freezer}/freezer.state", "THAWED")

    def delete(self) -> None:
        """Remove what was made for the container; a directory that others use by now stays.

        Raises:
            RunError: a directory stays busy although its processes were killed.
        """
        for path in self.directories.values():
            if path in self.made:
                _remove_all(path)
        for path in reversed(self.made):
            if path not in self.directories.values():
                _remove_unused(path)


def _end(pid: int) -> None:
    try:
        posix.kill(pid, 9)
    except ProcessLookupError:
        return


def _pause(seconds: float) -> None:
    time.sleep(seconds)


def _tree(directory: str) -> list[str]:
    """A directory and all below it, parents first."""
    found = [directory]
    try:
        # A cgroup has two links, and one more for each below it: most have none, and many files.
        if posix.stat(directory).st_nlink <= 2:
            return found
        for name in posix.listdir(directory):
            path = f"{directory}/{name}"
            if posix.stat(path).st_mode & 0o170000 == 0o040000:
                found += _tree(path)
    except OSError:
        return found
    return found


def _remove_all(path: str) -> None:
    """Remove a cgroup, and those that the container has made below it."""
    try:
        posix.rmdir(path)
    except OSError:
        for below in reversed(_tree(path)):
            _remove(below)


def _remove_unused(path: str) -> None:
    try:
        posix.rmdir(path)
    except OSError:
        return


def _remove(path: str) -> None:
    """Remove a cgroup; its last process may take a moment to be gone."""
    for attempt in range(200):
        try:
            posix.rmdir(path)
        except FileNotFoundError:
            return
        except OSError as exc:
            if exc.errno != _EBUSY:
                raise RunError(f"cgroup {path}: {exc.strerror}") from exc
            _pause(0.0005 if attempt < 20 else 0.01)
        else:
            return
    raise RunError(f"cgroup {path} is still in use")


def write_setting(path: str, *values: str) -> None:
    """Write a value to a file of a cgroup, or several, each by a call of its own.

    Raises:
        RunError: the file is not there, or the kernel refuses a value.
    """
    value = values[0]
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            for value in values:
                posix.write(fd, value.encode())
        finally:
            posix.close(fd)
    except OSError as exc:
        raise RunError(f"cgroup: {path} = {value}: {exc.strerror}") from exc


def _write_if_there(path: str, value: str) -> None:
    """As `write_setting`, to a cgroup that a service manager removes as soon as it is empty."""
    try:
        write_setting(path, value)
    except RunError:
        if posix.access(path, 0):
            raise
