"""Cached layers, stacked by the kernel, are the tree that unpacking makes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
from support.unpack_images import Image, gzipped, image, memory_directory
from support.unpack_tars import archive, directory, file, hardlink, pax, symlink
from support.unpack_trees import Node, differences, tree

from ocitool.errors import IntegrityError, InvalidContent, NotFound
from ocitool.unpack.overlay import chain_id
from ocitool.unpack.stacks import Stack
from ocitool.unpack.union import Union

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

BASE = archive(
    directory(b"./", mode=0o711, mtime=7),
    directory(b"d/", mode=0o750),
    file(b"d/a", b"a"),
    file(b"d/b", b"b"),
    directory(b"d/sub/"),
    file(b"d/sub/x"),
    file(b"f", b"f"),
    symlink(b"l", b"d"),
)
UPPERS = {
    "whiteouts": archive(directory(b"d/"), file(b"d/.wh.a"), file(b".wh.f"), file(b"d/new")),
    "opaque": archive(
        directory(b"d/"), file(b"d/.wh..wh..opq"), file(b"d/c"), directory(b"d/sub/", mode=0o700)
    ),
    "opaque last": archive(directory(b"d/"), directory(b"d/sub/"), file(b"d/sub/y"), file(b"d/.wh..wh..opq")),
    "anew": archive(file(b".wh.d"), directory(b"d/", mode=0o700), file(b"d/z")),
    "replaced": archive(file(b"d", b"now a file"), directory(b"f/"), file(b"f/x"), directory(b"l/")),
    "root": archive(directory(b"./", mode=0o755, mtime=9), file(b"g")),
    "attributes": archive(pax({b"SCHILY.xattr.user.k": b"v"}) + directory(b"d/", mode=0o700, uid=5, mtime=3)),
    "links inside": archive(file(b"g", b"g"), hardlink(b"h", b"g")),
    # These can't stand alone.
    "implied directory": archive(file(b"d/sub/y")),
    "through a link": archive(file(b"l/y")),
    "link to a lower file": archive(hardlink(b"h", b"f")),
    "whiteout in a directory of its own": archive(file(b"d/.wh.a")),
}


@pytest.fixture
def where() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting an overlay needs root")
    with memory_directory() as directory:
        yield directory


@contextmanager
def mounted(where: Path, stack: Stack) -> Iterator[Path]:
    for name in ("upper", "work", "merged"):
        shutil.rmtree(where / name, ignore_errors=True)
        (where / name).mkdir()
    root = os.stat(stack.root)  # noqa: PTH116 - a str
    os.chown(where / "upper", root.st_uid, root.st_gid)
    (where / "upper").chmod(root.st_mode & 0o7777)
    os.utime(where / "upper", ns=(root.st_mtime_ns, root.st_mtime_ns))
    options = f"lowerdir={':'.join(map(str, stack.lowers))},upperdir={where}/upper,workdir={where}/work"
    options += ",userxattr" * stack.userxattr
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(where / "merged")], check=True)
    try:
        yield where / "merged"
    finally:
        subprocess.run(["umount", str(where / "merged")], check=True)


def shape(nodes: dict[str, Node]) -> dict[str, Node]:
    """What an overlay shows: its link counts and marks are its own."""
    return {
        name: node._replace(
            links=0, first_name="", xattrs=tuple(x for x in node.xattrs if "overlay" not in x[0])
        )
        for name, node in nodes.items()
    }


def compare(where: Path, found: Image, *, lowers: int | None = None, keep_owner: bool = True) -> None:
    stack = found.cached(where / "cache", keep_owner=keep_owner)
    assert lowers is None or len(stack.lowers) == lowers
    found.unpack(where / "bundle", keep_owner=keep_owner)
    with mounted(where, stack) as merged:
        assert differences(shape(tree(merged)), shape(tree(where / "bundle" / "rootfs"))) == []


@pytest.mark.parametrize("name", sorted(UPPERS))
@pytest.mark.parametrize("keep_owner", ["root", "one user"])
def test_a_stack_of_cached_layers_is_the_unpacked_tree(where: Path, name: str, keep_owner: str) -> None:
    dependent = list(UPPERS).index(name) >= list(UPPERS).index("implied directory")
    top = archive(directory(b"top/"), file(b"top/x"))
    found = image(BASE, UPPERS[name], top)
    compare(where, found, lowers=2 if dependent else 3, keep_owner=keep_owner == "root")


def test_images_that_share_layers_share_their_trees(where: Path) -> None:
    one, other = (
        image(BASE, UPPERS["opaque"]),
        image(BASE, UPPERS["opaque"], UPPERS["root"], compress=gzipped),
    )
    stacks = [found.cached(where / "cache") for found in (one, other)]
    assert stacks[0].lowers == stacks[1].lowers[1:]


def test_a_layer_that_is_lowest_here_hides_files_there(where: Path) -> None:
    layer = UPPERS["whiteouts"]
    compare(where, image(layer), lowers=1)
    shutil.rmtree(where / "bundle")
    compare(where, image(BASE, layer), lowers=2)


def test_the_same_layer_several_times_counts_once(where: Path) -> None:
    empty, layer = archive(), UPPERS["opaque"]
    compare(where, image(BASE, empty, layer, empty, UPPERS["whiteouts"], layer, empty), lowers=4)


def test_an_image_without_layers_has_an_empty_root(where: Path) -> None:
    compare(where, image(), lowers=1)


def test_several_at_once_make_each_layer_once(where: Path) -> None:
    found = image(BASE, *(archive(directory(b"n/"), file(b"n/%d" % n, bytes(9000))) for n in range(4)))
    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(found.cached, where / "cache") for _ in range(8)]
    stacks = [task.result() for task in tasks]
    assert len({(stack.lowers, stack.root, stack.userxattr) for stack in stacks}) == 1
    assert not list((where / "cache" / "owned").glob(".*"))


def test_a_layer_that_is_not_what_was_promised_is_not_kept(where: Path) -> None:
    found = image(BASE, diff_ids=["sha256:" + "0" * 64])
    with pytest.raises(IntegrityError):
        found.cached(where / "cache")
    assert [path.suffix for path in (where / "cache" / "owned").iterdir()] == [".lock"]


def test_a_chain_is_named_as_the_specification_says() -> None:
    found = [image(BASE).manifest.digest, image(UPPERS["root"]).manifest.digest]
    assert chain_id(found[:1]) == found[0]
    assert chain_id(found) == type(found[0]).of(f"{found[0]} {found[1]}".encode())


USERS = archive(
    directory(b"etc/"),
    directory(b"lib/"),
    file(b"etc/passwd", b"old:x:1:1::/old:\n"),
    file(b"lib/passwd", b"app:x:12:34::/home/app:/bin/sh\n"),
    file(b"etc/group", b"app:x:34:\n"),
    directory(b"data/"),
    file(b"data/x"),
    directory(b"kept/", mode=0o700),
    file(b"kept/x"),
)
MOVED = archive(
    directory(b"etc/"),
    symlink(b"etc/passwd", b"/../lib/./passwd"),
    directory(b"data/", mode=0o1777, uid=12, gid=34),
    file(b"data/.wh.x"),
)


def test_a_bundle_on_cached_layers_is_configured_like_one_with_its_own_files(where: Path) -> None:
    config = {"User": "app", "Volumes": {"/data": {}, "/kept": {}}}
    found = image(USERS, MOVED, config=config)
    whole = found.unpack(where / "whole")
    report = found.unpack(where / "stacked", layer_cache=where / "cache")
    again = found.unpack(where / "again", layer_cache=where / "cache")
    made = [json.loads((where / name / "config.json").read_bytes()) for name in ("whole", "stacked", "again")]
    assert made[0]["process"]["user"] == {"uid": 12, "gid": 34}
    assert made[1] == made[2] == made[0]
    assert report.volumes == whole.volumes == ("/kept",)
    assert (report.entries, again.entries) == (whole.entries, 0)
    assert list((where / "stacked" / "rootfs").iterdir()) == []
    stack = Stack.load(where / "stacked")
    assert stack
    with mounted(where, stack) as merged:
        assert differences(shape(tree(merged)), shape(tree(where / "whole" / "rootfs"))) == []


def test_layers_that_are_gone_are_named(where: Path) -> None:
    image(BASE).unpack(where / "bundle", layer_cache=where / "cache")
    shutil.rmtree(where / "cache")
    stack = Stack.load(where / "bundle")
    assert stack
    with pytest.raises(NotFound, match="chain-sha256"):
        stack.check()


@pytest.mark.parametrize("text", ["[]", "{}", '{"lowers": [], "root": "/"}', '{"lowers": ["/"]}', "{"])
def test_a_document_that_names_no_layers_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "layers.json").write_text(text)
    with pytest.raises(InvalidContent, match=r"layers\.json"):
        Stack.load(tmp_path)


def test_links_that_lead_nowhere_end(where: Path) -> None:
    loop = archive(directory(b"etc/"), symlink(b"etc/passwd", b"group"), symlink(b"etc/group", b"passwd"))
    with closing(Union(image(loop).cached(where / "cache").lowers, userxattr=False)) as union:
        assert union.read(b"etc/passwd", limit=100) is None
        assert union.read(b"etc/passwd/x", limit=100) is None
        assert union.read(b"../../etc/absent", limit=100) is None


def test_where_marks_can_not_be_kept_layers_are_merged(where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("ocitool.unpack.overlay.os.setxattr", refuse)
    compare(where, image(BASE, UPPERS["opaque"]), lowers=1)
