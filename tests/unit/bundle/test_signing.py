"""Signatures over the inventory: only the right key over the right bytes passes, all else fails."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from support.bundle_images import all_of, opened, put_image, written
from support.trust_keys import KINDS, save

from ocitool.bundle import gather
from ocitool.bundle.signing import KeySigner, check_signature
from ocitool.bundle.verification import verify
from ocitool.digest import Digest
from ocitool.errors import IntegrityError, InvalidContent, NotFound, OciError, Unsupported
from ocitool.layout.index import blob_path
from ocitool.memory import MemoryStore

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=KINDS)
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    return save(tmp_path / "keys", KINDS[request.param]())


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    put_image(store, b"base", tag="app:1")
    return store


class Fixed:
    """A signer that says what it is told."""

    def __init__(self, document: bytes) -> None:
        self.document = document

    def sign(self, document: bytes, /) -> bytes:
        return self.document


def signature_of(private: Path, document: bytes, **changes: str) -> Fixed:
    fields = json.loads(KeySigner(private).sign(document))
    return Fixed(json.dumps({**fields, **changes}).encode())


def failing(
    store: MemoryStore,
    public: Path,
    *signers: Any,
    error: type[OciError] = IntegrityError,
    match: str | None = None,
) -> None:
    with opened(bundle_of_signed(store, *signers)) as bundle, pytest.raises(error, match=match):
        check_signature(bundle, public)


def bundle_of_signed(store: MemoryStore, *signers: Any) -> bytes:
    return written(gather(all_of(store)), signers=signers)


def test_what_was_signed_passes_and_is_no_fault(store: MemoryStore, keys: tuple[Path, Path]) -> None:
    private, public = keys
    with opened(bundle_of_signed(store, KeySigner(private))) as bundle:
        assert check_signature(bundle, public).startswith("sha256:")
        assert verify(bundle) == []


def test_one_of_several_signatures_is_enough(
    store: MemoryStore, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    other, _ = save(tmp_path / "other", ed25519.Ed25519PrivateKey.generate())
    with opened(bundle_of_signed(store, KeySigner(other), KeySigner(keys[0]))) as bundle:
        check_signature(bundle, keys[1])


def test_sg_01_a_bundle_without_a_signature_fails(store: MemoryStore, keys: tuple[Path, Path]) -> None:
    failing(store, keys[1], match="is not signed$")


def test_sg_01_a_signature_by_another_key_fails(
    store: MemoryStore, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    other, _ = save(tmp_path / "other", ed25519.Ed25519PrivateKey.generate())
    failing(store, keys[1], KeySigner(other), match="is not signed by the key")


def test_sg_02_a_signature_of_another_bundle_fails(store: MemoryStore, keys: tuple[Path, Path]) -> None:
    stolen = signature_of(keys[0], b"another inventory")
    failing(store, keys[1], stolen, match="something has changed its inventory since")


def test_sg_02_a_changed_inventory_fails_even_where_its_digest_was_made_to_fit(
    store: MemoryStore, keys: tuple[Path, Path]
) -> None:
    with opened(bundle_of_signed(store, KeySigner(keys[0]))) as bundle:
        stolen = Fixed(bundle.read(blob_path(bundle.signatures[0]), 10_000))
    put_image(store, b"evil", tag="app:1")
    failing(store, keys[1], stolen, match="something has changed")


def test_sg_03_more_signatures_than_anyone_needs_are_not_read(
    store: MemoryStore, keys: tuple[Path, Path]
) -> None:
    failing(store, keys[1], *(Fixed(b'{"n":%d}' % n) for n in range(17)), match="has 17 signatures")
    failing(store, keys[1], Fixed(b" " * 70_000), error=OciError, match="at most 65536 are read")


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"mediaType":"application/json","algorithm":"ed25519","keyId":"x","signature":""}',
        b'{"mediaType":"application/vnd.ocitool.signature.v1+json","algorithm":"ed25519","keyId":1,"signature":""}',
        b'{"mediaType":"application/vnd.ocitool.signature.v1+json","algorithm":"ed25519","keyId":"x","signature":"?"}',
    ],
)
def test_sg_07_a_signature_that_cannot_be_read_fails(
    store: MemoryStore, keys: tuple[Path, Path], document: bytes
) -> None:
    failing(store, keys[1], Fixed(document), KeySigner(keys[0]), error=InvalidContent)


def test_sg_07_the_key_decides_on_the_algorithm(store: MemoryStore, keys: tuple[Path, Path]) -> None:
    document = gather(all_of(store)).inventory.dump()
    for algorithm in ("none", "", "rsa"):
        failing(
            store, keys[1], signature_of(keys[0], document, algorithm=algorithm), match="but the key is for"
        )
    empty = signature_of(keys[0], document, signature="")
    failing(store, keys[1], empty, match="something has changed")


def test_sg_07_a_damaged_signature_fails(store: MemoryStore, keys: tuple[Path, Path]) -> None:
    raw = bundle_of_signed(store, KeySigner(keys[0]))
    at = raw.index(b'{"mediaType":"application/vnd.ocitool.signature')
    with (
        opened(raw[: at + 5] + b"X" + raw[at + 6 :]) as bundle,
        pytest.raises(IntegrityError, match="is damaged"),
    ):
        check_signature(bundle, keys[1])


def test_a_signature_by_ed25519_is_the_same_every_time(store: MemoryStore, tmp_path: Path) -> None:
    private, _ = save(tmp_path / "keys", ed25519.Ed25519PrivateKey.generate())
    assert bundle_of_signed(store, KeySigner(private)) == bundle_of_signed(store, KeySigner(private))


def test_keys_that_cannot_be_used_are_told(store: MemoryStore, tmp_path: Path) -> None:
    private, public = save(tmp_path / "rsa", rsa.generate_private_key(65537, 2048))
    with pytest.raises(Unsupported, match="another kind than Ed25519 and ECDSA"):
        KeySigner(private)
    failing(store, public, error=Unsupported)
    (tmp_path / "text").write_text("no key")
    with pytest.raises(InvalidContent, match="no private key"):
        KeySigner(tmp_path / "text")
    failing(store, tmp_path / "text", error=InvalidContent, match="no public key")
    failing(store, tmp_path / "nowhere", error=NotFound, match="can't be read")
    failing(store, tmp_path, error=OciError, match="Is a directory")
    locked, public = save(tmp_path / "locked", ed25519.Ed25519PrivateKey.generate(), b"secret")
    with pytest.raises(InvalidContent, match="is encrypted, and needs a password"):
        KeySigner(locked)
    with pytest.raises(InvalidContent, match="its password is another"):
        KeySigner(locked, lambda: b"wrong")
    with opened(bundle_of_signed(store, KeySigner(locked, lambda: b"secret"))) as bundle:
        check_signature(bundle, public)


def test_openssl_agrees(store: MemoryStore, tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.fail("not installed: openssl")
    private, public = save(tmp_path / "keys", ec.generate_private_key(ec.SECP256R1()))
    with opened(bundle_of_signed(store, KeySigner(private))) as bundle:
        fields = json.loads(bundle.read(blob_path(bundle.signatures[0]), 10_000))
        (tmp_path / "inventory").write_bytes(bundle.inventory_bytes)
        assert Digest.of(bundle.inventory_bytes) == bundle.inventory_digest
    (tmp_path / "signature").write_bytes(base64.b64decode(fields["signature"]))
    command: list[str | Path] = [
        "openssl",
        "dgst",
        "-sha256",
        "-verify",
        public,
        "-signature",
        tmp_path / "signature",
    ]
    done = subprocess.run([*command, tmp_path / "inventory"], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "Verified OK", done.stderr
