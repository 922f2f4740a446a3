"""Pruning: what goes, and what must stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.mirror_stores import World, push_blob, push_image, push_index, push_signature

from ocitool.errors import Conflict, Unsupported
from ocitool.layout import ArchiveWriter, LayoutStore
from ocitool.memory import MemoryStore
from ocitool.mirror import Job, Settings, Stores, parse
from ocitool.mirror.pruning import Doomed, prune
from ocitool.model import Descriptor

TEXT = "{version: 1, sources: [{repository: up.example/app, to: down.example/app, tags: {semver: '>=2'}}]}"


def pruned(world: World, text: str = TEXT, most: str = "100%") -> list[Doomed]:
    plan = world.job(text).plan_prune()
    plan.check(most)
    gone, failures = prune(plan, world.stores)
    assert failures == []
    return gone


def test_names_that_no_rule_wants_go_with_their_content_and_the_others_stay() -> None:
    world = World()
    wanted = push_image(world.repository("up.example/app"), "new", tag="2.0")
    there = world.repository("down.example/app")
    old = push_image(there, "old", tag="1.0")
    push_image(there, "new", tag="2.0")

    gone = pruned(world)

    assert [doomed.name for doomed in gone] == ["1.0"]
    assert list(there.tags()) == ["2.0"]
    assert there.exists(wanted)
    assert not there.exists(old)


def test_a_digest_that_a_kept_name_has_too_only_loses_the_name() -> None:
    world = World()
    push_image(world.repository("up.example/app"), "same", tag="2.0")
    there = world.repository("down.example/app")
    image = push_image(there, "same", tag="2.0")
    there.tag(image, "1.0")

    pruned(world)

    assert list(there.tags()) == ["2.0"]
    assert there.exists(image)


def test_a_digest_inside_a_kept_index_stays() -> None:
    world = World()
    source, there = world.repository("up.example/app"), world.repository("down.example/app")
    push_index(source, {"amd64": push_image(source, "child")}, tag="2.0")
    child = push_image(there, "child", tag="1.0")
    push_index(there, {"amd64": child}, tag="2.0")

    pruned(world)

    assert list(there.tags()) == ["2.0"]
    assert there.exists(child)


def test_signatures_of_what_is_kept_stay_and_those_of_what_goes_go() -> None:
    world = World()
    push_image(world.repository("up.example/app"), "new", tag="2.0")
    there = world.repository("down.example/app")
    new, old = push_image(there, "new", tag="2.0"), push_image(there, "old", tag="1.0")
    referrer = push_signature(there, new, "referrer")
    kept = [_cosign(there, desc) for desc in (new, referrer)]
    lost = _cosign(there, old)

    pruned(world)

    assert sorted(there.tags()) == sorted(["2.0", *kept])
    assert lost not in there.tags()
    assert list(there.referrers(new)) == [referrer]


def _cosign(store: MemoryStore, subject: Descriptor) -> str:
    tag = f"sha256-{subject.digest.hex}.sig"
    push_signature(store, subject, f"of {subject.digest}", tag=tag)
    return tag


def test_a_signature_of_a_kept_signature_stays() -> None:
    world = World()
    push_image(world.repository("up.example/app"), "new", tag="2.0")
    there = world.repository("down.example/app")
    first = _cosign(there, push_image(there, "new", tag="2.0"))
    second = _cosign(there, there.resolve(first))

    pruned(world)

    assert sorted(there.tags()) == sorted(["2.0", first, second])


def test_a_referrer_of_a_kept_image_that_has_an_old_name_keeps_its_content() -> None:
    world = World()
    push_image(world.repository("up.example/app"), "new", tag="2.0")
    there = world.repository("down.example/app")
    signature = push_signature(there, push_image(there, "new", tag="2.0"))
    there.tag(signature, "1.0-signature")

    pruned(world)

    assert there.exists(signature)
    assert list(there.tags()) == ["2.0"]


def test_a_signature_that_is_named_as_its_own_ends() -> None:
    world = World()
    push_image(world.repository("up.example/app"), "new", tag="2.0")
    there = world.repository("down.example/app")
    image = push_image(there, "new", tag="2.0")
    tag = f"sha256-{image.digest.hex}.sig"
    there.tag(image, tag)

    pruned(world)

    assert sorted(there.tags()) == sorted(["2.0", tag])


def test_what_an_index_reaches_is_known_without_a_part_that_was_left_out() -> None:
    world = World()
    source, there = world.repository("up.example/app"), world.repository("down.example/app")
    push_index(source, {"amd64": push_image(source, "child")}, tag="2.0")
    left_out = push_index(MemoryStore(), {})
    child = push_image(there, "child", tag="1.0")
    push_index(there, {"arm64": left_out, "amd64": child}, tag="2.0")

    pruned(world)

    assert list(there.tags()) == ["2.0"]
    assert there.exists(child)


def test_nobody_is_asked_what_refers_to_a_blob_that_an_index_names() -> None:
    world = World()
    there = world.repository("down.example/app")
    index = push_index(there, {"amd64": push_blob(there, "layer of a build cache")}, tag="2.0")
    push_index(world.repository("up.example/app"), {}, tag="2.0")
    there.requests.clear()

    assert pruned(world) == []

    assert there.requests["list"] == 2, "its tags, and what refers to the index"
    assert there.resolve("2.0") == index


@pytest.mark.parametrize(
    ("most", "refused"), [("3", False), ("2", True), ("75%", False), ("74%", True), ("0", True)]
)
def test_pruning_stops_before_it_starts_where_it_would_delete_too_much(most: str, *, refused: bool) -> None:
    world = World()
    push_image(world.repository("up.example/app"), "new", tag="2.0")
    there = world.repository("down.example/app")
    for tag in ("2.0", "1.0", "1.1", "1.2"):
        push_image(there, tag, tag=tag)
    if not refused:
        assert len(pruned(world, most=most)) == 3
        return
    with pytest.raises(Conflict, match="would delete 3 of 4"):
        pruned(world, most=most)
    assert len(list(there.tags())) == 4


def test_nothing_is_pruned_where_a_rule_failed_because_what_it_wants_is_unknown() -> None:
    world = World()
    push_image(world.repository("down.example/app"), "old", tag="1.0")
    text = """
version: 1
sources:
  - {repository: up.example/app, to: down.example/app}
  - {registry: none.example, to: 'down.example/{name}'}
"""
    job = Job(parse(text.encode()), _without_catalog(world), Settings())

    with pytest.raises(Conflict, match="nothing is pruned"):
        job.plan_prune()


def _without_catalog(world: World) -> Stores:
    def refuse(host: str) -> list[str]:
        raise Unsupported(f"{host} tells no names")

    return replace(world.stores, catalog=refuse)


def test_an_image_that_failed_to_copy_keeps_its_name() -> None:
    world = World()
    source, there = world.repository("up.example/app"), world.repository("down.example/app")
    bad = push_image(source, "bad", tag="2.0")
    source.broken.add(str(bad.digest))
    push_image(there, "the one before", tag="2.0")

    assert pruned(world) == []


def test_a_name_that_moved_since_the_plan_stays() -> None:
    world = World()
    push_image(world.repository("up.example/app"), "new", tag="2.0")
    there = world.repository("down.example/app")
    push_image(there, "old", tag="1.0")
    push_image(there, "new", tag="2.0")
    plan = world.job(TEXT).plan_prune()
    push_image(there, "somebody else's", tag="1.0")

    gone, failures = prune(plan, world.stores)

    assert gone == []
    assert "moved" in failures[0].error.message
    assert "1.0" in there.tags()


def test_places_that_no_rule_fills_are_not_looked_at() -> None:
    world = World()
    push_image(world.repository("up.example/app"), "new", tag="2.0")
    push_image(world.repository("down.example/other"), "x", tag="1.0")

    assert pruned(world) == []


def test_a_name_that_somebody_has_deleted_since_the_plan_is_no_failure() -> None:
    world = World()
    push_image(world.repository("up.example/app"), "new", tag="2.0")
    there = world.repository("down.example/app")
    push_image(there, "old", tag="1.0")
    plan = world.job(TEXT).plan_prune()
    there.untag("1.0")

    assert prune(plan, world.stores)[1] == []


def test_a_place_whose_names_can_not_be_listed_is_a_failure_and_the_others_are_pruned(tmp_path: Path) -> None:
    world = World()
    for name in ("app", "other"):
        push_image(world.repository(f"up.example/{name}"), "new", tag="2.0")
    old = push_image(world.repository("down.example/app"), "old", tag="1.0")
    archive = ArchiveWriter(tmp_path / "archive.tar")
    stores = replace(
        world.stores,
        store=lambda place: archive if place == "down.example/other" else world.repository(place),
    )
    text = f"{TEXT[:-2]}, {{repository: up.example/other, to: down.example/other}}]}}"

    plan = Job(parse(text.encode()), stores, Settings()).plan_prune()

    assert [doomed.desc for doomed in plan.doomed] == [old]
    assert [failure.what for failure in plan.failures] == ["prune down.example/other"]
    assert "can't be pruned" in plan.failures[0].error.message


def test_a_place_that_is_not_there_yet_has_nothing_to_prune(tmp_path: Path) -> None:
    world = World()
    push_image(world.repository("up.example/app"), "new", tag="2.0")
    stores = replace(world.stores, store=lambda _: LayoutStore(tmp_path / "layout"))

    plan = Job(parse(TEXT.encode()), stores, Settings()).plan_prune()

    assert (plan.doomed, plan.failures) == ((), ())
