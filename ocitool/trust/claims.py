"""What a signature says of an image, and whether that is what is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ocitool import jsontypes
from ocitool.errors import InvalidContent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ocitool.digest import Digest
    from ocitool.trust.keys import PublicKey


@dataclass(frozen=True, slots=True)
class Claims:
    """What somebody has signed.

    Attributes:
        digests: the manifest's; some forms can name several.
        identity: what the signer calls the image, or "".
        annotations: what else the signer says of it.
    """

    digests: frozenset[str]
    identity: str
    annotations: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that is kept as a signature of an image: nobody has looked yet whether it is one.

    Attributes:
        media_type: its form.
        signature: the signature itself.
        document: the bytes that it should be of.
        read: what the document says. Raises InvalidContent; to be asked once the signature is right.
    """

    media_type: str
    signature: bytes
    document: bytes
    read: Callable[[], Claims]


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that a key and a policy have accepted."""

    key: PublicKey
    media_type: str
    claims: Claims


@dataclass(frozen=True, slots=True)
class Policy:
    """Whose signatures an image needs, and what they have to say.

    Attributes:
        keys: the keys of those who have to have signed.
        every: whether it takes the signatures of all of them; one is enough otherwise.
        annotations: what each signature has to say, among other things. This is the hook against older
            images that were signed too: have a version, or an expiry, signed and ask for it.
        identity: what each signature has to call the image; "" for anything, as copies have other names.
    """

    keys: tuple[PublicKey, ...]
    every: bool = True
    annotations: Mapping[str, str] = field(default_factory=lambda: jsontypes.NOTHING)
    identity: str = ""

    def objection(self, claims: Claims, digest: Digest) -> str:
        """Why a signature is not good enough for a manifest, or ""."""
        if str(digest) not in claims.digests:
            return f"it is of {', '.join(sorted(claims.digests)) or 'nothing':.200}"
        if self.identity and claims.identity != self.identity:
            return f"it calls the image {claims.identity!r:.200}, not {self.identity}"
        for name, value in self.annotations.items():
            if claims.annotations.get(name) != value:
                return f"it does not say {name}={value}"
        return ""


def text(value: Any, *path: str, what: str) -> str:
    """A string inside nested objects.

    Raises:
        InvalidContent: there is none.
    """
    *parents, key = path
    for parent in parents:
        value = jsontypes.mapping(jsontypes.mapping(value, what).get(parent), f"{parent} of {what}")
    return jsontypes.string(jsontypes.mapping(value, what), key, what)


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    """An object that may be null or absent, and is empty then.

    Raises:
        InvalidContent: it is something else.
    """
    if value is not None and not isinstance(value, dict):
        raise InvalidContent(f"{what} is not an object")
    return value or {}
