"""From a process inside the container's namespaces to the container's program (config.md, "Process").

The same steps serve the first process and every later one (`exec`), so that none is weaker than
the other (RN-22). Their order is the point of this module:

1. what needs privileges or files: limits, scheduling, keyring, labels;
2. descriptors are marked to be closed, before a filter could forbid it;
3. the bounding set, then groups and user, then the other sets;
4. no_new_privs and the seccomp filter, after which only the exec remains.
"""

from __future__ import annotations

import posix

from ocitool.errors import OciError, RunError

from . import capabilities, records, trampoline
from .kernel import (
    CLOEXEC,
    CLOSE_RANGE_CLOEXEC,
    IN_ROOT,
    NO_MAGICLINKS,
    NO_XDEV,
    PR_SET_DUMPABLE,
    PR_SET_KEEPCAPS,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    PROC_SUPER_MAGIC,
    filesystem_type,
)
from .state import read_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from .kernel import Kernel
    from .seccomp_cache import Filter

RLIMITS = {
    name: number
    for number, name in enumerate((
        "CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS",
        "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
    ))
}  # fmt: skip
PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}
SCHEDULERS = {
    "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4, "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}  # fmt: skip
SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01, "SCHED_FLAG_RECLAIM": 0x02, "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08, "SCHED_FLAG_KEEP_PARAMS": 0x10, "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}  # fmt: skip
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
MEMORY_POLICIES = {
    "MPOL_DEFAULT": 0, "MPOL_PREFERRED": 1, "MPOL_BIND": 2, "MPOL_INTERLEAVE": 3, "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5, "MPOL_WEIGHTED_INTERLEAVE": 6,
}  # fmt: skip
MEMORY_POLICY_FLAGS = {
    "MPOL_F_NUMA_BALANCING": 1 << 13,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_STATIC_NODES": 1 << 15,
}
_U64 = 0xFFFFFFFFFFFFFFFF
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENOENT, _EACCES, _EINVAL = 2, 13, 22


class Entry:
    """What `finish` needs besides `process` itself.

    Attributes:
        proc: descriptor of a trusted procfs of the host.
        report: the pipe to the parent.
        filter: the seccomp filter.
        notice: where the number of the filter's listener is written to, or -1.
        preserve: how many descriptors from 3 on stay open.
        keyring: name of a new session keyring, or "".
        linux: the `linux` object, for personality and memory policy.
    """

    def __init__(self, proc: int, report: int, seccomp: Filter) -> None:
        self.proc = proc
        self.report = report
        self.filter = seccomp
        self.notice = -1
        self.preserve = 0
        self.keyring = ""
        self.linux: dict[str, Any] = {}

    def warn(self, text: str) -> None:
        """Report what does not stop the container."""
        records.write(self.report, records.warning(text))


def open_proc(kernel: Kernel) -> int:
    """Open the host's /proc, before any mount of the container, and prove that it is a procfs (RN-08)."""
    fd = posix.open("/proc", 0o10000000 | posix.O_DIRECTORY | CLOEXEC)
    if filesystem_type(kernel, fd) != PROC_SUPER_MAGIC:
        raise RunError("/proc of the host is not a procfs")
    return fd


def write_proc(kernel: Kernel, proc: int, path: str, text: str) -> None:
    """Write to a file of the trusted procfs; nothing mounted over a part of it is followed.

    Raises:
        OSError: it is not there, or refuses the text.
    """
    fd = kernel.openat2(proc, path, posix.O_WRONLY, NO_XDEV | NO_MAGICLINKS)
    try:
        posix.write(fd, text.encode())
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, f"/proc/{path}") from exc
    finally:
        posix.close(fd)


def set_limits(kernel: Kernel, rlimits: list[dict[str, Any]]) -> None:
    """Set `process.rlimits`.

    Raises:
        RunError: the kernel refuses one.
    """
    for limit in rlimits:
        number = RLIMITS[limit["type"].removeprefix("RLIMIT_")]
        try:
            kernel.prlimit(number, limit["soft"] & _U64, limit["hard"] & _U64)
        except OSError as exc:
            raise RunError(f"limit {limit['type']}: {exc.strerror}") from exc


def _schedule(kernel: Kernel, process: dict[str, Any]) -> None:
    scheduler = process.get("scheduler")
    if scheduler:
        flags = 0
        for name in scheduler.get("flags") or []:
            flags |= SCHEDULER_FLAGS[name]
        attributes = b"".join(
            (
                (48).to_bytes(4, "little"),
                SCHEDULERS[scheduler["policy"]].to_bytes(4, "little"),
                flags.to_bytes(8, "little"),
                scheduler.get("nice", 0).to_bytes(4, "little", signed=True),
                scheduler.get("priority", 0).to_bytes(4, "little"),
                *[scheduler.get(key, 0).to_bytes(8, "little") for key in ("runtime", "deadline", "period")],
            )
        )
        kernel.call("sched_setattr", 0, attributes, 0)
    priority = process.get("ioPriority")
    if priority:
        kernel.call("ioprio_set", 1, 0, IO_CLASSES[priority["class"]] << 13 | priority.get("priority", 0))


def _set_memory_policy(kernel: Kernel, policy: dict[str, Any]) -> None:
    mode = MEMORY_POLICIES[policy["mode"]]
    for name in policy.get("flags") or []:
        mode |= MEMORY_POLICY_FLAGS[name]
    nodes = 0
    for part in (policy.get("nodes") or "").split(","):
        if part:
            first, _, last = part.partition("-")
            for node in range(int(first), int(last or first) + 1):
                nodes |= 1 << node
    if nodes:
        kernel.call("set_mempolicy", mode, nodes.to_bytes(128, "little"), 1024)
    else:
        kernel.call("set_mempolicy", mode, None, 0)


def prepare(kernel: Kernel, process: dict[str, Any], linux: dict[str, Any]) -> None:
    """Set what needs privileges and does not depend on the program; a refusal is an error of `create`.

    Raises:
        RunError, OSError: the kernel refuses it.
    """
    set_limits(kernel, process.get("rlimits") or [])
    _schedule(kernel, process)
    if linux.get("memoryPolicy"):
        _set_memory_policy(kernel, linux["memoryPolicy"])
    if linux.get("personality"):
        kernel.call("personality", PERSONALITIES[linux["personality"]["domain"]])


def _mark(kernel: Kernel, process: dict[str, Any], entry: Entry) -> None:
    """Take a session keyring and the labels of the security modules, which hold from the next exec on."""
    if entry.keyring:
        try:
            kernel.join_keyring(entry.keyring)
        except OSError as exc:
            entry.warn(f"no session keyring: {exc.strerror}")
    for key, path in (("apparmorProfile", "attr/apparmor/exec"), ("selinuxLabel", "attr/exec")):
        if process.get(key):
            label = ("exec " if key == "apparmorProfile" else "") + process[key]
            _label(kernel, entry, path, label, process[key])


def _label(kernel: Kernel, entry: Entry, path: str, text: str, label: str) -> None:
    try:
        write_proc(kernel, entry.proc, f"self/{path}", text)
    except OSError as exc:
        raise RunError(f"security label {label!r}: {exc.strerror}") from exc


def take_identity(kernel: Kernel, process: dict[str, Any], entry: Entry, sets: capabilities.Sets) -> None:
    """Drop the bounding set, then become the user with its groups (RN-11: groups, group, user)."""
    user = process.get("user") or {}
    capabilities.drop_bounding(kernel, sets.bounding)
    kernel.prctl(PR_SET_KEEPCAPS, 1)
    groups: list[int] | None = list(user.get("additionalGids") or [])
    if groups_denied(kernel, entry.proc):
        if groups:
            entry.warn("supplementary groups cannot be set in this user namespace")
        groups = None
    uid, gid = user.get("uid", 0), user.get("gid", 0)
    try:
        kernel.set_ids(uid, gid, groups)
    except OSError as exc:
        hint = "the user namespace has no mapping for one of its ids" if exc.errno == _EINVAL else ""
        raise RunError(f"process.user {uid}:{gid}: {exc.strerror}", hint=hint) from exc
    kernel.prctl(PR_SET_KEEPCAPS, 0)


def groups_denied(kernel: Kernel, proc: int) -> bool:
    """Whether the user namespace forbids setgroups(2), as one made by an ordinary user does."""
    try:
        fd = kernel.openat2(proc, "self/setgroups", posix.O_RDONLY, NO_XDEV | NO_MAGICLINKS)
    except OSError:
        return False
    try:
        return posix.read(fd, 8).startswith(b"deny")
    finally:
        posix.close(fd)


def enter_directory(path: str) -> bool:
    """Change to the working directory, which must lie inside the container (CVE-2024-21626).

    Returns:
        Whether that was allowed; the user of the container may be, where we are not.

    Raises:
        RunError: it does not exist, or lies outside.
    """
    try:
        posix.chdir(path)
    except PermissionError:
        return False
    except OSError as exc:
        raise RunError(f"working directory {path}: {exc.strerror}") from exc
    try:
        inside = posix.getcwd().startswith("/")
    except OSError:
        inside = False
    if not inside:
        raise RunError(f"working directory {path} lies outside of the container")
    return True


def find_program(process: dict[str, Any]) -> str:
    """Where `args[0]` is, looked up in the container's own PATH as execvp(3) does.

    Raises:
        RunError: it is nowhere (127), or cannot be executed (126).
    """
    name: str = process["args"][0]
    if not name:
        raise RunError("process.args: the program's name is empty", exit_code=127)
    if "/" in name:
        return name
    search = _DEFAULT_PATH
    for variable in process.get("env") or []:
        if variable.startswith("PATH="):
            search = variable[5:]
    denied = False
    for directory in search.split(":"):
        path = f"{directory or '.'}/{name}"
        try:
            info = posix.stat(path)
        except OSError:
            continue
        if info.st_mode & 0o170000 == 0o100000 and posix.access(path, posix.X_OK):
            return path
        denied = True
    if denied:
        raise RunError(f'exec "{name}": permission denied', exit_code=126)
    raise RunError(f'exec "{name}": executable file not found in $PATH', exit_code=127)


def find_program_early(process: dict[str, Any]) -> None:
    """Report at `create` that the program is nowhere; whether it can be executed shows later."""
    try:
        path = find_program(process)
        if path.startswith("/"):
            posix.stat(path)
    except OSError as exc:
        if exc.errno == _ENOENT:
            raise records.exec_failure(process["args"][0], _ENOENT) from exc
    except RunError as exc:
        if exc.exit_code == 127:
            raise


def finish(kernel: Kernel, process: dict[str, Any], entry: Entry) -> NoReturn:
    """Become the container's program.

    Raises:
        RunError, OSError: a step was refused; the caller reports it and exits.
    """
    sets = capabilities.process_sets(process, entry.warn)
    cwd = process["cwd"]
    entered = enter_directory(cwd)
    _mark(kernel, process, entry)
    posix.umask((process.get("user") or {}).get("umask", 0o022))
    # No descriptor of the host's reaches the program: not even one that leaked to us (RN-03).
    kernel.close_range(3 + entry.preserve, 0xFFFFFFFF, CLOSE_RANGE_CLOEXEC)
    take_identity(kernel, process, entry, sets)
    if not entered and not enter_directory(cwd):
        raise RunError(f"working directory {cwd}: {posix.strerror(_EACCES)}")
    # Changing the user made the process dumpable again where /proc/sys/fs/suid_dumpable says so.
    kernel.prctl(PR_SET_DUMPABLE, 0)
    program = find_program(process)
    image = trampoline.sealed(kernel, entry.report, program) if entry.filter.allows_fcntl else -1
    args = list(process["args"])
    env = _environment(kernel, process)
    _restrict(kernel, process, entry, sets)
    _execute(kernel, image, program, args, env, entry.report)


def _restrict(kernel: Kernel, process: dict[str, Any], entry: Entry, sets: capabilities.Sets) -> None:
    kernel.prctl(PR_SET_PDEATHSIG, 0)
    no_new_privileges = bool(process.get("noNewPrivileges"))
    if entry.filter.program and not no_new_privileges:
        # Without no_new_privs a filter needs CAP_SYS_ADMIN in force, so it comes before the last capset.
        _, permitted, inheritable = kernel.capget()
        kernel.capset(permitted, permitted, inheritable)
        _load_filter(kernel, entry)
    capabilities.apply(kernel, sets, entry.warn)
    if no_new_privileges:
        kernel.prctl(PR_SET_NO_NEW_PRIVS, 1)
        if entry.filter.program:
            _load_filter(kernel, entry)


def _load_filter(kernel: Kernel, entry: Entry) -> None:
    try:
        listener = kernel.seccomp(entry.filter.program, entry.filter.flags)
    except OSError as exc:
        raise RunError(f"seccomp filter: {exc.strerror}") from exc
    if entry.notice >= 0:
        posix.write(entry.notice, b"%d" % listener)


def _execute(
    kernel: Kernel, image: int, program: str, args: list[str], env: list[str], report: int
) -> NoReturn:  # fmt: skip
    if image >= 0:
        # The descriptor survives this exec, and the trampoline closes it on the next one.
        posix.set_inheritable(report, True)
        try:
            kernel.execveat(image, args, env)
        except OSError:
            # A filter may know execve and not execveat.
            posix.set_inheritable(report, False)
    try:
        posix.execve(program, args, dict(item.partition("=")[::2] for item in env))
    except OSError as exc:
        failure = records.exec_failure(program, exc.errno or 0)
    raise failure


def _environment(kernel: Kernel, process: dict[str, Any]) -> list[str]:
    """`process.env`, and HOME where that has none: engines leave it to whoever sees the container."""
    env = list(process.get("env") or [])
    if not any(item.startswith("HOME=") for item in env):
        env.append(f"HOME={_home(kernel, (process.get('user') or {}).get('uid', 0))}")
    return env


def _home(kernel: Kernel, uid: int) -> str:
    """The home directory of a user, by the container's own passwd(5); "/" for one who is not there.

    Descriptors of the host's are still open, and a link of /proc would lead through them.
    """
    root = posix.open("/", posix.O_RDONLY | posix.O_DIRECTORY | CLOEXEC)
    try:
        fd = kernel.openat2(root, "etc/passwd", posix.O_RDONLY | posix.O_NONBLOCK, IN_ROOT | NO_MAGICLINKS)
        entries = [line.split(b":") for line in read_all(fd, "/etc/passwd", "users").splitlines()]
    except (OSError, OciError):
        return "/"
    finally:
        posix.close(root)
    found = next((entry[5] for entry in entries if len(entry) > 5 and entry[2] == b"%d" % uid), b"")
    return found.decode("utf-8", "surrogateescape") if found and b"\0" not in found else "/"
