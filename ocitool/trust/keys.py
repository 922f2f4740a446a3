"""Keys in PEM files, and what is signed with them: Ed25519, or ECDSA with SHA-256.

The key decides on the algorithm; what a document says of it decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

from ocitool import limits
from ocitool.digest import Digest
from ocitool.errors import InvalidContent, NotFound, OciError, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

ED25519: Final = "ed25519"
ECDSA: Final = "ecdsa-sha256"
_COSIGN: Final = (
    b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----",
    b"-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----",
)


class PublicKey:
    """A key that signatures are checked with.

    Attributes:
        name: how to call it in a message.
        id: the digest of its SubjectPublicKeyInfo in DER.
        algorithm: `ED25519` or `ECDSA`.
    """

    def __init__(self, key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey, name: str) -> None:
        """Wrap a key of the library's; see `read`."""
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        self._key = key
        self.name = name
        self.id = str(Digest.of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)))
        self.algorithm = ECDSA if isinstance(key, ec.EllipticCurvePublicKey) else ED25519

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a public key.

        Raises:
            NotFound: there is no such file.
            InvalidContent: it holds no public key.
            Unsupported: the key is of another kind than Ed25519 and ECDSA.
        """
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519

        try:
            key: Any = serialization.load_pem_public_key(_pem(path))
        except ValueError as error:
            raise InvalidContent(f"{path} holds no public key in PEM") from error
        if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
            raise _unsupported(path)
        return cls(key, str(path))

    def verifies(self, signature: bytes, document: bytes) -> bool:
        """Whether the key's owner has signed exactly these bytes."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            if isinstance(self._key, ec.EllipticCurvePublicKey):
                self._key.verify(signature, document, ec.ECDSA(hashes.SHA256()))
            else:
                self._key.verify(signature, document)
        except InvalidSignature:
            return False
        return True


class PrivateKey:
    """A key that documents are signed with.

    Attributes:
        public: the key that its signatures are checked with.
    """

    def __init__(self, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, name: str) -> None:
        """Wrap a key of the library's; see `read`."""
        self._key = key
        self.public = PublicKey(key.public_key(), name)

    @classmethod
    def read(cls, path: Path, password: Callable[[], bytes] | None = None) -> Self:
        """Read a private key.

        Args:
            path: a file with the key in PKCS#8 or SEC1.
            password: is asked only where the key is encrypted.

        Raises:
            NotFound: there is no such file.
            InvalidContent: it holds no private key, or its password is another or not given.
            Unsupported: the key is of another kind than Ed25519 and ECDSA, or encrypted in cosign's own way.
        """
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519

        pem = _pem(path)
        if pem.lstrip().startswith(_COSIGN):
            raise Unsupported(
                f"{path} is encrypted in a way of cosign's own, which ocitool does not read",
                hint="make a key in PEM (openssl genpkey); `cosign import-key-pair --key` takes it as well",
            )
        try:
            try:
                key: Any = serialization.load_pem_private_key(pem, None)
            except TypeError as error:
                if password is None:
                    raise InvalidContent(f"the key {path} is encrypted, and needs a password") from error
                key = serialization.load_pem_private_key(pem, password())
        except ValueError as error:
            raise InvalidContent(f"{path} holds no private key in PEM, or its password is another") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
            raise _unsupported(path)
        return cls(key, str(path))

    def sign(self, document: bytes) -> bytes:
        """A signature over these bytes; one by ECDSA is another one each time."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(document, ec.ECDSA(hashes.SHA256()))
        return self._key.sign(document)


def _unsupported(path: Path) -> OciError:
    return Unsupported(f"{path} is a key of another kind than Ed25519 and ECDSA")


def _pem(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limits.MIB)
    except OSError as error:
        kind = NotFound if isinstance(error, FileNotFoundError) else OciError
        raise kind(f"the key {path} can't be read: {error.strerror or error}") from error
