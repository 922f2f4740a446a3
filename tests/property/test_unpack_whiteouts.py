"""Layers of random trees, applied by the unpacker and by a model of twenty lines: the same tree."""

from __future__ import annotations

import os
import subprocess
from contextlib import closing
from itertools import product
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.unpack_images import image, memory_directory, unpacked
from support.unpack_tars import archive, directory, file
from support.unpack_trees import tree

from ocitool.unpack.union import Union
from ocitool.unpack.volumes import Folder

if TYPE_CHECKING:
    from pathlib import Path

    from ocitool.unpack.volumes import Tree

PARTS = st.sampled_from([b"a", b"b", b"c"])
PATHS = st.lists(PARTS, min_size=1, max_size=3).map(b"/".join)


@st.composite
def layer(draw: st.DrawFn) -> list[tuple[str, bytes]]:
    """Acts of one layer, no path twice, no file with something below it, in any order."""
    acts: dict[bytes, str] = {}
    for path in draw(st.lists(PATHS, max_size=6, unique=True)):
        above = [other for other in acts if path.startswith(other + b"/") and acts[other] == "file"]
        below = any(other.startswith(path + b"/") for other in acts)
        if not above:
            acts[path] = draw(st.sampled_from(["directory"] if below else ["file", "directory"]))
    hidden = [("whiteout", path) for path in draw(st.lists(PATHS, max_size=3, unique=True))]
    hidden += [("opaque", path) for path in draw(st.lists(PATHS, max_size=2, unique=True))]
    return list(draw(st.permutations([(act, path) for path, act in acts.items()] + hidden)))


def tar_of(acts: list[tuple[str, bytes]], number: int) -> bytes:
    entries = []
    for act, path in acts:
        above, _, name = path.rpartition(b"/")
        prefix = above + b"/" if above else b""
        entries.append(
            {
                "file": file(path, b"%d" % number),
                "directory": directory(path + b"/", mode=0o700 + number),
                "whiteout": file(prefix + b".wh." + name),
                "opaque": file(path + b"/.wh..wh..opq"),
            }[act]
        )
    return archive(*entries)


def model(layers: list[list[tuple[str, bytes]]]) -> dict[bytes, str]:
    """What there is in the end: first all that a layer hides of the lower ones, then what it brings."""
    there: dict[bytes, str] = {}
    for number, acts in enumerate(layers):
        for act, path in acts:
            if act in {"whiteout", "opaque"}:
                there = without(there, path, itself=act == "whiteout")
        for act, path in acts:
            if act in {"file", "directory"}:
                imply(there, path)
            if act == "file":
                there = {**without(there, path, itself=True), path: f"file {number}"}
        there.update({path: f"directory {0o700 + number:o}" for act, path in acts if act == "directory"})
    return there


def without(there: dict[bytes, str], path: bytes, *, itself: bool) -> dict[bytes, str]:
    return {
        key: value
        for key, value in there.items()
        if not key.startswith(path + b"/") and not (itself and key == path)
    }


def imply(there: dict[bytes, str], path: bytes) -> None:
    parts = path.split(b"/")
    for end in range(1, len(parts)):
        above = b"/".join(parts[:end])
        if there.get(above, "file").startswith("file"):
            there[above] = "directory 755"


EVERY_PATH = [b"/".join(parts) for depth in (1, 2, 3) for parts in product([b"a", b"b", b"c"], repeat=depth)]


class Rootfs:
    """What a directory shows."""

    def __init__(self, where: Path) -> None:
        self._where = where

    def read(self, path: bytes, *, limit: int) -> bytes | None:
        there = self._where / os.fsdecode(path)
        return there.read_bytes()[:limit] if there.is_file() else None

    def folder(self, path: bytes) -> Folder | None:
        there = self._where / os.fsdecode(path)
        if not there.is_dir():
            return None
        return Folder(there.stat().st_mode & 0o7777, 0, 0, empty=not any(there.iterdir()))


def looked_at(tree: Tree, path: bytes) -> tuple[bytes | None, Folder | None]:
    return tree.read(path, limit=100), tree.folder(path)


def seen(rootfs: Path) -> dict[bytes, str]:
    found = {}
    for name, node in tree(rootfs).items():
        if name != ".":
            is_file = node.kind == "-"
            found[name.encode()] = (
                f"file {(rootfs / name).read_text()}" if is_file else f"directory {node.mode:o}"
            )
    return found


@given(st.lists(layer(), min_size=1, max_size=4))
@settings(max_examples=300)
def test_lu_08_layers_make_what_the_specification_says_whatever_their_order(
    layers: list[list[tuple[str, bytes]]],
) -> None:
    with memory_directory() as where:
        rootfs = unpacked(where / "bundle", *(tar_of(acts, number) for number, acts in enumerate(layers)))
        assert seen(rootfs) == model(layers)


@pytest.mark.root
@given(st.lists(layer(), min_size=2, max_size=4))
@settings(max_examples=60)
def test_cached_layers_make_the_same_tree_when_the_kernel_stacks_them_and_when_we_look_through_them(
    layers: list[list[tuple[str, bytes]]],
) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting an overlay needs root")
    with memory_directory() as where:
        found = image(*(tar_of(acts, number) for number, acts in enumerate(layers)))
        stack = found.cached(where / "cache")
        for name in ("upper", "work", "merged"):
            (where / name).mkdir()
        lowers = ":".join(map(str, stack.lowers))
        options = f"lowerdir={lowers},upperdir={where}/upper,workdir={where}/work"
        subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", options, str(where / "merged")], check=True
        )
        try:
            assert seen(where / "merged") == model(layers)
            with closing(Union(stack.lowers, userxattr=False)) as union:
                for path in EVERY_PATH:
                    assert looked_at(union, path) == looked_at(Rootfs(where / "merged"), path)
        finally:
            subprocess.run(["umount", str(where / "merged")], check=True)
