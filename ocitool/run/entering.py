"""A further process in a running container (`exec`), under the same restrictions as the first (RN-22)."""

from __future__ import annotations

import posix
import time

from ocitool.errors import Conflict, InvalidContent, RunError

from . import _init, jsonfast, namespaces, process, seccomp_cache, spec, starting
from .state import State, read_file
from .waiting import Wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .commands import Arguments
    from .runtime import Runtime
    from .starting import Settings


def process_from(runtime: Runtime, container_id: str, arguments: Arguments) -> dict[str, Any]:
    """The process that a command line asks for: a file's, or the container's own with changes.

    Raises:
        InvalidContent: it is not valid.
    """
    values, flags = arguments.values, arguments.flags
    if "process" in values:
        found = jsonfast.loads(read_file(values["process"], "process"), values["process"])
        return spec.check_process(found)
    wanted: dict[str, Any] = dict(
        State.load(runtime.root, container_id).config.get("process") or {"cwd": "/"}
    )
    wanted["args"] = arguments.operands[1:]
    wanted["terminal"] = "tty" in flags
    wanted.pop("consoleSize", None)
    if "cwd" in values:
        wanted["cwd"] = values["cwd"]
    wanted["env"] = [*(wanted.get("env") or []), *arguments.lists.get("env", [])]
    if "user" in values:
        wanted["user"] = _user(values["user"], wanted.get("user") or {})
    if "additional-gids" in values:
        gids = [_number(text) for text in arguments.lists["additional-gids"]]
        wanted["user"] = {**(wanted.get("user") or {}), "additionalGids": gids}
    if "no-new-privs" in flags:
        wanted["noNewPrivileges"] = True
    for option, key in (("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if option in values:
            wanted[key] = values[option]
    _add_capabilities(wanted, arguments.lists.get("cap", []))
    return spec.check_process(wanted)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise InvalidContent(f"{text!r} is not the number of a user or group")
    return int(text)


def _user(text: str, before: dict[str, Any]) -> dict[str, Any]:
    uid, has_gid, gid = text.partition(":")
    return {**before, "uid": _number(uid), "gid": _number(gid) if has_gid else before.get("gid", 0)}


def _add_capabilities(wanted: dict[str, Any], names: list[str]) -> None:
    """Add to the sets in force, never to the inheritable or ambient ones (RN-10)."""
    if not names:
        return
    sets = {kind: list(listed or []) for kind, listed in (wanted.get("capabilities") or {}).items()}
    for kind in ("bounding", "effective", "permitted"):
        sets[kind] = list(dict.fromkeys([*sets.get(kind, []), *names]))
    wanted["capabilities"] = sets


def execute(runtime: Runtime, state: State, wanted: dict[str, Any], settings: Settings) -> int:
    """Start the process, and wait for it unless told to detach.

    Raises:
        Conflict: the container is stopped, or paused against `settings`.
        RunError: the process could not be started.
    """
    try:
        return _execute(runtime, state, wanted, settings)
    except RunError as exc:
        # What the kernel says of a container that ends meanwhile depends on how far it has come.
        if exc.exit_code == RunError.exit_code and _has_ended(state):
            raise _refusal(state, "stopped") from exc
        raise


def _has_ended(state: State) -> bool:
    """Whether the container has ended, or does so now: its namespaces are closed a moment before."""
    for _ in range(20):
        if not state.alive():
            return True
        time.sleep(0.005)
    return False


def _refusal(state: State, status: str) -> Conflict:
    return Conflict(f"container {state.id} is {status}: nothing can be started in it")


def _execute(runtime: Runtime, state: State, wanted: dict[str, Any], settings: Settings) -> int:
    status = state.status()
    if status not in ("created", "running") and not (status == "paused" and settings.ignore_paused):
        raise _refusal(state, status)
    if wanted.get("terminal") and settings.detach and not settings.console_socket:
        raise InvalidContent("process.terminal is set: a detached process needs --console-socket")
    if settings.console_socket and not wanted.get("terminal"):
        raise InvalidContent("a console socket is given, and process.terminal is not set")
    wait = None if settings.detach else Wait(runtime.kernel)
    job = _job(runtime, state, wanted, settings)
    own_side = _console(job, settings)
    cgroup = runtime.cgroup(state)
    if settings.below:
        cgroup = cgroup.below(settings.below)
    job.entrances = cgroup.entrances()
    child = starting.clone(job, cgroup.directory_fd(), runtime.warn)
    try:
        if own_side is not None and wait is not None:
            job.console.close()
            wait.console = own_side
        cgroup.bring_in(child.pid)
        starting.adjust_oom_score(job, child.pid)
        if settings.pidfd_socket:
            starting.send_pidfd(runtime.kernel, settings.pidfd_socket, child.pid, "setns")
        child.release()
        if status == "paused":
            state.unlock()  # for whoever resumes it
        starting.until_program(child)
        if settings.pid_file:
            starting.write_pid_file(settings.pid_file, child.pid)
    except BaseException:
        starting.stop(child.pid)
        raise
    state.unlock()
    return 0 if wait is None else wait.until_end(child.pid)


def _console(job: _init.Job, settings: Settings) -> Any:
    if not job.process.get("terminal"):
        return None
    from . import terminal

    job.give_terminal = terminal.give_at
    if settings.console_socket:
        job.console = terminal.connect(settings.console_socket)
        return None
    ours, job.console = terminal.pair()
    return ours


def _job(runtime: Runtime, state: State, wanted: dict[str, Any], settings: Settings) -> _init.Job:
    kernel = runtime.kernel
    linux = state.config.get("linux") or {}
    entry = process.Entry(process.open_proc(kernel), -1, seccomp_cache.load(state.directory, linux))
    entry.preserve = settings.preserve
    entry.linux = linux
    if settings.keyring:
        entry.keyring = f"_ses.{state.id}"
    job = _init.Job(kernel, wanted, entry)
    starting.engage_courier(job, linux.get("seccomp") or {}, state.document("running"))
    try:
        # A descriptor of the process, not a name that the container could see or change.
        target = kernel.call("pidfd_open", state.pid, 0)
    except OSError as exc:
        raise RunError(f"process {state.pid} of container {state.id}: {exc.strerror}") from exc
    flags = _different_namespaces(state.pid)
    if not flags & namespaces.MOUNT:
        from .hostmounts import root_of

        job.root = root_of(state.pid)
    # So the number has been its own all the while.
    if not state.alive():
        raise _refusal(state, "stopped")
    if first := flags & ~namespaces.CGROUP:
        job.joined = {first: target}
    if flags & namespaces.CGROUP:
        job.cgroup_namespace = target
    job.userns = bool(flags & namespaces.USER)
    return job


def _different_namespaces(pid: int) -> int:
    """The flags of the namespaces in which a process is and we are not."""
    flags = 0
    for flag, name in namespaces.TYPES.values():
        try:
            theirs, ours = (posix.stat(f"/proc/{which}/ns/{name}") for which in (pid, "self"))
        except FileNotFoundError:
            continue
        if (theirs.st_ino, theirs.st_dev) != (ours.st_ino, ours.st_dev):
            flags |= flag
    return flags
