"""What an unpacked tree says of itself, in the words of `ocitool.unpack.tree`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from support.unpack_trees import Node, tree

from ocitool.unpack.entries import Kind

if TYPE_CHECKING:
    from pathlib import Path

    from ocitool.unpack.tree import Tree

_LETTERS = {
    Kind.FILE: "-",
    Kind.DIRECTORY: "d",
    Kind.SYMLINK: "l",
    Kind.FIFO: "p",
    Kind.CHARACTER: "c",
    Kind.BLOCK: "b",
}


class Seen(NamedTuple):
    """What both know."""

    kind: str
    mode: int
    uid: int
    gid: int
    content: str
    target: bytes
    xattrs: tuple[tuple[str, bytes], ...]


def on_disk(rootfs: Path) -> dict[bytes, Seen]:
    """Every path below a real root."""
    return {os.fsencode(name): _of_node(node) for name, node in tree(rootfs).items() if name != "."}


def _of_node(node: Node) -> Seen:
    return Seen(node.kind, node.mode, node.uid, node.gid, node.content, node.target, node.xattrs)


def in_memory(made: Tree) -> dict[bytes, Seen]:
    """Every path of a tree that was never unpacked."""
    return {
        path: Seen(
            _LETTERS[facts.kind],
            0o777 if facts.kind is Kind.SYMLINK else facts.mode,  # Linux has no other for links
            facts.uid,
            facts.gid,
            facts.content,
            facts.link if facts.kind is Kind.SYMLINK else b"",
            tuple((os.fsdecode(key), value) for key, value in facts.xattrs),
        )
        for path, facts in made.files()
    }
