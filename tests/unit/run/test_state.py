"""What is remembered of containers is read within bounds, and written where it belongs."""

from __future__ import annotations

import os
import posix
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from ocitool.errors import Conflict, InvalidContent, RunError
from ocitool.run import ending, namespaces, state
from ocitool.run.runtime import Runtime

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory away needs root")
def test_a_root_that_is_somebody_elses_is_not_used(tmp_path: Path) -> None:
    os.chown(tmp_path, 1234, 1234)
    with pytest.raises(RunError, match="is not a directory of this user"):
        state.make_root(str(tmp_path))


def test_a_root_that_is_no_directory_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is not a directory of this user"):
        state.make_root(str(tmp_path / "file"))


def test_a_document_that_is_larger_than_any_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    os.truncate(tmp_path / "config.json", 17 << 20)
    with pytest.raises(InvalidContent, match="larger than 16 MiB"):
        state.read_file(str(tmp_path / "config.json"), "config")


def test_nobody_waits_for_the_other_end_of_a_pipe_in_the_place_of_a_document(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    assert state.read_file(str(tmp_path / "config.json"), "config") == b""


def test_what_a_writer_that_died_left_is_no_part_of_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "state.json.new").write_bytes(b"more than there will be")
    state.write_file(str(tmp_path / "state.json"), b"{}")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("state.json", b"{}")]


def test_nothing_is_written_or_made_through_a_link(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "state.json.new").symlink_to(canary)
    (tmp_path / "lock").symlink_to(canary)
    with pytest.raises(OSError, match="symbolic links"):
        state.write_file(str(tmp_path / "state.json"), b"{}")
    with pytest.raises(OSError, match="symbolic links"):
        state.State(str(tmp_path), {"id": "x"}).lock()
    assert not canary.exists()


@pytest.mark.parametrize(
    ("user", "host_root", "directory", "writable", "root"),
    [
        (0, True, b"", True, "/run/ocitool"),
        (0, True, b"/run/user/0", True, "/run/ocitool"),
        (0, True, b"", False, "/run/ocitool"),
        # Root of a user namespace: an ordinary user's, unless the namespace has a /run of its own.
        (0, False, b"/run/user/1000", True, "/run/user/1000/ocitool"),
        (0, False, b"", True, "/run/ocitool"),
        (0, False, b"", False, "/tmp/ocitool-1000"),
        (1000, False, b"/run/user/1000", False, "/run/user/1000/ocitool"),
        (1000, False, b"", True, "/tmp/ocitool-1000"),
    ],
)
def test_containers_are_remembered_where_their_user_may_write_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
    *,
    user: int,
    host_root: bool,
    directory: bytes,
    writable: bool,
    root: str,
) -> None:
    environment = {b"XDG_RUNTIME_DIR": directory} if directory else {}
    monkeypatch.setattr(posix, "environ", environment)
    monkeypatch.setattr(posix, "geteuid", lambda: user)
    monkeypatch.setattr(posix, "access", lambda path, _: path == "/run" and writable)
    monkeypatch.setattr(namespaces, "is_host_root", lambda: host_root)
    monkeypatch.setattr(namespaces, "user_outside", lambda: 1000)
    assert state.default_root() == root


@pytest.mark.parametrize(
    ("controllers", "file", "content", "frozen"),
    [
        ("cpu,freezer", "freezer.state", "FROZEN\n", True),
        ("cpu,freezer", "freezer.state", "FREEZING\n", False),
        ("cpu,freezer", "cgroup.events", "frozen 1\n", False),
        ("", "cgroup.events", "populated 1\nfrozen 1\n", True),
        ("", "cgroup.events", "populated 1\nfrozen 0\n", False),
        ("", "freezer.state", "FROZEN\n", False),
    ],
)
def test_a_cgroup_of_either_version_says_whether_it_is_frozen(
    tmp_path: Path, *, controllers: str, file: str, content: str, frozen: bool
) -> None:
    (tmp_path / file).write_text(content)
    assert state.is_frozen({controllers: str(tmp_path)}) is frozen


def test_who_takes_away_what_never_had_a_process_collects_no_child_of_somebody_else(tmp_path: Path) -> None:
    child = subprocess.Popen(["sh", "-c", "exit 7"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    state.State.new(str(tmp_path), "x", {"bundle": ""}).save()
    Runtime(str(tmp_path)).delete("x", force=True)
    assert list(tmp_path.iterdir()) == []
    assert child.wait() == 7


@pytest.mark.parametrize(("later", "lives"), [(0, True), (1, False), (-1, False)])
def test_a_process_that_has_got_the_number_of_another_is_not_that_one(
    tmp_path: Path, *, later: int, lives: bool
) -> None:
    found = state.process_start(os.getpid())
    assert found is not None
    process = [os.getpid(), found[1] + later]
    assert state.State(str(tmp_path), {"pid": process[0], "start": process[1]}).alive() is lives
    assert state.State(str(tmp_path), {"creator": process}).abandoned() is not lives


def test_a_process_that_has_got_the_number_of_another_gets_no_signal(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        found = state.process_start(other.pid)
        assert found is not None
        container = state.State(str(tmp_path), {"id": "x", "pid": other.pid, "start": found[1] - 1})
        with pytest.raises(Conflict, match="has ended"):
            ending.signal_checked(Runtime(str(tmp_path)), container, signal.SIGKILL)
        other.terminate()
        assert other.wait(20) == -signal.SIGTERM


@pytest.mark.parametrize("field", ["creator", "pid", "start"])
def test_two_containers_of_one_name_are_told_apart(tmp_path: Path, field: str) -> None:
    fields = {"id": "x", "creator": [1, 2], "pid": 3, "start": 4}
    one = state.State(str(tmp_path), fields)
    assert one.same_as(state.State(str(tmp_path), dict(fields)))
    assert not one.same_as(state.State(str(tmp_path), {**fields, field: 5}))


def test_somebody_who_comes_to_lock_a_container_does_not_keep_it_from_being_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = state.State.new(str(tmp_path), "x", {})
    rmdir, late = posix.rmdir, [1]

    def with_a_late_comer(path: str) -> None:
        if late:
            late.pop()
            (tmp_path / "x" / "lock").touch()
        rmdir(path)

    monkeypatch.setattr(posix, "rmdir", with_a_late_comer)
    container.remove()
    assert list(tmp_path.iterdir()) == []
