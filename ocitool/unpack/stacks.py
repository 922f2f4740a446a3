"""Bundles whose root file system is yet to be mounted: which layers make it, beside config.json.

Nothing is imported for it that costs time: whoever runs an image that is unpacked already reads one first.
"""

from __future__ import annotations

from ocitool.errors import InvalidContent, NotFound, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike
    from typing import Any

FILE = "layers.json"


class Stack:
    """An image's layers in a cache.

    Attributes:
        lowers: directories for an overlay mount's `lowerdir`, the highest first.
        root: the one of them whose own mode, owner and time the mounted root has to get.
        userxattr: whether the mount needs the option `userxattr`, as one without privilege does.
    """

    __slots__ = ("lowers", "root", "userxattr")

    def __init__(self, lowers: tuple[str, ...], root: str, *, userxattr: bool) -> None:
        self.lowers = lowers
        self.root = root
        self.userxattr = userxattr

    def save(self, bundle: str | PathLike[str]) -> None:
        """Write it into a bundle.

        Raises:
            Unsupported: the layers are in a place whose name JSON can't hold.
        """
        from ocitool import strictjson

        document = {"lowers": list(self.lowers), "root": self.root, "userxattr": self.userxattr}
        try:
            raw = strictjson.dumps(document)
        except UnicodeEncodeError as error:
            raise Unsupported(
                f"layers can't be kept in {self.root}: the path is not UTF-8",
                hint="name another place with --store or --layer-cache",
            ) from error
        with open(f"{bundle}/{FILE}", "wb") as file:
            file.write(raw)

    @classmethod
    def load(cls, bundle: str | PathLike[str]) -> Stack | None:
        """The layers that a bundle names; None for a bundle that has its root file system itself.

        Raises:
            InvalidContent: the document is none.
        """
        from ocitool import strictjson

        what = f"{bundle}/{FILE}"
        try:
            with open(what, "rb") as file:
                raw = file.read()
        except FileNotFoundError:
            return None
        return cls.of(strictjson.loads(raw, what), what)

    @classmethod
    def of(cls, document: Any, what: str) -> Stack:
        """The layers that a parsed document names.

        Raises:
            InvalidContent: it names none.
        """
        fields = document if isinstance(document, dict) else {}
        lowers, root = fields.get("lowers"), fields.get("root")
        listed = isinstance(lowers, list) and all(isinstance(path, str) for path in lowers)
        if not (listed and lowers and isinstance(root, str)):
            raise InvalidContent(f"{what} names no layers")
        return cls(tuple(lowers), root, userxattr=fields.get("userxattr") is True)

    def check(self) -> None:
        """Make sure that the layers are there.

        Raises:
            NotFound: one is not in its cache any more.
        """
        from os.path import isdir

        for path in self.lowers:
            if not isdir(path):
                raise NotFound(f"the unpacked layer {path} is gone", hint="unpack the image again")
