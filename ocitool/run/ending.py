"""The end of a container: its processes, its cgroup, what is remembered of it, and its last hooks."""

from __future__ import annotations

import posix
import time

from ocitool.errors import Conflict, OciError, RunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .runtime import Runtime
    from .state import State

_SIGKILL = 9


def destroy(runtime: Runtime, state: State) -> None:
    """End what lives, remove cgroup and state, and run the poststop hooks.

    Raises:
        RunError: something does not end, or cannot be removed.
    """
    if "runtime" in state.fields:
        from . import foreign

        foreign.delete(state)
        state.remove()
        return
    if state.alive():
        _kill(runtime, state)
    disconnect(state)
    cgroup = runtime.cgroup(state)
    cgroup.kill()
    _await_end(state)
    cgroup.delete()
    poststop(state, runtime.warn)
    state.remove()


def disconnect(state: State) -> None:
    """End what serves the container from outside, if anything does."""
    if "helpers" in state.fields:
        from . import helpers

        helpers.end_all(state)


def signal_checked(runtime: Runtime, state: State, signal: int) -> None:
    """Signal the first process by a descriptor, so that its number cannot have passed to another one.

    Raises:
        Conflict: it has ended. RunError: the kernel refuses.
    """
    kernel = runtime.kernel
    try:
        fd = kernel.call("pidfd_open", state.pid, 0)
    except ProcessLookupError as exc:
        raise not_running(state.id) from exc
    try:
        if not state.alive():
            raise not_running(state.id)
        kernel.call("pidfd_send_signal", fd, signal, None, 0)
    except OSError as exc:
        raise RunError(f"signal {signal} to container {state.id}: {exc.strerror}") from exc
    finally:
        posix.close(fd)


def not_running(container_id: str) -> Conflict:
    """The error for a signal that comes too late; containerd knows it by its first three words."""
    return Conflict(f"container not running: {container_id} has ended")


def _kill(runtime: Runtime, state: State) -> None:
    try:
        signal_checked(runtime, state, _SIGKILL)
    except OciError:
        return


def _await_end(state: State) -> None:
    """Wait until the first process is gone, and collect it if it is our own child."""
    if not state.pid:
        return
    for attempt in range(1000):
        _collect(state.pid)
        if not state.alive():
            return
        time.sleep(0.0005 if attempt < 20 else 0.005)
    raise RunError(f"process {state.pid} of container {state.id} does not end")


def _collect(pid: int) -> None:
    """Collect a process, if it is our own child and has ended."""
    try:
        posix.waitpid(pid, posix.WNOHANG)
    except ChildProcessError:
        return


def poststop(state: State, warn: Callable[[str], None]) -> None:
    """Run the poststop hooks of a container that is gone."""
    try:
        listed = (state.config.get("hooks") or {}).get("poststop")
    except OciError:
        return  # it never got as far as a configuration
    if listed:
        from . import hooks

        hooks.run_all(listed, state.document("stopped"), "poststop", warn)
