"""Digests: the names of content (image-spec, descriptor.md, "Digests")."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ocitool.errors import InvalidDigest, Unsupported

if TYPE_CHECKING:
    from hashlib import _Hash

# "When the _algorithm identifier_ is `sha256`, the _encoded_ portion MUST match `/[a-f0-9]{64}/`."
# "When the _algorithm identifier_ is `sha512`, the _encoded_ portion MUST match `/[a-f0-9]{128}/`."
# Both times: "Note that `[A-F]` MUST NOT be used here."
_HEX_LENGTH: Final = {"sha256": 64, "sha512": 128}
# "A digest string MUST match the following [grammar](considerations.md#ebnf)". Digests of algorithms that are
# not registered follow it and are still refused: content that can't be verified is not handled.
_GRAMMAR: Final = re.compile(r"([a-z0-9]+(?:[+._-][a-z0-9]+)*):([a-zA-Z0-9=_-]+)")
_HEX: Final = re.compile(r"[a-f0-9]+")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """An algorithm and its value in hexadecimal; cannot be built invalid.

    Because of that a Digest is safe as a file name and in a URL.
    """

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        length = _HEX_LENGTH.get(self.algorithm)
        if length is None:
            raise Unsupported(
                f"digest algorithm {self.algorithm!r:.60} is not supported",
                hint="the registered algorithms are sha256 and sha512",
            )
        if len(self.hex) != length or not _HEX.fullmatch(self.hex):
            raise InvalidDigest(
                f"{self.algorithm}:{self.hex!r:.160} is not a digest: {length} lower-case hexadecimal digits"
                f" follow {self.algorithm}:"
            )

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `algorithm:encoded`.

        Raises:
            InvalidDigest: the text does not follow the grammar.
            Unsupported: the grammar is followed, with an algorithm that is not registered.
        """
        match = _GRAMMAR.fullmatch(text)
        if match is None:
            raise InvalidDigest(
                f"{text!r:.160} is not a digest", hint="a digest reads sha256:<64 hexadecimal digits>"
            )
        return cls(match[1], match[2])

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of bytes in memory."""
        hasher = new_hasher(algorithm)
        hasher.update(data)
        return cls(algorithm, hasher.hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @property
    def short(self) -> str:
        """The first twelve digits, as people read them."""
        return self.hex[:12]


def new_hasher(algorithm: str) -> _Hash:
    """A fresh hash object of a registered algorithm.

    Raises:
        Unsupported: the algorithm is not registered.
    """
    if algorithm not in _HEX_LENGTH:
        raise Unsupported(f"digest algorithm {algorithm!r:.60} is not supported")
    return hashlib.new(algorithm, usedforsecurity=False)
