"""Plans and their execution, over registries in memory."""

from __future__ import annotations

import io
import threading
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from support.mirror_stores import (
    Repository,
    World,
    push_blob,
    push_image,
    push_index,
    push_multi,
    push_signature,
)

from ocitool import limits
from ocitool.digest import Digest
from ocitool.errors import NotFound, UnsafeContent
from ocitool.memory import MemoryStore
from ocitool.mirror import Run, neighbours
from ocitool.model import Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterable

REPOSITORY = """
version: 1
sources:
  - repository: up.example/app
    to: down.example/mirror/{name}
"""


def run(world: World, text: str = REPOSITORY) -> Run:
    job = world.job(text)
    return job.apply(job.plan())


def test_a_first_run_copies_every_tag_with_its_digest() -> None:
    world = World()
    source = world.repository("up.example/app")
    wanted = {tag: push_image(source, "base", tag, tag=tag) for tag in ("1.0", "1.1")}

    result = run(world)

    there = world.repository("down.example/mirror/app")
    assert {tag: there.resolve(tag) for tag in there.tags()} == wanted
    assert [r.outcome for r in result.results] == ["copied", "copied"]
    assert result.failed == 0


def test_an_unchanged_second_run_reads_nothing_but_names_and_digests() -> None:
    world = World()
    source = world.repository("up.example/app")
    image = push_image(source, "base", tag="1.0")
    push_signature(source, image)
    push_signature(source, image, tag=f"sha256-{image.digest.hex}.sig")
    run(world)
    world.forget()

    result = run(world)

    assert result.idle
    assert set(world.requests("up.example")) <= {"resolve", "exists", "list"}
    assert set(world.requests("down.example")) <= {"resolve", "exists", "list"}
    assert result.pulls == {}


def test_an_unchanged_multi_platform_image_costs_its_registry_no_pull() -> None:
    world = World()
    push_multi(world.repository("up.example/app"), "a", "amd64", "arm64", tag="1.0")
    run(world)
    world.forget()

    result = run(world)

    assert result.idle
    assert "pull" not in world.requests("up.example")


def test_one_image_that_fails_does_not_stop_the_others() -> None:
    world = World()
    source = world.repository("up.example/app")
    bad = push_image(source, "bad", tag="1.0")
    push_image(source, "good", tag="1.1")
    source.broken.add(str(bad.digest))

    result = run(world)

    assert result.failed == 1
    assert list(world.repository("down.example/mirror/app").tags()) == ["1.1"]


def test_an_image_whose_blob_fails_on_the_way_is_reported_and_leaves_no_name() -> None:
    world = World()
    source = world.repository("up.example/app")
    push_image(source, "one", tag="1.0")
    push_image(source, "two", tag="1.1")
    job = world.job(REPOSITORY)
    plan = job.plan()
    source.broken.add(str(plan.images[0].work.blobs[-1].digest))

    result = job.apply(plan)

    assert [r.outcome for r in result.results] == ["failed", "copied"]
    assert list(world.repository("down.example/mirror/app").tags()) == ["1.1"]


def test_a_failed_image_is_completed_by_the_next_run_with_only_what_is_missing() -> None:
    world = World()
    source = world.repository("up.example/app")
    push_image(source, "one", "two", tag="1.0")
    job = world.job(REPOSITORY)
    plan = job.plan()
    lost = next(blob for blob in plan.images[0].work.blobs if blob.size == 3)
    source.broken.add(str(lost.digest))
    assert job.apply(plan).failed == 1
    source.broken.clear()
    kept = {d for d in plan.images[0].work.blobs if world.repository("down.example/mirror/app").exists(d)}

    again = world.job(REPOSITORY).plan()

    assert set(again.images[0].work.blobs) == set(plan.images[0].work.blobs) - kept
    assert run(world).failed == 0


def test_a_blob_that_two_repositories_share_crosses_the_wire_once() -> None:
    world = World()
    for name in ("one", "two", "three"):
        push_image(world.repository(f"up.example/{name}"), "the shared base", name, tag="1")
    text = """
version: 1
sources: [{registry: up.example, to: 'down.example/m/{repository}'}]
"""
    job = world.job(text)
    plan = job.plan()
    mounted = sum(len(image.work.mounts) for image in plan.images)
    world.forget()

    result = job.apply(plan)

    assert result.failed == 0
    assert world.requests("up.example")["blob"] == sum(len(image.work.blobs) for image in plan.images)
    assert mounted == 4, "base and config, in two of the three repositories"
    assert sum(r.mounted for r in result.results) == mounted


def test_a_blob_that_two_tags_share_is_neither_moved_nor_mounted_twice() -> None:
    world = World()
    for tag in ("1.0", "1.1"):
        push_image(world.repository("up.example/app"), "base", tag, tag=tag)

    first, second = world.job(REPOSITORY).plan().images

    assert (len(first.work.blobs), len(first.work.mounts), len(first.work.shared)) == (3, 0, 0)
    assert (len(second.work.blobs), len(second.work.mounts), len(second.work.shared)) == (1, 0, 2)


def test_a_blob_that_one_image_failed_to_bring_is_brought_by_the_next() -> None:
    world = World()
    push_image(world.repository("up.example/a"), "base", "a", tag="1")
    push_image(world.repository("up.example/b"), "base", "b", tag="1")
    text = "{version: 1, sources: [{registry: up.example, to: 'down.example/m/{name}'}]}"
    job = world.job(text)
    plan = job.plan()
    world.repository("up.example/a").broken |= {str(blob.digest) for blob in plan.images[0].work.blobs}

    result = job.apply(plan)

    assert [r.outcome for r in result.results] == ["failed", "copied"]


def test_a_claim_that_came_to_nothing_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_PATIENCE", 0.05)
    deliveries = neighbours.Deliveries()
    digest = Digest.of(b"blob")
    assert deliveries.claim("down.example", digest, "dead") is None
    assert deliveries.claim("down.example", digest, "next") is None


def _claim(deliveries: neighbours.Deliveries, owner: str) -> Future[object]:
    """Another image that wants the blob, in a thread that no failure of a test waits for."""
    found: Future[object] = Future()
    threading.Thread(
        target=lambda: found.set_result(deliveries.claim("down.example", BLOB, owner)), daemon=True
    ).start()
    return found


BLOB = Digest.of(b"blob")


def test_who_wants_a_blob_that_is_on_its_way_waits_until_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_PATIENCE", 600.0)
    deliveries, store = neighbours.Deliveries(), MemoryStore()
    deliveries.claim("down.example", BLOB, "first")
    waiting = _claim(deliveries, "second")
    with pytest.raises(TimeoutError):
        waiting.result(0.2)

    deliveries.arrived("down.example", BLOB, "down.example/app", store)

    assert waiting.result(60) == ("down.example/app", store)


def test_who_waits_for_a_blob_brings_it_once_its_bringer_gives_up_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbours, "_PATIENCE", 600.0)
    deliveries = neighbours.Deliveries()
    deliveries.claim("down.example", BLOB, "first")
    waiting = _claim(deliveries, "second")
    deliveries.release("down.example", BLOB, "third")
    with pytest.raises(TimeoutError):
        waiting.result(0.2)

    deliveries.release("down.example", BLOB, "first")

    assert waiting.result(60) is None


def test_a_blob_whose_bytes_are_moving_is_waited_for_however_long_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbours, "_PATIENCE", 0.05)
    deliveries, store = neighbours.Deliveries(), MemoryStore()
    way = neighbours.Neighbourly(store, "down.example/app", "down.example", deliveries)
    desc = Descriptor("application/octet-stream", BLOB, 4)
    way.mount(desc, MemoryStore())
    way.begin(desc)
    waiting = _claim(deliveries, "second")
    with pytest.raises(TimeoutError):
        waiting.result(0.5)

    way.push(desc, io.BytesIO(b"blob"))

    assert waiting.result(60) == ("down.example/app", store)


def test_what_one_image_brought_to_a_repository_the_next_one_has_without_a_question() -> None:
    world = World()
    source = world.repository("up.example/app")
    for tag in ("1.0", "1.1"):
        push_image(source, "shared", tag, tag=tag)

    run(world)

    there = world.repository("down.example/mirror/app")
    assert (there.requests["mount"], there.requests["push blob"]) == (0, 4)


def test_the_plan_is_exact_about_bytes_and_pulls() -> None:
    world = World()
    source = world.repository("up.example/app")
    push_multi(source, "x", "amd64", "arm64", tag="1.0")
    push_image(source, "x amd64", "more", tag="1.1")
    push_image(world.repository("down.example/mirror/app"), "x amd64")  # some is there already
    job = world.job(REPOSITORY)
    world.forget()

    plan = job.plan()
    result = job.apply(plan)

    asked = world.requests("up.example")
    assert asked["pull"] == len({digest for image in plan.images for digest in image.work.pulls})
    assert asked["blob"] == sum(len(image.work.blobs) for image in plan.images)
    assert sum(r.moved for r in result.results) == sum(image.work.size for image in plan.images)


def test_signatures_of_an_image_and_of_its_platforms_come_along() -> None:
    world = World()
    source = world.repository("up.example/app")
    child = push_image(source, "amd64")
    index = push_index(source, {"amd64": child}, tag="1.0")
    of_index = push_signature(source, index, "index")
    of_child = push_signature(source, child, "child")
    of_signature = push_signature(source, of_child, "counter-signed")
    tagged = push_signature(source, child, "cosign", tag=f"sha256-{child.digest.hex}.sig")

    run(world)

    there = world.repository("down.example/mirror/app")
    assert list(there.referrers(index)) == [of_index]
    assert list(there.referrers(child)) == [of_child]
    assert list(there.referrers(of_child)) == [of_signature]
    assert there.resolve(f"sha256-{child.digest.hex}.sig") == tagged


def test_a_signature_that_is_added_later_makes_an_image_changed() -> None:
    world = World()
    source = world.repository("up.example/app")
    image = push_image(source, "a", tag="1.0")
    run(world)
    signature = push_signature(source, image)

    result = run(world)

    assert [r.outcome for r in result.results] == ["copied"]
    assert list(world.repository("down.example/mirror/app").referrers(image)) == [signature]


def test_a_signature_whose_blobs_are_there_already_is_brought_as_well() -> None:
    world = World()
    source, there = world.repository("up.example/app"), world.repository("down.example/mirror/app")
    image = push_image(source, "a", tag="1.0")
    run(world)
    signature = push_signature(source, image)
    push_signature(there, push_image(there, "b"))

    run(world)

    assert list(there.referrers(image)) == [signature]


def test_a_signature_s_tag_that_was_lost_comes_back() -> None:
    world = World()
    source, there = world.repository("up.example/app"), world.repository("down.example/mirror/app")
    image = push_image(source, "a", tag="1.0")
    tag = f"sha256-{image.digest.hex}.sig"
    signature = push_signature(source, image, tag=tag)
    run(world)
    there.untag(tag)

    run(world)

    assert there.resolve(tag) == signature


def test_a_blob_of_an_index_that_was_lost_comes_back() -> None:
    world = World()
    source, there = world.repository("up.example/app"), world.repository("down.example/mirror/app")
    layer = push_blob(source, "layer of a build cache")
    push_index(source, {"amd64": layer}, tag="1.0")
    run(world)
    there.delete(layer)

    run(world)

    assert there.exists(layer)


def test_signatures_of_signatures_are_followed_so_far_and_no_farther() -> None:
    world = World()
    source, there = world.repository("up.example/app"), world.repository("down.example/mirror/app")
    chain = [push_image(source, "a", tag="1.0")]
    for number in range(6):
        chain.append(push_signature(source, chain[-1], str(number)))

    run(world)

    assert [there.exists(desc) for desc in chain] == [True] * 5 + [False] * 2


class ByApi(Repository):
    """A repository whose registry has the API for referrers."""

    def referrers_by_api(self, desc: Descriptor, /) -> list[Descriptor] | None:
        return list(self.referrers(desc))


def test_every_image_has_its_own_signature_where_the_registry_lists_them() -> None:
    world = World()
    source = world.repositories["up.example/app"] = ByApi("up.example")
    images = [push_image(source, name, tag=name) for name in ("first", "second")]
    signatures = [push_signature(source, image, str(image.digest)) for image in images]

    run(world)

    there = world.repository("down.example/mirror/app")
    assert [list(there.referrers(image)) for image in images] == [[signature] for signature in signatures]


class New(Repository):
    """A repository of which its registry knows nothing before it has a name in it."""

    def tags(self) -> Iterable[str]:
        found = list(super().tags())
        if not found:
            raise NotFound("no such repository")
        return found


def test_what_an_interrupted_run_brought_to_a_new_place_is_not_read_again() -> None:
    world = World()
    large = "x" * (1 << 17)
    push_image(world.repository("up.example/app"), large, "small", tag="1.0")
    there = world.repositories["down.example/mirror/app"] = New("down.example")
    push_blob(there, large)
    world.forget()

    result = run(world)

    assert [r.outcome for r in result.results] == ["copied"]
    assert world.requests("up.example")["blob"] == 2, "the small layer, and the config"


class ByTag(Repository):
    """A repository whose registry has no API for referrers: their lists are tags."""

    def referrers_by_api(self, desc: Descriptor, /) -> list[Descriptor] | None:
        return None


def test_where_lists_are_tags_only_the_lists_that_there_are_are_read() -> None:
    world = World()
    source = world.repositories["up.example/app"] = ByTag("up.example")
    signed, _ = (push_image(source, name, tag=name) for name in ("signed", "plain"))
    signature = push_signature(source, signed)
    source.tag(signature, f"sha256-{signed.digest.hex}")
    source.requests.clear()

    run(world)

    there = world.repository("down.example/mirror/app")
    assert list(there.referrers(signed)) == [signature]
    # The lists are the registry's own to make.
    assert sorted(there.tags()) == ["plain", "signed"]
    # The tags, once, and the one list; none for the plain image and for the signature itself.
    assert source.requests["list"] == 2


def test_signatures_stay_behind_where_the_file_says_so() -> None:
    world = World()
    source = world.repository("up.example/app")
    image = push_image(source, "a", tag="1.0")
    push_signature(source, image)
    push_signature(source, image, tag=f"sha256-{image.digest.hex}.sig")

    run(world, REPOSITORY + "    referrers: false\n    digest-tags: false\n")

    there = world.repository("down.example/mirror/app")
    assert list(there.tags()) == ["1.0"]
    assert list(there.referrers(image)) == []


PLATFORM = REPOSITORY + "    platforms: [linux/amd64]\n"


def test_a_part_of_an_index_keeps_its_digest_where_the_destination_takes_that() -> None:
    world = World()
    index = push_multi(world.repository("up.example/app"), "a", "amd64", "arm64", tag="1.0")
    world.forget()

    result = run(world, PLATFORM)

    there = world.repository("down.example/mirror/app")
    assert there.resolve("1.0") == index
    assert world.requests("up.example")["blob"] == 2, "one config and one layer"
    assert result.results[0].notes == ()
    assert run(world, PLATFORM).idle


def test_a_part_of_an_index_becomes_a_new_one_where_it_has_to_and_says_so() -> None:
    world = World()
    index = push_multi(world.repository("up.example/app"), "a", "amd64", "arm64", tag="1.0")
    there = world.repository("down.example/mirror/app")
    there.strict = True

    result = run(world, PLATFORM)

    assert there.resolve("1.0") != index
    assert "new, smaller index" in result.results[0].notes[0]
    assert run(world, PLATFORM).idle


@pytest.mark.parametrize("strict", [False, True])
def test_platforms_that_are_added_later_top_up_to_the_original_digest(*, strict: bool) -> None:
    world = World()
    index = push_multi(world.repository("up.example/app"), "a", "amd64", "arm64", tag="1.0")
    there = world.repository("down.example/mirror/app")
    there.strict = strict
    run(world, PLATFORM)
    world.forget()

    result = run(world, REPOSITORY)

    assert there.resolve("1.0") == index
    assert [r.outcome for r in result.results] == ["copied"]
    assert world.requests("up.example")["blob"] == 2, "arm64's config and layer"
    assert run(world, REPOSITORY).idle


def test_a_destination_that_must_keep_the_digest_fails_where_it_can_not() -> None:
    world = World()
    push_multi(world.repository("up.example/app"), "a", "amd64", "arm64", tag="1.0")
    there = world.repository("down.example/mirror/app")
    there.strict = True

    result = run(world, PLATFORM + "    sparse: always\n")

    assert result.failed == 1
    assert list(there.tags()) == []


def test_a_destination_that_shall_have_no_gaps_gets_a_smaller_index_and_is_not_said_to_have_wanted_it() -> (
    None
):
    world = World()
    index = push_multi(world.repository("up.example/app"), "a", "amd64", "arm64", tag="1.0")

    result = run(world, PLATFORM + "    sparse: never\n")

    assert world.repository("down.example/mirror/app").resolve("1.0") != index
    assert "new, smaller index" in result.results[0].notes[0]
    assert "takes no index" not in result.results[0].notes[0]


def test_an_image_that_is_taken_whole_keeps_its_digest_where_gaps_are_forbidden() -> None:
    world = World()
    index = push_multi(world.repository("up.example/app"), "a", "amd64", tag="1.0")

    result = run(world, PLATFORM + "    sparse: never\n")

    assert world.repository("down.example/mirror/app").resolve("1.0") == index
    assert result.results[0].notes == ()


def test_a_registry_that_takes_no_gaps_is_asked_about_that_once() -> None:
    world = World()
    source = world.repository("up.example/app")
    for tag in ("1.0", "1.1", "1.2"):
        push_multi(source, tag, "amd64", "arm64", tag=tag)
    there = world.repository("down.example/mirror/app")
    there.strict = True

    run(world, PLATFORM + "limits: {jobs: 1}\n")

    assert len(list(there.tags())) == 3
    assert there.requests["push manifest"] == 8, "an image and an index of each, and once both in vain"


def test_an_index_that_fails_for_another_reason_is_not_made_smaller() -> None:
    world = World()
    push_multi(world.repository("up.example/app"), "a", "amd64", "arm64", tag="1.0")
    there = world.repository("down.example/mirror/app")
    there.full = True

    result = run(world, PLATFORM)

    assert result.failed == 1
    assert not result.idle
    assert there.requests["push manifest"] == 2, "the image, and the index once"


def test_a_platform_that_an_image_lacks_is_said_and_the_others_are_taken() -> None:
    world = World()
    push_multi(world.repository("up.example/app"), "a", "amd64", "arm64", tag="1.0")

    result = run(world, REPOSITORY + "    platforms: [linux/amd64, linux/s390x]\n")

    assert [r.outcome for r in result.results] == ["copied"]
    assert "no linux/s390x" in result.results[0].notes[0]


def test_an_image_without_any_of_the_platforms_fails() -> None:
    world = World()
    push_image(world.repository("up.example/app"), "a", architecture="arm64", tag="1.0")

    result = run(world, PLATFORM)

    assert result.failed == 1
    assert "none of the platforms linux/amd64" in result.failures[0].error.message


def test_a_plan_that_may_pull_nothing_says_that_it_knows_no_bytes() -> None:
    world = World()
    source = world.repository("up.example/app")
    push_multi(source, "a", "amd64", tag="1.0")
    world.forget()

    plan = world.job(REPOSITORY, may_pull=False).plan()

    assert not plan.images[0].work.known
    assert set(world.requests("up.example")) <= {"resolve", "list", "exists"}


def test_two_sources_for_one_target_are_a_failure_and_the_first_is_taken() -> None:
    world = World()
    first = push_image(world.repository("up.example/a/app"), "a", tag="1")
    push_image(world.repository("up.example/b/app"), "b", tag="1")
    text = """
version: 1
sources:
  - {image: 'up.example/a/app:1', to: 'down.example/{name}'}
  - {image: 'up.example/b/app:1', to: 'down.example/{name}'}
"""

    result = run(world, text)

    assert world.repository("down.example/app").resolve("1") == first
    assert "would be both" in result.failures[0].error.message


def test_an_index_that_is_nested_without_end_fails_alone() -> None:
    world = World()
    source = world.repository("up.example/app")
    nested = push_image(source, "inside")
    for _ in range(12):
        nested = push_index(source, {"amd64": nested})
    source.tag(nested, "1.0")
    good = push_image(source, "good", tag="1.1")

    result = run(world)

    assert isinstance(result.failures[0].error, UnsafeContent)
    assert world.repository("down.example/mirror/app").resolve("1.1") == good


def test_an_index_that_names_more_than_any_does_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    few = SimpleNamespace(INDEX_NESTING=limits.INDEX_NESTING, INDEX_ENTRIES=1)
    monkeypatch.setattr("ocitool.mirror.surveying.limits", few)
    world = World()
    source = world.repository("up.example/app")
    inside = push_multi(source, "many", "amd64", "arm64", "s390x")
    push_index(source, {"amd64": inside}, tag="1.0")
    push_multi(source, "few", "amd64", "arm64", tag="1.1")

    result = run(world)

    assert isinstance(result.failures[0].error, UnsafeContent)
    assert [r.outcome for r in result.results] == ["copied"]


def test_what_is_no_image_fails_alone() -> None:
    world = World()
    source = world.repository("up.example/app")
    blob = push_image(source, "a", tag="1.1")
    source.tag(replace(blob, media_type="text/plain"), "1.0")

    result = run(world)

    assert "which is no image" in result.failures[0].error.message
    assert [r.outcome for r in result.results] == ["copied"]


def test_what_matches_skip_stays_behind() -> None:
    world = World()
    push_image(world.repository("up.example/app"), "a", tag="1.0-debug")
    push_image(world.repository("up.example/app"), "b", tag="1.0")

    run(world, REPOSITORY + "skip: ['*:*-debug']\n")

    assert list(world.repository("down.example/mirror/app").tags()) == ["1.0"]


@pytest.mark.parametrize(
    "sources",
    [
        "\n  - {registry: up.example, to: 'down.example/{name}'}",
        (
            "\n  - {repository: up.example/a, to: 'down.example/{name}'}"
            "\n  - {repository: up.example/b, to: 'down.example/{name}'}"
        ),
    ],
)
def test_several_repositories_are_asked_for_their_tags_at_once(sources: str) -> None:
    world = World()
    meeting = threading.Barrier(2)
    for name in ("a", "b"):
        repository = world.repository(f"up.example/{name}")
        push_image(repository, name, tag="1.0")
        # Each answers only when the other one has been asked as well.
        repository.meet = lambda: meeting.wait(60)

    result = run(world, f"version: 1\nsources:{sources}")

    assert [str(r.image.target) for r in result.results] == ["down.example/a:1.0", "down.example/b:1.0"]
    assert world.requests("up.example")["list"] == 2 + 2  # tags, and referrers of each image
