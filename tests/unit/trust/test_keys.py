"""Keys: which are read, and what is said of those that are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from support.trust_keys import KINDS, save

from ocitool.errors import InvalidContent, NotFound, Unsupported
from ocitool.trust import PrivateKey, PublicKey


def unasked() -> bytes:
    raise AssertionError


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_key_signs_its_public_half_verifies_and_nothing_else(tmp_path: Path, kind: str) -> None:
    private, public = save(tmp_path, KINDS[kind]())
    key, reader = PrivateKey.read(private, unasked), PublicKey.read(public)
    signature = key.sign(b"document")
    assert key.public.id == reader.id
    assert reader.verifies(signature, b"document")
    for wrong in (b"", b"\0", signature[:-1], signature + b"\0", b"\0" * 64):
        assert not reader.verifies(wrong, b"document")
    assert not reader.verifies(signature, b"another")


def test_a_key_in_the_older_form_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    assert path.read_bytes().startswith(b"-----BEGIN EC PRIVATE KEY-----")
    PrivateKey.read(path)


def test_a_password_is_asked_for_only_where_the_key_has_one(tmp_path: Path) -> None:
    private, _ = save(tmp_path, KINDS["p256"](), b"secret")
    PrivateKey.read(private, lambda: b"secret")
    with pytest.raises(InvalidContent, match="its password is another"):
        PrivateKey.read(private, lambda: b"wrong")
    with pytest.raises(InvalidContent, match="is encrypted, and needs a password"):
        PrivateKey.read(private)


@pytest.mark.parametrize("kind", ["SIGSTORE", "COSIGN"])
def test_a_key_that_cosign_has_encrypted_is_refused_with_what_helps(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cosign.key"
    path.write_text(f"-----BEGIN ENCRYPTED {kind} PRIVATE KEY-----\nAAAA\n")
    with pytest.raises(Unsupported, match="encrypted in a way of cosign's own") as error:
        PrivateKey.read(path, unasked)
    assert "import-key-pair" in error.value.hint


def test_what_is_no_key_of_these_kinds_is_told(tmp_path: Path) -> None:
    private, public = save(tmp_path, rsa.generate_private_key(65537, 2048))
    for path, read in ((private, PrivateKey.read), (public, PublicKey.read)):
        with pytest.raises(Unsupported, match="another kind than Ed25519 and ECDSA"):
            read(path)
    for path, read in ((public, PrivateKey.read), (private, PublicKey.read)):
        with pytest.raises(InvalidContent, match="holds no"):
            read(path)
    with pytest.raises(NotFound, match="can't be read"):
        PublicKey.read(tmp_path / "nowhere")
