"""Where and by what a container is started, and what is said where that does not work."""

from __future__ import annotations

import os

from ocitool.errors import InvalidContent, InvalidReference, RunError
from ocitool.hostfiles import Names
from ocitool.run.overlay import refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ocitool.run import Overlay
    from ocitool.run.options import RunOptions

_CHROOT = (
    "--isolation chroot: the program is NOT isolated. It sees the processes, network, host name and kernel"
    " settings of this host; only its files are its own"
)

STREAMS = ("stdin", "stdout", "stderr")
"""A program's streams, by the numbers of their descriptors."""


class Launch:
    """Where and by what a container is started.

    Attributes:
        place: where the directories of containers are made.
        name: the container's ID; random where empty.
        runtime: another runtime to hand the bundle to, by its name or path; empty for our own.
        isolation: "full"; "auto", which says what to do where the host can't; or "chroot", a changed root
            directory and nothing else.
        hostname: the container's host name, if another one than by default.
        network: what the container is connected by; "none" for a network of its own without a way out.
        pid_file: where to write the number of the container's first process, if anywhere.
        attached: which of the program's output streams are passed on.
        names: what the container is to find by name.
        platform: what the image is for, where that is known.
        on_warning: is told what the host could not give.
        on_start: is told the ID of the container that is about to be started.
    """

    def __init__(  # noqa: PLR0913 - one keyword for each choice
        self,
        place: str,
        *,
        name: str = "",
        runtime: str = "",
        isolation: str = "auto",
        hostname: str = "",
        network: str = "none",
        pid_file: str = "",
        attached: Collection[str] = STREAMS,
        names: Names | None = None,
        on_warning: Callable[[str], None] | None = None,
    ) -> None:
        self.place = place
        self.name = name
        self.runtime = runtime
        self.isolation = isolation
        self.hostname = hostname
        self.network = network
        self.pid_file = pid_file
        self.attached = attached
        self.names = names or Names()
        self.platform = ""
        self.on_warning = on_warning
        self.on_start: Callable[[str], object] = lambda _: None

    def directory(self) -> str:
        """The directory of the new container; its last part is the ID.

        Raises:
            InvalidReference: the name is no ID.
        """
        from ocitool.run.state import check_id

        container_id = self.name or f"ocitool-{os.urandom(6).hex()}"
        try:
            # It has to be one before it becomes part of a path.
            check_id(container_id)
        except InvalidContent as error:
            raise InvalidReference(str(error), hint=error.hint) from error
        return f"{self.place}/{container_id}"

    def start(self, bundle: str, container_id: str, layers: Overlay | None = None) -> int:
        """Run a bundle; see `ocitool.run.run_bundle`.

        Raises:
            RunError: as there; where the host can't isolate a container, it says what is missing.
        """
        if self.isolation == "chroot" and self.on_warning:
            self.on_warning(_CHROOT)
        self.on_start(container_id)
        try:
            return self._run_on(layers, bundle, container_id)
        except RunError as error:
            if refused(error):
                raise  # it is about the layers, and not about what the host lacks
            if self.isolation == "auto" and not self.runtime and error.exit_code == RunError.exit_code:
                raise _explained(error) from error
            if self.platform and error.message.endswith("exec format error"):
                raise _foreign(error, self.platform) from error
            raise

    def _run_on(self, layers: Overlay | None, bundle: str, container_id: str) -> int:
        """Run a bundle on layers, which fuse-overlayfs mounts where the kernel does not."""
        try:
            return self._run(bundle, container_id, layers)
        except RunError as error:
            if layers is None or self.runtime or not refused(error):
                raise
            from ocitool.run import fuse

            layers.program = fuse.installed()
            if not layers.program:
                raise
            if self.on_warning:
                self.on_warning(f"{error}; fuse-overlayfs mounts the layers")
            return self._run(bundle, container_id, layers)

    def _run(self, bundle: str, container_id: str, layers: Overlay | None) -> int:
        from ocitool.run import run_bundle

        return run_bundle(
            bundle,
            container_id=container_id,
            overlay=layers,
            runtime=self.runtime,
            network=self._helper(),
            isolation="chroot" if self.isolation == "chroot" else "",
            pid_file=self.pid_file or None,
            without=[fd for fd, stream in enumerate(STREAMS) if fd and stream not in self.attached],
            on_warning=self.on_warning,
        )

    def _helper(self) -> str:
        """What connects the container, where that takes a program of its own."""
        return "" if self.network in ("none", "host") else self.network

    def mounts_layers(self) -> bool:
        """Whether an image's layers can be mounted, so that nothing has to be unpacked for the container.

        Another runtime mounts none itself, and only root can do it beforehand.
        """
        return self.isolation != "chroot" and (not self.runtime or os.geteuid() == 0)


class LaunchHere(Launch):
    """The same by our own runtime in this very process (see `ocitool.run.inplace`), with all streams."""

    def _run(self, bundle: str, container_id: str, layers: Overlay | None) -> int:
        from ocitool.run.inplace import run_here

        return run_here(
            bundle,
            container_id=container_id,
            overlay=layers,
            network=self._helper(),
            on_warning=self.on_warning,
        )


def _explained(error: RunError) -> RunError:
    """An error of a container that did not start, with what the host lacks, if it lacks anything."""
    from ocitool.run.launch import lacking

    missing = lacking()
    if not missing:
        return error
    root = "--isolation chroot runs the program without any isolation but a root directory of its own"
    return RunError(
        f"this host allows no container: {missing}",
        hint=root if os.geteuid() == 0 else "an administrator can allow it, or run it with sudo",
    )


def _foreign(error: RunError, platform: str) -> RunError:
    """The error of a program that is not for this processor, if that is what is wrong with it."""
    from ocitool.platforms import Platform, host

    if Platform.parse(platform).architecture == host().architecture:
        return error
    return RunError(
        f"{error.message}: the image is for {platform}, and this host is {host()}",
        hint="programs of other architectures run where an interpreter is registered with the kernel"
        " (binfmt_misc; the package qemu-user-static does it)",
        exit_code=error.exit_code,
    )


def check_chroot(options: RunOptions) -> None:
    """Refuse what `--isolation chroot` can't give.

    Raises:
        InvalidReference: something of that kind was asked for.
    """
    from ocitool.run.blockio import DEVICES

    asked = {
        "--volume": options.volumes,
        "--mount": options.mounts,
        "--tmpfs": options.tmpfs,
        "--device": options.devices,
        "--device-cgroup-rule": options.device_rules,
        "--init": options.init,
        "--read-only": options.read_only,
        "--privileged": options.privileged,
        "--memory": options.memory,
        "--memory-reservation": options.memory_reservation,
        "--memory-swappiness": options.memory_swappiness is not None,
        "--oom-kill-disable": options.oom_kill_disable,
        "--cpus": options.cpus,
        "--cpu-shares": options.cpu_shares,
        "--cpu-quota": options.cpu_quota,
        "--cpu-rt-runtime": options.cpu_rt_runtime,
        "--blkio-weight": options.blkio_weight,
        **{f"--{name.replace('_', '-')}": getattr(options, name) for name in DEVICES},
        "--cpuset-cpus": options.cpuset_cpus,
        "--cpuset-mems": options.cpuset_mems,
        "--pids-limit": options.pids_limit,
        "--cgroup-conf": options.cgroup_conf,
        "--cgroup-parent": options.cgroup_parent,
        "--shm-size": options.shm_size,
        "--sysctl": options.sysctls,
        "--hostname": options.hostname,
        "--domainname": options.domainname,
        "--network": options.network not in (None, "host"),
    }
    given = [name for name, value in asked.items() if value]
    if given:
        raise InvalidReference(
            f"--isolation chroot has no mounts, limits or namespaces: leave out {', '.join(given)}"
        )
