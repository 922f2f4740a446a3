"""Keys for tests, and signatures that say what they are told."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from support.stores import put, put_json

from ocitool import mediatypes
from ocitool.trust import PrivateKey, dsse, simplesigning

if TYPE_CHECKING:
    from pathlib import Path

    from ocitool.memory import MemoryStore
    from ocitool.model import Descriptor

KINDS: dict[str, Any] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
}


def save(directory: Path, key: Any, password: bytes = b"", name: str = "key") -> tuple[Path, Path]:
    """Write a key and its public half."""
    directory.mkdir(exist_ok=True, parents=True)
    private, public = directory / f"{name}.pem", directory / f"{name}.pub"
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def made(name: str = "key", kind: str = "p256") -> PrivateKey:
    """A new key of somebody's."""
    return PrivateKey(KINDS[kind](), name)


def payload(digest: object, **changes: Any) -> bytes:
    """What cosign signs; `changes` are of what is critical, and `optional` of what is not."""
    optional = changes.pop("optional", None)
    critical = {
        "identity": {"docker-reference": "example.test/app"},
        "image": {"docker-manifest-digest": str(digest)},
        "type": "cosign container image signature",
        **changes,
    }
    return json.dumps({"critical": critical, "optional": optional}).encode()


def keep(
    store: MemoryStore, subject: Descriptor, *signatures: tuple[bytes, bytes | str], **more: str
) -> Descriptor:
    """Put documents and their signatures where cosign looks for them; `more` are annotations of each."""
    layers = []
    for document, signature in signatures:
        text = signature if isinstance(signature, str) else base64.b64encode(signature).decode()
        desc = put(
            store, simplesigning.MEDIA_TYPE, document, annotations={simplesigning.SIGNATURE: text, **more}
        )
        layers.append(desc.to_json())
    desc = put_json(store, mediatypes.OCI_MANIFEST, _manifest(store, layers))
    store.tag(desc, simplesigning.tag_of(subject.digest))
    return desc


def _manifest(store: MemoryStore, layers: list[Any], **fields: Any) -> dict[str, Any]:
    config = put(store, mediatypes.OCI_EMPTY, b"{}").to_json()
    return {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": config,
        "layers": layers,
        **fields,
    }


def statement(digest: Any, **changes: Any) -> dict[str, Any]:
    """What newer versions of cosign sign."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {digest.algorithm: digest.hex}}],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
        **changes,
    }


def bundle(key: PrivateKey, document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A statement in a bundle as cosign attaches it."""
    raw, kind = json.dumps(document).encode(), "application/vnd.in-toto+json"
    signature = key.sign(dsse.encoded(kind, raw))
    return {
        "mediaType": dsse.MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": "anything"}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(raw).decode(),
            "payloadType": kind,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": "anything"}],
        },
        **changes,
    }


def attach(
    store: MemoryStore, subject: Descriptor, document: object, kind: str = dsse.MEDIA_TYPE
) -> Descriptor:
    """Have a document refer to an image."""
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    layers = [put(store, kind, raw).to_json()]
    fields = {"artifactType": kind, "subject": subject.to_json()}
    return put_json(store, mediatypes.OCI_MANIFEST, _manifest(store, layers, **fields))
