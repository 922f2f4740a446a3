"""`ocitool run --runtime`: the same bundle in the hands of crun, runc, or any other program of that kind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import Ocitool
from support.fixtures import layout
from support.peers import WITHOUT_HYBRID, require, require_root
from support.run_bundles import NO_NEW_MOUNTS, OURS, host_traces, remembered
from support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.peers]

HELLO = f"oci:{layout()}:hello:1.0"


def run(ocitool: Ocitool, runtime: str, *words: str, **settings: object) -> subprocess.CompletedProcess[str]:
    require_root()
    require(runtime)
    command = [*NO_NEW_MOUNTS, sys.executable, "-m", "ocitool", "run", "--runtime", runtime, *words]
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [*WITHOUT_HYBRID, *command] if runtime == "crun" else command,
        env=ocitool.environment, cwd=ocitool.home, text=True, check=False, timeout=120,
        **{"capture_output": True, **settings},  # type: ignore[call-overload]
    )  # fmt: skip
    assert list((ocitool.home / "containers").iterdir()) == []
    return done


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_another_runtime_runs_the_image_and_nothing_is_left(ocitool: Ocitool, runtime: str) -> None:
    name = f"{OURS}-{runtime}"
    done = run(ocitool, runtime, "--name", name, HELLO)
    assert (done.returncode, "Hello" in done.stdout) == (0, True), done.stderr
    assert run(ocitool, runtime, "--name", name, HELLO, "exit", "7").returncode == 7
    assert name not in remembered(Path("/run/ocitool"))
    assert host_traces(ocitool.home) == []


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_the_exit_status_is_the_programs_and_what_can_not_start_is_told_apart(
    ocitool: Ocitool, busybox_image: str, runtime: str
) -> None:
    assert run(ocitool, runtime, busybox_image, "--", "sh", "-c", "exit 1").returncode == 1
    assert run(ocitool, runtime, busybox_image, "--", "sh", "-c", "exit 137").returncode == 137
    assert run(ocitool, runtime, busybox_image, "not-a-program").returncode == 127
    assert run(ocitool, runtime, busybox_image, "/etc/passwd").returncode == 126


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_another_runtimes_program_has_a_terminal_of_the_callers_size(
    ocitool: Ocitool, busybox_image: str, runtime: str
) -> None:
    ours, theirs = os.openpty()
    subprocess.run(["stty", "rows", "33", "cols", "99"], stdin=theirs, check=True)
    look = "test -t 0 && test -t 1 && test -t 2 && stty size"
    done = run(
        ocitool, runtime, "-t", busybox_image, "--", "sh", "-c", look,
        capture_output=False, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    said = os.read(ours, 4096).decode()
    os.close(ours)
    assert (done.returncode, said.split()) == (0, ["33", "99"])


def test_a_signal_reaches_another_runtimes_program(ocitool: Ocitool, busybox_image: str) -> None:
    require_root()
    require("runc")
    program = 'trap "echo ended; exit 9" TERM; echo ready; sleep 60 & wait'
    words = ["run", "--runtime", "runc", busybox_image, "--", "sh", "-c", program]
    started = subprocess.Popen(
        [sys.executable, "-m", "ocitool", *words],
        stdout=subprocess.PIPE, text=True, env=ocitool.environment, cwd=ocitool.home,
    )  # fmt: skip
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    started.terminate()
    assert started.communicate(timeout=120)[0] == "ended\n"
    assert started.returncode == 9


def test_what_is_no_runtime_is_told_in_a_sentence(ocitool: Ocitool) -> None:
    assert (
        "no-such-runtime is not installed"
        in ocitool("run", "--runtime", "no-such-runtime", HELLO, code=125).err
    )
    assert "/bin/false could not create" in ocitool("run", "--runtime", "/bin/false", HELLO, code=125).err


def test_a_container_of_another_runtime_is_taken_away_after_its_owners_were_killed(
    ocitool: Ocitool, busybox_image: str
) -> None:
    require_root()
    require("runc")
    words = ["run", "--runtime", "runc", "--name", f"{OURS}-orphan", busybox_image, "sleep", "60"]
    started = subprocess.Popen(
        [sys.executable, "-m", "ocitool", *words], env=ocitool.environment, cwd=ocitool.home, process_group=0
    )
    state = Path(f"/run/ocitool/{OURS}-orphan")
    runtime = [sys.executable, "-m", "ocitool.run"]
    asked = [*runtime, "state", f"{OURS}-orphan"]
    until(lambda: b'"running"' in subprocess.run(asked, capture_output=True, check=False).stdout)
    os.killpg(started.pid, 9)
    started.wait()
    ocitool("run", HELLO)
    assert (ocitool.home / "containers" / f"{OURS}-orphan").exists()
    subprocess.run([*runtime, "delete", "--force", f"{OURS}-orphan"], check=True)
    ocitool("run", HELLO)
    assert not (ocitool.home / "containers" / f"{OURS}-orphan").exists()
    assert not state.exists()


def test_an_ordinary_user_hands_an_image_to_runc(ordinary_home: Path) -> None:
    require("runc")
    ordinary = Ocitool(ordinary_home, ordinary=True)
    assert "Hello" in ordinary("run", "--runtime", "runc", HELLO).out
    ordinary("run", "--runtime", "runc", HELLO, "exit", "7", code=7)
    assert list((ordinary_home / "containers").iterdir()) == []
