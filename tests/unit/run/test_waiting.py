"""Signals that wait for a program, and those that are for whoever waits."""

from __future__ import annotations

import signal
import subprocess

import pytest

from ocitool.run import waiting


@pytest.mark.parametrize("number", [signal.SIGTTIN, signal.SIGTTOU])
def test_what_a_terminal_tells_whoever_waits_does_not_stop_the_program(number: int) -> None:
    with subprocess.Popen(["sleep", "60"]) as program:
        waiting.forward(program.pid, number)
        waiting.forward(program.pid, signal.SIGTERM)  # a stopped program would not end of it
        try:
            assert program.wait(20) == -signal.SIGTERM
        finally:
            program.kill()
