"""A bundle in the hands of another runtime, which is installed beside this one (`--runtime`).

The container is created and started by it, as an engine would, and waited for here. So its program's exit
status is never mistaken for the runtime's own, and the same signals and terminals work as with ours. It is
remembered like any other container: `list`, `state`, `kill` and `delete` know it.
"""

from __future__ import annotations

import posix

from ocitool.errors import NotFound, OciError, RunError

from . import helpers, jsonfast, networks, rootfs, terminal
from .kernel import PR_SET_CHILD_SUBREAPER
from .namespaces import MOUNT
from .starting import write_pid_file
from .state import State, beginning, process_start, read_file
from .waiting import Wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .kernel import Kernel
    from .runtime import Runtime
    from .starting import Settings

# By these words engines tell a program that is not there from one that can't be executed.
_NOT_FOUND = ("no such file or directory", "executable file not found", "executable file `")
_NOT_EXECUTABLE = ("permission denied", "operation not permitted", "exec format error")


def run(runtime: Runtime, container_id: str, program: str, settings: Settings) -> int:
    """Run a bundle in the foreground.

    Args:
        runtime: ours, which remembers the container.
        container_id: its ID.
        program: the other runtime's absolute path.
        settings: the bundle, and what makes its root file system.

    Returns:
        The exit status of the container's program, or 128 and the number of the signal that ended it.

    Raises:
        Conflict: the id is in use.
        RunError: the other runtime refused; 126 and 127 as for our own.
    """
    kernel = runtime.kernel
    config = jsonfast.loads(read_file(f"{settings.bundle}/config.json", "bundle"), "config.json")
    state = _remember(runtime, container_id, program, settings.bundle)
    try:
        kernel.prctl(PR_SET_CHILD_SUBREAPER, 1)
        wait = Wait(kernel)
        if settings.prepare_root:
            _mount_root(kernel, settings)
        _start(state, config, settings, wait)
        return wait.until_end(state.pid)
    finally:
        _forget(state)
        state.remove()


def _remember(runtime: Runtime, container_id: str, program: str, bundle: str) -> State:
    state = runtime.take(container_id, {**beginning(bundle), "runtime": program})
    state.save()
    return state


def _mount_root(kernel: Kernel, settings: Settings) -> None:
    """Mount the layers where the other runtime sees them, and nobody else: they end with the container."""
    kernel.unshare(MOUNT)
    rootfs.detach_from_host(kernel, "")
    if settings.prepare_root:
        settings.prepare_root(kernel)


def _start(state: State, config: dict[str, Any], settings: Settings, wait: Wait) -> None:
    """Have the container created, connected and started, and take its terminal."""
    words = ["create", "--bundle", settings.bundle, "--pid-file", f"{state.directory}/pid"]
    listener = None
    if (config.get("process") or {}).get("terminal"):
        listener = terminal.listen(f"{state.directory}/console")
        words += ["--console-socket", f"{state.directory}/console"]
    _call(state, [*words, state.id])
    pid = int(read_file(f"{state.directory}/pid", "pid file"))
    state.fields["pid"] = pid
    state.fields["start"] = (process_start(pid) or ("", 0))[1]
    state.save()
    state.mark_ready()
    if settings.pid_file:
        write_pid_file(settings.pid_file, pid)
    if settings.network:
        networks.attach(state, settings.network)
    if listener is not None:
        wait.console = terminal.accept(listener)
    _call(state, ["start", state.id])
    state.unlock()


def _forget(state: State) -> None:
    """Have the other runtime take away what it made; a container that it does not know is no error."""
    helpers.end_all(state)
    try:
        _call(state, ["delete", "--force", state.id])
    except RunError:
        return


def delete(state: State) -> None:
    """Take away a container whose owner was killed: see `runtime.Runtime.delete`."""
    _forget(state)


def _call(state: State, words: list[str]) -> None:
    """Call the other runtime.

    Raises:
        RunError: it failed; with what it wrote into its log.
    """
    program, log = state.fields["runtime"], f"{state.directory}/log"
    command = [program, "--root", f"{state.directory}/of", "--log", log, "--log-format", "json", *words]
    try:
        child = posix.posix_spawn(program, command, posix.environ, setsigmask=[], setsigdef=helpers.RESET)
    except OSError as exc:
        raise RunError(f"runtime {program}: {exc.strerror}") from exc
    code = posix.waitstatus_to_exitcode(posix.waitpid(child, 0)[1])
    if code:
        said = _last_error(log) or f"it ended with {code}"
        raise RunError(f"{program} could not {words[0]} the container: {said}", exit_code=_exit_code(said))


def _last_error(log: str) -> str:
    try:
        lines = read_file(log, "log").splitlines()
        records = [jsonfast.loads(line, "the runtime's log") for line in lines if line.startswith(b"{")]
    except (NotFound, OciError):
        return ""
    messages = [str(found.get("msg", "")) for found in records if found.get("level") in ("error", "fatal")]
    return messages[-1] if messages else ""


def _exit_code(said: str) -> int:
    lower = said.lower()
    if any(words in lower for words in _NOT_FOUND):
        return 127
    return 126 if any(words in lower for words in _NOT_EXECUTABLE) else 125
