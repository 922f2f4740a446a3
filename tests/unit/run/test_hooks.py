"""Hooks and the time that they have."""

from __future__ import annotations

import os
import posix
from types import SimpleNamespace
from typing import Any

import pytest

from ocitool.errors import RunError
from ocitool.run import hooks

TRUE = {"path": "/bin/sh", "args": ["sh", "-c", "sleep 0.2"], "timeout": 1}


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A runtime that is not looked after by the machine until its hooks have ended, and long after that."""
    children: list[int] = []
    now = [0.0]
    spawn = posix.posix_spawn

    def spawned(*args: Any, **more: Any) -> int:
        children.append(spawn(*args, **more))
        return children[-1]

    def sleep(_: float) -> None:
        os.waitid(os.P_PID, children[-1], os.WEXITED | os.WNOWAIT)
        now[0] += 1000

    monkeypatch.setattr(posix, "posix_spawn", spawned)
    monkeypatch.setattr(hooks, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    return children


def test_a_hook_that_has_ended_in_time_is_not_late_because_the_runtime_is(late: list[int]) -> None:
    hooks.run([TRUE], {}, "poststart")
    assert len(late) == 1


def test_a_hook_that_failed_in_time_is_told_by_its_own_status(late: list[int]) -> None:
    with pytest.raises(RunError, match="failed with exit status 7"):
        hooks.run([{**TRUE, "args": ["sh", "-c", "sleep 0.2; exit 7"]}], {}, "poststart")
    assert len(late) == 1
