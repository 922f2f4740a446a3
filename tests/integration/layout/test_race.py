"""Many processes in one layout: no name is lost, no blob is damaged, nobody's pull is collected."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import time
from typing import TYPE_CHECKING

from support import fixtures
from support.layout_content import blob, put, put_artifact
from support.layout_race import start, violations

from ocitool.digest import Digest
from ocitool.layout import LayoutStore
from ocitool.layout.check import check
from ocitool.memory import MemoryStore
from ocitool.transfer import copy

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import Popen

ROUNDS = int(os.environ.get("OCITOOL_RACE_ROUNDS") or 1)


def finish(*processes: Popen[str]) -> list[str]:
    """What each printed; none may fail."""
    outputs = [process.communicate(timeout=3000) for process in processes]
    failed = [err for process, (_, err) in zip(processes, outputs, strict=True) if process.returncode]
    assert not failed, failed[0]
    return [out for out, _ in outputs]


def test_f_19_eight_processes_with_twenty_tags_each_lose_none(tmp_path: Path) -> None:
    """OCITOOL_RACE_ROUNDS=50 is the race that the documentation speaks of."""
    path = tmp_path / "layout"
    finish(*(start("tag", path, worker, 20, ROUNDS) for worker in range(8)))
    assert violations(path, 8, 20, ROUNDS) == []
    assert not list((path / ".ocitool" / "leases").iterdir())
    assert not list((path / ".ocitool" / "partial").iterdir())


def test_f_20_collecting_all_the_while_takes_nothing_that_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "layout"
    put(LayoutStore(path), b"")
    workers = [start("tag", path, worker, 5, ROUNDS * 2) for worker in range(4)]
    collector = start("collect", path, 40 * ROUNDS)
    finish(*workers, collector)
    assert violations(path, 4, 5, ROUNDS * 2) == []


def test_f_17_f_20_writers_that_are_killed_lose_no_name_that_they_had_given(tmp_path: Path) -> None:
    """Beside a collector that never stops; killed at a moment that nobody has chosen."""
    path = tmp_path / "layout"
    put(LayoutStore(path), b"")
    told: set[str] = set()
    for round_ in range(ROUNDS):
        writers = [start("tell", path, 10 * round_ + worker) for worker in range(5)]
        collector = start("collect", path, 1_000_000)
        for writer in writers:
            assert writer.stdout is not None
            told.add(writer.stdout.readline().strip())
        for process in (*writers, collector):
            time.sleep(random.random() / 10)
            process.kill()
            out, err = process.communicate()
            assert process.returncode == -signal.SIGKILL, err
            # What a pipe holds after a line break may be half a line.
            told.update(out.split("\n")[:-1])
    store = LayoutStore(path)
    for name in told:
        assert copy(store, MemoryStore(), name) == put_artifact(MemoryStore(), name)
    assert len(told) >= 5 * ROUNDS
    assert check(store) == []


def test_f_19_the_same_image_pulled_by_six_processes_moves_once(tmp_path: Path) -> None:
    path = tmp_path / "layout"
    moved = finish(*(start("pull", path, fixtures.layout(), "layers:1.0") for _ in range(6)))
    assert check(LayoutStore(path)) == []
    # Manifests may be pushed by several at once; blobs are locked while one process brings them.
    assert 5 <= sum(map(int, moved)) <= 5 + 5


def test_f_19_who_comes_second_waits_and_moves_nothing(tmp_path: Path) -> None:
    store = LayoutStore(tmp_path / "layout")
    content = os.urandom(1000)
    put(store, b"")
    partials = store.path / ".ocitool" / "partial"
    with (partials / f"sha256-{Digest.of(content).hex}").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = start("resume", store.path, content.hex())
        assert second.stdout is not None
        assert second.stdout.readline() == "waiting\n"
        held.write(content)
        held.flush()
        os.rename(held.name, store.path / "blobs" / "sha256" / Digest.of(content).hex)  # noqa: PTH104
    assert finish(second) == ["whole\n"]
    assert store.exists(blob(content))
