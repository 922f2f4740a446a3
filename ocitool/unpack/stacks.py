"""Bundles whose root file system is yet to be mounted: which layers make it, beside config.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ocitool import jsontypes, strictjson
from ocitool.errors import InvalidContent, NotFound

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
            NotFound: a layer is not in its cache any more.
        """
        what = f"{bundle / FILE}"
        try:
            raw = (bundle / FILE).read_bytes()
        except FileNotFoundError:
            return None
        document = strictjson.load_object(raw, what)
        stack = cls(
            tuple(Path(path) for path in jsontypes.strings(document, "lowers", what)),
            Path(jsontypes.string(document, "root", what)),
            document.get("userxattr") is True,
        )
        if not stack.lowers:
            raise InvalidContent(f"{what} names no layer")
        for path in stack.lowers:
            if not path.is_dir():
                raise NotFound(f"the layer {path} of {bundle} is gone", hint="unpack the image again")
        return stack


def in_use(bundles: Path) -> Iterator[Path]:
    """Every layer that a bundle in a directory of bundles names."""
    for document in bundles.glob(f"*/{FILE}"):
        stack = Stack.load(document.parent)
        yield from stack.lowers if stack else ()
