"""Commands on the local store, or on any image layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ocitool.cli.options import DIRECTORY, format_option

if TYPE_CHECKING:
    from pathlib import Path

    from ocitool.layout import LayoutStore
    from ocitool.layout.check import Repair

_layout_option = click.option(
    "--store",
    "path",
    type=DIRECTORY,
    help="An image layout. [the local store]",
)


@click.group()
def store() -> None:
    """Look after the local store, or any image layout."""


def _opened(path: Path | None) -> LayoutStore:
    """A layout that is there, or the local store, which may not have been used yet."""
    from ocitool.layout import LayoutStore
    from ocitool.layout.store import initialise
    from ocitool.locations import local_store

    if path is None and not local_store().exists():
        initialise(local_store())
    return LayoutStore(path or local_store(), create=False)


@store.command("ls")
@_layout_option
@format_option
def list_images(path: Path | None, *, output: str) -> None:
    """List the images, their platforms, and the room they take, alone and with others."""
    from ocitool import console
    from ocitool.layout.usage import usage

    used = usage(_opened(path))
    if output == "json":
        images = [
            {
                "digest": str(image.root.digest),
                "names": image.names,
                "platforms": [str(platform) for platform in image.platforms],
                "size": image.size,
                "unique": image.unique,
                "missing": image.missing,
            }
            for image in used.images
        ]
        console.result_json({"images": images, "size": used.size, "unreferenced": used.unreferenced})
        return
    rows = [
        (
            name,
            f"{image.root.digest.algorithm}:{image.root.digest.short}",
            ", ".join(str(platform) for platform in image.platforms) or "-",
            console.size(image.size),
            console.size(image.unique),
        )
        for image in used.images
        for name in image.names or ("-",)
    ]
    console.table([("NAME", "DIGEST", "PLATFORMS", "SIZE", "UNIQUE"), *rows])
    console.say(
        f"{console.size(used.size)} in all, {console.size(used.unreferenced)} of it needed by nothing"
    )


@store.command()
@_layout_option
@click.option("--repair", "mend", is_flag=True, help="Make good what can be; nothing is deleted.")
@format_option
def check(path: Path | None, *, mend: bool, output: str) -> int:
    """Read everything and list what is wrong; exits 13 if anything is."""
    from ocitool import console
    from ocitool.errors import IntegrityError
    from ocitool.layout.check import Repair, repair
    from ocitool.layout.check import check as find

    opened = _opened(path)
    repairs = repair(opened) if mend else [Repair(problem, "") for problem in find(opened)]
    if output == "json":
        console.result_json([_described(done) for done in repairs])
    else:
        for done in repairs:
            told = f" ({done.done})" if done.done else ""
            console.result(f"{done.problem.where}: {done.problem.message}{told}")
    if not repairs:
        console.say("no problems")
    return IntegrityError.exit_code if any(not done.done for done in repairs) else 0


def _described(repair: Repair) -> dict[str, str]:
    problem = repair.problem
    return {
        "kind": problem.kind.value,
        "where": problem.where,
        "message": problem.message,
        "done": repair.done,
    }


@store.command()
@_layout_option
@click.option("--delete", "really", is_flag=True, help="Delete it; without, only say what would go.")
@format_option
def gc(path: Path | None, *, really: bool, output: str) -> None:
    """Delete content that no name reaches, and what interrupted processes left."""
    from ocitool import console, containers, prepared, remembered
    from ocitool.layout.gc import collect, plan
    from ocitool.locations import local_store
    from ocitool.unpack.room import occupied

    trees: list[int] = []

    def leaving(tree: Path) -> None:
        trees.append(occupied(tree))

    opened = _opened(path)
    garbage = (collect if really else plan)(opened)
    gone = {blob.digest for blob in garbage.blobs}
    # Images that `run` has unpacked go with the images themselves.
    place = prepared.place(path or local_store())
    unpacked = prepared.remove_unused(
        place,
        lambda digest: digest not in gone and opened.blobs.size(digest) is not None,
        really=really,
        leaving=leaving,
    )
    if really:
        remembered.forget(place, lambda digest: prepared.is_there(digest, place))
    dead = containers.collect(containers.place(path or local_store()), really=really, leaving=leaving)
    size = garbage.size + sum(trees)
    if output == "json":
        console.result_json(
            {
                "deleted": really,
                "blobs": [str(blob.digest) for blob in garbage.blobs],
                "leftovers": [name for name, _ in garbage.leftovers],
                "unpacked": [str(digest) for digest in unpacked],
                "containers": dead,
                "size": size,
                "held": garbage.held,
            }
        )
        return
    for blob in garbage.blobs:
        console.result(f"{blob.digest}  {console.size(blob.size)}")
    for name, count in garbage.leftovers:
        console.result(f"{name}  {console.size(count)}")
    for digest in unpacked:
        console.result(f"{digest}  unpacked")
    for name in dead:
        console.result(f"{name}  container")
    told = "deleted" if really else "would be deleted; add --delete to do it"
    console.say(f"{console.size(size)} {told}")
    if garbage.held:
        console.say(f"{console.size(garbage.held)} more stay while processes that are at work rely on them")


COMMANDS = (store,)
