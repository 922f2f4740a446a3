"""Signals on their way to the runtime: none is lost, whenever it comes."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from ocitool.errors import RunError
from ocitool.run import launch, run_bundle

# Stands in for the clean interpreter; without a signal it gives up after half a minute.
RUNTIME = """
trap 'exit 9' TERM
touch "$0"
n=0
while [ $n -lt 300 ]; do sleep 0.1; n=$((n + 1)); done
"""


def test_a_signal_that_does_not_wake_the_caller_reaches_the_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = tmp_path / "ready"
    monkeypatch.setattr(launch, "interpreter", lambda: ["/bin/sh", "-c", RUNTIME, str(ready)])

    def interrupt() -> None:
        while not ready.exists():
            time.sleep(0.01)
        time.sleep(0.5)
        # As where it comes between the caller's last look and its wait: it interrupts another thread.
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert run_bundle(str(tmp_path), root=str(tmp_path / "state")) == 9
    thread.join()


def test_a_signal_that_comes_before_the_runtime_is_there_is_kept_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missed: list[int] = []

    def interpreter() -> list[str]:
        os.kill(os.getpid(), signal.SIGUSR1)
        return ["/bin/sh", "-c", "exec sleep 30"]

    monkeypatch.setattr(launch, "interpreter", interpreter)
    before = signal.signal(signal.SIGUSR1, lambda number, _: missed.append(number))
    try:
        with pytest.raises(RunError, match=f"ended by signal {int(signal.SIGUSR1)}"):
            run_bundle(str(tmp_path), root=str(tmp_path / "state"))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert missed == []
