"""Signatures over a bundle's inventory, which holds the digest of everything else (Ed25519 or ECDSA).

What is signed is the inventory's bytes and nothing else, so `openssl` can check a signature too.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final, Protocol

from ocitool import limits, strictjson
from ocitool.digest import Digest
from ocitool.errors import IntegrityError, InvalidContent, NotFound, OciError, Unsupported
from ocitool.layout.index import blob_path

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    from ocitool.bundle.source import BundleSource

    PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
    PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey

MEDIA_TYPE: Final = "application/vnd.ocitool.signature.v1+json"
_ED25519: Final = "ed25519"
_ECDSA: Final = "ecdsa-sha256"
_SIGNATURE_BYTES: Final = 64 << 10
_MAX_SIGNATURES: Final = 16


class Signer(Protocol):
    """Something that signs documents."""

    def sign(self, document: bytes, /) -> bytes:
        """A signature document."""
        ...


class KeySigner:
    """Signs with a private key from a PEM file."""

    def __init__(self, path: Path, password: bytes | None = None) -> None:
        """Read the key.

        Raises:
            NotFound: there is no such file.
            InvalidContent: it holds no private key, or needs a password.
            Unsupported: the key is of another kind than Ed25519 and ECDSA.
        """
        self._key = _private_key(path, password)

    def sign(self, document: bytes, /) -> bytes:
        """See `Signer`."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            algorithm, signature = _ECDSA, self._key.sign(document, ec.ECDSA(hashes.SHA256()))
        else:
            algorithm, signature = _ED25519, self._key.sign(document)
        return strictjson.dumps(
            {
                "mediaType": MEDIA_TYPE,
                "algorithm": algorithm,
                "keyId": _key_id(self._key.public_key()),
                "signature": base64.b64encode(signature).decode(),
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
    public = _public_key(key)
    wanted = _key_id(public)
    digests = bundle.signatures
    if not digests:
        raise IntegrityError(f"{bundle.name} is not signed")
    if len(digests) > _MAX_SIGNATURES:
        raise IntegrityError(
            f"{bundle.name} has {len(digests)} signatures; at most {_MAX_SIGNATURES} are read"
        )
    for digest in digests:
        algorithm, key_id, signature = _read(bundle, digest)
        if key_id == wanted:
            _check(public, algorithm, signature, bundle)
            return key_id
    raise IntegrityError(f"{bundle.name} is not signed by the key {key}", expected=wanted)


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
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    document = bundle.inventory_bytes
    try:
        # The key decides how to check; what the document says has to agree.
        if isinstance(public, ec.EllipticCurvePublicKey):
            _agree(algorithm, _ECDSA)
            public.verify(signature, document, ec.ECDSA(hashes.SHA256()))
        else:
            _agree(algorithm, _ED25519)
            public.verify(signature, document)
    except InvalidSignature as error:
        raise IntegrityError(
            f"the signature of {bundle.name} is wrong: something has changed its inventory since"
        ) from error


def _agree(algorithm: str, wanted: str) -> None:
    if algorithm != wanted:
        raise IntegrityError(f"a signature says that it is {algorithm!r:.40}, but the key is for {wanted}")


def _key_id(public: PublicKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return str(Digest.of(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)))


def _private_key(path: Path, password: bytes | None) -> PrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    try:
        key: Any = serialization.load_pem_private_key(_pem(path), password)
    except TypeError as error:
        raise InvalidContent(f"the key {path} and its password: {error}") from error
    except ValueError as error:
        raise InvalidContent(f"{path} holds no private key in PEM, or its password is another") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise _unsupported(path)
    return key


def _public_key(path: Path) -> PublicKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    try:
        key: Any = serialization.load_pem_public_key(_pem(path))
    except ValueError as error:
        raise InvalidContent(f"{path} holds no public key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        raise _unsupported(path)
    return key


def _unsupported(path: Path) -> OciError:
    return Unsupported(f"{path} is a key of another kind than Ed25519 and ECDSA")


def _pem(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limits.MIB)
    except OSError as error:
        kind = NotFound if isinstance(error, FileNotFoundError) else OciError
        raise kind(f"the key {path} can't be read: {error.strerror or error}") from error
