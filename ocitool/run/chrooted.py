"""A program in a changed root directory and nothing else (`--isolation chroot`).

For root on a host that allows neither namespaces nor mounts, as inside of an ordinary container. The program
sees the host's processes, network, host name and devices; what is left of a container are its files, its
user, its limits, its capabilities and its seccomp filter.
"""

from __future__ import annotations

import posix

from ocitool.errors import OciError, Unsupported

from . import _init, jsonfast, paths, process, rootfs, seccomp_cache, spec, starting, state, terminal
from .kernel import AT_FDCWD, IN_ROOT, PR_SET_CHILD_SUBREAPER
from .waiting import Wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .runtime import Runtime
    from .starting import Settings

# A process that has them leaves a changed root, or makes the device of the host's disk.
_WAYS_OUT = ("CAP_SYS_CHROOT", "CAP_MKNOD")
_FILES = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")


def run(runtime: Runtime, container_id: str, settings: Settings) -> int:
    """Run a bundle's program in the foreground.

    A root file system inside the bundle is taken to be made for this run: it gets device nodes, and copies
    of the files that would be mounted in `/etc`. Any other is left as it is.

    Returns:
        The program's exit status, or 128 and the number of the signal that ended it.

    Raises:
        Unsupported: the bundle asks for mounts of the host's files, or the caller is not root.
        RunError: the program could not be started.
    """
    if posix.geteuid() != 0:
        raise Unsupported(
            "--isolation chroot is for root alone", hint="an ordinary user can have it all: leave it out"
        )
    document = state.read_file(f"{settings.bundle}/config.json", "bundle")
    config = spec.check(jsonfast.loads(document, f"{settings.bundle}/config.json"))
    _check_mounts(config)
    config["process"] = _without_ways_out(config["process"])
    container = runtime.take(container_id, state.beginning(settings.bundle))
    try:
        container.keep_config(jsonfast.dumps(config).encode(), config)  # as a further process is to find it
        container.save()
        return _run(runtime, container, config, settings.bundle, settings.pid_file)
    finally:
        container.remove()


def _run(runtime: Runtime, container: state.State, config: dict[str, Any], bundle: str, pid_file: str) -> int:
    kernel = runtime.kernel
    kernel.prctl(PR_SET_CHILD_SUBREAPER, 1)
    wait = Wait(kernel)
    job = _job(runtime, container, config, bundle)
    if job.process.get("terminal"):
        wait.console, job.console = terminal.pair()
        job.give_terminal = terminal.give_at
    child = starting.clone(job, -1, runtime.warn)
    try:
        if job.console is not None:
            job.console.close()
        container.fields |= {"pid": child.pid, "start": (state.process_start(child.pid) or ("", 0))[1]}
        container.save()
        container.mark_ready()
        if pid_file:
            starting.write_pid_file(pid_file, child.pid)
        child.release()
        starting.until_program(child)
        container.unlock()
        return wait.until_end(child.pid)
    finally:
        _end_the_rest()


def _job(runtime: Runtime, container: state.State, config: dict[str, Any], bundle: str) -> _init.Job:
    kernel, linux = runtime.kernel, config.get("linux") or {}
    path: str = config["root"]["path"]
    root = kernel.openat2(
        AT_FDCWD, path if path.startswith("/") else f"{bundle}/{path}", posix.O_DIRECTORY, 0
    )
    if not path.startswith("/"):
        _furnish(runtime, root, config)
    wanted = config["process"]
    entry = process.Entry(process.open_proc(kernel), -1, seccomp_cache.make(container.directory, linux))
    entry.linux = linux
    job = _init.Job(kernel, wanted, entry)
    starting.engage_courier(job, linux.get("seccomp") or {}, container.document("creating"))
    job.root = root
    return job


def _without_ways_out(wanted: dict[str, Any]) -> dict[str, Any]:
    sets = wanted.get("capabilities") or {}
    left = {kind: [name for name in names if name not in _WAYS_OUT] for kind, names in sets.items()}
    return {**wanted, "capabilities": left}


def _furnish(runtime: Runtime, root: int, config: dict[str, Any]) -> None:
    """Put into the root file system what would be mounted there, as far as it can be copied."""
    kernel = runtime.kernel
    for mount in config.get("mounts") or []:
        if mount["destination"] in _FILES and mount.get("type") == "bind":
            text = state.read_file(mount["source"], "file")
            posix.close(paths.made_file(kernel, root, mount["destination"]))
            fd = kernel.openat2(root, mount["destination"][1:], posix.O_WRONLY | posix.O_TRUNC, IN_ROOT)
            posix.write(fd, text)
            posix.close(fd)
    try:
        rootfs.make_devices(kernel, root, [], bind=False)
    except (OSError, OciError) as exc:
        runtime.warn(f"there are no devices in the container: {exc}")


def _end_the_rest() -> None:
    """End what the program has left running: all of it has become ours by and by."""
    while True:
        children = state.read_file(f"/proc/self/task/{posix.getpid()}/children", "children")
        for pid in children.split():
            posix.kill(int(pid), 9)
        try:
            posix.waitpid(-1, 0)
        except ChildProcessError:
            return


def _check_mounts(config: dict[str, Any]) -> None:
    """Refuse mounts of the host's files: left out, they would be missed.

    Raises:
        Unsupported: there is one.
    """
    for mount in config.get("mounts") or []:
        if {"bind", "rbind"} & set(mount.get("options") or []) and mount["destination"] not in _FILES:
            raise Unsupported(
                f"--isolation chroot mounts nothing, and {mount['destination']} is to be a mount of"
                f" {mount.get('source')}"
            )
