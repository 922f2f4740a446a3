"""Random worlds: a mirror brings exactly what is wanted, and pruning never takes what is reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from support.mirror_stores import Repository, World, push_image, push_index, push_signature

from ocitool.content import read_manifest
from ocitool.mirror import Shard
from ocitool.mirror.pruning import prune
from ocitool.model import Descriptor, Index, Manifest

if TYPE_CHECKING:
    from ocitool.content import Source

ARCHITECTURES = ("amd64", "arm64", "s390x")
LAYERS = st.lists(st.sampled_from("abcde"), min_size=1, max_size=3)
# An image, or an index of some; perhaps signed in one way or the other, at its root or at a child.
PICTURES = st.tuples(
    LAYERS | st.dictionaries(st.sampled_from(ARCHITECTURES), LAYERS, min_size=1, max_size=3),
    st.sampled_from(["", "referrer", "tag", "child"]),
)
TAGS = st.dictionaries(
    st.sampled_from([f"{major}.{minor}" for major in (1, 2) for minor in range(4)]), PICTURES
)
WORLDS = st.dictionaries(st.sampled_from(["app", "tool"]), TAGS, min_size=1)


def push(store: Repository, picture: tuple[list[str] | dict[str, list[str]], str], tag: str) -> Descriptor:
    layers, signature = picture
    if isinstance(layers, list):
        root = child = push_image(store, *layers, tag=tag)
    else:
        images = {a: push_image(store, *texts, architecture=a) for a, texts in layers.items()}
        root, child = push_index(store, images, tag=tag), next(iter(images.values()))
    if signature == "tag":
        push_signature(store, root, f"cosign {root.digest}", tag=f"sha256-{root.digest.hex}.sig")
    elif signature:
        push_signature(store, child if signature == "child" else root)
    return root


def populate(world: World, host: str, content: dict[str, dict[str, tuple[list[str], str]]]) -> None:
    for name, tags in content.items():
        for tag, picture in tags.items():
            push(world.repository(f"{host}/{name}"), picture, tag)


def reached(source: Source, root: Descriptor) -> set[Descriptor]:
    """Everything under a root, what refers to it, and its signatures by tag; apart from the mirror's own."""
    assert isinstance(source, Repository)
    found: set[Descriptor] = set()
    waiting = [root]
    while waiting:
        desc = waiting.pop()
        if desc in found:
            continue
        found.add(desc)
        if not desc.is_manifest:
            continue
        manifest = read_manifest(source, desc)
        waiting += manifest.manifests if isinstance(manifest, Index) else ()
        waiting += manifest.children if isinstance(manifest, Manifest) else ()
        waiting += source.referrers(desc)
        tag = f"sha256-{desc.digest.hex}.sig"
        if tag in source.tags():
            waiting.append(source.resolve(tag))
    return found


TEXT = """
version: 1
sources:
  - registry: up.example
    to: down.example/{name}
    tags: {semver: '>=2'}
"""


@settings(max_examples=60)
@given(WORLDS, WORLDS)
def test_a_mirror_brings_all_that_is_wanted_and_its_plan_is_exact(
    above: dict[str, dict[str, tuple[list[str], str]]], below: dict[str, dict[str, tuple[list[str], str]]]
) -> None:
    world = World()
    populate(world, "up.example", above)
    populate(world, "down.example", below)
    job = world.job(TEXT)
    world.forget()

    plan = job.plan()
    assert "blob" not in world.requests("up.example"), "a plan moves nothing"
    run = job.apply(plan)

    assert run.failed == 0
    asked = world.requests("up.example")
    assert asked["blob"] == sum(len(image.work.blobs) for image in plan.images)
    # Fewer where another repository of the destination has a manifest that was read there.
    assert asked["pull"] <= len({digest for image in plan.images for digest in image.work.pulls})
    assert sum(result.moved for result in run.results) == sum(image.work.size for image in plan.images)
    for name, tags in above.items():
        source, there = world.repository(f"up.example/{name}"), world.repository(f"down.example/{name}")
        for tag in tags:
            if tag.startswith("2."):
                root = source.resolve(tag)
                assert there.resolve(tag) == root
                assert all(there.exists(desc) for desc in reached(source, root))
    world.forget()
    again = world.job(TEXT)
    assert again.apply(again.plan()).idle
    assert not {"pull", "blob"} & set(world.requests("up.example"))


@settings(max_examples=60)
@given(WORLDS, WORLDS)
def test_pruning_leaves_the_wanted_names_and_everything_that_they_reach(
    above: dict[str, dict[str, tuple[list[str], str]]], below: dict[str, dict[str, tuple[list[str], str]]]
) -> None:
    world = World()
    populate(world, "up.example", above)
    populate(world, "down.example", below)
    job = world.job(TEXT)
    assert job.apply(job.plan()).failed == 0
    wanted: dict[str, set[str]] = {}
    for item in job.wanted.items:
        wanted.setdefault(item.target.place, set()).add(item.target.name)
    kept = {
        place: set().union(
            *(reached(world.repository(place), world.repository(place).resolve(n)) for n in names)
        )
        for place, names in wanted.items()
    }
    untouched = {
        name: sorted(store.tags())
        for name, store in world.repositories.items()
        if name.startswith("down.example/") and name not in wanted
    }

    _, failures = prune(job.plan_prune(), world.stores)

    assert failures == []
    for place, names in wanted.items():
        store = world.repository(place)
        assert {tag for tag in store.tags() if not tag.startswith("sha256-")} == names
        assert all(store.exists(desc) for desc in kept[place])
        subjects = {f"sha256-{desc.digest.hex}.sig" for desc in kept[place]}
        assert all(tag in subjects for tag in store.tags() if tag.startswith("sha256-"))
    assert all(sorted(world.repository(name).tags()) == tags for name, tags in untouched.items())


@given(WORLDS, st.integers(1, 6))
def test_shards_share_out_all_images(above: dict[str, dict[str, tuple[list[str], str]]], total: int) -> None:
    world = World()
    populate(world, "up.example", above)
    whole = world.job(TEXT).plan().images
    parts = [world.job(TEXT, shard=Shard(n, total)).plan().images for n in range(1, total + 1)]
    assert sorted(image.target for part in parts for image in part) == [image.target for image in whole]
