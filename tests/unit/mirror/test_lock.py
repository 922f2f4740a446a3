"""The plan as a lock file, and shards of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from support.mirror_stores import World, push_image, push_multi, push_signature

from ocitool.errors import Conflict, InvalidContent, InvalidReference
from ocitool.mirror import Lock, Shard, lockfile

TEXT = """
version: 1
sources:
  - repository: up.example/app
    to: down.example/app
    platforms: [linux/amd64]
"""


def world_with_images() -> World:
    world = World()
    source = world.repository("up.example/app")
    index = push_multi(source, "a", "amd64", "arm64", tag="1.0")
    push_signature(source, index)
    push_signature(source, index, "cosign", tag=f"sha256-{index.digest.hex}.sig")
    push_multi(source, "b", "amd64", tag="1.1")
    return world


def lock_of(world: World) -> Lock:
    return lockfile.load(lockfile.dump(world.job(TEXT).plan(), TEXT.encode()))


def test_the_same_state_is_always_the_same_bytes() -> None:
    dumps = {lockfile.dump(world_with_images().job(TEXT).plan(), TEXT.encode()) for _ in range(3)}
    assert len(dumps) == 1


def test_a_lock_says_what_the_run_costs() -> None:
    plan = world_with_images().job(TEXT).plan()
    document = json.loads(lockfile.dump(plan, TEXT.encode()))

    source = document["totals"]["sources"]["up.example"]
    assert source["bytes"] == sum(image.work.size for image in plan.images)
    assert source["blobs"] == sum(len(image["work"].get("blobs", ())) for image in document["images"])
    assert source["pulls"] == 6, "two indexes, an image of each, and two signatures"
    assert document["totals"]["destinations"]["down.example"]["manifests"] == 6


def test_a_replay_copies_what_was_planned_and_reports_a_tag_that_moved() -> None:
    world = world_with_images()
    lock = lock_of(world)
    source = world.repository("up.example/app")
    planned = source.resolve("1.1")
    moved = push_multi(source, "new", "amd64", tag="1.1")
    late = push_signature(source, source.resolve("1.0"), "late")

    job = world.job(TEXT, lock=lock)
    result = job.apply(job.plan())

    there = world.repository("down.example/app")
    assert there.resolve("1.1") == planned
    assert result.failed == 0
    notes = [note for r in result.results for note in r.notes]
    assert any(f"is {moved.digest} by now; the plan's {planned.digest} was taken" in note for note in notes)
    assert late not in list(there.referrers(source.resolve("1.0"))), "what came after the review stays out"
    assert len(list(there.referrers(source.resolve("1.0")))) == 1
    assert any(".sig" in tag for tag in there.tags())


def test_a_replay_reports_a_tag_that_is_gone_and_takes_the_digest() -> None:
    world = world_with_images()
    lock = lock_of(world)
    world.repository("up.example/app").untag("1.1")

    job = world.job(TEXT, lock=lock)
    result = job.apply(job.plan())

    assert result.failed == 0
    assert any("is gone from its source" in note for r in result.results for note in r.notes)


def test_a_replayed_lock_is_idle_the_second_time() -> None:
    world = world_with_images()
    lock = lock_of(world)
    for expected in (False, True):
        job = world.job(TEXT, lock=lock)
        assert job.apply(job.plan()).idle is expected


def test_a_lock_of_another_file_is_refused() -> None:
    lock = lock_of(world_with_images())
    lock.check(TEXT.encode())
    with pytest.raises(Conflict, match="changed since the plan"):
        lock.check(TEXT.encode() + b"#")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(version=2),
        lambda d: d.pop("file"),
        lambda d: d.update(images=1),
        lambda d: d.update(images=[1]),
        lambda d: d["images"][0].pop("root"),
        lambda d: d["images"][0]["root"].update(digest="sha256:xyz"),
        lambda d: d["images"][0].update(source="UPPER CASE"),
        lambda d: d["images"][0].update(source=3),
        lambda d: d["images"][0].update(place=None),
        lambda d: d["images"][0].update(platforms=["a b"]),
        lambda d: d["images"][0].update(sparse="maybe"),
        lambda d: d["images"][0].update(referrers=[1]),
        lambda d: d["images"][0].update(digestTags={"x": 1}),
        lambda d: d["images"].append(d["images"][0]),
    ],
)
def test_a_lock_that_is_none_is_refused_with_the_place(change: Callable[[Any], object]) -> None:
    document = json.loads(lockfile.dump(world_with_images().job(TEXT).plan(), TEXT.encode()))
    change(document)
    with pytest.raises(InvalidContent):
        lockfile.load(json.dumps(document).encode())


@pytest.mark.parametrize("replayed", [False, True])
@pytest.mark.parametrize("total", [1, 3, 7])
def test_shards_share_out_every_image_exactly_once(total: int, *, replayed: bool) -> None:
    world = World()
    for n in range(40):
        push_image(world.repository(f"up.example/app{n % 4}"), f"layer {n}", tag=f"1.{n}")
    text = "{version: 1, sources: [{registry: up.example, to: 'down.example/{name}'}]}"
    whole = world.job(text).plan()
    lock = lockfile.load(lockfile.dump(whole, text.encode())) if replayed else None

    parts = [world.job(text, lock=lock, shard=Shard(n, total)).plan() for n in range(1, total + 1)]

    targets = [image.target for part in parts for image in part.images]
    assert sorted(targets) == [image.target for image in whole.images]
    assert all(part.images for part in parts)


def test_in_a_replay_names_of_the_same_content_are_in_one_shard() -> None:
    world = World()
    for n in range(10):
        push_image(world.repository("up.example/app"), "same", tag=f"1.{n}")
    text = "{version: 1, sources: [{registry: up.example, to: 'down.example/{name}'}]}"
    lock = lockfile.load(lockfile.dump(world.job(text).plan(), text.encode()))

    parts = [world.job(text, lock=lock, shard=Shard(n, 4)).plan() for n in range(1, 5)]

    assert sorted(len(part.images) for part in parts) == [0, 0, 0, 10]


@pytest.mark.parametrize(
    ("environ", "shard"),
    [
        ({"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "4"}, Shard(1, 4)),
        ({"JOB_COMPLETION_INDEX": "3", "JOB_COMPLETIONS": "4"}, Shard(4, 4)),
        ({"CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "2"}, Shard(1, 2)),
        ({"CI_NODE_INDEX": "2", "CI_NODE_TOTAL": "2"}, Shard(2, 2)),
    ],
)
def test_a_shard_is_read_from_the_environment(environ: dict[str, str], shard: Shard) -> None:
    assert Shard.parse("auto", environ) == shard


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("0/4", {}),
        ("5/4", {}),
        ("1", {}),
        ("a/b", {}),
        ("auto", {}),
        ("auto", {"JOB_COMPLETION_INDEX": "1"}),
        ("auto", {"CI_NODE_INDEX": "x", "CI_NODE_TOTAL": "2"}),
    ],
)
def test_what_is_no_shard_is_refused(text: str, environ: dict[str, str]) -> None:
    with pytest.raises(InvalidReference):
        Shard.parse(text, environ)
