"""The life cycle of a container (runtime.md, "Lifecycle" and "Operations")."""

from __future__ import annotations

import posix

from ocitool.errors import Conflict, InvalidContent, NotFound, OciError

from .state import State, default_root, every

# What only some commands need is loaded by them: every module costs a third of a millisecond.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .cgroups import Cgroup
    from .kernel import Kernel
    from .starting import Settings

_SIGKILL = 9


def _silent(_: str) -> None:
    """Warnings go nowhere, unless the caller says where."""


class Runtime:
    """All containers below one state directory.

    Args:
        root: the state directory; by default /run/ocitool or the user's own.
        kernel: the kernel; a test may give another one.
        warn: told of everything that is left out without being an error.
        use_cgroups: whether new containers get a cgroup of their own.
        systemd: whether systemd makes it.
    """

    def __init__(
        self,
        root: str | None = None,
        kernel: Kernel | None = None,
        warn: Callable[[str], None] = _silent,
        *,
        use_cgroups: bool = True,
        systemd: bool = False,
    ) -> None:
        self.root = root or default_root()
        self._kernel = kernel
        self.warn = warn
        self.use_cgroups = use_cgroups
        self.systemd = systemd

    @property
    def kernel(self) -> Kernel:
        """The kernel; what only reads and writes files does without it."""
        if self._kernel is None:
            from .kernel import Linux

            self._kernel = Linux()
        return self._kernel

    # -- starting ---------------------------------------------------------------------------------

    def take(self, container_id: str, fields: dict[str, Any]) -> State:
        """Take an id for a new container, and hold it; what is left of an abandoned one makes room.

        Raises:
            Conflict: the id is in use.
            RunError: it cannot be remembered.
        """
        while True:
            try:
                state = State.new(self.root, container_id, fields)
                state.lock(first=True)
            except NotFound:
                continue  # before we held it, somebody took it for abandoned
            except Conflict:
                if not self.forget_abandoned(container_id):
                    raise
            else:
                return state

    def forget_abandoned(self, container_id: str) -> bool:
        """Take away what is left of a container if whoever was making it was killed.

        "Generating an error MUST leave the state of the environment as if the operation were never attempted"
        (runtime.md, "Errors"): what SIGKILL kept the maker from doing is left to whoever comes by.

        Returns:
            Whether the id is free now.
        """
        try:
            if not State.load(self.root, container_id).abandoned():
                return False
            # A maker that we cannot see, or that has only begun, holds it: then this waits.
            state = self._locked(container_id)
        except NotFound:
            return True
        if not state.abandoned():
            state.unlock()
            return False
        self._destroy(state)
        return True

    def create(self, container_id: str, settings: Settings) -> State:
        """Make a container, all but its program.

        Raises:
            Conflict: the id is in use. InvalidContent, Unsupported: the bundle. RunError: the rest.
        """
        from .creating import Attempt

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
        from . import records

        state = self._locked(container_id)
        status = state.status()
        # A paused one could not answer: it would start with the next `resume`, long after we had given up.
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
            self._poststart(config, state)
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
        from .creating import Attempt
        from .kernel import PR_SET_CHILD_SUBREAPER

        if settings.subreaper and not settings.detach:
            self.kernel.prctl(PR_SET_CHILD_SUBREAPER, 1)
        attempt = Attempt(self, container_id, settings)
        wait = waiting.Wait(self.kernel) if not settings.detach else None
        try:
            attempt.begin(waits=False, foreground=wait)
            from . import ending  # loaded while the child does its part

            attempt.ready()
            attempt.child.reader.wait()
            self._poststart(attempt.config, attempt.state)
        except BaseException:
            attempt.undo()
            raise
        attempt.state.unlock()
        if wait is None:
            return 0
        code = wait.until_end(attempt.child.pid)
        ending.disconnect(attempt.state)
        if not settings.keep:
            self._delete_own(attempt.state)
        return code

    def execute(self, container_id: str, wanted: dict[str, Any], settings: Settings) -> int:
        """Start a further process in a running container (runc's `exec`).

        What else the calling process starts from then on may be born in the container's pid namespace.

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
            **state.document(state.status()),
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
        status = state.status()
        if everyone:
            for pid in self.cgroup(state).pids():
                self._signal(pid, signal)
            return
        from .ending import not_running, signal_checked

        if status not in ("created", "running", "paused"):
            raise not_running(container_id)

        signal_checked(self, state, signal)
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
        status = state.status()
        # "Attempting to delete a container that is not stopped MUST have no effect on the container
        # and MUST generate an error."
        if status != "stopped" and not force:
            raise Conflict(f"container {container_id} is {status}, not stopped")
        self._destroy(state)

    def pause(self, container_id: str, *, frozen: bool) -> None:
        """Stop or continue every process of a container."""
        state = self._locked(container_id)
        status = state.status()
        if status not in (("running", "created") if frozen else ("paused",)):
            raise Conflict(f"container {container_id} is {status}")
        self.cgroup(state).freeze(frozen=frozen)

    def update(self, container_id: str, resources: dict[str, Any]) -> None:
        """Change the limits of a container."""
        from . import spec

        spec.conform(resources, spec.RESOURCES, "resources")
        state = self._locked(container_id)
        if state.status() == "stopped":
            raise Conflict(f"container {container_id} is stopped")
        self.cgroup(state).update(self.kernel, resources, devices="devices" in resources)

    # -- shared -----------------------------------------------------------------------------------

    def _locked(self, container_id: str) -> State:
        state = State.named(self.root, container_id)
        state.lock()
        state.read()
        return state

    def _delete_own(self, state: State) -> None:
        """Take away the container that we have waited for, unless somebody else has done it."""
        try:
            found = self._locked(state.id)
        except NotFound:
            return
        if found.same_as(state):
            self._destroy(state)

    @staticmethod
    def cgroup(state: State) -> Cgroup:
        """The cgroup of a container."""
        from .cgroups import Cgroup

        return Cgroup.load(state.fields.get("cgroup") or {"directories": {}, "made": [], "taken": False})

    def _has_pid_namespace(self, state: State) -> bool:
        linux = state.config.get("linux") or {}
        return any(entry["type"] == "pid" for entry in linux.get("namespaces") or [])

    @staticmethod
    def _signal(pid: int, signal: int) -> None:
        try:
            posix.kill(pid, signal)
        except ProcessLookupError:
            return

    def _poststart(self, config: dict[str, Any], state: State) -> None:
        listed = (config.get("hooks") or {}).get("poststart")
        if listed:
            from . import hooks

            hooks.run(listed, state.document("running"), "poststart")

    def _destroy(self, state: State) -> None:
        from . import ending

        ending.destroy(self, state)
