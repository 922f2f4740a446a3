"""Signals that wait for a program, and those that are for whoever waits."""

from __future__ import annotations

import signal
import subprocess

from ocitool.run import waiting


def test_a_pipe_that_broke_for_whoever_waits_does_not_end_the_program() -> None:
    with subprocess.Popen(["sleep", "60"]) as program:
        waiting.forward(program.pid, signal.SIGPIPE)
        waiting.forward(program.pid, signal.SIGTERM)
        assert program.wait(20) == -signal.SIGTERM
