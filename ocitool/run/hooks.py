"""Hooks: programs of the host's administrator at fixed points of the life cycle (config.md)."""

from __future__ import annotations

import posix
import time

from ocitool.errors import RunError

from . import jsonfast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_PAUSE = 0.005


def run(hooks: list[dict[str, Any]], state: dict[str, Any], what: str) -> None:
    """Run hooks "in the order in which they are listed", with the state on their standard input.

    Raises:
        RunError: one of them failed, or did not end in time.
    """
    for hook in hooks:
        code = _run(hook, jsonfast.dumps(state).encode(), what)
        if code:
            raise RunError(f"{what} hook {hook['path']} failed with {_words(code)}")


def run_all(
    hooks: list[dict[str, Any]], state: dict[str, Any], what: str, warn: Callable[[str], None]
) -> None:
    """Run hooks that all get their turn; the failure of one is a warning."""
    for hook in hooks:
        try:
            run([hook], state, what)
        except RunError as exc:
            warn(exc.message)


def _words(code: int) -> str:
    return f"exit status {code}" if code > 0 else f"signal {-code}"


def _run(hook: dict[str, Any], state: bytes, what: str) -> int:
    # A file and no pipe: a pipe that the hook does not read would hold us beyond its time.
    given = posix.memfd_create("state", posix.MFD_CLOEXEC)
    posix.pwrite(given, state, 0)
    args = hook.get("args") or [hook["path"]]
    environment = dict(item.partition("=")[::2] for item in hook.get("env") or [])
    try:
        child = posix.posix_spawn(
            hook["path"],
            args,
            environment,
            file_actions=[(posix.POSIX_SPAWN_DUP2, given, 0)],
            setsigmask=[],
            setsigdef=[2, 13, 15, 25],  # INT, PIPE, TERM, XFSZ
        )
    except OSError as exc:
        raise RunError(f"{what} hook {hook['path']}: {exc.strerror}") from exc
    finally:
        posix.close(given)
    return _wait(child, hook, what)


def _wait(child: int, hook: dict[str, Any], what: str) -> int:
    timeout = hook.get("timeout")
    if not timeout:
        return posix.waitstatus_to_exitcode(posix.waitpid(child, 0)[1])
    end = time.monotonic() + timeout
    while True:
        # The clock first: a hook that has ended in time is not late because we have looked late.
        late = time.monotonic() >= end
        done, status = posix.waitpid(child, posix.WNOHANG)
        if done:
            return posix.waitstatus_to_exitcode(status)
        if late:
            break
        time.sleep(_PAUSE)
    posix.kill(child, 9)
    posix.waitpid(child, 0)
    raise RunError(f"{what} hook {hook['path']} did not end within {timeout} s")
