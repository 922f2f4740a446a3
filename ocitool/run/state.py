"""What is remembered of a container between two commands, and in which state it is (runtime.md, "State").

A container is a directory `<root>/<id>`::

    creating.json   what `State` holds before there is a process
    state.json      the same from then on
    config.json     the configuration as it was at `create`: later changes have no effect
    filter          the compiled seccomp profile, if it has one (see `seccomp_cache`)
    lock            held by whoever changes something
    ready           is there once the container is complete
    go, err         pipes to the waiting first process; `go` is there until `start`

The state itself is not stored but found: by whether the process lives, and which files are there.
No file is written twice: some file systems write one that is replaced out to the disk at once.
"""

from __future__ import annotations

import posix
import time

from ocitool.errors import Conflict, InvalidContent, NotFound, OciError, RunError

from . import jsonfast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = "1.3.0"  # of the specification
_ID = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+.-")
_LONGEST_ID = 1024
_LARGEST_DOCUMENT = 16 << 20
_ENOTEMPTY = 39


def check_id(container_id: str) -> str:
    """Check an id, which becomes the name of a directory and of a cgroup (RN-17).

    Raises:
        InvalidContent: it is empty, too long, "." or "..", or has other characters in it.
    """
    valid = 0 < len(container_id) <= _LONGEST_ID and _ID.issuperset(container_id)
    if not valid or container_id in (".", ".."):
        raise InvalidContent(
            f"container id {container_id[:80]!r} is not valid",
            hint="use letters, digits and the characters _ + . -",
        )
    return container_id


def default_root() -> str:
    """Where containers are remembered: /run/ocitool, or the user's own run-time directory."""
    directory = posix.environ.get(b"XDG_RUNTIME_DIR")
    root = posix.geteuid() == 0
    if root and not directory and posix.access("/run", posix.W_OK):
        return "/run/ocitool"
    from . import namespaces

    if root and namespaces.is_host_root():
        return "/run/ocitool"
    if directory:
        return f"{directory.decode(errors='surrogateescape')}/ocitool"
    return f"/tmp/ocitool-{namespaces.user_outside()}"


def read_file(path: str, what: str) -> bytes:
    """Read a small file.

    Raises:
        NotFound: it does not exist. RunError: it cannot be read. InvalidContent: it is too large.
    """
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except FileNotFoundError as exc:
        raise NotFound(f"{what}: {path} does not exist: no such file or directory") from exc
    except OSError as exc:
        raise RunError(f"{what}: {path}: {exc.strerror}") from exc
    return read_all(fd, path, what)


def is_frozen(directories: dict[str, str]) -> bool:
    """Whether the processes of a cgroup are stopped.

    Args:
        directories: where it is, by the controllers of its hierarchies (see `cgroups.Cgroup`).
    """
    v1 = next((path for names, path in directories.items() if "freezer" in names.split(",")), "")
    file, mark = f"{v1}/freezer.state", b"FROZEN"
    if not v1:
        file, mark = f"{directories.get('', '')}/cgroup.events", b"frozen 1"
    try:
        return mark in read_file(file, "cgroup").splitlines()
    except OciError:
        return False  # a container can do without a cgroup


def read_all(fd: int, path: str, what: str) -> bytes:
    """Read a small file that is open, and close it.

    Raises:
        RunError: it cannot be read. InvalidContent: it is too large.
    """
    try:
        pieces = []
        size = 0
        while piece := posix.read(fd, 1 << 16):
            pieces.append(piece)
            size += len(piece)
            if size > _LARGEST_DOCUMENT:
                raise InvalidContent(f"{what}: {path} is larger than {_LARGEST_DOCUMENT >> 20} MiB")
    except OSError as exc:
        raise RunError(f"{what}: {path}: {exc.strerror}") from exc
    finally:
        posix.close(fd)
    return b"".join(pieces)


def write_file(path: str, data: bytes, mode: int = 0o600) -> None:
    """Write a file so that a reader finds the old or the new one, never a part."""
    fd = posix.open(
        f"{path}.new",
        posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_NOFOLLOW | posix.O_CLOEXEC,
        mode,
    )
    try:
        while data:
            data = data[posix.write(fd, data) :]
    finally:
        posix.close(fd)
    posix.rename(f"{path}.new", path)


def process_start(pid: int) -> tuple[str, int] | None:
    """State letter and start time of a process (fields 3 and 22 of its stat), or None."""
    try:
        fd = posix.open(f"/proc/{pid}/stat", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return None
    try:
        fields = posix.read(fd, 4096).rpartition(b")")[2].split()
    except OSError:
        return None
    finally:
        posix.close(fd)
    return fields[0].decode(), int(fields[19])


def _lives(pid: int, start: int) -> bool:
    """Whether a process lives, and is still the one that was started then."""
    found = process_start(pid) if pid else None
    return found is not None and found[0] not in "ZX" and found[1] == start


def beginning(bundle: str) -> dict[str, Any]:
    """What is known of every container from the start."""
    creator = posix.getpid()
    return {
        "ociVersion": VERSION,
        "bundle": bundle,
        "owner": str(posix.geteuid()),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "creator": [creator, (process_start(creator) or ("", 0))[1]],
    }


def make_root(root: str) -> None:
    """Make the directory of all containers, for its owner alone."""
    missing = []
    here = root
    while here and not posix.access(here, 0):
        missing.append(here)
        here = here.rpartition("/")[0]
    for directory in reversed(missing):
        try:
            posix.mkdir(directory, 0o700)
        except FileExistsError:
            continue
    # In /tmp, another user could have put a directory or a link of theirs in its place.
    info = posix.stat(root, follow_symlinks=posix.geteuid() == 0)
    if info.st_mode & 0o170000 != 0o040000 or info.st_uid not in (posix.geteuid(), 0):
        raise RunError(f"{root} is not a directory of this user")


class State:
    """One container as it is remembered.

    Attributes:
        directory: where.
        fields: the content of state.json.
    """

    def __init__(self, directory: str, fields: dict[str, Any]) -> None:
        self.directory = directory
        self.fields = fields
        self._lock = -1
        self._config: dict[str, Any] | None = None

    @classmethod
    def new(cls, root: str, container_id: str, fields: dict[str, Any]) -> State:
        """Take an id, which must not be in use.

        "If the ID is not unique across all containers within the scope of the runtime ... the
        implementation MUST generate an error and a new container MUST NOT be created."

        Raises:
            Conflict: the id is in use.
            RunError: the directory cannot be made.
        """
        directory = f"{root}/{check_id(container_id)}"
        try:
            make_root(root)
            posix.mkdir(directory, 0o700)
        except FileExistsError as exc:
            raise Conflict(f"a container {container_id} exists already") from exc
        except OSError as exc:
            raise RunError(f"state directory {directory}: {exc.strerror}") from exc
        return cls(directory, {"id": container_id, **fields})

    @classmethod
    def named(cls, root: str, container_id: str) -> State:
        """A container of which nothing but its id is known yet."""
        return cls(f"{root}/{check_id(container_id)}", {"id": container_id})

    @classmethod
    def load(cls, root: str, container_id: str) -> State:
        """Find a container.

        Raises:
            NotFound: there is none of this id.
        """
        found = cls.named(root, container_id)
        found.read()
        return found

    def read(self) -> None:
        """Read what is remembered.

        Raises:
            NotFound: the container does not exist.
        """
        for name in ("state.json", "creating.json"):
            try:
                document = read_file(f"{self.directory}/{name}", "state")
            except NotFound:
                continue
            self.fields = jsonfast.loads(document, f"{self.directory}/{name}")
            return
        if not posix.access(self.directory, 0):
            raise NotFound(f"container {self.id} does not exist")
        # A runtime that was killed before it wrote anything.
        self.fields = {"id": self.id, "bundle": "", "ociVersion": VERSION}

    def lock(self, *, first: bool = False) -> None:
        """Hold the container until this process ends, or `unlock`.

        Args:
            first: be the first who does. The directory alone is nobody's: by the time it is held, it can have
                been taken away as abandoned, and be another one of that name.

        Raises:
            NotFound: it was deleted meanwhile; or somebody else was the first.
        """
        path = f"{self.directory}/lock"
        flags = (
            posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_CLOEXEC | (posix.O_EXCL if first else 0)
        )
        try:
            self._lock = posix.open(path, flags, 0o600)
            # A record lock belongs to this process alone; one of flock(2) would live on in the container.
            posix.lockf(self._lock, posix.F_LOCK, 0)
            gone = posix.fstat(self._lock).st_nlink == 0
        except (FileNotFoundError, FileExistsError):
            gone = True
        if gone:
            self.unlock()
            raise NotFound(f"container {self.id} does not exist")

    def unlock(self) -> None:
        """Let go of the container."""
        if self._lock >= 0:
            posix.close(self._lock)
            self._lock = -1

    @property
    def id(self) -> str:
        """The container's id."""
        return str(self.fields["id"])

    @property
    def pid(self) -> int:
        """The first process, or 0."""
        return int(self.fields.get("pid") or 0)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration as it was at `create`."""
        if self._config is None:
            path = f"{self.directory}/config.json"
            self._config = jsonfast.loads(read_file(path, "container"), path)
        return self._config

    def keep_config(self, document: bytes, config: dict[str, Any]) -> None:
        """Remember the configuration, as it is in the bundle and as it was parsed."""
        write_file(f"{self.directory}/config.json", document)
        self._config = config

    def save(self) -> None:
        """Write down what is known."""
        name = "state.json" if self.pid else "creating.json"
        write_file(f"{self.directory}/{name}", jsonfast.dumps(self.fields).encode())

    def mark_ready(self) -> None:
        """Write down that the container is complete."""
        posix.close(
            posix.open(f"{self.directory}/ready", posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
        )

    def same_as(self, other: State) -> bool:
        """Whether both are about one container, and not about two that had the id one after the other."""
        return all(self.fields.get(key) == other.fields.get(key) for key in ("creator", "pid", "start"))

    def alive(self) -> bool:
        """Whether the first process lives, and is still the one that was started."""
        return _lives(self.pid, self.fields.get("start", 0))

    def abandoned(self) -> bool:
        """Whether it was never completed, and never will be, because whoever was making it is gone."""
        return not self._has("ready") and not self._being_made()

    def _being_made(self) -> bool:
        pid, start = self.fields.get("creator") or (0, 0)
        return _lives(pid, start)

    def _has(self, name: str) -> bool:
        return posix.access(f"{self.directory}/{name}", 0)

    def status(self) -> str:
        """The state by the specification's names; "paused" besides."""
        if not self.pid:
            return "creating" if self._being_made() else "stopped"
        if not self.alive():
            return "stopped"
        if not self._has("ready"):
            return "creating"
        if is_frozen((self.fields.get("cgroup") or {}).get("directories") or {}):
            return "paused"
        return "created" if self._has("go") else "running"

    def document(self, status: str) -> dict[str, Any]:
        """The state as the specification has it (runtime.md, "State"), for hooks and for `state`."""
        found = {"ociVersion": self.fields.get("ociVersion", ""), "id": self.id, "status": status}
        # "pid ... (REQUIRED when status is created or running on Linux)"
        if status != "stopped" and self.pid:
            found["pid"] = self.fields["pid"]
        found["bundle"] = self.fields.get("bundle", "")
        if self.fields.get("annotations"):
            found["annotations"] = self.fields["annotations"]
        return found

    def remove(self) -> None:
        """Forget the container; its id is free again."""
        while True:
            try:
                _remove(self.directory)
            except FileNotFoundError:
                return
            except OSError as exc:
                if exc.errno == _ENOTEMPTY:
                    continue  # somebody came to lock it, and made another `lock`: it is free to be taken away
                raise RunError(f"state directory {self.directory}: {exc.strerror}") from exc
            return


def _remove(directory: str) -> None:
    for name in posix.listdir(directory):
        path = f"{directory}/{name}"
        if posix.stat(path, follow_symlinks=False).st_mode & 0o170000 == 0o040000:
            _remove(path)  # what another runtime remembered
        else:
            posix.unlink(path)
    posix.rmdir(directory)


def every(root: str) -> list[State]:
    """Every container, by id."""
    found = []
    try:
        names = sorted(posix.listdir(root))
    except OSError:
        return []
    for name in names:
        try:
            found.append(State.load(root, name))
        except OciError:
            continue
    return found
