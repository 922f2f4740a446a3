"""Bundles whose root file system is yet to be mounted: which layers make it, beside config.json."""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ocitool import jsontypes, strictjson
from ocitool.errors import InvalidContent, NotFound
from ocitool.unpack.root import OPEN_DIRECTORY, Root
from ocitool.unpack.union import Union

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE: Final = "layers.json"


@dataclass(frozen=True, slots=True)
class Stack:
    """An image's layers in a cache.

    Attributes:
        lowers: directories for an overlay mount's `lowerdir`, the highest first.
        root: the one of them whose own mode, owner and time the mounted root has to get.
        userxattr: whether the mount needs the option `userxattr`, as one without privilege does.
    """

    lowers: tuple[Path, ...]
    root: Path
    userxattr: bool

    def save(self, bundle: Path) -> None:
        """Write it into a bundle."""
        document = {
            "lowers": [str(path) for path in self.lowers],
            "root": str(self.root),
            "userxattr": self.userxattr,
        }
        (bundle / FILE).write_bytes(strictjson.dumps(document))

    @classmethod
    def load(cls, bundle: Path) -> Stack | None:
        """The layers that a bundle names; None for a bundle that has its root file system itself.

        Raises:
            InvalidContent: the document is none.
        """
        what = f"{bundle / FILE}"
        try:
            raw = (bundle / FILE).read_bytes()
        except FileNotFoundError:
            return None
        document = strictjson.load_object(raw, what)
        lowers = tuple(Path(path) for path in jsontypes.strings(document, "lowers", what))
        if not lowers:
            raise InvalidContent(f"{what} names no layer")
        root = Path(jsontypes.string(document, "root", what))
        return cls(lowers, root, document.get("userxattr") is True)

    def check(self) -> None:
        """Make sure that the layers are there.

        Raises:
            NotFound: one is not in its cache any more.
        """
        for path in self.lowers:
            if not path.is_dir():
                raise NotFound(f"the unpacked layer {path} is gone", hint="unpack the image again")


@contextmanager
def opened(bundle: Path) -> Iterator[Root | Union]:
    """The root file system of a bundle, to be looked at, wherever it is."""
    stack = Stack.load(bundle)
    tree: Root | Union
    if stack:
        stack.check()
        tree = Union(stack.lowers, userxattr=stack.userxattr)
    else:
        tree = Root(os.open(bundle / "rootfs", OPEN_DIRECTORY))
    with closing(tree):
        yield tree
