"""What a program of another user than ours writes to /dev/stdout, wherever our own output goes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.command import Ocitool
from support.disks import small_disk
from support.peers import call, require, require_root
from support.run_bundles import OURS, Bundle, Containers
from support.waiting import until

pytestmark = pytest.mark.root
ANEW = "echo out >/dev/stdout; echo err >/dev/stderr; cat /dev/stdin"
ALICE = 1234


@pytest.fixture
def of_alice(tmp_path: Path, busybox_image: str) -> str:
    """The image of busybox, whose programs run as alice."""
    require_root()
    require("umoci")
    layout = tmp_path / "image"
    call("cp", "-r", busybox_image.removeprefix("oci:").rpartition(":")[0], layout)
    call("umoci", "config", "--image", f"{layout}:1", "--config.user=alice")
    return f"oci:{layout}:1"


def _owner_and_mode(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_mode & 0o777


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "ocitool", "run", *words]


def _run(ocitool: Ocitool, *words: str, **streams: Any) -> subprocess.CompletedProcess[bytes]:
    """`run` with its output where a test has it."""
    streams = {"stdin": subprocess.DEVNULL, **streams}
    return subprocess.run(_command(*words), env=ocitool.environment, check=False, **streams)


@pytest.mark.parametrize("mapped", [False, True], ids=["", "in a user namespace"])
def test_pipes_are_opened_anew_by_whoever_the_program_is(
    containers: Containers, bundle: Bundle, *, mapped: bool
) -> None:
    bundle.config["process"]["user"] = {"uid": ALICE, "gid": ALICE}
    if mapped:
        bundle.config["linux"]["namespaces"].append({"type": "user"})
        for kind in ("uid", "gid"):
            bundle.config["linux"][f"{kind}Mappings"] = [
                {"containerID": 0, "hostID": 100_000, "size": 65_536}
            ]
        for path in (bundle.path, *bundle.path.rglob("*")):
            os.chown(path, 100_000, 100_000, follow_symlinks=False)
    bundle.shell(ANEW)
    command = containers.command("run", "--bundle", str(bundle.path), f"{OURS}-pipes")
    done = subprocess.run(command, input="in\n", capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("out\nin\n", "err\n", 0)


def test_a_further_process_opens_its_pipes_anew(containers: Containers, bundle: Bundle) -> None:
    containers.started(bundle.shell("sleep 300"), f"{OURS}-further")
    command = containers.command("exec", "--user", str(ALICE), f"{OURS}-further", "sh", "-c", ANEW)
    done = subprocess.run(command, input="in\n", capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("out\nin\n", "err\n", 0)


@pytest.mark.parametrize("kind", ["file", "named pipe"])
def test_the_runtime_gives_away_nothing_that_has_a_name(
    containers: Containers, bundle: Bundle, workplace: Path, kind: str
) -> None:
    bundle.config["process"]["user"] = {"uid": ALICE, "gid": ALICE}
    output = workplace / "output"
    if kind == "named pipe":
        os.mkfifo(output, 0o600)
    else:
        output.touch(0o600)
    command = containers.command("run", "--bundle", str(bundle.shell("echo out").path), f"{OURS}-named")
    with output.open("r+b", buffering=0) as ours:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=ours, stderr=ours, check=False)
    assert (done.returncode, _owner_and_mode(output)) == (0, (0, 0o600))


def test_a_file_gets_the_output_and_keeps_its_owner_and_mode(
    ocitool: Ocitool, of_alice: str, tmp_path: Path
) -> None:
    lines = "for i in 1 2 3; do echo out $i >/dev/stdout; echo err $i >/dev/stderr; done; exit 5"
    for turn in ("first", "second"):  # which starts without loading much
        output = tmp_path / turn
        output.touch(0o640)
        with output.open("ab") as ours:
            done = _run(ocitool, of_alice, "sh", "-c", lines, stdout=ours, stderr=ours)
        assert output.read_text().splitlines() == [
            f"{kind} {i}" for i in (1, 2, 3) for kind in ("out", "err")
        ]
        assert (done.returncode, _owner_and_mode(output)) == (5, (0, 0o640))


@pytest.mark.parametrize("words", [("--keep",), ("--runtime", "runc")])
def test_a_file_gets_the_output_however_the_container_is_run(
    ocitool: Ocitool, of_alice: str, tmp_path: Path, words: tuple[str, ...]
) -> None:
    if "runc" in words:
        require("runc")
    output = tmp_path / "output"
    with output.open("wb") as ours:
        done = _run(ocitool, *words, of_alice, "sh", "-c", "echo out >/dev/stdout", stdout=ours)
    assert (done.returncode, output.read_text(), output.stat().st_uid) == (0, "out\n", 0)


def test_a_terminal_shows_the_output_and_stays_ours(ocitool: Ocitool, of_alice: str) -> None:
    ours, theirs = os.openpty()
    before = os.fstat(theirs).st_uid, os.fstat(theirs).st_mode
    script = "echo out >/dev/stdout; echo err >/dev/stderr"
    done = _run(ocitool, of_alice, "sh", "-c", script, stdin=theirs, stdout=theirs, stderr=theirs)
    assert (done.returncode, os.read(ours, 1000)) == (0, b"out\r\nerr\r\n")
    assert (os.fstat(theirs).st_uid, os.fstat(theirs).st_mode) == before
    os.close(ours)
    os.close(theirs)


def test_a_socket_gets_the_output_that_nobody_could_open(ocitool: Ocitool, busybox_image: str) -> None:
    """Some programs give those that they start sockets for pipes, as Node.js does."""
    script = "echo out >/dev/stdout; echo err >/dev/stderr"
    for _ in range(2):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            streams = {"stdout": theirs.fileno(), "stderr": theirs.fileno()}
            done = _run(ocitool, busybox_image, "sh", "-c", script, **streams)
            assert (done.returncode, ours.recv(1000)) == (0, b"out\nerr\n")


def test_our_own_output_comes_after_the_programs(ocitool: Ocitool, of_alice: str, tmp_path: Path) -> None:
    output = tmp_path / "output"
    with output.open("wb") as ours:
        done = _run(ocitool, of_alice, "/not/there", stdout=ours, stderr=ours)
    assert (done.returncode, "/not/there" in output.read_text()) == (127, True)


def test_output_that_finds_no_room_is_not_lost_in_silence(
    ocitool: Ocitool, of_alice: str, tmp_path: Path
) -> None:
    words = (of_alice, "head", "-c", "1000000", "/dev/zero")
    with small_disk(tmp_path, "64k") as disk, (disk / "output").open("wb") as ours:
        done = _run(ocitool, *words, stdout=ours, stderr=subprocess.PIPE)
    assert done.stderr.decode().startswith(
        "ocitool: the program's output could not be written: No space left on device\n"
    )


def test_who_writes_the_output_holds_nothing_of_ours(ocitool: Ocitool, of_alice: str, tmp_path: Path) -> None:
    """A lock that it held would keep a container's directory from being collected."""
    script = "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done"
    with (tmp_path / "output").open("wb") as ours:
        command = _command(of_alice, "sh", "-c", script)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=ours, env=ocitool.environment)
        try:
            until(lambda: (tmp_path / "output").read_text() == "up\n")
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            held = [sorted(fd.name for fd in Path(f"/proc/{pid}/fd").iterdir()) for pid in children]
            assert ["0", "1", "2"] in held
        finally:
            process.terminate()
            assert process.wait(30) == 9
