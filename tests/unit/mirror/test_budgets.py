"""Bytes a second, and pulls within some time."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.mirror_stores import World, push_image

from ocitool.errors import Conflict, InvalidReference, OciError
from ocitool.mirror import Limits, PullLimit
from ocitool.mirror.budgets import LimitedReader, PullBudget, TokenBucket, rate


class Clock:
    """A clock that moves when someone sleeps, or when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500", 500), ("500K", 512_000), ("20M", 20 << 20), ("1.5g", 3 << 29), ("2MiB/s", 2 << 20)],
)
def test_rates_are_read(text: str, expected: int) -> None:
    assert rate(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "fast", "1T", "0.0001"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        rate(text)


@pytest.mark.parametrize(
    ("text", "limit"), [("80/6h", PullLimit(80, 21600)), ("100/d", PullLimit(100, 86400))]
)
def test_pull_limits_are_read(text: str, limit: PullLimit) -> None:
    assert PullLimit.parse(text) == limit


@pytest.mark.parametrize("text", ["", "80", "0/6h", "80/0h", "80/6w", "a/6h", "80/6h or so"])
def test_what_is_no_pull_limit_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        PullLimit.parse(text)


@pytest.mark.parametrize("readers", [1, 4])
def test_a_rate_is_kept_within_five_percent_over_all_readers(readers: int) -> None:
    clock = Clock()
    bucket = TokenBucket(1 << 20, clock=clock, sleep=clock.sleep)
    content = [LimitedReader(io.BytesIO(bytes(10 << 20)), bucket) for _ in range(readers)]
    start = clock.now
    open_readers = list(content)
    while open_readers:
        open_readers = [reader for reader in open_readers if reader.read(100_000)]

    assert clock.now - start == pytest.approx(10 * readers, rel=0.05)


def test_a_pause_gives_no_right_to_a_flood() -> None:
    clock = Clock()
    bucket = TokenBucket(1000, clock=clock, sleep=clock.sleep)
    clock.now += 3600
    start = clock.now
    for _ in range(10):
        bucket.take(1000)
    assert clock.now - start == pytest.approx(9.5)


def test_a_limited_reader_passes_everything_on() -> None:
    bucket = TokenBucket(1 << 30)
    assert LimitedReader(io.BytesIO(b"content"), bucket).read() == b"content"


def test_a_limited_reader_gives_no_more_than_was_asked_for_and_than_may_pass_at_once() -> None:
    clock = Clock()
    reader = LimitedReader(io.BytesIO(bytes(20)), TokenBucket(10, clock=clock, sleep=clock.sleep))
    assert [len(reader.read(n)) for n in (2, 100, 5)] == [2, 5, 5]


def test_the_slowest_rate_passes_a_byte_at_once() -> None:
    clock = Clock()
    reader = LimitedReader(io.BytesIO(b"content"), TokenBucket(1, clock=clock, sleep=clock.sleep))
    assert reader.read() == b"content"


def test_a_budget_that_is_used_up_says_when_the_next_pull_is_free() -> None:
    clock = Clock()
    budget = PullBudget({"up.example": PullLimit(2, 3600)}, clock=clock)
    budget.take("up.example")
    clock.now += 600
    budget.take("up.example")
    budget.take("other.example")
    with pytest.raises(Conflict, match="budget of 2 pulls") as caught:
        budget.take("up.example")
    assert "50 min" in caught.value.hint
    clock.now += 3001
    budget.take("up.example")
    assert budget.left("up.example") == 0
    assert budget.left("other.example") is None


def test_a_budget_is_kept_across_runs(tmp_path: Path) -> None:
    limits = {"up.example": PullLimit(2, 3600)}
    PullBudget(limits, tmp_path / "state" / "pulls.json").take("up.example")
    again = PullBudget(limits, tmp_path / "state" / "pulls.json")
    again.take("up.example")
    with pytest.raises(Conflict):
        again.take("up.example")


def test_a_count_that_was_cut_short_is_begun_anew(tmp_path: Path) -> None:
    file = tmp_path / "pulls.json"
    file.write_bytes(b'{"up.example": [1')
    budget = PullBudget({"up.example": PullLimit(1, 3600)}, file)
    budget.take("up.example")
    assert budget.left("up.example") == 0


@pytest.mark.parametrize(
    "kept", ['{"up.example": 5}', '{"up.example": ["x", null, {}]}', '[{"up.example": []}]']
)
def test_a_count_that_makes_no_sense_is_begun_anew(tmp_path: Path, kept: str) -> None:
    file = tmp_path / "pulls.json"
    file.write_text(kept)
    budget = PullBudget({"up.example": PullLimit(1, 3600)}, file)
    budget.take("up.example")
    assert budget.left("up.example") == 0


def test_a_count_is_read_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits, file = {"up.example": PullLimit(1, 3600)}, tmp_path / "pulls.json"
    PullBudget(limits, file).take("up.example")
    monkeypatch.setattr("ocitool.mirror.budgets._MAX_STATE", 10)
    PullBudget(limits, file).take("up.example")


def test_a_count_that_becomes_shorter_stays_readable(tmp_path: Path) -> None:
    clock = Clock()
    file = tmp_path / "pulls.json"
    budget = PullBudget({"up.example": PullLimit(9, 3600)}, file, clock=clock)
    for _ in range(5):
        budget.take("up.example")
    clock.now += 3601
    budget.take("up.example")
    assert json.loads(file.read_bytes()) == {"up.example": [clock.now]}


def test_a_count_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_bytes(b"")
    (tmp_path / "pulls.json").symlink_to(canary)
    with pytest.raises(OciError, match="can't be opened"):
        PullBudget({"up.example": PullLimit(9, 3600)}, tmp_path / "pulls.json").take("up.example")
    assert canary.read_bytes() == b""


def test_eight_threads_never_take_more_than_the_budget(tmp_path: Path) -> None:
    budgets = [PullBudget({"h": PullLimit(30, 3600)}, tmp_path / "pulls.json") for _ in range(2)]
    taken, lock = 0, threading.Lock()

    def take(number: int) -> None:
        nonlocal taken
        try:
            budgets[number % 2].take("h")
        except Conflict:
            return
        with lock:
            taken += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, range(100)))
    assert taken == 30


def _take(file: Path, times: int) -> int:
    budget = PullBudget({"h": PullLimit(25, 3600)}, file)
    taken = 0
    for _ in range(times):
        try:
            budget.take("h")
            taken += 1
        except Conflict:
            pass
    return taken


def test_several_processes_never_take_more_than_the_budget(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        taken = pool.starmap(_take, [(tmp_path / "pulls.json", 20)] * 3)
    assert sum(taken) == 25


def test_a_run_stops_at_its_budget_and_the_next_one_goes_on(tmp_path: Path) -> None:
    world = World()
    for n in range(5):
        push_image(world.repository("up.example/app"), f"layer {n}", tag=f"1.{n}")
    text = "{version: 1, sources: [{repository: up.example/app, to: down.example/app}]}"
    limits = Limits(jobs=2, pulls={"up.example": PullLimit(3, 3600)})

    job = world.job(text, limits=limits, state=tmp_path)
    first = job.apply(job.plan())

    assert world.requests("up.example")["pull"] == 3
    assert len([r for r in first.results if r.outcome == "copied"]) == 3
    assert len(first.failures) == 2
    (tmp_path / "pulls.json").unlink()  # as if the time were over
    job = world.job(text, limits=limits, state=tmp_path)
    second = job.apply(job.plan())
    assert second.failed == 0
    assert world.requests("up.example")["pull"] == 5


def test_manifests_read_for_a_plan_are_not_pulled_again_to_carry_it_out(tmp_path: Path) -> None:
    world = World()
    push_image(world.repository("up.example/app"), "a", tag="1")
    text = "{version: 1, sources: [{repository: up.example/app, to: down.example/app}]}"

    world.job(text, state=tmp_path).plan()
    job = world.job(text, state=tmp_path)
    result = job.apply(job.plan())

    assert result.failed == 0
    assert world.requests("up.example")["pull"] == 1
    assert result.pulls == {}


def test_a_cached_manifest_that_was_tampered_with_is_not_believed(tmp_path: Path) -> None:
    world = World()
    push_image(world.repository("up.example/app"), "a", tag="1")
    text = "{version: 1, sources: [{repository: up.example/app, to: down.example/app}]}"
    world.job(text, state=tmp_path).plan()
    for file in (tmp_path / "manifests" / "sha256").iterdir():
        file.write_bytes(b"{}")

    job = world.job(text, state=tmp_path)

    assert job.apply(job.plan()).failed == 0
    assert world.requests("up.example")["pull"] == 2


def test_manifests_that_were_of_no_use_for_a_month_are_forgotten(tmp_path: Path) -> None:
    world = World()
    for tag in ("1", "2"):
        push_image(world.repository("up.example/app"), tag, tag=tag)
    text = "{version: 1, sources: [{repository: up.example/app, to: down.example/app}]}"
    job = world.job(text, state=tmp_path)
    plan = job.plan()
    files = sorted((tmp_path / "manifests" / "sha256").iterdir())
    os.utime(files[0], (0, 0))

    job.apply(plan)

    assert list((tmp_path / "manifests" / "sha256").iterdir()) == files[1:]
