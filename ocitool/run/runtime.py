"""The life cycle of a container (runtime.md, "Lifecycle" and "Operations")."""

from __future__ import annotations

import posix
import time

from ocitool.errors import Conflict, InvalidContent, NotFound, OciError, RunError

from . import (
    _init,
    cgroups,
    hooks,
    jsonfast,
    namespaces,
    process,
    records,
    seccomp_cache,
    spec,
    starting,
    terminal,
)
from .kernel import CLOSE_RANGE_CLOEXEC, PR_SET_CHILD_SUBREAPER, Linux
from .state import State, check_id, default_root, every, process_start, read_file, write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .kernel import Kernel

_SIGKILL = 9


def _silent(_: str) -> None:
    """Warnings go nowhere, unless the caller says where."""


class Settings:
    """What a command line says of a process to be started.

    Attributes:
        bundle: the bundle's directory.
        console_socket: where the terminal is sent, or "".
        pid_file: where the process's number is written, or "".
        pivot: whether to use pivot_root.
        keyring: whether to start a new session keyring.
        listening: how many of them are sockets that were opened for the program (LISTEN_FDS).
        preserve: how many descriptors from 3 on the program gets.
        detach: whether not to wait for the program.
        keep: whether the container stays after its program ended.
        subreaper: whether this process adopts what the container leaves behind.
        prepare_root: called in the container's mount namespace to mount its root file system, or None.
    """

    def __init__(self, bundle: str = ".") -> None:
        self.bundle = bundle
        self.console_socket = ""
        self.pid_file = ""
        self.pivot = True
        self.keyring = True
        self.preserve = 0
        self.listening = 0
        self.detach = False
        self.keep = False
        self.subreaper = True
        self.prepare_root: Callable[[Kernel], None] | None = None


class Runtime:
    """All containers below one state directory.

    Args:
        root: the state directory; by default /run/ocitool or the user's own.
        kernel: the kernel; a test may give another one.
        warn: told of everything that is left out without being an error.
        use_cgroups: whether new containers get a cgroup of their own.
    """

    def __init__(
        self,
        root: str | None = None,
        kernel: Kernel | None = None,
        warn: Callable[[str], None] = _silent,
        *,
        use_cgroups: bool = True,
    ) -> None:
        self.root = root or default_root()
        self.kernel: Kernel = kernel or Linux()
        self.warn = warn
        self.use_cgroups = use_cgroups

    # -- starting ---------------------------------------------------------------------------------

    def create(self, container_id: str, settings: Settings) -> State:
        """Make a container, all but its program.

        Raises:
            Conflict: the id is in use. InvalidContent, Unsupported: the bundle. RunError: the rest.
        """
        attempt = Attempt(self, container_id, settings)
        try:
            attempt.begin(waits=True)
            attempt.ready()
        except BaseException:
            attempt.undo()
            raise
        attempt.state.unlock()
        return attempt.state

    def start(self, container_id: str) -> None:
        """Run the program of a created container.

        Raises:
            Conflict: the container is not created, "MUST have no effect on the container".
            RunError: the program or a hook failed; the container is gone.
        """
        state = self._locked(container_id)
        status = state.status()
        if status != "created":
            raise Conflict(f"container {container_id} is {status}, not created")
        config = state.config
        if not config.get("process"):
            raise InvalidContent(f"container {container_id} has no process to start")
        # The reader comes first, or the report of a failure could be missed.
        err = posix.open(f"{state.directory}/err", posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
        go = posix.open(f"{state.directory}/go", posix.O_WRONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
        posix.set_blocking(err, True)
        posix.unlink(f"{state.directory}/go")
        posix.write(go, b"g")
        posix.close(go)
        reader = records.Reader(err, config["process"]["args"][0], self.warn)
        try:
            reader.wait()
            self._hooks(config, state, "poststart", "running")
        except OciError:
            self._destroy(state)
            raise
        finally:
            posix.close(err)

    def run(self, container_id: str, settings: Settings) -> int:
        """Create and start a container, and wait for its program unless told to detach.

        Returns:
            The program's exit status, or 128 and the number of the signal that ended it.
        """
        from . import waiting

        if settings.subreaper and not settings.detach:
            self.kernel.prctl(PR_SET_CHILD_SUBREAPER, 1)
        attempt = Attempt(self, container_id, settings)
        wait = waiting.Wait(self.kernel) if not settings.detach else None
        try:
            attempt.begin(waits=False, foreground=wait)
            attempt.ready()
            attempt.child.reader.wait()
            self._hooks(attempt.config, attempt.state, "poststart", "running")
        except BaseException:
            attempt.undo()
            raise
        attempt.state.unlock()
        if wait is None:
            return 0
        code = wait.until_end(attempt.child.pid)
        if not settings.keep:
            self.delete(container_id, force=True)
        return code

    def execute(self, container_id: str, wanted: dict[str, Any], settings: Settings) -> int:
        """Start a further process in a running container (runc's `exec`).

        Returns:
            Its exit status; 0 at once when told to detach.
        """
        from . import entering

        return entering.execute(self, self._locked(container_id), wanted, settings)

    # -- looking ----------------------------------------------------------------------------------

    def state(self, container_id: str) -> dict[str, Any]:
        """The state of a container (runtime.md, "Query State")."""
        state = State.load(self.root, container_id)
        return {
            **state.document(self.status(state)),
            "pid": state.pid if state.alive() else 0,
            "rootfs": state.fields.get("rootfs", ""),
            "created": state.fields.get("created", ""),
            "owner": state.fields.get("owner", ""),
        }

    def containers(self) -> list[dict[str, Any]]:
        """The states of all containers."""
        found = []
        for state in every(self.root):
            try:
                found.append(self.state(state.id))
            except NotFound:
                continue
        return found

    def processes(self, container_id: str) -> list[int]:
        """The processes of a container, by their numbers on the host."""
        state = State.load(self.root, container_id)
        pids = self.cgroup(state).pids()
        return pids or ([state.pid] if state.alive() else [])

    def stats(self, container_id: str) -> dict[str, Any]:
        """What a container uses (`events --stats`)."""
        from . import statistics

        return statistics.collect(self.cgroup(State.load(self.root, container_id)))

    # -- changing ---------------------------------------------------------------------------------

    def kill(self, container_id: str, signal: int, *, everyone: bool = False) -> None:
        """Send a signal to the first process, or to every one.

        Raises:
            Conflict: the container is neither created nor running.
        """
        state = self._locked(container_id)
        status = self.status(state)
        if everyone:
            for pid in self.cgroup(state).pids():
                self._signal(pid, signal)
            return
        if status not in ("created", "running", "paused"):
            raise Conflict(f"container {container_id} is not running")
        self._signal_checked(state, signal)
        if signal == _SIGKILL and not self._has_pid_namespace(state):
            self.cgroup(state).kill()

    def delete(self, container_id: str, *, force: bool = False) -> None:
        """Take away everything that `create` made.

        Raises:
            Conflict: the container is not stopped, and `force` is not given.
            NotFound: there is none, and `force` is not given.
        """
        try:
            state = self._locked(container_id)
        except NotFound:
            if force:
                return
            raise
        status = self.status(state)
        # "Attempting to delete a container that is not stopped MUST have no effect on the container
        # and MUST generate an error."
        if status != "stopped" and not force:
            raise Conflict(f"container {container_id} is {status}, not stopped")
        self._destroy(state)

    def pause(self, container_id: str, *, frozen: bool) -> None:
        """Stop or continue every process of a container."""
        state = self._locked(container_id)
        status = self.status(state)
        if status not in (("running", "created") if frozen else ("paused",)):
            raise Conflict(f"container {container_id} is {status}")
        self.cgroup(state).freeze(frozen=frozen)

    def update(self, container_id: str, resources: dict[str, Any]) -> None:
        """Change the limits of a container."""
        spec.conform(resources, spec.RESOURCES, "resources")
        state = self._locked(container_id)
        if self.status(state) == "stopped":
            raise Conflict(f"container {container_id} is stopped")
        self.cgroup(state).apply(self.kernel, resources, devices="devices" in resources)

    # -- shared -----------------------------------------------------------------------------------

    def _locked(self, container_id: str) -> State:
        state = State.load(self.root, container_id)
        state.lock(self.kernel)
        # What was read before the lock may have changed since.
        fresh = State.load(self.root, container_id)
        state.fields = fresh.fields
        return state

    @staticmethod
    def cgroup(state: State) -> cgroups.Cgroup:
        """The cgroup of a container."""
        return cgroups.Cgroup.load(
            state.fields.get("cgroup") or {"directories": {}, "made": [], "taken": False}
        )

    def status(self, state: State) -> str:
        """The state of a container by its name, "paused" included."""
        return state.status(frozen=self.cgroup(state).frozen())

    def _has_pid_namespace(self, state: State) -> bool:
        linux = state.config.get("linux") or {}
        return any(entry["type"] == "pid" for entry in linux.get("namespaces") or [])

    def _signal_checked(self, state: State, signal: int) -> None:
        """Signal the first process by a descriptor, so that its number cannot have passed to another one."""
        try:
            fd = self.kernel.call("pidfd_open", state.pid, 0)
        except ProcessLookupError as exc:
            raise Conflict(f"container {state.id} is not running") from exc
        try:
            if not state.alive():
                raise Conflict(f"container {state.id} is not running")
            self.kernel.call("pidfd_send_signal", fd, signal, None, 0)
        except OSError as exc:
            raise RunError(f"signal {signal} to container {state.id}: {exc.strerror}") from exc
        finally:
            posix.close(fd)

    @staticmethod
    def _signal(pid: int, signal: int) -> None:
        try:
            posix.kill(pid, signal)
        except ProcessLookupError:
            return

    def _hooks(self, config: dict[str, Any], state: State, kind: str, status: str) -> None:
        listed = (config.get("hooks") or {}).get(kind)
        if listed:
            hooks.run(listed, state.document(status), kind)

    def _destroy(self, state: State) -> None:
        """End what lives, remove cgroup and state, and run the poststop hooks."""
        if state.alive():
            self._signal_quietly(state)
        cgroup = self.cgroup(state)
        cgroup.kill()
        self._await_end(state)
        cgroup.delete()
        self._poststop(state)
        state.remove()

    def _signal_quietly(self, state: State) -> None:
        try:
            self._signal_checked(state, _SIGKILL)
        except OciError:
            return

    @staticmethod
    def _await_end(state: State) -> None:
        """Wait until the first process is gone, and collect it if it is our own child."""
        for _ in range(1000):
            _collect(state.pid)
            if not state.pid or not state.alive():
                return
            time.sleep(0.005)
        raise RunError(f"process {state.pid} of container {state.id} does not end")

    def _poststop(self, state: State) -> None:
        try:
            listed = (state.config.get("hooks") or {}).get("poststop")
        except OciError:
            return  # it never got as far as a configuration
        if listed:
            hooks.run_all(listed, state.document("stopped"), "poststop", self.warn)


class Attempt:
    """One attempt to create a container, which leaves nothing behind when it fails."""

    def __init__(self, runtime: Runtime, container_id: str, settings: Settings) -> None:
        self.runtime = runtime
        self.kernel = runtime.kernel
        self.settings = settings
        self.bundle = absolute(settings.bundle)
        document = read_file(f"{self.bundle}/config.json", "bundle")
        self.config = spec.check(jsonfast.loads(document, f"{self.bundle}/config.json"))
        self._check_terminal()
        self.rootfs = self._find_rootfs()
        self.cgroup = (
            cgroups.for_container(self.config, check_id(container_id))
            if runtime.use_cgroups
            else cgroups.Cgroup({}, [])
        )
        self.state = State.new(
            runtime.root,
            container_id,
            {
                "ociVersion": spec.VERSION,
                "bundle": self.bundle,
                "annotations": self.config.get("annotations") or {},
                "rootfs": self.rootfs,
                "owner": str(posix.geteuid()),
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "creator": [posix.getpid(), (process_start(posix.getpid()) or ("", 0))[1]],
            },
        )
        try:
            self.state.lock(self.kernel)
            write_file(f"{self.state.directory}/config.json", document)
        except BaseException:
            self.state.remove()
            raise

    def _check_terminal(self) -> None:
        wants = bool((self.config.get("process") or {}).get("terminal"))
        if self.settings.console_socket and not wants:
            raise InvalidContent("a console socket is given, and process.terminal is not set")

    def _find_rootfs(self) -> str:
        path = self.config["root"]["path"]
        path = path if path.startswith("/") else f"{self.bundle}/{path}"
        try:
            is_directory = posix.stat(path).st_mode & 0o170000 == 0o040000
        except OSError as exc:
            raise RunError(f"root file system {path}: {exc.strerror}") from exc
        # "A directory MUST exist at the path declared by the field."
        if not is_directory:
            raise InvalidContent(f"root.path {path} is not a directory")
        return str(path)

    def begin(self, *, waits: bool, foreground: Any = None) -> None:
        """Make cgroup and child, and let the child go on once the host's side is done."""
        linux = self.config.get("linux") or {}
        spaces = namespaces.Namespaces(linux.get("namespaces") or [])
        job = self._job(linux, spaces)
        self._enter_cgroup(job, linux)
        container = self._container(job, spaces)
        if waits:
            container.waits = self._pipes()
        own_side = self._console(job, foreground, waits=waits)
        self.child = starting.clone(job, self.cgroup.directory_fd(), self.runtime.warn)
        if own_side is not None:
            job.console.close()
            foreground.console = own_side
        self._on_the_host(job, linux, spaces)
        self.child.release()

    def _job(self, linux: dict[str, Any], spaces: namespaces.Namespaces) -> _init.Job:
        wanted = self.config.get("process") or {}
        if self.settings.listening and wanted:
            passed = [f"LISTEN_FDS={self.settings.listening}", "LISTEN_PID=1"]
            wanted = {**wanted, "env": [*(wanted.get("env") or []), *passed]}
        entry = process.Entry(
            process.open_proc(self.kernel), -1, seccomp_cache.make(self.state.directory, linux)
        )
        entry.preserve = self.settings.preserve
        entry.linux = linux
        if self.settings.keyring:
            entry.keyring = f"_ses.{self.state.id}"
        job = _init.Job(self.kernel, wanted, entry)
        # The cgroup namespace is left for a new one only inside the container's cgroup.
        job.new = spaces.new & ~namespaces.CGROUP & ~namespaces.TIME
        job.new_cgroup_namespace = bool(spaces.new & namespaces.CGROUP)
        job.joined = spaces.open(self.kernel)
        job.userns = spaces.has(namespaces.USER)
        if spaces.new & namespaces.TIME:
            offsets = linux.get("timeOffsets") or {}
            job.time_offsets = "".join(
                f"{clock} {value.get('secs', 0)} {value.get('nanosecs', 0)}\n"
                for clock, value in offsets.items()
            )
            job.time_offsets = job.time_offsets or "\n"
        return job

    def _enter_cgroup(self, job: _init.Job, linux: dict[str, Any]) -> None:
        resources = linux.get("resources") or {}
        ordinary = posix.geteuid() != 0
        self.cgroup.plan()
        self.state.fields["cgroup"] = self.cgroup.saved()
        self.state.save()
        self.cgroup.create(optional=ordinary)
        self.state.fields["cgroup"] = self.cgroup.saved()
        if ordinary:
            resources = {key: value for key, value in resources.items() if key != "devices"}
        self.cgroup.apply(self.kernel, resources, devices=not ordinary)
        job.entrances = self.cgroup.entrances()

    def _container(self, job: _init.Job, spaces: namespaces.Namespaces) -> _init.Container:
        container = _init.Container(self.config, self.bundle, self.rootfs)
        container.userns = spaces.has(namespaces.USER)
        container.cgroup = self.cgroup
        container.pivot = self.settings.pivot
        container.trees = starting.open_trees(self.kernel, self.config, self.bundle, userns=container.userns)
        container.mounts_rootfs = self.settings.prepare_root
        container.state = self.state.document("created")
        job.container = container
        return container

    def _pipes(self) -> tuple[int, int]:
        """The two pipes of a container that waits for `start`, open at both ends so that nobody blocks."""
        ends = []
        for name in ("go", "err"):
            path = f"{self.state.directory}/{name}"
            posix.mkfifo(path, 0o600)
            ends.append(posix.open(path, posix.O_RDWR | posix.O_CLOEXEC))
        return ends[0], ends[1]

    def _console(self, job: _init.Job, foreground: Any, *, waits: bool) -> Any:
        if not job.process.get("terminal"):
            return None
        if self.settings.console_socket:
            job.console = terminal.connect(self.settings.console_socket)
            return None
        if waits or foreground is None:
            raise InvalidContent("process.terminal is set: a detached container needs --console-socket")
        ours, job.console = terminal.pair()
        return ours

    def _on_the_host(self, job: _init.Job, linux: dict[str, Any], spaces: namespaces.Namespaces) -> None:
        pid = self.child.pid
        self.state.fields["pid"] = pid
        self.state.fields["start"] = (process_start(pid) or ("", 0))[1]
        self.state.save()
        if spaces.new & namespaces.USER:
            namespaces.write_maps(pid, linux.get("uidMappings") or [], linux.get("gidMappings") or [])
        starting.adjust_oom_score(job, pid)
        configured = self.config.get("hooks") or {}
        if configured.get("prestart") or configured.get("createRuntime"):
            if self.child.reader.wait() != "joined":
                raise RunError("the container's first process ended early")
            for kind in ("prestart", "createRuntime"):
                hooks.run(configured.get(kind) or [], self.state.document("created"), kind)

    def ready(self) -> None:
        """Wait until the container is complete, and write that down."""
        while milestone := self.child.reader.wait():
            if milestone == "ready":
                break
        else:
            raise RunError("the container's first process ended early")
        self.state.fields["ready"] = True
        self.state.save()
        if self.settings.pid_file:
            starting.write_pid_file(self.settings.pid_file, self.child.pid)

    def undo(self) -> None:
        """Leave the host "as though the create operation was never attempted"."""
        child = getattr(self, "child", None)
        if child is not None:
            starting.stop(child.pid)
        self.cgroup.kill()
        self.cgroup.delete()
        self.runtime._poststop(self.state)  # noqa: SLF001 - the two classes are one machine
        self.state.remove()


def _collect(pid: int) -> None:
    """Collect a process, if it is our own child and has ended."""
    try:
        posix.waitpid(pid or -1, posix.WNOHANG)
    except ChildProcessError:
        return


def absolute(path: str) -> str:
    """A path as seen from the root, its links resolved no further than its directory."""
    return path.rstrip("/") or "/" if path.startswith("/") else f"{posix.getcwd()}/{path}".removesuffix("/.")


def forget_descriptors(kernel: Kernel, preserve: int) -> None:
    """Keep what our caller left open, beyond what is asked for, from hooks and helpers."""
    try:
        kernel.close_range(3 + preserve, 0xFFFFFFFF, CLOSE_RANGE_CLOEXEC)
    except OSError as exc:
        raise RunError(f"close_range: {exc.strerror}", hint="Linux 5.11 or later is needed") from exc
