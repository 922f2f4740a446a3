"""Signatures over a bundle's inventory, which holds the digest of everything else (Ed25519 or ECDSA).

What is signed is the inventory's bytes and nothing else, so `openssl` can check a signature too.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final, Protocol

from ocitool import strictjson
from ocitool.digest import Digest
from ocitool.errors import IntegrityError, InvalidContent
from ocitool.layout.index import blob_path
from ocitool.trust.keys import PrivateKey, PublicKey

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ocitool.bundle.source import BundleSource

MEDIA_TYPE: Final = "application/vnd.ocitool.signature.v1+json"
_SIGNATURE_BYTES: Final = 64 << 10
_MAX_SIGNATURES: Final = 16


class Signer(Protocol):
    """Something that signs documents."""

    def sign(self, document: bytes, /) -> bytes:
        """A signature document."""
        ...


class KeySigner:
    """Signs with a private key from a PEM file."""

    def __init__(self, path: Path, password: Callable[[], bytes] | None = None) -> None:
        """Read the key.

        Raises:
            OciError: as `PrivateKey.read`.
        """
        self._key = PrivateKey.read(path, password)

    def sign(self, document: bytes, /) -> bytes:
        """See `Signer`."""
        return strictjson.dumps(
            {
                "mediaType": MEDIA_TYPE,
                "algorithm": self._key.public.algorithm,
                "keyId": self._key.public.id,
                "signature": base64.b64encode(self._key.sign(document)).decode(),
            }
        )


def check_signature(bundle: BundleSource, key: Path) -> str:
    """Make sure that a key's owner has signed a bundle's inventory. Everything unexpected is a failure.

    The signature says nothing about content by itself: the inventory does, and `verify` compares it.

    Args:
        bundle: the bundle.
        key: a file with the public key, in PEM.

    Returns:
        The key's identity, as it stands in the signature.

    Raises:
        IntegrityError: the bundle is not signed by this key, or was changed afterwards.
        NotFound, InvalidContent, Unsupported: the key can't be used.
    """
    public = PublicKey.read(key)
    digests = bundle.signatures
    if not digests:
        raise IntegrityError(f"{bundle.name} is not signed")
    if len(digests) > _MAX_SIGNATURES:
        raise IntegrityError(
            f"{bundle.name} has {len(digests)} signatures; at most {_MAX_SIGNATURES} are read"
        )
    for digest in digests:
        algorithm, key_id, signature = _read(bundle, digest)
        if key_id == public.id:
            _check(public, algorithm, signature, bundle)
            return key_id
    raise IntegrityError(f"{bundle.name} is not signed by the key {key}", expected=public.id)


def _read(bundle: BundleSource, digest: Digest) -> tuple[str, str, bytes]:
    what = f"signature {digest} of {bundle.name}"
    raw = bundle.read(blob_path(digest), _SIGNATURE_BYTES)
    if Digest.of(raw, digest.algorithm) != digest:
        raise IntegrityError(f"{what} is damaged", expected=str(digest))
    fields = strictjson.load_object(raw, what)
    values = [fields.get(key) for key in ("mediaType", "algorithm", "keyId", "signature")]
    if values[0] != MEDIA_TYPE or not all(isinstance(value, str) for value in values):
        raise InvalidContent(f"{what} is no signature")
    try:
        return str(values[1]), str(values[2]), base64.b64decode(str(values[3]), validate=True)
    except binascii.Error as error:
        raise InvalidContent(f"{what} is not base64") from error


def _check(public: PublicKey, algorithm: str, signature: bytes, bundle: BundleSource) -> None:
    # The key decides how to check; what the document says has to agree.
    if algorithm != public.algorithm:
        raise IntegrityError(
            f"a signature says that it is {algorithm!r:.40}, but the key is for {public.algorithm}"
        )
    if not public.verifies(signature, bundle.inventory_bytes):
        raise IntegrityError(
            f"the signature of {bundle.name} is wrong: something has changed its inventory since"
        )
