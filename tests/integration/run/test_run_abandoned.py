"""What a runtime leaves that is killed while it makes a container, and who takes it away (RN-20)."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from support.peers import require
from support.run_bundles import OURS, Bundle, Containers, host_traces
from support.waiting import until

from ocitool.errors import Conflict, RunError
from ocitool.run import launch, run_bundle
from ocitool.run.state import State, process_start

pytestmark = pytest.mark.root

# Calls at which a runtime is killed before there is a container: before and after each file of its record, at
# the making of its cgroups, and with its first process about to be cloned.
WHILE_IT_CREATES = [*[("rename", number) for number in (1, 2, 3)], ("mkdir", 3), ("mkdir", 5), ("clone3", 1)]
# And later: while the program runs, and at two steps of taking everything away.
LATER = [("rt_sigtimedwait", 1), ("rmdir", 2), ("unlink", 3)]
KILL_THE_RUNTIME = {"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"]}
TRACER = ["strace", "-D", "-qq", "-o", "/dev/null"]


def _killed_at(call: str, number: int) -> list[str]:
    """What makes a command end by SIGKILL at a system call; the command keeps its process number."""
    return [*TRACER, "-e", f"inject={call}:signal=SIGKILL:when={number}"]


@pytest.mark.parametrize(("call", "number"), WHILE_IT_CREATES)
def test_the_next_run_takes_the_id_of_one_that_was_killed_while_it_created(
    containers: Containers, bundle: Bundle, call: str, number: int
) -> None:
    require("strace")
    command = containers.command("run", "--bundle", str(bundle.path), f"{OURS}-left")
    killed = subprocess.run(
        [*_killed_at(call, number), *command], stdin=subprocess.DEVNULL, timeout=120, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert (containers.root / f"{OURS}-left").exists()
    done = containers.call("run", "--bundle", str(bundle.path), f"{OURS}-left")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (containers.root / f"{OURS}-left").exists()
    assert host_traces(containers.base) == []


def test_of_several_runs_that_find_an_abandoned_id_each_has_it_alone(
    containers: Containers, bundle: Bundle
) -> None:
    for attempt in range(5):
        abandoned = containers.root / f"{OURS}-race-{attempt}"
        abandoned.mkdir(parents=True)  # killed before it wrote anything
        command = containers.command("run", "--bundle", str(bundle.path), abandoned.name)
        runs = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=-1) for _ in range(4)]
        errors = {run.returncode: run.communicate(timeout=120)[1] or run for run in runs}
        codes = [run.returncode for run in runs]
        assert 0 in codes
        assert set(codes) <= {0, Conflict.exit_code}, errors
        assert not abandoned.exists()


def test_a_container_that_is_being_made_is_not_taken_for_abandoned(
    containers: Containers, bundle: Bundle, workplace: Path
) -> None:
    os.mkfifo(workplace / "go")
    bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/cat", "args": ["cat", f"{workplace}/go"]}]}
    bundle.save()
    command = containers.command("run", "--bundle", str(bundle.path), f"{OURS}-making")
    first = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    until((containers.root / f"{OURS}-making" / "state.json").exists)
    done = containers.call("run", "--bundle", str(bundle.path), f"{OURS}-making")
    assert done.returncode == Conflict.exit_code
    assert "exists already" in done.stderr
    (workplace / "go").write_text("go")
    assert first.wait(timeout=60) == 0


def test_a_container_that_was_completed_keeps_its_id_after_its_runtime_was_killed(
    containers: Containers, bundle: Bundle
) -> None:
    command = containers.command("run", "--bundle", str(bundle.shell("sleep 60").path), f"{OURS}-alone")
    runtime = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    until((containers.root / f"{OURS}-alone" / "ready").exists)
    containers.wait_for(f"{OURS}-alone", "running")
    runtime.kill()
    runtime.wait()
    assert (
        containers.call("run", "--bundle", str(bundle.path), f"{OURS}-alone").returncode == Conflict.exit_code
    )
    assert containers.state(f"{OURS}-alone")["status"] == "running"


@pytest.mark.parametrize(("call", "number"), [*WHILE_IT_CREATES, *LATER])
def test_run_bundle_clears_up_after_a_runtime_that_was_killed(
    containers: Containers, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    require("strace")
    clean = launch.interpreter()
    monkeypatch.setattr(
        launch, "interpreter", lambda: [f"/usr/bin/{TRACER[0]}", *_killed_at(call, number)[1:], *clean]
    )
    if call == "rt_sigtimedwait":
        bundle.shell("sleep 60")  # the runtime waits for no program that has ended before
    with pytest.raises(RunError, match="the runtime was ended by signal 9"):
        run_bundle(str(bundle.path), container_id=f"{OURS}-inner", root=str(containers.root))
    assert containers.remembered() == []
    assert host_traces(containers.base) == []


def test_run_bundle_leaves_the_container_of_another_run_that_has_the_name(
    containers: Containers, bundle: Bundle
) -> None:
    pid = containers.started(bundle.shell("sleep 60"), f"{OURS}-named")
    launch._clear_up(str(containers.root), f"{OURS}-named", os.getpid(), keep=False)
    assert containers.state(f"{OURS}-named")["pid"] == pid


def test_a_hook_that_kills_the_runtime_leaves_nothing(containers: Containers, bundle: Bundle) -> None:
    bundle.config["hooks"] = {"createRuntime": [KILL_THE_RUNTIME]}
    bundle.save()
    with pytest.raises(RunError, match="signal 9"):
        run_bundle(str(bundle.path), container_id=f"{OURS}-hook", root=str(containers.root))
    assert containers.remembered() == []


def test_a_maker_that_has_ended_and_that_nobody_has_collected_is_not_at_work(tmp_path: Path) -> None:
    maker = subprocess.Popen(["sleep", "60"])
    started = process_start(maker.pid)
    assert started is not None
    state = State.new(str(tmp_path), f"{OURS}-zombie", {"creator": [maker.pid, started[1]]})
    assert (state.status(), state.abandoned()) == ("creating", False)
    maker.kill()
    os.waitid(os.P_PID, maker.pid, os.WEXITED | os.WNOWAIT)
    assert (state.status(), state.abandoned()) == ("stopped", True)
    maker.wait()
