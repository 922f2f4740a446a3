"""Creating a container: one attempt, which succeeds as a whole or leaves nothing (runtime.md, "Create")."""

from __future__ import annotations

import posix

from ocitool.errors import InvalidContent, RunError

from . import _init, jsonfast, namespaces, newcgroup, process, seccomp_cache, spec, starting
from .cgroups import Cgroup
from .furnishing import Container
from .state import beginning, check_id, process_start, read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .runtime import Runtime
    from .starting import Settings


class Attempt:
    """One attempt to create a container, which leaves nothing behind when it fails."""

    def __init__(self, runtime: Runtime, container_id: str, settings: Settings) -> None:
        self.runtime = runtime
        self.kernel = runtime.kernel
        self.settings = settings
        self.is_host_root = namespaces.is_host_root()
        self.bundle = absolute(settings.bundle)
        document = read_file(f"{self.bundle}/config.json", "bundle")
        self.config = spec.check(jsonfast.loads(document, f"{self.bundle}/config.json"))
        self._check_terminal()
        self.rootfs = self._find_rootfs()
        self.cgroup = self._planned_cgroup(check_id(container_id))
        self.state = runtime.take(
            container_id,
            {
                **beginning(self.bundle),
                "annotations": self.config.get("annotations") or {},
                "rootfs": self.rootfs,
            },
        )
        try:
            self.state.keep_config(document, self.config)
        except BaseException:
            self.state.remove()
            raise

    def _planned_cgroup(self, container_id: str) -> Cgroup:
        if not self.runtime.use_cgroups:
            return Cgroup({}, [])
        if self.runtime.systemd:
            from . import systemd

            return systemd.for_container(self.config, container_id)
        return newcgroup.for_container(self.config, container_id)

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
        if not (waits or self.config.get("process")):
            raise InvalidContent(f"container {self.state.id} has no process to run")
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
        starting.engage_courier(job, linux.get("seccomp") or {}, self.state.document("creating"))
        # The cgroup namespace is left for a new one only inside the container's cgroup.
        job.new = spaces.new & ~namespaces.CGROUP & ~namespaces.TIME
        job.new_cgroup_namespace = bool(spaces.new & namespaces.CGROUP)
        job.joined = spaces.open(self.kernel)
        if not spaces.has(namespaces.USER):
            # The rights of another user namespace would not open it.
            job.cgroup_namespace = job.joined.pop(namespaces.CGROUP, -1)
        job.userns = spaces.has(namespaces.USER)
        hooks = self.config.get("hooks") or {}
        job.awaited = bool(hooks.get("prestart") or hooks.get("createRuntime"))
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
        self.cgroup.plan()
        self.state.fields["cgroup"] = self.cgroup.saved()
        self.state.save()
        self.cgroup.create(optional=not self.is_host_root)
        self.state.fields["cgroup"] = self.cgroup.saved()
        if not self.is_host_root:
            resources = {key: value for key, value in resources.items() if key != "devices"}
        newcgroup.apply(self.cgroup, self.kernel, resources, devices=self.is_host_root)
        if self.is_host_root and _divides_its_cgroup(self.config):
            user = (self.config.get("process") or {}).get("user") or {}
            newcgroup.give(self.cgroup, namespaces.on_host(linux, user))
        job.entrances = self.cgroup.entrances()

    def _container(self, job: _init.Job, spaces: namespaces.Namespaces) -> Container:
        container = Container(self.config, self.bundle, self.rootfs)
        container.userns = spaces.has(namespaces.USER)
        container.makes_devices = self.is_host_root and not container.userns
        container.cgroup = self.cgroup
        container.pivot = self.settings.pivot
        container.trees = self._trees(userns=container.userns)
        container.mounts_rootfs = self.settings.prepare_root
        if not spaces.has(namespaces.MOUNT):
            from .hostmounts import Return

            container.return_to_host = Return()
            job.new |= namespaces.MOUNT
        container.state = self.state.document("created")
        configured = self.config.get("hooks") or {}
        if configured.get("createContainer") or configured.get("startContainer"):
            from . import hooks

            container.run_hooks = hooks.run
        job.container = container
        return container

    def _trees(self, *, userns: bool) -> dict[int, int]:
        """The bind mounts that the child could not open itself."""
        mounts = self.config.get("mounts") or []
        mapped = [mount for mount in mounts if mount.get("uidMappings") or _asks_for_idmap(mount)]
        shares = (self.config.get("linux") or {}).get("rootfsPropagation") in ("shared", "rshared")
        if posix.geteuid() != 0 or not (userns or mapped or shares):
            return {}
        from . import trees

        return trees.open_trees(self.kernel, self.config, self.bundle, userns=userns, shares=shares)

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
        from . import terminal

        job.give_terminal = terminal.give
        if self.settings.console_socket:
            job.console = terminal.connect(self.settings.console_socket)
            return None
        if waits or foreground is None:
            raise InvalidContent("process.terminal is set: a detached container needs --console-socket")
        ours, job.console = terminal.pair()
        return ours

    def _on_the_host(self, job: _init.Job, linux: dict[str, Any], spaces: namespaces.Namespaces) -> None:
        pid = self.child.pid
        self.cgroup.bring_in(pid)
        self.state.fields["pid"] = pid
        self.state.fields["start"] = (process_start(pid) or ("", 0))[1]
        self.state.save()
        if spaces.new & namespaces.USER:
            namespaces.write_maps(pid, linux.get("uidMappings") or [], linux.get("gidMappings") or [])
        if self.settings.served:
            from . import fuse

            fuse.serve(self.kernel, self.state, self.settings.served, userns=spaces.has(namespaces.USER))
        if self.settings.network and spaces.new & namespaces.NETWORK:
            from . import networks

            # Now, because nobody may look into the child any more once it goes on.
            networks.attach(self.state, self.settings.network)
        if linux.get("netDevices"):
            from . import netdevices

            netdevices.move(self.kernel, pid, linux["netDevices"])
        starting.adjust_oom_score(job, pid)
        if self.settings.pidfd_socket:
            starting.send_pidfd(self.kernel, self.settings.pidfd_socket, pid, "standard")
        if job.awaited:
            from . import hooks

            if self.child.reader.wait() != "joined":
                raise RunError("the container's first process ended early")
            for kind in ("prestart", "createRuntime"):
                hooks.run(self.config["hooks"].get(kind) or [], self.state.document("created"), kind)

    def ready(self) -> None:
        """Wait until the container is complete, and write that down."""
        while milestone := self.child.reader.wait():
            if milestone == "ready":
                break
        else:
            raise RunError("the container's first process ended early")
        self.cgroup.settled()
        self.state.mark_ready()
        if self.settings.pid_file:
            starting.write_pid_file(self.settings.pid_file, self.child.pid)

    def undo(self) -> None:
        """Leave the host "as though the create operation was never attempted"."""
        from .ending import disconnect, poststop

        child = getattr(self, "child", None)
        if child is not None:
            starting.stop(child.pid)
        disconnect(self.state)
        self.cgroup.kill()
        self.cgroup.delete()
        poststop(self.state, self.runtime.warn)
        self.state.remove()


def _asks_for_idmap(mount: dict[str, Any]) -> bool:
    options = mount.get("options") or []
    return "idmap" in options or "ridmap" in options


def _divides_its_cgroup(config: dict[str, Any]) -> bool:
    """Whether the container is to own its cgroup (config-linux.md, "Cgroup ownership").

    "SHOULD NOT change the ownership of a container cgroup unless it will also create a new cgroup namespace",
    and "SHOULD change the cgroup ownership if and only if the cgroup filesystem is to be mounted read/write".
    """
    spaces = (config.get("linux") or {}).get("namespaces") or []
    return any(entry["type"] == "cgroup" and not entry.get("path") for entry in spaces) and any(
        mount.get("source") == "cgroup"
        and mount["destination"] == "/sys/fs/cgroup"
        and "ro" not in (mount.get("options") or [])
        for mount in config.get("mounts") or []
    )


def absolute(path: str) -> str:
    """A path as seen from the root, its links resolved no further than its directory."""
    return path.rstrip("/") or "/" if path.startswith("/") else f"{posix.getcwd()}/{path}".removesuffix("/.")
