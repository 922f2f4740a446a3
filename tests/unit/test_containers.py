"""The directories of containers: held while somebody runs one, and collected when everybody was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.waiting import until

from ocitool import containers
from ocitool.errors import Conflict
from ocitool.run.state import State, process_start

HOLD = """
import sys, time
from pathlib import Path
from ocitool import containers
with containers.made(Path(sys.argv[1])):
    print("made", flush=True)
    time.sleep(60)
"""


def owner(directory: Path) -> subprocess.Popen[str]:
    """A process that holds a container's directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "made\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.fixture(autouse=True)
def state_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the runtime remembers containers, for this test alone."""
    root = tmp_path / "state"
    monkeypatch.setattr("ocitool.run.state.default_root", lambda: str(root))
    return root


def remembered(root: Path, container: str, pid: int) -> State:
    """A container as the runtime remembers it, whose first process is `pid`."""
    found = process_start(pid)
    start = found[1] if found else 0
    state = State.new(
        str(root), container, {"pid": pid, "start": start, "ready": True, "ociVersion": "1.3.0"}
    )
    state.save()
    (Path(state.directory) / "config.json").write_text('{"ociVersion": "1.3.0"}')
    return state


def test_a_directory_ends_with_the_block(tmp_path: Path) -> None:
    with containers.made(tmp_path / "all" / "one"):
        (tmp_path / "all" / "one" / "upper" / "deep").mkdir(parents=True)
    assert list((tmp_path / "all").iterdir()) == []


def test_a_name_in_use_is_refused(tmp_path: Path) -> None:
    with containers.made(tmp_path / "one"), pytest.raises(Conflict), containers.made(tmp_path / "one"):
        pass


def test_what_a_killed_owner_left_is_collected_and_what_is_held_stays(tmp_path: Path) -> None:
    place = tmp_path / "all"
    living, dead = owner(place / "living"), owner(place / "dead")
    (place / "dead" / "upper" / "shut").mkdir(parents=True, mode=0o000)
    kill(dead)
    try:
        leaving: list[Path] = []
        assert containers.collect(place, really=False, leaving=leaving.append) == ["dead"]
        assert leaving == [place / "dead"]
        assert containers.collect(place) == ["dead"]
        assert [path.name for path in place.iterdir()] == ["living"]
        assert containers.collect(place) == []
    finally:
        kill(living)
    assert containers.collect(place) == ["living"]


def test_the_runtime_that_an_owner_started_holds_on_after_the_owners_death(tmp_path: Path) -> None:
    start = "import os; print(os.posix_spawn('/bin/sleep', ['sleep', '60'], {}), flush=True)"
    script = HOLD.replace('print("made", flush=True)', start)
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "all" / "one")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    runtime = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        assert containers.collect(tmp_path / "all") == []
    finally:
        os.kill(runtime, signal.SIGKILL)
        process.stdout.close()
    until(lambda: containers.collect(tmp_path / "all") == ["one"])


def test_a_container_that_lives_on_without_its_owner_stays(tmp_path: Path, state_root: Path) -> None:
    place, program = tmp_path / "all", subprocess.Popen(["sleep", "60"])
    process = owner(place / "one")
    (place / "one" / "state").unlink()
    (place / "one" / "state").symlink_to(state_root / "one")
    remembered(state_root, "one", program.pid)
    kill(process)
    assert containers.collect(place) == []
    program.kill()
    program.wait()
    assert containers.collect(place) == ["one"]
    assert not (state_root / "one").exists()


def test_a_runtime_that_was_killed_is_dead_before_its_parent_has_noticed(
    tmp_path: Path, state_root: Path
) -> None:
    place, runtime = tmp_path / "all", subprocess.Popen(["sleep", "60"])
    found = process_start(runtime.pid)
    assert found
    state = State.new(str(state_root), "one", {"creator": [runtime.pid, found[1]], "ociVersion": "1.3.0"})
    state.save()
    process = owner(place / "one")
    (place / "one" / "state").unlink()
    (place / "one" / "state").symlink_to(state_root / "one")
    kill(process)
    assert containers.collect(place) == []
    runtime.kill()
    os.waitid(os.P_PID, runtime.pid, os.WEXITED | os.WNOWAIT)
    assert containers.collect(place) == ["one"]
    assert not (state_root / "one").exists()
    runtime.wait()


def test_what_was_kept_on_purpose_is_nobodys_to_remove(tmp_path: Path) -> None:
    (tmp_path / "kept" / "rootfs").mkdir(parents=True)
    (tmp_path / "killed-before-it-was-held").mkdir()
    assert containers.collect(tmp_path) == ["killed-before-it-was-held"]
    assert (tmp_path / "kept" / "rootfs").is_dir()


def test_what_an_unpacking_that_was_killed_left_is_collected(tmp_path: Path) -> None:
    hold = """
import sys, time
from pathlib import Path
from ocitool.unpack.staging import staged
with staged(Path(sys.argv[1]), sync=False) as staging:
    (staging / "rootfs").mkdir()
    print("made", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "one")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "made\n"
    assert containers.collect(tmp_path) == []
    kill(process)
    (left,) = containers.collect(tmp_path)
    assert left.startswith(".one.")
    assert list(tmp_path.iterdir()) == []


def test_what_is_held_is_never_collected_while_containers_come_and_go(tmp_path: Path) -> None:
    churn = """
import sys
from pathlib import Path
from ocitool import containers
place = Path(sys.argv[1])
for number in range(300):
    with containers.made(place / f"{sys.argv[2]}-{number}"):
        assert (place / f"{sys.argv[2]}-{number}" / "state").is_symlink()
"""
    place = tmp_path / "all"
    makers = [subprocess.Popen([sys.executable, "-c", churn, str(place), name]) for name in ("a", "b")]
    while any(maker.poll() is None for maker in makers):
        containers.collect(place)
    assert [maker.returncode for maker in makers] == [0, 0]
    assert list(place.iterdir()) == []
